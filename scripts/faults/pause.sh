#!/usr/bin/env bash
# Stops a node with SIGSTOP.
#   scripts/faults/pause.sh --pid 4711 --for 10s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" pause "$@"
