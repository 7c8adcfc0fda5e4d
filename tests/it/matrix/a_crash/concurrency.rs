//! Many at once: twenty creates, destroys beside them, hooks, fifty guests.

use std::process::{Child, Output, Stdio};

use crate::matrix::promise::{keep, said, same};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, output, sh, succeeds};

const LAB: &str = "lab = \"many\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"routed\"\n\
                   subnet = \"10.1.0.0/24\"\n[router]\nexternal = { via = \"none\" }\n[vm.a]\nnic = \"web\"\n";

/// Starts the program beside others.
fn start(lab: &Lab, args: &[&str]) -> Child {
    lab.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

/// Twenty `create` of one lab at once: one builds it, the others wait and find nothing to do.
#[test]
fn row_06_twenty_creates_of_one_lab() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        let all: Vec<Child> = (0..20).map(|_| start(&lab, &["create", "--json"])).collect();
        let mut built = 0;
        for output in all.into_iter().map(end) {
            assert!(output.status.success(), "{}", said(&output));
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["repaired"], 0, "{report}");
            built += usize::from(report["changes"] != 0);
        }
        assert_eq!(built, 1, "creates that built something");
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy"]);
        crate::matrix::tally("commands at once", 20, 0);
        keep(&lab, &before);
    });
}

/// Twenty labs at once: each is built, whole.
#[test]
fn row_06_twenty_labs() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        let files: Vec<String> = (0..20).map(|number| format!("net{number}.toml")).collect();
        for (number, file) in files.iter().enumerate() {
            let text = LAB.replace("many", &format!("many{number}")).replace("web", &format!("web{number}"));
            let text = text.replace("10.1.", &format!("10.{number}."));
            std::fs::write(lab.folder().join(file), text).unwrap();
        }
        let all: Vec<Child> = files.iter().map(|file| start(&lab, &["create", file])).collect();
        for output in all.into_iter().map(end) {
            assert!(output.status.success(), "{}", said(&output));
        }
        for file in &files {
            lab.ok(&["plan", "--check", file]);
        }
        let all: Vec<Child> = files.iter().map(|file| start(&lab, &["destroy", file])).collect();
        for output in all.into_iter().map(end) {
            assert!(output.status.success(), "{}", said(&output));
        }
        crate::matrix::tally("commands at once", 40, 0);
        keep(&lab, &before);
    });
}

/// `create` beside `destroy`: one order or the other, and nothing in between.
#[test]
fn row_07_create_beside_destroy() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        let (mut there, mut gone) = (0, 0);
        for round in 0..12 {
            let verbs = if round % 2 == 0 { ["create", "destroy"] } else { ["destroy", "create"] };
            // By name: whether the lab is known yet must not matter.
            let args = verbs.map(|verb| if verb == "create" { [verb, "net.toml"] } else { [verb, "many"] });
            let children = args.map(|args| start(&lab, &args));
            for output in children.map(end) {
                assert!(output.status.success(), "{}", said(&output));
            }
            match lab.vmnet(&["plan", "--check"]).status.code() {
                Some(0) => there += 1,
                Some(3) => {
                    gone += 1;
                    same(&before, "destroy came last");
                }
                other => panic!("plan --check ends with {other:?}"),
            }
        }
        println!("create came last {there} times, destroy {gone} times");
        assert_eq!(there + gone, 12);
        crate::matrix::tally("rounds", 12, 0);
        lab.ok(&["destroy"]);
        keep(&lab, &before);
    });
}

