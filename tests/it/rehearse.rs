//! Rehearsals: what they find, that they leave nothing, and that nobody needs root for them.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::rehearsal::Rehearsal;
use super::sandbox;
use super::skip::skip;
use super::snapshot::Snapshot;
use super::world::{Lab, output};

/// Every kind of stand-in that needs no VLAN: NICs by name, altname and MAC, a foreign bridge, next hops outside.
const ALL: &str = r#"
lab = "stage"
[uplink.trunk]
device = "eno1"
[defaults.vm]
engine = "netns"
[network.office]
mode = "bridged"
bridge = "br0"
subnet = "10.9.0.0/24"
gateway = "10.9.0.1"
[network.web]
subnet = "192.168.10.0/24"
[router]
host = "h1"
external = { via = "macvlan", address = "192.0.2.9/24", gateway = "192.0.2.1" }
[vm.vm1]
host = "h1"
nic = ["web", "office"]
[vm.vm4]
host = "h2"
nic = "office"
[host.h1]
underlay = "10.0.2.15"
uplink.trunk.device = "52:54:00:12:34:56"
[host.h2]
network.office.bridge = "br-lan"
"#;

fn start(lab: &Lab, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmnet"));
    command.args(["rehearse", "net.toml"]).args(args).current_dir(lab.folder()).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The processes that keep machines.
fn holders() -> usize {
    output("pgrep -fc 'hold-rehearsed[ ]stage'").trim().parse().unwrap_or_default()
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not within ten seconds: {what}");
}

#[test]
fn stand_ins_are_found_as_the_devices_and_nothing_stays() {
    sandbox::run("rehearse::stand_ins_are_found_as_the_devices_and_nothing_stays", || {
        let lab = Lab::from_text(ALL);
        let before = Snapshot::when_settled();
        let rehearsal = Rehearsal::of(&lab);
        assert_eq!(rehearsal.code, 0, "{:#}", rehearsal.report);
        // The guests share a foreign bridge on each host, and the segment's own gateway answers.
        let (_, vm4) = rehearsal.guest("vm4");
        assert!(rehearsal.in_guest("vm1", &format!("ping -c 1 -W 2 -I eth1 {vm4}")).1 == 0);
        assert!(rehearsal.pings("vm4", "10.9.0.1"));
        // The way out is translated: the outside has no route to the guests.
        let routes = rehearsal.ok_on("outside", "ip route");
        assert!(!routes.contains("192.168.10.0"), "{routes}");
        assert!(rehearsal.pings("vm1", rehearsal.report["outside"][0].as_str().unwrap()));
        // Hosts reach each other by their own addresses; no host sees processes of another.
        rehearsal.ok_on("h2", "ping -c 1 -W 2 10.0.2.15");
        let processes = rehearsal.ok_on("h2", "ps -e -o args=");
        assert!(processes.contains("hold-rehearsed stage h2") && !processes.contains("stage h1"), "{processes}");
        assert_eq!(rehearsal.ok_on("h2", "hostname").trim(), "h2");
        let (text, code) = rehearsal.on("h9", "true");
        assert!(code == 2 && text.contains("h1"), "{text}");
        let again = start(&lab, &["--keep"]).output().unwrap();
        assert!(again.status.code() == Some(1) && said(&again).contains("--end stage"), "{}", said(&again));
        rehearsal.end();
        let differences = before.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        assert!(!lab.folder().join("net.lock").exists() && !Path::new("/run/vmnet-state").exists());
    });
}

#[test]
fn a_lab_without_hosts_is_rehearsed_as_one_host() {
    sandbox::run("rehearse::a_lab_without_hosts_is_rehearsed_as_one_host", || {
        let text = "lab = \"stage\"\n[network.web]\nsubnet = \"192.168.10.0/24\"\n[vm.vm1]\nnic = \"web\"\n\
                    [image.none]\nfile = \"none.qcow2\"\n[defaults.vm]\nimage = \"none\"\n";
        let lab = Lab::from_text(text);
        let network = Snapshot::of_the_network();
        let output = start(&lab, &["--json", "--junit", "/tmp/vmnet-rehearsed.xml"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = report["verify"]["rows"].as_array().unwrap();
        // Through the host, translated to its address on the underlay.
        let out = rows.iter().find(|row| row["from"] == "vm1" && row["to"] == "outside").unwrap();
        assert_eq!((&out["expect"], &out["seen"]), (&Value::from("reach"), &Value::from("reached")), "{out}");
        let junit = std::fs::read_to_string("/tmp/vmnet-rehearsed.xml").unwrap();
        std::fs::remove_file("/tmp/vmnet-rehearsed.xml").unwrap();
        assert!(junit.contains("<testsuite"), "{junit}");
        wait_for("everything is gone", || holders() == 0);
        assert_eq!(network.differences(&Snapshot::of_the_network()), Vec::<String>::new());
    });
}

/// Two hosts without a trunk.
const APART: &str = r#"
lab = "stage"
defaults.vm.engine = "netns"
[network.wide]
across = "routed"
subnet = "10.0.0.0/8"
[host.h1]
underlay = "192.0.2.1"
[host.h2]
underlay = "192.0.2.2"
[vm.vm1]
host = "h1"
nic = "wide"
[vm.vm4]
host = "h2"
nic = "wide"
"#;

#[test]
fn what_is_on_other_hosts_is_not_tried() {
    sandbox::run("rehearse::what_is_on_other_hosts_is_not_tried", || {
        let lab = Lab::from_text(APART);
        let output = start(&lab, &["--only", "h1"]).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        for part in ["vm4 runs on h2, which was not asked", "its gateway is on h2, which was not asked", "but for"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let whole = said(&start(&lab, &[]).output().unwrap());
        assert!(whole.contains("everybody reaches whom they should, and nobody else"), "{whole}");
    });
}

#[test]
fn killed_or_interrupted_it_leaves_nothing() {
    sandbox::run("rehearse::killed_or_interrupted_it_leaves_nothing", || {
        let lab = Lab::from_text(ALL);
        let before = Snapshot::when_settled();
        let run = |args: &[&str]| -> Child {
            let child = start(&lab, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            wait_for("its machines are there", || holders() == 4);
            child
        };
        let pid = |child: &Child| Pid::from_raw(i32::try_from(child.id()).unwrap());
        for args in [&[][..], &["--keep"]] {
            let mut child = run(args);
            kill(pid(&child), Signal::SIGKILL).unwrap();
            child.wait().unwrap();
            wait_for("everything is gone after SIGKILL", || holders() == 0);
            let child = run(args);
            kill(pid(&child), Signal::SIGINT).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert_eq!(holders(), 0, "it waits until everything is gone");
        }
        wait_for("nothing is left", || before.differences(&Snapshot::take()).is_empty());
    });
}

#[test]
fn what_a_host_refuses_is_told_and_everything_goes() {
    sandbox::run("rehearse::what_a_host_refuses_is_told_and_everything_goes", || {
        let text = ALL.replace("[uplink.trunk]", "[uplink.other]\ndevice = \"52:54:00:12:34:56\"\n[uplink.trunk]");
        let text = text.replace(
            "[network.web]",
            "[network.twice]\nvlan = 7\nuplink = \"other\"\nmode = \"isolated\"\n[network.web]",
        );
        let text = text.replace("nic = [\"web\", \"office\"]", "nic = [\"web\", \"office\", \"twice\"]");
        let text = text.replace("via = \"macvlan\",", "via = \"macvlan\", uplink = \"trunk\",");
        let lab = Lab::from_text(&text);
        let output = start(&lab, &[]).output().unwrap();
        assert!(!output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("h1") && said(&output).contains("nothing was changed"), "{}", said(&output));
        assert_eq!(holders(), 0);
        let output = start(&lab, &["--only", "h7"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    });
}

#[test]
fn nobody_needs_root_for_it() {
    const NAME: &str = "rehearse::nobody_needs_root_for_it";
    sandbox::run(NAME, || {
        let lab = Lab::from_text(ALL);
        let user = ["--reuid=65533", "--regid=65533", "--clear-groups"];
        let may = |command: &[&str]| {
            let output = Command::new("setpriv").args(user).args(command).current_dir("/").output().unwrap();
            output.status.success()
        };
        if !may(&["unshare", "--user", "--map-root-user", "--net", "true"]) {
            return skip(NAME, "this kernel gives users no namespaces");
        }
        if !may(&[env!("CARGO_BIN_EXE_vmnet"), "--version"]) {
            return skip(NAME, "another user can't run the program where it is");
        }
        let before = Snapshot::when_settled();
        let vmnet = |args: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(user).arg(env!("CARGO_BIN_EXE_vmnet")).args(args).current_dir(lab.folder());
            command.stdin(Stdio::null()).output().unwrap()
        };
        let output = vmnet(&["rehearse", "--keep"]);
        assert!(output.status.success(), "{}", said(&output));
        // One's own can be entered and ended; another one's is not seen.
        let output = vmnet(&["rehearse", "--enter", "h1", "--", "ip", "-br", "link", "show", "br-web"]);
        assert!(output.status.success(), "{}", said(&output));
        let output = start(&lab, &["--end"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let output = vmnet(&["rehearse", "--end"]);
        assert!(output.status.success(), "{}", said(&output));
        let differences = before.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}
