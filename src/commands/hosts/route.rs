//! Which command lines are for several hosts.
//!
//! A definition that names hosts is: all of it, over ssh. A name is a lab of this host, and `--here` its own part. A lab
//! whose part was made here with `--here` is this host's, too, for verbs that take what was applied.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use super::each::Guests;
use super::enter::enter;
use super::rebuild::Rebuild;
use super::with::With;
use super::{Fleet, Options};
use crate::cli::{self, Command, GuestName, Image};
use crate::commands::boot;
use crate::commands::destroy;
use crate::commands::failure::Failure;
use crate::commands::logs;
use crate::commands::lookup::{self, DEFAULT_FILE};
use crate::commands::output::Output;
use crate::commands::session::paths;
use crate::commands::source::Source;
use crate::commands::wait_for;
use crate::ledger::{self, Ledger};
use crate::names::{HostName, LabName};

/// Carries out a command that is for several hosts; `None`: it is this one's.
pub(in crate::commands) fn run(command: &Command, output: &Output) -> Result<Option<ExitCode>, Failure> {
    match command {
        Command::Console(guest) => return enter_guest(&guest.vm, ("console", &[]), &[], output),
        Command::Logs { guest, follow, lines, previous, raw } => {
            let options = logs::Options { follow: *follow, lines: *lines, previous: *previous, raw: *raw };
            return enter_guest(&guest.vm, ("logs", &options.words(output)), &[], output);
        }
        Command::Ssh { guest, args } => return enter_guest(&guest.vm, ("ssh", &[]), args, output),
        Command::Exec { guest, command } => return enter_guest(&guest.vm, ("exec", &[]), command, output),
        Command::Rebuild { file, hosts, yes, wait, within } => {
            let options = Rebuild { yes: *yes, wait: *wait, within: *within };
            return whole(file, hosts, output, async |fleet| fleet.rebuild(options).await).map(Some);
        }
        Command::With(with) => return run_with(with, output).map(Some),
        _ => {}
    }
    let Some((hosts, asked)) = asked(command)? else { return Ok(None) };
    let Some(source) = asked else {
        if !hosts.only.is_empty() || hosts.install {
            return Err(Failure::Usage("--only and --install are for a definition's file that names hosts".to_owned()));
        }
        return Ok(None);
    };
    wait_for(async {
        let fleet = Fleet::connect(source, &hosts.only, hosts.install, output).await?;
        let code = on_fleet(&fleet, command).await;
        fleet.close().await;
        code
    })
    .map(Some)
}

async fn on_fleet(fleet: &Fleet, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Plan { check, .. } => fleet.plan(*check).await,
        Command::Create { confirm, within, .. } => {
            fleet.create_and_tell(Options { confirm: *confirm, within: *within, ..Options::default() }).await
        }
        Command::Confirm(_) => fleet.confirm().await,
        Command::Undo(_) => fleet.undo().await,
        Command::Destroy { stop, purge, force, .. } => {
            fleet.destroy(destroy::Options { stop: *stop, purge: *purge, force: *force }).await
        }
        Command::Status(_) => fleet.status().await,
        Command::Ps(_) => fleet.ps().await,
        Command::Verify { junit, outside, .. } => fleet.verify(junit.as_deref(), outside).await,
        Command::Image(Image::Pull { names, .. }) => fleet.pull(names).await,
        Command::Boot { guests, wait, jobs, overcommit } => {
            fleet.boot(&named(guests)?, boot::Options { wait: *wait, jobs: *jobs, overcommit: *overcommit }).await
        }
        Command::Stop { guests, force } => fleet.stop(&named(guests)?, *force).await,
        Command::Reset { guests, stop } => fleet.reset(&named(guests)?, *stop).await,
        _ => Err(Failure::because("this is no verb for several hosts")),
    }
}

/// What a command line says of hosts, and the definition where it is for several.
type Asked<'c> = Option<(&'c cli::Hosts, Option<Source>)>;

