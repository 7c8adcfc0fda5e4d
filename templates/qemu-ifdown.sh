#!/bin/sh
# {{ mark }}
{% if state %}# {{ kept_in }}{{ state }}
{% endif %}# Takes a guest's interface off the bridge of network {{ network }} in lab {{ lab }}.
# QEMU runs it (downscript=) with the interface's name as its one argument, unless it was killed: nothing may depend
# on it. Written by vmnet; changes are lost.
hook='qemu-ifdown ({{ network }} of {{ lab }})'
{% include "guard.sh" %}
# Gone already, or a port of something else by now: not ours to touch.
[ -e "/sys/class/net/{{ bridge }}/brif/$1" ] || exit 0

exec {{ ip }} link set dev "$1" nomaster down
