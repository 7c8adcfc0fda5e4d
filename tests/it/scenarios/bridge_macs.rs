//! Bridges keep their MACs, and an address has one place.

use std::net::Ipv4Addr;

use crate::wire::{Capture, Frame, send, who_has};
use crate::world::{Lab, sh};

pub(super) fn look(lab: &Lab) {
    let mac = || sh("cat /sys/class/net/br-web/address");
    let made_with = mac();
    sh("ip link add low0 address 00:00:00:00:00:02 type veth peer name low1 address 00:00:00:00:00:04");
    sh("ip link set low0 master br-web up && ip link set low1 up");
    assert_eq!(mac(), made_with, "a port with a lower MAC came");
    sh("ip link del low0");
    assert_eq!(mac(), made_with, "it went");
    lab.ok(&["stop", "vm1"]);
    assert_eq!(mac(), made_with, "a guest stopped");
    lab.ok(&["boot", "vm1"]);
    assert_eq!(mac(), made_with, "it came back");
    answers(lab);
}

/// Who answers on `web` for which address.
fn answers(lab: &Lab) {
    let ns = lab.guest_ns("vm1");
    let gateway = sh(&format!("ip netns exec {} cat /sys/class/net/web/address", lab.router_ns()));
    let host = sh("ip -j address show dev nic0");
    assert!(host.contains("192.0.2.2"), "{host}");
    for (address, wanted) in [
        ("10.1.0.1", vec![gateway.trim().to_owned()]),
        // The gateway of the other network, and the host: not on this segment.
        ("10.2.0.1", vec![]),
        ("192.0.2.2", vec![]),
    ] {
        let capture = Capture::start(Some(&ns), "eth0");
        let target: Ipv4Addr = address.parse().expect("an address");
        send(Some(&ns), "eth0", &[who_has(lab.mac("vm1", "web"), Ipv4Addr::new(10, 1, 0, 10), target)]);
        let frames = capture.stop();
        let replies = frames.iter().filter(|frame| frame.is_arp_reply());
        let mut macs: Vec<String> = replies.map(Frame::source).collect();
        macs.dedup();
        assert_eq!(macs, wanted, "who answers for {address}");
    }
}
