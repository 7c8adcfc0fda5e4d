//! A lab's networks as libvirt's own: made, changed, repaired and removed with the lab; used by domains of others.

use serde_json::Value;
use vmnet::rule;

use crate::by_others;
use crate::private_libvirt::{self, COVER, Libvirt, START, STOP};
use crate::sandbox;
use crate::world::{Lab, sh};

const LAB: &str = r#"
lab = "lv"
libvirt = true
[network.web]
mode = "isolated"
mtu = 1400
[network.db]
mode = "isolated"
[network.out]
mode = "bridged"
bridge = "br0"
[vm.own]
engine = "netns"
nic = "web"
"#;

fn run(name: &str, test: impl FnOnce(&Lab)) {
    let name = format!("libvirt_networks::{name}");
    if private_libvirt::missing(&name) {
        return;
    }
    sandbox::run(&name, || {
        let lab = Lab::from_text(LAB);
        sh("ip link add br0 type bridge; ip link set br0 up");
        test(&lab);
    });
}

#[track_caller]
fn exits(lab: &Lab, args: &[&str], wanted: i32, words: &[&str]) -> String {
    let output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().unwrap_or(-1);
    assert!(code == wanted && words.iter().all(|word| text.contains(word)), "vmnet {args:?} exits {code}: {text}");
    text.into_owned()
}

fn write(text: &str) {
    std::fs::write("/run/lab/net.toml", text).unwrap();
}

fn status(lab: &Lab) -> Value {
    serde_json::from_str(&lab.ok(&["status", "lv", "--json"])).unwrap()
}

fn condition(lab: &Lab) -> String {
    status(lab)["condition"].as_str().unwrap().to_owned()
}

/// What differs, a line each.
fn differences(lab: &Lab) -> Vec<String> {
    let status = status(lab);
    status["differences"].as_array().unwrap().iter().map(|at| at["text"].as_str().unwrap().to_owned()).collect()
}

