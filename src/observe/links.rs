//! Sorts rows into ours and foreign, and names what the kernel numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::Scope;
use super::census::{Census, Rows};
use crate::kernel::dump::{KindData, LinkRow, RouteRow};
use crate::mark::Mark;
use crate::names::{IfName, NsName, VlanId};
use crate::plan::Strangers;
use crate::rule::{ROUTE_PROTOCOL, router_namespace};
use crate::state::{Address, Device, FoundRoute, Link, LinkId, LinkKind, Ns, Route};

/// Links that the kernel makes in every namespace: the loopback device, and the fallback tunnels of modules that are
/// loaded. They belong to the namespace, and can't leave it.
const IN_EVERY_NAMESPACE: [&str; 10] =
    ["lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

/// Links and what hangs on them.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Ours.
    pub links: BTreeMap<LinkId, Link>,
    /// On ours.
    pub addresses: BTreeSet<Address>,
    /// Ours.
    pub routes: BTreeSet<Route>,
    /// The host's other links.
    pub devices: BTreeMap<String, Device>,
    /// The host's other routes.
    pub foreign_routes: Vec<FoundRoute>,
    /// Those of others in our namespaces that stand where one of ours would.
    pub routes_inside: Vec<(NsName, FoundRoute)>,
    /// Routes of others in the router's namespace, in words.
    pub inside: BTreeSet<(NsName, String)>,
    /// Foreign links in our namespaces.
    pub strangers: Strangers,
}

/// Sorts everything. `taps` are those that are the lab's because a guest of its has them, marked or not.
pub(super) fn sort(scope: &Scope, census: &Census, taps: &BTreeSet<&str>) -> Sorted {
    let ours = ours(scope, census, taps);
    let router = router_namespace(&scope.lab);
    let mut sorted = Sorted::default();
    for (ns, rows) in &census.rows {
        for row in rows.links.values() {
            match (ours.get(&(ns, row.index)), ns) {
                (Some(id), _) => drop(sorted.links.insert(id.clone(), link(census, &ours, ns, row))),
                (None, Ns::Host) => drop(sorted.devices.insert(row.name.clone(), device(rows, row))),
                (None, Ns::Named(name)) if !IN_EVERY_NAMESPACE.contains(&row.name.as_str()) => {
                    let strangers = sorted.strangers.entry(name.clone()).or_default();
                    strangers.insert(row.name.clone(), device(rows, row));
                }
                (None, Ns::Named(_)) => {}
            }
        }
        sort_addresses(ns, rows, &ours, &mut sorted);
        sort_routes(scope, (ns, rows), &ours, &mut sorted);
        // What guests do in their own is their business.
        if ns.name() == Some(&router) {
            sorted.inside.extend(rows.routes.iter().filter_map(|row| route_inside(ns, rows, row)));
        }
    }
    // Where ours is there, too, both are: nobody is in the way.
    let there = |(ns, found): &(NsName, FoundRoute)| {
        sorted.routes.iter().any(|route| route.ns.name() == Some(ns) && route.to == found.to)
    };
    sorted.routes_inside.retain(|found| !there(found));
    sorted
}

/// The links of the lab, by namespace and index.
type Ours<'a> = BTreeMap<(&'a Ns, u32), LinkId>;

fn ours<'a>(scope: &Scope, census: &'a Census, taps: &BTreeSet<&str>) -> Ours<'a> {
    let mut ours = BTreeMap::new();
    for (ns, rows) in &census.rows {
        let is_tap = |row: &LinkRow| {
            *ns == Ns::Host && row.data == KindData::Tun { tap: true } && taps.contains(row.name.as_str())
        };
        for row in rows.links.values().filter(|row| is_ours(scope, row) || is_tap(row)) {
            // One that was given a name which can't be ours any more, or no address, can't be said in our words.
            if let (Ok(name), Some(_)) = (row.name.parse::<IfName>(), row.mac) {
                ours.insert((ns, row.index), LinkId { ns: ns.clone(), name });
            }
        }
    }
    ours
}

/// By group and mark; by group alone where vmnet was killed before it could give the mark; a TAP by its mark, since
/// the group comes after it.
pub(super) fn is_ours(scope: &Scope, row: &LinkRow) -> bool {
    let marked = row.alias.as_deref().map(|alias| Mark::is_of(alias, &scope.lab));
    match (row.group == scope.group, marked) {
        (true, mark) => mark.unwrap_or(row.name != "lo"),
        (false, mark) => mark == Some(true) && row.data == KindData::Tun { tap: true },
    }
}

