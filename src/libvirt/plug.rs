//! An interface that `vmnet attach` plugs into somebody's domain: which MAC it has, and where it is plugged in. Pure.

use std::collections::BTreeSet;

use super::xml::{self, Nic};
use super::{Domain, Scope};
use crate::names::Mac;

/// What an interface is on, by either of its names.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// libvirt's network.
    pub network: &'a str,
    /// The bridge.
    pub bridge: &'a str,
}

impl Segment<'_> {
    fn has(&self, nic: &Nic) -> bool {
        match &nic.network {
            Some(network) => network == self.network,
            None => nic.bridge.as_deref() == Some(self.bridge),
        }
    }
}

/// An interface of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    /// Its MAC.
    pub mac: Mac,
    /// Whether it is plugged in now, and whether it will be at the next start.
    pub at: Scope,
    /// Its device on the host, while it is plugged in.
    pub tap: Option<String>,
    /// Whether it is on a network of libvirt's, rather than on the bridge by its name.
    pub by_network: bool,
}

/// What can be plugged in: into the domain that runs, into the definition that stays.
pub fn places(domain: &Domain) -> Scope {
    Scope { live: domain.state.has_process(), persistent: domain.persistent }
}

/// The interface of a domain on a segment that has one of these MACs: the first of them that it has.
pub fn find(domain: &Domain, macs: &[Mac], segment: Segment<'_>) -> Option<Plug> {
    let (now, next) = nics(domain);
    macs.iter().find_map(|mac| {
        let is = |nic: &&Nic| segment.has(nic) && mac_of(nic) == Some(*mac);
        let (live, persistent) = (now.iter().find(is), next.iter().find(is));
        let any = live.or(persistent)?;
        Some(Plug {
            mac: *mac,
            at: Scope { live: live.is_some(), persistent: persistent.is_some() },
            tap: live.and_then(|nic| nic.tap.clone()),
            by_network: any.network.is_some(),
        })
    })
}

/// The first of these MACs that nobody has: none of these domains, nor what is in `taken`.
pub fn free(macs: &[Mac], domains: &[Domain], taken: &BTreeSet<Mac>) -> Option<Mac> {
    let of = |domain| {
        let (now, next) = nics(domain);
        now.into_iter().chain(next).filter_map(|nic| mac_of(&nic)).collect::<Vec<_>>()
    };
    let used: BTreeSet<Mac> = domains.iter().flat_map(of).collect();
    macs.iter().find(|mac| !used.contains(mac) && !taken.contains(mac)).copied()
}

/// The interfaces that a domain has while it runs, and those that it is defined with.
fn nics(domain: &Domain) -> (Vec<Nic>, Vec<Nic>) {
    let now = xml::domain(&domain.xml).nics;
    match (domain.state.has_process(), &domain.next) {
        (true, next) => (now, next.as_deref().map(xml::domain).unwrap_or_default().nics),
        (false, _) => (Vec::new(), now),
    }
}

fn mac_of(nic: &Nic) -> Option<Mac> {
    nic.mac.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::DomainState;

    const WEB: Segment<'static> = Segment { network: "campus-web", bridge: "br-web" };

    fn nic(mac: &str, source: &str) -> String {
        format!("<interface><mac address='{mac}'/><source {source}/><target dev='vnet7'/></interface>")
    }

    fn domain(state: DomainState, now: &str, next: Option<&str>) -> Domain {
        let xml = |nics: &str| format!("<domain><devices>{nics}</devices></domain>");
        Domain {
            name: "theirs".into(),
            uuid: String::new(),
            state,
            persistent: true,
            autostart: false,
            xml: xml(now),
            next: next.map(xml),
        }
    }

    fn macs() -> [Mac; 2] {
        ["52:54:00:00:00:01".parse().unwrap(), "52:54:00:00:00:02".parse().unwrap()]
    }

    #[test]
    fn an_interface_is_known_by_mac_and_segment() {
        let on_network = nic("52:54:00:00:00:02", "network='campus-web' bridge='br-other'");
        let off = domain(DomainState::Off, &on_network, None);
        let plug = find(&off, &macs(), WEB).unwrap();
        assert_eq!((plug.mac, plug.at, plug.by_network), (macs()[1], Scope { live: false, persistent: true }, true));
        assert_eq!(plug.tap, None);
        let running = domain(DomainState::Running, &on_network, Some(""));
        let plug = find(&running, &macs(), WEB).unwrap();
        assert_eq!((plug.at, plug.tap.as_deref()), (Scope { live: true, persistent: false }, Some("vnet7")));
        for elsewhere in [
            nic("52:54:00:00:00:03", "network='campus-web'"),
            nic("52:54:00:00:00:01", "network='other' bridge='br-web'"),
            nic("52:54:00:00:00:01", "bridge='br0'"),
        ] {
            assert_eq!(find(&domain(DomainState::Off, &elsewhere, None), &macs(), WEB), None, "{elsewhere}");
        }
        let by_bridge = domain(DomainState::Off, &nic("52:54:00:00:00:01", "bridge='br-web'"), None);
        assert!(!find(&by_bridge, &macs(), WEB).unwrap().by_network);
    }

    #[test]
    fn a_mac_that_somebody_has_is_not_free() {
        let theirs = domain(DomainState::Off, &nic("52:54:00:00:00:01", "network='other'"), None);
        assert_eq!(free(&macs(), std::slice::from_ref(&theirs), &BTreeSet::new()), Some(macs()[1]));
        assert_eq!(free(&macs(), &[theirs], &[macs()[1]].into()), None);
    }
}
