#!/bin/sh
# {{ mark }}
# Makes a guest's interface a port of the bridge of network {{ network }} in lab {{ lab }}.
# QEMU runs it (script=) with the interface's name as its one argument. Written by vmnet; changes are lost.
set -eu
# What this shell was given by whoever started QEMU does not count: functions, locale, paths, preloaded libraries.
unset -f [ echo
unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT IFS
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

refuse() {
    echo "qemu-ifup ({{ network }} of {{ lab }}): $1" >&2
    exit 2
}

[ "$#" -eq 1 ] || refuse "wants one argument, the name of an interface; got $#"
case $1 in
'' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | ????????????????* | all | default)
    refuse "the argument is no name of an interface"
    ;;
esac
# Of the network namespace that this runs in, unlike /sys, which shows the one it was mounted in.
[ -d "/proc/sys/net/ipv4/conf/$1" ] || refuse "there is no interface $1"

# The host does not speak IPv6 to a guest behind its port.
if [ -e "/proc/sys/net/ipv6/conf/$1/disable_ipv6" ]; then
    echo 1 >"/proc/sys/net/ipv6/conf/$1/disable_ipv6"
fi
exec {{ ip }} link set dev "$1" mtu {{ mtu }} master {{ bridge }} up
