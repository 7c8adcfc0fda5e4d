//! A reboot: the kernel's objects and `/run` are gone, the boot id is another one, ledgers and disks are there.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::matrix::row;
use crate::snapshot::{Snapshot, namespace_names};
use crate::world::{Engine, Lab, output, sh};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Two networks on a trunk's side, a way out through the host, and guests of which one comes back by itself.
fn definition(lab: &str, net: usize) -> String {
    format!(
        "lab = \"{lab}\"\n[defaults.vm]\nengine = \"netns\"\n[network.{lab}-web]\nsubnet = \"10.{net}.0.0/24\"\n\
         [network.{lab}-db]\nmode = \"routed\"\nsubnet = \"10.{net}.1.0/24\"\n\
         [vm.{lab}1]\nnic = \"{lab}-web\"\nautostart = true\n[vm.{lab}2]\nnic = \"{lab}-db\"\n"
    )
}

/// A boot id of the test's own, which [`reboot`] changes.
fn first_boot() {
    fs::write("/run/boot_id", "00000000-0000-4000-8000-000000000001\n").unwrap();
    let none: Option<&str> = None;
    mount(Some("/run/boot_id"), BOOT_ID, none, MsFlags::MS_BIND, none).unwrap();
    sh("ip link add nic0 type veth peer name wire0; ip address add 192.0.2.2/24 dev nic0");
    sh("ip link set wire0 up; ip link set nic0 up; ip route add default via 192.0.2.1");
}

/// What a reboot takes, and the host's own network as it comes up again. What the machine's programs remember below
/// the state folder stays.
fn reboot(number: usize) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if let (true, Ok(number)) = (command.contains("qemu-system"), entry.file_name().to_string_lossy().parse()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
    namespace_names().iter().for_each(|name| drop(sh(&format!("ip netns del {name}"))));
    for line in output("ip -o link").lines() {
        let name = line.split(": ").nth(1).unwrap().split('@').next().unwrap();
        if !["lo", "nic0", "wire0"].contains(&name) {
            // The other end of a pair is gone with it.
            output(&format!("ip link del {name}"));
        }
    }
    sh("nft flush ruleset; echo 0 > /proc/sys/net/ipv4/conf/nic0/forwarding; ip route flush proto 118");
    sh("rm -rf /run/vmnet");
    fs::write("/run/boot_id", format!("00000000-0000-4000-8000-{number:012}\n")).unwrap();
    let left = output("ip -o link | grep -c vmnet:; ls /run/netns");
    assert!(left.trim().is_empty() || left.trim() == "0", "{left}");
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    let Output { stdout, .. } = lab.vmnet(&[args, &["--json"]].concat());
    serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stdout)))
}

fn report<'r>(restored: &'r Value, lab: &str) -> &'r Value {
    restored["labs"].as_array().unwrap().iter().find(|report| report["lab"] == lab).unwrap()
}

/// A lab whose definition stands at a place of its own.
fn beside(lab: &str, text: &str) -> (Lab, String) {
    let folder = format!("/run/{lab}");
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/net.toml"), text).unwrap();
    (Lab::from_text(text), format!("{folder}/net.toml"))
}

/// Reboot: ledger recognised as stale by boot id, rebuilt; guests with autostart run, and a second time nothing is done.
#[test]
fn row_26_reboot() {
    row!(|| {
        first_boot();
        let before = Snapshot::when_settled();
        let (lab, file) = beside("east", &definition("east", 1));
        lab.ok(&["create", &file]);
        lab.ok(&["boot", "--all", "--of", &file]);
        assert_eq!(json(&lab, &["status", "east"])["stale"], false);
        reboot(2);
        // The files may be gone, too.
        fs::rename(&file, "/run/away").unwrap();
        assert_eq!(json(&lab, &["status", "east"])["stale"], true);
        let said = lab.ok(&["status", "east"]);
        assert!(said.contains("applied before this boot; vmnet restore east brings it back"), "{said}");
        let restored = json(&lab, &["restore"]);
        let east = report(&restored, "east");
        assert_eq!((&east["restored"], &east["started"]), (&true.into(), &serde_json::json!(["east1"])), "{east}");
        assert!(east["changes"].as_u64().unwrap() > 10, "{east}");
        fs::rename("/run/away", &file).unwrap();
        lab.ok(&["plan", "--check", &file]);
        let status = json(&lab, &["status", "east"]);
        assert_eq!((&status["stale"], &status["guests"]), (&false.into(), &serde_json::json!(["east1"])));
        assert!(lab.pings("east1", "10.1.0.1"));
        let again = Snapshot::when_settled();
        let restored = json(&lab, &["restore", "east"]);
        assert_eq!(report(&restored, "east")["changes"], 0);
        let differences = again.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        lab.ok(&["destroy", "--stop", "east"]);
        lab.ok(&["destroy", "east"]);
        let differences = before.differences(&Snapshot::when_settled());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        assert!(!Path::new("/run/state").exists() && !Path::new("/run/vmnet/east").exists());
    });
}

