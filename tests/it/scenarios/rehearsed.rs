//! Experiments on several hosts, each a machine of a rehearsal: made, looked at, ended, and nothing stays.

use std::path::Path;

use serde_json::Value;

use super::{Expected, ExpectedLink, Outcome, check_link, has_kind, read, root};
use crate::rehearsal::Rehearsal;
use crate::skip::skip;
use crate::snapshot::Snapshot;
use crate::wire::{Capture, Frame, harmless, is_marked};
use crate::world::{Engine, Lab};

/// A closer look at a rehearsal.
pub(super) type Look = fn(&Rehearsal);

/// The loop's body.
pub(super) fn run(name: &str, module: &str, engine: Engine, look: Look) {
    let expected = read(name);
    for kind in &expected.needs {
        if !has_kind(kind) {
            return skip(&format!("{module}::{name}"), &format!("the kernel has no links of kind {kind}"));
        }
    }
    let lab = Lab::new(&root().join(name.replace('_', "-")), engine);
    let before = Snapshot::when_settled();
    let network = Snapshot::of_the_network();
    let rehearsal = Rehearsal::of(&lab);
    assert_eq!(rehearsal.code, expected.exit, "{:#}", rehearsal.report);
    let touched = network.differences(&Snapshot::of_the_network());
    assert!(touched.is_empty(), "{name} touches this machine's network:\n{}", touched.join("\n"));
    for (link, wanted) in &expected.links {
        object(&rehearsal, link, wanted);
    }
    reachability(&rehearsal, &expected);
    look(&rehearsal);
    rehearsal.end();
    let differences = before.differences(&Snapshot::take());
    assert!(differences.is_empty(), "{name} left this behind:\n{}", differences.join("\n"));
    assert!(!Path::new("/run/vmnet").exists() && !lab.folder().join("net.lock").exists(), "{name} left files behind");
}

fn object(rehearsal: &Rehearsal, name: &str, wanted: &ExpectedLink) {
    let (host, link) = name.split_once(':').expect("HOST:LINK");
    let (ns, link) = link.split_once('/').map_or((String::new(), link), |(ns, link)| (format!("-n {ns} "), link));
    let (json, _) = rehearsal.on(host, &format!("ip {ns}-d -j address show dev {link}"));
    let found: Value = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{name}: {json}"));
    check_link(name, wanted, &found[0]);
}

/// Every pair by the guests' own ping.
fn reachability(rehearsal: &Rehearsal, expected: &Expected) {
    for (pair, wanted) in &expected.reach {
        let (from, to) = pair.split_once(" -> ").expect("FROM -> TO");
        let address = match to {
            "outside" => rehearsal.report["outside"][0].as_str().expect("an address outside").to_owned(),
            guest => rehearsal.guest(guest).1,
        };
        let outcome = if rehearsal.pings(from, &address) { Outcome::Reach } else { Outcome::Deny };
        assert_eq!(outcome, *wanted, "{pair} ({address})");
    }
}

