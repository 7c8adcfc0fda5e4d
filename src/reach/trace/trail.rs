//! From what was seen at each point to where a packet stopped, in words. Pure.

use std::collections::BTreeMap;

use super::super::points::{Point, Question, Spot};
use super::super::{Expect, Expectation, Seen};
use super::{Frame, Place, Sighting, Traced, Trouble, Watched};
use crate::names::Mac;

/// One step of a way, and what of the try was seen there.
struct Step<'a> {
    stretch: usize,
    point: &'a Point,
    watched: Option<&'a Watched>,
    request: bool,
    reply: bool,
    asks: bool,
    has: bool,
    /// The tag of frames that passed with another than the network's.
    stray: Option<Option<u16>>,
    /// Who answered the question.
    answered_by: Option<Mac>,
}

impl Step<'_> {
    /// Whether anything would have been seen.
    fn is_watched(&self) -> bool {
        self.watched.is_some_and(|watched| !matches!(watched.trouble, Some(Trouble::Blind { .. } | Trouble::Missing)))
    }

    /// Whether that nothing was seen says something: nobody looked, or nobody could, says nothing.
    fn tells(&self) -> bool {
        self.watched.is_some_and(|watched| !matches!(watched.trouble, Some(Trouble::Blind { .. })))
    }

    fn place(&self) -> Place {
        let link = self.watched.and_then(|watched| watched.link.clone());
        Place { point: self.point.clone(), link }
    }

    /// With what explains that nothing passed.
    fn missed(&self) -> String {
        let mut text = self.place().to_string();
        if let Some(trouble) = self.watched.and_then(|watched| watched.trouble.as_ref()) {
            text += &match trouble {
                Trouble::Missing => ", which is not there".to_owned(),
                Trouble::Down => ", which is down".to_owned(),
                Trouble::NoCarrier => ", which has no carrier: the other end is down or nobody has it open".to_owned(),
                Trouble::Astray { bridge } => format!(", which is not a port of {bridge}"),
                Trouble::Blind { .. } => String::new(),
            };
        }
        if let (Some(stray), Spot::Nic { vlan, .. }) = (self.stray, &self.point.spot) {
            let named = |tag: Option<u16>| tag.map_or("without a tag".to_owned(), |tag| format!("with tag {tag}"));
            text += &format!(", where it passed {} and not {}", named(stray), named(vlan.map(|vlan| vlan.get())));
        }
        text
    }
}

/// The steps of a try.
pub(super) struct Trail<'a> {
    traced: &'a Traced,
    /// Whose answer to a question counts; empty: anybody's.
    macs: &'a [Mac],
    steps: Vec<Step<'a>>,
}

impl<'a> Trail<'a> {
    pub(super) fn new(traced: &'a Traced, by_point: &BTreeMap<&Point, &'a Watched>, macs: &'a [Mac]) -> Self {
        let mut steps = Vec::new();
        for (number, stretch) in traced.way.iter().enumerate() {
            for point in &stretch.points {
                let watched = by_point.get(point).copied();
                steps.push(step(traced, number, stretch.question, point, watched));
            }
        }
        Self { traced, macs, steps }
    }

    /// The step that the request came to, where it came to one.
    fn request(&self) -> Option<usize> {
        self.steps.iter().rposition(|step| step.request)
    }

