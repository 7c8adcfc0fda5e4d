#!/bin/sh
# {{ mark }}
# Takes a guest's interface off the bridge of network {{ network }} in lab {{ lab }}.
# QEMU runs it (downscript=) with the interface's name as its one argument, unless it was killed: nothing may depend
# on it. Written by vmnet; changes are lost.
set -eu
# What this shell was given by whoever started QEMU does not count: functions, locale, paths, preloaded libraries.
unset -f [ echo
unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT IFS
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

refuse() {
    echo "qemu-ifdown ({{ network }} of {{ lab }}): $1" >&2
    exit 2
}

[ "$#" -eq 1 ] || refuse "wants one argument, the name of an interface; got $#"
case $1 in
'' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | ????????????????* | all | default)
    refuse "the argument is no name of an interface"
    ;;
esac
# Gone already, or a port of something else by now: not ours to touch.
[ -e "/sys/class/net/{{ bridge }}/brif/$1" ] || exit 0

exec {{ ip }} link set dev "$1" nomaster down
