//! Guests with further disks, UEFI, and arguments of the user's own.

use std::fs;

use crate::matrix::rows::json;
use crate::private_libvirt::{self, Libvirt};
use crate::sandbox;
use crate::skip::skip;
use crate::world::{Engine, Lab, sh, succeeds};

const LAB: &str = r#"
lab = "more"
[defaults.vm]
engine = "netns"
[network.web]
mode = "isolated"
subnet = "192.168.10.0/24"
"#;

/// Runs a test with the small guest, where it can run.
fn with_guest(name: &str, needs: &str, vm: &str, test: impl FnOnce(&Lab)) {
    let name = format!("images::machines::{name}");
    if !succeeds("id vmnet-qemu && command -v qemu-system-x86_64 qemu-img && [ -e build/vm-images/tiny/vmlinuz ]") {
        return skip(&name, "needs QEMU, the user vmnet-qemu and the small guest (make vm-images)");
    }
    if !needs.is_empty() && !fs::exists(needs).unwrap() {
        return skip(&name, &format!("needs {needs}"));
    }
    sandbox::run(&name, || {
        let lab = Lab::of_qemu(&format!("{LAB}{vm}"), "tcg");
        sh("qemu-img create -q -f qcow2 /run/lab/old.qcow2 2M; truncate -s 3M /run/lab/tools.raw");
        sh("printf vmnet-tools | dd of=/run/lab/tools.raw conv=notrunc status=none");
        test(&lab);
    });
}

