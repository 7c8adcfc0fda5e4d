//! Verbs that every host carries out by itself: what one does needs nothing of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::outcome::{document, paragraph, sentence, worst};
use super::send::Known;
use super::survey::Survey;
use super::{Call, Fleet, Member, Outcome, Outcomes, Way, listed};
use crate::commands::boot;
use crate::commands::destroy;
use crate::commands::failure::Failure;
use crate::commands::image;
use crate::names::{ImageName, VmName};

/// How much longer than it waits for guests `boot` may take.
const BOOTING: Duration = Duration::from_secs(10 * 60);

/// How long a host may download images: many at a slow line.
const DOWNLOADING: Duration = Duration::from_secs(12 * 60 * 60);

/// Guests by name; `None`: all of the lab.
pub(super) type Guests = Option<BTreeSet<VmName>>;

/// The images that a host has to download for these of its guests.
fn with_url(member: &Member, is_meant: impl Fn(&VmName) -> bool) -> BTreeSet<&ImageName> {
    let vms = member.model.vms().values().filter(|vm| is_meant(vm.name()));
    let images = vms.filter_map(|vm| vm.image().as_ref()).filter(|image| image.url().is_some());
    images.map(|image| image.name()).collect()
}

impl Fleet {
    /// `vmnet destroy`
    pub(super) async fn destroy(&self, options: destroy::Options) -> Result<ExitCode, Failure> {
        self.all_here()?;
        let survey = self.survey().await?;
        self.none_runs(&survey, options.stop)?;
        self.merged(self.remove(options).await)
    }

