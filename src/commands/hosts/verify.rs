//! `vmnet verify` of several hosts: each tries its own senders at everybody, all at once, and it is one report.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::outcome::{document, reason};
use super::survey::{LabSeen, Survey, list};
use super::{Call, Fleet, Member, Outcome, Outcomes};
use crate::commands::failure::Failure;
use crate::commands::part::{Ask, Probed, Question};
use crate::commands::verify::{width, write_junit};
use crate::desired::Note;
use crate::model::view;
use crate::names::{HostName, VmName};
use crate::probe::Guests;
use crate::reach::{Expectation, Known, Report, expectations};

/// What came of it.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Verified {
    #[serde(flatten)]
    pub(in crate::commands) report: Report,
    /// What each host says that may be the reason where something is not as expected.
    pub(in crate::commands) notes: BTreeMap<String, Vec<Note>>,
}

/// A host that was asked, with what it should have seen.
pub(super) struct Asked<'f> {
    pub(super) member: &'f Member,
    pub(super) known: Known,
    /// The number of its first row.
    pub(super) begin: usize,
}

impl Verified {
    /// The exit code.
    pub(in crate::commands) fn code(&self) -> u8 {
        u8::from(!self.report.passed())
    }

    /// For people.
    pub(in crate::commands) fn text(&self) -> String {
        self.report.text(width())
    }
}

impl Fleet {
    /// `vmnet verify`
    pub(super) async fn verify(&self, junit: Option<&Path>, outside: &[IpAddr]) -> Result<ExitCode, Failure> {
        let verified = self.verified(outside).await?;
        write_junit(&verified.report, junit)?;
        self.output.result(&verified, || verified.text())?;
        if verified.report.totals.differs > 0 {
            self.tell_notes(&verified);
        }
        Ok(ExitCode::from(verified.code()))
    }

    /// They may be the reason of what differs.
    pub(super) fn tell_notes(&self, verified: &Verified) {
        for (host, notes) in &verified.notes {
            let of_host = |note: &Note| Note { about: format!("{host}: {}", note.about), text: note.text.clone() };
            self.output.notes(&notes.iter().map(of_host).collect::<Vec<_>>());
        }
    }

    /// Tries everything on all hosts at once. A host that can't be asked stands in the report.
    pub(in crate::commands) async fn verified(&self, outside: &[IpAddr]) -> Result<Verified, Failure> {
        let lists = self.ask("looking", |_| Some(list())).await;
        let (answered, silent): (Outcomes, Outcomes) = lists.into_iter().partition(|(_, outcome)| outcome.is_done());
        let survey = self.understand(&answered)?;
        let mut problems: BTreeMap<String, String> =
            self.lost.iter().map(|(host, error)| (host.clone(), reason(&document(error)))).collect();
        problems.extend(silent.iter().map(|(host, outcome)| (host.clone(), reason(&outcome.document()))));
        for member in &self.members {
            let lab = survey.lab(&member.name);
            let problem = if problems.contains_key(&member.name) { None } else { self.not_ready(lab) };
            problems.extend(problem.map(|problem| (member.name.clone(), problem)));
        }
        let guests = self.guests(&survey, &problems);
        let outside: Vec<IpAddr> = self.outside.iter().chain(outside).copied().collect();
        let question = self.question(Ask::Probe { guests: guests.clone(), outside })?;
        let asks = |member: &Member| (!problems.contains_key(&member.name)).then(|| question.clone());
        let outcomes = self.ask("probing", asks).await;
        let mut report = Report::new(self.lab(), Vec::new(), Vec::new());
        let (mut asked, mut notes) = (Vec::new(), BTreeMap::new());
        for member in &self.members {
            let begin = report.rows.len();
            match outcomes.get(&member.name).map(|outcome| self.take(member, outcome, &mut report)) {
                Some(Ok(probed)) => {
                    notes.insert(member.name.clone(), probed.notes);
                    asked.push(Asked { member, known: probed.known, begin });
                }
                Some(Err(problem)) => drop(problems.insert(member.name.clone(), problem)),
                None => {}
            }
        }
        for (host, problem) in &problems {
            let Ok(name) = host.parse::<HostName>() else { continue };
            report.add_lost(&name, self.expected(self.host(&name), &Known::default()), problem);
        }
        if report.totals.differs > 0 {
            let found = self.trace(&report, &asked, &guests).await;
            report.add_traces(found);
        }
        Ok(Verified { report, notes })
    }

    /// Why a host can't be asked, by what it has of the lab.
    fn not_ready(&self, lab: Option<&LabSeen>) -> Option<String> {
        let create = format!("vmnet create {}", self.file());
        match lab.filter(|lab| lab.is_known()) {
            None => Some(format!("lab {} is not there; {create} makes it", self.lab())),
            Some(lab) if lab.fingerprint.as_ref() != Some(&self.fingerprint) => {
                Some(format!("another definition of lab {} is applied there; {create} makes it this one", self.lab()))
            }
            Some(_) => None,
        }
    }

    /// Who runs anywhere.
    fn guests(&self, survey: &Survey, problems: &BTreeMap<String, String>) -> Guests {
        let mut guests = Guests::default();
        for (_, lab) in survey.there().filter(|(host, _)| !problems.contains_key(*host)) {
            guests.running.extend(lab.guests.iter().filter_map(|name| name.parse::<VmName>().ok()));
        }
        for host in self.source.whole.hosts().keys() {
            let is_member = self.members.iter().any(|member| member.name == host.as_str());
            if !is_member && !problems.contains_key(host.as_str()) {
                guests.silent.insert(host.clone(), format!("its gateway is on {host}, which was not asked"));
            }
        }
        for (name, vm) in self.source.whole.vms() {
            let Some(host) = vm.host() else { continue };
            if guests.silent.contains_key(host) || problems.contains_key(host.as_str()) {
                guests.absent.insert(name.clone(), format!("{name} runs on {host}, which was not asked"));
            }
        }
        guests
    }

    /// A question for a host.
    pub(super) fn question(&self, ask: Ask) -> Result<Call, Failure> {
        let input = serde_json::to_vec(&Question { fingerprint: self.fingerprint.clone(), ask })
            .map_err(|error| Failure::failed("the question can't be written as JSON", error))?;
        Ok(Call::of(["probe-part", self.lab().as_str()]).with(input))
    }

    /// A name as the model knows it; `None` where the definition names no hosts.
    fn host<'a>(&self, name: &'a HostName) -> Option<&'a HostName> {
        Some(name).filter(|name| self.source.whole.hosts().contains_key(*name))
    }

    /// What a host's senders try.
    pub(super) fn expected(&self, host: Option<&HostName>, known: &Known) -> Vec<Expectation> {
        expectations(&view(&self.source.whole, host), known)
    }

    /// Takes over what a host saw.
    fn take(&self, member: &Member, outcome: &Outcome, report: &mut Report) -> Result<Probed, String> {
        let mut probed: Probed = understood(outcome)?;
        let here = member.model.here().as_ref();
        let expected = self.expected(here, &probed.known);
        let seen = std::mem::take(&mut probed.seen);
        if expected.len() != seen.len() {
            return Err(format!("it tried {} things and not {}", seen.len(), expected.len()));
        }
        report.add(here, expected, seen);
        Ok(probed)
    }
}

/// What a host answered, or why it is none.
pub(super) fn understood<T: DeserializeOwned>(outcome: &Outcome) -> Result<T, String> {
    if !outcome.is_done() {
        return Err(reason(&outcome.document()));
    }
    serde_json::from_value(outcome.document()).map_err(|error| format!("its answer is none: {error}"))
}
