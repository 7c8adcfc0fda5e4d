//! Host states for properties: consistent ones, as a definition or a crash or another tool would leave them.

use proptest::prelude::*;
use vmnet::names::{IfName, LabName, NetName, VlanId, VmName};
use vmnet::paths;
use vmnet::rule;
use vmnet::state::{
    Address, BridgeSettings, Domain, Family, File, Guest, HostState, LibvirtGuest, LibvirtNetwork, Link, LinkId,
    LinkKind, Namespace, Ns, QemuGuest, Route, SettingKey, Table, TableId,
};

/// The lab of all tests.
pub(crate) fn lab() -> LabName {
    "campus".parse().unwrap()
}

/// One network of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Net {
    /// On a sub-interface of `eno1`.
    pub vlan: bool,
    /// Has a gateway in the router.
    pub routed: bool,
    /// Has a route behind the gateway's subnet.
    pub route: bool,
    /// Has a second address on the gateway.
    pub more: bool,
    /// MTU of all its links.
    pub mtu: u32,
    /// What runs on it.
    pub guest: Runs,
    /// Another tool set its bridge down.
    pub down: bool,
    /// Another tool switched STP on.
    pub stp: bool,
    /// A port of the foreign bridge, not of its own.
    pub foreign: bool,
    /// It is a network of libvirt's, too.
    pub libvirt: bool,
    /// Another tool stopped that one, or made another one of it.
    pub spoilt: bool,
}

/// What runs on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Nothing.
    Nothing,
    /// A namespace.
    Netns,
    /// QEMU with a TAP.
    Qemu,
    /// libvirt with a TAP.
    Libvirt,
    /// A domain of libvirt's that is off.
    Off,
}

/// Everything that a state is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Its networks; `None` is not there.
    pub nets: Vec<Option<Net>>,
    /// The text of its tables.
    pub rules: u8,
    /// The text of its files.
    pub files: u8,
    /// The host forwards.
    pub forwards: bool,
    /// The router has a macvlan outside, with an address and a default route of either family.
    pub outside: bool,
}

/// Shapes that a definition can ask for.
pub(crate) fn wanted() -> impl Strategy<Value = Shape> {
    shape(Just(false).boxed())
}

/// Shapes that can be found.
pub(crate) fn found() -> impl Strategy<Value = Shape> {
    shape(any::<bool>().boxed())
}

fn shape(drift: BoxedStrategy<bool>) -> impl Strategy<Value = Shape> {
    let guest =
        prop_oneof![Just(Runs::Nothing), Just(Runs::Netns), Just(Runs::Qemu), Just(Runs::Libvirt), Just(Runs::Off)];
    let mtu = prop_oneof![Just(1500), Just(9000)];
    let net = (any::<[bool; 6]>(), mtu, guest, drift.clone(), drift.clone(), drift).prop_map(
        |([vlan, routed, route, foreign, more, libvirt], mtu, guest, down, stp, spoilt)| Net {
            libvirt,
            spoilt,
            vlan,
            routed,
            route: route && routed && !down,
            more: more && routed,
            mtu,
            guest,
            down,
            stp,
            foreign: foreign && !vlan,
        },
    );
    (prop::collection::vec(prop::option::weighted(0.8, net), 3), 0..3u8, 0..4u8, any::<[bool; 2]>())
        .prop_map(|(nets, rules, files, [forwards, outside])| Shape { nets, rules, files, forwards, outside })
}

/// The settings that every observation reads, with what they are at first.
pub(crate) fn defaults() -> Vec<(SettingKey, String)> {
    let router = Ns::Named(rule::router_namespace(&lab()));
    let mut all = vec![
        (SettingKey::sysctl(&Ns::Host, "ipv4/conf/eno1/forwarding"), "0".into()),
        (SettingKey::DeviceState { device: name("eno1") }, "down".into()),
        (SettingKey::sysctl(&router, "ipv4/conf/all/forwarding"), "1".into()),
        (SettingKey::sysctl(&router, "ipv6/conf/default/disable_ipv6"), "0".into()),
    ];
    all.extend((0..3).map(|i| (SettingKey::sysctl(&Ns::Host, format!("ipv4/conf/rt-n{i}/forwarding")), "0".into())));
    all
}

/// What the host's own settings were before any lab.
pub(crate) fn found_settings() -> vmnet::plan::Found {
    defaults().into_iter().filter(|(key, _)| is_hosts(key)).collect()
}

