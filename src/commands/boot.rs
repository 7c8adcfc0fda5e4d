//! `vmnet boot`: guests that shall run, as a plan like any other.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output, WARN, count, shown};
use super::session::Session;
use super::signals::Signals;
use super::source::Source;
use crate::cli;
use crate::engine;
use crate::engine::libvirt::Doors;
use crate::model::{Engine, Vm};
use crate::names::{NetName, VmName};
use crate::observe::Observation;
use crate::render::libvirt::{self, GuestError};
use crate::render::qemu::{self, LackError};
use crate::render::{ETHERNET_MTU, GuestView};
use crate::rule;
use crate::state::{Facts, Guest, LibvirtGuest, QemuGuest};

/// How often a wait looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    started: Vec<&'a VmName>,
    /// They ran already.
    running: Vec<&'a VmName>,
    /// Operations on the network that had to come first, since it was not as applied.
    repaired: usize,
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
    let begun = Instant::now();
    let (lab, _, vms) = lookup::guests(names, of).map_err(|failure| time_as_guest(names, wait).unwrap_or(failure))?;
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
    let (running, to_start): (Vec<_>, Vec<_>) = vms.iter().partition(|vm| observation.state.guests.contains_key(*vm));
    // Who waits wants them to run, whoever started them.
    let asked_again = !names.is_empty() && wait.is_none() && !running.is_empty();
    if asked_again && to_start.is_empty() {
        let stop = format!("stop it first (vmnet stop {}), or wait for it (--wait)", running[0]);
        return Err(Failure::advised(run_already(&running), stop));
    }
    let (guests, repaired) = with_new(&mut session, &source, &mut observation, &to_start)?;
    let (wanted, plan) = session.planned(&source.model, &mut observation, &guests)?;
    if !plan.is_empty() {
        session.carry_out(None, &observation, &wanted.state, &plan, output, true).await?;
    }
    drop(session);
    let mut report = Report {
        lab: lab.as_str(),
        started: to_start.clone(),
        running: running.clone(),
        repaired,
        answered: BTreeMap::new(),
        seconds: 0.0,
    };
    if let Some(limit) = wait {
        report.answered = answers(&source, &vms, limit, begun, output).await?;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    output.result(&report, || text(&report, wait.is_some()))?;
    if asked_again {
        output.say(format_args!("{WARN}note{WARN:#}: {}", run_already(&running)));
    }
    Ok(ExitCode::from(u8::from(asked_again)))
}

fn text(report: &Report<'_>, waited: bool) -> String {
    let mut text = match report.repaired {
        0 => String::new(),
        repaired => format!("repaired the network first ({})\n", count(repaired, "change")),
    };
    let ready = if waited { " and on the network" } else { "" };
    text += &match (report.started.is_empty(), waited) {
        (false, _) => format!("{GOOD}started{GOOD:#}{ready} in {:.1} s: {}\n", report.seconds, list(&report.started)),
        (true, true) if !report.running.is_empty() => {
            format!("{GOOD}on the network{GOOD:#} after {:.1} s: {}\n", report.seconds, list(&report.running))
        }
        (true, _) => "all guests run already\n".to_owned(),
    };
    text
}

fn list(vms: &[&VmName]) -> String {
    vms.iter().map(|vm| vm.as_str()).collect::<Vec<_>>().join(", ")
}

fn run_already(running: &[&VmName]) -> String {
    match running {
        [only] => format!("vm {only} runs already"),
        several => format!("{} run already", list(several)),
    }
}

/// `--wait 5s vm1` names a guest 5s.
fn time_as_guest(names: &[String], wait: Option<Duration>) -> Option<Failure> {
    let time = names.iter().find(|name| wait.is_some() && cli::duration(name).is_ok())?;
    Some(Failure::Usage(format!("{time} is taken for a guest: the time of --wait is written --wait={time}")))
}

