//! `vmnet create` for several hosts: all of them or none.
//!
//! Every host has to answer and to plan before any is changed. Each then applies with a timer that leads back; when all
//! are done and answer, all are confirmed; else all go back at once, and those that can't be told by their timers. So do
//! all where this program or a link dies. What remains is the moment of the confirmation itself: see
//! `docs/architecture.md`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::back::{Settled, Stake};
use super::plan::changes;
use super::send::Known;
use super::survey::{Survey, list};
use super::{Fleet, Outcome, Outcomes, Way, listed};
use crate::commands::create::missing_files;
use crate::commands::failure::Failure;
use crate::commands::output::{BOLD, GOOD, WARN, count, near};
use crate::commands::signals::Signals;
use crate::commands::standing::clock;
use crate::ledger::change::unix_now;

/// How long all hosts may take where nobody says: so much, and a second for so many operations of the largest plan.
const WITHIN: (Duration, u64) = (Duration::from_secs(120), 20);

/// What the command line says beside the definition.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::commands) struct Options {
    /// The user will confirm.
    pub(in crate::commands) confirm: Option<Duration>,
    /// All hosts have to be done by then.
    pub(in crate::commands) within: Option<Duration>,
    /// There must be nothing of it on any host. Who says that looks at signals, too, where it is this host alone.
    pub(in crate::commands) new: bool,
    /// The lab was removed from all hosts just before: as before is without it.
    pub(in crate::commands) removed: bool,
}

/// It was done on all hosts.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Created {
    lab: String,
    fingerprint: String,
    changes: u64,
    seconds: f64,
    lock_written: bool,
    /// Until when it has to be confirmed, in seconds since 1970.
    confirm_until: Option<u64>,
    pub(super) hosts: BTreeMap<String, Value>,
}