fn link(census: &Census, ours: &Ours<'_>, ns: &Ns, row: &LinkRow) -> Link {
    let rows = &census.rows[ns];
    // Settings are read in the router alone: what guests do in theirs is their business, and the host's own are its
    // administrator's.
    let odd = row.port.iter().chain(&row.conf).map(|(knob, value)| (*knob, *value)).collect();
    Link {
        kind: kind(census, ours, ns, row),
        // `ours` holds none without.
        mac: row.mac.unwrap_or_else(|| unreachable!("a link of ours has an address")),
        mtu: row.mtu,
        group: row.group,
        alias: row.alias.clone().unwrap_or_default(),
        master: row.master.map(|index| name_of(rows, index)),
        up: row.up,
        ipv6: row.ipv6,
        tx_checksum: rows.tx_checksum.get(&row.index).copied(),
        odd,
    }
}

/// What it is. A thing that can't be said in our words (another mode or protocol, a parent elsewhere) is said to be
/// half a veth pair: nothing wanted is that, so a plan makes it anew.
fn kind(census: &Census, ours: &Ours<'_>, ns: &Ns, row: &LinkRow) -> LinkKind {
    const ANOTHER: LinkKind = LinkKind::Veth { peer: None };
    let parent = || match lower(census, ns, row)? {
        (Ns::Host, row) => row.name.parse::<IfName>().ok(),
        (Ns::Named(_), _) => None,
    };
    match (row.kind.as_deref(), row.data) {
        (_, KindData::Bridge(settings)) => LinkKind::Bridge(settings),
        (_, KindData::Vlan { id, dot1q: true }) => match (parent(), VlanId::try_from(i64::from(id))) {
            (Some(parent), Ok(id)) => LinkKind::Vlan { parent, id },
            _ => ANOTHER,
        },
        (_, KindData::Macvlan { bridge: true }) => parent().map_or(ANOTHER, |parent| LinkKind::Macvlan { parent }),
        (_, KindData::Tun { tap: true }) => LinkKind::Tap,
        (Some("veth"), _) => {
            let peer = lower(census, ns, row).and_then(|(ns, row)| ours.get(&(ns, row.index)));
            LinkKind::Veth { peer: peer.cloned() }
        }
        _ => ANOTHER,
    }
}

/// The veth peer or the parent of a link.
fn lower<'a>(census: &'a Census, ns: &'a Ns, row: &LinkRow) -> Option<(&'a Ns, &'a LinkRow)> {
    let index = row.lower?;
    // The two ends of a veth pair name each other; a parent does not name what sits on it.
    let fits = |other: &LinkRow| row.kind.as_deref() != Some("veth") || other.lower == Some(row.index);
    let at = |ns: &'a Ns| Some((ns, census.rows.get(ns)?.links.get(&index).filter(|other| fits(other))?));
    match row.lower_nsid {
        None => at(ns),
        Some(number) => match census.rows[ns].nsids.get(&number) {
            Some(known) => at(census.rows.get_key_value(known)?.0),
            // Between two named namespaces: the one place where the other end can be.
            None => {
                let elsewhere = census.rows.keys().filter(|other| *other != ns && **other != Ns::Host);
                let mut found = elsewhere.filter_map(at).filter(|(_, other)| other.lower_nsid.is_some());
                found.next().filter(|_| found.next().is_none())
            }
        },
    }
}

fn name_of(rows: &Rows, index: u32) -> String {
    // A master that is in no dump has just gone, and its port is on its way out of it.
    rows.links.get(&index).map_or_else(|| format!("#{index}"), |row| row.name.clone())
}

/// A foreign link, without its addresses.
fn device(rows: &Rows, row: &LinkRow) -> Device {
    let lower = row.lower.filter(|_| row.lower_nsid.is_none()).map(|index| name_of(rows, index));
    let vlan = match row.data {
        KindData::Vlan { id, dot1q: true } => {
            VlanId::try_from(i64::from(id)).ok().and_then(|id| Some((lower.clone()?, id)))
        }
        _ => None,
    };
    Device {
        kind: row.kind.clone(),
        altnames: row.altnames.clone(),
        mac: row.mac,
        permanent_mac: row.permanent_mac,
        up: row.up,
        mtu: row.mtu,
        master: row.master.map(|index| name_of(rows, index)),
        addresses: Vec::new(),
        alias: row.alias.clone(),
        group: row.group,
        vlan,
        lower,
        carrier: row.carrier,
    }
}

