#!/usr/bin/env bash
# Fills a node's disk.
#   scripts/faults/diskfull.sh --pid 4711 --for 30s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" diskfull "$@"