/// Waits until all of these guests answer, and says how many seconds after `begun` each did.
async fn answers<'v>(
    source: &Source,
    vms: &'v [VmName],
    limit: Duration,
    begun: Instant,
    output: &Output,
) -> Result<BTreeMap<&'v VmName, f64>, Failure> {
    output.say(format_args!("waiting for {}", count(vms.len(), "guest")));
    let paths = super::session::paths()?;
    let (model, doors) = (&source.model, Arc::<Doors>::default());
    let waits = vms.iter().map(|vm| engine::wait::until_up(model, &model.vms()[vm], &paths, &doors, limit));
    let timed = waits.map(async |wait| wait.await.map(|()| begun.elapsed().as_secs_f64()));
    let signals = Signals::catch();
    let came = async {
        while !signals.cancel(true).load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let answered = tokio::select! {
        answered = futures_util::future::join_all(timed) => answered,
        () = came => {
            let names: Vec<&VmName> = vms.iter().collect();
            let runs = if names.len() == 1 { "runs" } else { "run" };
            return Err(Failure::because(format!("not waited to the end; {} {runs}", list(&names))));
        }
    };
    let mut all = BTreeMap::new();
    for (vm, answer) in std::iter::zip(vms, answered) {
        let after = answer.map_err(|error| Failure::failed(format!("vm {vm} is not on the network"), error))?;
        all.insert(vm, after);
    }
    Ok(all)
}

/// The guests that run, and those to be started with everything that their start needs. And how much of the network is
/// not as it should be.
fn with_new(
    session: &mut Session,
    source: &Source,
    observation: &mut Observation,
    to_start: &[&VmName],
) -> Result<(BTreeMap<VmName, Guest>, usize), Failure> {
    let mut guests = observation.state.guests.clone();
    let before = session.wanted(&source.model, observation, &guests)?;
    let repaired = session.plan(observation, &before.state).len();
    for name in to_start {
        let vm = &source.model.vms()[*name];
        guests.insert((*name).clone(), startable(session, source, &observation.facts, &before.mtu, vm)?);
    }
    Ok((guests, repaired))
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
        Engine::Libvirt => {
            images_exist(source, vm)?;
            Guest::Libvirt(Box::new(domain(session, source, facts, mtu, vm)?))
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
    let guest = viewed(session, source, mtu, vm, |view| qemu::guest(view, &session.paths, facts))?;
    guest.map_err(lack)
}

/// What libvirt would start a guest as now.
pub(super) fn domain(
    session: &Session,
    source: &Source,
    facts: &Facts,
    mtu: &BTreeMap<NetName, u32>,
    vm: &Vm,
) -> Result<LibvirtGuest, Failure> {
    let guest = viewed(session, source, mtu, vm, |view| libvirt::guest(view, &session.paths, facts))?;
    guest.map_err(|error| match error {
        GuestError::Lack(error) => lack(error),
        GuestError::Domain(error) => Failure::failed(format!("vm {} can't be a domain", vm.name()), error),
    })
}

fn lack(error: LackError) -> Failure {
    Failure::lacks(format!("{error}; {}", error.help()))
}

/// A guest of vmnet's own, with its keys and the number of its disk.
pub(super) fn viewed<T>(
    session: &Session,
    source: &Source,
    mtu: &BTreeMap<NetName, u32>,
    vm: &Vm,
    show: impl FnOnce(&GuestView<'_>) -> T,
) -> Result<T, Failure> {
    let given = super::keys::read(source, vm)?;
    let mtus = mtus(vm, mtu);
    let instance = engine::instance(&session.paths.guest_state(source.model.lab(), vm.name()))?;
    Ok(show(&GuestView { model: &source.model, vm, files: source.files(), given: &given, instance, mtus: &mtus }))
}

/// The MTU of each nic's segment in bytes, in nic order.
pub(super) fn mtus(vm: &Vm, mtu: &BTreeMap<NetName, u32>) -> Vec<u32> {
    vm.nics().iter().map(|nic| mtu.get(nic.network()).copied().unwrap_or(ETHERNET_MTU)).collect()
}

pub(super) fn images_exist(source: &Source, vm: &Vm) -> Result<(), Failure> {
    let Some(image) = vm.image() else { return Ok(()) };
    for file in [image.file(), image.kernel(), image.initrd()].into_iter().flatten() {
        let path = source.files().find(file);
        if !path.is_file() {
            let (vm, image, path) = (vm.name(), image.name(), path.display());
            let help = format!("put it there, or correct [image.{image}] and run vmnet create");
            return Err(Failure::advised(format!("vm {vm}: image {image}: {path} does not exist or is no file"), help));
        }
    }
    Ok(())
}
