//! The places that probes are sent from, and what is sent from each.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::service::{self, Call};
use super::tries::{self, Attempt, Port, Try};
use super::{ProbeError, who_has};
use crate::kernel::stand::{self, Stand};
use crate::kernel::{KernelError, netns};
use crate::model::{Engine, External, HostExternal, Model, RouterPort, Service, Vm};
use crate::names::{NetName, VmName};
use crate::reach::{Endpoint, Expect, Expectation, How, Position, Seen, free_addresses};
use crate::rule;
use crate::state::Ns;

/// How many free addresses are looked at before a subnet counts as full.
const CANDIDATES: usize = 8;

/// An expectation with its number.
pub(super) type Numbered<'a> = (u32, &'a Expectation);

/// A place to send from; guests in the same position share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sender {
    /// The namespace of a guest.
    Inside(VmName),
    /// A port in a guest's position.
    Port(Position),
    /// The router's port in a network.
    Router(NetName),
    /// The host's own namespace.
    Host,
}

impl Sender {
    /// Where to try this from, or why it can't be tried.
    pub(super) fn of(model: &Model, expectation: &Expectation, inside: bool) -> Result<Self, String> {
        match &expectation.from {
            Endpoint::Guest(name) => {
                let vm = &model.vms()[name];
                let network = expectation.network.as_ref().ok_or("the guest has no network")?;
                Ok(match vm.engine() {
                    Engine::Netns if inside => Self::Inside(name.clone()),
                    Engine::Netns | Engine::Qemu | Engine::Libvirt => Self::Port(Position::of(model, vm, network)),
                })
            }
            Endpoint::Host(_) => Ok(Self::Host),
            Endpoint::Outside => Err("nothing of the lab is outside to try it from".into()),
            Endpoint::Gateway(network, _) => Ok(Self::Router(network.clone())),
        }
    }

    /// Tries everything from here.
    pub(super) fn send(&self, model: &Model, run: u64, wanted: &[Numbered<'_>]) -> Result<Vec<Seen>, ProbeError> {
        match self {
            Self::Inside(name) => {
                let vm = &model.vms()[name];
                let ns = Ns::Named(rule::guest_namespace(model.lab(), name));
                flat(name.to_string(), netns::run_in(&ns, || from_guest(vm, run, wanted)))
            }
            Self::Router(network) => match model.router() {
                Some(router) if router.ports().contains_key(network) => {
                    let (ns, port) = (Ns::Named(router.namespace().clone()), &router.ports()[network]);
                    flat(format!("the gateway of {network}"), netns::run_in(&ns, || from_router(port, run, wanted)))
                }
                _ => Ok(vec![Seen::Untested { reason: "this gateway is not ours".into() }; wanted.len()]),
            },
            Self::Host => {
                let host = match model.router().as_ref().map(|router| router.external()) {
                    Some(External::Host(host)) => Some(host),
                    _ => None,
                };
                flat("the host".into(), Ok(from_host(host, run, wanted)))
            }
            Self::Port(position) => from_port(model, position, run, wanted),
        }
    }
}

fn flat<T>(from: String, outcome: Result<io::Result<T>, KernelError>) -> Result<T, ProbeError> {
    match outcome {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(source)) => Err(ProbeError::Sockets { from, source }),
        Err(source) => Err(ProbeError::Place { from, source }),
    }
}

/// What is made of an expectation.
enum Made {
    Attempt(Attempt),
    Call(Call),
}

/// Runs the attempts that could be made out of the expectations, and the calls of services beside them.
fn try_all(run: u64, prepared: Vec<Result<Made, String>>) -> io::Result<Vec<Seen>> {
    let (mut attempts, mut calls) = (Vec::new(), Vec::new());
    for made in prepared.iter().flatten() {
        match made {
            Made::Attempt(attempt) => attempts.push(attempt.clone()),
            Made::Call(call) => calls.push(*call),
        }
    }
    // A thread begins in the namespace of the one that starts it.
    let (outcomes, called) = std::thread::scope(|scope| {
        let calling = (!calls.is_empty()).then(|| scope.spawn(|| service::run(&calls, run)));
        let outcomes = if attempts.is_empty() { Ok(Vec::new()) } else { tries::run(&attempts, run) };
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (outcomes, calling.map_or(Ok(Vec::new()), join))
    });
    let (mut outcomes, mut called) = (outcomes?.into_iter(), called?.into_iter());
    Ok(prepared
        .into_iter()
        .map(|made| match made {
            Ok(Made::Attempt(_)) if outcomes.next() == Some(true) => Seen::Reached,
            Ok(Made::Attempt(_)) => Seen::Silent,
            Ok(Made::Call(_)) => called.next().unwrap_or(Seen::Silent),
            Err(reason) => Seen::Untested { reason },
        })
        .collect())
}

fn gone(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no link {what}"))
}