    /// The step that its reply came back to.
    fn reply(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.reply)
    }

    /// The stretch on which the question matters: the one that the request has not entered, though nothing keeps it.
    fn waits(&self) -> Option<usize> {
        let Some(last) = self.request() else { return Some(0) };
        let next = self.steps.get(last + 1)?;
        (next.stretch != self.steps[last].stretch).then_some(next.stretch)
    }

    fn on(&self, stretch: usize, what: impl Fn(&Step<'a>) -> bool) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.steps.len()).filter(move |at| self.steps[*at].stretch == stretch && what(&self.steps[*at]))
    }

    pub(super) fn request_last(&self) -> Option<Place> {
        let asked = self.waits().and_then(|stretch| self.on(stretch, |step| step.asks).next_back());
        asked.or(self.request()).map(|at| self.steps[at].place())
    }

    pub(super) fn reply_last(&self) -> Option<Place> {
        let answered = self.waits().and_then(|stretch| self.on(stretch, |step| step.has).next());
        self.reply().or(answered).map(|at| self.steps[at].place())
    }

    pub(super) fn text(&self, expectation: &Expectation, outcome: &Seen) -> String {
        if let Some(why) = self.blind() {
            return why;
        }
        match (expectation.expect, outcome) {
            (_, Seen::Untested { reason } | Seen::Broken { reason }) => format!("not looked into: {reason}"),
            (Expect::Reach, Seen::Reached) => "it answered when it was tried again".to_owned(),
            (_, Seen::Reached) => self.passed(),
            (Expect::Reach, Seen::Silent | Seen::Refused) => self.stopped(),
            (_, Seen::Silent | Seen::Refused) => "no answer when it was tried again".to_owned(),
        }
    }

    /// Why nothing can be said, where nothing was watched at all.
    fn blind(&self) -> Option<String> {
        if self.steps.is_empty() {
            return Some("not looked into: none of its way is the lab's".to_owned());
        }
        if self.steps.iter().any(Step::is_watched) {
            return None;
        }
        let why = self.steps.iter().find_map(|step| match &step.watched?.trouble {
            Some(Trouble::Blind { why }) => Some(why.clone()),
            Some(Trouble::Missing) => Some(format!("{} is not there", step.place())),
            _ => None,
        });
        Some(format!("not known where it stopped: {}", why.unwrap_or_else(|| "nobody watched".to_owned())))
    }

    /// What was answered and should not have been: its way.
    fn passed(&self) -> String {
        let list = |steps: Vec<&Step<'_>>| steps.iter().map(|step| step.place().to_string()).collect::<Vec<_>>();
        let there = list(self.steps.iter().filter(|step| step.request).collect());
        let back = list(self.steps.iter().rev().filter(|step| step.reply).collect());
        match (there.is_empty(), back.is_empty()) {
            (true, true) => "answered, and seen nowhere on the lab's links".to_owned(),
            (false, true) => format!("request passed {}; reply seen nowhere", there.join(", ")),
            (true, false) => format!("request seen nowhere; reply passed {}", back.join(", ")),
            (false, false) => format!("request passed {}; reply passed {}", there.join(", "), back.join(", ")),
        }
    }

    /// What was not answered: where it ended.
    fn stopped(&self) -> String {
        if let Some(at) = self.reply() {
            return self.lost_reply(at, "reply");
        }
        let last = self.steps.len() - 1;
        match self.request() {
            Some(at) if at == last => self.unanswered("request", at, "reply"),
            found => self.lost_request(found),
        }
    }

    fn lost_request(&self, found: Option<usize>) -> String {
        let Some(stretch) = self.waits().filter(|_| !self.traced.only_questions) else {
            return self.lost("request", found);
        };
        let asked = self.on(stretch, |step| step.asks).next_back();
        let answered = self.on(stretch, |step| step.has).next();
        let before = found.map(|at| format!("request seen last on {}; ", self.steps[at].place())).unwrap_or_default();
        let target = self.traced.way[stretch].question.map(|question| question.target.to_string());
        let question = format!("the question who has {}", target.unwrap_or_default());
        match (asked, answered) {
            (None, None) => self.lost("request", found),
            (_, Some(at)) if self.on(stretch, Step::is_watched).next() == Some(at) => {
                let next = found.map_or("it was never sent", |_| "it was not sent on");
                format!("{before}{question} was answered, and {next}")
            }
            (_, Some(at)) => before + &self.lost_reply(at, &format!("the answer to {question}")),
            (Some(at), None) => match self.on(stretch, |_| true).next_back() {
                Some(end) if end == at => before + &self.unanswered(&question, at, "answer"),
                _ => before + &self.lost(&question, Some(at)),
            },
        }
    }

    /// `what` came to the end of its way.
    fn unanswered(&self, what: &str, at: usize, answer: &str) -> String {
        let step = &self.steps[at];
        match &step.point.spot {
            Spot::HostPort | Spot::Nic { .. } => {
                format!("{what} left the lab at {}; no {answer} came back", step.place())
            }
            _ => format!("{what} reached {}; no {answer} came from it", step.place()),
        }
    }

    /// `what` came to this step, and not to the next one.
    fn lost(&self, what: &str, found: Option<usize>) -> String {
        let next = self.steps.iter().skip(found.map_or(0, |at| at + 1)).find(|step| step.tells());
        match (found.map(|at| &self.steps[at]), next) {
            (None, Some(next)) => format!("{what} never seen, not even on {}", next.missed()),
            (Some(last), Some(next)) => last_seen(what, last, next),
            (Some(last), None) => format!("{what} seen last on {}", last.place()),
            (None, None) => format!("{what} never seen"),
        }
    }

    fn is_somebody_else(&self, mac: Mac) -> bool {
        !self.macs.is_empty() && !self.macs.contains(&mac)
    }

    /// `what` came back to this step.
    fn lost_reply(&self, at: usize, what: &str) -> String {
        let step = &self.steps[at];
        let before = self.steps[..at].iter().rev().find(|step| step.tells());
        match before {
            Some(before) => last_seen(what, step, before),
            None => match step.answered_by.filter(|mac| self.traced.only_questions && self.is_somebody_else(*mac)) {
                Some(mac) => format!("{what} seen on {}, but from {mac}, which is somebody else", step.place()),
                None => format!("{what} seen on {}, and the sender did not take it", step.place()),
            },
        }
    }
}

