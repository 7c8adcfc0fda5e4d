//! What libvirt has: the domains of the lab's guests, its networks, and those of others.
//!
//! A domain is a guest's where its metadata name lab and guest and say what it was made of, and its UUID is the one
//! that the guest gets: a clone has the metadata, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{Scope, networks};
use crate::engine::libvirt::Doors;
use crate::libvirt::xml::{self, Described};
use crate::libvirt::{self, Answer, Ask};
use crate::mark::Mark;
use crate::names::{IfName, LabName, VmName};
use crate::render::ETHERNET_MTU;
use crate::rule;
use crate::state::{
    Domain, ForeignDomain, ForeignNetwork, ForeignNic, Libvirt, LibvirtGuest, LibvirtNetwork, Link, LinkKind, Odd,
};

/// What libvirt has.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What came of asking.
    pub libvirt: Libvirt,
    /// The lab's guests that run there.
    pub guests: BTreeMap<VmName, LibvirtGuest>,
    /// What is defined for guests of the lab.
    pub domains: BTreeMap<VmName, Domain>,
    /// The domains of others.
    pub foreign: Vec<ForeignDomain>,
    /// The lab's networks by name.
    pub networks: BTreeMap<String, LibvirtNetwork>,
    /// The networks of others.
    pub foreign_networks: Vec<ForeignNetwork>,
}

impl Found {
    /// The TAPs of the guests that run. libvirt makes them, so there is a moment without a mark, and a longer one where
    /// it was libvirt's own idea.
    pub(super) fn taps(&self) -> BTreeSet<&str> {
        self.guests.values().flat_map(|guest| &guest.taps).map(|(name, _)| name.as_str()).collect()
    }
}

/// The daemons that run QEMU's domains: one for everything, or one of several.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// Whether libvirt runs by now. Asking would start it where systemd listens on its socket.
pub fn runs() -> bool {
    let runs = |daemon: &str| {
        let pid = fs::read_to_string(format!("/run/{daemon}.pid")).ok()?;
        let command = fs::read_to_string(format!("/proc/{}/comm", pid.trim().parse::<u32>().ok()?)).ok()?;
        Some(command.trim() == daemon)
    };
    DAEMONS.into_iter().any(|daemon| runs(daemon) == Some(true))
}

/// Asks libvirt, where the scope says so.
pub(super) fn ask(scope: &Scope, doors: &Doors) -> Found {
    if !scope.libvirt {
        return Found::default();
    }
    // Where the first question gets no answer, the second one would only wait for it once more.
    let asked = doors.ask_now(&Ask::Networks).and_then(|networks| Ok((networks, doors.ask_now(&Ask::Domains)?)));
    match asked {
        Ok((Answer::Networks { networks }, Answer::Domains { domains })) => {
            let (networks, foreign_networks) = networks::sort(&scope.lab, networks);
            Found { networks, foreign_networks, ..sort(&scope.lab, &domains) }
        }
        // Each question has its own kind of answer.
        Ok(_) => Found::default(),
        Err(error) => {
            let why = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            let why = why.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            let help = error.help().map(str::to_owned);
            Found { libvirt: Libvirt::Silent { why, help }, ..Found::default() }
        }
    }
}

fn sort(lab: &LabName, domains: &[libvirt::Domain]) -> Found {
    let mut found = Found { libvirt: Libvirt::Answers, ..Found::default() };
    for domain in domains {
        let described = xml::domain(&domain.xml);
        let Some((vm, made)) = guest_of(lab, domain, &described) else {
            let by_hand =
                described.owner.as_ref().is_some_and(|owner| owner.lab == lab.as_str()) && described.made.is_none();
            let (name, uuid) = (domain.name.clone(), domain.uuid.clone());
            found.foreign.push(ForeignDomain { name, uuid, by_hand, nics: nics(domain, described) });
            continue;
        };
        let defined = domain.persistent.then(|| defined(domain, &made));
        if domain.state.has_process() {
            let taps = taps(lab, &vm, &described);
            let name = domain.name.clone();
            let guest = LibvirtGuest { lab: lab.clone(), name, made, taps, domain: defined.clone(), files: None };
            found.guests.insert(vm.clone(), guest);
        }
        found.domains.extend(defined.map(|defined| (vm, defined)));
    }
    found
}

