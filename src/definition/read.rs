//! [`Reader`]: takes keys out of a table and complains about those that it does not know. Pure.

use std::ops::Range;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::sections::TABLES;
use super::value::{FromValue, wrong};
use super::{At, Entries, Key, Problem, Problems};
use crate::names::{NameError, quoted};

/// One table of the definition while it is being read.
pub(super) struct Reader<'a, 'i> {
    table: &'a DeTable<'i>,
    keys: &'static [&'static str],
    /// Keys that are not there, but something is that was probably meant to be them.
    meant: Vec<&'static str>,
    read: Vec<&'static str>,
}

impl<'a, 'i> Reader<'a, 'i> {
    /// Reads `table`, whose keys are `keys`, and complains about all others. `what` names it in complaints, for
    /// example `network.web`.
    pub(super) fn new(
        table: &'a DeTable<'i>,
        what: &str,
        keys: &'static [&'static str],
        problems: &mut Problems,
    ) -> Self {
        let mut meant = Vec::new();
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if keys.contains(&name) {
                continue;
            }
            let problem = Problem::new(key.span(), format!("{what} has no key {}", quoted(name)));
            // What is there already was not meant.
            let missing: Vec<&'static str> = keys.iter().copied().filter(|key| table.get(*key).is_none()).collect();
            // Of sections another one may stand there all the same: [netwrk.c] beside [network.b].
            let is_table = |value: Option<&At<DeValue<'i>>>| value.is_some_and(|at| at.get_ref().as_table().is_some());
            let sections: Vec<&'static str> = keys.iter().copied().filter(|key| is_table(table.get(*key))).collect();
            let section = nearest(name, &sections).filter(|_| is_table(table.get(name)));
            problems.push(match (nearest(name, &missing).or(section), belongs(name)) {
                (Some(near), _) => {
                    meant.push(near);
                    problem.label(format!("did you mean {near}?")).help(list_of(keys))
                }
                (None, Some(tables)) => problem.help(format!("{}; {name} belongs to {tables}", list_of(keys))),
                (None, None) => problem.help(list_of(keys)),
            });
        }
        Self { table, keys, meant, read: Vec::new() }
    }

    fn raw(&mut self, key: &'static str) -> Raw<'a, 'i> {
        self.read.push(key);
        match self.table.get(key) {
            Some(value) => Raw::Is(value),
            None if self.meant.contains(&key) => Raw::Meant,
            None => Raw::Missing,
        }
    }

    /// The value of a key.
    pub(super) fn get<T: FromValue>(&mut self, key: &'static str, problems: &mut Problems) -> Key<T> {
        let value = match self.raw(key) {
            Raw::Is(value) => value,
            Raw::Meant => return Key::Wrong(None),
            Raw::Missing => return Key::Missing,
        };
        T::from_value(value, problems).map_or(Key::Wrong(None), Key::Is)
    }

    /// The value of a key that may be one or a list, under its singular name.
    pub(super) fn list<T: FromValue>(&mut self, key: &'static str, problems: &mut Problems) -> Key<Vec<At<T>>> {
        let value = match self.raw(key) {
            Raw::Is(value) => value,
            Raw::Meant => return Key::Wrong(None),
            Raw::Missing => return Key::Missing,
        };
        let items: Vec<Option<At<T>>> = match value.get_ref() {
            DeValue::Array(array) => array.iter().map(|item| T::from_value(item, problems)).collect(),
            _ => vec![T::from_value(value, problems)],
        };
        let whole = items.iter().all(Option::is_some);
        let items = At::new(value.span(), items.into_iter().flatten().collect());
        if whole { Key::Is(items) } else { Key::Wrong(Some(items)) }
    }

    /// A table that stands under one key.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        what: &str,
        problems: &mut Problems,
        read: impl Fn(&DeTable<'i>, Range<usize>, &str, &mut Problems) -> T,
    ) -> Key<T> {
        let value = match self.raw(key) {
            Raw::Is(value) => value,
            Raw::Meant => return Key::Wrong(None),
            Raw::Missing => return Key::Missing,
        };
        let Some(table) = value.get_ref().as_table() else {
            let problem = wrong(value, &format!("{what} is a table"));
            problems.push(problem.help(format!("write [{what}] with its keys on the lines below it")));
            return Key::Wrong(None);
        };
        Key::Is(At::new(value.span(), read(table, value.span(), what, problems)))
    }

    /// A section of named tables, `[what.NAME]`.
    pub(super) fn section<K, V>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        read: impl Fn(&DeTable<'i>, Range<usize>, &str, &mut Problems) -> V,
    ) -> Entries<K, V>
    where
        K: FromStr<Err = NameError> + Ord,
    {
        let mut entries = Entries::default();
        let value = match self.raw(key) {
            Raw::Is(value) => value,
            Raw::Meant => {
                entries.broken();
                return entries;
            }
            Raw::Missing => return entries,
        };
        let Some(section) = value.get_ref().as_table() else {
            let problem = wrong(value, &format!("{key} is a section of named tables"));
            problems.push(problem.help(format!("write [{key}.NAME] with its keys on the lines below it")));
            entries.broken();
            return entries;
        };
        if self.meant.contains(&key) {
            entries.broken();
        }
        for (name, value) in section {
            let parsed = name.get_ref().parse::<K>();
            // Only what is no name needs quotes and may be long.
            let what = match &parsed {
                Ok(_) => format!("{key}.{}", name.get_ref()),
                Err(_) => format!("{key}.{}", quoted(name.get_ref())),
            };
            let table = value.get_ref().as_table();
            if table.is_none() {
                let problem = wrong(value, &format!("{what} is a table"));
                problems.push(problem.help(format!("write [{key}.NAME] with its keys on the lines below it")));
            }
            if let Err(error) = &parsed {
                problems.push(Problem::new(name.span(), error.to_string()).help(error.help()));
            }
            // The keys are read whatever the name is: all problems at once.
            let table = table.map(|table| At::new(name.span(), read(table, name.span(), &what, problems)));
            match (parsed, table) {
                (Ok(name), Some(table)) => entries.insert(name, table),
                _ => entries.broken(),
            }
        }
        entries
    }

    /// Ends the reading of a table; every key of it was asked for, so that none is accepted and ignored.
    pub(super) fn finish(self) {
        debug_assert_eq!(self.keys, self.read, "the keys of a table are those that are read");
    }
}

