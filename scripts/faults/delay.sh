#!/usr/bin/env bash
# Lets what a node sends wait.
#   scripts/faults/delay.sh --pid 4711 --delay 20ms --jitter 80ms --for 30s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" delay "$@"
