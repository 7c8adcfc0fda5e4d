//! Rows 24 and 25: other tools change what is the lab's.

use crate::matrix::row;
use crate::matrix::rows::{LAB, as_applied, both_families, holds, refused, status, texts, through_host};
use crate::world::sh;

/// A link set down, a port detached, an address removed by another tool: `status` shows it, `create` repairs it.
#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
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
                (
                    "chown 65534 /run/vmnet/row/hooks/web/qemu-ifup",
                    "/run/vmnet/row/hooks/web/qemu-ifup: others can change it: it belongs to user 65534".to_owned(),
                ),
                (
                    "chmod 777 /run/vmnet/row/hooks/db",
                    "/run/vmnet/row/hooks/db/qemu-ifdown: others can change it: it belongs to user 0, its folder to user \
                     0 with mode 0777"
                        .to_owned(),
                ),
                (
                    &format!("bridge link set dev {vm1} isolated on"),
                    format!("{vm1}: isolated on, should be isolated off"),
                ),
                (&format!("bridge link set dev {vm1} learning off"), format!("{vm1}: learning off, should be learning on")),
                (
                    &format!("ip netns exec {router} sysctl -qw net.ipv4.conf.web.forwarding=0"),
                    format!("net/ipv4/conf/web/forwarding in {router}: 0, should be 1"),
                ),
                (
                    &format!("ip netns exec {router} sysctl -qw net.ipv4.conf.outside.rp_filter=1"),
                    format!("net/ipv4/conf/outside/rp_filter in {router}: 1, should be 0"),
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

/// A route that another tool put in the place of one of the lab's is another tool's: shown, in the way, and left alone;
/// one beside it, or with another metric, is in nobody's way.
#[test]
fn row_24_route_of_another_tool() {
    row!(|| {
        holds(&both_families(), |lab| {
            lab.ok(&["create"]);
            lab.ok(&["boot", "--all"]);
            let (router, guest) = (lab.router_ns(), lab.guest_ns("vm2"));
            let cases = [
                (&router, "", "via 192.0.2.77 dev outside", "outside"),
                (&guest, "-6 ", "via 2001:db8:2::77 dev eth0", "eth0"),
            ];
            for (ns, family, other, dev) in cases {
                let ip = format!("ip -n {ns} {family}route");
                sh(&format!("{ip} del default; {ip} add default {other}"));
                let says = format!("a route to default in {ns} exists already (out of {dev})");
                let found = status(lab);
                assert_eq!(found["condition"], "degraded", "{found:#}");
                assert!(found["obstacles"].to_string().contains(&says), "{found:#}");
                assert!(texts(&found["differences"]).iter().any(|text| text.starts_with("route default")), "{found:#}");
                for verb in ["plan", "create"] {
                    refused(lab, &[verb], &[&says, &format!("({ip} del default)")]);
                }
                assert!(sh(&format!("{ip} show default")).contains("77"), "it stays");
                sh(&format!("{ip} del default"));
                lab.ok(&["create"]);
                sh(&format!("{ip} add default {other} metric 7"));
                as_applied(lab);
                sh(&format!("{ip} del default {other} metric 7"));
            }
            sh(&format!("ip -n {router} route append default via 192.0.2.77 dev outside"));
            as_applied(lab);
        });
    });
}

/// What others put into the router's namespace and among the hooks, and what nothing of the lab's stands on: `status`
/// names it, `create` leaves it alone. The namespace takes along what is in it; a file stays, and is named.
#[test]
fn row_24_things_of_others() {
    row!(|| {
        holds(&both_families(), |lab| {
            lab.ok(&["create"]);
            let router = lab.router_ns();
            sh("mkdir -p /run/vmnet/row/hooks/mine/deep; echo '#!/bin/sh' >/run/vmnet/row/hooks/mine/deep/script
                cp /run/vmnet/row/hooks/mine/deep/script /run/vmnet/row/hooks/web/qemu-ifup.local
                cp /run/vmnet/row/hooks/mine/deep/script /run/vmnet/row/hooks/mine/qemu-ifup");
            sh(&format!(
                "ip netns exec {router} nft add table ip mine; ip -n {router} rule add from 10.7.0.0/16 table 7 priority 9
                 ip -n {router} -6 rule add to 2001:db8:7::/48 prohibit priority 9
                 ip -n {router} route add blackhole 10.8.0.0/16; ip -n {router} route add 10.9.0.0/16 dev web"
            ));
            let says = [
                format!("table ip mine is in namespace {router}"),
                format!("rule 9: from 10.7.0.0/16 lookup 7 is in namespace {router}"),
                format!("IPv6 rule 9: to 2001:db8:7::/48 prohibit is in namespace {router}"),
                format!("route blackhole 10.8.0.0/16 is in namespace {router}"),
                format!("route 10.9.0.0/16 out of web is in namespace {router}"),
                "/run/vmnet/row/hooks/mine/deep/script stands below the hooks".to_owned(),
                "/run/vmnet/row/hooks/mine/qemu-ifup stands below the hooks".to_owned(),
                "/run/vmnet/row/hooks/web/qemu-ifup.local stands below the hooks".to_owned(),
            ];
            for _ in 0..2 {
                let mut found = texts(&status(lab)["beside"]);
                found.sort();
                let mut says = says.clone();
                says.sort();
                assert_eq!(found, says);
                as_applied(lab);
                lab.ok(&["create"]);
            }
            let text = lab.ok(&["status"]);
            assert!(says.iter().all(|line| text.contains(line.as_str())), "{text}");
            for _ in 0..2 {
                let text = lab.ok(&["destroy", "--stop", "row"]);
                assert!(text.contains("/run/vmnet/row/hooks/mine/deep/script"), "{text}");
            }
            assert_eq!(
                sh("find /run/vmnet/row -type f | sort"),
                "/run/vmnet/row/hooks/mine/deep/script\n/run/vmnet/row/hooks/mine/qemu-ifup\n\
                 /run/vmnet/row/hooks/web/qemu-ifup.local\n"
            );
            lab.ok(&["gc"]);
            lab.ok(&["create"]);
            sh("rm -r /run/vmnet/row/hooks/mine /run/vmnet/row/hooks/web/qemu-ifup.local");
            crate::matrix::tally("things of others", says.len(), 0);
        });
    });
}

/// A setting of the host that is not needed any more, since a NIC has lost its default route: shown until `create` puts
/// back what was found.
#[test]
fn row_24_setting_that_goes_back() {
    row!(|| {
        holds(&through_host(), |lab| {
            sh("ip link add nic1 type veth peer name wire1; ip link set nic1 up; ip link set wire1 up
                ip address add 198.51.100.2/24 dev nic1; ip route add default via 198.51.100.1 dev nic1 metric 9");
            lab.ok(&["create"]);
            sh("ip route del default dev nic1");
            let found = status(lab);
            assert_eq!(found["condition"], "differs", "{found:#}");
            assert_eq!(texts(&found["differences"]), ["net/ipv4/conf/nic1/forwarding: 1, should be 0"]);
            lab.ok(&["create"]);
            as_applied(lab);
            assert_eq!(sh("cat /proc/sys/net/ipv4/conf/nic1/forwarding").trim(), "0");
            sh("ip link del nic1");
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