impl Libvirt {
    /// Each network with its state, whether it starts by itself, and whether it is persistent.
    fn networks(&self) -> Vec<String> {
        let listing = self.virsh("net-list --all");
        listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

const ALL: [&str; 3] = ["lv-db active yes yes", "lv-out active yes yes", "lv-web active yes yes"];

fn links() -> usize {
    sh("ip -br link").lines().count()
}

#[test]
fn they_come_and_go_with_the_lab() {
    run("they_come_and_go_with_the_lab", |lab| {
        let before = links();
        sh(COVER);
        exits(lab, &["create"], 4, &["nothing was changed", "systemctl start libvirtd"]);
        assert_eq!(links(), before, "something was changed");
        let libvirt = Libvirt::start();
        let shown = lab.ok(&["plan"]);
        assert!(shown.contains("+ add libvirt network lv-web on br-web (started, autostart on)"), "{shown}");
        lab.ok(&["create"]);
        assert_eq!(libvirt.networks(), ALL);
        sh("for n in web db out; do virsh -q -c qemu:///system net-dumpxml lv-$n >/run/n.xml
            virt-xml-validate /run/n.xml network; done");
        let xml = libvirt.virsh("net-dumpxml lv-out");
        assert!(xml.contains("<forward mode='bridge'/>") && xml.contains("<bridge name='br0'/>"), "{xml}");
        assert!(xml.contains("lab=\"lv\" network=\"out\"") || xml.contains("lab='lv' network='out'"), "{xml}");
        assert_eq!(condition(lab), "as-applied");
        exits(lab, &["plan", "--check"], 0, &["nothing to do"]);
        // It is libvirt that keeps them.
        drop(libvirt);
        assert_eq!(condition(lab), "degraded");
        exits(lab, &["destroy", "lv"], 4, &["systemctl start libvirtd"]);
        exits(lab, &["verify", "lv"], 0, &[]);
        exits(lab, &["ps", "lv"], 0, &["own", "libvirt can't be asked which guests it runs"]);
        let libvirt = Libvirt::start();
        assert_eq!((libvirt.networks(), condition(lab)), (ALL.map(str::to_owned).to_vec(), "as-applied".into()));
        // One that leaves the file goes; a bridge that gets another name is handed out under the same one.
        let other = LAB.replace("[network.db]\nmode = \"isolated\"\n", "").replace("1400", "1400\nifname = \"br-new\"");
        write(&other);
        let shown = lab.ok(&["plan"]);
        assert!(shown.contains("- remove libvirt network lv-db"), "{shown}");
        assert!(shown.contains("~ set libvirt network lv-web: on br-new (started, autostart on)"), "{shown}");
        lab.ok(&["create"]);
        assert_eq!(libvirt.networks(), ["lv-out active yes yes", "lv-web active yes yes"]);
        assert!(libvirt.virsh("net-dumpxml lv-web").contains("br-new"));
        write(&other.replace("libvirt = true", "libvirt = false"));
        lab.ok(&["create"]);
        assert_eq!(libvirt.networks(), [""; 0]);
        write(&other);
        lab.ok(&["create"]);
        let two = libvirt.networks();
        write(&other.replace("libvirt = true", "libvirt = false"));
        lab.ok(&["create", "--confirm", "60s"]);
        assert_eq!(libvirt.networks(), [""; 0]);
        lab.ok(&["undo", "lv"]);
        assert_eq!(libvirt.networks(), two);
        lab.ok(&["create"]);
        assert_eq!(libvirt.networks(), [""; 0]);
        write(LAB);
        lab.ok(&["create", "--confirm", "60s"]);
        assert_eq!(libvirt.networks(), ALL);
        lab.ok(&["undo", "lv"]);
        assert_eq!(libvirt.networks(), [""; 0]);
        lab.ok(&["create"]);
        lab.ok(&["destroy", "lv"]);
        assert_eq!((libvirt.networks().len(), links()), (0, before));
    });
}

/// Where root has not root's way with files, it is libvirt's socket that says who may ask.
#[test]
fn a_socket_that_lets_vmnet_not_in() {
    run("a_socket_that_lets_vmnet_not_in", |lab| {
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        lab.ok(&["boot", "own"]);
        let vmnet = |args: &str| {
            let vmnet = env!("CARGO_BIN_EXE_vmnet");
            sh(&format!(
                "cd /run/lab; export VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet
                code=0; setpriv --bounding-set -dac_override,-dac_read_search {vmnet} {args} 2>&1 || code=$?; echo $code"
            ))
        };
        assert!(vmnet("ps lv").ends_with("\n0\n") && !vmnet("ps lv").contains("note"));
        sh("chown nobody /run/libvirt/libvirt-sock; chmod 600 /run/libvirt/libvirt-sock");
        let before = links();
        for args in ["plan", "create", "attach nobody web", "destroy --stop lv"] {
            let said = vmnet(args);
            assert!(said.contains("Permission denied") && said.contains("group libvirt"), "{args}: {said}");
            assert!(said.contains("nothing was changed") && said.ends_with("\n4\n"), "{args}: {said}");
        }
        let said = vmnet("ps lv");
        assert!(said.contains(" running ") && said.contains("Permission denied") && said.ends_with("\n0\n"), "{said}");
        assert_eq!(links(), before, "something was changed");
        sh("chown root /run/libvirt/libvirt-sock");
        lab.ok(&["destroy", "--stop", "lv"]);
        assert_eq!(libvirt.networks(), [""; 0]);
    });
}

#[test]
fn what_others_do_to_them_is_seen_and_repaired() {
    run("what_others_do_to_them_is_seen_and_repaired", |lab| {
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        let edit = |from: &str, to: &str| {
            let xml = libvirt.virsh("net-dumpxml lv-web --inactive").replace(from, to);
            std::fs::write("/run/n.xml", xml).unwrap();
            libvirt.virsh("net-define /run/n.xml");
        };
        for (spoil, seen) in [
            ("net-destroy lv-web", "libvirt network lv-web: not started, should be started"),
            ("net-autostart --disable lv-web", "libvirt network lv-web: autostart off, should be autostart on"),
            ("net-undefine lv-web", "libvirt network lv-web: autostart off, should be autostart on"),
            ("edit", "libvirt network lv-web: on br-db, should be on br-web"),
            ("nat", "libvirt network lv-web: on no bridge, should be on br-web"),
            ("gone", "libvirt network lv-web is missing"),
        ] {
            match spoil {
                "edit" => edit("br-web", "br-db"),
                "nat" => edit("<forward mode='bridge'/>", "<forward mode='open'/><ip address='203.0.113.1'/>"),
                "gone" => drop(libvirt.virsh("net-destroy lv-web; virsh -q -c qemu:///system net-undefine lv-web")),
                args => drop(libvirt.virsh(args)),
            }
            assert_eq!(differences(lab), [seen], "{spoil}");
            lab.ok(&["create"]);
            assert_eq!(libvirt.networks(), ALL, "{spoil}");
            assert!(libvirt.virsh("net-dumpxml lv-web").contains("<bridge name='br-web'/>"), "{spoil}");
            assert_eq!(condition(lab), "as-applied", "{spoil}");
        }
        // A copy carries the mark, too, and is somebody's own.
        let uuid = rule::libvirt_network_uuid(&"lv".parse().unwrap(), &"web".parse().unwrap());
        let xml = libvirt.virsh("net-dumpxml lv-web --inactive").replace("lv-web", "stray");
        std::fs::write("/run/n.xml", xml.replace(&uuid, "00000000-0000-4000-8000-000000000001")).unwrap();
        libvirt.virsh("net-define /run/n.xml");
        assert_eq!(condition(lab), "as-applied");
        // The same, under another name.
        libvirt.virsh("net-destroy lv-db");
        let xml = libvirt.virsh("net-dumpxml lv-db").replace("lv-db", "renamed");
        std::fs::write("/run/n.xml", xml).unwrap();
        libvirt.virsh("net-undefine lv-db");
        libvirt.virsh("net-define /run/n.xml");
        let wanted = ["libvirt network lv-db is missing", "libvirt network renamed: should not be there"];
        assert_eq!(differences(lab), wanted);
        lab.ok(&["create"]);
        let all = [&ALL[..], &["stray inactive no yes"]].concat();
        assert_eq!(libvirt.networks(), all);
        // Without a ledger, by the marks alone.
        sh("rm -rf /run/state");
        assert!(lab.ok(&["list", "--json"]).contains("\"leftovers\""));
        lab.ok(&["gc", "--stop"]);
        let list: Value = serde_json::from_str(&lab.ok(&["list", "--json"])).unwrap();
        assert_eq!(list["labs"].to_string(), "[]");
        assert_eq!(libvirt.networks(), ["stray inactive no yes"]);
    });
}

#[test]
fn networks_of_others_are_never_touched() {
    run("networks_of_others_are_never_touched", |lab| {
        let libvirt = Libvirt::start();
        let before = links();
        let own = rule::libvirt_network_uuid(&"lv".parse().unwrap(), &"db".parse().unwrap());
        for (name, uuid) in [("lv-web", "00000000-0000-4000-8000-000000000001"), ("theirs", own.as_str())] {
            let xml = format!(
                "<network><name>{name}</name><uuid>{uuid}</uuid><forward mode='bridge'/><bridge name='br0'/></network>"
            );
            std::fs::write("/run/n.xml", xml).unwrap();
            libvirt.virsh("net-define /run/n.xml");
            let theirs = libvirt.virsh(&format!("net-dumpxml {name}"));
            exits(lab, &["create"], 1, &["libvirt network", name, "virsh net-undefine"]);
            assert_eq!(links(), before, "something was changed");
            assert_eq!(libvirt.virsh(&format!("net-dumpxml {name}")), theirs);
            libvirt.virsh(&format!("net-undefine {name}"));
        }
        lab.ok(&["create"]);
        lab.ok(&["destroy", "lv"]);
    });
}

/// A machine that boots nothing, with an interface on a network of libvirt's where one is said.
fn domain(libvirt: &Libvirt, name: &str, network: Option<&str>) {
    let nic = network.map_or_else(String::new, |network| {
        format!("<interface type='network'><source network='{network}'/><model type='virtio'/></interface>")
    });
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>{nic}</devices></domain>"
    );
    std::fs::write("/run/d.xml", xml).unwrap();
    libvirt.virsh("define /run/d.xml");
}

#[test]
fn who_uses_one_keeps_the_lab() {
    run("who_uses_one_keeps_the_lab", |lab| {
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        domain(&libvirt, "theirs", Some("lv-web"));
        domain(&libvirt, "waits", Some("lv-db"));
        libvirt.virsh("start theirs");
        assert!(sh("bridge link show").contains("master br-web"));
        assert_eq!(condition(lab), "as-applied");
        let shown = lab.ok(&["status", "lv"]);
        assert!(shown.contains("is a port of br-web, for libvirt domain theirs"), "{shown}");
        assert!(shown.contains("libvirt domain waits is defined to be on lv-db"), "{shown}");
        let refused = exits(lab, &["destroy", "lv"], 1, &["nothing was changed"]);
        assert!(refused.contains("theirs is a libvirt domain that runs on libvirt network lv-web"), "{refused}");
        assert!(
            refused.contains("waits is a libvirt domain that is defined to be on libvirt network lv-db"),
            "{refused}"
        );
        write(&LAB.replace("[network.db]\nmode = \"isolated\"\n", ""));
        exits(lab, &["create"], 1, &["waits is a libvirt domain"]);
        assert_eq!(libvirt.networks(), ALL);
        libvirt.virsh("destroy theirs");
        exits(lab, &["destroy", "lv"], 1, &["theirs is a libvirt domain that is defined", "waits is"]);
        libvirt.virsh("undefine theirs");
        exits(lab, &["destroy", "lv"], 1, &["waits is"]);
        lab.ok(&["destroy", "--force", "lv"]);
        assert_eq!((libvirt.networks().len(), libvirt.domains()), (0, "waits".to_owned()));
    });
}

fn attach(lab: &Lab, args: &[&str]) -> Value {
    serde_json::from_str(&lab.ok(&[args, &["--json"]].concat())).unwrap()
}

#[test]
fn an_interface_comes_and_goes() {
    run("an_interface_comes_and_goes", |lab| {
        let libvirt = Libvirt::start();
        lab.ok(&["create"]);
        domain(&libvirt, "off", None);
        let uuid = libvirt.virsh("domuuid off").trim().to_owned();
        exits(lab, &["attach", "nobody", "web"], 1, &["libvirt has no domain nobody"]);
        exits(lab, &["attach", "", "web"], 2, &["DOMAIN"]);
        exits(lab, &["attach", "off", "nowhere"], 1, &["lab lv has no network nowhere; it has db, out, web"]);
        exits(lab, &["attach", "off", "other/web"], 1, &["lab other is not created"]);
        // By name or UUID, in the definition alone while it is off.
        let first = attach(lab, &["attach", &uuid, "lv/web", "--model", "e1000e"]);
        assert_eq!((&first["live"], &first["persistent"]), (&false.into(), &true.into()), "{first}");
        let mac = rule::attached_mac(&"lv".parse().unwrap(), &"web".parse().unwrap(), &uuid, 0).to_string();
        assert_eq!(first["mac"], mac.as_str());
        let xml = libvirt.virsh("dumpxml off");
        assert!(xml.contains("<source network='lv-web'/>") && xml.contains("<mtu size='1400'/>"), "{xml}");
        assert!(xml.contains("<model type='e1000e'/>") && xml.contains(&mac), "{xml}");
        let again = exits(lab, &["attach", "off", "web"], 0, &["already", &mac]);
        assert!(!again.contains("attached"), "{again}");
        assert_eq!(libvirt.virsh("dumpxml off"), xml);
        // It runs: what is defined is plugged in; what is attached now is both.
        libvirt.virsh("start off");
        assert_eq!(attach(lab, &["attach", "off", "web"])["live"], false);
        let db = attach(lab, &["attach", "off", "db"]);
        assert_eq!((&db["live"], &db["persistent"]), (&true.into(), &true.into()), "{db}");
        let tap = db["tap"].as_str().unwrap();
        assert!(sh(&format!("ip link show {tap}")).contains("master br-db"));
        assert_ne!(db["mac"], first["mac"]);
        assert_eq!(condition(lab), "as-applied");
        // Nobody answers in there.
        exits(lab, &["detach", "off", "db"], 1, &["let go", "vmnet detach again"]);
        assert!(!libvirt.virsh("dumpxml off --inactive").contains("lv-db"));
        libvirt.virsh("destroy off");
        let gone = attach(lab, &["detach", "off", "lv/web"]);
        assert_eq!((&gone["mac"], &gone["persistent"]), (&Value::from(mac), &true.into()), "{gone}");
        assert!(!libvirt.virsh("dumpxml off").contains("<interface"));
        exits(lab, &["detach", "off", "web"], 0, &["has no interface on lv/web"]);
        lab.ok(&["destroy", "--stop", "lv"]);
        // Without networks of libvirt's, the bridge itself.
        write(&LAB.replace("libvirt = true\n", ""));
        lab.ok(&["create"]);
        attach(lab, &["attach", "off", "web"]);
        assert!(libvirt.virsh("dumpxml off").contains("<source bridge='br-web'/>"));
        attach(lab, &["detach", "off", "web"]);
        assert!(!libvirt.virsh("dumpxml off").contains("<interface"));
        drop(libvirt);
        exits(lab, &["attach", "off", "web"], 4, &["systemctl start libvirtd"]);
        lab.ok(&["destroy", "lv"]);
    });
}

/// A machine of virt-install's on a network of the lab, with the seed of a guest that was in the definition before.
const INSTALL: &str = r#"
sed -i '1a libvirt = true' net.toml
"$VMNET" create
"$VMNET" xml vm1 >vm1.xml
cp "$(grep -o '/[^"]*seed.img' vm1.xml)" seed.img
chmod 644 seed.img
mac=$(sed -n 's/.*<mac address="\(.*\)".*/\1/p' vm1.xml)
sed -i '/^\[vm.vm1\]/,$d; /^\[image/,/^initrd/d' net.toml
"$VMNET" destroy --purge virt
"$VMNET" create
$virsh net-info virt-web
virt-install --connect qemu:///system --name installed --memory 160 --vcpus 1 --import \
    --disk path=seed.img,format=raw,bus=virtio \
    --boot kernel=vmlinuz,initrd=initrd.img,kernel_args="console=ttyS0 quiet" \
    --network network=virt-web,model=virtio,mac="$mac" \
    --osinfo detect=off,require=off --virt-type qemu --graphics none --noautoconsole
answered() {
    for _ in $(seq 240); do ip netns exec vmnet-virt ping -c 1 -W 1 192.168.10.10 >/dev/null && return; done
    return 1
}
answered && echo 'the machine is on the network'
bridge fdb show br br-web | grep -qi "$mac" && echo 'its MAC is learned'
if "$VMNET" destroy virt; then exit 1; fi
# What is plugged into a system that answers is let go of again.
"$VMNET" attach installed web
$virsh domiflist installed
"$VMNET" detach installed web
$virsh domiflist installed
answered && echo 'the machine is still on the network'
$virsh destroy installed
$virsh undefine installed
"$VMNET" destroy --purge virt
echo "networks left: $($virsh net-list --all --name | wc -w)"
"#;

#[test]
fn virt_install_puts_a_machine_on_a_network() {
    const NAME: &str = "libvirt_networks::virt_install_puts_a_machine_on_a_network";
    if private_libvirt::missing(NAME) {
        return;
    }
    let script = ["set -eu", COVER, START, "mkdir -p /run/lab\nlay_lab", INSTALL, STOP].join("\n");
    by_others::run(NAME, ("/usr/bin/virt-install", "virt-install (package virtinst)"), "virt", &script, |said| {
        for line in [
            "the machine is on the network",
            "its MAC is learned",
            "installed is a libvirt domain that runs on libvirt network virt-web",
            "installed is attached to virt/web now and at its next starts",
            "installed is detached from virt/web now and at its next starts",
            "the machine is still on the network",
            "networks left: 0",
        ] {
            assert!(said.contains(line), "{line} is not in:\n{said}");
        }
        assert!(!said.contains("failed: "), "{said}");
    });
}
