#!/bin/sh
# {{ mark }}
# Makes a guest's interface a port of the bridge of network {{ network }} in lab {{ lab }}.
# QEMU runs it (script=) with the interface's name as its one argument. Written by vmnet; changes are lost.
hook='qemu-ifup ({{ network }} of {{ lab }})'
{% include "guard.sh" %}
# Of the network namespace that this runs in, unlike /sys, which shows the one it was mounted in.
[ -d "/proc/sys/net/ipv4/conf/$1" ] || refuse "there is no interface $1"

# The host does not speak IPv6 to a guest behind its port.
if [ -e "/proc/sys/net/ipv6/conf/$1/disable_ipv6" ]; then
    echo 1 >"/proc/sys/net/ipv6/conf/$1/disable_ipv6"
fi
exec {{ ip }} link set dev "$1" mtu {{ mtu }} master {{ bridge }} up
