//! Two guests on one bridge, and a third that somebody starts by hand.

use crate::world::{Engine, Lab, output, sh, succeeds};

pub(super) fn look(lab: &Lab) {
    assert!(lab.pings("vm1", "10.3.0.11"));
    hook_joins_a_port(lab);
    if lab.engine != Engine::Netns {
        qemu_by_hand(lab);
    }
}

/// What QEMU does with `script=`, done with a veth pair instead of a TAP: the hook is given the name of an interface.
fn hook_joins_a_port(lab: &Lab) {
    let (up, down) = (lab.hook("quiet", "qemu-ifup"), lab.hook("quiet", "qemu-ifdown"));
    sh("ip netns add hand");
    sh("ip link add hand0 type veth peer name eth0 netns hand");
    sh("ip -n hand address add 10.3.0.77/24 dev eth0 && ip -n hand link set eth0 up");
    assert!(!succeeds("ip netns exec hand ping -q -c 1 -W 1 10.3.0.10"), "reached before it was plugged in");
    sh(&format!("{up} hand0"));
    sh("ip netns exec hand ping -q -c 3 -W 2 10.3.0.10");
    assert!(lab.pings("vm1", "10.3.0.77"));
    assert!(!lab.pings("vm3", "10.3.0.77"), "vm3 is on another network");
    assert_eq!(output("cat /proc/sys/net/ipv6/conf/hand0/disable_ipv6").trim(), "1");
    sh(&format!("{down} hand0"));
    assert!(!succeeds("ip netns exec hand ping -q -c 1 -W 1 10.3.0.10"), "reached after it was unplugged");
    for wrong in ["", "hand0 x", "no-such-link", "a/b", "sixteen-letters-"] {
        let code = output(&format!("{up} {wrong} >/dev/null 2>&1; echo $?"));
        assert_eq!(code.trim(), "2", "{up} {wrong}");
    }
    sh("ip netns del hand");
    // The namespace goes in its own time, and the pair with it.
    sh("for i in $(seq 100); do ip link show hand0 >/dev/null 2>&1 || exit 0; sleep 0.05; done; exit 1");
}

/// The same guest as `vm2`, but QEMU started from the printed command line.
fn qemu_by_hand(lab: &Lab) {
    lab.ok(&["stop", "vm2"]);
    assert!(!lab.pings("vm1", "10.3.0.11"));
    let line = lab.ok(&["qemu-args", "vm2"]);
    assert!(line.contains("script="), "{line}");
    let mut qemu = std::process::Command::new("sh")
        .args(["-c", &format!("exec {line}")])
        .current_dir(lab.folder())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("sh starts");
    let joined = (0..100).any(|_| lab.pings("vm1", "10.3.0.11"));
    assert!(joined, "vm1 does not reach the guest that was started by hand");
    assert!(!lab.pings("vm3", "10.3.0.11"), "vm3 is on another network");
    qemu.kill().expect("QEMU still runs");
    qemu.wait().expect("QEMU ends");
    lab.ok(&["boot", "vm2", "--wait=300s"]);
}