/// vm1 is in VLAN 10 and vm2 in VLAN 20 of h1, vm4 and vm5 of h2.
pub(super) fn vlans(rehearsal: &Rehearsal) {
    let lab: vmnet::names::LabName = rehearsal.name.parse().unwrap();
    let tap = |vm: &str| vmnet::rule::tap_name(&lab, &vm.parse().unwrap(), 0).to_string();
    let mac = |vm: &str, network: &str| {
        vmnet::rule::guest_mac(&lab, &vm.parse().unwrap(), &network.parse().unwrap(), 0, 0).octets()
    };
    let (one, two, four, five) = (tap("vm1"), tap("vm2"), tap("vm4"), tap("vm5"));
    // Of each VLAN: TAP, bridge and sub-interface; of each host: its NIC. In the order of the way.
    let of = |tap: &str, vlan: u16, nic: &str| [tap.to_owned(), format!("brvlan-{vlan}"), format!("{nic}.{vlan}")];
    let ten = [("h1", of(&one, 10, "eno1")), ("h2", of(&four, 10, "enp3s0"))];
    let twenty = [("h1", of(&two, 20, "eno1")), ("h2", of(&five, 20, "enp3s0"))];
    let nics = [("h1", "eno1".to_owned()), ("h2", "enp3s0".to_owned())];
    let places = ten.iter().chain(&twenty).flat_map(|(host, links)| links.iter().map(move |link| (*host, link)));
    let places = places.chain(nics.iter().map(|(host, nic)| (*host, nic)));
    let captures: Vec<(&str, &String, Capture)> =
        places.map(|(host, link)| (host, link, rehearsal.capture(host, link))).collect();
    rehearsal.send("vm1", &[harmless(&mac("vm1", "ten"), 1)]);
    rehearsal.send("vm5", &[harmless(&mac("vm5", "twenty"), 5)]);
    let seen: Vec<(&str, &String, Vec<Frame>)> =
        captures.into_iter().map(|(host, link, capture)| (host, link, capture.stop())).collect();
    for (serial, vlan, own) in [(1, 10, &ten), (5, 20, &twenty)] {
        for (host, link, frames) in &seen {
            let place = format!("frame {serial} on {link} of {host}");
            let tags: Vec<Vec<u16>> = frames.iter().filter(|f| is_marked(f, serial)).map(Frame::tags).collect();
            if nics.iter().any(|(_, nic)| nic == *link) {
                assert!(!tags.is_empty() && tags.iter().all(|tags| *tags == [vlan]), "{place}: {tags:?}");
            } else if own.iter().any(|(other, links)| other == host && links.contains(link)) {
                assert!(!tags.is_empty() && tags.iter().all(Vec::is_empty), "{place}: {tags:?}");
            } else {
                assert!(tags.is_empty(), "{place}: {tags:?}");
            }
        }
    }
}

/// h3 holds the gateways of vm1 and vm4, which are in one VLAN on h1 and h2.
pub(super) fn gateway(rehearsal: &Rehearsal) {
    let outside = rehearsal.report["outside"][0].as_str().unwrap().to_owned();
    let (_, vm4) = rehearsal.guest("vm4");
    // What is outside sees the router's address alone.
    let pid = rehearsal.pid("outside");
    let leg = rehearsal.ok_on("outside", "ip -o -4 address show to 192.0.2.1 | cut -d' ' -f2");
    let capture = Capture::start_by(|command| format!("nsenter -t {pid} -n {command}"), "outside", leg.trim());
    assert!(rehearsal.pings("vm1", &outside));
    let sources: Vec<String> = capture
        .stop()
        .iter()
        .filter_map(Frame::ipv4)
        .filter(|(_, to)| to.to_string() == outside)
        .map(|(from, _)| from.to_string())
        .collect();
    assert!(!sources.is_empty() && sources.iter().all(|from| from == "192.0.2.9"), "{sources:?}");
    // Without that host there is no way out, and the VLAN is as before.
    rehearsal.ok_on("h3", "ip link set enp3s0 down");
    assert!(!rehearsal.pings("vm1", &outside), "nobody is left who could translate");
    assert!(rehearsal.pings("vm1", &vm4), "one segment needs no gateway");
    rehearsal.ok_on("h3", "ip link set enp3s0 up");
}

/// vm1 is on h1, vm4 on h2; each host's router holds the gateway of its own subnet.
pub(super) fn routed(rehearsal: &Rehearsal) {
    let (_, vm4) = rehearsal.guest("vm4");
    let (text, code) = rehearsal.in_guest("vm1", &format!("traceroute -n -q 1 -w 2 {vm4}"));
    assert_eq!(code, 0, "{text}");
    let hops: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    let host = rehearsal.ok_on("h1", "ip -o -4 address show to 100.64.0.0/10");
    let transit = |line: &str| line.split_whitespace().nth(3).and_then(|net| net.split('/').next()).map(str::to_owned);
    let host = host.lines().find_map(transit).expect("h1's end of its transit network");
    let router = rehearsal.ok_on("h2", "ip -n vmnet-apart -o -4 address show dev outside");
    let router = router.lines().find_map(transit).expect("the router's end on h2");
    assert_eq!(hops, ["192.168.1.1", &host, "10.0.2.16", &router, &vm4], "{text}");
}