/// In a guest's own namespace, by its own nics and routes.
fn from_guest(vm: &Vm, run: u64, wanted: &[Numbered<'_>]) -> io::Result<Vec<Seen>> {
    let mut prepared = Vec::new();
    for (number, expectation) in wanted {
        if let Some(call) = call(*number, expectation) {
            prepared.push(Ok(call));
            continue;
        }
        let what = match expectation.how {
            How::L2 => {
                let on = |nic: &&crate::model::Nic| Some(nic.network()) == expectation.network.as_ref();
                let nic = vm.nics().iter().find(on).ok_or_else(|| gone("on that network"))?;
                let port = Port::by_mac(*nic.mac())?.ok_or_else(|| gone(&nic.mac().to_string()))?;
                link_try(port, nic.addresses(), expectation)
            }
            _ => Try::Echo { target: expectation.address },
        };
        prepared.push(Ok(attempt(what, *number, expectation)));
    }
    try_all(run, prepared)
}

fn attempt(what: Try, number: u32, expectation: &Expectation) -> Made {
    Made::Attempt(Attempt { what, wanted: expectation.expect == Expect::Reach, number })
}

/// The call of a service; `None` where it is none.
fn call(number: u32, expectation: &Expectation) -> Option<Made> {
    let service = match expectation.how {
        How::Tcp(port) => Service::Tcp(port),
        How::Udp(port) => Service::Udp(port),
        How::L2 | How::L3 | How::Forced => return None,
    };
    Some(Made::Call(Call { target: expectation.address, service, wanted: expectation.expect == Expect::Reach, number }))
}

/// A question on a link: from an address of ours in the target's subnet, else as an ARP probe, which everybody
/// answers who has the address, whatever their routes say.
fn link_try(port: Port, own: &[IpNet], expectation: &Expectation) -> Try {
    let sender = own.iter().find(|own| own.contains(&expectation.address)).map(|own| own.addr());
    Try::WhoHas { port, sender, target: expectation.address, macs: expectation.macs.clone() }
}

/// In the router's namespace, out of its port in one network.
fn from_router(own: &RouterPort, run: u64, wanted: &[Numbered<'_>]) -> io::Result<Vec<Seen>> {
    let port = Port::by_name(own.inner().as_str())?.ok_or_else(|| gone(own.inner().as_str()))?;
    let ask = |(number, expectation): &Numbered<'_>| {
        Ok(attempt(link_try(port, own.addresses(), expectation), *number, expectation))
    };
    try_all(run, wanted.iter().map(ask).collect())
}

/// In the host's namespace. What its routes would not carry to the router is handed to it.
fn from_host(host: Option<&HostExternal>, run: u64, wanted: &[Numbered<'_>]) -> io::Result<Vec<Seen>> {
    let port = match host {
        Some(host) => Port::by_name(host.outer.as_str())?,
        None => None,
    };
    let prepared = wanted.iter().map(|(number, expectation)| {
        let what = match (expectation.how, expectation.address, host, port) {
            (How::L3, target, ..) => Try::Echo { target },
            (How::Forced, IpAddr::V4(target), Some(host), Some(port)) => {
                Try::Forced { port, next_hop: host.inner_mac, source: host.host_address().addr(), target }
            }
            (How::Forced, ..) => return Err("the port to the router is not there".into()),
            (How::L2, ..) => return Err("the host has no place on the segment".into()),
            (How::Tcp(_) | How::Udp(_), ..) => return call(*number, expectation).ok_or_else(String::new),
        };
        Ok(attempt(what, *number, expectation))
    });
    try_all(run, prepared.collect())
}

/// From a short-lived port in a guest's position.
fn from_port(model: &Model, position: &Position, run: u64, wanted: &[Numbered<'_>]) -> Result<Vec<Seen>, ProbeError> {
    let network = &model.networks()[&position.network];
    let place = (&position.network, network.bridge().name());
    let outcome = stand::on_bridge(model.lab(), place, position.mac(model.lab(), run), |stand| {
        let port = Port::by_name(stand.link())?.ok_or_else(|| gone(stand.link()))?;
        let own = take_place(model, position, stand, port)?;
        let prepared = wanted.iter().map(|wanted| from_position(position, &own, port, wanted));
        try_all(run, prepared.collect())
    });
    outcome.map_err(|source| ProbeError::Place { from: format!("a port of {}", network.bridge().name()), source })
}

fn from_position(
    position: &Position,
    own: &[IpNet],
    port: Port,
    (number, expectation): &Numbered<'_>,
) -> Result<Made, String> {
    let what = match expectation.how {
        How::L2 => link_try(port, own, expectation),
        _ => {
            let family = |net: &&IpNet| net.addr().is_ipv4() == expectation.address.is_ipv4();
            // Where an address of the family is missing, the subnet was full.
            if position.subnets.iter().filter(family).any(|net| !own.iter().any(|own| own.trunc() == *net)) {
                return Err(format!("{} has no free address to try it from", position.network));
            }
            if let Some(call) = call(*number, expectation) {
                return Ok(call);
            }
            Try::Echo { target: expectation.address }
        }
    };
    Ok(attempt(what, *number, expectation))
}

/// Takes a free address of each subnet, and the routes. Free is what no guest has by the model and nobody answers
/// for on the segment, asked as before every new address (RFC 5227, in less time).
fn take_place(model: &Model, position: &Position, stand: &mut Stand, port: Port) -> io::Result<Vec<IpNet>> {
    let network = &model.networks()[&position.network];
    let mut candidates: Vec<IpNet> = Vec::new();
    for subnet in &position.subnets {
        let free = free_addresses(model, network, *subnet).take(CANDIDATES);
        candidates.extend(free.filter_map(|address| IpNet::new(address, subnet.prefix_len()).ok()));
    }
    let asked: Vec<Attempt> = candidates.iter().map(|net| who_has(port, net.addr())).collect();
    let taken = if asked.is_empty() { Vec::new() } else { tries::run_for(&asked, 0, tries::GLANCE)? };
    let mut own: Vec<IpNet> = Vec::new();
    for (net, taken) in candidates.into_iter().zip(taken) {
        if !taken && !own.iter().any(|other| other.trunc() == net.trunc()) {
            stand.add_address(net)?;
            own.push(net);
        }
    }
    for gateway in &position.gateways {
        if own.iter().any(|net| net.contains(gateway)) {
            stand.add_default(*gateway)?;
        }
    }
    for route in &position.routes {
        if own.iter().any(|net| net.contains(&route.via)) {
            stand.add_route(route.to, route.via)?;
        }
    }
    Ok(own)
}
