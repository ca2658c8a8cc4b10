#!/usr/bin/env bash
# Undoes whatever was done to a node that runs.
#   scripts/faults/heal.sh --pid 4711
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" heal "$@"
