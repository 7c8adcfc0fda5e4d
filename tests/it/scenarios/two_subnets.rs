//! One bridge, two subnets, one router.

use crate::world::Lab;

pub(super) fn look(lab: &Lab) {
    assert!(lab.pings("left", "192.168.1.88") && lab.pings("right", "192.168.0.88"));
    // With one hop to live, the gateway of the sender's subnet says that it was there.
    for (vm, other, gateway) in [("left", "192.168.1.88", "192.168.0.1"), ("right", "192.168.0.88", "192.168.1.1")] {
        let (text, code) = lab.in_guest(vm, &format!("ping -c 1 -t 1 -W 2 {other}"));
        assert!(code != 0 && text.contains(&format!("From {gateway}")), "{text}");
    }
}
