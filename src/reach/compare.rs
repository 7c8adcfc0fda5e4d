//! Expected beside seen: the [`Report`] of `verify`. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::trace::Stopped;
use super::{Expect, Expectation};
use crate::names::{HostName, LabName};

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "seen", rename_all = "lowercase")]
pub enum Seen {
    /// It answered.
    Reached,
    /// It said that nobody listens there: the packet arrived, and the service is not there.
    Refused,
    /// It did not answer.
    Silent,
    /// It could not be tried.
    Untested {
        /// Why not.
        reason: String,
    },
    /// It could not be tried, since the sender runs and is not as it was made: a link of its is gone.
    Broken {
        /// What is not there.
        reason: String,
    },
}

/// Expected and seen, compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As expected.
    Met,
    /// The model does not say what to expect.
    Open,
    /// It could not be tried.
    Untested,
    /// Not as expected.
    Differs,
}

/// One try with its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was tried, and what should come of it.
    #[serde(flatten)]
    pub expectation: Expectation,
    /// What came of it.
    #[serde(flatten)]
    pub seen: Seen,
    /// The two compared.
    pub verdict: Verdict,
    /// The host that tried it, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Where it stopped, or what way it took; only where the two differ, and not for all of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

impl Row {
    /// Compares.
    pub fn new(expectation: Expectation, seen: Seen) -> Self {
        let verdict = match (expectation.expect, &seen) {
            (_, Seen::Untested { .. }) => Verdict::Untested,
            (Expect::Unknown, _) => Verdict::Open,
            (_, Seen::Broken { .. }) => Verdict::Differs,
            // Who does not know what it was sent says nothing, as if it never came.
            (Expect::Reach, Seen::Silent) if expectation.how.silence_is_unclear() => Verdict::Open,
            (Expect::Reach, Seen::Reached) | (Expect::Deny, Seen::Silent) => Verdict::Met,
            (Expect::Reach, Seen::Silent | Seen::Refused) | (Expect::Deny, Seen::Reached | Seen::Refused) => {
                Verdict::Differs
            }
        };
        Self { expectation, seen, verdict, host: None, stopped: None }
    }

    /// Whether there was somebody to try it.
    fn was_sent(&self) -> bool {
        !matches!(self.seen, Seen::Broken { .. })
    }

    /// Why it is open, where it is.
    pub fn open(&self) -> &'static str {
        match self.expectation.expect {
            Expect::Unknown => self.expectation.why,
            Expect::Reach | Expect::Deny => "a UDP service may have got it and not answered",
        }
    }
}

impl std::fmt::Display for Row {
    /// One line for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Expectation { from, to, address, how, network, macs: _, expect, why } = &self.expectation;
        write!(f, "{from} -> {to} ({address}, {how}")?;
        if let Some(network) = network {
            write!(f, " on {network}")?;
        }
        let expected = match expect {
            Expect::Reach => "expected to reach it",
            Expect::Deny => "expected not to reach it",
            Expect::Unknown => "nothing expected",
        };
        write!(f, "): {expected} ({why}), ")?;
        match &self.seen {
            Seen::Reached => f.write_str("it answered"),
            Seen::Refused => f.write_str("nobody listens there"),
            Seen::Silent => f.write_str("no answer"),
            Seen::Untested { reason } => write!(f, "not tried: {reason}"),
            Seen::Broken { reason } => f.write_str(reason),
        }
    }
}

/// How many tries came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// As expected.
    pub met: usize,
    /// Not as expected.
    pub differs: usize,
    /// Nothing was expected.
    pub open: usize,
    /// Could not be tried.
    pub untested: usize,
}

impl Totals {
    /// Of how many it is not known whether they are as they should be.
    pub fn unseen(&self) -> usize {
        self.open + self.untested
    }
}

/// What `verify` found in a lab. Its JSON is stable: fields may be added, none changes its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The lab.
    pub lab: LabName,
    /// Sums over the rows.
    pub totals: Totals,
    /// Every try.
    pub rows: Vec<Row>,
    /// How it was looked for where packets stopped; `None` where nothing differs.
    pub traces: Option<Traces>,
    /// Hosts that could not be asked, with why: nothing was tried from there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<HostName, String>,
}

/// The second round, in which the links are watched while what differs is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Traces {
    /// How many rows differ and were not looked into.
    pub left_out: usize,
    /// Why it could not be looked for at all.
    pub problem: Option<String>,
}

impl Report {
    /// Compares each expectation with what was seen of it; the two lists go in step.
    pub fn new(lab: &LabName, expectations: Vec<Expectation>, seen: Vec<Seen>) -> Self {
        let mut report =
            Self { lab: lab.clone(), totals: Totals::default(), rows: Vec::new(), traces: None, lost: BTreeMap::new() };
        report.add(None, expectations, seen);
        report
    }

    /// Adds what was tried on a host.
    pub fn add(&mut self, host: Option<&HostName>, expectations: Vec<Expectation>, seen: Vec<Seen>) {
        for (expectation, seen) in expectations.into_iter().zip(seen) {
            let row = Row { host: host.cloned(), ..Row::new(expectation, seen) };
            let totals = &mut self.totals;
            *match row.verdict {
                Verdict::Met => &mut totals.met,
                Verdict::Differs => &mut totals.differs,
                Verdict::Open => &mut totals.open,
                Verdict::Untested => &mut totals.untested,
            } += 1;
            self.rows.push(row);
        }
    }

    /// Adds a host that could not be asked, with what should have been tried there.
    pub fn add_lost(&mut self, host: &HostName, expectations: Vec<Expectation>, why: &str) {
        let seen = vec![Seen::Untested { reason: format!("{host} was not asked: {why}") }; expectations.len()];
        self.add(Some(host), expectations, seen);
        self.lost.insert(host.clone(), why.to_owned());
    }

    /// Whether nothing differs, and every host could be asked. Where there was something to try and nothing was tried,
    /// nothing is proven.
    pub fn passed(&self) -> bool {
        let proven = self.totals.met > 0 || self.totals.untested == 0;
        self.totals.differs == 0 && self.lost.is_empty() && proven
    }

    /// The numbers of the rows that differ, as many as are looked into.
    pub fn to_trace(&self) -> Vec<usize> {
        let differs = self.rows.iter().enumerate().filter(|(_, row)| row.verdict == Verdict::Differs);
        let differs = differs.filter(|(_, row)| row.expectation.how.can_be_traced() && row.was_sent());
        differs.map(|(number, _)| number).take(super::trace::TRACES_MAX).collect()
    }

    /// Takes over what was found of rows by their numbers, or why nothing was.
    pub fn add_traces(&mut self, found: Result<BTreeMap<usize, Stopped>, String>) {
        let (found, problem) = match found {
            Ok(found) => (found, None),
            Err(problem) => (BTreeMap::new(), Some(problem)),
        };
        let sent = self.differences().filter(|row| row.was_sent()).count();
        self.traces = Some(Traces { left_out: sent.saturating_sub(self.to_trace().len()), problem });
        for (number, stopped) in found {
            if let Some(row) = self.rows.get_mut(number) {
                row.stopped = Some(stopped);
            }
        }
    }

    /// The rows that differ.
    pub fn differences(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.verdict == Verdict::Differs)
    }
}
