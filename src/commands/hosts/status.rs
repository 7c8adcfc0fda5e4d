//! `vmnet status` of several hosts: which of them is as applied, and by which definition.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use super::outcome::{document, paragraph};
use super::survey::{LabSeen, Survey, list};
use super::{Call, Fleet, Outcomes, listed};
use crate::commands::failure::Failure;
use crate::commands::output::{BOLD, GOOD, WARN, table};

/// How much of a fingerprint people get.
const SHORT: usize = 12;

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    /// What the definition's file means now.
    fingerprint: &'a str,
    /// How many definitions of the lab are applied.
    definitions: usize,
    /// All hosts are as applied, by this definition.
    whole: bool,
    hosts: BTreeMap<&'a str, HostReport>,
}

#[derive(Serialize)]
struct HostReport {
    /// `as-applied`, `differs` and `degraded` as the host says; `absent`, `lost`, or the state of its list.
    condition: String,
    fingerprint: Option<String>,
    /// Whether that is what the file means now.
    same: bool,
    guests: Vec<String>,
    confirm_until: Option<u64>,
    /// The host's own document, or that of its failure.
    status: Value,
}

impl Fleet {
    /// `vmnet status`
    pub(super) async fn status(&self) -> Result<ExitCode, Failure> {
        let lists = self.ask("looking", |_| Some(list())).await;
        let (answered, silent): (Outcomes, Outcomes) = lists.into_iter().partition(|(_, outcome)| outcome.is_done());
        let survey = self.understand(&answered)?;
        let args = ["status", self.lab().as_str()];
        let is_there = |host: &str| survey.lab(host).is_some_and(LabSeen::is_known);
        let told = self.ask("looking", |member| is_there(&member.name).then(|| Call::of(args))).await;
        let report = self.report(&survey, &told, &silent);
        let code = u8::from(report.hosts.values().any(|host| host.condition == "lost"));
        self.output.result(&report, || self.text(&report, &told))?;
        Ok(ExitCode::from(code))
    }

    fn report<'a>(&'a self, survey: &Survey, told: &'a Outcomes, silent: &'a Outcomes) -> Report<'a> {
        let mut hosts = BTreeMap::new();
        for member in &self.members {
            let lab = survey.lab(&member.name);
            let (condition, status) = match (told.get(&member.name), silent.get(&member.name), lab) {
                (Some(told), _, _) if told.is_done() => {
                    (told.field("condition").as_str().unwrap_or_default().to_owned(), told.document())
                }
                (Some(failed), _, Some(lab)) => (lab.state.clone(), failed.document()),
                (Some(failed), _, None) | (None, Some(failed), _) => ("lost".to_owned(), failed.document()),
                (None, None, Some(lab)) => (lab.state.clone(), Value::Null),
                (None, None, None) => ("absent".to_owned(), Value::Null),
            };
            let fingerprint = lab.and_then(|lab| lab.fingerprint.clone());
            let host = HostReport {
                same: fingerprint.as_ref() == Some(&self.fingerprint),
                condition,
                fingerprint,
                guests: lab.map(|lab| lab.guests.clone()).unwrap_or_default(),
                confirm_until: lab.and_then(|lab| lab.confirm_until),
                status,
            };
            hosts.insert(member.name.as_str(), host);
        }
        for (name, error) in &self.lost {
            let (fingerprint, guests, confirm_until) = (None, Vec::new(), None);
            let (condition, status) = ("lost".to_owned(), document(error));
            hosts.insert(name, HostReport { condition, fingerprint, same: false, guests, confirm_until, status });
        }
        let mut definitions: Vec<&str> = hosts.values().filter_map(|host| host.fingerprint.as_deref()).collect();
        definitions.sort_unstable();
        definitions.dedup();
        Report {
            lab: self.lab().as_str(),
            fingerprint: &self.fingerprint,
            definitions: definitions.len(),
            whole: hosts
                .values()
                .all(|host| host.same && host.condition == "as-applied" && host.confirm_until.is_none()),
            hosts,
        }
    }

    fn text(&self, report: &Report<'_>, told: &Outcomes) -> String {
        let mut text = format!("{BOLD}lab {}{BOLD:#} on {}\n\n", report.lab, listed(report.hosts.keys()));
        let mut rows = table(&["host", "state", "definition", "running"]);
        for (name, host) in &report.hosts {
            let definition = match &host.fingerprint {
                None => "-".to_owned(),
                Some(_) if host.same => "this one".to_owned(),
                Some(other) => format!("another ({})", &other[..other.len().min(SHORT)]),
            };
            let unconfirmed = if host.confirm_until.is_some() { ", unconfirmed" } else { "" };
            let state = format!("{}{unconfirmed}", host.condition);
            rows.add_row([(*name).to_owned(), state, definition, host.guests.len().to_string()]);
        }
        text.push_str(&format!("{rows}\n\n"));
        let others = listed(
            report.hosts.iter().filter(|(_, host)| host.fingerprint.is_some() && !host.same).map(|(name, _)| name),
        );
        if report.definitions > 1 {
            let number = report.definitions;
            text.push_str(&format!("{WARN}{number} definitions of one lab{WARN:#}: {others} have another one than this file; vmnet create makes it this one everywhere\n"));
        } else if !others.is_empty() {
            text.push_str(&format!("{WARN}the file says something else{WARN:#} than what {others} have; vmnet plan shows what create would change\n"));
        }
        for (name, host) in &report.hosts {
            let as_told = told.get(*name).filter(|told| told.is_done());
            match as_told {
                Some(told) if self.output.is_verbose() || host.condition != "as-applied" => {
                    text.push_str(&format!("\n{}", paragraph(name, &told.text())));
                }
                Some(_) => {}
                None if host.status.is_null() => {}
                None => text.push_str(&super::told(&BTreeMap::from([((*name).to_owned(), host.status.clone())]))),
            }
        }
        if report.whole {
            text.push_str(&format!("{GOOD}as applied{GOOD:#} on all hosts\n"));
        }
        text
    }
}