fn asked(command: &Command) -> Result<Asked<'_>, Failure> {
    Ok(match command {
        Command::Plan { file, hosts, .. } | Command::Create { file, hosts, .. } => {
            let source = if hosts.here.is_some() { None } else { with_hosts(&file.file, file.named.as_ref(), hosts)? };
            Some((hosts, source))
        }
        Command::Image(Image::Pull { lab, .. }) if lab.hosts.here.is_none() && lookup::is_file(&lab.lab) => {
            Some((&lab.hosts, with_hosts(Path::new(&lab.lab), lab.named.as_ref(), &lab.hosts)?))
        }
        Command::Destroy { lab, .. }
        | Command::Status(lab)
        | Command::Verify { lab, .. }
        | Command::Ps(lab)
        | Command::Confirm(lab)
        | Command::Undo(lab) => Some((&lab.hosts, of_lab(&lab.lab, lab.named.as_ref(), &lab.hosts)?)),
        Command::Boot { guests, .. } | Command::Stop { guests, .. } | Command::Reset { guests, .. } => {
            Some((&guests.hosts, of_guests(guests)?))
        }
        _ => None,
    })
}

/// A definition that names hosts. One that can't be read is told by whoever needs it.
fn with_hosts(path: &Path, named: Option<&LabName>, hosts: &cli::Hosts) -> Result<Option<Source>, Failure> {
    if !Source::may_name_hosts(path) {
        return Ok(None);
    }
    match Source::read_whole(path, named) {
        Ok(source) => Ok(Some(source).filter(|source| !source.whole.hosts().is_empty())),
        Err(failure) if hosts.install || !hosts.only.is_empty() => Err(failure),
        Err(_) => Ok(None),
    }
}

/// The definition of a lab that is named by its file.
fn of_lab(argument: &str, named: Option<&LabName>, hosts: &cli::Hosts) -> Result<Option<Source>, Failure> {
    if let Some(here) = &hosts.here {
        is_part(argument, named, here)?;
        return Ok(None);
    }
    if !lookup::is_file(argument) || made_here(Path::new(argument), named) {
        return Ok(None);
    }
    with_hosts(Path::new(argument), named, hosts)
}

/// Refuses `--here h1` where the lab is here as another host's part.
fn is_part(argument: &str, named: Option<&LabName>, here: &HostName) -> Result<(), Failure> {
    let lab = named.map_or_else(|| lookup::lab(argument), |named| Ok(named.clone()))?;
    let ledger = ledger::read(&paths()?, &lab)?;
    match ledger.map(|ledger| ledger.origin.here) {
        Some(Some(other)) if other != *here => {
            Err(Failure::Usage(format!("here is the part of host {other} of lab {lab}, not that of {here}")))
        }
        Some(None) => Err(Failure::Usage(format!("lab {lab} is here as a whole: leave out --here"))),
        Some(Some(_)) | None => Ok(()),
    }
}

/// Whether a lab, or a part of one, was made here from this very file; where a name is said, the one of that name.
fn made_here(path: &Path, named: Option<&LabName>) -> bool {
    let (Ok(path), Ok(paths)) = (std::path::absolute(path), paths()) else { return false };
    let is_meant = |ledger: &Ledger| match named {
        Some(named) => *named == ledger.lab,
        None => ledger.origin.alias.is_none(),
    };
    let of_file = |ledger: &Ledger| ledger.path == path && !ledger.origin.sent && is_meant(ledger);
    // Whoever may not look into the ledgers of this host made none.
    let labs = ledger::labs(&paths).unwrap_or_default();
    labs.iter().any(|lab| ledger::read(&paths, lab).is_ok_and(|found| found.as_ref().is_some_and(of_file)))
}

