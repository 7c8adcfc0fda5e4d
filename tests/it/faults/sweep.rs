//! All points of a command, one host of its own for each; or a sample of them that is the same every time.

use std::collections::BTreeSet;
use std::sync::Mutex;

use nix::sys::signal::Signal;

use super::calls::{Call, Kind};
use super::place::{Place, Scenario};
use super::promise::{self, Before};
use super::tracer::{Deed, Key};
use crate::matrix::tally;
use crate::sandbox::test;
use crate::skip::say;

/// A point and what is done there.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The command.
    pub scenario: Scenario,
    /// Where.
    pub key: Key,
    /// What the call was when the points were counted.
    pub call: Call,
    /// What is done.
    pub deed: Deed,
}

/// How many were tried, and how.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Points at which something was done.
    pub points: usize,
    /// Points that the run did not come to: threads may take turns in another way.
    pub missed: usize,
    /// What did not hold.
    pub wrong: Vec<String>,
}

/// The points of a command that runs through: those of two runs that agree, since threads take turns in another way
/// now and then. Where no two do, those of the last.
pub(crate) fn points(scenario: &Scenario) -> Vec<(Key, Call)> {
    let once = || {
        Place::with(|place| {
            place.prepare(scenario);
            let (run, ended) = place.run(scenario, None);
            assert_eq!(ended.code(), 0, "{}: {}", scenario.name, ended.said);
            run.points
        })
    };
    let keys = |points: &[(Key, Call)]| points.iter().map(|(key, _)| key.to_string()).collect::<BTreeSet<_>>();
    let mut seen = Vec::new();
    loop {
        let points = once();
        let found = keys(&points);
        if seen.contains(&found) || seen.len() == 4 {
            return points;
        }
        seen.push(found);
    }
}

/// What is done at each point of a command, by a rule for each.
pub(crate) fn jobs(scenarios: &[Scenario], deeds: impl Fn(&Call) -> Vec<Deed>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for scenario in scenarios {
        for (key, call) in points(scenario) {
            for deed in deeds(&call) {
                jobs.push(Job { scenario: *scenario, key: key.clone(), call: call.clone(), deed });
            }
        }
    }
    jobs
}

/// SIGKILL before and after each call that changes something.
pub(crate) fn kills(call: &Call) -> Vec<Deed> {
    if call.kind.changes() { vec![Deed::KillBefore, Deed::KillAfter] } else { Vec::new() }
}

/// Each error that a call can be made to fail with.
pub(crate) fn failures(call: &Call) -> Vec<Deed> {
    call.kind.errors().iter().map(|errno| Deed::Fail(*errno)).collect()
}

/// Each netlink message of a call refused.
pub(crate) fn refusals(call: &Call) -> Vec<Deed> {
    // The first and last message of a batch are its brackets.
    match (call.kind, call.messages) {
        (Kind::Netlink, 1) => vec![Deed::Spoil(0)],
        (Kind::Netlink, all) => (1..all.saturating_sub(1)).map(Deed::Spoil).collect(),
        _ => Vec::new(),
    }
}

/// The signals that end programs.
pub(crate) fn signals(call: &Call) -> Vec<Deed> {
    let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    if call.kind.changes() { all.map(Deed::Signal).to_vec() } else { Vec::new() }
}

/// Whether all points are taken.
pub(crate) fn is_long() -> bool {
    std::env::var_os("VMNET_LONG").is_some()
}

/// At most so many of them, spread evenly; all in the long form, and the one that is asked for where one is.
pub(crate) fn sample(jobs: Vec<Job>, most: usize) -> Vec<Job> {
    if let Ok(wanted) = std::env::var("VMNET_POINT") {
        if wanted == "list" {
            jobs.iter().for_each(|job| say(&format!("POINT {job} at {}", job.call.text)));
        }
        return jobs.into_iter().filter(|job| job.to_string() == wanted).collect();
    }
    if is_long() || jobs.len() <= most {
        return jobs;
    }
    spread(jobs, most)
}

/// At most so many, spread evenly.
fn spread(jobs: Vec<Job>, most: usize) -> Vec<Job> {
    let all = jobs.len();
    (0..most.min(all)).map(|number| jobs[number * all / most.min(all)].clone()).collect()
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.scenario.name, self.deed, self.key)
    }
}

