//! `vmnet gc`: removes what is left of labs without a ledger, by the marks alone and in the way of `destroy`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::destroy::{self, Options};
use super::failure::Failure;
use super::list;
use super::output::{BAD, GOOD, Output, WARN, foreign};
use super::session::{Session, paths};
use super::unrecorded;
use crate::ledger;
use crate::names::LabName;
use crate::observe::{Doubt, Marked, Observation};
use crate::paths::Paths;
use crate::state::HostState;

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    labs: Vec<LabReport>,
    /// What looks like vmnet's, is not proven to be, and stays.
    unproven: Vec<Doubt>,
}

#[derive(Default, Serialize)]
struct LabReport {
    lab: String,
    /// What was done, or would be.
    operations: Vec<String>,
    /// How many there are; counted up although nothing of a lab is done that has an error.
    changes: usize,
    /// Disks that stay, or, with `--purge`, go.
    disks: Vec<PathBuf>,
    /// Whether settings of the host that the lab changed stay, since they are not known.
    settings_unknown: bool,
    /// Why nothing was done.
    error: Option<String>,
}

pub(super) async fn run(dry_run: bool, options: Options, output: &Output) -> Result<ExitCode, Failure> {
    let paths = paths()?;
    let (_, marks) = list::everything(&paths)?;
    let mut report = Report { dry_run, labs: Vec::new(), unproven: marks.unproven };
    for (lab, marked) in &marks.labs {
        if is_left(&paths, lab, marked, options)? {
            report.labs.push(one(lab, dry_run, options, output).await);
        }
    }
    output.result(&report, || text(&report, options))?;
    Ok(ExitCode::from(u8::from(report.labs.iter().any(|lab| lab.error.is_some()))))
}

/// Whether a lab has no ledger, and something to remove. A ledger that can't be read is one.
fn is_left(paths: &Paths, lab: &LabName, marked: &Marked, options: Options) -> Result<bool, Failure> {
    let boot_id = ledger::boot_id().map_err(|error| Failure::failed("/proc can't be read", error))?;
    Ok(match list::state(&ledger::read(paths, lab), marked, &boot_id) {
        list::State::Leftovers => true,
        list::State::Disks => options.purge,
        list::State::Applied | list::State::Interrupted | list::State::Stale | list::State::Damaged => false,
    })
}

async fn one(lab: &LabName, dry_run: bool, options: Options, output: &Output) -> LabReport {
    let mut report = LabReport { lab: lab.to_string(), ..LabReport::default() };
    if let Err(failure) = clean(lab, dry_run, options, output, &mut report).await {
        report.error = Some(super::output::in_one(&failure));
    }
    report
}

async fn clean(
    lab: &LabName,
    dry_run: bool,
    options: Options,
    output: &Output,
    report: &mut LabReport,
) -> Result<(), Failure> {
    let mut session = if dry_run { Session::look_at(lab)? } else { Session::change_of(lab, "gc", output)? };
    // Asked under the lock: somebody may have created it meanwhile.
    if session.is_known && !session.ledger.is_of_leftovers() {
        return Err(Failure::because("it was created meanwhile; nothing was changed"));
    }
    let observation = session.look(None)?;
    report.disks = destroy::disks(&session.paths, lab);
    let plan = session.plan(&observation, &HostState::default());
    report.operations = plan.ops().map(ToString::to_string).collect();
    report.changes = plan.len();
    report.settings_unknown = destroy::settings_unknown(&session, &observation);
    destroy::may_go(lab, &observation, options, "gc")?;
    if !options.force {
        unrecorded::refuse(lab, &observation.state, &plan)?;
        is_of_this_run_folder(&session, &observation)?;
        session.refuse_hurt(&observation, &plan)?;
    }
    if !dry_run {
        destroy::remove(&mut session, &observation, options, output).await?;
    }
    Ok(())
}

/// The hooks of a lab's networks are the first that comes and the last that goes. Where there are none, it is a lab that
/// somebody keeps in folders apart, or somebody removed the folder.
fn is_of_this_run_folder(session: &Session, observation: &Observation) -> Result<(), Failure> {
    let folder = session.paths.lab_run(&session.lab);
    if observation.state == HostState::default() || folder.exists() {
        return Ok(());
    }
    Err(Failure::because(format!(
        "lab {} has nothing in {}, so it may belong to another VMNET_STATE_DIR and VMNET_RUN_DIR; nothing was changed; \
         if it does not, say vmnet gc --force",
        session.lab,
        folder.display()
    )))
}

fn text(report: &Report, options: Options) -> String {
    let mut text = String::new();
    let (would, kept) = (if report.dry_run { "would be " } else { "" }, if options.purge { "removed" } else { "kept" });
    for LabReport { lab, operations, changes, disks, settings_unknown, error } in &report.labs {
        match error {
            Some(error) => text.push_str(&format!("lab {lab}: {BAD}nothing removed{BAD:#}: {error}\n")),
            None => text.push_str(&format!("lab {lab}: {GOOD}{would}removed{GOOD:#}, {changes} changes\n")),
        }
        if report.dry_run {
            operations.iter().for_each(|operation| text.push_str(&format!("  - {}\n", foreign(operation))));
        }
        if *settings_unknown && error.is_none() {
            text.push_str(&format!("  {WARN}note{WARN:#}: it has no ledger: {}\n", destroy::SETTINGS_UNKNOWN));
        }
        for disk in disks {
            text.push_str(&format!("  {would}{kept}: {}\n", foreign(&disk.display().to_string())));
        }
    }
    if report.labs.is_empty() {
        text.push_str("no leftovers of labs without a ledger\n");
    }
    text.push_str(&list::text_of_unproven(&report.unproven));
    text
}
