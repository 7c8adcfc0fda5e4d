//! nftables: guards on the bridges, policy and NAT in the router, the host's share. Pure.
//!
//! The cost of a packet does not grow with the number of networks or guests: what differs between networks stands in
//! sets, never in a rule of its own.

use std::net::IpAddr;

use ipnet::IpNet;

use super::context::Context;
use super::nft::{Body, Element};
use crate::mark::Mark;
use crate::model::{Bridge, External, HostExternal, Mode, Model, OUTSIDE, Router};
use crate::names::{IfName, LabName};
use crate::rule;
use crate::state::{Family, Feature, Ns, Table, TableId};

const INTERFACES: &str = "type ifname";
const PORT_AND_NET4: &str = "type ifname . ipv4_addr; flags interval";
const PORT_AND_NET6: &str = "type ifname . ipv6_addr; flags interval";
const NETS4: &str = "type ipv4_addr; flags interval";
const NETS6: &str = "type ipv6_addr; flags interval";

/// The name of a lab's tables.
pub fn table_name(lab: &LabName) -> String {
    format!("vmnet-{lab}")
}

pub(super) fn tables(context: &mut Context<'_>) {
    let model = context.model;
    let has_bridge = model.networks().values().any(|network| matches!(network.bridge(), Bridge::Own { .. }));
    if has_bridge || !own_taps_on_foreign(model).is_empty() {
        let body = guards(context);
        add(context, Ns::Host, Family::Bridge, body);
    }
    let Some(router) = model.router() else { return };
    add(context, Ns::Named(router.namespace().clone()), Family::Inet, policy(model, router));
    if let External::Host(host) = router.external() {
        let body = host_share(model, host, &context.ways);
        add(context, Ns::Host, Family::Inet, body);
    }
}

fn add(context: &mut Context<'_>, ns: Ns, family: Family, body: String) {
    let id = TableId { ns, family, name: table_name(context.lab()) };
    context.state.tables.insert(id, Table::Body(body));
}

fn own_taps_on_foreign(model: &Model) -> Vec<&IfName> {
    taps(model, |bridge| matches!(bridge, Bridge::Foreign { .. }))
}

fn taps(model: &Model, wanted: impl Fn(&Bridge) -> bool) -> Vec<&IfName> {
    let nics = model.vms().values().flat_map(|vm| model.nics(vm));
    nics.filter(|(_, _, network)| wanted(network.bridge())).map(|(_, nic, _)| nic.tap()).collect()
}

/// Guards at every port of a lab bridge but uplink and router, those that others plug in included.
///
/// A plain bridge forwards a guest's BPDU to the switch, which may shut the port, and its tagged frames into other
/// VLANs' trunks. Tags are matched by `ether type`: `meta protocol` sees the inner type of a plain tag, and
/// `vlan id` misses 802.1ad. Prerouting sees every frame that a bridge would forward.
fn guards(context: &Context<'_>) -> String {
    let model = context.model;
    let bridges = model.networks().values().filter_map(|network| match network.bridge() {
        Bridge::Own { name, .. } => Some(name),
        Bridge::Foreign { .. } => None,
    });
    let router_ports = model.router().iter().flat_map(|router| router.ports().values()).map(|port| port.outer());
    let mut body = Body::marked(Mark::new(context.lab(), "table", "guards"));
    body.counters(&["bpdu", "pause", "lldp", "reserved", "tagged"]);
    if context.facts().features.contains(&Feature::NftablesBridge) {
        body.set("bridges", INTERFACES, bridges);
        body.set("exempt", INTERFACES, context.wires.iter().chain(router_ports));
        body.set("taps", INTERFACES, own_taps_on_foreign(model));
        body.chain(
            "port",
            &[
                "type filter hook prerouting priority -350; policy accept;",
                // The host has no address there, and would all the same answer for those it has elsewhere and take
                // packets for them past the router: Linux is a weak host. Its stack drops what is for others; bridges
                // look at addresses alone, and captures on them go on working.
                "meta ibrname @bridges meta pkttype set other",
                "meta ibrname @bridges iifname != @exempt goto guard",
                "iifname @taps goto guard",
            ],
        );
    } else {
        // Without nft_meta_bridge a rule can't ask for the bridge: our own ports are guarded by name, and those of
        // others where their frames would leave for the wire.
        body.set("wire", INTERFACES, &context.wires);
        body.set("exempt", INTERFACES, router_ports);
        body.set("taps", INTERFACES, taps(model, |_| true));
        body.set("sealed", INTERFACES, taps(model, |bridge| matches!(bridge, Bridge::Own { .. })));
        body.chain(
            "port",
            &[
                "type filter hook prerouting priority -350; policy accept;",
                "iifname @sealed meta pkttype set other",
                // A probe stands where a guest stands, and must not see more.
                &format!("iifname \"{}*\" meta pkttype set other", rule::PROBE_PORTS),
                "iifname @taps goto guard",
            ],
        );
        body.chain(
            "out",
            &["type filter hook forward priority -350; policy accept;", "oifname @wire iifname != @exempt goto guard"],
        );
    }
    guard_chains(&mut body);
    body.finish()
}

