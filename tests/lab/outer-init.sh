#!/bin/busybox sh
# The outer guest's only program of ours. Stage 1 runs in the initramfs and moves to a tmpfs root,
# because pivot_root does not work from the initramfs. Stage 2 makes the machine look like an
# ordinary host, says READY on the control port and waits: there the machine is saved. Each later
# run starts again right after the `read`.
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

# Virtio devices are found by name: the order of probing is not promised.
disk() {
    for block in /sys/block/vd*; do
        if [ "$(cat "$block/serial")" = "$1" ]; then
            echo "/dev/${block##*/}"
        fi
    done
}
port() {
    for port in /sys/class/virtio-ports/*; do
        if [ "$(cat "$port/name")" = "$1" ]; then
            echo "/dev/${port##*/}"
        fi
    done
}
mount -t ext4 -o ro "$(disk assets)" /assets
ln -s /assets/modules /lib/modules
payload=$(disk payload)
exec 3<>"$(port control)" 4>"$(port output)"
echo READY >&3

# From here on every line comes from the harness: "<epoch seconds> <limit in seconds>", then the
# command line. The answer is "END <limit|exit> <status> <entered|absent>".
read -r now limit <&3
read -r command <&3
date -s "@$now" >/dev/null
# The payload is another one than at the time of saving: nothing of it may be remembered.
blockdev --flushbufs "$payload"
mount -t ext4 -o ro "$payload" /payload
mkdir -p /run/lab
cd /
setsid sh -c "$command" </dev/null >&4 2>&4 3>&- &
pid=$!
(
    sleep "$limit"
    touch /run/lab/limit
    echo "lab: the limit of $limit s has passed; processes then:" >&4
    ps -o pid,ppid,stat,args | grep -v ' \[' >&4
    kill -KILL "-$pid"
) &
wait "$pid"
status=$?
how=exit
if [ -e /run/lab/limit ]; then
    how=limit
fi
entered=absent
if [ -e /run/lab/entered ]; then
    entered=entered
fi
if [ "$status" != 0 ]; then
    echo "lab: last lines of the outer guest's kernel log:" >&4
    dmesg | tail -n 25 >&4
fi
echo "END $how $status $entered" >&3
# The harness kills this machine as soon as it has the answer.
while true; do sleep 3600; done