fn is_hosts(key: &SettingKey) -> bool {
    match key {
        SettingKey::Sysctl { ns, key } => *ns == Ns::Host && key.contains("eno1"),
        SettingKey::DeviceState { .. } => true,
    }
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn net_name(i: usize) -> NetName {
    format!("n{i}").parse().unwrap()
}

fn link(kind: LinkKind, role: &str, id: &LinkId, net: &Net) -> Link {
    Link {
        kind,
        mac: rule::device_mac(&lab(), role, &id.to_string()),
        mtu: net.mtu,
        group: rule::link_group(&lab()),
        alias: format!("vmnet:campus:{role}:{}", id.name),
        master: None,
        up: true,
        ipv6: false,
        tx_checksum: None,
        odd: vmnet::state::Odd::new(),
    }
}

/// The host state of a shape. `observed`: with every setting that an observation reads.
pub(crate) fn state(shape: &Shape, observed: bool) -> HostState {
    let mut state = HostState::default();
    for (i, net) in shape.nets.iter().enumerate() {
        if let Some(net) = net {
            add_net(&mut state, i, net);
        }
    }
    let router = rule::router_namespace(&lab());
    for (ns, family) in [(Ns::Host, Family::Inet), (Ns::Host, Family::Bridge), (Ns::Named(router), Family::Inet)] {
        if shape.rules > 0 && ns.name().is_none_or(|ns| state.namespaces.contains_key(ns)) {
            let id = TableId { ns, family, name: "vmnet-campus".into() };
            state.tables.insert(id, Table::Body(format!("body {}", shape.rules)));
        }
    }
    let files = [
        "/run/vmnet/campus/hooks/n0/qemu-ifup".into(),
        paths::network_manager_drop_in(&lab()),
        paths::networkd_drop_in(&lab()),
    ];
    for path in files.into_iter().take(shape.files.into()) {
        state.files.insert(path, File::new(0o755, format!("# vmnet:campus:hook:web text {}", shape.files)));
    }
    if shape.outside {
        add_outside(&mut state);
    }
    add_settings(&mut state, shape, observed);
    state
}

fn add_net(state: &mut HostState, i: usize, net: &Net) {
    let host = |text: String| LinkId::host(name(&text));
    let bridge = host(format!("br-n{i}"));
    let master = if net.foreign { "br0".to_owned() } else { bridge.name.to_string() };
    if !net.foreign {
        let settings = BridgeSettings { stp: net.stp, ..BridgeSettings::OURS };
        let made = Link { up: !net.down, ..link(LinkKind::Bridge(settings), "bridge", &bridge, net) };
        state.links.insert(bridge, made);
    }
    if net.vlan {
        let id = host(format!("eno1.{}", i + 1));
        let kind = LinkKind::Vlan { parent: name("eno1"), id: VlanId::try_from(i as i64 + 1).unwrap() };
        let made = Link { master: Some(master.clone()), ..link(kind, "trunk", &id, net) };
        state.links.insert(id, made);
    }
    if net.routed {
        let router = rule::router_namespace(&lab());
        state.namespaces.insert(router.clone(), Namespace { mark: "vmnet:campus:router:campus".into() });
        let (near, far) = (host(format!("rt-n{i}")), LinkId::inside(&router, name(net_name(i).as_str())));
        pair(state, (&near, &far), &master, net);
        if let Some(link) = state.links.get_mut(&far) {
            link.tx_checksum = Some(false);
        }
        state.addresses.insert(Address { link: far.clone(), net: format!("10.0.{i}.1/24").parse().unwrap() });
        if net.more {
            state.addresses.insert(Address { link: far.clone(), net: format!("fd00:{i}::1/64").parse().unwrap() });
        }
        if net.route {
            let (to, via) = (format!("10.{}.0.0/16", i + 1).parse().unwrap(), format!("10.0.{i}.2").parse().ok());
            state.routes.insert(Route { ns: far.ns, to, via, dev: far.name, metric: 0 });
        }
    }
    if net.libvirt {
        let uuid = if net.spoilt && net.more { "another" } else { "own" };
        let network = LibvirtNetwork {
            uuid: format!("{uuid} {i}"),
            network: net_name(i).to_string(),
            bridge: master.clone(),
            active: !net.spoilt,
            autostart: !net.spoilt,
        };
        state.libvirt_networks.insert(format!("campus-n{i}"), network);
    }
    add_guest(state, i, net, &master);
}

/// Only a router that is there has an outside.
fn add_outside(state: &mut HostState) {
    let router = rule::router_namespace(&lab());
    if !state.namespaces.contains_key(&router) {
        return;
    }
    let id = LinkId::inside(&router, name("outside"));
    let net = Net {
        vlan: false,
        routed: true,
        route: false,
        more: false,
        mtu: 1500,
        guest: Runs::Nothing,
        down: false,
        stp: false,
        foreign: false,
        libvirt: false,
        spoilt: false,
    };
    state.links.insert(id.clone(), link(LinkKind::Macvlan { parent: name("eno1") }, "outside", &id, &net));
    for (address, to, via) in [("192.0.2.9/24", "0.0.0.0/0", "192.0.2.1"), ("2001:db8::9/64", "::/0", "2001:db8::1")] {
        state.addresses.insert(Address { link: id.clone(), net: address.parse().unwrap() });
        let (to, via) = (to.parse().unwrap(), via.parse().ok());
        state.routes.insert(Route { ns: id.ns.clone(), to, via, dev: id.name.clone(), metric: 0 });
    }
}

fn add_guest(state: &mut HostState, i: usize, net: &Net, master: &str) {
    let vm: VmName = format!("vm{i}").parse().unwrap();
    let port = LinkId::host(name(&format!("vm{i}-0-ab12")));
    let alias = format!("vmnet:campus:nic:{vm}.0");
    match net.guest {
        Runs::Nothing => {}
        Runs::Netns => {
            let ns = rule::guest_namespace(&lab(), &vm);
            state.namespaces.insert(ns.clone(), Namespace { mark: format!("vmnet:campus:guest:{vm}") });
            let far = LinkId::inside(&ns, name("eth0"));
            pair(state, (&port, &far), master, net);
            if let Some(port) = state.links.get_mut(&port) {
                port.alias = alias;
            }
            state.addresses.insert(Address { link: far, net: format!("10.0.{i}.10/24").parse().unwrap() });
            state.guests.insert(vm, Guest::Netns { ns });
        }
        Runs::Qemu => {
            let tap = Link { master: Some(master.to_owned()), alias, ..link(LinkKind::Tap, "nic", &port, net) };
            state.links.insert(port.clone(), tap.clone());
            let qemu = QemuGuest {
                program: "/usr/bin/qemu-system-x86_64".into(),
                args: vec!["-nodefaults".into()],
                kvm: false,
                files: Vec::new(),
                user: "vmnet-qemu".into(),
                taps: vec![(port.name, tap)],
                vhost: false,
                run_dir: format!("/run/vmnet/campus/guests/{vm}").into(),
                state_dir: format!("/var/lib/vmnet/campus/guests/{vm}").into(),
                disk: None,
                seed: Vec::new(),
                more: Default::default(),
            };
            state.guests.insert(vm, Guest::Qemu(Box::new(qemu)));
        }
        Runs::Libvirt | Runs::Off => {
            let domain = Domain { made: format!("{}", net.mtu), autostart: net.more, xml: "<domain/>".into() };
            state.domains.insert(vm.clone(), domain.clone());
            if net.guest == Runs::Off {
                return;
            }
            let tap = Link { master: Some(master.to_owned()), alias, ..link(LinkKind::Tap, "nic", &port, net) };
            state.links.insert(port.clone(), tap.clone());
            let guest = LibvirtGuest {
                lab: lab(),
                name: rule::domain_name(&lab(), &vm),
                made: domain.made.clone(),
                taps: vec![(port.name, tap)],
                domain: Some(domain),
                files: None,
            };
            state.guests.insert(vm, Guest::Libvirt(Box::new(guest)));
        }
    }
}

fn pair(state: &mut HostState, (near, far): (&LinkId, &LinkId), master: &str, net: &Net) {
    let near_link = link(LinkKind::Veth { peer: Some(far.clone()) }, "port", near, net);
    let far_link = link(LinkKind::Veth { peer: Some(near.clone()) }, "nic", far, net);
    state.links.insert(near.clone(), Link { master: Some(master.to_owned()), ..near_link });
    state.links.insert(far.clone(), far_link);
}

fn add_settings(state: &mut HostState, shape: &Shape, observed: bool) {
    for (key, value) in defaults() {
        let there = match &key {
            SettingKey::Sysctl { ns: Ns::Named(ns), .. } => state.namespaces.contains_key(ns),
            SettingKey::Sysctl { key, .. } if key.contains("/rt-") => {
                let link = key.split('/').nth(2).unwrap();
                state.links.contains_key(&LinkId::host(name(link)))
            }
            SettingKey::Sysctl { .. } | SettingKey::DeviceState { .. } => true,
        };
        let set = match &key {
            SettingKey::Sysctl { ns: Ns::Named(_), key } if key.starts_with("ipv6") => Some("1"),
            SettingKey::Sysctl { ns: Ns::Named(_), .. } => Some("0"),
            SettingKey::Sysctl { .. } => shape.forwards.then_some("1"),
            SettingKey::DeviceState { .. } => {
                state.links.keys().any(|id| id.name.as_str().starts_with("eno1.")).then_some("up")
            }
        };
        match set {
            Some(set) if there => drop(state.settings.insert(key, set.into())),
            None if there && observed => drop(state.settings.insert(key, value)),
            _ => {}
        }
    }
}