fn list_of(keys: &[&str]) -> String {
    match keys {
        [only] => format!("its only key is {only}"),
        _ => format!("its keys are {}", keys.join(", ")),
    }
}

/// The tables that have this key, where it is known at all.
fn belongs(key: &str) -> Option<String> {
    let tables = TABLES.iter().filter(|(_, keys)| keys.contains(&key));
    let tables: Vec<&str> = tables.map(|(table, _)| *table).collect();
    (!tables.is_empty()).then(|| tables.join(" and "))
}

/// What stands under a key.
enum Raw<'a, 'i> {
    Missing,
    Meant,
    Is(&'a At<DeValue<'i>>),
}

/// The known word that is near enough to be what was meant: one letter in three wrong at most, or one begins with the
/// other (`mem`, `nics`).
pub(super) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let near = |candidate: &str| {
        let begins =
            word.len().min(candidate.len()) >= 3 && (candidate.starts_with(word) || word.starts_with(candidate));
        let distance = edit_distance(word, candidate);
        (begins || distance <= (candidate.len().max(word.len()) / 3).max(1)).then_some(distance)
    };
    known.iter().filter_map(|candidate| Some((near(candidate)?, *candidate))).min().map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substitute = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = substitute.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("subnets", &["subnet", "vlan"]), Some("subnet"));
        assert_eq!(nearest("valn", &["subnet", "vlan"]), Some("vlan"));
        assert_eq!(nearest("net", &["address", "network"]), Some("network"));
        assert_eq!(nearest("vlan", &["lab", "network"]), None);
        assert_eq!(nearest("zebra", &["subnet", "vlan"]), None);
        assert_eq!(nearest("", &["subnet", "vlan"]), None);
    }
}
