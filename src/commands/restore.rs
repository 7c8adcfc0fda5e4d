//! `vmnet restore`: labs as they were applied, after a reboot, and their guests with `autostart`.

use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use super::boot;
use super::failure::Failure;
use super::lookup;
use super::output::{BAD, GOOD, Output, in_words};
use super::session::{RESTORE, Session, paths};
use super::source::Source;
use super::standing::unconfirmed;
use crate::ledger::change::Standing;
use crate::ledger::{self, Progress};
use crate::model::{Engine, Vm};
use crate::names::{LabName, VmName};

#[derive(Serialize)]
struct Report {
    labs: Vec<LabReport>,
    seconds: f64,
}

#[derive(Default, Serialize)]
struct LabReport {
    lab: String,
    /// Whether it is there now.
    restored: bool,
    /// Operations on its network.
    changes: usize,
    started: Vec<VmName>,
    errors: Vec<String>,
}

pub(super) async fn run(arguments: &[String], output: &Output) -> Result<ExitCode, Failure> {
    let begun = Instant::now();
    let labs = match arguments {
        [] => ledger::labs(&paths()?)?,
        arguments => arguments.iter().map(|argument| lookup::lab(argument)).collect::<Result<_, _>>()?,
    };
    let mut reports = Vec::new();
    for lab in labs {
        let mut report = LabReport { lab: lab.to_string(), ..LabReport::default() };
        let cancelled = match restore(&lab, &mut report, output).await {
            Ok(()) => false,
            Err(failure) => {
                report.errors.push(in_words(&failure) + &advice(&failure));
                failure.is_cancelled()
            }
        };
        reports.push(report);
        if cancelled {
            break;
        }
    }
    let report = Report { labs: reports, seconds: begun.elapsed().as_secs_f64() };
    output.result(&report, || text(&report))?;
    Ok(ExitCode::from(u8::from(report.labs.iter().any(|lab| !lab.errors.is_empty()))))
}

/// One lab. What is there already stays, so it can be run at any time.
async fn restore(lab: &LabName, report: &mut LabReport, output: &Output) -> Result<(), Failure> {
    let was_known = ledger::labs(&paths()?)?.contains(lab);
    let mut session = Session::ending(lab, RESTORE, output)?;
    match session.pending.take() {
        Some((Standing::Unconfirmed, change)) => return Err(unconfirmed(&change, &session)),
        Some((_, change)) => {
            output.say(format_args!("lab {lab}: {} was interrupted; going back first", change.verb));
            session.go_back(&change, output).await?;
            // Its lock goes before the next one is taken.
            drop(session);
            session = Session::ending(lab, RESTORE, output)?;
        }
        None => {}
    }
    if !session.is_known && !was_known {
        return Err(lookup::not_created(lab)?);
    }
    if !session.is_known || session.ledger.is_of_leftovers() {
        output.say(format_args!(
            "lab {lab}: its first create was never finished or confirmed; there is nothing to restore"
        ));
        return Ok(());
    }
    let source = session.applied()?;
    let mut observation = session.look(Some(&source.model))?;
    let guests = observation.state.guests.clone();
    let (wanted, plan) = session.planned(&source.model, &mut observation, &guests)?;
    output.notes(&wanted.notes);
    if !plan.is_empty() || session.stale.is_some() || session.ledger.progress == Progress::Changing {
        session.carry_out(Some(&source), &observation, &wanted.state, &plan, output, true).await?;
    }
    report.restored = true;
    report.changes = plan.len();
    autostart(&mut session, &source, report, output).await
}

/// Starts the guests that want it and don't run. One that can't be started keeps none of the others from it.
async fn autostart(
    session: &mut Session,
    source: &Source,
    report: &mut LabReport,
    output: &Output,
) -> Result<(), Failure> {
    // Those of libvirt follow when it runs: it starts those that it knows itself.
    let asks_libvirt = session.asks_libvirt;
    let starts = |vm: &&Vm| *vm.autostart() && (asks_libvirt || *vm.engine() != Engine::Libvirt);
    if !source.model.vms().values().any(|vm| starts(&vm)) {
        return Ok(());
    }
    session.host.scope.guest_devices = true;
    let mut observation = session.look(Some(&source.model))?;
    let is_off = |vm: &&VmName| !observation.state.guests.contains_key(*vm);
    let wanted = source.model.vms().iter().filter(|(_, vm)| starts(vm)).map(|(name, _)| name);
    let mut vms: Vec<VmName> = wanted.filter(is_off).cloned().collect();
    let lab = session.lab.clone();
    let mut failed = |vm: &VmName, text: String| {
        let named = format!("vm {vm}: ");
        report.errors.push(if text.starts_with(&named) { text } else { named + &text });
    };
    // Nobody is here to say that they will not use all of it.
    let claims = boot::claims(&source.model, vms.iter());
    if !claims.is_empty() {
        for (vm, shortage) in boot::capacity()?.too_many(&claims) {
            failed(&vm, format!("{shortage}; vmnet boot --overcommit {lab}/{vm} starts it all the same"));
            vms.retain(|other| *other != vm);
        }
    }
    let batch = boot::start(session, source, &mut observation, &vms, false, output).await?;
    batch.failed.iter().for_each(|(vm, why)| failed(vm, why.line()));
    report.started = batch.started;
    Ok(())
}

/// What to do about it.
fn advice(failure: &Failure) -> String {
    failure.help().map(|help| format!("; {help}")).unwrap_or_default()
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for LabReport { lab, restored, changes, started, errors } in &report.labs {
        let guests = match started.as_slice() {
            [] => String::new(),
            started => {
                let names: Vec<&str> = started.iter().map(VmName::as_str).collect();
                format!(", started {}", names.join(", "))
            }
        };
        if *restored {
            text.push_str(&format!("lab {lab}: {GOOD}restored{GOOD:#}, {changes} changes{guests}\n"));
        }
        for error in errors {
            text.push_str(&format!("lab {lab}: {BAD}failed{BAD:#}: {error}\n"));
        }
    }
    match (report.labs.len(), report.labs.iter().filter(|lab| !lab.errors.is_empty()).count()) {
        (0, _) => text.push_str("no lab was created on this host\n"),
        (1, _) => {}
        (all, 0) => text.push_str(&format!("{all} labs in {:.1} s\n", report.seconds)),
        (all, failed) => text.push_str(&format!("{failed} of {all} labs {BAD}failed{BAD:#}\n")),
    }
    text
}
