# What every outer guest does once it is up; sourced. `serve` says READY on the control port and waits:
# there the machine is saved. Each later run starts again right after the `read`.

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

serve() {
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
    # The harness goes on writing, so that there are interrupts.
    cat <&3 >/dev/null &
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
}
