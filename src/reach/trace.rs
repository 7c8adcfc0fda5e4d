//! Where a packet stopped: what to watch for ([`Plan`]), what was seen ([`Seen`]), and what that says ([`Stopped`]).
//! Pure.
//!
//! Made for several hosts at once: each watches its own points by the one plan while one of them sends, and what they
//! saw is put together ([`Seen::merge`]) before anything is concluded from it.

mod trail;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Expectation;
use super::points::{Point, Question, Spot, Stretch};
use super::way::way;
use crate::model::Model;
use crate::names::{HostName, IfName, Mac};
use trail::Trail;

/// So many tries are looked into at most: each costs sockets, and the first ones tell what is wrong.
pub const TRACES_MAX: usize = 8;

/// One try to look into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Its number, which its echo requests carry.
    pub number: u32,
    /// What of it shows on the way is a question and its answer, no echo request.
    pub only_questions: bool,
    /// Where it may be seen, segment by segment.
    pub way: Vec<Stretch>,
}

/// What to watch for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The number of the run, which its echo requests carry.
    pub run: u64,
    /// What is tried.
    pub tries: Vec<Traced>,
}

impl Plan {
    /// The plan for tries with their numbers, of a lab or of a view from their senders' host. `stands_in` says of which a probe is the sender, in the guest's place.
    pub fn new(
        model: &Model,
        run: u64,
        tries: &[(u32, &Expectation)],
        stands_in: impl Fn(&Expectation) -> bool,
    ) -> Self {
        let traced = |(number, expectation): &(u32, &Expectation)| Traced {
            number: *number,
            only_questions: expectation.how == super::How::L2,
            way: way(model, expectation, stands_in(expectation).then_some(run)),
        };
        Self { run, tries: tries.iter().map(traced).collect() }
    }

    /// Adds the tries of other senders in the same run.
    pub fn merge(&mut self, other: Self) {
        self.tries.extend(other.tries);
    }

    /// Every point of a host, each once.
    pub fn points(&self, host: Option<&HostName>) -> Vec<Point> {
        let all = self.tries.iter().flat_map(|traced| &traced.way).flat_map(|stretch| &stretch.points);
        let mut points: Vec<Point> = all.filter(|point| point.host.as_ref() == host).cloned().collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Whether a question, or its answer, is one to watch for.
    pub fn asks(&self, by: Option<Mac>, target: std::net::IpAddr) -> bool {
        let mut questions = self.tries.iter().flat_map(|traced| &traced.way).filter_map(|stretch| stretch.question);
        questions.any(|question| question.target == target && by.is_none_or(|by| by == question.by))
    }
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "kebab-case")]
pub enum Frame {
    /// The echo request of the try of that number.
    Request {
        /// The try.
        number: u32,
    },
    /// Its reply.
    Reply {
        /// The try.
        number: u32,
    },
    /// A question who has an address.
    Asks(Question),
    /// The answer to it.
    Has {
        /// Who had asked; `None`: it went to everybody.
        by: Option<Mac>,
        /// The address.
        target: std::net::IpAddr,
    },
}

/// A frame as it passed a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sighting {
    /// What it is.
    #[serde(flatten)]
    pub frame: Frame,
    /// The MAC that it came from.
    pub from: Mac,
    /// The MAC that it went to; `None`: to several.
    pub to: Option<Mac>,
    /// Its VLAN tag.
    pub tag: Option<u16>,
    /// It left by the link, rather than come in by it.
    pub outgoing: bool,
}

/// What is wrong with a link, so that nothing passes it or nothing can be seen there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Trouble {
    /// It is not there.
    Missing,
    /// It is down.
    Down,
    /// It has no carrier.
    NoCarrier,
    /// It is not a port of the bridge that it belongs to.
    Astray {
        /// The bridge.
        bridge: IfName,
    },
    /// It can't be watched.
    Blind {
        /// Why.
        why: String,
    },
}

/// What was seen at a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The point.
    pub point: Point,
    /// The link's name there; `None` where it is not known.
    pub link: Option<String>,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
    /// What passed, each kind of frame once.
    pub sightings: Vec<Sighting>,
}

/// What was seen at the points of a host; or of several, merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Each point once.
    pub points: Vec<Watched>,
}

impl Seen {
    /// Adds what another host saw.
    pub fn merge(&mut self, other: Self) {
        self.points.extend(other.points);
    }

    /// What a try's packets came to. `outcome` is that of the try while it was watched.
    pub fn explain(
        &self,
        plan: &Plan,
        number: u32,
        expectation: &Expectation,
        outcome: &super::Seen,
    ) -> Option<Stopped> {
        let traced = plan.tries.iter().find(|traced| traced.number == number)?;
        let by_point: BTreeMap<&Point, &Watched> =
            self.points.iter().map(|watched| (&watched.point, watched)).collect();
        let trail = Trail::new(traced, &by_point, &expectation.macs);
        let text = trail.text(expectation, outcome);
        Some(Stopped { request_last: trail.request_last(), reply_last: trail.reply_last(), text })
    }
}

/// Where the packets of a try were seen last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Where the request was seen last, or the question that goes before it.
    pub request_last: Option<Place>,
    /// Where the reply was seen last, or the answer to that question.
    pub reply_last: Option<Place>,
    /// All of it in words.
    pub text: String,
}

/// A point with the name of its link there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// The link.
    pub link: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let link = self.link.as_deref().map(|link| format!("{link} ")).unwrap_or_default();
        match &self.point.spot {
            Spot::Tap { vm, .. } => write!(f, "{link}(TAP of {vm})"),
            Spot::Bridge { network } => write!(f, "{link}(bridge of {network})"),
            Spot::SubInterface { network } => write!(f, "{link}(sub-interface of {network})"),
            Spot::Nic { uplink, .. } => write!(f, "{link}(NIC of {uplink})"),
            Spot::RouterOuter { network } => write!(f, "{link}(router's port on {network})"),
            Spot::RouterInner { network } => write!(f, "{link}(in the router, port to {network})"),
            Spot::Outside => write!(f, "{link}(in the router, port to the outside)"),
            Spot::HostPort => write!(f, "{link}(host's port to the router)"),
        }?;
        match &self.point.host {
            Some(host) => write!(f, " on {host}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
