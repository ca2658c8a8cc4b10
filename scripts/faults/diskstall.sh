#!/usr/bin/env bash
# Lets a node's writes wait.
#   scripts/faults/diskstall.sh --pid 4711 --for 5s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" diskstall "$@"
