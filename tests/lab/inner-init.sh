#!/bin/busybox sh
# Init of the inner guest that tests boot: says it is up, obeys the power button, gives a shell on
# its console.
export PATH=/bin:/sbin
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t devtmpfs -o mode=0755 dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/console >/dev/console 2>&1
while read -r module; do
    insmod "/lab/modules/$module" || echo "guest: module $module does not load"
done </lab/modules.order
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
hostname guest
# Debian builds the ACPI button and evdev as modules; the button is an input device then.
acpid -c /etc/acpi -l /dev/null -p /run/acpid.pid
memory=$(grep MemTotal: /proc/meminfo | tr -s ' ' | cut -d ' ' -f 2)
echo "REEVE-GUEST-UP $(nproc) $memory"
# A serial line has no size; without one the shell asks the terminal and wraps what it echoes.
stty rows 24 cols 1000
export PS1='guest# '
while true; do
    setsid cttyhack sh
done
