//! What only guests of libvirt do: they live beside those of others, and outlive their daemon.

use serde_json::Value;
use vmnet::rule;

use crate::private_libvirt::{self, Libvirt};
use crate::sandbox;
use crate::world::{Lab, sh, succeeds};

/// A guest that boots nothing; libvirt's user reaches its disk.
const LAB: &str = r#"
lab = "lv"
[image.empty]
file = "empty.qcow2"
[network.web]
mode = "isolated"
[defaults.vm]
nic = "web"
[vm.vm1]
engine = "libvirt"
accel = "tcg"
image = "empty"
memory = "64MiB"
autostart = true
[vm.vm2]
engine = "netns"
"#;

fn run(name: &str, test: impl FnOnce(&Lab)) {
    let name = format!("engine_libvirt::{name}");
    if private_libvirt::missing(&name) {
        return;
    }
    sandbox::run(&name, || {
        let lab = Lab::from_text(LAB);
        sh("cd /run/lab; qemu-img create -q -f qcow2 empty.qcow2 1M; chmod 644 empty.qcow2");
        test(&lab);
    });
}

/// The exit code, and all that was printed.
fn said(lab: &Lab, args: &[&str]) -> (i32, String) {
    let output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text.into_owned())
}

#[track_caller]
fn exits(lab: &Lab, args: &[&str], wanted: i32, words: &[&str]) {
    let (code, text) = said(lab, args);
    assert!(code == wanted && words.iter().all(|word| text.contains(word)), "vmnet {args:?} exits {code}: {text}");
}

fn condition(lab: &Lab) -> String {
    let status: Value = serde_json::from_str(&lab.ok(&["status", "lv", "--json"])).unwrap();
    status["condition"].as_str().unwrap().to_owned()
}

/// What `ps` says of both guests.
fn guests(lab: &Lab) -> [Value; 2] {
    let report: Value = serde_json::from_str(&lab.ok(&["ps", "lv", "--json"])).unwrap();
    [report["vms"][0].clone(), report["vms"][1].clone()]
}

fn links() -> usize {
    sh("ip -br link").lines().count()
}

/// A domain of somebody else's.
fn foreign(libvirt: &Libvirt, name: &str, uuid: &str, metadata: &str) -> String {
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><metadata>{metadata}</metadata>\
         <memory>65536</memory><os><type>hvm</type></os></domain>"
    );
    std::fs::write("/run/foreign.xml", xml).unwrap();
    libvirt.virsh("define /run/foreign.xml");
    libvirt.virsh(&format!("dumpxml {name}"))
}

const UUID: &str = "00000000-0000-4000-8000-000000000001";

#[test]
fn what_is_not_the_labs_is_never_touched() {
    run("what_is_not_the_labs_is_never_touched", |lab| {
        let libvirt = Libvirt::start();
        let own = rule::guest_uuid(&"lv".parse().unwrap(), &"vm1".parse().unwrap());
        for (name, uuid, what) in [("lv-vm1", UUID, "has the name"), ("theirs", own.as_str(), "has the UUID")] {
            let before = foreign(&libvirt, name, uuid, "");
            exits(lab, &["create"], 1, &[name, what, "virsh undefine"]);
            assert_eq!(links(), 1, "something was changed");
            assert_eq!(libvirt.virsh(&format!("dumpxml {name}")), before);
            libvirt.virsh(&format!("undefine {name}"));
        }
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        let is = libvirt.virsh("dumpxml lv-vm1");
        let mark = is.lines().find(|line| line.contains("<vmnet:guest ")).unwrap();
        // A clone has the metadata, too.
        let clone = foreign(&libvirt, "clone", UUID, mark);
        assert_eq!(condition(lab), "as-applied");
        libvirt.virsh("destroy lv-vm1");
        lab.ok(&["destroy", "--purge", "lv"]);
        assert_eq!(libvirt.domains(), "clone");
        assert_eq!(libvirt.virsh("dumpxml clone"), clone);
        assert!(lab.ok(&["gc"]).contains("no leftovers"));
    });
}

