#!/usr/bin/env bash
# Lets a node's fsyncs fail; the node should stop.
#   scripts/faults/fsyncfail.sh --pid 4711 --for 10s
# --help has more, --dry-run prints what would be done.
exec "$(dirname "${BASH_SOURCE[0]}")/fault" fsyncfail "$@"
