//! Gateways without translation.

use crate::wire::Capture;
use crate::world::{Lab, sh};

pub(super) fn look(lab: &Lab) {
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
