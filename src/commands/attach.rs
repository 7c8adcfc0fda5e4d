//! `vmnet attach` and `vmnet detach`: an interface on a network of a lab for a domain of libvirt's that is nobody's
//! guest.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output, chain, foreign};
use super::session::Session;
use crate::engine::libvirt::{DoorError, Doors};
use crate::kinds::NicModel;
use crate::libvirt::plug::{self, Plug, Segment};
use crate::libvirt::{Answer, Ask, Domain, Scope, xml};
use crate::model::{Bridge, Model, Network};
use crate::names::{LabName, Mac};
use crate::observe::Observation;
use crate::render::ETHERNET_MTU;
use crate::render::network::{Socket, interface};
use crate::rule;
use crate::state::{LinkId, Ns};

/// How many MACs there are to choose from, where others have the first ones.
const MACS: u32 = 8;

/// How long a guest has to let go of a device that is unplugged.
const LET_GO: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a LabName,
    network: String,
    /// The domain.
    domain: &'a str,
    uuid: &'a str,
    /// Of the interface; `null`: there is none.
    mac: Option<Mac>,
    /// The device on the host, while the domain runs.
    tap: Option<String>,
    /// Whether the domain that runs was changed.
    live: bool,
    /// Whether the definition of the domain was changed.
    persistent: bool,
}

/// A domain, and the network that it is about.
struct Subject {
    session: Session,
    model: Model,
    observation: Observation,
    network: Network,
    doors: Doors,
    domains: Vec<Domain>,
    index: usize,
}

impl Subject {
    fn open(domain: &str, network: &str, verb: &str, output: &Output) -> Result<Self, Failure> {
        let (lab, network) = lookup::network(network)?;
        let mut session = Session::change_of(&lab, verb, output)?;
        let source = session.applied()?;
        let Some(network) = source.model.networks().get(&network).cloned() else {
            return Err(Failure::because(format!("lab {lab} has no network {network} any more")));
        };
        let model = (*source.model).clone();
        session.host.scope.libvirt = true;
        let observation = session.look(Some(&model))?;
        let doors = Doors::default();
        let domains = all(&doors)?;
        let found = domains.iter().position(|found| found.name == domain || found.uuid == domain);
        let Some(index) = found else {
            return Err(Failure::advised(
                format!("libvirt has no domain {}", foreign(domain)),
                "name one of virsh list --all, or its UUID",
            ));
        };
        let subject = Self { session, model, observation, network, doors, domains, index };
        if let Some(owner) = xml::domain(&subject.domain().xml).owner {
            let (vm, lab, network) = (foreign(&owner.vm), foreign(&owner.lab), subject.network.name());
            return Err(Failure::advised(
                format!("domain {} is guest {vm} of lab {lab}; nothing was changed", subject.name()),
                format!("change nic of vm {vm} in the definition (network {network}), and run vmnet create"),
            ));
        }
        Ok(subject)
    }

    fn domain(&self) -> &Domain {
        &self.domains[self.index]
    }

    /// Its name, escaped.
    fn name(&self) -> String {
        foreign(&self.domain().name)
    }

    fn lab(&self) -> &LabName {
        self.model.lab()
    }

    /// The MACs that it may have there, the first one first.
    fn macs(&self) -> Vec<Mac> {
        let mac = |attempt| rule::attached_mac(self.lab(), self.network.name(), &self.domain().uuid, attempt);
        (0..MACS).map(mac).collect()
    }

    fn network_name(&self) -> String {
        rule::libvirt_network_name(self.lab(), self.network.name())
    }

    fn find(&self, domain: &Domain) -> Option<Plug> {
        let (network, bridge) = (self.network_name(), self.network.bridge().name());
        plug::find(domain, &self.macs(), Segment { network: &network, bridge: bridge.as_str() })
    }

    /// The domain as it is by now; `None` where it is gone.
    fn now(&self) -> Result<Option<Domain>, Failure> {
        let uuid = &self.domain().uuid;
        Ok(all(&self.doors)?.into_iter().find(|domain| domain.uuid == *uuid))
    }

    fn socket(&self, by_network: bool) -> Socket {
        match by_network {
            true => Socket::Network(self.network_name()),
            false => Socket::Bridge(self.network.bridge().name().to_string()),
        }
    }

    /// What there is to plug it into, as it was applied.
    fn is_there(&self) -> Result<bool, Failure> {
        let Observation { state, facts, .. } = &self.observation;
        let bridge = self.network.bridge().name();
        let there = match self.network.bridge() {
            Bridge::Own { .. } => state.links.contains_key(&LinkId { ns: Ns::Host, name: bridge.clone() }),
            Bridge::Foreign { .. } => facts.devices.contains_key(bridge.as_str()),
        };
        let own = state.libvirt_networks.get(&self.network_name());
        let by_network = self.model.has_libvirt_networks();
        if there && (!by_network || own.is_some_and(|own| own.active && own.bridge == bridge.as_str())) {
            return Ok(by_network);
        }
        let (lab, network) = (self.lab(), self.network.name());
        let help = format!("run vmnet create (vmnet status {lab} shows what differs)");
        Err(Failure::advised(format!("network {network} of lab {lab} is not as applied; nothing was changed"), help))
    }

    fn report(&self, mac: Option<Mac>, tap: Option<String>, done: Scope) -> Report<'_> {
        let Domain { name, uuid, .. } = self.domain();
        let (live, persistent) = (done.live, done.persistent);
        Report {
            lab: self.lab(),
            network: self.network.name().to_string(),
            domain: name,
            uuid,
            mac,
            tap,
            live,
            persistent,
        }
    }
}