/// One lab that can't come back keeps no other from it: exit 1, and each is told of.
#[test]
fn row_26_one_lab_fails() {
    row!(|| {
        first_boot();
        let (_, broken) = beside("broken", &definition("broken", 1).replace("10.1.1.0/24", "10.77.1.0/24"));
        let (damaged_lab, damaged) = beside("damaged", &definition("damaged", 2));
        let (lab, west) = beside("west", &definition("west", 3));
        for file in [&broken, &damaged, &west] {
            lab.ok(&["create", file]);
        }
        reboot(2);
        // Its subnet is the host's now, and another ledger suffered.
        sh("ip address add 10.77.1.9/24 dev wire0");
        fs::write("/run/state/damaged/ledger/ledger.json", "{").unwrap();
        let output = lab.vmnet(&["restore"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("lab west: restored") && text.contains("started west1"), "{text}");
        assert!(text.contains("lab broken: failed: ") && text.contains("10.77.1.0/24"), "{text}");
        assert!(text.contains("lab damaged: failed: ") && text.contains("ledger.json is damaged"), "{text}");
        assert!(text.contains("2 of 3 labs failed"), "{text}");
        // A way back that led to nothing left the ledger of before.
        assert_eq!(json(&lab, &["status", "broken"])["stale"], true);
        fs::remove_file("/run/state/damaged/ledger/ledger.json").unwrap();
        sh("ip address del 10.77.1.9/24 dev wire0");
        lab.ok(&["plan", "--check", &west]);
        lab.ok(&["restore"]);
        lab.ok(&["plan", "--check", &broken]);
        for name in ["west", "broken", "damaged"] {
            damaged_lab.ok(&["destroy", "--stop", name]);
        }
    });
}

/// What was not confirmed, or was interrupted, when the machine went down: what was applied before comes back.
#[test]
fn row_26_unconfirmed_or_interrupted() {
    row!(|| {
        first_boot();
        let (lab, file) = beside("east", &definition("east", 1));
        let other = definition("east", 9).replace("east-db", "east-more");
        // Nothing was there before.
        lab.ok(&["create", "--confirm", "600s", &file]);
        kill_watchers();
        reboot(2);
        assert!(lab.ok(&["status", "east"]).contains("not confirmed when the machine went down; vmnet restore east"));
        let restored = json(&lab, &["restore"]);
        assert_eq!(report(&restored, "east")["restored"], false);
        assert!(!Path::new("/run/state/east").exists());
        // Another definition was.
        lab.ok(&["create", &file]);
        fs::write(&file, &other).unwrap();
        lab.ok(&["create", "--confirm", "600s", &file]);
        kill_watchers();
        reboot(3);
        // Whichever verb comes first: from then on the old ledger counts.
        assert_eq!(lab.vmnet(&["undo", "east"]).status.code(), Some(1));
        lab.ok(&["restore"]);
        let back = output("ip -n vmnet-east -br address");
        assert!(back.contains("10.1.1.1/24") && !back.contains("10.9.0.1"), "{back}");
        // Killed in the middle.
        let many: String = (20..80)
            .map(|net| format!("[network.n{net}]\nmode = \"routed\"\nsubnet = \"10.{net}.0.0/24\"\n"))
            .collect();
        fs::write(&file, other + &many).unwrap();
        let mut client = lab.command(&["create", &file]).spawn().unwrap();
        while fs::read_to_string("/run/state/east/ledger/ledger.json").unwrap().contains("\"applied\"") {
            std::thread::sleep(Duration::from_millis(1));
        }
        client.kill().unwrap();
        assert_eq!(client.wait().unwrap().signal(), Some(9), "too late to kill it");
        assert!(lab.ok(&["status", "east"]).contains("is not done"));
        reboot(4);
        lab.ok(&["restore"]);
        fs::write(&file, definition("east", 1)).unwrap();
        assert!(lab.ok(&["status", "east"]).contains("as applied"));
        assert!(output("ip -n vmnet-east -br address").contains("10.1.1.1/24"));
        lab.ok(&["destroy", "--stop", "east"]);
    });
}

/// A reboot ends them.
fn kill_watchers() {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if let (true, Ok(number)) = (command.contains("await-confirm"), entry.file_name().to_string_lossy().parse()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

/// The systemd unit's capabilities are enough, for a guest in QEMU too; one that can't start keeps no other from it.
#[test]
fn row_26_as_the_unit_does_it() {
    row!(|| {
        first_boot();
        let scenario = Path::new("/run/scenario");
        fs::create_dir_all(scenario).unwrap();
        let text = definition("east", 1)
            + "[vm.east3]\nnic = \"east-db\"\nautostart = true\nimage = \"gone\"\n\
                    [image.gone]\nfile = \"/run/gone.qcow2\"\n";
        fs::write(scenario.join("net.toml"), text).unwrap();
        let lab = Lab::new(scenario, Engine::Qemu("tcg"));
        lab.ok(&["create"]);
        reboot(2);
        let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/vmnet.service")).unwrap();
        let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let set: String = set.split(' ').map(|cap| cap.replace("CAP_", ",+").to_lowercase()).collect();
        let restore = format!(
            "cd / && VMNET_STATE_DIR=/run/state VMNET_RUN_DIR=/run/vmnet setpriv --bounding-set=-all{set} \
             --inh-caps=-all --no-new-privs {} restore",
            env!("CARGO_BIN_EXE_vmnet")
        );
        let ran = std::process::Command::new("sh").args(["-c", &restore]).output().unwrap();
        let text = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(text.contains("restored") && text.contains("started east1"), "{ran:?}");
        assert!(text.contains("vm east3: ") && text.contains("/run/gone.qcow2"), "{text}");
        assert_eq!(json(&lab, &["status"])["guests"], serde_json::json!(["east1"]));
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}
