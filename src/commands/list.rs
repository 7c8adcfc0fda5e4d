//! `vmnet list`: the labs of this host, by their ledgers and by the marks on what is there.

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde::Serialize;

use super::boot;
use super::failure::Failure;
use super::output::{Output, WARN, foreign, table};
use super::session::{paths, unobservable};
use super::source::Source;
use super::standing::clock;
use crate::desired::capacity::Capacity;
use crate::engine;
use crate::ledger::change::{self, Standing};
use crate::ledger::{self, LedgerError, Progress};
use crate::names::LabName;
use crate::observe::{self, Doubt, Marked, Marks};
use crate::paths::Paths;

#[derive(Serialize)]
struct Report {
    /// What tells this kernel's network from any other: whoever reaches one host by two names sees it here.
    machine: String,
    labs: Vec<LabReport>,
    /// Bytes of memory for guests that start now.
    room: Option<u64>,
    /// What looks like vmnet's and is not proven to be.
    unproven: Vec<Doubt>,
}

#[derive(Serialize)]
struct LabReport {
    lab: String,
    state: State,
    /// Where the definition was when it was applied.
    file: Option<String>,
    /// Of a definition with hosts: the one whose part this is.
    here: Option<String>,
    /// What tells the definition as applied from any other.
    fingerprint: Option<String>,
    networks: Option<usize>,
    /// Guests that run.
    guests: Vec<String>,
    /// Bytes of memory for guests that start once these have ended.
    room_without: Option<u64>,
    /// Folders with guests' disks.
    disks: Vec<String>,
    /// Until when its last change has to be confirmed, in seconds since 1970.
    confirm_until: Option<u64>,
}

/// What is known of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Its last change was carried out. Whether it is still so says `status`.
    Applied,
    /// A change began, and it is not known how far it came.
    Interrupted,
    /// It was applied before the host was booted.
    Stale,
    /// There is a ledger, and it can't be read.
    Damaged,
    /// Something carries its marks, and there is no ledger.
    Leftovers,
    /// Only its guests' disks are there.
    Disks,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            State::Applied => "applied",
            State::Interrupted => "interrupted",
            State::Stale => "stale since reboot",
            State::Damaged => "ledger damaged",
            State::Leftovers => "leftovers, no ledger",
            State::Disks => "disks only",
        }
    }
}

/// Something that is listed and never touched.
pub(super) fn run(output: &Output) -> Result<ExitCode, Failure> {
    let paths = paths()?;
    let (known, marks) = everything(&paths)?;
    let labs: BTreeSet<&LabName> = known.iter().chain(marks.labs.keys()).collect();
    let boot_id = ledger::boot_id().map_err(|error| Failure::failed("/proc can't be read", error))?;
    let nothing = Marked::default();
    // Who starts a guest is told where it can't be found out.
    let capacity = boot::capacity().ok();
    let describe = |lab| {
        let room = capacity.as_ref().map(|capacity| capacity.usable_without(lab));
        describe(&paths, lab, marks.labs.get(lab).unwrap_or(&nothing), &boot_id, room)
    };
    let report = Report {
        machine: machine(&boot_id)?,
        labs: labs.into_iter().map(describe).collect(),
        room: capacity.as_ref().map(Capacity::usable),
        unproven: marks.unproven,
    };
    output.result(&report, || text(&report))?;
    Ok(ExitCode::SUCCESS)
}

/// The boot and the network namespace of this process.
fn machine(boot_id: &str) -> Result<String, Failure> {
    let network = std::fs::read_link("/proc/self/ns/net");
    let network = network.map_err(|error| Failure::failed("/proc can't be read", error))?;
    Ok(format!("{boot_id} {}", network.display()))
}

/// The labs with a ledger, and all marks.
pub(super) fn everything(paths: &Paths) -> Result<(Vec<LabName>, Marks), Failure> {
    let known = ledger::labs(paths)?;
    let marks = observe::marks(paths, &known).map_err(unobservable)?;
    Ok((known, marks))
}

