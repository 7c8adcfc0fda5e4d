//! Plans on the real kernel.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use vmnet::apply::{self, ApplyError, KernelHost, Restored, Work};
use vmnet::kernel::Kernel;
use vmnet::names::{IfName, LabName, NsName, VmName};
use vmnet::observe::{Observation, Scope};
use vmnet::paths::Paths;
use vmnet::plan::{Found, Op, Plan, diff, own_groups};
use vmnet::rule;
use vmnet::state::{
    Address, BridgeSettings, Family, File, Guest, HostState, Link, LinkId, LinkKind, Namespace, Ns, Route, SettingKey,
    Table, TableId,
};

use crate::plan_apply::block_on;
use crate::private::{private, sh};

/// The lab of these tests.
pub(crate) fn lab() -> LabName {
    "campus".parse().unwrap()
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// The host of the test's namespaces.
pub(crate) fn host() -> KernelHost {
    KernelHost::new(Scope::new(&lab(), Paths::default()))
}

pub(crate) fn link(kind: LinkKind, role: &str, id: &LinkId) -> Link {
    Link {
        kind,
        mac: rule::device_mac(&lab(), role, &id.to_string()),
        mtu: 1500,
        group: rule::link_group(&lab()),
        alias: format!("vmnet:campus:{role}:{}", id.name),
        master: None,
        up: true,
        ipv6: false,
        tx_checksum: None,
        odd: vmnet::state::Odd::new(),
    }
}

/// A veth pair, the near end a port of a bridge.
pub(crate) fn pair(state: &mut HostState, near: (&LinkId, &str), far: &LinkId) {
    let (near, master) = near;
    let near_link = link(LinkKind::Veth { peer: Some(far.clone()) }, "port", near);
    state.links.insert(near.clone(), Link { master: Some(master.into()), ..near_link });
    let off = (far.ns.name() == Some(&rule::router_namespace(&lab()))).then_some(false);
    let far_link = link(LinkKind::Veth { peer: Some(near.clone()) }, "nic", far);
    state.links.insert(far.clone(), Link { tx_checksum: off, ..far_link });
}

fn route(link: &LinkId, to: &str, via: Option<IpAddr>) -> Route {
    Route { ns: link.ns.clone(), to: to.parse().unwrap(), via, dev: link.name.clone(), metric: 0 }
}

/// Two networks with a router, a macvlan on `nic0` in it, a namespace guest, tables, settings and a file.
fn desired() -> HostState {
    let mut state = HostState::default();
    let router = rule::router_namespace(&lab());
    let vm: VmName = "vm1".parse().unwrap();
    let guest = rule::guest_namespace(&lab(), &vm);
    for ns in [&router, &guest] {
        state.namespaces.insert(ns.clone(), Namespace { mark: "vmnet:campus:ns:x".into() });
    }
    for (i, net) in ["web", "db"].into_iter().enumerate() {
        let bridge = LinkId::host(name(&format!("br-{net}")));
        let made = link(LinkKind::Bridge(BridgeSettings::OURS), "bridge", &bridge);
        state.links.insert(bridge.clone(), made);
        let (near, far) = (LinkId::host(name(&format!("rt-{net}"))), LinkId::inside(&router, name(net)));
        pair(&mut state, (&near, bridge.name.as_str()), &far);
        state.addresses.insert(Address { link: far, net: format!("10.0.{i}.1/24").parse().unwrap() });
    }
    let eth0 = LinkId::inside(&guest, name("eth0"));
    pair(&mut state, (&LinkId::host(name("vm1-0")), "br-web"), &eth0);
    state.addresses.insert(Address { link: eth0.clone(), net: "10.0.0.10/24".parse().unwrap() });
    state.addresses.insert(Address { link: eth0.clone(), net: "10.0.7.10/24".parse().unwrap() });
    state.routes.insert(route(&eth0, "0.0.0.0/0", "10.0.0.1".parse().ok()));
    state.guests.insert(vm, Guest::Netns { ns: guest.clone() });

    let ext = LinkId::inside(&router, name("ext"));
    let external = Link { ipv6: true, ..link(LinkKind::Macvlan { parent: name("nic0") }, "external", &ext) };
    state.links.insert(ext.clone(), external);
    state.addresses.insert(Address { link: ext.clone(), net: "192.0.2.9/24".parse().unwrap() });
    state.addresses.insert(Address { link: ext.clone(), net: "2001:db8::9/64".parse().unwrap() });
    for (to, via) in [("0.0.0.0/0", "192.0.2.1"), ("::/0", "2001:db8::1")] {
        state.routes.insert(route(&ext, to, via.parse().ok()));
    }
    state.routes.insert(route(&ext, "198.51.100.0/24", None));

    router_settings(&mut state, &router);
    for (ns, v6) in [(&router, "1"), (&guest, "0")] {
        let ns = Ns::Named(ns.clone());
        state.settings.insert(SettingKey::sysctl(&ns, "ipv4/conf/all/forwarding"), "1".into());
        state.settings.insert(SettingKey::sysctl(&ns, "ipv6/conf/default/disable_ipv6"), "1".into());
        state.settings.insert(SettingKey::sysctl(&ns, "ipv6/conf/all/forwarding"), v6.into());
    }
    state.settings.insert(SettingKey::sysctl(&Ns::Host, "ipv4/conf/nic0/forwarding"), "1".into());
    state.settings.insert(SettingKey::DeviceState { device: name("nic0") }, "up".into());
    let table = |ns, family, body: &str| {
        let body = format!("comment \"vmnet:campus:table:x\"\n{body}");
        (TableId { ns, family, name: "vmnet-campus".into() }, Table::Body(body))
    };
    let inside = "set inside {\ntype ifname\nelements = { \"db\", \"web\" }\n}\nchain forward {\ntype filter hook forward priority filter; policy drop;\niifname @inside accept\n}";
    let guard = "counter tagged {\n}\nchain port {\ntype filter hook prerouting priority -350; policy accept;\nether type { 8021q, 8021ad } counter name \"tagged\" drop\n}";
    state.tables.extend([table(Ns::Named(router), Family::Inet, inside), table(Ns::Host, Family::Bridge, guard)]);
    let hook = File::new(0o755, "#!/bin/sh\n# vmnet:campus:hook:web\n");
    state.files.insert("/run/vmnet/campus/hooks/web/qemu-ifup".into(), hook);
    state
}

/// The machine's side: a NIC that is down and has an address.
fn nic() {
    sh("mkdir /run/netns /run/vmnet");
    sh("ip link add nic0 type veth peer name far0; ip link set far0 up; ip addr add 203.0.113.5/24 dev nic0");
}

/// What `ip` shows of everything foreign. A device that was up once keeps another queueing discipline, and its peer
/// another opinion of the carrier.
fn foreign() -> String {
    sh(
        "ip link show | sed 's/qdisc .* mode//; s/NO-CARRIER,//' | grep -A1 -E ' (nic0|far0|lo)[@:]'; ip addr show nic0 | grep inet; ip route; ls -lR /run | grep -v ^total",
    )
}

/// Plans and carries out what leads to `desired`.
pub(crate) fn settle(
    host: &mut KernelHost,
    desired: &HostState,
    found: &Found,
) -> (Plan, Result<apply::Report, ApplyError>) {
    host.scope.settings = desired.settings.keys().chain(found.keys()).cloned().collect();
    let Observation { state: before, facts, strangers, .. } = host.look().unwrap();
    let plan = diff(&before, desired, found, &own_groups(&before, &facts, &strangers));
    let work = Work {
        before: &before,
        desired,
        plan: &plan,
        found,
        cancel: &AtomicBool::new(false),
        apart: &Default::default(),
    };
    let report = block_on(apply::run(host, &work, &mut |_| {}));
    (plan, report)
}

/// What a router's namespace gives its links.
pub(crate) fn router_settings(state: &mut HostState, router: &NsName) {
    let ns = Ns::Named(router.clone());
    for key in ["rp_filter", "send_redirects", "accept_redirects"] {
        state.settings.insert(SettingKey::sysctl(&ns, format!("ipv4/conf/default/{key}")), "0".into());
    }
    state.settings.insert(SettingKey::sysctl(&ns, "ipv6/conf/default/accept_ra"), "0".into());
    for family in ["ipv4", "ipv6"] {
        state.settings.insert(SettingKey::sysctl(&ns, format!("{family}/conf/all/forwarding")), "1".into());
    }
}

/// Carries it out without repair; what the host's settings were before.
pub(crate) fn create(host: &mut KernelHost, desired: &HostState) -> Found {
    let hosts = |key: &&SettingKey| !matches!(key, SettingKey::Sysctl { ns: Ns::Named(_), .. });
    let keys = desired.settings.keys().filter(hosts).cloned().collect();
    let found = vmnet::observe::settings(&keys).unwrap();
    let (_, report) = settle(host, desired, &found);
    let report = report.unwrap_or_else(|error| panic!("{error}: {error:#?}"));
    assert_eq!(report.repaired, 0);
    found
}

#[test]
fn a_lab_comes_stays_and_goes() {
    private(|| {
        nic();
        let before = foreign();
        let (mut host, desired) = (host(), desired());
        let found = create(&mut host, &desired);
        assert_eq!(found[&SettingKey::DeviceState { device: name("nic0") }], "down");

        let observed = host.look().unwrap();
        assert_eq!(observed.state, desired);
        assert!(observed.strangers.is_empty());
        assert!(observed.facts.devices.contains_key("nic0"));
        assert!(!observed.facts.devices.contains_key("br-web"));
        sh("ip netns exec vmnet-campus.vm1 ping -c1 -W2 10.0.0.1");
        sh("ip netns exec vmnet-campus ping -c1 -W2 10.0.0.10");
        assert!(sh("ip -n vmnet-campus -d link show web").contains("vmnet:campus:nic:web"));

        let (again, report) = settle(&mut host, &desired, &found);
        assert!(again.is_empty(), "{again:?}");
        assert_eq!(report.unwrap().ops, 0);

        let (_, report) = settle(&mut host, &HostState::default(), &found);
        report.unwrap();
        assert_eq!(foreign(), before, "nothing foreign is touched, nothing is left");
        assert!(host.recorded().is_empty());
        assert_eq!(sh("nft list tables"), "");
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn what_other_tools_change_is_seen_and_repaired() {
    private(|| {
        nic();
        let (mut host, desired) = (host(), desired());
        let found = create(&mut host, &desired);
        for (line, plan_says) in [
            ("ip link set br-web down", "set br-web: up"),
            ("ip link set rt-web nomaster", "set rt-web: port of br-web"),
            ("ip link set br-db type bridge mcast_snooping 1 stp_state 1", "set br-db: STP"),
            ("ip link set rt-db mtu 1400", "set rt-db: MTU 1500"),
            ("ip link set br-web alias ''", "set br-web: mark"),
            ("ip -n vmnet-campus addr del 10.0.0.1/24 dev web", "add address 10.0.0.1/24 to web in vmnet-campus"),
            ("ip -n vmnet-campus addr add 10.9.9.9/24 dev web", "remove address 10.9.9.9/24"),
            ("ip -n vmnet-campus route del default", "add route default via 192.0.2.1 dev ext in vmnet-campus"),
            ("ip -n vmnet-campus route add 10.77.0.0/16 dev web proto 118", "remove route 10.77.0.0/16 dev web"),
            ("ip netns exec vmnet-campus ethtool -K web tx on 2>/dev/null || true", ""),
            (
                "ip netns exec vmnet-campus sysctl -qw net.ipv4.conf.all.forwarding=0",
                "set net/ipv4/conf/all/forwarding",
            ),
            ("sysctl -qw net.ipv6.conf.br-web.disable_ipv6=0", "set br-web: IPv6 off"),
            ("ip netns exec vmnet-campus nft flush ruleset", "write table inet vmnet-campus in vmnet-campus"),
            (
                "ip netns exec vmnet-campus nft delete element inet vmnet-campus inside '{ \"web\" }'",
                "write table inet",
            ),
            ("nft add rule bridge vmnet-campus port accept", "write table bridge vmnet-campus"),
            ("chmod 600 /run/vmnet/campus/hooks/web/qemu-ifup", "write /run/vmnet/campus/hooks/web/qemu-ifup (0755)"),
            ("chown 65534 /run/vmnet/campus/hooks/web/qemu-ifup", "write /run/vmnet/campus/hooks/web/qemu-ifup"),
            ("chown 65534 /run/vmnet/campus/hooks/web", "write /run/vmnet/campus/hooks/web/qemu-ifup"),
            ("chmod 777 /run/vmnet/campus/hooks/web", "write /run/vmnet/campus/hooks/web/qemu-ifup"),
            (
                "mkdir /run/vmnet/campus/hooks/old; cp /run/vmnet/campus/hooks/web/qemu-ifup /run/vmnet/campus/hooks/old",
                "remove /run/vmnet/campus/hooks/old/qemu-ifup",
            ),
            ("bridge link set dev rt-web isolated on learning off", "set rt-web: learning on, isolated off"),
            ("bridge link set dev vm1-0 flood off hairpin on guard on", "set vm1-0: hairpin off, guard off, flood on"),
            ("ip link set rt-db type bridge_slave mcast_flood off bcast_flood off", "set rt-db: mcast_flood on"),
            (
                "ip netns exec vmnet-campus sysctl -qw net.ipv4.conf.web.forwarding=0",
                "set net/ipv4/conf/web/forwarding in vmnet-campus: 1 (was 0)",
            ),
            (
                "ip netns exec vmnet-campus sysctl -qw net.ipv4.conf.db.rp_filter=1 net.ipv4.conf.db.arp_ignore=8",
                "set net/ipv4/conf/db/arp_ignore in vmnet-campus: 1 (was 8)",
            ),
            (
                "ip netns exec vmnet-campus sysctl -qw net.ipv6.conf.ext.forwarding=0",
                "set net/ipv6/conf/ext/forwarding in vmnet-campus: 1 (was 0)",
            ),
            ("ip link del rt-db", "add veth rt-db"),
            ("ip netns del vmnet-campus.vm1", "add namespace vmnet-campus.vm1"),
            ("ip link del br-web", "add bridge br-web"),
        ] {
            sh(line);
            let (plan, report) = settle(&mut host, &desired, &found);
            let text: Vec<String> = plan.ops().map(ToString::to_string).collect();
            assert!(text.iter().any(|op| op.starts_with(plan_says)) || plan_says.is_empty(), "{line}: {text:#?}");
            report.unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(host.look().unwrap().state, desired, "{line}");
        }
    });
}

#[test]
fn a_foreign_commit_costs_a_listing_and_no_repair() {
    private(|| {
        nic();
        let (mut host, desired) = (host(), desired());
        let found = create(&mut host, &desired);
        sh("nft add table ip docker");
        let (plan, _) = settle(&mut host, &desired, &found);
        assert!(plan.is_empty(), "{plan:?}");
        let observed = host.look().unwrap();
        assert!(observed.facts.tables.contains("ip docker"), "{:?}", observed.facts.tables);
        let (_, report) = settle(&mut host, &HostState::default(), &found);
        report.unwrap();
        assert_eq!(sh("nft list tables"), "table ip docker\n");
    });
}

#[test]
fn a_failure_leads_back_and_names_the_operation() {
    private(|| {
        nic();
        let before = foreign();
        // A foreign link with one of our names: the whole wave is tried, this one fails.
        sh("ip link add br-db type bridge");
        let (mut host, desired) = (host(), desired());
        let found = vmnet::observe::settings(&desired.settings.keys().cloned().collect()).unwrap();
        let (_, outcome) = settle(&mut host, &desired, &found);
        match outcome {
            Err(error @ ApplyError::Failed { restored: Restored::Completely, .. }) => {
                assert_eq!(error.to_string(), "failed while adding bridges; everything is as it was before");
                assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "cannot add bridge br-db");
                assert!(error.help().unwrap().contains("another object of that name"));
            }
            other => panic!("{other:?}"),
        }
        sh("ip link del br-db");
        assert_eq!(foreign(), before);
    });
}

#[test]
fn tables_that_another_tool_changed_go_back_verbatim() {
    private(|| {
        nic();
        let mut host = host();
        create(&mut host, &desired());
        let router = rule::router_namespace(&lab());
        // In every family and place: changed, and changed so that a set has elements and a counter a state.
        sh(
            "nft add chain bridge vmnet-campus mine '{ comment \"a; }\" ; }'; nft delete chain bridge vmnet-campus port",
        );
        sh(&format!(
            "ip netns exec {router} nft 'add element inet vmnet-campus inside {{ \"x$(id)\" }}; \
             add set inet vmnet-campus nets {{ type ipv4_addr; flags interval; elements = {{ 10.0.0.0/8, 192.0.2.1 }}; }}; \
             add rule inet vmnet-campus forward ip saddr @nets counter packets 7 bytes 700 log prefix \"a b\" accept'"
        ));
        let tables = || {
            let list = "nft -s list ruleset; nft list tables";
            sh(list) + &sh(&format!("ip netns exec {router} {list}"))
        };
        let before = tables();
        // The tables are written before the route, which can't be added.
        let mut wanted = desired();
        let nowhere = Route {
            ns: Ns::Named(router.clone()),
            to: "203.0.113.0/24".parse().unwrap(),
            via: "198.18.0.1".parse().ok(),
            dev: name("web"),
            metric: 0,
        };
        wanted.routes.insert(nowhere);
        let found = vmnet::observe::settings(&wanted.settings.keys().cloned().collect()).unwrap();
        let (plan, outcome) = settle(&mut host, &wanted, &found);
        let writes = plan.ops().filter(|op| matches!(op, Op::ReplaceTable { .. })).count();
        assert!(writes >= 2, "{plan:?}");
        match outcome {
            Err(ApplyError::Failed { restored: Restored::Completely, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(tables(), before);
        // They still are not what was written, and a repair writes them.
        assert!(host.look().unwrap().state.tables.values().all(|table| matches!(table, Table::Drifted(_))));
        settle(&mut host, &desired(), &found).1.unwrap();
        assert_ne!(tables(), before);
        // Removed, and back again: destroying fails midway.
        assert_eq!(host.look().unwrap().state.tables, desired().tables);
        settle(&mut host, &HostState::default(), &found).1.unwrap();
    });
}

#[test]
fn the_kernels_own_words_reach_the_user() {
    private(|| {
        nic();
        sh("ip link add br9 type bridge; ip link set nic0 master br9");
        let id = LinkId::host(name("mv0"));
        let wanted = link(LinkKind::Macvlan { parent: name("nic0") }, "external", &id);
        let error = block_on(async { Kernel::new().add_link(&id, &wanted).unwrap().send().await }).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EBUSY));
        let missing = link(LinkKind::Macvlan { parent: name("nic9") }, "external", &id);
        let error = block_on(async { Kernel::new().add_link(&id, &missing).map(drop) }).unwrap_err();
        assert_eq!(error.to_string(), "cannot add macvlan mv0: there is no link nic9");
    });
}

#[test]
fn a_group_goes_in_one_message_and_takes_nothing_foreign() {
    private(|| {
        nic();
        let (mut host, desired) = (host(), desired());
        let found = create(&mut host, &desired);
        let groups = |plan: &Plan| -> Vec<Ns> {
            let of = |op: &Op| if let Op::RemoveGroup { ns, .. } = op { Some(ns.clone()) } else { None };
            plan.ops().filter_map(of).collect()
        };
        sh("ip link add br-x type bridge; ip link set br-x group 7; ip link set far0 master br-x");
        let (plan, report) = settle(&mut host, &HostState::default(), &found);
        report.unwrap();
        assert!(groups(&plan).contains(&Ns::Host), "{plan:?}");
        assert!(sh("ip -d link show far0").contains("master br-x"));

        // In the lab's own group, with a mark that is not the lab's: the group is not removed as one there.
        create(&mut host, &desired);
        let group = rule::link_group(&lab());
        sh(&format!("ip link set br-x group {group} alias mine"));
        let router = Ns::Named(rule::router_namespace(&lab()));
        sh(&format!("ip -n {router} link add br-y group {group} type bridge; ip -n {router} link set br-y alias mine"));
        let observed = host.look().unwrap();
        let router_stays = HostState {
            namespaces: observed.state.namespaces.clone(),
            guests: observed.state.guests.clone(),
            ..HostState::default()
        };
        let (plan, report) = settle(&mut host, &router_stays, &found);
        report.unwrap();
        assert!(!groups(&plan).contains(&Ns::Host) && !groups(&plan).contains(&router), "{plan:?}");
        assert!(sh("ip -d link show far0").contains("master br-x"));
        sh(&format!("ip -n {router} link show br-y"));
        assert_eq!(host.look().unwrap().state.links, Default::default());
        settle(&mut host, &HostState::default(), &found).1.unwrap();
        assert!(sh("ip -d link show far0").contains("master br-x"));
    });
}

#[test]
fn files_of_a_lab_leave_no_folders() {
    private(|| {
        let mut host = host();
        let mut desired = HostState::default();
        let path = PathBuf::from("/run/vmnet/campus/hooks/web/qemu-ifup");
        desired.files.insert(path.clone(), File::new(0o755, "# vmnet:campus:hook:web"));
        create(&mut host, &desired);
        assert_eq!(host.look().unwrap().state, desired);
        settle(&mut host, &HostState::default(), &Found::default()).1.unwrap();
        assert!(!Path::new("/run/vmnet/campus").exists());
    });
}
