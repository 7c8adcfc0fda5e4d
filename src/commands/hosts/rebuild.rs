//! `vmnet rebuild`: a lab made anew, on every host at once.
//!
//! Each step is one that may be done twice, so there is nothing to be remembered: after an interruption the same command
//! begins at its beginning and ends in the same state.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::create::Options;
use super::survey::Survey;
use super::verify::Verified;
use super::{Fleet, Outcome, Outcomes, Way, listed};
use crate::commands::boot;
use crate::commands::create::guest_files;
use crate::commands::destroy;
use crate::commands::failure::Failure;
use crate::commands::output::{BOLD, WARN, count, shown};
use crate::commands::verify::verdict;
use crate::desired::capacity::fits;

/// What the command line says beside the definition.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Rebuild {
    /// Don't ask.
    pub(in crate::commands) yes: bool,
    /// For guests.
    pub(in crate::commands) wait: Duration,
    /// For creating.
    pub(in crate::commands) within: Option<Duration>,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Report<'a> {
    lab: &'a str,
    fingerprint: String,
    seconds: f64,
    /// Seconds that each step took.
    steps: BTreeMap<&'static str, f64>,
    /// Whether who reaches whom is as it should be.
    passed: bool,
    /// Who reaches whom.
    verify: &'a Verified,
    hosts: BTreeMap<String, HostReport>,
}

/// What each host said of each step.
#[derive(Debug, Default, Serialize)]
struct HostReport {
    destroy: Value,
    create: Value,
    reset: Value,
    boot: Value,
}

impl Fleet {
    /// `vmnet rebuild`
    pub(super) async fn rebuild(&self, options: Rebuild) -> Result<ExitCode, Failure> {
        let begun = Instant::now();
        self.all_here()?;
        self.check_keys()?;
        self.has_files()?;
        let survey = self.survey().await?;
        self.has_memory(&survey)?;
        // A definition that can't be made must not cost anybody the lab that there is.
        let known = self.files().await?;
        self.plans(&known).await?;
        self.consent(&survey, options.yes)?;
        self.send(&known).await?;
        self.downloaded().await?;
        let mut steps = BTreeMap::new();
        let mut hosts: BTreeMap<String, HostReport> = BTreeMap::new();
        let mut step = |name: &'static str, took: Instant| {
            steps.insert(name, took.elapsed().as_secs_f64());
        };

        let at = Instant::now();
        let removed = self.remove(destroy::Options { stop: true, purge: false, force: false }).await;
        self.whole(&removed)?;
        enter(&mut hosts, &removed, |host| &mut host.destroy);
        step("destroy", at);

        let at = Instant::now();
        let anew = Options { within: options.within, removed: true, ..Options::default() };
        let created = self.create(anew).await.inspect_err(|_| self.tell_removed())?;
        for (host, document) in created.hosts {
            hosts.entry(host).or_default().create = document;
        }
        step("create", at);

        let at = Instant::now();
        let fresh = self.fresh(&None, true).await;
        self.whole(&fresh)?;
        enter(&mut hosts, &fresh, |host| &mut host.reset);
        step("reset", at);

        let at = Instant::now();
        let boot = boot::Options { wait: Some(options.wait), jobs: None, overcommit: false };
        let started = self.start(&None, boot).await;
        self.all_started(&started)?;
        enter(&mut hosts, &started, |host| &mut host.boot);
        step("boot", at);

        let at = Instant::now();
        let verify = self.verified(&[]).await?;
        step("verify", at);

