//! `create --confirm`, `confirm` and `undo`: whatever becomes of the client, the host goes back in time.

mod ended;
mod others;
mod ssh;
mod undo;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox;
use crate::snapshot::{Snapshot, inside, namespace_names};
use crate::world::{Lab, output, sh, succeeds};

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

const CHANGE: &str = "/run/state/confirm/ledger/change.json";
const LEDGER: &str = "/run/state/confirm/ledger/ledger.json";

/// A lab of some networks with a router and one guest, the first network's subnet being `10.<first>.0.0/24`.
fn definition(networks: usize, first: usize) -> String {
    let mut text = "lab = \"confirm\"\n[defaults.vm]\nengine = \"netns\"\n[router]\nexternal = { via = \"none\" }\n\
                    [vm.vm1]\nnic = \"net1\"\n"
        .to_owned();
    for number in 1..=networks {
        let subnet = format!("10.{}.0.0/24", first + number - 1);
        text.push_str(&format!("[network.net{number}]\nmode = \"routed\"\nsubnet = \"{subnet}\"\n"));
    }
    text
}

/// Waits for something to become true.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The watchers that run.
fn watchers() -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(number) = entry.file_name().to_string_lossy().parse() else { continue };
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.starts_with("vmnet\0await-confirm\0") {
            found.push(number);
        }
    }
    found
}

#[track_caller]
fn gone_back(before: &Snapshot) {
    until("the watcher is gone", || watchers().is_empty());
    assert!(!Path::new(CHANGE).exists());
    let differences = before.differences(&Snapshot::when_settled());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The same things are there by name, once the watcher is gone.
#[track_caller]
fn same_names(before: &BTreeSet<String>) {
    until("the watcher is gone", || watchers().is_empty());
    Snapshot::when_settled();
    let after = by_names();
    let (gone, come): (Vec<_>, Vec<_>) = (before.difference(&after).collect(), after.difference(before).collect());
    assert!(gone.is_empty() && come.is_empty(), "gone: {gone:#?}\ncome: {come:#?}");
}

/// What there is, by names alone: what went and came again has other numbers, and bridges take a second each until they
/// say of themselves that they are up.
fn by_names() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let namespaces = namespace_names();
    for ns in std::iter::once(None).chain(namespaces.iter().map(|name| Some(name.as_str()))) {
        for command in ["ip -br address", "ip route", "bridge link", "nft list ruleset"] {
            let without_numbers =
                "sed -E 's/@(if[0-9]+|[a-z0-9-]+)//; s/^[0-9]+: //; s/ +/ /g; s/ (UP|DOWN|UNKNOWN|LOWERLAYERDOWN) / /'";
            let text = output(&format!("{} | {without_numbers}", inside(ns, command)));
            found.extend(text.lines().map(|line| format!("{ns:?}: {command}: {line}")));
        }
    }
    found
}

