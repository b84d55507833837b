#!/bin/sh
# PID 1 of the test guest (xtask/src/vm). The kernel's own messages and the result go to ttyS0, the job's
# output to ttyS1, so that neither garbles the other.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LANG=C.UTF-8 TERM=dumb

mount -t proc proc /proc
mount -t sysfs sys /sys
# The kernel mounts devtmpfs by itself where CONFIG_DEVTMPFS_MOUNT is set.
[ -c /dev/null ] || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp && chmod 1777 /tmp
mount -t tmpfs tmpfs /run
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpffs /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
# udev would make these; nginx and shells open them by name.
ln -sfn /proc/self/fd /dev/fd
for fd in 0:stdin 1:stdout 2:stderr; do ln -sfn "/proc/self/fd/${fd%%:*}" "/dev/${fd#*:}"; done
ip link set lo up
hostname keytrail-vm
ulimit -n 65536

exec /usr/sbin/keytrail-job
