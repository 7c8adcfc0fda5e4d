//! `vmnet xml` with a real libvirtd: it validates, defines, starts and reaches the domain on the lab's bridge.

use std::path::Path;

use super::sandbox;
use super::skip::skip;
use super::world::output;

const NAME: &str = "libvirt::a_domain_runs_on_the_labs_bridge";

/// libvirt's own folders are covered, so that no definition, network or log of the machine is read or written. The
/// sandbox has no cgroups, so libvirt is told to do without. Images are copied: its QEMU user may not reach the
/// project's folder.
const SCRIPT: &str = r#"
set -eu
cp -a /etc/libvirt /run/etc-libvirt
rm -rf /run/etc-libvirt/qemu/*
echo 'cgroup_controllers = []' >>/run/etc-libvirt/qemu.conf
mount --bind /run/etc-libvirt /etc/libvirt
for folder in /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
mkdir -p /run/libvirt /var/lib/libvirt/qemu /run/lab
cp "$IMAGES/disk.qcow2" "$IMAGES/vmlinuz" "$IMAGES/initrd.img" /run/lab
cd /run/lab
cat >net.toml <<END
lab = "virt"
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
"$VMNET" xml vm1 >vm1.xml
virt-xml-validate vm1.xml domain
virtlogd -d
libvirtd -d
virsh='virsh -q -c qemu:///system'
for _ in $(seq 100); do $virsh uri >/dev/null 2>&1 && break; sleep 0.1; done
$virsh define vm1.xml
$virsh start virt-vm1
$virsh domiflist virt-vm1
bridge link show | grep -q 'master br-web'
answered=no
for _ in $(seq 240); do
    ip netns exec vmnet-virt ping -c 1 -W 1 192.168.10.10 >/dev/null && { answered=yes; break; }
done
# A foreign device is on the bridge now: vmnet leaves it alone.
if "$VMNET" destroy virt; then
    echo 'the lab went from under a running domain'
    exit 1
fi
$virsh destroy virt-vm1
$virsh undefine virt-vm1
kill "$(cat /run/libvirtd.pid)" "$(cat /run/virtlogd.pid)"
"$VMNET" destroy --purge virt
echo "answered=$answered"
"#;

#[test]
fn a_domain_runs_on_the_labs_bridge() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
    if !Path::new("/usr/sbin/libvirtd").exists() {
        return skip(NAME, "needs libvirtd");
    }
    if !images.join("vmlinuz").exists() {
        return skip(NAME, "needs the small guest: make vm-images");
    }
    sandbox::run(NAME, || {
        let vmnet = env!("CARGO_BIN_EXE_vmnet");
        let script = format!("IMAGES='{}'; VMNET='{vmnet}'; {SCRIPT}", images.display());
        let said = output(&format!("( {script} ) 2>&1"));
        assert!(said.contains("answered=yes"), "{said}");
        assert!(said.contains("br-web"), "{said}");
    });
}