/// As [`take`], and a sample in the long form, too: QEMU takes seconds.
pub(crate) fn take_some(what: &str, jobs: Vec<Job>, most: usize, long: usize) {
    take(what, if is_long() { spread(jobs, long) } else { jobs }, most);
}

/// Takes the jobs, or a sample of them, tells the summary, and fails with what did not hold.
pub(crate) fn take(what: &str, jobs: Vec<Job>, most: usize) {
    let counted = jobs.len();
    let jobs = sample(jobs, most);
    if is_long() {
        say(&format!("POINTS {}: {} {what} to try", test(), jobs.len()));
    }
    let Tried { points, missed, wrong } = all(&jobs);
    tally(what, points, wrong.len());
    if is_long() {
        say(&format!("POINTS {}: {points} of {counted} {what}, {missed} not reached, {} wrong", test(), wrong.len()));
    }
    assert!(wrong.is_empty(), "{} points:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(missed <= (jobs.len() / 20).max(1), "{missed} of {} points were not reached", jobs.len());
}

/// Does them all, as many side by side as there are processors.
pub(crate) fn all(jobs: &[Job]) -> Tried {
    let queue = Mutex::new(jobs.iter());
    let tried = Mutex::new(Tried::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(job) = next else { break };
                    let outcome = tried_again(job);
                    let mut tried = tried.lock().unwrap();
                    match outcome {
                        None => tried.missed += 1,
                        Some(wrong) => {
                            tried.points += 1;
                            if !wrong.is_empty() {
                                let report = format!("{job}\n  at {}\n  {}", job.call.text, wrong.join("\n  "));
                                say(&format!("POINT {report}\n"));
                                tried.wrong.push(report);
                            }
                        }
                    }
                }
            });
        }
    });
    tried.into_inner().unwrap()
}

/// What did not hold at a point; `None` when no run came to it.
///
/// On a busy machine threads take turns in another way, and a run does not come to the point, or only under another
/// number: then it is looked for among the points that the run did come to.
fn tried_again(job: &Job) -> Option<Vec<String>> {
    let mut job = job.clone();
    for _ in 0..6 {
        match one(&job) {
            Outcome::Tried(wrong) => return Some(wrong),
            Outcome::Missed(points) => job.key = same_call(&job, &points)?,
        }
    }
    None
}

/// The point of a run at which the job's call was made, or else the nearest one at which one of its kind was.
fn same_call(job: &Job, points: &[(Key, Call)]) -> Option<Key> {
    let like = |call: &Call| call.kind == job.call.kind && call.messages == job.call.messages;
    let same = points.iter().find(|(_, call)| like(call) && call.text == job.call.text);
    let near = || {
        let distance = |key: &Key| key.number.abs_diff(job.key.number);
        points.iter().filter(|(_, call)| like(call)).min_by_key(|(key, _)| (key.actor != job.key.actor, distance(key)))
    };
    same.or_else(near).map(|(key, _)| key.clone())
}

/// What came of one run.
enum Outcome {
    /// The deed was done, and this did not hold.
    Tried(Vec<String>),
    /// The run did not come to the point, but to these.
    Missed(Vec<(Key, Call)>),
}

fn one(job: &Job) -> Outcome {
    Place::with(|place| {
        let Job { scenario, key, deed, .. } = job;
        place.prepare(scenario);
        let before = Before::look();
        let (run, ended) = place.run(scenario, Some((key, *deed)));
        let call = match run.points.iter().find(|(at, _)| at == key) {
            Some((_, call)) if run.done => call,
            _ => return Outcome::Missed(run.points),
        };
        let mut wrong = match deed {
            Deed::KillBefore | Deed::KillAfter => promise::nothing_foreign_changed(place),
            Deed::Fail(_) | Deed::Spoil(_) => promise::after_failure(place, scenario, &before, (call, *deed), &ended),
            Deed::Signal(_) => promise::after_signal(place, scenario, &before, &ended),
        };
        // Of a call before which and after which it is killed, one is followed by `create`, the other by `destroy`.
        if *deed != Deed::KillAfter {
            wrong.extend(promise::converges(scenario.definition()));
        }
        wrong.extend(promise::destroys(place));
        if !wrong.is_empty() {
            wrong.push(format!("vmnet ended with {} and said: {}", ended.code(), ended.said.trim_end()));
        }
        Outcome::Tried(wrong)
    })
}
