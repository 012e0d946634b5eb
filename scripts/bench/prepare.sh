#!/bin/sh
# Runs on the board, once after its start: makes the tools disk's Debian tree, mounted at /mnt, a place to run programs in.
# With the word `rauc`: RAUC's service and the D-Bus that it needs are started, too.
set -eu
mount -t tmpfs -o mode=0755,size=32m tmpfs /mnt/run
mount -t tmpfs -o mode=1777,size=64m tmpfs /mnt/tmp
for folder in dev proc sys data; do
    mount --bind "/$folder" "/mnt/$folder"
done
[ "${1:-}" = rauc ] || exit 0
mkdir -p /mnt/run/dbus /mnt/run/rauc
chroot /mnt /usr/bin/dbus-daemon --system --fork
chroot /mnt /usr/bin/rauc service > /mnt/run/rauc-service.log 2>&1 < /dev/null &
tries=0
until chroot /mnt /usr/bin/rauc status > /mnt/run/rauc-status.log 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -ge 30 ]; then
        cat /mnt/run/rauc-service.log /mnt/run/rauc-status.log >&2
        exit 1
    fi
    sleep 1
done
