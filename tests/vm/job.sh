#!/bin/sh
# Runs the guest's job and switches the machine off. Started by init.sh, or by systemd as keytrail-job.service.
# Where the kernel's messages go, and what the job says: serial ports of x86, or of aarch64.
port=/dev/ttyS
[ ! -c /dev/ttyAMA0 ] || port=/dev/ttyAMA
echo "keytrail-vm: job starts at $(cut -d" " -f1 /proc/uptime) $(uname -r)" >"${port}0"
# Raw: the terminal must not turn \n into \r\n, nor echo.
stty -F "${port}1" raw -echo 2>/dev/null
cd /job || exit 1
mkdir -p /job/out
# The job gets its own session: what it does to its process group does not reach PID 1.
setsid -w sh /job/run.sh </dev/null >"${port}1" 2>&1
status=$?
sync
mount -o remount,ro / 2>/dev/null
# Everything written to ttyS1 must have left before the machine is gone.
stty -F "${port}1" raw -echo 2>/dev/null
echo "keytrail-vm: job ends at $(cut -d' ' -f1 /proc/uptime)" >"${port}0"
printf 'keytrail-vm: exit status %d\n' "$status" >"${port}0"
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