/// What no guest may send toward the wire, each kind counted.
fn guard_chains(body: &mut Body) {
    body.chain(
        "guard",
        &[
            // 802.1Q, 802.1ad, the old numbers of double tags, and 802.1ah.
            "ether type { 8021q, 8021ad, 0x9100, 0x9200, 0x9300, 0x88e7 } counter name \"tagged\" drop",
            "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 goto reserved",
            // Cisco's CDP and per-VLAN spanning tree; GMRP and GVRP.
            "ether daddr { 01:00:0c:cc:cc:cc, 01:00:0c:cc:cc:cd, 01:80:c2:00:00:20, 01:80:c2:00:00:21 } \
             counter name \"reserved\" drop",
            "ether type 0x88cc counter name \"lldp\" drop",
            "ether type 0x8808 counter name \"pause\" drop",
        ],
    );
    body.chain(
        "reserved",
        &[
            "ether daddr 01:80:c2:00:00:00 counter name \"bpdu\" drop",
            "ether daddr 01:80:c2:00:00:01 counter name \"pause\" drop",
            "ether daddr 01:80:c2:00:00:0e counter name \"lldp\" drop",
            "counter name \"reserved\" drop",
        ],
    );
}

/// One subnet behind a router's port.
struct Behind<'a> {
    port: &'a IfName,
    mode: Mode,
    net: &'a IpNet,
}

fn behind<'a>(model: &'a Model, router: &'a Router) -> Vec<Behind<'a>> {
    let of = |(name, port): (_, &'a crate::model::RouterPort)| {
        let network = &model.networks()[name];
        network.subnets().iter().map(|subnet| Behind { port: port.inner(), mode: *network.mode(), net: subnet.net() })
    };
    router.ports().iter().flat_map(of).collect()
}

/// The router's policy: forwards from outside what is established or for a `routed` network, from inside what
/// carries a source of its own segment, and to itself nearly nothing. SNAT alone would filter nothing.
fn policy(model: &Model, router: &Router) -> String {
    let behind = behind(model, router);
    let is4 = |net: &IpNet| net.addr().is_ipv4();
    let pair = |b: &Behind<'_>| Element::from((b.port, b.net));
    let nets = |ipv4: bool, wanted: &dyn Fn(&Behind<'_>) -> bool| -> Vec<Element> {
        behind.iter().filter(|b| is4(b.net) == ipv4 && wanted(b)).map(|b| Element::from(b.net)).collect()
    };
    let pairs = |ipv4: bool, wanted: &dyn Fn(&Behind<'_>) -> bool| -> Vec<Element> {
        behind.iter().filter(|b| is4(b.net) == ipv4 && wanted(b)).map(pair).collect()
    };
    let routed = |b: &Behind<'_>| b.mode == Mode::Routed;
    let nat = |b: &Behind<'_>| b.mode == Mode::Nat;
    let mut body = Body::marked(Mark::new(model.lab(), "table", "router"));
    body.counters(&["spoofed", "invalid", "refused-forward", "refused-input"]);
    body.set("inside", INTERFACES, router.ports().values().map(|port| port.inner()));
    body.set("sources4", PORT_AND_NET4, pairs(true, &|_| true));
    body.set("sources6", PORT_AND_NET6, pairs(false, &|_| true));
    body.set("routed4", PORT_AND_NET4, pairs(true, &routed));
    body.set("routed6", PORT_AND_NET6, pairs(false, &routed));
    body.set("own4", NETS4, nets(true, &|_| true));
    body.set("own6", NETS6, nets(false, &|_| true));
    body.set("nat4", NETS4, nets(true, &nat));
    body.set("nat6", NETS6, nets(false, &nat));
    let translations = translations(router.external());
    let elsewhere = !model.elsewhere().is_empty();
    if elsewhere {
        let nets = |ipv4| model.elsewhere().iter().map(|part| part.to()).filter(move |net| is4(net) == ipv4);
        body.set("elsewhere4", NETS4, nets(true));
        body.set("elsewhere6", NETS6, nets(false));
    }
    forward_chains(&mut body, *router.external() != External::None, &translations, elsewhere);
    source_chains(&mut body, *router.external() != External::None);
    own_chains(&mut body);
    // Only on the way out: never between the lab's own networks, those on other hosts included.
    let snat: Vec<String> = translations
        .iter()
        .map(|address| match address {
            IpAddr::V4(address) => format!("oifname \"{OUTSIDE}\" ip saddr @nat4 snat ip to {address}"),
            IpAddr::V6(address) => format!("oifname \"{OUTSIDE}\" ip6 saddr @nat6 snat ip6 to {address}"),
        })
        .collect();
    if !snat.is_empty() && behind.iter().any(|b| b.mode == Mode::Nat) {
        let mut statements = vec!["type nat hook postrouting priority srcnat; policy accept;".to_owned()];
        if elsewhere {
            statements.push(format!("oifname \"{OUTSIDE}\" ip daddr @elsewhere4 accept"));
            statements.push(format!("oifname \"{OUTSIDE}\" ip6 daddr @elsewhere6 accept"));
        }
        statements.extend(snat);
        body.chain("postrouting", &statements);
    }
    body.finish()
}

