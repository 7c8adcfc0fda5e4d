#!/bin/sh
# {{ mark }}
{% if state %}# {{ kept_in }}{{ state }}
{% endif %}# Makes a guest's interface a port of the bridge of network {{ network }} in lab {{ lab }}.
# QEMU runs it (script=) with the interface's name as its one argument. Written by vmnet; changes are lost.
hook='qemu-ifup ({{ network }} of {{ lab }})'
{% include "guard.sh" %}
# Of the network namespace that this runs in, unlike /sys, which shows the one it was mounted in.
[ -d "/proc/sys/net/ipv4/conf/$1" ] || refuse "there is no interface $1"

# A TAP fresh from QEMU is down and a port of nothing. Where /sys shows the lab's bridge, it tells without a program.
is_fresh() {
    [ -e "/sys/class/net/{{ bridge }}/bridge" ] && [ -e "/sys/class/net/$1/tun_flags" ] || return 1
    [ ! -e "/sys/class/net/$1/master" ] && read -r flags <"/sys/class/net/$1/flags" || return 1
    case $flags in
    *[13579bdf]) return 1 ;; # up
    esac
}

# Anything else has to look like a guest's interface too: a NIC on this bridge would take the host off its network.
is_guests() {
    if [ -x /usr/bin/timeout ]; then
        found=$(/usr/bin/timeout -k 1 5 {{ ip }} -d address show dev "$1") || refuse "cannot look at $1"
    else
        found=$({{ ip }} -d address show dev "$1") || refuse "cannot look at $1"
    fi
    line='
    '
    case $found in
    *"${line}tun type tap "* | *"${line}veth "*) ;;
    *) refuse "$1 is neither a TAP nor a veth" ;;
    esac
    case $found in
    *"${line}inet "* | *"${line}inet6 "*" scope global "*) refuse "$1 has an address of its own" ;;
    esac
    case ${found%%"$line"*} in
    *" master {{ bridge }} "*) ;;
    *" master "*) refuse "$1 is a port of something else" ;;
    esac
}

is_fresh "$1" || is_guests "$1"

# The host does not speak IPv6 to a guest behind its port.
if [ -e "/proc/sys/net/ipv6/conf/$1/disable_ipv6" ]; then
    echo 1 >"/proc/sys/net/ipv6/conf/$1/disable_ipv6"
fi
# One request to the kernel. It waits for the kernel's own lock at most, which no time limit would shorten; and as this
# process becomes ip, whoever ends it leaves no child behind.
exec {{ ip }} link set dev "$1" mtu {{ mtu }} master {{ bridge }} up
