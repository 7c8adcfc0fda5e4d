//! `vmnet plan` and `vmnet create`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::keys;
use super::outdated::outdated;
use super::output::{BAD, BOLD, GOOD, Output, WARN, count, near, shown};
use super::session::Session;
use super::source::Source;
use super::{destroy, effects};
use super::{unrecorded, watch};
use crate::cli;
use crate::desired::Note;
use crate::model::Vm;
use crate::names::{HostName, LabName, VmName};
use crate::plan::{Hurt, Op, Plan, Wave};

#[derive(Serialize)]
struct PlanReport<'a> {
    lab: &'a str,
    changes: usize,
    waves: &'a [Wave],
    notes: &'a [Note],
    lock_changes: bool,
}

/// `vmnet plan`
pub(super) async fn plan(
    file: &cli::File,
    here: Option<&HostName>,
    check: bool,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let source = Source::read(&file.file, file.named.as_ref(), here)?;
    let mut session = Session::look_at(source.model.lab())?;
    let mut observation = session.look(Some(&source.model))?;
    let guests = observation.state.guests.clone();
    let (mut wanted, plan) = session.planned(&source.model, &mut observation, &guests)?;
    wanted.notes.extend(source.remarks());
    let outdated = outdated(&session, &source, &observation, &wanted.mtu);
    wanted.notes.extend(effects::notes(&session, &source, &observation, &outdated));
    wanted.notes.extend(session.hurt_by(&observation, &plan)?.into_iter().map(refused_for));
    let unknown = unrecorded::taps(&observation.state);
    if !unknown.is_empty() {
        let text = format!("{}; create refuses", unrecorded::text(&session.lab, &unknown));
        wanted.notes.push(Note { about: "guests".to_owned(), text });
    }
    let report = PlanReport {
        lab: session.lab.as_str(),
        changes: plan.len(),
        waves: &plan.waves,
        notes: &wanted.notes,
        lock_changes: source.lock != source.old_lock,
    };
    output.result(&report, || listing(&plan, output.is_verbose()))?;
    output.notes(&wanted.notes);
    missing_files(&source, output);
    if report.lock_changes {
        output.say(format_args!("create would write {}", near(&source.lock_path())));
    }
    Ok(ExitCode::from(if check && (!plan.is_empty() || report.lock_changes) { 3 } else { 0 }))
}

#[derive(Serialize)]
struct CreateReport<'a> {
    lab: &'a str,
    changes: usize,
    repaired: usize,
    seconds: f64,
    hooks: String,
    notes: &'a [Note],
    /// In seconds since 1970.
    confirm_until: Option<u64>,
}

/// What the command line says beside the definition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) confirm: Option<Duration>,
    /// There must be nothing of it yet.
    pub(super) new: bool,
}

/// `vmnet create`
pub(super) async fn run(
    file: &cli::File,
    here: Option<&HostName>,
    options: Options,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let begun = std::time::Instant::now();
    let source = Source::read(&file.file, file.named.as_ref(), here)?;
    let mut session = Session::change_of(source.model.lab(), "create", output)?;
    session.confirm = to_be_confirmed(&session, options.confirm)?;
    if options.new {
        is_new(&session)?;
    }
    if session.is_known && session.ledger.path != source.path {
        let path = shown(&session.ledger.path);
        output.say(format_args!("{WARN}note{WARN:#}: lab {} was created from {path} before", session.lab));
    }
    let mut observation = session.look(Some(&source.model))?;
    let guests = observation.state.guests.clone();
    let (mut wanted, plan) = session.planned(&source.model, &mut observation, &guests)?;
    wanted.notes.extend(source.remarks());
    let outdated = outdated(&session, &source, &observation, &wanted.mtu);
    wanted.notes.extend(effects::notes(&session, &source, &observation, &outdated));
    output.notes(&wanted.notes);
    missing_files(&source, output);
    let same_source = session.is_known
        && session.ledger.definition == source.text
        && session.ledger.path == source.path
        && session.ledger.lock == source.lock.to_string()
        && session.ledger.origin == source.origin;
    let mut repaired = 0;
    let is_new = !same_source || source.lock != source.old_lock;
    if !plan.is_empty() || is_new {
        session.refuse_hurt(&observation, &plan)?;
        let report = session.carry_out(Some(&source), &observation, &wanted.state, &plan, output, true).await?;
        repaired = report.repaired;
    }
    let report = CreateReport {
        lab: session.lab.as_str(),
        changes: plan.len(),
        repaired,
        seconds: begun.elapsed().as_secs_f64(),
        hooks: session.paths.hooks(&session.lab).display().to_string(),
        notes: &wanted.notes,
        confirm_until: session.deadline.map(|deadline| deadline.until),
    };
    let reminder = session.deadline.map(|deadline| format!("\n{}", watch::reminder(&session.lab, &deadline)));
    let said = Said {
        is_new,
        outdated: &outdated,
        // Nothing is started before it is confirmed.
        stopped: if session.confirm.is_some() { 0 } else { source.model.vms().len() - guests.len() },
        reminder: &reminder.unwrap_or_default(),
    };
    output.result(&report, || said.text(&report))?;
    Ok(ExitCode::SUCCESS)
}

