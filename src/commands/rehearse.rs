//! `vmnet rehearse`: a definition tried out on machines that are namespaces.

mod machines;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::failure::Failure;
use super::hosts::{Fleet, OfHost, Rehearsed, Verified};
use super::lookup::{self, DEFAULT_FILE};
use super::output::{BOLD, Form, Output, count, shown};
use super::signals::Signals;
use super::source::Source;
use super::verify::verdict;
use super::wait_for;
use crate::cli::Rehearse;
use crate::kernel::hold;
use crate::model::{Engine, Vm};
use crate::names::{HostName, LabName};
use crate::stage::{HERE, stage};

use machines::Machines;
pub(super) use machines::{hold, inside};

/// How often a rehearsal looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Report {
    lab: LabName,
    /// What each host said.
    hosts: BTreeMap<String, OfHost>,
    /// Who reaches whom.
    verify: Verified,
    /// Addresses at which the machine outside answers.
    outside: Vec<IpAddr>,
    /// The process that keeps each machine, where they were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<BTreeMap<String, u32>>,
    /// Whether who reaches whom is as it should be.
    passed: bool,
    seconds: f64,
}

/// `vmnet rehearse`
pub(super) fn run(arguments: Rehearse, output: &Output) -> Result<ExitCode, Failure> {
    let Rehearse { file, named, keep, guests, only, junit, enter, end, command } = arguments;
    if let Some(machine) = enter {
        return machines::enter(process_of(file.as_deref(), named.as_ref(), &machine)?, &command);
    }
    if end {
        return end_kept(file.as_deref(), named.as_ref(), output);
    }
    let begun = Instant::now();
    let file = file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let read = if guests { Source::read_whole } else { Source::read_rehearsed };
    let source = read(file, named.as_ref())?;
    let only = parts(&source, only, file)?;
    let junit = junit.map(std::path::absolute).transpose();
    let junit = junit.map_err(|error| Failure::failed("the working directory is gone", error))?;
    let stage = stage(&source.whole, &only);
    if keep && machines::kept()?.iter().any(|(lab, ..)| *lab == stage.lab) {
        let help = format!("end it first: vmnet rehearse --end {}", stage.lab);
        return Err(Failure::advised(format!("a rehearsal of lab {} was kept", stage.lab), help));
    }
    let is_machine = |vm: &Vm| vm.engine().is_machine();
    if let Some(vm) = source.whole.vms().values().find(|vm| guests && *vm.engine() == Engine::Libvirt) {
        let message = format!("vm {} is a guest of libvirt, and the machines of a rehearsal have none", vm.name());
        return Err(Failure::advised(message, "leave out --guests: namespaces stand in for all guests then"));
    }
    if !nix::unistd::geteuid().is_root() && source.whole.vms().values().any(is_machine) {
        let message = "real guests run as a user of their own, and only root can become one: leave out --guests";
        return Err(Failure::lacks(format!("{message}, or run it as root (sudo vmnet …)")));
    }
    download(guests, &source, output)?;
    let signals = Signals::catch();
    hold::leave().map_err(|error| machines::no_machine("of its own", error))?;
    let machines = Machines::start(&stage, &source)?;
    output.say(format_args!("{} as namespaces of this machine", count(stage.hosts.len(), "host")));
    let work = async {
        // What hosts say on the way matters where it takes long, or fails, which is told at the end.
        let quiet = Output::new(Form::Json, false);
        let told = if guests || output.is_verbose() { output } else { &quiet };
        let fleet = Fleet::rehearsed(source, machines.ways(), &stage.answers, told)?;
        tokio::select! {
            done = fleet.rehearse(guests, junit.as_deref()) => done,
            () = came(&signals) => Err(Failure::because("interrupted; everything that was made is gone")),
        }
    };
    let Rehearsed { hosts, verify, text, code } = wait_for(work)?;
    let report = Report {
        lab: stage.lab.clone(),
        hosts,
        verify,
        outside: stage.answers.clone(),
        machines: keep.then(|| machines.processes()),
        passed: code == 0,
        seconds: begun.elapsed().as_secs_f64(),
    };
    if keep {
        machines.keep()?;
    }
    output.result(&report, || text + &report.text())?;
    Ok(ExitCode::from(code))
}

