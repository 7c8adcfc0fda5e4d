//! `vmnet shutdown`: the guests of all labs are shut down, side by side, before the host is.
//!
//! To each lab it is as if its guests had been shut down from inside: nothing else of it changes, so that a lab which
//! waits to be confirmed, or whose ledger is damaged, keeps nobody's disk from being closed in order.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde::Serialize;

use super::failure::Failure;
use super::output::{BAD, GOOD, Output, WARN, chain};
use super::privilege;
use super::session::paths;
use crate::engine::libvirt::Doors;
use crate::engine::{self, EngineError, Running, Stopped};
use crate::ledger::{self, ChangeLock, LockError};
use crate::names::{LabName, VmName};
use crate::observe::{self, OnDisk};
use crate::paths::Paths;

/// How long it waits for another command's change; `vmnet-guests.service` allows for this and the guests' time.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Report {
    guests: Vec<GuestReport>,
    /// Labs whose guests are not known.
    errors: Vec<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct GuestReport {
    lab: LabName,
    vm: String,
    /// Whether it shut down when it was asked to; else its QEMU was ended.
    in_order: bool,
    error: Option<String>,
}

pub(super) async fn run(output: &Output) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let paths = paths()?;
    let mut errors = Vec::new();
    let mut running = Vec::new();
    let labs = labs(&paths)?;
    let mut domains = observe::domains_on_disk();
    domains.retain(|domain| domain.runs);
    let _lock = match labs.is_empty() && domains.is_empty() {
        true => None,
        false => turn(&paths, output)?,
    };
    for lab in labs {
        match of_lab(&paths, &lab) {
            Ok(found) => running.extend(found.into_iter().map(|guest| (lab.clone(), guest))),
            Err(failure) => errors.push(format!("lab {lab}: {}", chain(&failure).join(": "))),
        }
    }
    if !running.is_empty() {
        privilege::require_guests()?;
    }
    let doors = Arc::<Doors>::default();
    let by_libvirt = join_all(domains.into_iter().map(async |OnDisk { lab, vm, .. }| {
        let stopped = engine::libvirt::stop(&doors, &lab, &vm, engine::GRACE).await;
        GuestReport::of(lab, &vm, stopped)
    }));
    let by_us = join_all(running.into_iter().map(async |(lab, guest)| {
        let stopped = engine::qemu::stop(&guest.vm, &guest.guest, engine::GRACE).await;
        GuestReport::of(lab, &guest.vm, stopped)
    }));
    let (mut guests, others) = join(by_us, by_libvirt).await;
    guests.extend(others);
    let report = Report { guests, errors, seconds: begun.elapsed().as_secs_f64() };
    output.result(&report, || text(&report))?;
    let failed = !report.errors.is_empty() || report.guests.iter().any(|guest| guest.error.is_some());
    Ok(ExitCode::from(u8::from(failed)))
}

/// The lock; none where another command holds on to it. What would be changed beside it, a guest that is being stopped
/// twice, harms nobody; and whoever shuts the host down ends every guest soon, in order or not.
fn turn(paths: &Paths, output: &Output) -> Result<Option<ChangeLock>, Failure> {
    match ChangeLock::take(paths, "shutdown", LOCK_LIMIT, |_| ()) {
        Ok(lock) => Ok(Some(lock)),
        Err(held @ LockError::Held { .. }) => {
            output.say(format_args!("{WARN}note{WARN:#}: {held}; guests are shut down all the same"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The labs that have something below the run folder, with a ledger or without.
fn labs(paths: &Paths) -> Result<Vec<LabName>, Failure> {
    let failed = |error| Failure::failed(format!("{} can't be read", paths.run.display()), error);
    let entries = match std::fs::read_dir(&paths.run) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut labs = Vec::new();
    for entry in entries {
        labs.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<LabName>().ok()));
    }
    labs.retain(|lab| paths.lab_run(lab).join("guests").is_dir());
    labs.sort();
    Ok(labs)
}

fn of_lab(paths: &Paths, lab: &LabName) -> Result<Vec<Running>, Failure> {
    ledger::check_folders(paths, lab)?;
    Ok(engine::running(paths, lab)?)
}

impl GuestReport {
    fn of(lab: LabName, vm: &VmName, stopped: Result<Stopped, EngineError>) -> Self {
        let in_order = matches!(stopped, Ok(Stopped::PoweredOff | Stopped::WasOff));
        let error = stopped.err().map(|error| chain(&Failure::from(error)).join(": "));
        Self { lab, vm: vm.to_string(), in_order, error }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for GuestReport { lab, vm, in_order, error } in &report.guests {
        text.push_str(&match (error, in_order) {
            (Some(error), _) => format!("{lab}/{vm}: {BAD}not stopped{BAD:#}: {error}\n"),
            (None, true) => format!("{lab}/{vm}: {GOOD}shut down{GOOD:#}\n"),
            (None, false) => format!("{lab}/{vm}: {BAD}did not shut down in time{BAD:#}, its QEMU was ended\n"),
        });
    }
    report.errors.iter().for_each(|error| text.push_str(&format!("{BAD}failed{BAD:#}: {error}\n")));
    if text.is_empty() {
        text.push_str("no guest runs\n");
    }
    text
}
