#!/bin/sh
# Gives an interface the address that busybox's DHCP client got: udhcpc's own script for it. What a router says of IPv6 stays.
case $1 in
    deconfig)
        ip -4 addr flush dev "$interface"
        ip link set "$interface" up
        ;;
    bound | renew)
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/${mask:-24}" dev "$interface"
        for gateway in $router; do
            ip route replace default via "$gateway" dev "$interface"
        done
        for server in $dns; do
            echo "nameserver $server"
        done >/etc/resolv.conf
        ;;
esac