#[test]
fn libvirt_may_go_and_come_again() {
    run("libvirt_may_go_and_come_again", |lab| {
        sh(private_libvirt::COVER);
        exits(lab, &["create"], 4, &["nothing was changed", "systemctl start libvirtd"]);
        assert_eq!(links(), 1);
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1", "vm2"]);
        assert_eq!(condition(lab), "as-applied");
        let pid = sh("cat /run/libvirt/qemu/lv-vm1.pid");
        drop(libvirt);
        assert_eq!(condition(lab), "degraded");
        exits(lab, &["plan"], 4, &["systemctl start libvirtd"]);
        exits(lab, &["stop", "vm1"], 4, &["systemctl start libvirtd"]);
        exits(lab, &["destroy", "--stop", "lv"], 4, &["systemctl start libvirtd"]);
        assert!(lab.ok(&["list", "--json"]).contains("\"vm1\""));
        // Those that vmnet runs are known, and so is a domain whose process is there.
        exits(lab, &["ps", "lv"], 0, &["libvirt can't be asked which guests it runs", "systemctl start libvirtd"]);
        let [vm1, vm2] = guests(lab);
        assert_eq!((&vm1["running"], vm1["pid"].to_string()), (&true.into(), pid.trim().to_owned()), "{vm1}");
        assert_eq!((&vm2["running"], &vm2["unrecorded"]), (&true.into(), &false.into()), "{vm2}");
        exits(lab, &["stop", "vm1", "vm2"], 4, &["systemctl start libvirtd"]);
        exits(lab, &["stop", "vm2"], 0, &["stopped"]);
        assert_eq!(guests(lab).map(|vm| vm["running"].clone()), [true, false]);
        exits(lab, &["stop", "vm2"], 4, &["systemctl start libvirtd"]);
        let libvirt = Libvirt::start();
        assert_eq!(sh("cat /run/libvirt/qemu/lv-vm1.pid"), pid, "the guest is another one");
        assert_eq!(condition(lab), "as-applied");
        // What vmnet knows of its guests is not in its own folder.
        sh("rm -rf /run/vmnet/lv");
        assert_eq!(condition(lab), "differs");
        lab.ok(&["create"]);
        assert_eq!((condition(lab).as_str(), libvirt.domains().as_str()), ("as-applied", "lv-vm1"));
        assert_eq!(sh("cat /run/libvirt/qemu/lv-vm1.pid"), pid);
        libvirt.virsh("destroy lv-vm1");
        assert_eq!(condition(lab), "as-applied");
        lab.ok(&["destroy", "--stop", "--purge", "lv"]);
        assert_eq!((links(), libvirt.domains().as_str()), (1, ""));
    });
}

