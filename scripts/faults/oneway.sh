#!/usr/bin/env bash
# Cuts a node off from other nodes in one direction.
#   scripts/faults/oneway.sh --pid 4711 --direction in --for 30s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" oneway "$@"