/// What people are told beside the report.
struct Said<'a> {
    /// The definition as applied is another one now.
    is_new: bool,
    outdated: &'a [VmName],
    /// How many guests don't run.
    stopped: usize,
    reminder: &'a str,
}

impl Said<'_> {
    fn text(&self, report: &CreateReport<'_>) -> String {
        let Self { is_new, outdated, stopped, reminder } = self;
        match report.changes {
            0 if *is_new => {
                let names = outdated.iter().map(VmName::as_str).collect::<Vec<_>>().join(", ");
                let guests =
                    if names.is_empty() { names } else { format!("; at their next boot it counts for {names}") };
                format!("lab {}: {GOOD}applied{GOOD:#}; nothing on the host changes{guests}{reminder}", report.lab)
            }
            0 => format!("lab {}: {GOOD}nothing to do{GOOD:#}", report.lab),
            changes => format!(
                "lab {}: {GOOD}created{GOOD:#}, {} in {:.2} s\nhooks for QEMU's script= are in {}{}{reminder}",
                report.lab,
                count(changes, "change"),
                report.seconds,
                report.hooks,
                match stopped {
                    0 => String::new(),
                    stopped =>
                        format!("\nguests not started: {stopped}; start them with vmnet boot --all --of {}", report.lab),
                }
            ),
        }
    }
}

/// Refuses a lab of which there is anything: whoever removes all of theirs afterwards must not remove somebody else's.
fn is_new(session: &Session) -> Result<(), Failure> {
    let disks = destroy::disks(&session.paths, &session.lab);
    if !session.is_known && disks.is_empty() {
        return Ok(());
    }
    Err(there_already(&session.lab, &disks.iter().map(|disk| shown(disk)).collect::<Vec<_>>(), session.is_known))
}

/// That there is a lab of this name, or disks of its guests.
pub(super) fn there_already(lab: &LabName, disks: &[String], is_there: bool) -> Failure {
    let what = match is_there {
        true => format!("there is a lab {lab} already"),
        false => format!("disks of guests of lab {lab} were kept ({})", disks.join(", ")),
    };
    let help = format!(
        "run it as another lab (--lab NAME), or remove that one first, its guests' disks too: vmnet destroy --stop \
         --purge {lab}"
    );
    Failure::advised(format!("{what}; nothing was changed"), help)
}

/// A way back has to lead to something whole.
fn to_be_confirmed(session: &Session, confirm: Option<Duration>) -> Result<Option<Duration>, Failure> {
    let (Some(_), Some((_, change))) = (confirm, &session.pending) else { return Ok(confirm) };
    let (lab, verb) = (&change.lab, &change.verb);
    Err(Failure::advised(
        format!(
            "{verb} of lab {lab} was interrupted, and --confirm would lead back into the middle of it; nothing was done"
        ),
        format!("run vmnet undo {lab} first, or vmnet create without --confirm"),
    ))
}

