//! Rows 24 and 25: other tools change what is the lab's.

use crate::matrix::row;
use crate::matrix::rows::{LAB, as_applied, holds, status, texts, through_host};
use crate::world::sh;

/// A link set down, a port detached, an address removed by another tool: `status` shows it, `create` repairs it.
#[test]
fn row_24_changed_by_another_tool() {
    row!(|| {
        holds(LAB, |lab| {
            lab.ok(&["create"]);
            lab.ok(&["boot", "--all"]);
            as_applied(lab);
            let (vm1, router) = (lab.tap("vm1"), lab.router_ns());
            let cases = [
                ("ip link set br-web down", "br-web: down, should be up".to_owned()),
                (&format!("ip link set {vm1} nomaster"), format!("{vm1}: port of no bridge, should be port of br-web")),
                (&format!("ip link set {vm1} master br9"), format!("{vm1}: port of br9, should be port of br-web")),
                (
                    &format!("ip -n {router} address del 10.1.0.1/24 dev web"),
                    format!("address 10.1.0.1/24 is missing on web in {router}"),
                ),
                (
                    &format!("ip -n {router} address add 10.1.0.99/24 dev web"),
                    format!("address 10.1.0.99/24 on web in {router}: should not be there"),
                ),
                ("ip link set br-db mtu 1400", "br-db: MTU 1400, should be MTU 1500".to_owned()),
                (
                    "ip link set br-quiet address 02:00:00:00:00:99",
                    "br-quiet: MAC 02:00:00:00:00:99, should be MAC".to_owned(),
                ),
                ("ip link set br-quiet type bridge stp_state 1", "br-quiet: bridge with STP on".to_owned()),
                (
                    &format!("ip -n {router} route del default"),
                    format!("route default via 192.0.2.1 dev outside is missing in {router}"),
                ),
                (
                    &format!("ip netns exec {router} sysctl -qw net.ipv4.ip_forward=0"),
                    format!("net/ipv4/ip_forward in {router}: 0, should be 1"),
                ),
                (
                    &format!("ip netns exec {router} nft add chain inet vmnet-row mine"),
                    format!("table inet vmnet-row in {router}: changed by another tool"),
                ),
                ("nft delete table bridge vmnet-row", "table bridge vmnet-row is missing".to_owned()),
                ("rm /run/vmnet/row/hooks/web/qemu-ifup", "/run/vmnet/row/hooks/web/qemu-ifup is missing".to_owned()),
                (
                    "chmod 700 /run/vmnet/row/hooks/web/qemu-ifup",
                    "/run/vmnet/row/hooks/web/qemu-ifup: mode 0700, should be mode 0755".to_owned(),
                ),
            ];
            for (change, says) in &cases {
                sh(change);
                let status = status(lab);
                let found = texts(&status["differences"]);
                assert!(found.iter().any(|text| text.starts_with(says.as_str())), "{change}: {found:#?}, not {says}");
                assert_eq!(status["condition"], "differs", "{change}");
                assert_ne!(status["drift"], serde_json::json!([]), "{change}");
                let text = lab.ok(&["status", "row"]);
                assert!(text.contains(says.as_str()), "{text}");
                lab.ok(&["create"]);
                as_applied(lab);
            }
            assert!(lab.pings("vm1", "10.2.0.10") && lab.pings("vm1", "192.0.2.1"));
            crate::matrix::tally("changes by another tool", cases.len(), 0);
        });
    });
}

/// `nft flush ruleset` on the host: NAT keeps working or is repaired.
#[test]
fn row_25_flush_ruleset() {
    row!(|| {
        holds(&through_host(), |lab| {
            lab.ok(&["create"]);
            lab.ok(&["boot", "--all"]);
            assert!(lab.pings("vm1", "192.0.2.1"), "through the host");
            for place in ["", &format!("ip netns exec {} ", lab.router_ns())] {
                sh(&format!("{place}nft flush ruleset"));
                let found = texts(&status(lab)["differences"]);
                assert!(found.iter().any(|text| text.contains("table inet vmnet-row")), "{found:#?}");
                lab.ok(&["create"]);
                as_applied(lab);
                assert!(lab.pings("vm1", "192.0.2.1"), "through the host again");
            }
        });
        // With an address of its own the router asks nothing of the host.
        let lab = crate::world::Lab::from_text(LAB);
        lab.ok(&["create"]);
        lab.ok(&["boot", "vm1"]);
        sh("nft flush ruleset");
        assert!(lab.pings("vm1", "192.0.2.1"), "NAT is in the router");
        lab.ok(&["create"]);
        lab.ok(&["destroy", "--stop"]);
    });
}
