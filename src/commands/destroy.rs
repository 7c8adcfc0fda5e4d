//! `vmnet destroy`: a plan toward the empty state. Needs no file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output, foreign};
use super::session::Session;
use crate::ledger;
use crate::names::{LabName, VmName};
use crate::observe::Observation;
use crate::paths::Paths;
use crate::state::{Guest, HostState, LinkKind, Ns};

/// What the command line says beside the lab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) stop: bool,
    pub(super) purge: bool,
    pub(super) force: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    changes: usize,
    seconds: f64,
    /// Guests' disks that were kept.
    kept: Vec<PathBuf>,
}

pub(super) async fn run(argument: &str, options: Options, output: &Output) -> Result<ExitCode, Failure> {
    let begun = std::time::Instant::now();
    let lab = lookup::lab(argument)?;
    let mut session = Session::change_of(&lab, "destroy")?;
    let observation = session.look(None)?;
    let running: Vec<&VmName> = observation
        .state
        .guests
        .iter()
        .filter(|(_, guest)| matches!(guest, Guest::Qemu(_) | Guest::Netns { .. }))
        .map(|(vm, _)| vm)
        .collect();
    if !running.is_empty() && !options.stop {
        let names: Vec<&str> = running.iter().map(|vm| vm.as_str()).collect();
        return Err(Failure::because(format!(
            "guests of lab {lab} run: {}; stop them first, or say vmnet destroy --stop",
            names.join(", ")
        )));
    }
    if !options.force {
        refuse_foreign(&lab, &observation)?;
    }
    let empty = HostState::default();
    let plan = session.plan(&observation.state, &empty);
    if !plan.is_empty() {
        session.carry_out(None, &observation.state, &empty, &plan, output, false).await?;
    }
    let kept = if options.purge { Vec::new() } else { disks(&session.paths, &lab) };
    if options.purge {
        purge(&session.paths, &lab)?;
    }
    ledger::remove(&session.paths, &lab)?;
    remove_run_folder(&session.paths, &lab)?;
    let report = Report { lab: lab.as_str(), changes: plan.len(), seconds: begun.elapsed().as_secs_f64(), kept };
    output.result(&report, || {
        let mut text = match report.changes {
            0 => format!("lab {lab}: {GOOD}nothing to remove{GOOD:#}\n"),
            changes => format!("lab {lab}: {GOOD}removed{GOOD:#}, {changes} changes in {:.2} s\n", report.seconds),
        };
        for disk in &report.kept {
            text.push_str(&format!("kept {} (vmnet destroy --purge {lab} removes it)\n", disk.display()));
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Somebody else's device on our bridge would lose its network; one in our namespace would be gone.
fn refuse_foreign(lab: &LabName, observation: &Observation) -> Result<(), Failure> {
    let bridges: BTreeSet<&str> = observation
        .state
        .links
        .iter()
        .filter(|(id, link)| id.ns == Ns::Host && matches!(link.kind, LinkKind::Bridge(_)))
        .map(|(id, _)| id.name.as_str())
        .collect();
    let plugged: Vec<String> = observation
        .facts
        .devices
        .iter()
        .filter_map(|(name, device)| {
            let bridge = device.master.as_deref().filter(|master| bridges.contains(master))?;
            Some(format!("{} on {bridge}", foreign(name)))
        })
        .collect();
    let inside = observation.strangers.iter().map(|(ns, name)| format!("{} in {ns}", foreign(name)));
    let all: Vec<String> = plugged.into_iter().chain(inside).collect();
    if all.is_empty() {
        return Ok(());
    }
    Err(Failure::because(format!(
        "devices that are not lab {lab}'s are on its bridges or in its namespaces: {}; unplug them, or say vmnet destroy --force",
        all.join(", ")
    )))
}

fn disks(paths: &Paths, lab: &LabName) -> Vec<PathBuf> {
    let folders = ["guests", "by-hand"].map(|folder| paths.lab_state(lab).join(folder));
    let mut disks: Vec<PathBuf> = folders
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_dir(entry.path()).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "qcow2"))
        .collect();
    disks.sort();
    disks
}

fn purge(paths: &Paths, lab: &LabName) -> Result<(), Failure> {
    for folder in ["guests", "by-hand"] {
        let folder = paths.lab_state(lab).join(folder);
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::failed(format!("{} can't be removed", folder.display()), error)),
        }
    }
    Ok(())
}

/// The lab's folder below the run directory: sockets and records of guests that are gone, empty folders of hooks.
fn remove_run_folder(paths: &Paths, lab: &LabName) -> Result<(), Failure> {
    let folder = paths.lab_run(lab);
    match std::fs::remove_dir_all(&folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::failed(format!("{} can't be removed", folder.display()), error)),
    }
}
