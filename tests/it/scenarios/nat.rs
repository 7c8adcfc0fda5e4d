//! Source NAT, and that it is not the only thing between a guest and the outside.

use crate::wire::{Capture, Frame};
use crate::world::{Lab, sh, succeeds};

/// What the outside may see of guests.
const EXTERNAL: &str = "192.0.2.9";

pub(super) fn look(lab: &Lab) {
    let tagged = lab.name == "nat-vlan";
    the_outside_sees_one_address(lab, if tagged { "wire0.100" } else { "wire0" });
    let (ns, link) = match lab.name.as_str() {
        "nat-host" => (None, "nic0"),
        _ => (Some(lab.router_ns()), "outside"),
    };
    no_way_in(ns.as_deref(), link);
}

fn the_outside_sees_one_address(lab: &Lab, link: &str) {
    let capture = Capture::start(Some("outside"), link);
    assert!(lab.pings("vm1", "192.0.2.1") && lab.pings("vm2", "192.0.2.1"));
    let frames = capture.stop();
    let sources: Vec<String> = requests(&frames, "192.0.2.1");
    assert!(!sources.is_empty() && sources.iter().all(|from| from == EXTERNAL), "{sources:?}");
}

/// The outside has a route to the guests by way of the external address; its packets do arrive there.
fn no_way_in(ns: Option<&str>, link: &str) {
    assert!(sh("ip -n outside route get 10.1.0.10").contains(&format!("via {EXTERNAL}")));
    let (external, inside) = (Capture::start(ns, link), Capture::start(None, "br-web"));
    assert!(!succeeds("ip netns exec outside ping -q -c 2 -W 1 10.1.0.10"), "the outside reaches a guest");
    assert!(!succeeds("ip netns exec outside ping -q -c 1 -W 1 10.2.0.10"), "the outside reaches a guest");
    let (external, inside) = (external.stop(), inside.stop());
    assert!(!requests(&external, "10.1.0.10").is_empty(), "nothing was tried at {link}");
    assert!(requests(&inside, "10.1.0.10").is_empty(), "what was tried outside is on the guest's bridge");
    // The address that everything is translated to answers for itself.
    sh(&format!("ip netns exec outside ping -q -c 2 -W 2 {EXTERNAL}"));
}

fn requests(frames: &[Frame], target: &str) -> Vec<String> {
    let to_target = frames.iter().filter_map(Frame::ipv4).filter(|(_, to)| to.to_string() == target);
    to_target.map(|(from, _)| from.to_string()).collect()
}
