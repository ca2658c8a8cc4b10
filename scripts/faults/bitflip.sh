#!/usr/bin/env bash
# Flips a bit in a file of a stopped node.
#   scripts/faults/bitflip.sh --data-dir /srv/n1 --others 4712,4713 --what log
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" bitflip "$@"
