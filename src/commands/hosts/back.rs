//! The two ends of a change of several hosts: all keep it, or all go back.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::create::with_state;
use super::outcome::{document, sentence};
use super::survey::{LabSeen, SOON, Seen, list};
use super::{Call, Fleet, Member, Outcome, Outcomes, listed};
use crate::commands::failure::Failure;
use crate::commands::output::GOOD;
use crate::commands::standing::clock;
use crate::ledger::change::unix_now;

/// The pause between two tries to tell a host something.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a host gets to go back, its lock being held by the change itself.
const GOING_BACK: Duration = Duration::from_secs(150);

/// What is at stake: a change on all hosts that goes back by itself.
pub(super) struct Stake {
    pub(super) begun: Instant,
    /// The time after which each host goes back.
    pub(super) limit: Duration,
    /// When that is at the latest, in seconds since 1970.
    pub(super) until: u64,
    /// Whether to go back is to be without the lab, since it was removed just before.
    pub(super) removed: bool,
}

impl Stake {
    /// How long the first host to begin will wait.
    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.begun.elapsed())
    }

    /// Whether every host must have gone back long ago.
    fn is_over(&self) -> bool {
        self.begun.elapsed() > self.limit + GOING_BACK
    }

    /// Whether too little of it is left to tell all hosts, and one of them twice.
    pub(super) fn is_late(&self) -> bool {
        self.left() < self.limit / 4
    }
}

/// What became of a host that was told to keep its change.
#[derive(Debug)]
pub(super) enum Settled {
    /// It does.
    Kept,
    /// It went back: its time was over.
    Back,
    /// It can't be asked.
    Unknown(Value),
}

impl Settled {
    pub(super) fn document(&self, until: &str) -> Value {
        match self {
            Self::Kept => json!({ "state": "keeps it" }),
            Self::Back => json!({ "error": "it went back: its time was over" }),
            Self::Unknown(document) => with_state(
                document.clone(),
                format!("it either was told in time and keeps it, or goes back by itself by {until}"),
            ),
        }
    }
}

impl Fleet {
    /// Tells the hosts with something to keep to do so, again and again until they say that they do, or their time is
    /// over.
    pub(super) async fn settle(&self, waiting: impl Fn(&str) -> bool, stake: &Stake) -> BTreeMap<String, Settled> {
        let members = self.members.iter().filter(|member| waiting(&member.name));
        let told = members.map(async |member| (member.name.clone(), self.settle_one(member, stake).await));
        join_all(told).await.into_iter().collect()
    }