/// The definition of guests: that of `--of`, or `./net.toml` where it has all of them.
fn of_guests(guests: &cli::Guests) -> Result<Option<Source>, Failure> {
    let file = guests.of.as_deref().unwrap_or(DEFAULT_FILE);
    // `other/vm1` is in the lab of that name, under which the file may run, too; but where a file is said, it says which.
    let mut labs: BTreeSet<LabName> = names(guests)?.into_iter().filter_map(|name| name.lab).collect();
    let said = if guests.of.is_some() { std::mem::take(&mut labs) } else { BTreeSet::new() };
    labs.extend(guests.named.clone());
    let lab = labs.pop_first();
    // Of several labs: told by whoever looks for guests here.
    if !labs.is_empty() {
        return Ok(None);
    }
    let source = of_lab(file, lab.as_ref(), &guests.hosts)?;
    let is_elsewhere = |source: &Source| source.origin.alias.as_ref().is_none_or(|alias| !is_of_this_host(alias));
    let is_meant = guests.of.is_some() || Path::new(DEFAULT_FILE).exists();
    let Some(source) = source.filter(|source| is_meant && (guests.named.is_some() || is_elsewhere(source))) else {
        return Ok(None);
    };
    if let Some(other) = said.iter().find(|lab| *lab != source.whole.lab()) {
        let own = source.whole.lab();
        return Err(Failure::Usage(format!(
            "{file} is lab {own}, and a guest of lab {other} is named: say one of them"
        )));
    }
    let named = named(guests)?;
    let unknown = named.iter().flatten().find(|vm| !source.whole.vms().contains_key(*vm));
    match (unknown, &guests.of) {
        (None, _) => Ok(Some(source)),
        // It may be a guest of a lab of this host.
        (Some(_), None) => Ok(None),
        (Some(vm), Some(of)) => Err(Failure::because(format!("{of} has no guest {vm}"))),
    }
}

/// The guests that a command line names.
fn named(guests: &cli::Guests) -> Result<Guests, Failure> {
    if guests.all {
        return Ok(None);
    }
    Ok(Some(names(guests)?.into_iter().map(|name| name.vm).collect()))
}

fn names(guests: &cli::Guests) -> Result<Vec<GuestName>, Failure> {
    let names: Result<_, _> = guests.vms.iter().map(|name| name.parse::<GuestName>()).collect();
    names.map_err(|error| Failure::Usage(format!("{error}")))
}

/// A guest of `./net.toml` on one of its hosts.
fn enter_guest(
    name: &str,
    verb: (&str, &[String]),
    args: &[String],
    output: &Output,
) -> Result<Option<ExitCode>, Failure> {
    let file = Path::new(DEFAULT_FILE);
    let Ok(GuestName { lab, vm }) = name.parse() else { return Ok(None) };
    if !file.exists() || made_here(file, lab.as_ref()) {
        return Ok(None);
    }
    // One that was not made here is the file's, under its own name or another.
    let Some(source) = with_hosts(file, lab.as_ref(), &cli::Hosts::default())? else { return Ok(None) };
    if source.origin.alias.as_ref().is_some_and(is_of_this_host) {
        return Ok(None);
    }
    let Some(host) = source.whole.vms().get(&vm).and_then(|vm| vm.host().clone()) else { return Ok(None) };
    wait_for(enter(source, &host, &vm, verb, args, output)).map(Some)
}

/// Whether a lab of this name was made here, and not as a part that another machine sent.
fn is_of_this_host(lab: &LabName) -> bool {
    let read = paths().ok().and_then(|paths| ledger::read(&paths, lab).ok().flatten());
    read.is_some_and(|ledger| !ledger.origin.sent)
}

fn run_with(with: &cli::With, output: &Output) -> Result<ExitCode, Failure> {
    let program = with.command.first().map_or("", String::as_str);
    // A word that is none is told before anything is made.
    if let Some(code) = crate::commands::with::missing(program, output) {
        return Ok(code);
    }
    let options = With { wait: with.wait, keep_on_failure: with.keep_on_failure, command: &with.command };
    whole(&with.file, &with.hosts, output, async |fleet| fleet.with(options).await)
}

/// Does something step by step on all hosts of a definition, this machine alone among them.
fn whole(
    file: &cli::File,
    hosts: &cli::Hosts,
    output: &Output,
    work: impl AsyncFnOnce(&Fleet) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let named = file.named.as_ref();
    let source = match &hosts.here {
        Some(here) => Source::read(&file.file, named, Some(here))?,
        None => Source::read_whole(&file.file, named)?,
    };
    let is_one = hosts.here.is_some() || source.whole.hosts().is_empty();
    if is_one && (!hosts.only.is_empty() || hosts.install) {
        return Err(Failure::Usage("--only and --install are for a definition that names hosts".to_owned()));
    }
    wait_for(async {
        let fleet = match is_one {
            true => Fleet::this(source, output)?,
            false => Fleet::connect(source, &hosts.only, hosts.install, output).await?,
        };
        let code = work(&fleet).await;
        fleet.close().await;
        code
    })
}