/// The address of each family that packets leave with.
fn translations(external: &External) -> Vec<IpAddr> {
    let first = |nets: &[IpNet], ipv4: bool| nets.iter().map(IpNet::addr).find(|address| address.is_ipv4() == ipv4);
    match external {
        External::None => Vec::new(),
        External::Host(host) => vec![IpAddr::V4(host.router_address().addr())],
        External::Macvlan(own) | External::Vlan { external: own, .. } => {
            [first(&own.addresses, true), first(&own.addresses, false)].into_iter().flatten().collect()
        }
    }
}

fn forward_chains(body: &mut Body, has_outside: bool, translations: &[IpAddr], elsewhere: bool) {
    const STATE: &str = "ct state vmap { invalid : goto bad, established : accept, related : accept }";
    let mut forward = vec![
        "type filter hook forward priority filter; policy drop;".to_owned(),
        "iifname @inside goto from-inside".to_owned(),
    ];
    if has_outside {
        forward.push(format!("iifname \"{OUTSIDE}\" goto from-outside"));
    }
    forward.push("counter name \"refused-forward\" drop".to_owned());
    body.chain("forward", &forward);
    // A source that is not of its segment can't leave: nothing goes out untranslated (BCP 38).
    body.chain(
        "from-inside",
        &[
            "iifname . ip saddr @sources4 goto checked",
            "iifname . ip6 saddr @sources6 goto checked",
            "counter name \"spoofed\" drop",
        ],
    );
    let mut checked = vec![STATE.to_owned(), "oifname @inside accept".to_owned()];
    for address in translations {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        checked.push(format!("oifname \"{OUTSIDE}\" meta nfproto {family} accept"));
    }
    checked.push("counter name \"refused-forward\" drop".to_owned());
    body.chain("checked", &checked);
    if has_outside {
        let mut outside = vec![
            "ip saddr @own4 counter name \"spoofed\" drop",
            "ip6 saddr @own6 counter name \"spoofed\" drop",
            STATE,
        ];
        if elsewhere {
            // What one router would let pass between two of its networks, two let pass as well.
            outside.extend([
                "oifname @inside ip saddr @elsewhere4 accept",
                "oifname @inside ip6 saddr @elsewhere6 accept",
            ]);
        }
        outside.extend([
            "oifname . ip daddr @routed4 accept",
            "oifname . ip6 daddr @routed6 accept",
            "counter name \"refused-forward\" drop",
        ]);
        body.chain("from-outside", &outside);
    }
    body.chain("bad", &["counter name \"invalid\" drop"]);
}

/// Sources are looked at before anything is answered: an echo reply, or the error for a packet whose hops are used up,
/// which the kernel sends before its forward chain, would carry a guest's packet into a segment of its choice.
fn source_chains(body: &mut Body, has_outside: bool) {
    let mut sources = vec![
        "type filter hook prerouting priority raw; policy accept;".to_owned(),
        "iifname @inside goto source-inside".to_owned(),
    ];
    if has_outside {
        sources.push(format!("iifname \"{OUTSIDE}\" goto source-outside"));
        body.chain(
            "source-outside",
            &["ip saddr @own4 counter name \"spoofed\" drop", "ip6 saddr @own6 counter name \"spoofed\" drop"],
        );
    }
    body.chain(
        "source-inside",
        &[
            "iifname . ip saddr @sources4 accept",
            "iifname . ip6 saddr @sources6 accept",
            // Who has no address yet: DHCP, duplicate address detection; and neighbour discovery's own addresses. The
            // kernel forwards none of them.
            "ip saddr 0.0.0.0 accept",
            "ip6 saddr { ::, fe80::/10 } accept",
            "counter name \"spoofed\" drop",
        ],
    );
    body.chain("prerouting", &sources);
}

