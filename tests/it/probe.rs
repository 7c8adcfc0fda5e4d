//! `verify` in labs that scenarios don't have: many guests, a probe that is killed, an address that is taken.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sandbox;
use super::world::{Lab, output, sh};

/// So many namespace guests that probes stand in for them.
const CROWD: usize = 24;

/// A lab of so many guests.
pub(crate) fn crowd() -> Lab {
    let mut text = "lab = \"crowd\"\n[defaults.vm]\nengine = \"netns\"\n".to_owned();
    text += "[network.web]\nsubnet = \"10.1.0.0/24\"\n[network.quiet]\nmode = \"isolated\"\nsubnet = \"10.2.0.0/24\"\n";
    for number in 1..=CROWD {
        let network = if number % 2 == 0 { "web" } else { "quiet" };
        text += &format!("[vm.g{number}]\nnic = \"{network}\"\n");
    }
    Lab::from_text(&text)
}

fn report(lab: &Lab) -> (Value, Option<i32>) {
    let output = lab.vmnet(&["verify", "--json"]);
    let report = serde_json::from_slice(&output.stdout);
    (
        report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr))),
        output.status.code(),
    )
}

fn ports() -> String {
    output("ip -o link show | grep vmnetp-")
}

#[test]
fn probes_stand_in_for_a_crowd_and_leave_nothing() {
    sandbox::run("probe::probes_stand_in_for_a_crowd_and_leave_nothing", || {
        let lab = crowd();
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        // The highest address is taken by somebody whom the definition does not know.
        sh("ip netns add stranger && ip link add stranger0 type veth peer name eth0 netns stranger");
        sh("ip link set stranger0 master br-web up && ip -n stranger link set eth0 up");
        sh("ip -n stranger address add 10.1.0.254/24 dev eth0");
        let (report, code) = report(&lab);
        assert_eq!((code, &report["totals"]["untested"]), (Some(0), &Value::from(0)), "{:#}", report["totals"]);
        // Each guest against all others twice, two gateways' worth, and the host.
        assert!(report["totals"]["met"].as_u64() > Some((2 * CROWD * (CROWD - 1)) as u64), "{:#}", report["totals"]);
        assert_eq!(ports(), "");
        sh("ip link set stranger0 down && ip netns del stranger");
        lab.ok(&["destroy", "--stop", "--purge", "--force"]);
    });
}

#[test]
fn a_killed_probe_leaves_nothing() {
    sandbox::run("probe::a_killed_probe_leaves_nothing", || {
        let lab = crowd();
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        let mut verify = lab.command(&["verify"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("a probe's port", || !ports().is_empty());
        let marks = output("ip -j link show | grep -o 'vmnet:crowd:probe:[a-z]*'");
        assert!(marks.contains("vmnet:crowd:probe:"), "a probe's port says whose it is: {marks}");
        verify.kill().unwrap();
        verify.wait().unwrap();
        eventually("no port of the killed probe", || ports().is_empty());
        let (_, code) = report(&lab);
        assert_eq!(code, Some(0));
        lab.ok(&["destroy", "--stop", "--purge"]);
    });
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "there never was {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