/// A hook that runs while the lab is destroyed: both end. Where the hook was first, its TAP is named and stays.
#[test]
fn row_08_hook_beside_destroy() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        for round in 0..10 {
            lab.ok(&["create"]);
            sh("ip tuntap add tap0 mode tap");
            let ifup = lab.hook("web", "qemu-ifup");
            let shell = format!("sleep 0.0{round}; timeout 20 {ifup} tap0");
            let hook = std::process::Command::new("sh").args(["-c", &shell]).stderr(Stdio::piped()).spawn().unwrap();
            let destroyed = end(start(&lab, &["destroy", "many"]));
            let hook = end(hook);
            assert_ne!(hook.status.code(), Some(124), "the hook hangs");
            assert!(succeeds("ip link show tap0"), "the TAP is not the lab's");
            if !destroyed.status.success() {
                assert!(said(&destroyed).contains("tap0 is a port of br-web"), "{}", said(&destroyed));
                lab.ok(&["plan", "--check"]);
            }
            sh("ip link del tap0");
            lab.ok(&["destroy", "many"]);
            same(&before, "after hook and destroy");
        }
        crate::matrix::tally("rounds", 10, 0);
        keep(&lab, &before);
    });
}

/// Fifty guests, by one command and by fifty commands at once: all are attached.
#[test]
fn row_09_fifty_guests() {
    row!(|| {
        let before = Snapshot::when_settled();
        let guests: String = (0..50).map(|number| format!("[vm.g{number}]\nnic = \"web\"\n")).collect();
        let lab = Lab::from_text(&format!("{LAB}{guests}"));
        lab.ok(&["create"]);
        let names: Vec<String> = (0..50).map(|number| format!("g{number}")).collect();
        let at_once: Vec<Child> = names.iter().map(|vm| start(&lab, &["boot", vm])).collect();
        for output in at_once.into_iter().map(end) {
            assert!(output.status.success(), "{}", said(&output));
        }
        attached(&lab, &names);
        lab.ok(&["stop", "--all"]);
        lab.ok(&["boot", "--all"]);
        attached(&lab, &names);
        assert!(lab.pings("g49", "10.1.0.1"));
        crate::matrix::tally("guests at once", 100, 0);
        lab.ok(&["destroy", "--stop"]);
        keep(&lab, &before);
    });
}

#[track_caller]
fn attached(lab: &Lab, names: &[String]) {
    let ports: Vec<serde_json::Value> = serde_json::from_str(&sh("ip -j link show master br-web up")).unwrap();
    let ports: Vec<&str> = ports.iter().filter_map(|port| port["ifname"].as_str()).collect();
    for vm in names {
        let tap = lab.tap(vm);
        assert!(ports.contains(&tap.as_str()), "{vm}: {tap} is not among {ports:?}");
    }
}

/// The same with QEMU, in a number that an emulated processor can bear: each TAP is on the bridge and marked.
#[test]
fn row_09_qemu_guests() {
    row!(|| {
        let before = Snapshot::when_settled();
        let names: Vec<String> = (0..4).map(|number| format!("g{number}")).collect();
        let guests: String = names.iter().map(|vm| format!("[vm.{vm}]\nnic = \"web\"\n")).collect();
        let text = LAB.replace("[vm.a]\nnic = \"web\"\n", &guests);
        let lab = Lab::of_qemu(&text, "tcg");
        lab.ok(&["create"]);
        let at_once: Vec<Child> = names.iter().map(|vm| start(&lab, &["boot", vm])).collect();
        for output in at_once.into_iter().map(end) {
            assert!(output.status.success(), "{}", said(&output));
        }
        attached(&lab, &names);
        let guests: serde_json::Value = serde_json::from_str(&lab.ok(&["ps", "--json"])).unwrap();
        for vm in guests["vms"].as_array().unwrap() {
            let pid = vm["pid"].as_i64().unwrap().to_string();
            assert_no_lock(&pid);
            // They are still in their firmware, and would not react to the power button for long.
            sh(&format!("kill -KILL {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done"));
        }
        crate::matrix::tally("guests at once", 4, 0);
        lab.ok(&["destroy", "--stop", "--purge"]);
        keep(&lab, &before);
    });
}

/// Row 11: a child does not inherit the lock. No descriptor of a process is the lock's file.
#[track_caller]
pub(super) fn assert_no_lock(pid: &str) {
    let open = output(&format!("ls -l /proc/{pid}/fd"));
    assert!(open.contains("->"), "process {pid} is not there: {open}");
    assert!(!open.contains("/run/vmnet/lock"), "process {pid} has the lock open:\n{open}");
}