    async fn settle_one(&self, member: &Member, stake: &Stake) -> Settled {
        let confirm = Call::of(["confirm", self.lab().as_str()]).within(SOON);
        loop {
            let outcome = member.ask_quietly(&confirm).await;
            if outcome.is_done() {
                return Settled::Kept;
            }
            // The answer may be what was lost, and not the word itself.
            match self.look_at(member).await {
                Ok(Some(lab)) if lab.confirm_until.is_some() && stake.is_over() => {
                    return Settled::Unknown(outcome.document());
                }
                Ok(Some(lab)) if lab.confirm_until.is_some() => {}
                Ok(Some(lab)) if lab.fingerprint.as_ref() == Some(&self.fingerprint) => return Settled::Kept,
                Ok(_) => return Settled::Back,
                Err(outcome) if stake.left().is_zero() => return Settled::Unknown(outcome.document()),
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What a host has of the lab; over a new connection where the old one broke.
    async fn look_at(&self, member: &Member) -> Result<Option<LabSeen>, Outcome> {
        let mut outcome = member.ask_quietly(&list()).await;
        if let Outcome::Lost(_) = outcome {
            member.reconnect().await.map_err(Outcome::Lost)?;
            outcome = member.ask_quietly(&list()).await;
        }
        match serde_json::from_value::<Seen>(outcome.document()) {
            Ok(seen) if outcome.is_done() => Ok(self.of_lab(&seen)),
            _ => Err(outcome),
        }
    }

    /// Leads all hosts back that may have changed something, and tells how each is now. `answers` is what they said last.
    pub(super) async fn back(&self, made: &Outcomes, answers: &Outcomes, stake: &Stake, why: &str) -> Failure {
        self.output.say("going back on all hosts");
        let members = self.members.iter().filter_map(|member| Some((member, made.get(&member.name)?)));
        let led = members.map(async |(member, made)| {
            let (state, is_back) = self.back_one(member, made, stake).await;
            let state = if is_back && stake.removed { "it is without the lab".to_owned() } else { state };
            let said = answers.get(&member.name).filter(|answer| !answer.is_done()).unwrap_or(made);
            (member.name.clone(), with_state(said.failure(), state), is_back)
        });
        let led = join_all(led).await;
        let all_back = led.iter().all(|(_, _, is_back)| *is_back);
        if all_back {
            self.unwrite_lock();
        }
        let open = listed(led.iter().filter(|(_, _, is_back)| !is_back).map(|(name, _, _)| name));
        let now = match (all_back, stake.removed) {
            (true, false) => "all hosts are as before".to_owned(),
            (false, false) => format!("the others are as before, {open} will be"),
            (true, true) => "it was removed in the step before, and is on no host".to_owned(),
            (false, true) => format!("it was removed in the step before; {open} will be without it, as the others are"),
        };
        Failure::Hosts {
            message: format!("lab {} was not created: {why}; {now}", self.lab()),
            code: super::outcome::worst(made).max(1),
            hosts: led.into_iter().map(|(name, document, _)| (name, document)).collect(),
            help: None,
        }
    }

    /// How one host is now, and whether it is as it was before.
    async fn back_one(&self, member: &Member, made: &Outcome, stake: &Stake) -> (String, bool) {
        if made.is_done() && made.field("confirm_until").is_null() {
            return ("nothing was changed on it".to_owned(), true);
        }
        let undo = Call::of(["undo", self.lab().as_str()]).within(GOING_BACK);
        let mut undone = match made {
            Outcome::Answered { .. } => member.ask_quietly(&undo).await,
            Outcome::Lost(_) | Outcome::Never => Outcome::Never,
        };
        if !matches!(undone, Outcome::Answered { .. }) {
            if let Err(error) = member.reconnect().await {
                return (self.by_itself(stake, &error.trouble.to_string()), false);
            }
            undone = member.ask_quietly(&undo).await;
        }
        if undone.is_done() {
            return ("it went back".to_owned(), true);
        }
        match self.look_at(member).await {
            Ok(Some(lab)) if lab.is_pending() => (self.by_itself(stake, &sentence(&undone.document())), false),
            Ok(_) => ("it is as before".to_owned(), true),
            Err(outcome) => (self.by_itself(stake, &sentence(&outcome.document())), false),
        }
    }

    fn by_itself(&self, stake: &Stake, reason: &str) -> String {
        let until = clock(stake.until);
        format!("it can't be told to go back ({reason}); if it changed anything it goes back by itself by {until}")
    }

    /// `vmnet confirm`
    pub(super) async fn confirm(&self) -> Result<ExitCode, Failure> {
        self.all_here()?;
        let survey = self.survey().await?;
        let waiting = |host: &str| survey.lab(host).is_some_and(|lab| lab.confirm_until.is_some());
        let until = survey.there().filter_map(|(_, lab)| lab.confirm_until).min();
        let Some(until) = until else {
            return Err(Failure::because(format!(
                "there is nothing to confirm for lab {}: no host waits for that",
                self.lab()
            )));
        };
        let limit = Duration::from_secs(until.saturating_sub(unix_now()));
        let stake = Stake { begun: Instant::now(), limit, until, removed: false };
        let settled = self.settle(waiting, &stake).await;
        let failed = settled.iter().filter(|(_, settled)| !matches!(settled, Settled::Kept)).count();
        let hosts = settled.iter().map(|(host, settled)| (host.clone(), settled.document(&clock(until)))).collect();
        if failed > 0 {
            let file = self.file();
            return Err(Failure::Hosts {
                message: format!("lab {} is not confirmed on all hosts", self.lab()),
                hosts,
                help: Some(format!(
                    "vmnet status {file} tells them apart; vmnet create {file} makes all of them whole"
                )),
                code: 1,
            });
        }
        self.tell(hosts, |lab, hosts| format!("lab {lab}: {GOOD}confirmed{GOOD:#} on {hosts}, it stays"))
    }

    /// `vmnet undo`
    pub(super) async fn undo(&self) -> Result<ExitCode, Failure> {
        let survey = self.survey().await?;
        let waits = |lab: &LabSeen| lab.is_pending();
        if !survey.there().any(|(_, lab)| waits(lab)) {
            self.all_here()?;
            return Err(Failure::because(format!(
                "there is nothing to undo for lab {}: no change of it is unconfirmed or was interrupted on any host",
                self.lab()
            )));
        }
        let undo = Call::of(["undo", self.lab().as_str()]).within(GOING_BACK);
        let undone =
            self.ask("going back", |member| survey.lab(&member.name).filter(|lab| waits(lab)).map(|_| undo.clone()));
        let undone = undone.await;
        let states = undone.iter().map(|(host, undone)| (host.clone(), with_state(undone.failure(), "it went back")));
        let mut hosts: BTreeMap<String, Value> = states.collect();
        if !self.lost.is_empty() || !undone.values().all(Outcome::is_done) {
            hosts.extend(self.lost.iter().map(|(host, error)| (host.clone(), document(error))));
            return Err(Failure::Hosts {
                message: format!("lab {} is not undone on all hosts", self.lab()),
                hosts,
                help: Some("what is not confirmed goes back by itself when its time is over".to_owned()),
                code: 1,
            });
        }
        self.tell(hosts, |lab, hosts| format!("lab {lab}: {GOOD}undone{GOOD:#} on {hosts}"))
    }
}