/// The interfaces of a foreign domain, and those that it will have when it starts the next time.
fn nics(domain: &libvirt::Domain, now: Described) -> Vec<ForeignNic> {
    let nic = |live| move |nic: xml::Nic| ForeignNic { live, network: nic.network, bridge: nic.bridge, tap: nic.tap };
    let next = domain.next.as_deref().map(xml::domain).unwrap_or_default();
    let now = now.nics.into_iter().map(nic(domain.state.has_process()));
    now.chain(next.nics.into_iter().map(nic(false))).collect()
}

/// The guest that a domain is, and the digest of what it was made of.
fn guest_of(lab: &LabName, domain: &libvirt::Domain, described: &Described) -> Option<(VmName, String)> {
    let owner = described.owner.as_ref().filter(|owner| owner.lab == lab.as_str())?;
    let vm: VmName = owner.vm.parse().ok()?;
    let made = described.made.clone()?;
    (domain.uuid == rule::guest_uuid(lab, &vm)).then_some((vm, made))
}

/// What is defined: of a domain that runs, what it will be at its next start.
fn defined(domain: &libvirt::Domain, made: &str) -> Domain {
    let xml = domain.next.as_ref().unwrap_or(&domain.xml);
    let made = domain.next.as_ref().and_then(|next| xml::domain(next).made).unwrap_or_else(|| made.to_owned());
    Domain { made, autostart: domain.autostart, xml: xml.clone() }
}