/// `vmnet attach`
pub(super) fn attach(domain: &str, network: &str, model: NicModel, output: &Output) -> Result<ExitCode, Failure> {
    let mut subject = Subject::open(domain, network, "attach", output)?;
    let by_network = subject.is_there()?;
    let found = subject.find(subject.domain());
    let places = plug::places(subject.domain());
    let is = found.as_ref().map_or(Scope { live: false, persistent: false }, |plug| plug.at);
    let missing = Scope { live: places.live && !is.live, persistent: places.persistent && !is.persistent };
    let mac = match &found {
        Some(plug) => plug.mac,
        None => free_mac(&subject)?,
    };
    if missing.live || missing.persistent {
        let guests = subject.observation.state.guests.clone();
        // Whatever stands in the way of a change elsewhere does not matter here.
        let (wanted, _) = subject.session.sketch(&subject.model, &mut subject.observation, &guests)?;
        let mtu = wanted.mtu.get(subject.network.name()).copied().unwrap_or(ETHERNET_MTU);
        let socket = subject.socket(found.as_ref().map_or(by_network, |plug| plug.by_network));
        let xml = written(interface(mac, &socket, Some((model, mtu))))?;
        let ask = Ask::Attach { uuid: subject.domain().uuid.clone(), xml, scope: missing };
        subject.doors.ask_now(&ask).map_err(|error| refused(&format!("attach to {}", subject.name()), error))?;
    }
    let tap = subject.now()?.and_then(|domain| subject.find(&domain)?.tap);
    let report = subject.report(Some(mac), tap, missing);
    output.result(&report, || {
        let (name, lab, network) = (subject.name(), subject.lab(), subject.network.name());
        let tap = report.tap.as_ref().map_or_else(String::new, |tap| format!(", by {}", foreign(tap)));
        match (missing.live, missing.persistent) {
            (false, false) => format!("{name} is on {lab}/{network} already, with MAC {mac}{tap}\n"),
            (live, persistent) => {
                let when = when(live, persistent);
                format!("{name} is {GOOD}attached{GOOD:#} to {lab}/{network} {when}, with MAC {mac}{tap}\n")
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `vmnet detach`
pub(super) fn detach(domain: &str, network: &str, output: &Output) -> Result<ExitCode, Failure> {
    let subject = Subject::open(domain, network, "detach", output)?;
    let found = subject.find(subject.domain());
    if let Some(plug) = &found {
        let xml = written(interface(plug.mac, &subject.socket(plug.by_network), None))?;
        let ask = Ask::Detach { uuid: subject.domain().uuid.clone(), xml, scope: plug.at };
        subject.doors.ask_now(&ask).map_err(|error| refused(&format!("detach from {}", subject.name()), error))?;
        let deadline = Instant::now() + LET_GO;
        while plug.at.live && subject.now()?.is_some_and(|now| subject.find(&now).is_some_and(|plug| plug.at.live)) {
            if Instant::now() >= deadline {
                return Err(kept(&subject, plug));
            }
            std::thread::sleep(LOOK);
        }
    }
    let done = found.as_ref().map_or(Scope { live: false, persistent: false }, |plug| plug.at);
    let report = subject.report(found.as_ref().map(|plug| plug.mac), None, done);
    output.result(&report, || {
        let (name, lab, network) = (subject.name(), subject.lab(), subject.network.name());
        match &found {
            None => format!("{name} has no interface on {lab}/{network} that vmnet attached\n"),
            Some(Plug { mac, .. }) => {
                let when = when(done.live, done.persistent);
                format!("{name} is {GOOD}detached{GOOD:#} from {lab}/{network} {when}: MAC {mac} is gone\n")
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn when(live: bool, persistent: bool) -> &'static str {
    match (live, persistent) {
        (true, true) => "now and at its next starts",
        (true, false) => "now",
        _ => "at its next starts",
    }
}

/// It was told to, and still has it: whether and when is the guest's to say.
fn kept(subject: &Subject, plug: &Plug) -> Failure {
    let (name, mac, seconds) = (subject.name(), plug.mac, LET_GO.as_secs());
    Failure::advised(
        format!(
            "the guest in {name} was told to let go of the interface with MAC {mac}, and has not done so within \
             {seconds} s; at its next start it has it no more"
        ),
        "run vmnet detach again when it has booted (it takes a system that answers to hot-unplug), or restart the domain",
    )
}

fn free_mac(subject: &Subject) -> Result<Mac, Failure> {
    let nics = subject.model.vms().values().flat_map(|vm| vm.nics());
    let taken: BTreeSet<Mac> = nics.map(|nic| *nic.mac()).collect();
    plug::free(&subject.macs(), &subject.domains, &taken).ok_or_else(|| {
        let mac = subject.macs()[0];
        Failure::because(format!(
            "MAC {mac} and those after it are used by other domains or guests already; nothing was changed: attach {} by \
             hand (virsh attach-interface) with another MAC",
            subject.name()
        ))
    })
}

fn all(doors: &Doors) -> Result<Vec<Domain>, Failure> {
    match doors.ask_now(&Ask::Domains).map_err(|error| refused("list domains", error))? {
        Answer::Domains { domains } => Ok(domains),
        _ => Ok(Vec::new()),
    }
}

fn written(xml: Result<String, quick_xml::SeError>) -> Result<String, Failure> {
    xml.map_err(|error| Failure::failed("the interface can't be written as XML", error))
}

fn refused(action: &str, error: DoorError) -> Failure {
    let help = error.help();
    let (is_lack, why) = (error.is_lack(), chain(&Failure::failed(format!("cannot {action}"), error)).join(": "));
    match help {
        Some(help) if is_lack => Failure::lacks(format!("{why}; {help}")),
        Some(help) => Failure::advised(why, help),
        None => Failure::because(why),
    }
}
