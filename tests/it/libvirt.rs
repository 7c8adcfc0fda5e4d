//! `vmnet xml` with a real libvirtd: it validates, defines, starts and reaches the domain on the lab's bridge.

use super::by_others;
use super::private_libvirt::{COVER, START, STOP};

const NAME: &str = "libvirt::a_domain_runs_on_the_labs_bridge";

const LAY: &str = r#"
mkdir -p /run/lab
lay_lab
"$VMNET" xml vm1 >vm1.xml
virt-xml-validate vm1.xml domain
"#;

const SCRIPT: &str = r#"
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
"$VMNET" destroy --purge virt
echo "answered=$answered"
"#;

#[test]
fn a_domain_runs_on_the_labs_bridge() {
    let script = ["set -eu", COVER, LAY, START, SCRIPT, STOP].join("\n");
    by_others::run(NAME, ("/usr/sbin/libvirtd", "libvirtd"), "virt", &script, |said| {
        assert!(said.contains("answered=yes"), "{said}");
        assert!(said.contains("br-web"), "{said}");
    });
}