impl Fleet {
    /// `vmnet create`
    pub(super) async fn create_and_tell(&self, options: Options) -> Result<ExitCode, Failure> {
        let created = self.create(options).await?;
        self.output.result(&created, || created.text())?;
        if let Some(until) = created.confirm_until {
            let (until, file) = (clock(until), self.file());
            self.output.say(format_args!(
                "not confirmed yet: undone on all hosts at {until} unless you say: {BOLD}vmnet confirm {file}{BOLD:#}"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Makes the lab on all hosts, or on none.
    pub(in crate::commands) async fn create(&self, options: Options) -> Result<Created, Failure> {
        self.all_here()?;
        self.check_keys()?;
        let survey = self.survey().await?;
        self.none_pending(&survey)?;
        let known = self.files().await?;
        let plans = self.plans(&known).await?;
        missing_files(&self.source, &self.output);
        self.one_definition(&survey);
        self.send(&known).await?;
        self.carry_out(options, &known, &plans).await
    }

    /// Says that hosts of this lab were made by different definitions until now.
    fn one_definition(&self, survey: &Survey) {
        let mut by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (host, lab) in survey.there() {
            by.entry(lab.fingerprint.as_deref().unwrap_or_default()).or_default().push(host);
        }
        if by.len() > 1 {
            let groups: Vec<String> = by.values().map(listed).collect();
            self.output.say(format_args!(
                "{WARN}note{WARN:#}: there were {} definitions of lab {} ({}); now it is this one",
                by.len(),
                self.lab(),
                groups.join(" / ")
            ));
        }
    }

    /// The part that changes something.
    async fn carry_out(&self, options: Options, known: &Known, plans: &Outcomes) -> Result<Created, Failure> {
        let begun = Instant::now();
        // From here to the end a signal leads back, or comes too late.
        let signals = Signals::catch();
        let interrupted = signals.cancel(true);
        let largest = plans.values().filter_map(|plan| plan.field("changes").as_u64()).max().unwrap_or_default();
        let by_rule = || WITHIN.0 + Duration::from_secs(largest / WITHIN.1);
        let limit = options.confirm.or(options.within).unwrap_or_else(by_rule);
        let timer = format!("--confirm={}", limit.as_secs());
        let timed = !self.is_this();
        let mut args = if timed || options.confirm.is_some() { vec!["create", &timer] } else { vec!["create"] };
        args.extend(options.new.then_some("--new"));
        let calls = self.calls(&args, known)?;
        let lock_written = self.write_lock()?;
        let stake = Stake { begun, limit, until: unix_now().saturating_add(limit.as_secs()), removed: options.removed };
        let made = self.ask("creating", |member| calls.get(&member.name).cloned().map(|call| call.within(limit))).await;
        // Where nothing waits to be confirmed there is no way back by `undo`.
        let came = interrupted.load(Ordering::Relaxed) && (timed || !options.new);
        if came || !made.values().all(Outcome::is_done) {
            let why = if came { "it was interrupted" } else { "not all hosts did their part" };
            return Err(self.back(&made, &Outcomes::new(), &stake, why).await);
        }
        let mut created = self.created(&made, lock_written);
        created.confirm_until = made.values().filter_map(|made| made.field("confirm_until").as_u64()).min();
        if created.confirm_until.is_some() && options.confirm.is_none() {
            self.keep(&made, &stake).await?;
            created.confirm_until = None;
        }
        created.seconds = begun.elapsed().as_secs_f64();
        Ok(created)
    }

    /// Confirms on all hosts, once all of them have said again that they are there.
    async fn keep(&self, made: &Outcomes, stake: &Stake) -> Result<(), Failure> {
        let answers = self.ask("asking once more", |_| Some(list())).await;
        if !answers.values().all(Outcome::is_done) {
            let lost = listed(answers.iter().filter(|(_, answer)| !answer.is_done()).map(|(host, _)| host));
            let why = format!("{lost} did not answer any more");
            return Err(self.back(made, &answers, stake, &why).await);
        }
        if stake.is_late() {
            let why = "it took too long to be sure that all hosts can be told in time";
            return Err(self.back(made, &answers, stake, why).await);
        }
        let waiting = |host: &str| made.get(host).is_some_and(|made| !made.field("confirm_until").is_null());
        let settled = self.settle(waiting, stake).await;
        self.judge(&settled, stake)
    }

    /// What became of the confirmation.
    fn judge(&self, settled: &BTreeMap<String, Settled>, stake: &Stake) -> Result<(), Failure> {
        if settled.values().all(|settled| matches!(settled, Settled::Kept)) {
            return Ok(());
        }
        let kept = settled.values().any(|settled| matches!(settled, Settled::Kept | Settled::Unknown(_)));
        let lab = self.lab();
        let message = if kept {
            format!(
                "lab {lab}: the hosts may be of two minds: the connection broke while all were being told to keep it"
            )
        } else {
            self.unwrite_lock();
            format!("lab {lab}: all hosts went back: none was told in time to keep it")
        };
        let (file, until) = (self.file(), clock(stake.until));
        Err(Failure::Hosts {
            message,
            hosts: settled.iter().map(|(host, settled)| (host.clone(), settled.document(&until))).collect(),
            help: Some(format!("vmnet status {file} tells them apart; vmnet create {file} makes all of them whole")),
            code: 1,
        })
    }

    fn created(&self, made: &Outcomes, lock_written: bool) -> Created {
        Created {
            lab: self.lab().to_string(),
            fingerprint: self.fingerprint.clone(),
            changes: changes(made),
            seconds: 0.0,
            lock_written,
            confirm_until: None,
            hosts: made.iter().map(|(host, made)| (host.clone(), made.document())).collect(),
        }
    }

    /// Whether it is this machine alone, whose vmnet does all that there is to do.
    pub(super) fn is_this(&self) -> bool {
        self.members.iter().all(|member| matches!(member.way, Way::This { .. }))
    }

    /// Whether no host is a real one: then nothing of what is chosen by rule is written down.
    fn is_rehearsed(&self) -> bool {
        self.members.iter().all(|member| matches!(member.way, Way::Rehearsed))
    }

    /// Writes `net.lock` before any host uses what stands in it: what is lost moves addresses, what is too much moves
    /// nothing.
    fn write_lock(&self) -> Result<bool, Failure> {
        if self.is_this() || self.is_rehearsed() {
            return Ok(false);
        }
        let written = self.source.write_lock()?;
        if written {
            let path = near(&self.source.lock_path());
            self.output.say(format_args!("wrote {path}: keep it beside the definition"));
        }
        Ok(written)
    }

    /// Puts it back, where no host uses it.
    pub(super) fn unwrite_lock(&self) {
        if self.is_this() || self.is_rehearsed() {
            return;
        }
        if let Err(failure) = self.source.restore_lock() {
            self.output.say(format_args!("{WARN}note{WARN:#}: {failure}"));
        }
    }
}

impl Created {
    fn text(&self) -> String {
        let hosts = listed(self.hosts.keys());
        let lab = &self.lab;
        if self.changes == 0 {
            return format!("lab {lab}: {GOOD}nothing to do{GOOD:#} on {hosts}");
        }
        let changes = usize::try_from(self.changes).unwrap_or(usize::MAX);
        let seconds = self.seconds;
        format!("lab {lab}: {GOOD}created{GOOD:#} on {hosts}, {} in {seconds:.2} s", count(changes, "change"))
    }
}

/// The state of a host, beside what it said.
pub(super) fn with_state(mut document: Value, state: impl Into<String>) -> Value {
    match document.as_object_mut().filter(|document| document.contains_key("error")) {
        Some(fields) => {
            fields.insert("state".to_owned(), Value::String(state.into()));
            document
        }
        None => json!({ "state": state.into() }),
    }
}