/// The hosts that are meant, all where none is named.
fn parts(source: &Source, only: Vec<HostName>, file: &Path) -> Result<BTreeSet<HostName>, Failure> {
    let hosts = source.whole.hosts();
    // Without hosts it is one by that name, and so all of it.
    let only: BTreeSet<HostName> = only.into_iter().filter(|host| !hosts.is_empty() || host.as_str() != HERE).collect();
    match only.iter().find(|host| !hosts.contains_key(*host)) {
        Some(unknown) => Err(Failure::Usage(format!("there is no host {unknown} in {}", shown(file)))),
        None => Ok(only),
    }
}

/// What real guests boot, before the machines are there: these have no way outside.
fn download(guests: bool, source: &Source, output: &Output) -> Result<(), Failure> {
    let vms: Vec<_> = source.whole.vms().keys().filter(|_| guests).cloned().collect();
    super::image::ready(source, &vms, output)
}

/// Waits for a signal that ends it.
async fn came(signals: &Signals) {
    while !signals.cancel(true).load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
}

impl Report {
    fn text(&self) -> String {
        let Self { lab, hosts, verify, outside, machines, seconds, .. } = self;
        let names = hosts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let verdict = verdict(&verify.report);
        let mut text = format!("{BOLD}lab {lab}{BOLD:#} rehearsed on {names} in {seconds:.1} s: {verdict}\n");
        if machines.is_some() {
            let host = hosts.keys().next().map_or(machines::OUTSIDE, String::as_str);
            let outside = outside.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            text.push_str(&format!(
                "\nIt was kept. The outside answers at {outside}.\n\
                 Look around: {BOLD}vmnet rehearse {lab} --enter {host}{BOLD:#} (or {}, {}; a command stands behind --)\n\
                 End it:      {BOLD}vmnet rehearse {lab} --end{BOLD:#}\n",
                machines::OUTSIDE,
                machines::SWITCHES,
            ));
        }
        text
    }
}

/// The lab that is meant, of those whose rehearsal was kept.
fn lab_of(argument: Option<&Path>, named: Option<&LabName>) -> Result<LabName, Failure> {
    let kept = machines::kept()?;
    let labs: BTreeSet<&LabName> = kept.iter().map(|(lab, ..)| lab).collect();
    let said = match argument {
        _ if named.is_some() => named.cloned(),
        Some(path) if lookup::is_file(&path.to_string_lossy()) => Some(Source::lab_in(path)?),
        Some(name) => Some(name.to_string_lossy().parse().map_err(|error| Failure::Usage(format!("{error}")))?),
        None => None,
    };
    let list = || labs.iter().map(|lab| lab.as_str()).collect::<Vec<_>>().join(", ");
    match (said, labs.len()) {
        (_, 0) => Err(Failure::because("no rehearsal was kept; vmnet rehearse --keep leaves one")),
        (Some(lab), _) if labs.contains(&lab) => Ok(lab),
        (Some(lab), _) => Err(Failure::because(format!("no rehearsal of lab {lab} was kept; there is {}", list()))),
        (None, 1) => Ok(kept[0].0.clone()),
        (None, _) => Err(Failure::Usage(format!("several were kept; say which: {}", list()))),
    }
}

/// The process that keeps a machine.
fn process_of(argument: Option<&Path>, named: Option<&LabName>, machine: &str) -> Result<u32, Failure> {
    let lab = lab_of(argument, named)?;
    let kept = machines::kept()?;
    let of_lab: Vec<_> = kept.iter().filter(|(other, ..)| *other == lab).collect();
    // The switches and the outside come first: a host of such a name is meant before them.
    match of_lab.iter().rfind(|(_, name, _)| name == machine) {
        Some((.., pid)) => Ok(*pid),
        None => {
            let names: Vec<&str> = of_lab.iter().map(|(_, name, _)| name.as_str()).collect();
            Err(Failure::Usage(format!("the rehearsal has no machine {machine:?}; it has {}", names.join(", "))))
        }
    }
}

/// `vmnet rehearse --end`
fn end_kept(argument: Option<&Path>, named: Option<&LabName>, output: &Output) -> Result<ExitCode, Failure> {
    #[derive(Serialize)]
    struct Ended {
        lab: LabName,
        machines: Vec<String>,
    }
    let lab = lab_of(argument, named)?;
    let mut ended = Vec::new();
    for (_, machine, pid) in machines::kept()?.into_iter().filter(|(other, ..)| *other == lab) {
        hold::end(pid).map_err(|error| Failure::failed(format!("{machine} can't be ended"), error))?;
        ended.push(machine);
    }
    let ended = Ended { lab, machines: ended };
    output.result(&ended, || format!("the rehearsal of lab {} is over", ended.lab))?;
    Ok(ExitCode::SUCCESS)
}
