//! Namespaces on a bridge, and people's own tools on them.

use crate::world::{Lab, sh};

pub(super) fn look(lab: &Lab) {
    let listed = sh("ip netns list");
    assert!(listed.contains(&lab.guest_ns("vm1")), "{listed}");
    // By the kernel's own ping from a namespace that `ip netns` entered, not by ours.
    sh(&format!("ip netns exec {} ping -q -c 1 -W 2 10.0.0.11", lab.guest_ns("vm1")));
    let (text, code) = lab.in_guest("vm2", "ping -q -c 1 -W 2 10.0.0.10");
    assert_eq!(code, 0, "{text}");
    let (_, code) = lab.in_guest("vm1", "exit 7");
    assert_eq!(code, 7, "a command's exit code comes through");
}
