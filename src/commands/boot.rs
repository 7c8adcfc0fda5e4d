//! `vmnet boot`: guests that shall run, as a plan like any other.

mod batch;
mod lines;
mod many;
mod report;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::image;
use super::lookup;
use super::output::{Output, WARN, shown};
use super::session::{Session, paths};
use super::source::Source;
use crate::cli;
use crate::desired::capacity::{Capacity, Claim};
use crate::engine;
use crate::ledger;
use crate::model::{Accel, Engine, Model, Vm};
use crate::names::{NetName, VmName};
use crate::observe;
use crate::render::libvirt::{self, GuestError};
use crate::render::qemu::{self, LackError};
use crate::render::{ETHERNET_MTU, GuestView};
use crate::rule;
use crate::state::{Facts, Guest, LibvirtGuest, QemuGuest};
pub(super) use batch::start;
use many::{Opened, Order};
use report::Report;

/// What the command line says beside the guests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// Until they answer.
    pub(super) wait: Option<Duration>,
    /// At most so many start at the same time.
    pub(super) jobs: Option<NonZeroUsize>,
    /// Although there is not enough memory for all.
    pub(super) overcommit: bool,
}

pub(super) async fn run(
    names: &[String],
    of: Option<&str>,
    options: Options,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let wait = options.wait;
    let (lab, before, vms) =
        lookup::guests(names, of).map_err(|failure| time_as_guest(names, wait).unwrap_or(failure))?;
    // Before the lock: others need not wait for a download.
    image::ready(&before, &vms, output)?;
    let mut session = Session::change_of(&lab, "boot", output)?;
    let source = session.applied()?;
    if let Some(vm) = vms.iter().find(|vm| !source.model.vms().contains_key(*vm)) {
        return Err(gone(&source, vm));
    }
    if source.file_changed() {
        output.say(format_args!(
            "{WARN}note{WARN:#}: {} was edited since create; guests start as it was then (vmnet create applies it)",
            shown(&source.path)
        ));
    }
    session.host.scope.guest_devices = true;
    let observation = session.look(Some(&source.model))?;
    let (running, to_start): (Vec<VmName>, Vec<VmName>) =
        vms.iter().cloned().partition(|vm| observation.state.guests.contains_key(vm));
    // Who waits wants them to run, whoever started them.
    let asked_again = !names.is_empty() && wait.is_none() && !running.is_empty();
    if asked_again && to_start.is_empty() {
        let stop = format!("stop it first (vmnet stop {lab}/{}), or wait for it (--wait)", running[0]);
        return Err(Failure::advised(report::run_already(&running), stop));
    }
    let claims = claims(&source.model, to_start.iter());
    let jobs = at_once(&claims, options)?;
    let order = Order { lab: &lab, alone: vms.len() == 1, wait, jobs, begun, doors: Arc::default(), output };
    let opened = Opened { session, source, observation };
    let done = many::start(&order, opened, to_start, &running).await?;
    let report = Report::new(&lab, done, &running, begun.elapsed());
    output.result(&report, || report.text(wait.is_some()))?;
    if asked_again {
        output.say(format_args!("{WARN}note{WARN:#}: {}", report::run_already(&running)));
    }
    Ok(ExitCode::from(u8::from(asked_again || report.has_failed())))
}

/// That the definition as applied has a guest no more.
pub(super) fn gone(source: &Source, vm: &VmName) -> Failure {
    let lab = source.model.lab();
    Failure::because(format!("lab {lab} has no guest {vm} any more; its definition was changed meanwhile"))
}

/// `--wait 5s vm1` names a guest 5s.
fn time_as_guest(names: &[String], wait: Option<Duration>) -> Option<Failure> {
    let time = names.iter().find(|name| wait.is_some() && cli::duration(name).is_ok())?;
    Some(Failure::Usage(format!("{time} is taken for a guest: the time of --wait is written --wait={time}")))
}

/// What those of these guests that are machines ask of the host.
pub(super) fn claims<'v>(model: &Model, vms: impl Iterator<Item = &'v VmName>) -> Vec<Claim> {
    let machines = vms.filter_map(|vm| model.vms().get(vm)).filter(|vm| vm.engine().is_machine());
    let claim = |vm: &Vm| Claim { vm: vm.name().clone(), memory: *vm.memory(), emulated: *vm.accel() == Accel::Tcg };
    machines.map(claim).collect()
}

/// What this host has for guests.
pub(super) fn capacity() -> Result<Capacity, Failure> {
    let paths = paths()?;
    let labs = ledger::labs(&paths)?;
    let domains = observe::domains_on_disk().into_iter().filter(|domain| domain.runs);
    let domains: Vec<_> = domains.map(|domain| (domain.lab, domain.name, domain.memory)).collect();
    engine::capacity(&paths, &labs, &domains).map_err(|error| Failure::failed("the host's memory is not known", error))
}

/// How many guests start at the same time. Refuses where the host can't carry all.
fn at_once(claims: &[Claim], options: Options) -> Result<usize, Failure> {
    if claims.is_empty() {
        return Ok(1);
    }
    let capacity = capacity()?;
    match capacity.carries(claims) {
        Err(shortage) if !options.overcommit => {
            let help = "start fewer of them, write a smaller memory = in the definition, or say vmnet boot \
                        --overcommit if they will not use all of it";
            Err(Failure::lacks(format!("{}; nothing was started; {help}", shortage.told(claims))))
        }
        _ => Ok(options.jobs.map_or_else(|| capacity.at_once(claims), NonZeroUsize::get)),
    }
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
            let mut guest = machine(session, source, facts, mtu, vm)?;
            if let Some(disk) = &mut guest.disk {
                disk.digest = image::content(&session.paths, source, vm, |_, _| {})?;
            }
            Guest::Qemu(Box::new(guest))
        }
        Engine::Libvirt => {
            images_exist(source, vm)?;
            let mut guest = domain(session, source, facts, mtu, vm)?;
            if let Some(disk) = guest.files.as_mut().and_then(|files| files.disk.as_mut()) {
                disk.digest = image::content(&session.paths, source, vm, |_, _| {})?;
            }
            Guest::Libvirt(Box::new(guest))
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
    for file in vm.image().iter().flat_map(|image| image.files()) {
        let path = source.files().find(file);
        if let (false, Some(image)) = (path.is_file(), vm.image()) {
            let (vm, image, path) = (vm.name(), image.name(), path.display());
            let help = format!("put it there, or correct [image.{image}] and run vmnet create");
            return Err(Failure::advised(format!("vm {vm}: image {image}: {path} does not exist or is no file"), help));
        }
    }
    for (file, _) in vm.disk_files() {
        let path = source.files().find(file);
        if !path.exists() {
            let (vm, path) = (vm.name(), path.display());
            let help = format!("put it there, or correct disks of vm {vm} and run vmnet create");
            return Err(Failure::advised(format!("vm {vm}: disks: {path} does not exist"), help));
        }
    }
    Ok(())
}
