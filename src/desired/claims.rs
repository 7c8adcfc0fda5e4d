//! Addresses that the router would take on a segment that reaches a wire: which are new there and so have to be asked
//! for, and what an answer means. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Note, Refusal, uplink_devices};
use crate::mark::Mark;
use crate::model::{External, Model};
use crate::names::{IfName, LabName, Mac, NetName, VlanId};
use crate::state::{Facts, HostState, Link, LinkKind, Ns};

/// An address that the router would take where somebody may have it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The network whose gateway it is; `None`: it is the router's own, outside.
    pub network: Option<NetName>,
    /// The host's device that carries the segment.
    pub device: IfName,
    /// The VLAN of the segment; `None`: its frames have no tag.
    pub vlan: Option<VlanId>,
    /// The MAC that the router would answer with.
    pub mac: Mac,
    lab: LabName,
}

impl Claim {
    /// An address on a segment, whoever has it there.
    fn place(&self) -> (IpAddr, &IfName, Option<VlanId>) {
        (self.address, &self.device, self.vlan)
    }

    /// What it means that these answer for the address.
    fn refusal(&self, mac: Mac) -> Refusal {
        let Self { address, network, device, vlan, mac: own, lab } = self;
        let remedy = match (network, mac == *own) {
            (_, true) => format!(
                "that is this lab's own router, on another host: only one can have it, so remove the lab there first \
                 (vmnet destroy {lab})"
            ),
            (Some(_), false) => {
                "choose another gateway in the definition, or take the address from that machine".into()
            }
            (None, false) => "choose another address in the definition, or take it from that machine".into(),
        };
        Refusal::AddressClaimed {
            address: *address,
            network: network.clone(),
            device: device.to_string(),
            vlan: *vlan,
            mac,
            remedy,
        }
    }
}

/// What is to be asked before a plan is carried out.
#[derive(Debug, Default)]
pub struct Claims {
    /// Whose answers are to be waited for.
    pub ask: Vec<Claim>,
    /// Where nobody can be asked, and why.
    pub notes: Vec<Note>,
    /// Who answers by right: this host, and the lab itself where it has such an address on another segment.
    own: BTreeSet<Mac>,
}

/// The router's addresses that are new on their segments. One that it has there already is nobody else's, so what is
/// as it should be asks for nothing.
pub fn claims(current: &HostState, wanted: &HostState, facts: &Facts) -> Claims {
    let held = of(current);
    let places: BTreeSet<_> = held.iter().map(Claim::place).collect();
    let new: Vec<Claim> = of(wanted).into_iter().filter(|claim| !places.contains(&claim.place())).collect();
    let mut claims = Claims::default();
    let addresses: BTreeSet<IpAddr> = new.iter().map(|claim| claim.address).collect();
    let elsewhere = held.iter().filter(|claim| addresses.contains(&claim.address)).map(|claim| claim.mac);
    // Linux answers for all of its addresses on all of its devices.
    claims.own = facts.devices.values().filter_map(|device| device.mac).chain(elsewhere).collect();
    let mut silent: BTreeMap<IfName, &str> = BTreeMap::new();
    for claim in new {
        match facts.devices.get(claim.device.as_str()) {
            Some(device) if !device.up => drop(silent.insert(claim.device, "it is down")),
            Some(device) if !device.carrier => drop(silent.insert(claim.device, "it has no carrier")),
            _ => claims.ask.push(claim),
        }
    }
    claims.notes = silent.into_iter().map(|(device, why)| unasked(&device, why)).collect();
    claims
}

impl Claims {
    /// What stands in the way, by the MACs that answered for each claim, in their order.
    pub fn refusals(&self, answers: &[BTreeSet<Mac>]) -> Vec<Refusal> {
        let by_others = |(claim, macs): (&Claim, &BTreeSet<Mac>)| {
            let stranger = macs.iter().find(|mac| !self.own.contains(*mac))?;
            Some(claim.refusal(*stranger))
        };
        self.ask.iter().zip(answers).filter_map(by_others).collect()
    }

    /// What stands in the way by what another lab of this host has outside.
    pub fn refusals_for(&self, lab: &LabName, outside: &[(IpAddr, IfName)]) -> Vec<Refusal> {
        let external = self.ask.iter().filter(|claim| claim.network.is_none() && claim.vlan.is_none());
        let taken = external.filter(|claim| {
            outside.iter().any(|(address, device)| (*address, device) == (claim.address, &claim.device))
        });
        let refusal = |claim: &Claim| Refusal::AddressOfLab {
            address: claim.address,
            device: claim.device.clone(),
            lab: lab.clone(),
        };
        taken.map(refusal).collect()
    }
}

