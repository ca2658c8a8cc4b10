#!/usr/bin/env bash
# Kills a node with SIGKILL.
#   scripts/faults/kill.sh --pid 4711
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" kill "$@"
