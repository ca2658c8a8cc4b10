#!/usr/bin/env bash
# Loses some of a node's packets.
#   scripts/faults/loss.sh --pid 4711 --percent 20 --for 1m
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" loss "$@"