/// The TAPs of a guest's own nics: those that its mark names. What `libvirt_xml` or somebody with virsh plugs in beside
/// them is not vmnet's, whatever its device is called.
fn taps(lab: &LabName, vm: &VmName, described: &Described) -> Vec<(IfName, Link)> {
    let tap = |(index, nic): (usize, &xml::Nic)| {
        let bridge = nic.bridge.clone().filter(|_| nic.network.is_none())?;
        let tap = nic.tap.as_ref()?;
        let number = match &described.taps {
            Some(own) => own.iter().position(|own| own == tap)?,
            // The mark of an older vmnet names none. Its interfaces come first, and all are without a boot ROM.
            None => Some(index).filter(|_| nic.rom_off && !tap.starts_with("vnet"))?,
        };
        let full_name = format!("{vm}.{number}");
        let link = Link {
            kind: LinkKind::Tap,
            mac: rule::port_mac(lab, "nic", &full_name),
            mtu: nic.mtu.unwrap_or(ETHERNET_MTU),
            group: rule::link_group(lab),
            alias: Mark::new(lab, "nic", &full_name).to_string(),
            master: Some(bridge),
            up: true,
            ipv6: false,
            tx_checksum: None,
            odd: Odd::new(),
        };
        Some((tap.parse().ok()?, link))
    };
    described.nics.iter().enumerate().filter_map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::DomainState;
    use crate::libvirt::xml::METADATA_NAMESPACE;

    fn lab() -> LabName {
        "campus".parse().unwrap()
    }

    /// A domain whose metadata name guest vm1 of the lab, and what it was made of where that is said.
    fn domain(name: &str, uuid: &str, made: Option<&str>) -> libvirt::Domain {
        let made = made.map(|made| format!(" made='{made}'")).unwrap_or_default();
        let nic = |tap: &str, more: &str| {
            format!(
                "<interface type='bridge'><source bridge='br-web'/><target dev='{tap}'/><mtu size='1400'/>{more}\
                 </interface>"
            )
        };
        let xml = format!(
            "<domain><name>{name}</name><metadata><vmnet:guest xmlns:vmnet='{METADATA_NAMESPACE}' lab='campus' \
             vm='vm1'{made}/></metadata><devices>{}{}</devices></domain>",
            nic("vm1-0-ab12", "<rom enabled='no'/>"),
            nic("vnet3", "")
        );
        libvirt::Domain {
            name: name.into(),
            uuid: uuid.into(),
            state: DomainState::Off,
            persistent: true,
            autostart: true,
            xml,
            next: None,
        }
    }

    #[test]
    fn a_guest_is_what_says_so_and_has_its_uuid() {
        let (vm, own): (VmName, String) = ("vm1".parse().unwrap(), rule::guest_uuid(&lab(), &"vm1".parse().unwrap()));
        let found = sort(&lab(), &[domain("campus-vm1", &own, Some("abc"))]);
        assert_eq!(found.libvirt, Libvirt::Answers);
        assert!(found.guests.is_empty() && found.foreign.is_empty());
        let is = &found.domains[&vm];
        assert_eq!((is.made.as_str(), is.autostart), ("abc", true));
        // A clone, and what somebody made by hand.
        for (domain, by_hand) in [
            (domain("clone", "00000000-0000-4000-8000-000000000001", Some("abc")), false),
            (domain("campus-vm1", &own, None), true),
        ] {
            let found = sort(&lab(), std::slice::from_ref(&domain));
            assert!(found.domains.is_empty());
            let [foreign] = found.foreign.as_slice() else { panic!("{:?}", found.foreign) };
            assert_eq!((&foreign.name, &foreign.uuid, foreign.by_hand), (&domain.name, &domain.uuid, by_hand));
            let taps: Vec<_> = foreign.nics.iter().map(|nic| (nic.live, nic.tap.as_deref())).collect();
            assert_eq!(taps, [(false, Some("vm1-0-ab12")), (false, Some("vnet3"))]);
        }
        let other = sort(&"other".parse().unwrap(), &[domain("campus-vm1", &own, None)]);
        assert!(!other.foreign[0].by_hand, "it is another lab's");
    }

    #[test]
    fn an_interface_beside_the_guests_own_is_not_the_labs() {
        let own = rule::guest_uuid(&lab(), &"vm1".parse().unwrap());
        let running = |mark: &str| {
            let mut domain = domain("campus-vm1", &own, Some("now"));
            domain.state = DomainState::Running;
            domain.xml = domain.xml.replace("vnet3", "mgmt0").replace("made='now'", &format!("made='now' {mark}"));
            sort(&lab(), &[domain])
        };
        // Marked by the vmnet of before, and by this one.
        for mark in ["", "taps='vm1-0-ab12'", "taps='gone vm1-0-ab12'"] {
            let found = running(mark);
            assert_eq!(found.taps(), BTreeSet::from(["vm1-0-ab12"]), "{mark}");
            // One that was unplugged does not change the numbers of the rest.
            let number = usize::from(mark.contains("gone"));
            assert_eq!(found.guests["vm1"].taps[0].1.alias, format!("vmnet:campus:nic:vm1.{number}"));
        }
        assert_eq!(running("taps='mgmt0'").taps(), BTreeSet::from(["mgmt0"]));
    }

    #[test]
    fn one_that_runs_has_its_ports_and_is_defined_as_it_will_be() {
        let own = rule::guest_uuid(&lab(), &"vm1".parse().unwrap());
        let runs = libvirt::Domain {
            state: DomainState::Paused,
            next: Some(domain("campus-vm1", &own, Some("next")).xml),
            ..domain("campus-vm1", &own, Some("now"))
        };
        let gone_when_off = libvirt::Domain { persistent: false, next: None, ..runs.clone() };
        let found = sort(&lab(), &[runs]);
        let (guest, domain) = (&found.guests["vm1"], &found.domains["vm1"]);
        assert_eq!((guest.made.as_str(), domain.made.as_str()), ("now", "next"));
        // What was plugged in later is not the guest's own.
        assert_eq!(found.taps(), BTreeSet::from(["vm1-0-ab12"]));
        let (_, link) = &guest.taps[0];
        assert_eq!((link.mtu, link.master.as_deref()), (1400, Some("br-web")));
        assert_eq!(link.alias, "vmnet:campus:nic:vm1.0");
        let found = sort(&lab(), &[gone_when_off]);
        assert!(found.domains.is_empty() && found.guests["vm1"].domain.is_none());
    }
}