/// Runs the program, which must fail, and gives what it says.
#[track_caller]
fn fails(lab: &Lab, args: &[&str]) -> String {
    let output: Output = lab.vmnet(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    text
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    serde_json::from_str(&lab.ok(&[args, &["--json"]].concat())).unwrap()
}

#[test]
fn confirmed_in_time_it_stays() {
    sandbox::run("confirm::confirmed_in_time_it_stays", || {
        let lab = Lab::from_text(&definition(2, 1));
        let said = lab.vmnet(&["create", "--confirm", "2s"]);
        assert!(said.status.success(), "{said:?}");
        let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(err.contains("undone in 2 s") && err.contains("vmnet confirm confirm"), "{err}");
        assert!(out.contains("not confirmed yet: undone at 20") && out.contains(" UTC unless"), "{out}");
        let begun = Instant::now();
        assert_eq!(watchers().len(), 1);
        let refused: [&[&str]; 6] = [
            &["create"],
            &["create", "--confirm", "9s"],
            &["boot", "vm1"],
            &["stop", "vm1"],
            &["reset", "vm1"],
            &["restore"],
        ];
        let before = Snapshot::take();
        for args in refused {
            let output = lab.vmnet(args);
            let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
            assert!(text.contains("vmnet confirm confirm") && text.contains("vmnet undo confirm"), "{args:?}: {text}");
        }
        let differences = before.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        lab.ok(&["plan", "--check"]);
        lab.ok(&["ps"]);
        assert!(lab.ok(&["status"]).contains("is not confirmed: vmnet confirm confirm keeps it"));
        let status = json(&lab, &["status"]);
        assert_eq!((&status["change"]["state"], &status["change"]["verb"]), (&"unconfirmed".into(), &"create".into()));
        let times = ["until", "begun"].map(|time| status["change"][time].as_u64().unwrap());
        assert_eq!(times[0] - times[1], 2);
        lab.ok(&["confirm"]);
        assert!(fails(&lab, &["confirm"]).contains("no change of it waits for that"));
        until("the watcher is gone", || watchers().is_empty());
        std::thread::sleep(Duration::from_millis(2200).saturating_sub(begun.elapsed()));
        lab.ok(&["plan", "--check"]);
        let status = json(&lab, &["status"]);
        assert_eq!((&status["change"], &status["undone"]), (&Value::Null, &Value::Null));
        // Nothing changes: nothing to confirm.
        lab.ok(&["create", "--confirm", "1s"]);
        assert!(watchers().is_empty() && !Path::new(CHANGE).exists());
        lab.ok(&["boot", "vm1"]);
        lab.ok(&["destroy", "--stop"]);
    });
}

#[test]
fn unconfirmed_it_goes_back_to_nothing() {
    sandbox::run("confirm::unconfirmed_it_goes_back_to_nothing", || {
        let lab = Lab::from_text(&definition(3, 1));
        let before = Snapshot::when_settled();
        lab.ok(&["create", "--confirm", "1s"]);
        gone_back(&before);
        assert!(!Path::new("/run/state").exists());
        assert!(fails(&lab, &["status"]).contains("was not confirmed and was undone at 20"));
        let late = fails(&lab, &["confirm"]);
        assert!(late.contains("nothing to confirm") && late.contains("undone at 20"), "{late}");
        lab.ok(&["create"]);
        assert_eq!(json(&lab, &["status"])["undone"], Value::Null);
        lab.ok(&["destroy"]);
        assert!(!Path::new("/run/vmnet/confirm").exists());
    });
}

#[test]
fn unconfirmed_it_goes_back_to_what_was_there_and_guests_run_on() {
    sandbox::run("confirm::unconfirmed_it_goes_back_to_what_was_there_and_guests_run_on", || {
        let old = definition(3, 1);
        let lab = Lab::from_text(&old);
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        assert!(lab.pings("vm1", "10.1.0.1"));
        let guest = || {
            fs::metadata(format!("/run/netns/{}", lab.guest_ns("vm1")))
                .map(|file| std::os::linux::fs::MetadataExt::st_ino(&file))
        };
        let (number, lock) = (guest().unwrap(), fs::read(lab.folder().join("net.lock")).unwrap());
        let mut busy = lab.command(&["exec", "vm1", "--", "sleep", "60"]).spawn().unwrap();
        Snapshot::when_settled();
        let before = by_names();
        assert!(before.iter().any(|line| line.contains("10.3.0.1/24")), "{before:#?}");
        // Every subnet is another one, and a network is gone.
        let lab = Lab::from_text(&definition(2, 50));
        lab.ok(&["create", "--confirm", "1s"]);
        assert!(!succeeds("ip -n vmnet-confirm address | grep -q 10.1.0.1"));
        same_names(&before);
        assert!(busy.try_wait().unwrap().is_none());
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert_eq!(guest().unwrap(), number);
        assert!(lab.pings("vm1", "10.1.0.1"));
        assert!(json(&lab, &["status"])["undone"]["at"].as_u64().is_some());
        // The user's two files are the user's: they say what was tried.
        assert_eq!(lab.vmnet(&["plan", "--check"]).status.code(), Some(3));
        fs::write(lab.folder().join("net.lock"), lock).unwrap();
        let lab = Lab::from_text(&old);
        lab.ok(&["plan", "--check"]);
        lab.ok(&["destroy", "--stop"]);
    });
}

#[test]
fn destroy_ends_the_wait() {
    sandbox::run("confirm::destroy_ends_the_wait", || {
        let lab = Lab::from_text(&definition(2, 1));
        let before = Snapshot::when_settled();
        lab.ok(&["create"]);
        let lab = Lab::from_text(&definition(3, 1));
        lab.ok(&["create", "--confirm", "60s"]);
        lab.ok(&["destroy"]);
        gone_back(&before);
        assert!(!Path::new("/run/vmnet/confirm").exists());
        lab.ok(&["destroy"]);
    });
}

#[test]
fn a_plugged_in_device_does_not_keep_the_host_from_going_back() {
    sandbox::run("confirm::a_plugged_in_device_does_not_keep_the_host_from_going_back", || {
        let lab = Lab::from_text(&definition(1, 1));
        sh("ip link add mine0 type veth peer name mine1");
        let before = Snapshot::take();
        lab.ok(&["create", "--confirm", "1s"]);
        sh("ip link set mine0 master br-net1");
        let refused = fails(&lab, &["undo"]);
        assert!(refused.contains("mine0 is a port of br-net1"), "{refused}");
        until("the watcher is gone", || watchers().is_empty());
        let differences = before.differences(&Snapshot::take());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}

#[test]
fn a_damaged_record_is_an_error_that_names_the_remedy() {
    sandbox::run("confirm::a_damaged_record_is_an_error_that_names_the_remedy", || {
        let lab = Lab::from_text(&definition(1, 1));
        lab.ok(&["create"]);
        fs::write(CHANGE, "{").unwrap();
        let verbs: [&[&str]; 7] =
            [&["create"], &["destroy"], &["boot", "vm1"], &["status"], &["undo"], &["confirm"], &["restore"]];
        for args in verbs {
            let output = lab.vmnet(args);
            let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
            assert!(text.contains("change.json is damaged") && text.contains("move it away"), "{args:?}: {text}");
        }
        fs::rename(CHANGE, "/run/away").unwrap();
        lab.ok(&["create"]);
        lab.ok(&["destroy"]);
    });
}
