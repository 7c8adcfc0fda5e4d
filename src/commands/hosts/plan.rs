//! `vmnet plan` for several hosts: every host's plan, shown as one.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use super::outcome::paragraph;
use super::send::Known;
use super::{Call, Fleet, Member, Outcome, Outcomes};
use crate::commands::create::missing_files;
use crate::commands::failure::Failure;
use crate::commands::output::{BOLD, count, near};
use crate::model::{Across, Model, slice};

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    fingerprint: &'a str,
    changes: u64,
    lock_changes: bool,
    /// What routers between the hosts have to know.
    routes: Vec<Route>,
    hosts: BTreeMap<&'a str, Value>,
}

/// A static route that a router which is not the lab's needs.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Route {
    to: String,
    via: String,
    network: String,
    host: String,
}

impl Fleet {
    /// `vmnet plan`
    pub(super) async fn plan(&self, check: bool) -> Result<ExitCode, Failure> {
        self.all_here()?;
        self.survey().await?;
        let known = self.files().await?;
        let plans = self.plans(&known).await?;
        let lock_changes = self.source.lock != self.source.old_lock;
        let report = Report {
            lab: self.lab().as_str(),
            fingerprint: &self.fingerprint,
            changes: changes(&plans),
            lock_changes,
            routes: routes(&self.source.whole),
            hosts: plans.iter().map(|(host, plan)| (host.as_str(), plan.document())).collect(),
        };
        self.output.result(&report, || text(&plans, &report))?;
        missing_files(&self.source, &self.output);
        if lock_changes {
            self.output.say(format_args!("create would write {}", near(&self.source.lock_path())));
        }
        Ok(ExitCode::from(if check && (report.changes > 0 || lock_changes) { 3 } else { 0 }))
    }

    /// Every host's plan. A host that has none is a reason to change nothing on any.
    pub(super) async fn plans(&self, known: &Known) -> Result<Outcomes, Failure> {
        let mut args = vec!["plan"];
        if self.output.is_verbose() {
            args.push("--verbose");
        }
        let calls = self.calls(&args, known)?;
        let plans = self.ask("planning", |member| calls.get(&member.name).cloned()).await;
        if plans.values().all(Outcome::is_done) { Ok(plans) } else { Err(self.nothing_done(&plans)) }
    }

    /// A call with the definition for each host.
    pub(super) fn calls(&self, args: &[&str], known: &Known) -> Result<BTreeMap<String, Call>, Failure> {
        let call = |member: &Member| Ok((member.name.clone(), self.with_definition(member, args, known)?));
        self.members.iter().map(call).collect()
    }
}

/// All operations.
pub(super) fn changes(outcomes: &Outcomes) -> u64 {
    outcomes.values().filter_map(|outcome| outcome.field("changes").as_u64()).sum()
}

/// The routes to what each host has of networks that are routed between hosts. Hosts of one underlay segment set them
/// for each other; whoever stands between them needs them too.
fn routes(whole: &Model) -> Vec<Route> {
    let parts = whole.hosts().keys().filter_map(|host| slice(whole, host));
    let mut routes = BTreeSet::new();
    for part in parts {
        for elsewhere in part.elsewhere() {
            if whole.networks()[elsewhere.network()].across() == &Across::Routed {
                routes.insert(Route {
                    to: elsewhere.to().to_string(),
                    via: elsewhere.via().to_string(),
                    network: elsewhere.network().to_string(),
                    host: elsewhere.host().to_string(),
                });
            }
        }
    }
    routes.into_iter().collect()
}

fn text(plans: &Outcomes, report: &Report<'_>) -> String {
    let mut text: String = plans.iter().map(|(host, plan)| paragraph(host, &plan.text()) + "\n").collect();
    if !report.routes.is_empty() {
        text.push_str(&format!("{BOLD}routes that routers between the hosts need, where there are any{BOLD:#}\n"));
        for Route { to, via, network, host } in &report.routes {
            text.push_str(&format!("  {to} via {via} (network {network}, host {host})\n"));
        }
        text.push('\n');
    }
    let changes = usize::try_from(report.changes).unwrap_or(usize::MAX);
    text + &format!("{} on {}\n", count(changes, "change"), count(plans.len(), "host"))
}
