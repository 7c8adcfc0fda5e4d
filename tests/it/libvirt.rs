//! `vmnet xml` with a real libvirtd: it validates, defines, starts and reaches the domain on the lab's bridge.

use super::by_others;

const NAME: &str = "libvirt::a_domain_runs_on_the_labs_bridge";

/// libvirt's own folders are covered, so that no definition, network or log of the machine is read or written. The
/// sandbox has no cgroups, so libvirt is told to do without.
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
lay_lab
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
    by_others::run(NAME, ("/usr/sbin/libvirtd", "libvirtd"), "virt", SCRIPT, |said| {
        assert!(said.contains("answered=yes"), "{said}");
        assert!(said.contains("br-web"), "{said}");
    });
}