/// An interface that the definition's own XML or virsh gives a guest, on a bridge of the host's, has any name.
#[test]
fn an_interface_beside_the_guests_own_stays() {
    run("an_interface_beside_the_guests_own_stays", |lab| {
        let libvirt = Libvirt::start();
        sh("ip link add br0 type bridge; ip link set br0 up");
        let more = "libvirt_xml = \"<interface type='bridge'><source bridge='br0'/><target dev='mgmt0'/></interface>\"";
        let text = LAB.replace("autostart = true", &format!("autostart = true\n{more}"));
        std::fs::write("/run/lab/net.toml", &text).unwrap();
        let ports = || {
            sh("ip -br link show master br0")
                .lines()
                .map(|l| l.split(' ').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        libvirt.virsh("attach-interface lv-vm1 bridge br0 --target mgmt1 --live");
        assert_eq!(ports(), ["mgmt0", "mgmt1"]);
        let details = sh("ip -d link show master br0");
        assert!(!details.contains("vmnet:"), "they got the lab's mark: {details}");
        assert_eq!(condition(lab), "as-applied");
        assert!(lab.ok(&["create"]).contains("nothing to do"));
        lab.ok(&["boot", "vm2"]);
        // A guest that runs keeps the nic that its definition has no more, and it stays known.
        let renamed = text.replace("[vm.vm1]", "[vm.vm1]\nnic = { network = \"web\", tap = \"other0\" }");
        std::fs::write("/run/lab/net.toml", renamed).unwrap();
        lab.ok(&["create"]);
        assert_eq!(condition(lab), "as-applied");
        assert!(sh("ip link show master br-web").contains("vmnet:lv:nic:vm1.0"));
        assert_eq!(ports(), ["mgmt0", "mgmt1"]);
        libvirt.virsh("destroy lv-vm1");
        lab.ok(&["boot", "vm1"]);
        assert!(sh("ip link show other0").contains("vmnet:lv:nic:vm1.0"));
        assert_eq!(ports(), ["mgmt0"]);
        // It boots nothing, so it hears no power button.
        sh("(sleep 2; virsh -q -c qemu:///system destroy lv-vm1) >/dev/null 2>&1 &");
        lab.ok(&["destroy", "--stop", "--purge", "lv"]);
        assert_eq!((links(), ports().len(), libvirt.domains().as_str()), (2, 0, ""));
    });
}

/// When the host starts, `restore` runs before libvirt, which waits for it, and again after it.
#[test]
fn restore_asks_libvirt_when_it_runs() {
    run("restore_asks_libvirt_when_it_runs", |lab| {
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        assert_eq!(guests(lab).map(|vm| vm["running"].clone()), [false, false]);
        drop(libvirt);
        assert_eq!(guests(lab).map(|vm| vm["running"].clone()), [Value::Null, false.into()]);
        sh("ip link del br-web");
        exits(lab, &["restore"], 0, &["restored"]);
        assert!(sh("ip -br link").contains("br-web"));
        let libvirt = Libvirt::start();
        assert_eq!(libvirt.domains(), "");
        exits(lab, &["restore"], 0, &["started vm1"]);
        assert_eq!((condition(lab).as_str(), libvirt.domains().as_str()), ("as-applied", "lv-vm1"));
        assert!(libvirt.virsh("dominfo lv-vm1").contains("Autostart:      enable"));
        exits(lab, &["restore"], 0, &["0 changes"]);
        libvirt.virsh("destroy lv-vm1");
        lab.ok(&["destroy", "--purge", "lv"]);
    });
}

#[test]
fn a_guest_that_virsh_starts_is_a_guest() {
    run("a_guest_that_virsh_starts_is_a_guest", |lab| {
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        // It can be defined from what would be; that is the guest, too.
        sh("cd /run/lab; VMNET_STATE_DIR=/run/state $VMNET xml vm1 >vm1.xml"
            .replace("$VMNET", env!("CARGO_BIN_EXE_vmnet"))
            .as_str());
        libvirt.virsh("define /run/lab/vm1.xml");
        libvirt.virsh("start lv-vm1");
        assert_eq!(condition(lab), "differs");
        let shown = lab.ok(&["plan"]);
        assert!(shown.contains("mark") && shown.contains("define guest vm1 in libvirt (autostart on)"), "{shown}");
        lab.ok(&["create"]);
        assert_eq!(condition(lab), "as-applied");
        assert!(libvirt.virsh("dominfo lv-vm1").contains("Autostart:      enable"));
        assert!(sh(&format!("ip link show {}", lab.tap("vm1"))).contains("vmnet:lv:nic:vm1.0"));
        exits(lab, &["boot", "vm1"], 1, &["runs already"]);
        libvirt.virsh("destroy lv-vm1");
        // A guest that leaves the file leaves libvirt.
        let rest = LAB.replace("[vm.vm1]", "[vm.vm3]").replace("engine = \"libvirt\"", "engine = \"netns\"");
        std::fs::write("/run/lab/net.toml", rest).unwrap();
        assert!(lab.ok(&["plan"]).contains("undefine guest vm1"));
        lab.ok(&["create"]);
        assert_eq!((condition(lab).as_str(), libvirt.domains().as_str()), ("as-applied", ""));
        lab.ok(&["destroy", "--purge", "lv"]);
    });
}

/// What it has not used yet is not there for another one; and is again when it has ended.
#[test]
fn a_domain_that_runs_counts_with_all_of_its_memory() {
    run("a_domain_that_runs_counts_with_all_of_its_memory", |lab| {
        let libvirt = Libvirt::start();
        let large =
            LAB.replace("64MiB", "1GiB") + "[vm.vm3]\nimage = \"empty\"\naccel = \"tcg\"\nmemory = \"1000GiB\"\n";
        std::fs::write("/run/lab/net.toml", large).unwrap();
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        let (code, text) = said(lab, &["boot", "vm3"]);
        let promised = text.split_once(" MiB more are for guests that run").and_then(|(text, _)| text.rsplit_once('('));
        let promised: u64 = promised.unwrap_or_else(|| panic!("{text}")).1.parse().unwrap();
        assert!(code == 4 && (700..1024).contains(&promised), "exits {code}: {text}");
        libvirt.virsh("destroy lv-vm1");
        let (code, text) = said(lab, &["boot", "vm3"]);
        assert!(code == 4 && !text.contains("guests that run"), "exits {code}: {text}");
        lab.ok(&["destroy", "--purge", "lv"]);
    });
}

#[test]
fn what_a_lost_lab_left_in_libvirt_is_found() {
    run("what_a_lost_lab_left_in_libvirt_is_found", |lab| {
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        libvirt.virsh("destroy lv-vm1");
        drop(libvirt);
        exits(lab, &["destroy", "lv"], 4, &["systemctl start libvirtd"]);
        exits(lab, &["destroy", "--force", "--purge", "lv"], 0, &["what it has of lab lv stays: lv-vm1"]);
        assert_eq!(links(), 1);
        let libvirt = Libvirt::start();
        assert_eq!(libvirt.domains(), "lv-vm1");
        assert!(lab.ok(&["list"]).contains("leftovers"));
        // It may be of a lab that somebody keeps in folders apart.
        exits(lab, &["gc"], 1, &["nothing in /run/vmnet/lv"]);
        lab.ok(&["gc", "--force"]);
        assert_eq!(libvirt.domains(), "");
        assert!(!lab.ok(&["list"]).contains("lv"));
    });
}

/// What libvirt shows of a domain has no passwords in it, and what was edited there lasts until the guest is started
/// anew.
#[test]
fn what_libvirt_keeps_to_itself_and_what_was_edited() {
    run("what_libvirt_keeps_to_itself_and_what_was_edited", |lab| {
        let libvirt = Libvirt::start();
        let display = "<graphics type='vnc' listen='127.0.0.1' passwd='secret'/>";
        let text = LAB.replace("autostart = true\n", &format!("libvirt_xml = \"{display}\"\n"));
        std::fs::write("/run/lab/net.toml", &text).unwrap();
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        let defined = || libvirt.virsh("dumpxml --inactive --security-info lv-vm1");
        assert!(defined().contains("passwd='secret'"));
        let more = text.replace("memory = \"64MiB\"\n", "memory = \"64MiB\"\nautostart = true\n");
        std::fs::write("/run/lab/net.toml", more).unwrap();
        lab.ok(&["create"]);
        assert!(libvirt.virsh("dominfo lv-vm1").contains("Autostart:      enable"));
        assert!(defined().contains("passwd='secret'"), "defined again without its password");
        libvirt.virsh("destroy lv-vm1");
        sh("virsh -q -c qemu:///system dumpxml --inactive lv-vm1 | sed 's/65536/131072/' >/run/edited.xml
            virsh -q -c qemu:///system define /run/edited.xml");
        assert!(defined().contains("131072") && !defined().contains("passwd"));
        lab.ok(&["boot", "vm1"]);
        assert!(!defined().contains("131072") && defined().contains("passwd='secret'"));
        libvirt.virsh("destroy lv-vm1");
        lab.ok(&["destroy", "--purge", "lv"]);
    });
}

/// The disk stays when another engine runs the guest: it belongs to that one's user then. Where that was interrupted,
/// the folder is root's.
#[test]
fn a_guest_can_change_its_engine() {
    run("a_guest_can_change_its_engine", |lab| {
        if !succeeds("id vmnet-qemu") {
            return crate::skip::skip("engine_libvirt::a_guest_can_change_its_engine", "needs the user vmnet-qemu");
        }
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        let owner = || sh("stat -c '%U %i' /run/state/lv/guests/vm1/disk-1.qcow2").trim().to_owned();
        lab.ok(&["boot", "vm1"]);
        let inode = owner().split(' ').next_back().unwrap().to_owned();
        std::fs::write("/run/lab/net.toml", LAB.replace("engine = \"libvirt\"", "engine = \"qemu\"")).unwrap();
        // It runs on where it was started, is known there, and can be taken back to there.
        lab.ok(&["create", "--confirm", "60s"]);
        lab.ok(&["undo", "lv"]);
        assert_eq!((condition(lab).as_str(), &guests(lab)[0]["running"]), ("as-applied", &true.into()));
        lab.ok(&["create"]);
        assert_eq!(guests(lab)[0]["running"], true);
        exits(lab, &["boot", "vm1"], 1, &["vm1 runs already"]);
        exits(lab, &["destroy", "lv"], 1, &["vm1", "vmnet destroy --stop"]);
        libvirt.virsh("destroy lv-vm1");
        lab.ok(&["create"]);
        assert_eq!(libvirt.domains(), "");
        let inside = |script: &str| sh(&format!("cd /run/state/lv/guests/vm1; {script}"));
        inside("chown root: .; chown vmnet-qemu: base; chown libvirt-qemu: disk-1.qcow2");
        inside("ln -s /etc/hostname link; touch 1; ln 1 2");
        lab.ok(&["boot", "vm1"]);
        assert_eq!(owner(), format!("vmnet-qemu {inode}"));
        assert_eq!(inside("find . ! -user vmnet-qemu | sort"), "./1\n./2\n./link\n");
        assert_eq!(inside("stat -c %a ."), "700\n");
        sh("kill -9 $(pgrep -f guest=[l]v-vm1)");
        lab.ok(&["destroy", "--stop", "--purge", "lv"]);
    });
}
