//! The tables of a wave: one transaction for each namespace, all namespaces at the same time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::OpError;
use crate::kernel::nft::{self, Nft, NftError};
use crate::observe::Recorded;
use crate::plan::Op;
use crate::state::{Ns, TableId};

/// The operations on tables of one namespace.
#[derive(Default)]
struct Batch<'a> {
    /// Each with its place in the wave.
    ops: Vec<(usize, &'a Op)>,
    text: String,
}

/// What became of an operation.
pub(super) struct Outcome<'a> {
    /// Its place in the wave.
    pub index: usize,
    /// Its table.
    pub id: &'a TableId,
    /// Whether it worked.
    pub result: Result<(), OpError>,
    /// What a table that was written looks like. Without it the next observation calls the table drifted, and it is
    /// written once more.
    pub recorded: Option<Recorded>,
}

/// Runs those operations of a wave that are about tables.
pub(super) fn run<'a>(nft: Option<&Nft>, ops: &'a [Op]) -> Vec<Outcome<'a>> {
    let mut batches = BTreeMap::<&Ns, Batch<'a>>::new();
    let mut outcomes = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let (id, text) = match op {
            Op::ReplaceTable { id, body } => (id, nft::replacing(id, body)),
            Op::ChangeTable { id, sets, body: _ } => (id, nft::changing(id, sets)),
            // Nothing to restore it from: better as it is than gone.
            Op::RestoreTable { id, listing } if listing.is_empty() => {
                outcomes.push(Outcome { index, id, result: Err(OpError::NoListing), recorded: None });
                continue;
            }
            Op::RestoreTable { id, listing } => (id, nft::restoring(id, listing)),
            Op::RemoveTable { id } => (id, nft::removing(id)),
            _ => continue,
        };
        let batch = batches.entry(&id.ns).or_default();
        batch.ops.push((index, op));
        batch.text.push_str(&text);
    }
    let slots: Vec<_> = batches.into_iter().map(|batch| Mutex::new(Some(batch))).collect();
    let work = |slot: &Mutex<Option<(&'a Ns, Batch<'a>)>>| {
        let batch = slot.lock().map_or(None, |mut slot| slot.take());
        batch.map_or_else(Vec::new, |(ns, batch)| batch.run(nft, ns))
    };
    std::thread::scope(|scope| {
        // All but the last have a thread of their own, where there can be one; this one does the rest.
        let Some((last, others)) = slots.split_last() else { return outcomes };
        let start = |slot| std::thread::Builder::new().spawn_scoped(scope, move || work(slot)).ok();
        let threads: Vec<_> = others.iter().map(start).collect();
        outcomes.extend(work(last));
        for (thread, slot) in threads.into_iter().zip(others) {
            let answers = thread.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            outcomes.extend(answers.unwrap_or_else(|| work(slot)));
        }
        outcomes
    })
}

impl<'a> Batch<'a> {
    fn run(self, nft: Option<&Nft>, ns: &Ns) -> Vec<Outcome<'a>> {
        let applied = match nft {
            Some(nft) => nft.apply(ns, &self.text).map(|()| nft).map_err(OpError::Nft),
            None => Err(OpError::NoNft),
        };
        let (nft, mut error) = match applied {
            Ok(nft) => (Some(nft), None),
            Err(error) => (None, Some(error)),
        };
        let gone = matches!(&error, Some(OpError::Nft(NftError::Kernel(error))) if error.is_gone());
        let outcome = |(index, op): (usize, &'a Op)| {
            let (id, body) = match op {
                Op::ReplaceTable { id, body } | Op::ChangeTable { id, sets: _, body } => (id, Some(body)),
                // What another tool made of it is no body of ours.
                Op::RestoreTable { id, listing: _ } | Op::RemoveTable { id } => (id, None),
                _ => return None,
            };
            let result = match nft {
                Some(_) => Ok(()),
                // With its namespace the table is gone too.
                None if gone && matches!(op, Op::RemoveTable { .. }) => Ok(()),
                // One transaction, one error: it goes to the first, and the others failed with it.
                None => Err(error.take().unwrap_or_else(|| OpError::Together { ns: ns.clone() })),
            };
            let recorded = nft.zip(body).and_then(|(nft, body)| Recorded::take(nft, id, body));
            Some(Outcome { index, id, result, recorded })
        };
        self.ops.into_iter().filter_map(outcome).collect()
    }
}
