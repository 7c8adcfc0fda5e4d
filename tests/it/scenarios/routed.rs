//! Gateways without translation.

use std::net::Ipv4Addr;

use crate::wire::{Capture, Frame, echo};
use crate::world::{Lab, sh};

pub(super) fn look(lab: &Lab) {
    no_answer_to_a_borrowed_source(lab);
    let capture = Capture::start(Some("outside"), "wire0");
    assert!(lab.pings("vm1", "192.0.2.1"), "a machine beyond the host");
    assert!(lab.pings("vm2", "192.0.2.2"), "an address of the host, through the gateway");
    let frames = capture.stop();
    let sources: Vec<String> = frames
        .iter()
        .filter_map(|frame| frame.ipv4())
        .filter(|(_, to)| to.to_string() == "192.0.2.1")
        .map(|(from, _)| from.to_string())
        .collect();
    assert!(!sources.is_empty() && sources.iter().all(|from| from == "10.2.0.10"), "{sources:?}");
    sh("ip netns exec outside ping -q -c 3 -W 2 10.2.0.10");
    sh("ip netns exec outside ping -q -c 3 -W 2 10.3.0.10");
}

/// What vm1 sends with a source of vm2's segment reaches nobody there: neither
/// a reply of the gateway, nor its error for a packet whose hops are used up before the firewall's forward chain.
fn no_answer_to_a_borrowed_source(lab: &Lab) {
    assert!(lab.pings("vm1", "10.2.0.1"), "its own gateway, by its own address");
    let (guest, router) = (lab.mac("vm1", "db"), lab.router_ns());
    let gateway = mac_in(&router, "db");
    let address = |text: &str| -> Ipv4Addr { text.parse().unwrap() };
    let (own, borrowed) = (address("10.2.0.10"), address("10.3.0.99"));
    // Without a neighbour the answer would end as a question.
    sh("ip netns exec vmnet-routed ip neighbour replace 10.3.0.99 lladdr 02:00:00:00:00:99 dev app nud permanent");
    let spoofed = |source| {
        let to_itself = ["10.2.0.1", "10.3.0.1"].map(|to| echo((guest, gateway), (source, address(to)), 64));
        let used_up = echo((guest, gateway), (source, address("192.0.2.1")), 1);
        [to_itself.as_slice(), &[used_up]].concat()
    };
    let (app, db) = (Capture::start(None, "br-app"), Capture::start(None, "br-db"));
    lab.send("vm1", &spoofed(borrowed));
    lab.send("vm1", &spoofed(own));
    let (app, db) = (app.stop(), db.stop());
    let to = |frames: &[Frame], target| frames.iter().filter_map(Frame::ipv4).filter(|(_, to)| *to == target).count();
    assert_eq!(to(&app, borrowed), 0, "answers in a segment that was not asked");
    assert_eq!(to(&db, own), 3, "two replies and an error");
    sh("ip netns exec vmnet-routed ip neighbour del 10.3.0.99 dev app");

    let spoofed = sh("ip netns exec vmnet-routed nft list counter inet vmnet-routed spoofed");
    assert!(spoofed.contains("packets 3 "), "{spoofed}");
}

/// The MAC of a link of a namespace.
fn mac_in(ns: &str, link: &str) -> [u8; 6] {
    let text = sh(&format!("ip netns exec {ns} cat /sys/class/net/{link}/address"));
    text.trim().parse::<vmnet::names::Mac>().unwrap().octets()
}
