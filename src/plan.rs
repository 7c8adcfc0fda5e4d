//! [`Plan`]: the ordered operations that turn one host state into another, as data.
//!
//! Everything is decided here and in the rooms before; the executor has one arm for each [`Op`] and takes no
//! decision. Operations name links, never an ifindex, so a plan can be printed, stored and compared. Pure.

mod apart;
mod diff;
mod drift;
mod elements;
mod hurt;
mod op;
mod phase;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use apart::Apart;
pub use diff::{Found, diff};
pub use drift::{Difference, Extent, Object, Problem, differences};
pub use elements::SetChange;
pub use hurt::{Hurt, Remote, Strangers, Tie, hurt, own_groups};
pub use op::{LinkChange, Op, Service};
pub use phase::Phase;

use crate::state::Feature;

/// Operations in waves. Those of one wave don't depend on each other: they go to the kernel pipelined.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The waves, in order. None is empty.
    pub waves: Vec<Wave>,
}

/// Operations that may run at the same time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wave {
    /// What this wave is about.
    pub phase: Phase,
    /// Its operations; never empty.
    pub ops: Vec<Op>,
}

impl Plan {
    /// A plan from operations in any order: each goes to its phase's wave, and keeps its place among the others of
    /// that phase.
    pub fn from_ops(ops: impl IntoIterator<Item = Op>) -> Self {
        let mut by_phase = std::collections::BTreeMap::<Phase, Vec<Op>>::new();
        for op in ops {
            by_phase.entry(Phase::of(&op)).or_default().push(op);
        }
        Self { waves: by_phase.into_iter().map(|(phase, ops)| Wave { phase, ops }).collect() }
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty()
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.waves.iter().map(|wave| wave.ops.len()).sum()
    }

    /// What the kernel must have for it.
    pub fn features(&self) -> BTreeSet<Feature> {
        self.ops().filter_map(Op::feature).collect()
    }

    /// Every operation in order.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.waves.iter().flat_map(|wave| &wave.ops)
    }
}