/// What the guest has at a serial number.
const DISK: &str =
    "disk() { for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" = $1 ] && echo /dev/${d##*/}; done; }; ";

fn in_guest(lab: &Lab, command: &str) -> String {
    let (said, code) = lab.in_guest("vm1", &format!("{DISK}{command}"));
    assert_eq!(code, 0, "{command}: {said}");
    // Before it stands what the guest said while it booted.
    said.trim().lines().last().unwrap_or_default().trim_start_matches("# ").trim().to_owned()
}

#[test]
fn further_disks_are_there_and_keep_what_is_written() {
    let vm = r#"
[vm.vm1]
nic = "web"
qemu_args = ["-fw_cfg", "name=opt/vmnet/{tap:0},string=hello"]
[vm.vm1.disks]
data = "8MiB"
old = { file = "old.qcow2" }
tools = { file = "tools.raw", readonly = true }
"#;
    with_guest("further_disks_are_there_and_keep_what_is_written", "", vm, |lab| {
        lab.ok(&["create"]);
        // Root's own rights write to no file of the user's.
        let said = lab.vmnet(&["boot", "vm1"]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("may not write to") && said.contains("chown vmnet-qemu"), "{said}");
        sh("chown vmnet-qemu /run/lab/old.qcow2");
        lab.ok(&["boot", "vm1", "--wait"]);
        assert_eq!(in_guest(lab, "head -c 11 $(disk tools)"), "vmnet-tools");
        assert_eq!(in_guest(lab, "cat /sys/class/block/$(basename $(disk data))/size"), "16384");
        assert_eq!(in_guest(lab, "cat /sys/class/block/$(basename $(disk tools))/ro"), "1");
        for disk in ["data", "old"] {
            in_guest(lab, &format!("echo kept-{disk} | dd of=$(disk {disk}) conv=fsync 2>/dev/null"));
        }
        let pid = json(&lab.ok(&["ps", "more", "--json"]))["vms"][0]["pid"].to_string();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(String::from_utf8_lossy(&line).ends_with("\0-fw_cfg\0name=opt/vmnet/{tap:0},string=hello\0"));
        assert_eq!(json(&lab.ok(&["ps", "more", "--json"]))["vms"][0]["outdated"], false);
        // A second machine must not work on the same file.
        assert!(!succeeds("qemu-img info /run/lab/old.qcow2"));
        lab.ok(&["stop", "vm1"]);
        lab.ok(&["reset", "vm1"]);
        lab.ok(&["boot", "vm1", "--wait"]);
        for disk in ["data", "old"] {
            assert_eq!(in_guest(lab, &format!("head -c {} $(disk {disk})", 5 + disk.len())), format!("kept-{disk}"));
        }
        lab.ok(&["stop", "vm1"]);
        // What is no disk is not lent, whoever may read it.
        sh("echo secret >/run/lab/tools.raw");
        let said = lab.vmnet(&["boot", "vm1"]);
        assert!(String::from_utf8_lossy(&said.stderr).contains("tools.raw can't be a disk of guest vm1"), "{said:?}");
        lab.ok(&["destroy"]);
        assert!(fs::exists("/run/state/more/guests/vm1/extra-data.qcow2").unwrap());
        lab.ok(&["gc", "--purge"]);
        assert!(!fs::exists("/run/state/more").unwrap());
        assert!(fs::exists("/run/lab/old.qcow2").unwrap());
    });
}

#[test]
fn a_guest_boots_by_uefi_and_keeps_its_variables() {
    let vm = "[vm.vm1]\nnic = \"web\"\nmemory = \"256MiB\"\nfirmware = \"uefi\"\n";
    let needs = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    with_guest("a_guest_boots_by_uefi_and_keeps_its_variables", needs, vm, |lab| {
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1", "--wait"]);
        assert!(in_guest(lab, "[ -d /sys/firmware/efi ] && echo by-uefi").contains("by-uefi"));
        let variables = "/run/state/more/guests/vm1/uefi-vars.fd";
        let template = fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap();
        assert!(fs::read(variables).unwrap() != template, "the guest's copy is written to");
        assert_eq!(json(&lab.ok(&["ps", "more", "--json"]))["vms"][0]["outdated"], false);
        lab.ok(&["stop", "vm1"]);
        lab.ok(&["reset", "vm1"]);
        assert!(!fs::exists(variables).unwrap());
        // Others get a copy of their own.
        let line = lab.ok(&["qemu-args", "vm1"]);
        assert!(line.contains("if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"), "{line}");
        assert!(fs::read("/run/state/more/by-hand/vm1.0/uefi-vars.fd").unwrap() == template);
        lab.ok(&["destroy", "--purge"]);
    });
}

/// libvirt's own word on the domain of a guest that has everything.
#[test]
fn a_domain_with_all_of_it_is_valid() {
    let vm = r#"
[vm.vm1]
nic = "web"
firmware = "uefi"
disks = { data = "8MiB", old = { file = "old.qcow2" }, tools = { file = "tools.raw", readonly = true } }
qemu_args = ["-device", "virtio-balloon-pci"]
libvirt_xml = '''
<watchdog model="i6300esb" action="reset"/>
<memballoon model="none"/>
'''
"#;
    with_guest("a_domain_with_all_of_it_is_valid", "/usr/share/OVMF/OVMF_CODE_4M.fd", vm, |lab| {
        if !succeeds("command -v virt-xml-validate") {
            return skip(&sandbox::test(), "needs virt-xml-validate (libvirt-clients)");
        }
        lab.ok(&["create"]);
        let xml = lab.ok(&["xml", "vm1"]);
        fs::write("/run/lab/vm1.xml", &xml).unwrap();
        sh("virt-xml-validate /run/lab/vm1.xml domain");
        for what in ["<nvram", "<serial>data<", "<memballoon", "<qemu:arg"] {
            assert!(xml.contains(what), "{what} is not in {xml}");
        }
        // The validator does look.
        fs::write("/run/lab/vm1.xml", xml.replace("memballoon", "memballon")).unwrap();
        assert!(!succeeds("virt-xml-validate /run/lab/vm1.xml domain"));
        lab.ok(&["destroy", "--purge"]);
    });
}

/// The same by libvirt: it is libvirt that opens the files and writes the variables.
#[test]
fn a_guest_of_libvirt_has_all_of_it() {
    const NAME: &str = "images::machines::a_guest_of_libvirt_has_all_of_it";
    let vm = r#"
[vm.vm1]
nic = "web"
memory = "256MiB"
firmware = "uefi"
disks = { data = "8MiB", old = { file = "old.qcow2" }, tools = { file = "tools.raw", readonly = true } }
qemu_args = ["-fw_cfg", "name=opt/vmnet/{tap:0},string=hello"]
libvirt_xml = "<watchdog model='i6300esb' action='reset'/>"
"#;
    if !succeeds("[ -e build/vm-images/tiny/vmlinuz ] && [ -e /usr/share/OVMF/OVMF_CODE_4M.fd ]") {
        return skip(NAME, "needs the small guest (make vm-images) and OVMF");
    }
    if private_libvirt::missing(NAME) {
        return;
    }
    sandbox::run(NAME, || {
        let _libvirt = Libvirt::start();
        let lab = Lab::of(&format!("{LAB}{vm}"), Engine::Libvirt("tcg"));
        sh(
            "qemu-img create -q -f qcow2 /run/lab/old.qcow2 2M; truncate -s 3M /run/lab/tools.raw; chmod 644 /run/lab/*",
        );
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1", "--wait=300s"]);
        let pid = json(&lab.ok(&["ps", "more", "--json"]))["vms"][0]["pid"].to_string();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        for word in ["OVMF_CODE_4M.fd", "uefi-vars.fd", "extra-data.qcow2", "old.qcow2", "tools.raw", "i6300esb"] {
            assert!(line.contains(word), "{word} is not in {line}");
        }
        assert!(line.contains("name=opt/vmnet/{tap:0},string=hello"), "{line}");
        assert_eq!(json(&lab.ok(&["ps", "more", "--json"]))["vms"][0]["outdated"], false);
        lab.ok(&["stop", "vm1"]);
        lab.ok(&["boot", "vm1", "--wait=300s"]);
        lab.ok(&["destroy", "--stop"]);
        for kept in ["extra-data.qcow2", "uefi-vars.fd"] {
            assert!(fs::exists(format!("/run/state/more/guests/vm1/{kept}")).unwrap(), "{kept}");
        }
        lab.ok(&["gc", "--purge"]);
    });
}
