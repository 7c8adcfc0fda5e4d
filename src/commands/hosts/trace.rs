//! Where packets stopped between hosts: all of them watch while those whose tries differ try again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::verify::{Asked, understood};
use super::{Call, Fleet, Member, Outcome};
use crate::commands::part::{Ask, Tried, Watched};
use crate::commands::verify::plan;
use crate::model::view;
use crate::probe::{self, Guests};
use crate::reach::trace::{self, Plan, Stopped, Trouble};
use crate::reach::{self, Expectation, Report};
use crate::remote::Event;

/// How long a host may take to begin to watch: it looks at all that it has first.
const OPENING: Duration = Duration::from_secs(20);

/// How long a host watches at most, in seconds, where the word to stop does not reach it.
const WATCHING: u64 = 60;

/// How long a call for that may take.
const LIMIT: Duration = Duration::from_secs(WATCHING + 30);

/// What one host tries again: numbers of the run, and rows of the report.
struct Again<'f> {
    asked: &'f Asked<'f>,
    rows: BTreeMap<u32, usize>,
}

impl Fleet {
    /// Looks into rows that differ, and gives what was found by their numbers.
    pub(super) async fn trace(
        &self,
        report: &Report,
        asked: &[Asked<'_>],
        guests: &Guests,
    ) -> Result<BTreeMap<usize, Stopped>, String> {
        let run = probe::new_run();
        let rows: BTreeMap<u32, usize> = (0..).zip(report.to_trace()).collect();
        self.output.say(format_args!("looking where the packets of {} of them stop", rows.len()));
        let again: Vec<Again<'_>> = asked
            .iter()
            .map(|asked| {
                let own = |row: &usize| report.rows[*row].host.as_ref() == asked.member.model.here().as_ref();
                let rows = rows.iter().filter(|(_, row)| own(row)).map(|(number, row)| (*number, *row)).collect();
                Again { asked, rows }
            })
            .filter(|again| !again.rows.is_empty())
            .collect();
        let plan = self.plan_of(report, &again, run);
        let (seen, outcomes) = self.watched(&plan, asked, &again, guests).await?;
        Ok(rows
            .iter()
            .filter_map(|(number, row)| {
                let expectation = &report.rows[*row].expectation;
                Some((*row, seen.explain(&plan, *number, expectation, outcomes.get(number)?)?))
            })
            .collect())
    }

    /// What all hosts watch for.
    fn plan_of(&self, report: &Report, again: &[Again<'_>], run: u64) -> Plan {
        let mut whole = Plan { run, tries: Vec::new() };
        for Again { asked, rows } in again {
            let view = view(&self.source.whole, asked.member.model.here().as_ref());
            let tries: Vec<(u32, &Expectation)> =
                rows.iter().map(|(number, row)| (*number, &report.rows[*row].expectation)).collect();
            whole.merge(plan(&view, run, &tries));
        }
        whole
    }

    /// Watches on all hosts, has the tries made as soon as all of them do, and ends it.
    async fn watched(
        &self,
        plan: &Plan,
        asked: &[Asked<'_>],
        again: &[Again<'_>],
        guests: &Guests,
    ) -> Result<(trace::Seen, BTreeMap<u32, reach::Seen>), String> {
        let watchers: Vec<&Member> = asked
            .iter()
            .map(|asked| asked.member)
            .filter(|member| !plan.points(member.model.here().as_ref()).is_empty())
            .collect();
        let watch = self.question(Ask::Watch { plan: plan.clone(), limit: WATCHING }).map_err(|f| f.to_string())?;
        let watch = watch.within(LIMIT);
        let missing: RefCell<BTreeSet<&str>> =
            watchers.iter().map(|member| member.name.as_str()).collect::<BTreeSet<_>>().into();
        let changed = Notify::new();
        let begun = |name: &str| {
            missing.borrow_mut().remove(name);
            changed.notify_one();
        };
        let watching = join_all(watchers.iter().map(async |member| {
            let outcome = member.ask_hearing(&watch, |event| {
                if matches!(event, Event::Progress { .. }) {
                    begun(&member.name);
                }
            });
            let outcome = outcome.await;
            // Whoever can't watch is not waited for.
            begun(&member.name);
            (*member, outcome)
        }));
        let trying = async {
            let all = async {
                while !missing.borrow().is_empty() {
                    changed.notified().await;
                }
            };
            // Those who are late see less.
            let _ = timeout(OPENING, all).await;
            let outcomes = self.again(plan.run, again, guests).await;
            if let Ok(stop) = self.question(Ask::Stop { run: plan.run }) {
                join_all(watchers.iter().map(|member| member.ask_quietly(&stop))).await;
            }
            outcomes
        };
        let (seen, outcomes) = futures_util::future::join(watching, trying).await;
        let mut all = trace::Seen::default();
        for (member, outcome) in seen {
            all.merge(of_watcher(plan, member, &outcome));
        }
        outcomes.map(|outcomes| (all, outcomes))
    }

    /// The tries once more; an error where none could be made.
    async fn again(
        &self,
        run: u64,
        again: &[Again<'_>],
        guests: &Guests,
    ) -> Result<BTreeMap<u32, reach::Seen>, String> {
        let calls = again.iter().map(|Again { asked, rows }| {
            let tries = rows.iter().map(|(number, row)| (*number, row - asked.begin)).collect();
            let ask = Ask::Again { run, known: asked.known.clone(), guests: guests.clone(), tries };
            (asked.member, self.question(ask))
        });
        let answers = join_all(calls.map(async |(member, call): (&Member, Result<Call, _>)| match call {
            Ok(call) => understood::<Tried>(&member.ask_quietly(&call).await),
            Err(failure) => Err(failure.to_string()),
        }));
        let mut outcomes = BTreeMap::new();
        let mut problem = None;
        for (Again { asked, .. }, answer) in again.iter().zip(answers.await) {
            match answer {
                Ok(tried) => outcomes.extend(tried.outcomes),
                Err(why) => problem = Some(format!("{}: {why}", asked.member.name)),
            }
        }
        match problem {
            Some(problem) if outcomes.is_empty() => Err(problem),
            _ => Ok(outcomes),
        }
    }
}

/// What a host saw; where it could not watch, that.
fn of_watcher(plan: &Plan, member: &Member, outcome: &Outcome) -> trace::Seen {
    understood::<Watched>(outcome).map_or_else(
        |why| {
            let blind = |point| trace::Watched {
                point,
                link: None,
                trouble: Some(Trouble::Blind { why: format!("{}: {why}", member.name) }),
                sightings: Vec::new(),
            };
            trace::Seen { points: plan.points(member.model.here().as_ref()).into_iter().map(blind).collect() }
        },
        |watched| watched.seen,
    )
}
