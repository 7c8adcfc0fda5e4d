//! What must not leave a guest for the wire.

use serde_json::Value;

use crate::wire::{Capture, Frame, forbidden, harmless, is_marked, send};
use crate::world::{Lab, sh};

/// A MAC for the guest that is started by hand.
const HAND: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];

pub(super) fn look(lab: &Lab) {
    let (network, tags) = if lab.name == "guards" { ("web", vec![10]) } else { ("office", Vec::new()) };
    let mac = lab.mac("vm1", network);
    let capture = Capture::start(None, "nic0");
    for (number, (_, frame)) in (1..).zip(forbidden(&mac, 0)) {
        lab.send("vm1", &[renumbered(frame, number)]);
    }
    lab.send("vm1", &[harmless(&mac, 100)]);
    check(&capture.stop(), &mac, &tags);
    // They did arrive, and the guards dropped them. Pause frames and LLDP to its own address the kernel drops before.
    for (counter, least) in [("bpdu", 1), ("lldp", 1), ("tagged", 4)] {
        assert!(dropped(lab, counter) >= least, "{counter}: {}", dropped(lab, counter));
    }
    // On a foreign bridge only the lab's own ports are guarded: the others are not vmnet's to say.
    if network == "web" {
        by_hand(lab, network, &tags);
    }
}

fn by_hand(lab: &Lab, network: &str, tags: &[u16]) {
    sh("ip netns add hand");
    sh("ip link add hand0 type veth peer name eth0 netns hand");
    sh("ip -n hand link set eth0 up");
    sh(&format!("{} hand0", lab.hook(network, "qemu-ifup")));
    let capture = Capture::start(None, "nic0");
    let frames: Vec<Vec<u8>> =
        (1..).zip(forbidden(&HAND, 0)).map(|(number, (_, frame))| renumbered(frame, number)).collect();
    send(Some("hand"), "eth0", &frames);
    send(Some("hand"), "eth0", &[harmless(&HAND, 100)]);
    check(&capture.stop(), &HAND, tags);
    sh(&format!("{} hand0", lab.hook(network, "qemu-ifdown")));
    sh("ip netns del hand");
    sh("for i in $(seq 100); do ip link show hand0 >/dev/null 2>&1 || exit 0; sleep 0.05; done; exit 1");
}

/// How many frames of a kind the guards have dropped.
fn dropped(lab: &Lab, counter: &str) -> u64 {
    let json = sh(&format!("nft -j list counter bridge vmnet-{} {counter}", lab.name));
    let found: Value = serde_json::from_str(&json).unwrap();
    let mut counters =
        found["nftables"].as_array().unwrap().iter().filter_map(|item| item["counter"]["packets"].as_u64());
    counters.next().unwrap_or_else(|| panic!("no counter in {json}"))
}

fn renumbered(mut frame: Vec<u8>, serial: u8) -> Vec<u8> {
    if let Some(last) = frame.last_mut() {
        *last = serial;
    }
    frame
}

fn check(seen: &[Frame], mac: &[u8; 6], tags: &[u16]) {
    for (number, (name, _)) in (1..).zip(forbidden(mac, 0)) {
        let passed: Vec<&Frame> = seen.iter().filter(|frame| is_marked(frame, number)).collect();
        assert!(passed.is_empty(), "a {name} frame is on the NIC: {passed:?}");
    }
    let harmless: Vec<Vec<u16>> = seen.iter().filter(|frame| is_marked(frame, 100)).map(Frame::tags).collect();
    assert_eq!(harmless, [tags], "a frame that may pass");
}
