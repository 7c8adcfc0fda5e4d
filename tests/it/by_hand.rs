//! `vmnet qemu-args --unprivileged`: the printed lines run, as a user without rights. (The form for root runs in
//! `scenarios::isolated`.)

use super::by_others;

const NAME: &str = "by_hand::a_user_without_rights_starts_a_guest_by_the_bridge_helper";

/// `/etc` is covered, so that the machine gets no `bridge.conf`, and the helper is a copy with the setuid bit. A TUN
/// device as udev makes it, since containers may have one that only root opens.
const SCRIPT: &str = r#"
set -eu
mkdir /run/etc /run/work /run/lab
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc
rm -rf /etc/qemu
helper=/usr/lib/qemu/qemu-bridge-helper
cp "$helper" /run/helper
mount --bind /run/helper "$helper"
mknod -m 666 /run/tun c 10 200
mount --bind /run/tun /dev/net/tun
lay_lab
SUDO_UID=65534 SUDO_GID=65534 "$VMNET" qemu-args --unprivileged vm1 >line
sed -n 's/^# once, as root: //p' line >once
cat once
sh -eu ./once
setpriv --reuid 65534 --regid 65534 --clear-groups sh ./line </dev/null >log 2>&1 &
answered=no
for _ in $(seq 120); do
    ip netns exec vmnet-hand ping -c 1 -W 1 192.168.10.10 >/dev/null && { answered=yes; break; }
    [ -e "/proc/$!" ] || break
done
cat log
bridge link show | grep 'master br-web'
kill "$!"
wait
"$VMNET" destroy --purge hand
echo "answered=$answered"
"#;

#[test]
fn a_user_without_rights_starts_a_guest_by_the_bridge_helper() {
    by_others::run(NAME, ("/usr/lib/qemu/qemu-bridge-helper", "qemu-bridge-helper"), "hand", SCRIPT, |said| {
        assert!(said.contains("answered=yes"), "{said}");
    });
}