    /// Removes the lab on all hosts.
    pub(super) async fn remove(&self, options: destroy::Options) -> Outcomes {
        let destroy::Options { stop, purge, force } = options;
        let flags = [(stop, "--stop"), (purge, "--purge"), (force, "--force")];
        let flags = flags.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag));
        let args: Vec<&str> = ["destroy", self.lab().as_str()].into_iter().chain(flags).collect();
        self.ask("removing", |_| Some(Call::of(args.iter().copied()))).await
    }

    /// Refuses before anything is removed anywhere while guests run somewhere.
    fn none_runs(&self, survey: &Survey, may_stop: bool) -> Result<(), Failure> {
        let running = survey.there().filter(|(_, lab)| !lab.guests.is_empty() && !may_stop);
        let hosts: BTreeMap<String, Value> =
            running.map(|(host, lab)| (host.clone(), json!({ "state": lab.guests.join(", ") }))).collect();
        if hosts.is_empty() {
            return Ok(());
        }
        Err(Failure::Hosts {
            message: format!("guests of lab {} run; nothing was removed", self.lab()),
            hosts,
            help: Some("stop them first, or say vmnet destroy --stop".to_owned()),
            code: 1,
        })
    }

    /// `vmnet boot`
    pub(super) async fn boot(&self, guests: &Guests, options: boot::Options) -> Result<ExitCode, Failure> {
        self.all_here()?;
        self.survey().await?;
        self.merged(self.start(guests, options).await)
    }

    /// `vmnet image pull`: each host downloads what its own guests need.
    pub(super) async fn pull(&self, names: &[ImageName]) -> Result<ExitCode, Failure> {
        self.all_here()?;
        image::known(&self.source.whole, names)?;
        self.merged(self.pulled(names, |_| true).await?)
    }

    /// Has hosts download images, all where none is named: as the definition says, whatever is made of it there.
    pub(super) async fn pulled(
        &self,
        names: &[ImageName],
        is_meant: impl Fn(&Member) -> bool,
    ) -> Result<Outcomes, Failure> {
        let mut calls = BTreeMap::new();
        for member in self.members.iter().filter(|member| is_meant(member)) {
            let mut wanted = with_url(member, |_| true);
            wanted.retain(|image| names.is_empty() || names.contains(image));
            if !wanted.is_empty() {
                let mut call = self.with_definition(member, &["image", "pull"], &Known::new())?.within(DOWNLOADING);
                call.args.extend(wanted.into_iter().map(ToString::to_string));
                calls.insert(member.name.clone(), call);
            }
        }
        Ok(self.ask("images", |member| calls.get(&member.name).cloned()).await)
    }

    /// Starts guests. One that fails is told by the result of its host and its exit code.
    pub(super) async fn start(&self, guests: &Guests, options: boot::Options) -> Outcomes {
        let boot::Options { wait, jobs, overcommit } = options;
        // Beforehand, since it may take hours. Where it fails, the guests that need it fail below and say why.
        self.ask("images", |member| self.downloads(member, guests)).await;
        let mut flags: Vec<String> = wait.map(|limit| format!("--wait={}", limit.as_secs())).into_iter().collect();
        flags.extend(jobs.map(|jobs| format!("--jobs={jobs}")));
        flags.extend(overcommit.then(|| "--overcommit".to_owned()));
        let call = |member: &Member| {
            let call = self.of_guests("boot", member, guests, &flags)?;
            // In the worst case one after another.
            let waits = u32::try_from(member.model.vms().len()).unwrap_or(u32::MAX);
            Some(call.within(BOOTING.saturating_add(wait.unwrap_or_default().saturating_mul(waits))))
        };
        self.ask("starting", call).await
    }

    /// Refuses to go on where a guest does not run as it should.
    pub(super) fn all_started(&self, outcomes: &Outcomes) -> Result<(), Failure> {
        self.whole(outcomes)?;
        let failed = |outcome: &Outcome| outcome.field("failed").as_object().is_some_and(|failed| !failed.is_empty());
        if !outcomes.values().any(failed) {
            return Ok(());
        }
        Err(Failure::Hosts {
            message: format!("lab {}: not all guests are up", self.lab()),
            hosts: outcomes.iter().map(|(host, outcome)| (host.clone(), started(outcome))).collect(),
            help: None,
            code: worst(outcomes).max(1),
        })
    }

    /// What a host has to download for guests; `None` where it has nothing to.
    fn downloads(&self, member: &Member, guests: &Guests) -> Option<Call> {
        let is_meant = |name: &VmName| guests.as_ref().is_none_or(|guests| guests.contains(name));
        let names = with_url(member, is_meant);
        let args = ["image", "pull", self.lab().as_str()].into_iter().chain(names.iter().map(|name| name.as_str()));
        // A rehearsed host has no way outside; it was sent what it needs.
        let has_way = member.way != Way::Rehearsed;
        (has_way && !names.is_empty()).then(|| Call::of(args).within(DOWNLOADING))
    }

    /// `vmnet stop`
    pub(super) async fn stop(&self, guests: &Guests, force: bool) -> Result<ExitCode, Failure> {
        self.all_here()?;
        self.survey().await?;
        let flag: Vec<String> = force.then(|| "--force".to_owned()).into_iter().collect();
        self.merged(self.ask("stopping", |member| self.of_guests("stop", member, guests, &flag)).await)
    }

    /// `vmnet reset`
    pub(super) async fn reset(&self, guests: &Guests, may_stop: bool) -> Result<ExitCode, Failure> {
        self.all_here()?;
        self.survey().await?;
        self.merged(self.fresh(guests, may_stop).await)
    }

    /// Gives guests fresh disks.
    pub(super) async fn fresh(&self, guests: &Guests, may_stop: bool) -> Outcomes {
        let flag: Vec<String> = may_stop.then(|| "--stop".to_owned()).into_iter().collect();
        self.ask("fresh disks", |member| self.of_guests("reset", member, guests, &flag)).await
    }

    /// A verb for those of these guests that a host has; `None` where it has none.
    fn of_guests(&self, verb: &str, member: &Member, guests: &Guests, flags: &[String]) -> Option<Call> {
        let own = member.model.vms();
        let mut args = vec![verb.to_owned(), format!("--of={}", self.lab())];
        args.extend(flags.iter().cloned());
        match guests {
            None if own.is_empty() => return None,
            None => args.push("--all".to_owned()),
            Some(names) => {
                let here: Vec<String> =
                    names.iter().filter(|name| own.contains_key(*name)).map(ToString::to_string).collect();
                if here.is_empty() {
                    return None;
                }
                args.extend(here);
            }
        }
        Some(Call::of(args))
    }

    /// `vmnet ps`
    pub(super) async fn ps(&self) -> Result<ExitCode, Failure> {
        let args = ["ps", self.lab().as_str()];
        let outcomes = self.ask("looking", |_| Some(Call::of(args))).await;
        self.shown(&outcomes)
    }

    /// Shows what there is; hosts that don't answer stand beside the others.
    fn shown(&self, outcomes: &Outcomes) -> Result<ExitCode, Failure> {
        let mut hosts: BTreeMap<String, Value> =
            outcomes.iter().map(|(host, outcome)| (host.clone(), outcome.document())).collect();
        hosts.extend(self.lost.iter().map(|(host, error)| (host.clone(), document(error))));
        let text = || {
            let there = outcomes.iter().map(|(host, outcome)| paragraph(host, &outcome.text()) + "\n");
            let lost = self.lost.iter().map(|(host, error)| {
                let lines = super::told(&BTreeMap::from([(host.clone(), document(error))]));
                format!("{lines}\n")
            });
            there.chain(lost).collect::<String>()
        };
        self.output.result(&json!({ "lab": self.lab(), "hosts": hosts }), text)?;
        Ok(ExitCode::from(worst(outcomes).max(u8::from(!self.lost.is_empty()))))
    }

    /// One result of all, or one failure that tells what became of each.
    fn merged(&self, outcomes: Outcomes) -> Result<ExitCode, Failure> {
        self.whole(&outcomes)?;
        let hosts: BTreeMap<String, Value> =
            outcomes.iter().map(|(host, outcome)| (host.clone(), outcome.document())).collect();
        let text = || outcomes.iter().map(|(host, outcome)| paragraph(host, &outcome.text())).collect();
        self.output.result(&json!({ "lab": self.lab(), "hosts": hosts }), text)?;
        Ok(ExitCode::from(worst(&outcomes)))
    }

    /// That all hosts did it; else what became of each.
    pub(super) fn whole(&self, outcomes: &Outcomes) -> Result<(), Failure> {
        if outcomes.values().all(Outcome::is_done) {
            return Ok(());
        }
        let state = |outcome: &Outcome| match outcome.is_done() {
            true => json!({ "state": last_line(&outcome.text()) }),
            false => outcome.document(),
        };
        let failed = listed(outcomes.iter().filter(|(_, outcome)| !outcome.is_done()).map(|(host, _)| host));
        Err(Failure::Hosts {
            message: format!("lab {}: not done on {failed}", self.lab()),
            hosts: outcomes.iter().map(|(host, outcome)| (host.clone(), state(outcome))).collect(),
            help: None,
            code: worst(outcomes).max(1),
        })
    }

    /// A result of states.
    pub(super) fn tell(
        &self,
        hosts: BTreeMap<String, Value>,
        text: impl FnOnce(&str, &str) -> String,
    ) -> Result<ExitCode, Failure> {
        let names = listed(hosts.keys());
        self.output.result(&json!({ "lab": self.lab(), "hosts": hosts }), || text(self.lab().as_str(), &names))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What became of a host's guests: each failure of one in words.
fn started(outcome: &Outcome) -> Value {
    let failed = outcome.field("failed").as_object().into_iter().flatten();
    let lines: Vec<String> = failed.map(|(vm, why)| format!("{vm}: {}", sentence(why))).collect();
    match lines.is_empty() {
        true => json!({ "state": last_line(&outcome.text()) }),
        false => json!({ "error": lines.join("; ") }),
    }
}

/// What a host says of what it did, in a line without colours.
fn last_line(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    plain.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("done").to_owned()
}
