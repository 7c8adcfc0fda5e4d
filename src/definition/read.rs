//! [`Reader`]: takes keys out of a table, remembers which are known, and complains about the rest. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::value::FromValue;
use super::{At, Entries, Problem, Problems};

/// One table of the definition while it is being read.
pub(super) struct Reader<'a, 'i> {
    table: &'a DeTable<'i>,
    what: &'a str,
    known: Vec<&'static str>,
}

impl<'a, 'i> Reader<'a, 'i> {
    /// Reads `table`; `what` names it in complaints, for example `[network.web]`.
    pub(super) fn new(table: &'a DeTable<'i>, what: &'a str) -> Self {
        Self { table, what, known: Vec::new() }
    }

    /// The value of a key as written.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'a At<DeValue<'i>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Whether a key is missing; asking makes it no known key.
    pub(super) fn lacks(&self, key: &str) -> bool {
        self.table.get(key).is_none()
    }

    /// The value of a key.
    pub(super) fn get<T: FromValue>(&mut self, key: &'static str, problems: &mut Problems) -> Option<At<T>> {
        T::from_value(self.raw(key)?, problems)
    }

    /// The value of a key that may be one or a list, under its singular name.
    pub(super) fn list<T: FromValue>(&mut self, key: &'static str, problems: &mut Problems) -> Option<At<Vec<At<T>>>> {
        let value = self.raw(key)?;
        let items = match value.get_ref() {
            DeValue::Array(array) => array.iter().filter_map(|item| T::from_value(item, problems)).collect(),
            _ => vec![T::from_value(value, problems)?],
        };
        Some(At::new(value.span(), items))
    }

    /// A section of named tables, `[what.NAME]`.
    pub(super) fn section<K, V>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        read: impl Fn(&DeTable<'i>, Range<usize>, &str, &mut Problems) -> V,
    ) -> Entries<K, V>
    where
        K: FromStr<Err = crate::names::NameError> + Ord,
    {
        let mut entries = BTreeMap::new();
        let Some(value) = self.raw(key) else { return entries };
        let Some(section) = value.get_ref().as_table() else {
            problems.push(
                Problem::new(value.span(), format!("{key} is a section of named tables"))
                    .help(format!("write [{key}.NAME], with the keys below it")),
            );
            return entries;
        };
        for (name, value) in section {
            let Some(table) = value.get_ref().as_table() else {
                problems.push(
                    Problem::new(value.span(), format!("{key}.{} is not a table", name.get_ref().escape_debug()))
                        .help(format!("write [{key}.NAME], with the keys below it")),
                );
                continue;
            };
            let what = format!("[{key}.{}]", name.get_ref().escape_debug());
            let entry = read(table, name.span(), &what, problems);
            match name.get_ref().parse() {
                Ok(parsed) => {
                    entries.insert(parsed, At::new(name.span(), entry));
                }
                Err(error) => problems.push(Problem::new(name.span(), error.to_string()).help(error.help())),
            }
        }
        entries
    }

    /// Complains about every key that nothing asked for.
    pub(super) fn finish(self, problems: &mut Problems) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let problem = Problem::new(key.span(), format!("{} has no key {:?}", self.what, name));
            let known = || format!("the keys of {} are {}", self.what, self.known.join(", "));
            problems.push(match nearest(name, &self.known) {
                Some(near) => problem.label(format!("did you mean `{near}`?")).help(known()),
                None => problem.help(known()),
            });
        }
    }
}

/// The known word that is near enough to be what was meant: at most a third of its letters wrong.
pub(crate) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let near = |candidate: &str| {
        // `subnets` for `subnet`, `gw` for `gateway` aside: count edits.
        let distance = edit_distance(word, candidate);
        (distance <= candidate.len().max(word.len()).div_ceil(3)).then_some(distance)
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
        assert_eq!(nearest("zebra", &["subnet", "vlan"]), None);
    }
}
