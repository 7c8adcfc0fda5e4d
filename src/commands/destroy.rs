//! `vmnet destroy`: a plan toward the empty state. Needs no file.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{GOOD, Output};
use super::privilege;
use super::session::Session;
use crate::ledger;
use crate::names::{LabName, VmName};
use crate::paths::Paths;
use crate::state::{Guest, HostState};

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
    if options.purge && folders_of_guests(&session.paths, &lab).iter().any(|folder| folder.exists()) {
        privilege::require_folders()?;
    }
    session.force = options.force;
    let empty = HostState::default();
    let plan = session.plan(&observation, &empty);
    if !plan.is_empty() {
        session.carry_out(None, &observation, &empty, &plan, output, false).await?;
    }
    let kept = if options.purge { Vec::new() } else { disks(&session.paths, &lab) };
    if options.purge {
        purge(&session.paths, &lab)?;
    }
    ledger::remove(&session.paths, &lab)?;
    remove_run_folder(&session.paths, &lab)?;
    let others: Vec<String> = ledger::labs(&session.paths)?.iter().map(ToString::to_string).collect();
    let report = Report { lab: lab.as_str(), changes: plan.len(), seconds: begun.elapsed().as_secs_f64(), kept };
    output.result(&report, || {
        let mut text = match report.changes {
            0 if others.is_empty() => format!("lab {lab}: {GOOD}nothing to remove{GOOD:#}\n"),
            0 => format!("lab {lab}: {GOOD}nothing to remove{GOOD:#} (labs of this host: {})\n", others.join(", ")),
            changes => format!("lab {lab}: {GOOD}removed{GOOD:#}, {changes} changes in {:.2} s\n", report.seconds),
        };
        for disk in &report.kept {
            text.push_str(&format!("kept {} (vmnet destroy --purge {lab} removes it)\n", disk.display()));
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Where disks of a lab's guests are: those that vmnet starts, and those that others start.
fn folders_of_guests(paths: &Paths, lab: &LabName) -> [PathBuf; 2] {
    ["guests", "by-hand"].map(|folder| paths.lab_state(lab).join(folder))
}

fn disks(paths: &Paths, lab: &LabName) -> Vec<PathBuf> {
    let mut disks: Vec<PathBuf> = folders_of_guests(paths, lab)
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
    for folder in folders_of_guests(paths, lab) {
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
