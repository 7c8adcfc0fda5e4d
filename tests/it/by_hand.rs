//! `vmnet qemu-args --unprivileged`: the printed lines run, as a user without rights. (The form for root runs in
//! `scenarios::isolated`.)

use std::path::Path;

use super::sandbox;
use super::skip::skip;
use super::world::output;

const NAME: &str = "by_hand::a_user_without_rights_starts_a_guest_by_the_bridge_helper";

/// `/etc` is covered, so that the machine gets no `bridge.conf`, and the helper is a copy with the setuid bit. A TUN
/// device as udev makes it, since containers may have one that only root opens. Images are copied: the user may not
/// reach the project's folder.
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
cp "$IMAGES/disk.qcow2" "$IMAGES/vmlinuz" "$IMAGES/initrd.img" /run/lab
chmod 644 /run/lab/*
cd /run/lab
cat >net.toml <<END
lab = "hand"
[image.tiny]
file = "disk.qcow2"
kernel = "vmlinuz"
initrd = "initrd.img"
[network.web]
subnet = "192.168.10.0/24"
[router]
external = { via = "none" }
[vm.vm1]
nic = { network = "web", address = "192.168.10.10" }
image = "tiny"
memory = "128MiB"
accel = "tcg"
END
export VMNET_STATE_DIR=/run/state
"$VMNET" create
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
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
    if !Path::new("/usr/lib/qemu/qemu-bridge-helper").exists() {
        return skip(NAME, "needs qemu-bridge-helper");
    }
    if !images.join("vmlinuz").exists() {
        return skip(NAME, "needs the small guest: make vm-images");
    }
    sandbox::run(NAME, || {
        let vmnet = env!("CARGO_BIN_EXE_vmnet");
        let script = format!("IMAGES='{}'; VMNET='{vmnet}'; {SCRIPT}", images.display());
        let said = output(&format!("( {script} ) 2>&1 || echo \"failed: $?\""));
        assert!(said.contains("answered=yes"), "{said}");
    });
}
