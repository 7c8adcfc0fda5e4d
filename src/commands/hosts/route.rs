//! Which command lines are for several hosts.
//!
//! A definition that names hosts is: all of it, over ssh. A name is a lab of this host, and `--here` its own part. A lab
//! whose part was made here with `--here` is this host's, too, for verbs that take what was applied.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::each::Guests;
use super::enter::enter;
use super::rebuild::Rebuild;
use super::{Fleet, Options};
use crate::cli::{self, Command, GuestName};
use crate::commands::destroy;
use crate::commands::failure::Failure;
use crate::commands::lookup::{self, DEFAULT_FILE};
use crate::commands::output::Output;
use crate::commands::session::paths;
use crate::commands::source::Source;
use crate::commands::wait_for;
use crate::ledger::{self, Ledger};
use crate::names::{HostName, VmName};

/// Carries out a command that is for several hosts; `None`: it is this one's.
pub(in crate::commands) fn run(command: &Command, output: &Output) -> Result<Option<ExitCode>, Failure> {
    match command {
        Command::Console(guest) => return enter_guest(&guest.vm, "console", &[], output),
        Command::Ssh { guest, args } => return enter_guest(&guest.vm, "ssh", args, output),
        Command::Exec { guest, command } => return enter_guest(&guest.vm, "exec", command, output),
        Command::Rebuild { file, hosts, yes, wait, within } => {
            let options = Rebuild { yes: *yes, wait: *wait, within: *within };
            return rebuild(&file.file, hosts, options, output).map(Some);
        }
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
            fleet.create_and_tell(Options { confirm: *confirm, within: *within }).await
        }
        Command::Confirm(_) => fleet.confirm().await,
        Command::Undo(_) => fleet.undo().await,
        Command::Destroy { stop, purge, force, .. } => {
            fleet.destroy(destroy::Options { stop: *stop, purge: *purge, force: *force }).await
        }
        Command::Status(_) => fleet.status().await,
        Command::Ps(_) => fleet.ps().await,
        Command::Verify { junit, outside, .. } => fleet.verify(junit.as_deref(), outside).await,
        Command::Boot { guests, wait } => fleet.boot(&named(guests)?, *wait).await,
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
            let source = if hosts.here.is_some() { None } else { with_hosts(&file.file, hosts)? };
            Some((hosts, source))
        }
        Command::Destroy { lab, .. }
        | Command::Status(lab)
        | Command::Verify { lab, .. }
        | Command::Ps(lab)
        | Command::Confirm(lab)
        | Command::Undo(lab) => Some((&lab.hosts, of_lab(&lab.lab, &lab.hosts)?)),
        Command::Boot { guests, .. } | Command::Stop { guests, .. } | Command::Reset { guests, .. } => {
            Some((&guests.hosts, of_guests(guests)?))
        }
        _ => None,
    })
}

/// A definition that names hosts. One that can't be read is told by whoever needs it.
fn with_hosts(path: &Path, hosts: &cli::Hosts) -> Result<Option<Source>, Failure> {
    if !Source::may_name_hosts(path) {
        return Ok(None);
    }
    match Source::read_whole(path) {
        Ok(source) => Ok(Some(source).filter(|source| !source.whole.hosts().is_empty())),
        Err(failure) if hosts.install || !hosts.only.is_empty() => Err(failure),
        Err(_) => Ok(None),
    }
}

/// The definition of a lab that is named by its file.
fn of_lab(argument: &str, hosts: &cli::Hosts) -> Result<Option<Source>, Failure> {
    let of_this_host = !argument.ends_with(".toml");
    if let Some(here) = &hosts.here {
        is_part(argument, here)?;
        return Ok(None);
    }
    if of_this_host || made_here(Path::new(argument)) {
        return Ok(None);
    }
    with_hosts(Path::new(argument), hosts)
}

/// Refuses `--here h1` where the lab is here as another host's part.
fn is_part(argument: &str, here: &HostName) -> Result<(), Failure> {
    let lab = lookup::lab(argument)?;
    let ledger = ledger::read(&paths()?, &lab)?;
    match ledger.map(|ledger| ledger.origin.here) {
        Some(Some(other)) if other != *here => {
            Err(Failure::Usage(format!("here is the part of host {other} of lab {lab}, not that of {here}")))
        }
        Some(None) => Err(Failure::Usage(format!("lab {lab} is here as a whole: leave out --here"))),
        Some(Some(_)) | None => Ok(()),
    }
}

/// Whether a lab, or a part of one, was made here from this very file.
fn made_here(path: &Path) -> bool {
    let of_file = |path: PathBuf, ledger: &Ledger| ledger.path == path && !ledger.origin.sent;
    let (Ok(path), Ok(paths)) = (std::path::absolute(path), paths()) else { return false };
    // Whoever may not look into the ledgers of this host made none.
    let labs = ledger::labs(&paths).unwrap_or_default();
    labs.iter().any(|lab| ledger::read(&paths, lab).is_ok_and(|found| found.is_some_and(|l| of_file(path.clone(), &l))))
}

/// The definition of guests: that of `--of`, or `./net.toml` where it has all of them.
fn of_guests(guests: &cli::Guests) -> Result<Option<Source>, Failure> {
    let file = guests.of.as_deref().unwrap_or(DEFAULT_FILE);
    let source = of_lab(file, &guests.hosts)?;
    let Some(source) = source.filter(|_| guests.of.is_some() || Path::new(DEFAULT_FILE).exists()) else {
        return Ok(None);
    };
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
    let names: Result<BTreeSet<VmName>, _> =
        guests.vms.iter().map(|name| name.parse::<GuestName>().map(|name| name.vm)).collect();
    names.map(Some).map_err(|error| Failure::Usage(format!("{error}")))
}

/// A guest of `./net.toml` on one of its hosts.
fn enter_guest(name: &str, verb: &str, args: &[String], output: &Output) -> Result<Option<ExitCode>, Failure> {
    let file = Path::new(DEFAULT_FILE);
    if !file.exists() || made_here(file) {
        return Ok(None);
    }
    let Ok(GuestName { lab, vm }) = name.parse() else { return Ok(None) };
    let Some(source) = with_hosts(file, &cli::Hosts::default())? else { return Ok(None) };
    if lab.is_some_and(|lab| lab != *source.whole.lab()) {
        return Ok(None);
    }
    let Some(host) = source.whole.vms().get(&vm).and_then(|vm| vm.host().clone()) else { return Ok(None) };
    wait_for(enter(source, &host, &vm, verb, args, output)).map(Some)
}

fn rebuild(path: &Path, hosts: &cli::Hosts, options: Rebuild, output: &Output) -> Result<ExitCode, Failure> {
    let source = match &hosts.here {
        Some(here) => Source::read(path, Some(here))?,
        None => Source::read_whole(path)?,
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
        let code = fleet.rebuild(options).await;
        fleet.close().await;
        code
    })
}
