#!/bin/sh
# First program of the virtual machine: makes what an ordinary system has, then gives over to tests/vm/guest.py.
set -e
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev/shm || { mkdir -p /dev/shm; mount -t tmpfs -o mode=1777 tmpfs /dev/shm; }
mountpoint -q /run || mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777,size=1g tmpfs /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
hostname vm
for word in $(cat /proc/cmdline); do
    case $word in
        checkout=*) checkout=${word#checkout=} ;;
    esac
done
mkdir -p "$checkout"
mount -o rw,noatime /dev/vdb "$checkout"
cd "$checkout"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
exec .venv/bin/python tests/vm/guest.py