        let code = verify.code();
        let (lab, fingerprint) = (self.lab().as_str(), self.fingerprint.clone());
        let seconds = begun.elapsed().as_secs_f64();
        let report = Report { lab, fingerprint, seconds, steps, passed: code == 0, verify: &verify, hosts };
        self.output.result(&report, || self.summary(&report))?;
        if code > 0 {
            self.tell_notes(&verify);
        }
        Ok(ExitCode::from(code))
    }

    /// Refuses where a guest can't start for want of a file: that must not cost anybody the lab that there is. A disk
    /// that a guest of another host writes to is there alone.
    fn has_files(&self) -> Result<(), Failure> {
        for member in &self.members {
            let is_near = !matches!(member.way, Way::Ssh(_));
            for vm in member.model.vms().values().filter(|vm| vm.engine().is_machine()) {
                let mut files = guest_files(&self.source, vm, |readonly| readonly || is_near);
                if let Some((_, of, path)) = files.find(|(_, _, path)| !path.exists()) {
                    let message = format!("{of}: {} does not exist; nothing was changed", shown(&path));
                    return Err(Failure::advised(message, "put it there, or correct the definition"));
                }
            }
        }
        Ok(())
    }

    /// Refuses where the guests need more memory than there is once the lab is gone, for the same reason.
    fn has_memory(&self, survey: &Survey) -> Result<(), Failure> {
        let mut hosts = BTreeMap::new();
        for member in &self.members {
            let claims = boot::claims(&member.model, member.model.vms().keys());
            let Some(usable) = survey.room(&member.name) else { continue };
            if let Err(shortage) = fits(&claims, usable) {
                hosts.insert(member.name.clone(), json!({ "error": shortage.told(&claims) }));
            }
        }
        match hosts.is_empty() {
            true => Ok(()),
            false => Err(Failure::Hosts {
                message: format!(
                    "lab {}: too little memory for its guests, also once those that run are stopped; nothing was changed",
                    self.lab()
                ),
                hosts,
                help: Some("write a smaller memory = in the definition, or stop guests of other labs there".to_owned()),
                code: 4,
            }),
        }
    }

    /// Has every host download its images while the lab is still there.
    async fn downloaded(&self) -> Result<(), Failure> {
        let pulled = self.pulled(&[], |member| member.way != Way::Rehearsed).await?;
        if pulled.values().all(Outcome::is_done) { Ok(()) } else { Err(self.nothing_done(&pulled)) }
    }

    /// What went before the step that failed.
    fn tell_removed(&self) {
        let (lab, file) = (self.lab(), self.file());
        self.output.say(format_args!(
            "{WARN}note{WARN:#}: lab {lab} was removed in the step before; vmnet rebuild {file} begins anew"
        ));
    }

    /// Asks before disks go.
    fn consent(&self, survey: &Survey, yes: bool) -> Result<(), Failure> {
        let at_stake: Vec<String> = survey
            .there()
            .filter(|(_, lab)| !lab.disks.is_empty())
            .map(|(host, lab)| format!("{host}: {}", lab.disks.join(", ")))
            .collect();
        let running: Vec<&str> = survey.there().flat_map(|(_, lab)| lab.guests.iter().map(String::as_str)).collect();
        if yes || (at_stake.is_empty() && running.is_empty()) {
            return Ok(());
        }
        let lab = self.lab();
        let guests =
            if running.is_empty() { String::new() } else { format!("; {} run and are stopped", running.join(", ")) };
        let disks = match at_stake.is_empty() {
            true => String::new(),
            false => format!("; the disks of its guests are replaced ({})", at_stake.join("; ")),
        };
        let question = format!("lab {lab} is made anew{guests}{disks}");
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return Err(Failure::advised(format!("{question}; nothing was done"), "say --yes if that is meant"));
        }
        let mut stderr = std::io::stderr().lock();
        let asked = write!(stderr, "{question}. Go on? [y/N] ").and_then(|()| stderr.flush());
        let mut answer = String::new();
        let answered = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
        answered.map_err(|error| Failure::failed("nobody could be asked; nothing was done", error))?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::because("nothing was done")),
        }
    }

    fn summary(&self, report: &Report<'_>) -> String {
        let mut text = String::new();
        if !report.passed || self.output.is_verbose() {
            text.push_str(&(report.verify.text() + "\n"));
        }
        let hosts = listed(report.hosts.keys());
        let guests: usize = self.members.iter().map(|member| member.model.vms().len()).sum();
        let steps: Vec<String> = ["destroy", "create", "reset", "boot", "verify"]
            .into_iter()
            .filter_map(|step| Some(format!("{step} {:.1} s", report.steps.get(step)?)))
            .collect();
        let (lab, seconds) = (report.lab, report.seconds);
        let verdict = verdict(&report.verify.report);
        text + &format!(
            "{BOLD}lab {lab}{BOLD:#} rebuilt on {hosts} in {seconds:.1} s ({}): {}{verdict}\n",
            steps.join(", "),
            if guests > 0 { format!("{} on the network; ", count(guests, "guest")) } else { String::new() }
        )
    }
}

/// Writes down what each host said of a step.
fn enter(hosts: &mut BTreeMap<String, HostReport>, outcomes: &Outcomes, field: impl Fn(&mut HostReport) -> &mut Value) {
    for (host, outcome) in outcomes {
        *field(hosts.entry(host.clone()).or_default()) = outcome.document();
    }
}
