#!/bin/busybox sh
# Init of the inner guest that tests boot: says it is up, obeys the power button, gives a shell on
# its console. Of the kernel's command line it takes `lab.drivers=NAME,...`, which loads drivers of
# virtio devices (`lab.drivers`: all), and `root=DEVICE` with `rw` or `ro`, which loads that of disks
# and goes on with the system on this one.
export PATH=/bin:/sbin
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t devtmpfs -o mode=0755 dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/console >/dev/console 2>&1
loaded=
load() {
    while read -r module; do
        case "$loaded " in *" $module "*) continue ;; esac
        loaded="$loaded $module"
        insmod "/lab/modules/$module" || echo "guest: module $module does not load"
    done <"$1"
}
load /lab/modules.order
drivers= root= mode=ro
read -r words </proc/cmdline
for word in $words; do
    case $word in
        lab.drivers) drivers='*' ;;
        lab.drivers=*) drivers=${word#*=} ;;
        root=*) root=${word#root=} ;;
        rw) mode=rw ;;
    esac
done
if [ "$drivers$root" ]; then
    cd /lab/drivers
    IFS=,
    for name in $drivers ${root:+virtio_blk}; do
        load "$name"
    done
    unset IFS
    cd /
fi
if [ "$root" ]; then
    mkdir /newroot
    if mount -t ext4 -o "$mode" "$root" /newroot; then
        for directory in proc sys dev; do
            mount --move "/$directory" "/newroot/$directory"
        done
        exec switch_root /newroot /sbin/init
    fi
    echo "guest: $root cannot be mounted"
fi
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