/// What the router takes for itself: echo and errors, and what IPv6 needs (RFC 4890, 4.4). No redirects go out: two
/// subnets of one bridge talk through the router on purpose, and IPv6 has no sysctl for it.
fn own_chains(body: &mut Body) {
    body.chain(
        "input",
        &[
            "type filter hook input priority filter; policy drop;",
            "iifname \"lo\" accept",
            "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-solicit, \
             nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept",
            "ct state vmap { invalid : goto bad, established : accept, related : accept }",
            "icmp type echo-request accept",
            "icmpv6 type echo-request accept",
            "counter name \"refused-input\" drop",
        ],
    );
    body.chain(
        "output",
        &[
            "type filter hook output priority filter; policy accept;",
            "icmp type redirect drop",
            "icmpv6 type nd-redirect drop",
        ],
    );
}

/// The host's share with `via = "host"`: it translates the router's transit address alone, and lets pass what the
/// lab sends out and what is for a `routed` network. Between the lab's subnets here and those on other hosts all passes,
/// untranslated, as far as it comes and goes by the device that leads there: nobody else may use their addresses. An
/// accept here can't overrule a drop elsewhere.
fn host_share(model: &Model, host: &HostExternal, ways: &[(IfName, IpNet)]) -> String {
    let routed: Vec<&IpNet> = model
        .networks()
        .values()
        .filter(|network| *network.mode() == Mode::Routed)
        .flat_map(|network| network.subnets().iter().map(|subnet| subnet.net()))
        .filter(|net| net.addr().is_ipv4())
        .collect();
    let (veth, transit) = (&host.outer, host.router_address().addr());
    let transit_net = IpNet::from(IpAddr::V4(transit));
    let mut body = Body::marked(Mark::new(model.lab(), "table", "host"));
    body.counters(&["refused-forward", "refused-input"]);
    body.set("sources", NETS4, std::iter::once(&transit_net).chain(routed.iter().copied()));
    body.set("routed", NETS4, routed.iter().copied());
    const STATE: &str = "ct state vmap { invalid : goto refused, established : accept, related : accept }";
    let (mut from_lab, mut to_lab) = (vec![STATE], vec![STATE]);
    if !ways.is_empty() {
        let routers = model.networks().values().filter(|network| network.mode().has_router());
        let own = routers.flat_map(|network| network.subnets()).map(|subnet| subnet.net());
        body.set("own", NETS4, own.filter(|net| net.addr().is_ipv4()));
        body.set("ways", PORT_AND_NET4, ways.iter().map(|(device, net)| (device, net)));
        body.set("elsewhere", NETS4, ways.iter().map(|(_, net)| net));
        from_lab.extend(["oifname . ip daddr @ways ip saddr @own accept", "ip daddr @elsewhere goto refused"]);
        to_lab.extend(["iifname . ip saddr @ways ip daddr @own accept", "ip saddr @elsewhere goto refused"]);
    }
    body.chain(
        "forward",
        &[
            "type filter hook forward priority filter; policy accept;".to_owned(),
            format!("iifname \"{veth}\" goto from-lab"),
            format!("oifname \"{veth}\" goto to-lab"),
        ],
    );
    from_lab.extend(["ip saddr @sources accept", "goto refused"]);
    to_lab.extend(["ip daddr @routed accept", "goto refused"]);
    body.chain("from-lab", &from_lab);
    body.chain("to-lab", &to_lab);
    body.chain("refused", &["counter name \"refused-forward\" drop"]);
    body.chain(
        "input",
        &[
            "type filter hook input priority filter; policy accept;".to_owned(),
            format!("iifname \"{veth}\" goto to-host"),
        ],
    );
    body.chain(
        "to-host",
        &[
            "ct state vmap { invalid : drop, established : accept, related : accept }",
            "icmp type echo-request accept",
            "counter name \"refused-input\" drop",
        ],
    );
    let translate = match host.snat {
        Some(address) => format!("ip saddr {transit} oifname != \"{veth}\" snat ip to {address}"),
        None => format!("ip saddr {transit} oifname != \"{veth}\" masquerade"),
    };
    body.chain("postrouting", &["type nat hook postrouting priority srcnat; policy accept;".to_owned(), translate]);
    body.finish()
}