/// A plan for people: one line an operation, grouped by wave; + comes, - goes, ~ changes. With `bodies`, below a table
/// its rules.
fn listing(plan: &Plan, bodies: bool) -> String {
    if plan.is_empty() {
        return format!("{GOOD}nothing to do{GOOD:#}\n");
    }
    let mut text = String::new();
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for Wave { phase, ops } in &plan.waves {
        text.push_str(&format!("{BOLD}{}{BOLD:#}\n", phase.title()));
        for op in ops {
            let sign = sign(op);
            *counts.entry(sign).or_default() += 1;
            let style = match sign {
                '+' => GOOD,
                '-' => BAD,
                _ => WARN,
            };
            text.push_str(&format!("  {style}{sign}{style:#} {op}\n"));
            if let (Op::ReplaceTable { body, .. } | Op::ChangeTable { body, .. }, true) = (op, bodies) {
                body.lines().for_each(|line| text.push_str(&format!("        {line}\n")));
            }
        }
    }
    let count = |sign| counts.get(&sign).copied().unwrap_or(0);
    text.push_str(&format!("\n{} to add, {} to change, {} to remove\n", count('+'), count('~'), count('-')));
    text
}

fn sign(op: &Op) -> char {
    match op {
        Op::AddNamespace { .. }
        | Op::AddLink { .. }
        | Op::AddVeth { .. }
        | Op::AddAddress(_)
        | Op::AddRoute(_)
        | Op::WriteFile { .. }
        | Op::ReplaceTable { .. }
        | Op::RestoreTable { .. }
        | Op::DefineGuest { .. }
        | Op::AddLibvirtNetwork { .. }
        | Op::StartGuest { .. } => '+',
        Op::RemoveNamespace { .. }
        | Op::RemoveLink { .. }
        | Op::RemoveGroup { .. }
        | Op::RemoveAddress(_)
        | Op::RemoveRoute(_)
        | Op::RemoveTable { .. }
        | Op::RemoveFile { .. }
        | Op::UndefineGuest { .. }
        | Op::RemoveLibvirtNetwork { .. }
        | Op::StopGuest { .. } => '-',
        Op::SetIpv6 { .. }
        | Op::SetTxChecksum { .. }
        | Op::ChangeLink { .. }
        | Op::ChangeTable { .. }
        | Op::ChangeLibvirtNetwork { .. }
        | Op::Set { .. }
        | Op::Reload { .. } => '~',
    }
}

/// What the plan shows where `create` would refuse it.
fn refused_for(hurt: Hurt) -> Note {
    let text = format!("is not this lab's and is {hurt}, which would go; unplug or remove it first: create refuses");
    Note { about: hurt.device().to_owned(), text }
}

/// A network can be made without what its guests need; better said now than at `boot`.
pub(super) fn missing_files(source: &Source, output: &Output) {
    if source.origin.sent {
        // Who sent it knows what there is.
        return;
    }
    // One of each kind is enough to know.
    let mut kinds = BTreeSet::new();
    let all = source.model.vms().values().flat_map(|vm| guest_files(source, vm, |_| true));
    for (_, of, path) in all.filter(|(kind, _, path)| !path.exists() && kinds.insert(*kind)) {
        let path = shown(&path);
        output.say(format_args!("{WARN}note{WARN:#}: {of}: {path} does not exist; boot will need it"));
    }
}

/// The files that a guest is made of, each with its kind and what names it; of its further disks those that are wanted
/// by whether the guest only reads them.
pub(super) fn guest_files(
    source: &Source,
    vm: &Vm,
    wants: impl Fn(bool) -> bool,
) -> impl Iterator<Item = (&'static str, String, PathBuf)> {
    let images = vm.image().iter().flat_map(move |image| {
        image.files().map(move |file| ("image", format!("image {}", image.name()), source.files().find(file)))
    });
    let disks = vm.disk_files().filter(move |(_, readonly)| wants(*readonly));
    let disks = disks.map(move |(file, _)| ("disks", format!("vm {}: disks", vm.name()), source.files().find(file)));
    let keys = keys::files(source, vm).map(move |(key, path)| (key, format!("vm {}: {key}", vm.name()), path));
    images.chain(disks).chain(keys)
}
