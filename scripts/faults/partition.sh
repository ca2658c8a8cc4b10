#!/usr/bin/env bash
# Cuts a node off from other nodes.
#   scripts/faults/partition.sh --pid 4711 --for 30s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" partition "$@"
