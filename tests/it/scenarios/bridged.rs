//! Guests on the physical segment.

use crate::wire::Capture;
use crate::world::{Lab, output, sh};

pub(super) fn look(lab: &Lab) {
    let (link, bridge) = if lab.name == "office" { ("wire0.30", "brvlan-30") } else { ("wire0", "br0") };
    let capture = Capture::start(Some("outside"), link);
    assert!(lab.pings("vm1", "192.168.1.1"));
    sh("ip netns exec outside ping -q -c 3 -W 2 192.168.1.51");
    let frames = capture.stop();
    // At layer 2: what arrives has the guest's own MAC, which no IP stack in between would leave there.
    let mac = lab.mac("vm1", "office").map(|byte| format!("{byte:02x}")).join(":");
    let from_guest =
        |frame: &&crate::wire::Frame| frame.ipv4().is_some_and(|(from, _)| from.to_string() == "192.168.1.50");
    let macs: Vec<String> = frames.iter().filter(from_guest).map(|frame| frame.source()).collect();
    assert!(!macs.is_empty() && macs.iter().all(|found| *found == mac), "{macs:?}, not {mac}");
    assert_eq!(output(&format!("ip -o address show dev {bridge}")).trim(), "", "the host has no address there");
    assert_eq!(output("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
}
