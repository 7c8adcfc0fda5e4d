# shellcheck shell=sh
# What every hook begins with. `hook` says which one it is.
: "${hook:?}"
set -eu
# What this shell was given by whoever started QEMU does not count: functions, locale, paths, preloaded libraries.
unset -f [ echo read
unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT IFS
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

refuse() {
    echo "$hook: $1" >&2
    exit 2
}

[ "$#" -eq 1 ] || refuse "wants one argument, the name of an interface; got $#"
case $1 in
'' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | ????????????????* | all | default)
    refuse "the argument is no name of an interface"
    ;;
esac