/// What is known of a lab by its ledger and its marks.
pub(super) fn state(read: &Result<Option<ledger::Ledger>, LedgerError>, marked: &Marked, boot_id: &str) -> State {
    match read {
        Err(_) => State::Damaged,
        Ok(Some(ledger)) if ledger.is_of_leftovers() => State::Leftovers,
        Ok(Some(ledger)) if ledger.boot_id != boot_id => State::Stale,
        Ok(Some(ledger)) if ledger.progress == Progress::Changing => State::Interrupted,
        Ok(Some(_)) => State::Applied,
        Ok(None) if marked.things.is_empty() => State::Disks,
        Ok(None) => State::Leftovers,
    }
}

fn describe(paths: &Paths, lab: &LabName, marked: &Marked, boot_id: &str, room_without: Option<u64>) -> LabReport {
    let read = ledger::read(paths, lab);
    let state = state(&read, marked, boot_id);
    let on_disk = read.ok().flatten();
    // A record that can't be read is told by the verbs that need it.
    let change = change::read(paths, lab, on_disk.as_ref(), boot_id).ok().flatten();
    let unconfirmed = change.filter(|(standing, _)| *standing == Standing::Unconfirmed);
    let ledger = on_disk.filter(|ledger| !ledger.is_of_leftovers());
    let source = ledger.as_ref().and_then(|ledger| Source::applied(ledger).ok());
    let here = ledger.as_ref().and_then(|ledger| ledger.origin.here.as_ref()).map(ToString::to_string);
    let prefix = format!("vmnet-{lab}.");
    let namespaces = marked.things.iter().filter(|thing| thing.what == "namespace");
    let mut guests: BTreeSet<String> =
        namespaces.filter_map(|thing| thing.name.strip_prefix(&prefix)).map(str::to_owned).collect();
    // Records that can't be read are told by the verbs that need them.
    let processes = engine::running(paths, lab).unwrap_or_default();
    guests.extend(processes.iter().map(|running| running.vm.to_string()));
    let by_libvirt = observe::domains_of(lab).into_iter().filter(|domain| domain.runs);
    guests.extend(by_libvirt.map(|domain| domain.vm.to_string()));
    LabReport {
        lab: lab.to_string(),
        state,
        file: ledger.map(|ledger| ledger.path.display().to_string()),
        here,
        fingerprint: source.as_ref().and_then(|source| source.fingerprint().ok()),
        networks: match source {
            Some(source) => Some(source.model.networks().len()),
            None if state == State::Leftovers => Some(marked.bridges),
            None => None,
        },
        guests: guests.into_iter().collect(),
        room_without,
        disks: marked.disks.iter().cloned().collect(),
        confirm_until: unconfirmed.and_then(|(_, change)| change.confirm).map(|deadline| deadline.until),
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    if report.labs.is_empty() {
        text.push_str("there is no lab on this host\n");
    } else {
        let mut rows = table(&["lab", "state", "networks", "running", "file"]);
        for LabReport { lab, state, file, networks, guests, confirm_until, .. } in &report.labs {
            rows.add_row([
                lab.clone(),
                state.text().to_owned() + confirm_until.map_or("", |_| ", unconfirmed"),
                networks.map_or("-".into(), |count| count.to_string()),
                guests.len().to_string(),
                file.as_deref().map_or("-".into(), foreign),
            ]);
        }
        text.push_str(&format!("{rows}\n"));
    }
    for LabReport { lab, state, confirm_until, .. } in &report.labs {
        if let Some(until) = confirm_until {
            let until = clock(*until);
            let what_else = match state {
                State::Applied => format!("unless you say vmnet confirm {lab}"),
                _ => format!("or now by vmnet undo {lab}"),
            };
            text.push_str(&format!("{WARN}lab {lab} is undone at {until}{WARN:#} {what_else}\n"));
        }
    }
    if report.labs.iter().any(|lab| lab.state == State::Leftovers) {
        text.push_str("vmnet gc removes leftovers\n");
    }
    text.push_str(&text_of_unproven(&report.unproven));
    text
}

/// What is left alone, a line each.
pub(super) fn text_of_unproven(list: &[Doubt]) -> String {
    let line = |Doubt { thing, why, lab: _ }: &Doubt| {
        format!("{WARN}not proven to be vmnet's{WARN:#}: {thing}: {}\n", foreign(why))
    };
    list.iter().map(line).collect()
}