/// What another lab of this host has outside by macvlan. Its router is never heard there: what a device itself sends does
/// not reach the macvlans on it, and one in a namespace shows no address to the host.
pub fn outside_of(model: &Model, facts: &Facts) -> Vec<(IpAddr, IfName)> {
    let Some(External::Macvlan(own)) = model.router().as_ref().map(|router| router.external()) else {
        return Vec::new();
    };
    let Some(device) = uplink_devices(model, facts).remove(&own.uplink) else { return Vec::new() };
    own.addresses.iter().map(|net| (net.addr(), device.clone())).collect()
}

/// Says that nobody on a device was asked.
pub fn unasked(device: &IfName, why: &str) -> Note {
    let text = format!("nobody there was asked whether the router's new addresses are taken: {why}");
    Note { about: device.to_string(), text }
}

/// Every address of the router on a segment that reaches a wire.
fn of(state: &HostState) -> Vec<Claim> {
    let wire = |(id, link): (&'_ crate::state::LinkId, &'_ Link)| match (&id.ns, &link.kind, &link.master) {
        (Ns::Host, LinkKind::Vlan { parent, id }, Some(bridge)) => Some((bridge.clone(), (parent.clone(), *id))),
        _ => None,
    };
    let wires: BTreeMap<String, (IfName, VlanId)> = state.links.iter().filter_map(wire).collect();
    let segment = |link: &Link| match &link.kind {
        LinkKind::Macvlan { parent } => Some((parent.clone(), None)),
        LinkKind::Vlan { parent, id } => Some((parent.clone(), Some(*id))),
        LinkKind::Veth { peer } => {
            let outer = state.links.get(peer.as_ref()?)?;
            let (device, vlan) = wires.get(outer.master.as_ref()?)?;
            Some((device.clone(), Some(*vlan)))
        }
        LinkKind::Bridge(_) | LinkKind::Tap => None,
    };
    let claim = |address: &crate::state::Address| {
        let link = state.links.get(&address.link)?;
        let mark = link.alias.parse::<Mark>().ok()?;
        let network = match mark.role.as_str() {
            "gateway" => Some(mark.name.parse().ok()?),
            "outside" => None,
            _ => return None,
        };
        let (device, vlan) = segment(link)?;
        Some(Claim { address: address.net.addr(), network, device, vlan, mac: link.mac, lab: mark.lab })
    };
    state.addresses.iter().filter_map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Address, BridgeSettings, Device, LinkId};

    const GATEWAY: &str = "02:00:00:00:00:01";
    const STRANGER: &str = "02:00:00:00:00:99";

    fn mac(text: &str) -> Mac {
        text.parse().unwrap()
    }

    fn add(state: &mut HostState, id: LinkId, kind: LinkKind, mark: &str, master: Option<&str>) {
        let link = Link {
            kind,
            mac: mac(GATEWAY),
            mtu: 1500,
            group: 0,
            alias: format!("vmnet:campus:{mark}"),
            master: master.map(str::to_owned),
            up: true,
            ipv6: false,
            tx_checksum: None,
            odd: crate::state::Odd::new(),
        };
        state.links.insert(id, link);
    }

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    /// A network with this gateway, on a VLAN of eno1 or on no wire.
    fn network(state: &mut HostState, network: &str, vlan: Option<i64>, gateway: &str) {
        let bridge = format!("br-{network}");
        add(
            state,
            LinkId::host(name(&bridge)),
            LinkKind::Bridge(BridgeSettings::OURS),
            &format!("bridge:{network}"),
            None,
        );
        if let Some(vlan) = vlan {
            let kind = LinkKind::Vlan { parent: name("eno1"), id: VlanId::try_from(vlan).unwrap() };
            let id = LinkId::host(name(&format!("eno1.{vlan}")));
            add(state, id, kind, &format!("uplink:{network}"), Some(&bridge));
        }
        let outer = LinkId::host(name(&format!("rt-{network}")));
        let inner = LinkId::inside(&"vmnet-campus".parse().unwrap(), name(network));
        let kind = |peer: &LinkId| LinkKind::Veth { peer: Some(peer.clone()) };
        add(state, outer.clone(), kind(&inner), &format!("router-port:{network}"), Some(&bridge));
        add(state, inner.clone(), kind(&outer), &format!("gateway:{network}"), None);
        state.addresses.insert(Address { link: inner, net: gateway.parse().unwrap() });
    }

    fn outside(state: &mut HostState, kind: LinkKind, address: &str) {
        let id = LinkId::inside(&"vmnet-campus".parse().unwrap(), name("outside"));
        add(state, id.clone(), kind, "outside:router", None);
        state.addresses.insert(Address { link: id, net: address.parse().unwrap() });
    }

    fn facts() -> Facts {
        let device = Device { up: true, carrier: true, mac: Some(mac("00:11:22:33:44:01")), ..Device::default() };
        Facts { devices: [("eno1".to_owned(), device)].into(), ..Facts::default() }
    }

    fn asked(current: &HostState, wanted: &HostState) -> Vec<String> {
        let text = |claim: &Claim| match claim.vlan {
            Some(vlan) => format!("{} on {}.{vlan}", claim.address, claim.device),
            None => format!("{} on {}", claim.address, claim.device),
        };
        claims(current, wanted, &facts()).ask.iter().map(text).collect()
    }

    #[test]
    fn what_reaches_a_wire_is_asked_for_once() {
        let mut wanted = HostState::default();
        network(&mut wanted, "web", Some(10), "10.1.0.1/24");
        network(&mut wanted, "db", None, "10.2.0.1/24");
        outside(&mut wanted, LinkKind::Macvlan { parent: name("eno1") }, "192.0.2.9/24");
        assert_eq!(asked(&HostState::default(), &wanted), ["192.0.2.9 on eno1", "10.1.0.1 on eno1.10"]);
        assert!(asked(&wanted, &wanted).is_empty(), "what is there is not asked for");
        assert!(asked(&wanted, &HostState::default()).is_empty(), "nor what goes");
    }

    #[test]
    fn through_an_external_vlan_and_through_the_host() {
        let mut wanted = HostState::default();
        let kind = LinkKind::Vlan { parent: name("eno1"), id: VlanId::try_from(100).unwrap() };
        outside(&mut wanted, kind, "2001:db8::9/64");
        assert_eq!(asked(&HostState::default(), &wanted), ["2001:db8::9 on eno1.100"]);
        let mut wanted = HostState::default();
        let peer = LinkId::host(name("rt-host"));
        outside(&mut wanted, LinkKind::Veth { peer: Some(peer.clone()) }, "100.64.0.2/30");
        add(&mut wanted, peer, LinkKind::Veth { peer: None }, "transit:host", None);
        assert!(asked(&HostState::default(), &wanted).is_empty());
    }

    #[test]
    fn another_segment_is_another_claim_and_another_name_is_none() {
        let state = |named: &str, vlan: Option<i64>| {
            let mut state = HostState::default();
            network(&mut state, named, vlan, "10.1.0.1/24");
            state
        };
        let old = state("web", Some(10));
        assert_eq!(asked(&old, &state("web", Some(20))), ["10.1.0.1 on eno1.20"]);
        assert_eq!(asked(&state("web", None), &old), ["10.1.0.1 on eno1.10"], "a wire that comes later");
        assert!(asked(&old, &state("www", Some(10))).is_empty());
        // Both VLANs may be one segment by somebody's patch cable: then it is the lab itself that answers.
        let moved = claims(&old, &state("web", Some(20)), &facts());
        assert_eq!(moved.refusals(&[[mac(GATEWAY)].into()]), []);
    }

    #[test]
    fn who_answers_decides() {
        let mut wanted = HostState::default();
        network(&mut wanted, "web", Some(10), "10.1.0.1/24");
        let claims = claims(&HostState::default(), &wanted, &facts());
        let said = |macs: &[&str]| {
            let answers = macs.iter().map(|text| mac(text)).collect();
            let refusals = claims.refusals(&[answers]);
            refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(said(&[]), "");
        assert_eq!(said(&["00:11:22:33:44:01"]), "", "the host itself");
        assert_eq!(
            said(&["00:11:22:33:44:01", STRANGER]),
            "network web: gateway 10.1.0.1 is taken: 02:00:00:00:00:99 answers for it on VLAN 10 of eno1; choose \
             another gateway in the definition, or take the address from that machine"
        );
        let other_host = said(&[GATEWAY]);
        assert!(other_host.contains("this lab's own router, on another host"), "{other_host}");
        assert!(other_host.contains("vmnet destroy campus"), "{other_host}");
    }

    #[test]
    fn nobody_hears_a_question_on_a_device_without_carrier() {
        let mut wanted = HostState::default();
        network(&mut wanted, "web", Some(10), "10.1.0.1/24");
        for (up, carrier, why) in [(false, false, "it is down"), (true, false, "it has no carrier")] {
            let mut facts = facts();
            let device = facts.devices.get_mut("eno1").unwrap();
            (device.up, device.carrier) = (up, carrier);
            let claims = claims(&HostState::default(), &wanted, &facts);
            assert!(claims.ask.is_empty());
            assert_eq!(claims.notes, [unasked(&name("eno1"), why)]);
        }
    }
}
