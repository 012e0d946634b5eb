#!/bin/sh
# The last look at the target folder before it is packed: programs, modules, libraries.
exec "$(dirname -- "$0")/hook" post-build "$1" "$2"