fn last_seen(what: &str, last: &Step<'_>, next: &Step<'_>) -> String {
    let in_router = |step: &Step<'_>| matches!(step.point.spot, Spot::RouterInner { .. } | Spot::Outside);
    let (place, missed) = (last.place(), next.missed());
    if in_router(last) && in_router(next) && last.point.host == next.point.host {
        format!("{what} seen last on {place}; the router did not send it on to {missed}")
    } else {
        format!("{what} seen last on {place}; never on {missed}")
    }
}

fn step<'a>(
    traced: &Traced,
    stretch: usize,
    question: Option<Question>,
    point: &'a Point,
    watched: Option<&'a Watched>,
) -> Step<'a> {
    let mut step = Step {
        stretch,
        point,
        watched,
        request: false,
        reply: false,
        asks: false,
        has: false,
        stray: None,
        answered_by: None,
    };
    let by = question.map(|question| question.by);
    for sighting in watched.iter().flat_map(|watched| &watched.sightings) {
        let Sighting { frame, from, to, tag, outgoing: _ } = sighting;
        // On its own segment only: between two subnets of one bridge the same packet passes twice.
        let ours = |mac: Option<Mac>| by.is_none() || mac.is_none() || mac == by;
        let (asks, has, request, reply) = match frame {
            Frame::Asks(asked) => (Some(*asked) == question, false, false, false),
            Frame::Has { by, target } => {
                let answers = |asked: Question| asked.target == *target && by.is_none_or(|by| by == asked.by);
                (false, question.is_some_and(answers), false, false)
            }
            Frame::Request { number } => (false, false, *number == traced.number && ours(Some(*from)), false),
            Frame::Reply { number } => (false, false, false, *number == traced.number && ours(*to)),
        };
        if !(asks || has || request || reply) {
            continue;
        }
        if let Spot::Nic { vlan, .. } = &point.spot
            && vlan.map(|vlan| vlan.get()) != *tag
        {
            step.stray = Some(*tag);
            continue;
        }
        step.asks |= asks;
        step.has |= has;
        step.request |= request || (asks && traced.only_questions);
        step.reply |= reply || (has && traced.only_questions);
        if has {
            step.answered_by = Some(*from);
        }
    }
    step
}
