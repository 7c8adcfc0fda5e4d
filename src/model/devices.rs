//! The names of interfaces: no two things of a lab may have one, on the host or in the router. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Bridge, External, Model};
use crate::definition::{At, Definition, Problem, Problems};
use crate::names::IfName;

/// What has a name, and where that is said.
struct Claim {
    what: String,
    span: Range<usize>,
    origin: Origin,
}

/// Where a name is from; the first one stands, a later one gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Foreign,
    ByHand,
    ByRule,
}

/// Where an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Host,
    Router,
}

type Claims = Vec<((Place, IfName), Claim)>;

/// Complains about every name that two interfaces of one place would have. Two networks on one foreign bridge are
/// one interface. Sub-interfaces are not here: their names depend on the host's device.
pub(super) fn names_differ(model: &Model, definition: &Definition, problems: &mut Problems) {
    let mut claims = Claims::new();
    bridges(model, definition, &mut claims);
    router_ports(model, definition, &mut claims);
    taps(model, definition, &mut claims);
    claims.sort_by_key(|(_, claim)| (claim.origin, claim.span.start));
    let mut seen: BTreeMap<(Place, IfName), Claim> = BTreeMap::new();
    for (name, claim) in claims {
        let Some(other) = seen.get(&name) else {
            seen.insert(name, claim);
            continue;
        };
        if other.span == claim.span {
            let title = format!("{} would be the name of several nics: what defaults say is every guest's", name.1);
            problems.push(Problem::new(claim.span, title).help("write the tap at the one guest that is to have it"));
            continue;
        }
        let title = format!("{} would be the name of {} and of {}", name.1, other.what, claim.what);
        let help = match (other.origin, claim.origin) {
            (_, Origin::Foreign | Origin::ByHand) => "choose another name here",
            (Origin::Foreign | Origin::ByHand, Origin::ByRule) => "choose another name for the other",
            (Origin::ByRule, Origin::ByRule) => "both names are made by rule: fix one by hand with ifname or tap",
        };
        problems.push(Problem::new(claim.span, title).related(other.span.clone(), "the other").help(help));
    }
}

fn bridges(model: &Model, definition: &Definition, claims: &mut Claims) {
    let mut foreign = std::collections::BTreeSet::new();
    for (name, network) in &model.networks {
        let Some(def) = definition.networks.get(name) else { continue };
        let (what, said, origin) = match &network.bridge {
            Bridge::Foreign { name } if !foreign.insert(name) => continue,
            Bridge::Foreign { .. } => {
                (format!("the foreign bridge of network {name}"), &def.get_ref().bridge, Origin::Foreign)
            }
            Bridge::Own { .. } => (format!("the bridge of network {name}"), &def.get_ref().ifname, Origin::ByHand),
        };
        let origin = if said.is_missing() { Origin::ByRule } else { origin };
        let span = said.as_ref().map_or(def.span(), At::span);
        claims.push(((Place::Host, network.bridge.name().clone()), Claim { what, span, origin }));
    }
}

fn router_ports(model: &Model, definition: &Definition, claims: &mut Claims) {
    let Some(router) = &model.router else { return };
    for (name, port) in &router.ports {
        let Some(def) = definition.networks.get(name) else { continue };
        let what = format!("the router's port in network {name}");
        let claim = |what| Claim { what, span: def.span(), origin: Origin::ByRule };
        claims.push(((Place::Host, port.outer.clone()), claim(what)));
        let what = format!("the gateway of network {name} in the router");
        claims.push(((Place::Router, port.inner.clone()), claim(what)));
    }
    if let External::Host(host) = &router.external {
        let span = definition.router.as_ref().map_or(0..0, At::span);
        let what = "the host's end of the router's way out".to_owned();
        claims.push(((Place::Host, host.outer.clone()), Claim { what, span, origin: Origin::ByRule }));
    }
}

fn taps(model: &Model, definition: &Definition, claims: &mut Claims) {
    for (name, vm) in &model.vms {
        let Some(def) = definition.vms.get(name) else { continue };
        let nics: Vec<_> = def.get_ref().nics.or(&definition.defaults.nics).items().collect();
        for (number, nic) in vm.nics.iter().enumerate() {
            let what = format!("nic {number} of vm {name}");
            let said = nics.get(number).and_then(|nic| nic.get_ref().tap.as_ref());
            let span = said.map_or(def.span(), At::span);
            claims.push((
                (Place::Host, nic.tap.clone()),
                Claim { what, span, origin: if said.is_some() { Origin::ByHand } else { Origin::ByRule } },
            ));
        }
    }
}
