//! VLANs: which frames are where, and with which tag.

use crate::wire::{Capture, Frame, harmless, is_marked};
use crate::world::{Engine, Lab, sh};

/// vm1 is in VLAN 10 and vm2 in VLAN 20 of `nic0`, vm4 in VLAN 20 of `nic1`.
pub(super) fn isolation(lab: &Lab) {
    let taps = [lab.tap("vm1"), lab.tap("vm2"), lab.tap("vm4")];
    // Two networks of VLAN 20: their bridges have hashed names.
    let bridges = [bridge_of("nic0.10"), bridge_of("nic0.20"), bridge_of("nic1.20")];
    let nics = ["nic0", "nic1", "nic0.10", "nic0.20", "nic1.20"];
    let links: Vec<&str> = nics.into_iter().chain(bridges.iter().chain(&taps).map(String::as_str)).collect();
    let captures: Vec<(&str, Capture)> = links.iter().map(|link| (*link, Capture::start(None, link))).collect();
    let senders = [("vm1", "ten", 1), ("vm2", "twenty", 2), ("vm4", "apart", 4)];
    for (vm, network, serial) in senders {
        lab.send(vm, &[harmless(&lab.mac(vm, network), serial)]);
    }
    let seen: Vec<(&str, Vec<Frame>)> = captures.into_iter().map(|(link, capture)| (link, capture.stop())).collect();
    // Where each frame must be, and with which tags; everywhere else it must not be at all.
    for (serial, nic, tag, places) in [
        (1, "nic0", 10, ["nic0.10", &bridges[0], &taps[0]]),
        (2, "nic0", 20, ["nic0.20", &bridges[1], &taps[1]]),
        (4, "nic1", 20, ["nic1.20", &bridges[2], &taps[2]]),
    ] {
        for (link, frames) in &seen {
            let tags: Vec<Vec<u16>> = frames.iter().filter(|f| is_marked(f, serial)).map(Frame::tags).collect();
            if *link == nic {
                assert!(
                    !tags.is_empty() && tags.iter().all(|tags| *tags == [tag]),
                    "frame {serial} on {link}: {tags:?}"
                );
            } else if places.contains(link) {
                assert!(!tags.is_empty() && tags.iter().all(Vec::is_empty), "frame {serial} on {link}: {tags:?}");
            } else {
                assert!(tags.is_empty(), "frame {serial} is on {link}: {tags:?}");
            }
        }
    }
}

fn bridge_of(port: &str) -> String {
    let link = sh(&format!("readlink /sys/class/net/{port}/master"));
    link.trim().rsplit('/').next().unwrap_or_default().to_owned()
}

/// vm1 in VLAN 10, vm2 in VLAN 20, and the outside by the untagged device.
pub(super) fn router(lab: &Lab) {
    let (nic, outside) = (Capture::start(None, "nic0"), Capture::start(Some("outside"), "wire0"));
    assert!(lab.pings("vm1", "10.2.0.10") && lab.pings("vm2", "10.1.0.10"));
    assert!(lab.pings("vm1", "192.0.2.1") && lab.pings("vm2", "192.0.2.1"));
    if lab.engine == Engine::Netns {
        // The tiny guest's ping keeps such answers to itself.
        let (text, code) = lab.in_guest("vm1", "ping -c 1 -t 1 -W 2 10.2.0.10");
        assert!(code != 0 && text.contains("From 10.1.0.1"), "the gateway is on the way: {text}");
    }
    // Nothing untagged of the VLANs is on the wire, and outside there is one sender.
    let untagged = |frame: &&Frame| frame.tags().is_empty();
    let (nic, outside) = (nic.stop(), outside.stop());
    let packets = |frames: &[Frame]| -> Vec<(String, String)> {
        let untagged = frames.iter().filter(untagged).filter_map(Frame::ipv4);
        untagged.map(|(from, to)| (from.to_string(), to.to_string())).collect()
    };
    let foreign = |(from, to): &&(String, String)| from.starts_with("10.") || to.starts_with("10.");
    assert_eq!(packets(&nic).iter().filter(foreign).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    assert!(packets(&outside).contains(&("192.0.2.9".into(), "192.0.2.1".into())));
}
