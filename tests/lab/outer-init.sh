#!/bin/busybox sh
# The outer guest's only program of ours. Stage 1 runs in the initramfs and moves to a tmpfs root,
# because pivot_root does not work from the initramfs. Stage 2 makes the machine look like an
# ordinary host and waits for work (session.sh).
export PATH=/usr/local/bin:/bin:/sbin:/usr/bin:/usr/sbin

if [ "$1" != stage2 ]; then
    /bin/busybox mkdir -p /proc /sys /dev /newroot
    /bin/busybox mount -t devtmpfs -o mode=0755 dev /dev
    /bin/busybox mount -t tmpfs -o mode=0755 root /newroot
    /bin/busybox cp -a /bin /sbin /etc /lab /init /newroot/
    cd /newroot
    /bin/busybox mkdir -p proc sys dev run tmp root home/user var/tmp payload assets lib mnt
    /bin/busybox mount --move /dev dev
    exec /bin/busybox switch_root /newroot /init stage2
fi

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
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
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=0755 run /run
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
for controller in cpuset cpu io memory pids hugetlb; do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
chmod 1777 /tmp /var/tmp
chown 1000:1000 /home/user
chown root:kvm /dev/kvm
chmod 0660 /dev/kvm
hostname lab
ip link set lo up
# Hosts under systemd have shared mounts; a sandbox that forgets that must fail here too.
mount --make-rshared /

. /lab/session.sh
mount -t ext4 -o ro "$(disk assets)" /assets
ln -s /assets/modules /lib/modules
echo /bin/modprobe >/proc/sys/kernel/modprobe
# The tools' libraries, where programs look for them.
mkdir -p /lib64 /usr/lib
ln -s /assets/tools/lib/ld-linux-x86-64.so.2 /lib64/
ln -s /assets/tools/lib /lib/x86_64-linux-gnu
ln -s /assets/tools/lib /usr/lib/x86_64-linux-gnu
serve
