//! What is on each host before anything is done: which lab, by whose definition, and whether something waits.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::outcome::{failures, worst};
use super::{Call, Fleet, Member, Outcomes};
use crate::commands::failure::Failure;
use crate::commands::standing::clock;

/// How long a host may take to say what it has.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// A host, by `vmnet list`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Seen {
    pub(super) machine: String,
    labs: Vec<LabSeen>,
    room: Option<u64>,
}

/// A lab there.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LabSeen {
    lab: String,
    pub(super) state: String,
    pub(super) here: Option<String>,
    pub(super) fingerprint: Option<String>,
    pub(super) guests: Vec<String>,
    room_without: Option<u64>,
    pub(super) disks: Vec<String>,
    pub(super) confirm_until: Option<u64>,
}

impl LabSeen {
    /// Whether there is a ledger of it.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.state.as_str(), "leftovers" | "disks")
    }

    /// Whether a change of it is neither done nor undone.
    pub(super) fn is_pending(&self) -> bool {
        self.confirm_until.is_some() || self.state == "interrupted"
    }
}

/// What there is of the lab on each host.
#[derive(Default)]
pub(super) struct Survey {
    labs: BTreeMap<String, Option<LabSeen>>,
    /// Bytes of memory for guests that start once the lab's own have ended.
    room: BTreeMap<String, u64>,
}

impl Survey {
    pub(super) fn lab(&self, host: &str) -> Option<&LabSeen> {
        self.labs.get(host)?.as_ref()
    }

    /// Hosts with something of the lab.
    pub(super) fn there(&self) -> impl Iterator<Item = (&String, &LabSeen)> {
        self.labs.iter().filter_map(|(host, lab)| Some((host, lab.as_ref()?)))
    }

    /// Bytes of memory for guests on a host once the lab's own have ended; `None` where that is not known.
    pub(super) fn room(&self, host: &str) -> Option<u64> {
        self.room.get(host).copied()
    }
}

/// Asks what there is.
pub(super) fn list() -> Call {
    Call::of(["list"]).within(SOON)
}

impl Fleet {
    /// Looks at all hosts. Refuses what is no part of this lab's, and hosts that are one machine.
    pub(super) async fn survey(&self) -> Result<Survey, Failure> {
        let outcomes = self.ask("looking", |_| Some(list())).await;
        if !outcomes.values().all(super::Outcome::is_done) {
            return Err(self.nothing_done(&outcomes));
        }
        self.understand(&outcomes)
    }

    /// What the lists of hosts say.
    pub(super) fn understand(&self, outcomes: &Outcomes) -> Result<Survey, Failure> {
        let mut problems: BTreeMap<String, Value> = BTreeMap::new();
        let mut machines: BTreeMap<String, &str> = BTreeMap::new();
        let mut survey = Survey::default();
        for (host, outcome) in outcomes {
            let seen: Seen = match serde_json::from_value(outcome.document()) {
                Ok(seen) => seen,
                Err(error) => {
                    problems.insert(host.clone(), json!({ "error": format!("its list is none: {error}") }));
                    continue;
                }
            };
            if let Some(other) = machines.insert(seen.machine.clone(), host) {
                let error = format!("this is the same machine as {other}");
                let help = format!("correct ssh = \"…\" in [host.{host}] or [host.{other}]");
                problems.insert(host.clone(), json!({ "error": error, "help": help }));
            }
            let lab = self.of_lab(&seen);
            if let (Some(member), Some(lab)) = (self.member(host), &lab) {
                problems.extend(self.stranger(member, lab).map(|problem| (host.clone(), problem)));
            }
            let room = lab.as_ref().map_or(seen.room, |lab| lab.room_without);
            survey.room.extend(room.map(|room| (host.clone(), room)));
            survey.labs.insert(host.clone(), lab);
        }
        match problems.is_empty() {
            true => Ok(survey),
            false => Err(Failure::Hosts {
                message: format!("lab {}: nothing was done", self.lab()),
                hosts: problems,
                help: None,
                code: 1,
            }),
        }
    }

    pub(super) fn of_lab(&self, seen: &Seen) -> Option<LabSeen> {
        seen.labs.iter().find(|lab| lab.lab == self.lab().as_str()).cloned()
    }

    /// A lab of this name that is not this host's part of one.
    fn stranger(&self, member: &Member, lab: &LabSeen) -> Option<Value> {
        let own = member.model.here().as_ref().map(ToString::to_string);
        if lab.here == own || !lab.is_known() || lab.state == "damaged" {
            return None;
        }
        let (name, by_hand) = (self.lab(), member.by_hand());
        let error = match &lab.here {
            None => format!("lab {name} is there, of a definition that knows no hosts"),
            Some(other) => format!("it has the part of host {other} of lab {name}"),
        };
        let help = format!(
            "remove it first ({by_hand}vmnet destroy {name}), give this lab another name, or correct ssh = \"…\" of the host"
        );
        Some(json!({ "error": error, "help": help }))
    }

    /// Refuses to begin while a change waits or was interrupted.
    pub(super) fn none_pending(&self, survey: &Survey) -> Result<(), Failure> {
        let tell = |lab: &LabSeen| match lab.confirm_until {
            Some(until) => format!("a change is not confirmed; it is undone at {}", clock(until)),
            None => "a change was interrupted".to_owned(),
        };
        let pending = survey.there().filter(|(_, lab)| lab.is_pending());
        let hosts: BTreeMap<String, Value> =
            pending.map(|(host, lab)| (host.clone(), json!({ "error": tell(lab) }))).collect();
        if hosts.is_empty() {
            return Ok(());
        }
        let file = self.file();
        Err(Failure::Hosts {
            message: format!("lab {}: an earlier change is not done on all hosts; nothing was done", self.lab()),
            hosts,
            help: Some(format!("vmnet confirm {file} keeps what is not confirmed, vmnet undo {file} goes back")),
            code: 1,
        })
    }

    /// A failure of some hosts before anything was changed on any.
    pub(super) fn nothing_done(&self, outcomes: &Outcomes) -> Failure {
        let mut hosts = failures(outcomes);
        let able = outcomes.iter().filter(|(_, outcome)| outcome.is_done());
        hosts.extend(able.map(|(host, _)| (host.clone(), json!({ "state": "could do its part" }))));
        Failure::Hosts {
            message: format!("lab {}: nothing was changed on any host", self.lab()),
            hosts,
            help: None,
            code: worst(outcomes).max(1),
        }
    }
}
