//! What differs between two bodies of a table when that is only what their sets hold. Pure.
//!
//! A table that is replaced whole can lose a packet: the kernel first shows the new rules, then fills sets of
//! concatenated intervals, then takes the old chains, which have no rules any more and still drop, from their hooks
//! (nf_tables_commit in net/netfilter/nf_tables_api.c). Elements that come and go disturb no packet but those they are
//! about, and the counters go on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What changes in one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetChange {
    /// The set's name.
    pub set: String,
    /// Elements that go, in nft syntax.
    pub remove: Vec<String>,
    /// Elements that come, in nft syntax.
    pub add: Vec<String>,
}

/// The changes that make one body of the other; `None` when more differs than elements.
pub(super) fn changes(from: &str, to: &str) -> Option<Vec<SetChange>> {
    let (frame, held) = apart(from);
    let (wanted_frame, wanted) = apart(to);
    // Of equal frames the sets are the same.
    let change = |(set, now): (&str, BTreeSet<&str>)| {
        let old = held.get(set)?;
        let owned = |elements: BTreeSet<&str>| elements.into_iter().map(str::to_owned).collect();
        let (remove, add) = (owned(old - &now), owned(&now - old));
        Some(SetChange { set: set.to_owned(), remove, add })
    };
    (frame == wanted_frame).then(|| {
        let all = wanted.into_iter().filter_map(change);
        all.filter(|change| !change.remove.is_empty() || !change.add.is_empty()).collect()
    })
}

/// A body without elements, and the elements of each set. Elements stand on one line, as this program writes them.
fn apart(body: &str) -> (Vec<&str>, BTreeMap<&str, BTreeSet<&str>>) {
    let (mut frame, mut sets) = (Vec::new(), BTreeMap::<&str, BTreeSet<&str>>::new());
    let mut set = None;
    for line in body.lines() {
        let text = line.trim();
        let elements = text.strip_prefix("elements = { ").and_then(|rest| rest.strip_suffix(" }"));
        if let Some((elements, set)) = elements.zip(set) {
            sets.entry(set).or_default().extend(elements.split(", "));
            continue;
        }
        if let Some(name) = text.strip_prefix("set ").and_then(|rest| rest.strip_suffix(" {")) {
            sets.entry(name).or_default();
            set = Some(name);
        }
        frame.push(line);
    }
    (frame, sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\tset in {\n\t\ttype ifname\n\t\telements = { \"a\", \"b\" }\n\t}\n\tset none {\n\t\ttype ifname\n\t}\n\tchain c {\n\t}";

    fn change(set: &str, remove: &[&str], add: &[&str]) -> SetChange {
        let owned = |elements: &[&str]| elements.iter().map(|&element| element.to_owned()).collect();
        SetChange { set: set.to_owned(), remove: owned(remove), add: owned(add) }
    }

    #[test]
    fn elements_come_and_go() {
        let new = OLD
            .replace("\"a\", ", "")
            .replace("none {\n\t\ttype ifname\n", "none {\n\t\ttype ifname\n\t\telements = { \"c\", \"d\" }\n");
        let there = [change("in", &["\"a\""], &[]), change("none", &[], &["\"c\"", "\"d\""])];
        assert_eq!(changes(OLD, &new).unwrap(), there);
        let back = [change("in", &[], &["\"a\""]), change("none", &["\"c\"", "\"d\""], &[])];
        assert_eq!(changes(&new, OLD).unwrap(), back);
        assert_eq!(changes(OLD, OLD), Some(Vec::new()));
    }

    #[test]
    fn whatever_else_differs_is_no_change_of_elements() {
        for new in [
            OLD.replace("chain c", "chain d"),
            OLD.replace("none {\n\t\ttype ifname", "none {\n\t\ttype ipv4_addr"),
            OLD.replace("set in", "set out"),
            format!("{OLD}\n\tchain more {{\n\t}}"),
        ] {
            assert_eq!(changes(OLD, &new), None, "{new}");
        }
    }
}
