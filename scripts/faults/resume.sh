#!/usr/bin/env bash
# Lets a paused node go on.
#   scripts/faults/resume.sh --pid 4711
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" resume "$@"
