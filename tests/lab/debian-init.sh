#!/bin/busybox sh
# Init of the outer guest with Debian, in its initramfs: puts memory over the image, so that the system
# can be written to and the whole of it is in a saved state, and starts systemd. systemd starts
# lab.service, which waits for work (session.sh).
export PATH=/bin:/sbin
/bin/busybox mkdir -p /proc /sys /dev /lower /memory /newroot
/bin/busybox mount -t devtmpfs -o mode=0755 dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/console >/dev/console 2>&1
# KVM takes the TSC's rate when it is loaded. Loaded before the kernel has refined its first measurement,
# it may offer guests a rate that this processor cannot give: their timers then never fire.
clocks=/sys/devices/system/clocksource/clocksource0/available_clocksource
for _ in 1 2 3 4 5 6 7 8 9 10; do
    case " $(cat $clocks) " in *" tsc "*) break ;; esac
    sleep 0.5
done
while read -r module; do
    insmod "/lab/modules/$module" || echo "lab: module $module does not load"
done </lab/modules.order

. /lab/session.sh
mount -t ext4 -o ro "$(disk root)" /lower
mount -t tmpfs -o mode=0755,size=1500m memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work root /newroot
cp /lab/session.sh /newroot/lab/session.sh
mount -t ext4 -o ro "$(disk assets)" /newroot/assets
umount /proc /sys
mount --move /dev /newroot/dev
exec switch_root /newroot /lib/systemd/systemd --unit=lab.target
