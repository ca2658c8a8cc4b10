#!/usr/bin/env bash
# Cuts the power of a node's disk and ends the node; start it again yourself.
#   scripts/faults/powercut.sh --pid 4711
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" powercut "$@"
