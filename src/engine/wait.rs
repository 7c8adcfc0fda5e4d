//! Waiting until a guest answers on the network, and saying how far it got when it does not.

mod ask;

use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use tokio::time::{Instant, sleep};

use self::ask::Target;
use super::EngineError;
use super::folder::Folder;
use super::libvirt::{self, Doors};
use super::qemu::last_words;
use super::qmp::Qmp;
use super::record::running_in;
use crate::libvirt::DomainState;
use crate::model::{Engine, Model, Vm};
use crate::paths::Paths;
use crate::rule;

/// What a guest passes through on its way, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its QEMU runs and executes it.
    Qemu,
    /// Its interfaces are up on the host's side.
    Carrier,
    /// It answers ARP, or neighbour solicitation, for one of its addresses.
    Arp,
}

impl Stage {
    /// What it means that a guest has not reached it.
    pub fn missing(self) -> &'static str {
        match self {
            Stage::Qemu => "QEMU does not say that it runs (stage QEMU)",
            Stage::Carrier => "an interface of its on this host is not up (stage carrier)",
            Stage::Arp => "QEMU runs and the interfaces are up, but none of its addresses answers (stage ARP)",
        }
    }
}

/// How often a stage is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns when a guest that has been started answers for one of its addresses; without one, when its interfaces are
/// up.
///
/// # Errors
/// [`EngineError::Wait`] with the stage that was not reached within `limit`; at once when its QEMU has ended.
pub async fn until_up(
    model: &Model,
    vm: &Vm,
    paths: &Paths,
    doors: &Arc<Doors>,
    limit: Duration,
) -> Result<(), EngineError> {
    let deadline = Instant::now() + limit;
    let late = |stage| EngineError::Wait { lab: model.lab().clone(), vm: vm.name().clone(), stage, limit };
    match tokio::time::timeout_at(deadline, qemu_runs(model, vm, paths, doors)).await {
        Ok(result) => result?,
        Err(_) => return Err(late(Stage::Qemu)),
    }
    while !has_carrier(vm) {
        if Instant::now() >= deadline {
            return Err(late(Stage::Carrier));
        }
        sleep(PAUSE).await;
    }
    let targets = targets(model, vm);
    while !targets.is_empty() {
        // A guest that panics ends, or hangs; only the first shows here.
        match vm.engine() {
            Engine::Qemu => still_runs(model, vm, paths)?,
            Engine::Libvirt => drop(domain_runs(model, vm, doors).await?),
            Engine::Netns => {}
        }
        if Instant::now() >= deadline {
            return Err(late(Stage::Arp));
        }
        if any_answers(&targets).await {
            break;
        }
    }
    Ok(())
}

async fn qemu_runs(model: &Model, vm: &Vm, paths: &Paths, doors: &Arc<Doors>) -> Result<(), EngineError> {
    loop {
        match vm.engine() {
            Engine::Netns => return Ok(()),
            Engine::Libvirt if domain_runs(model, vm, doors).await? => return Ok(()),
            Engine::Libvirt => {
                sleep(PAUSE).await;
                continue;
            }
            Engine::Qemu => still_runs(model, vm, paths)?,
        }
        if let Some(run) = Folder::open(&paths.guest_run(model.lab(), vm.name()))?
            && let Ok(mut qmp) = Qmp::connect(&run).await
            && let Ok(status) = qmp.execute("query-status").await
            && status["status"] == "running"
        {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

/// Whether the guest's domain runs, not paused; an error when it has ended.
async fn domain_runs(model: &Model, vm: &Vm, doors: &Arc<Doors>) -> Result<bool, EngineError> {
    let (lab, name) = (model.lab(), vm.name());
    match libvirt::state(doors, lab, name).await? {
        Some(DomainState::Running) => Ok(true),
        Some(DomainState::Paused) => Ok(false),
        Some(DomainState::Crashed) => {
            let log = libvirt::last_words(&rule::domain_name(lab, name));
            Err(EngineError::Died { vm: name.clone(), log })
        }
        Some(DomainState::Off) | None => Err(EngineError::not_running(lab, name)),
    }
}

/// An error when the guest's QEMU has ended.
fn still_runs(model: &Model, vm: &Vm, paths: &Paths) -> Result<(), EngineError> {
    let run_dir = paths.guest_run(model.lab(), vm.name());
    if running_in(&run_dir)?.is_some() {
        return Ok(());
    }
    Err(match Folder::open(&run_dir)? {
        Some(run) => EngineError::Died { vm: vm.name().clone(), log: last_words(&run) },
        None => EngineError::not_running(model.lab(), vm.name()),
    })
}

/// Whether every nic's end on the host is up and has a carrier.
fn has_carrier(vm: &Vm) -> bool {
    let Ok(interfaces) = getifaddrs() else { return false };
    let up: Vec<String> = interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING))
        .map(|interface| interface.interface_name)
        .collect();
    vm.nics().iter().all(|nic| up.iter().any(|name| name == nic.tap().as_str()))
}

fn targets(model: &Model, vm: &Vm) -> Vec<Target> {
    let taken = ask::taken(model);
    let of_nic = |(_, nic, network): (usize, &crate::model::Nic, &crate::model::Network)| {
        let bridge = network.bridge().name().to_string();
        let mac = *nic.mac();
        let addresses = nic.addresses().iter();
        addresses.map(|net| Target::new(bridge.clone(), *net, mac, &taken)).collect::<Vec<_>>()
    };
    model.nics(vm).flat_map(of_nic).collect()
}

/// Asks for every address once and says whether the guest answered for one of them. Takes [`PAUSE`] or less.
async fn any_answers(targets: &[Target]) -> bool {
    let deadline = Instant::now() + PAUSE;
    for target in targets {
        // A bridge that is gone does not answer either; the time limit has the last word.
        if let Ok(true) = ask::answers(target, PAUSE).await {
            return true;
        }
    }
    tokio::time::sleep_until(deadline).await;
    false
}