fn sort_addresses(ns: &Ns, rows: &Rows, ours: &Ours<'_>, sorted: &mut Sorted) {
    for row in &rows.addresses {
        match (ours.get(&(ns, row.index)), ns) {
            (Some(id), _) if !row.automatic => {
                sorted.addresses.insert(Address { link: id.clone(), net: row.net });
            }
            (None, Ns::Host) => {
                let device = rows.links.get(&row.index).and_then(|link| sorted.devices.get_mut(&link.name));
                device.into_iter().for_each(|device| device.addresses.push(row.net));
            }
            _ => {}
        }
    }
}

/// Whether a route has the metric that the kernel gives to ours, which name none. Those that it makes itself, to the
/// subnets of addresses, are in nobody's way.
fn stands_where_ours_would(row: &RouteRow) -> bool {
    // IP6_RT_PRIO_USER of linux/ipv6_route.h
    const METRIC_V6: u32 = 1024;
    let metric = if row.to.addr().is_ipv4() { 0 } else { METRIC_V6 };
    row.metric == metric && row.protocol != libc::RTPROT_KERNEL
}

/// A route in a namespace of ours that neither vmnet nor the kernel made, in words.
fn route_inside(ns: &Ns, rows: &Rows, row: &RouteRow) -> Option<(NsName, String)> {
    // linux/rtnetlink.h
    const RTPROT_RA: u8 = 9;
    let ours = row.protocol == ROUTE_PROTOCOL && row.refuses.is_none();
    let name = ns.name().filter(|_| !ours && ![libc::RTPROT_KERNEL, RTPROT_RA].contains(&row.protocol))?;
    let what = row.refuses.map_or_else(String::new, |word| format!(" {word}"));
    let dev = row.index.filter(|_| row.refuses.is_none()).map(|index| name_of(rows, index));
    let dev = dev.map_or_else(String::new, |dev| format!(" out of {}", dev.escape_debug()));
    Some((name.clone(), format!("route{what} {}{dev}", row.to)))
}

fn sort_routes(scope: &Scope, (ns, rows): (&Ns, &Rows), ours: &Ours<'_>, sorted: &mut Sorted) {
    for row in &rows.routes {
        if row.refuses.is_some() {
            continue;
        }
        let dev = row.index.map(|index| match ours.get(&(ns, index)) {
            Some(id) => Ok(id.name.clone()),
            None => Err(name_of(rows, index)),
        });
        let own = match &dev {
            Some(Ok(name)) => Some(name.clone()),
            // In a namespace of ours a route is ours whatever it leads out of.
            Some(Err(name)) if *ns != Ns::Host => name.parse().ok(),
            // On the host's own devices routes of all labs stand side by side: the metric says whose one is.
            Some(Err(name)) if row.metric == scope.group => name.parse().ok(),
            _ => None,
        };
        let metric = if *ns == Ns::Host && matches!(dev, Some(Err(_))) { row.metric } else { 0 };
        match own.filter(|_| row.protocol == ROUTE_PROTOCOL) {
            Some(dev) => {
                sorted.routes.insert(Route { ns: ns.clone(), to: row.to, via: row.via, dev, metric });
            }
            // What leads out of our own links (the kernel's route to the transit network) goes with them.
            None if *ns == Ns::Host && !matches!(dev, Some(Ok(_))) => {
                let dev = dev.and_then(Result::err);
                sorted.foreign_routes.push(FoundRoute { to: row.to, dev, via: row.via });
            }
            None => {
                let name = ns.name().filter(|_| row.protocol != ROUTE_PROTOCOL && stands_where_ours_would(row));
                let dev = dev.map(|dev| dev.map_or_else(|name| name, |name| name.to_string()));
                sorted
                    .routes_inside
                    .extend(name.map(|name| (name.clone(), FoundRoute { to: row.to, dev, via: row.via })));
            }
        }
    }
}
