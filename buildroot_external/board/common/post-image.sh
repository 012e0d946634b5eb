#!/bin/sh
# Hash tree, FIT, signature, ROM, disk: the same code and the same artefacts as the other build, in images/zentri.
exec "$(dirname -- "$0")/hook" post-image "$1" "$2"
