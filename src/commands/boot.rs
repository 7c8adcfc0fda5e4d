//! `vmnet boot`: guests that shall run, as a plan like any other.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output, WARN, count, shown};
use super::session::Session;
use super::source::Source;
use crate::engine;
use crate::model::{Engine, Vm};
use crate::names::{NetName, VmName};
use crate::observe::Observation;
use crate::render::{ETHERNET_MTU, GuestView, qemu};
use crate::rule;
use crate::state::{Facts, Guest, QemuGuest};

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    started: Vec<&'a VmName>,
    /// They ran already.
    running: Vec<&'a VmName>,
    /// Seconds until each answered on the network, where that was waited for.
    answered: BTreeMap<&'a VmName, f64>,
    seconds: f64,
}

pub(super) async fn run(
    names: &[String],
    of: Option<&str>,
    wait: Option<Duration>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let begun = std::time::Instant::now();
    let (lab, _, vms) = lookup::guests(names, of)?;
    let mut session = Session::change_of(&lab, "boot")?;
    let source = session.applied()?;
    if let Some(vm) = vms.iter().find(|vm| !source.model.vms().contains_key(*vm)) {
        return Err(Failure::because(format!(
            "lab {lab} has no guest {vm} any more; its definition was changed meanwhile"
        )));
    }
    if source.file_changed() {
        output.say(format_args!(
            "{WARN}note{WARN:#}: {} was edited since create; guests start as it was then (vmnet create applies it)",
            shown(&source.path)
        ));
    }
    session.host.scope.guest_devices = true;
    let mut observation = session.look(Some(&source.model))?;
    let running: Vec<&VmName> = vms.iter().filter(|vm| observation.state.guests.contains_key(*vm)).collect();
    if let (Some(vm), false) = (running.first(), names.is_empty()) {
        return Err(Failure::because(format!("vm {vm} runs already; stop it first (vmnet stop {vm})")));
    }
    let to_start: Vec<&VmName> = vms.iter().filter(|vm| !running.contains(vm)).collect();
    let guests = with_new(&mut session, &source, &mut observation, &to_start)?;
    let wanted = session.wanted(&source.model, &mut observation, &guests)?;
    let plan = session.plan(&observation, &wanted.state);
    if !plan.is_empty() {
        session.carry_out(None, &observation, &wanted.state, &plan, output, true).await?;
    }
    drop(session);
    let mut report = Report {
        lab: lab.as_str(),
        started: to_start.clone(),
        running: running.clone(),
        answered: BTreeMap::new(),
        seconds: 0.0,
    };
    if let Some(limit) = wait {
        output.say(format_args!("waiting for {}", count(to_start.len(), "guest")));
        let paths = super::session::paths()?;
        let waits =
            to_start.iter().map(|vm| engine::wait::until_up(&source.model, &source.model.vms()[*vm], &paths, limit));
        let timed = waits.map(async |wait| wait.await.map(|()| begun.elapsed().as_secs_f64()));
        for (vm, answer) in std::iter::zip(&to_start, futures_util::future::join_all(timed).await) {
            let after = answer.map_err(|error| Failure::failed(format!("vm {vm} is not on the network"), error))?;
            report.answered.insert(*vm, after);
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    output.result(&report, || {
        let names: Vec<&str> = to_start.iter().map(|vm| vm.as_str()).collect();
        let ready = if wait.is_some() { " and on the network" } else { "" };
        match names.is_empty() {
            true => "all guests run already\n".to_owned(),
            false => format!("{GOOD}started{GOOD:#}{ready} in {:.1} s: {}\n", report.seconds, names.join(", ")),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The guests that run, and those to be started with everything that their start needs.
fn with_new(
    session: &mut Session,
    source: &Source,
    observation: &mut Observation,
    to_start: &[&VmName],
) -> Result<BTreeMap<VmName, Guest>, Failure> {
    let mut guests = observation.state.guests.clone();
    let mtu = session.wanted(&source.model, observation, &guests)?.mtu;
    for name in to_start {
        let vm = &source.model.vms()[*name];
        guests.insert((*name).clone(), startable(session, source, &observation.facts, &mtu, vm)?);
    }
    Ok(guests)
}

/// A guest with everything that its start needs.
pub(super) fn startable(
    session: &Session,
    source: &Source,
    facts: &Facts,
    mtu: &BTreeMap<NetName, u32>,
    vm: &Vm,
) -> Result<Guest, Failure> {
    Ok(match vm.engine() {
        Engine::Netns => Guest::Netns { ns: rule::guest_namespace(source.model.lab(), vm.name()) },
        Engine::Qemu => {
            images_exist(source, vm)?;
            Guest::Qemu(Box::new(machine(session, source, facts, mtu, vm)?))
        }
    })
}

/// What a guest would be started as now.
pub(super) fn machine(
    session: &Session,
    source: &Source,
    facts: &Facts,
    mtu: &BTreeMap<NetName, u32>,
    vm: &Vm,
) -> Result<QemuGuest, Failure> {
    let keys = super::keys::read(source, vm)?;
    let mtus = mtus(vm, mtu);
    let folder = session.paths.guest_state(source.model.lab(), vm.name());
    let instance = engine::instance(&folder)?;
    let view = GuestView { model: &source.model, vm, folder: source.folder(), keys: &keys, instance, mtus: &mtus };
    qemu::guest(&view, &session.paths, facts).map_err(|error| Failure::lacks(format!("{error}; {}", error.help())))
}

/// The MTU of each nic's segment in bytes, in nic order.
pub(super) fn mtus(vm: &Vm, mtu: &BTreeMap<NetName, u32>) -> Vec<u32> {
    vm.nics().iter().map(|nic| mtu.get(nic.network()).copied().unwrap_or(ETHERNET_MTU)).collect()
}

pub(super) fn images_exist(source: &Source, vm: &Vm) -> Result<(), Failure> {
    let Some(image) = vm.image() else { return Ok(()) };
    for file in [image.file(), image.kernel(), image.initrd()].into_iter().flatten() {
        let path = source.folder().join(file);
        if !path.is_file() {
            return Err(Failure::because(format!(
                "vm {}: image {}: {} does not exist or is no file; put it there, or correct [image.{}]",
                vm.name(),
                image.name(),
                path.display(),
                image.name()
            )));
        }
    }
    Ok(())
}
