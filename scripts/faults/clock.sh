#!/usr/bin/env bash
# Sets the wall clock of a node wrong that was started under libfaketime.
#   scripts/faults/clock.sh --pid 4711 --offset 120 --for 30s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" clock "$@"
