//! [`Entries`]: the named tables of a section. Pure.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::At;

/// The tables of a section by name, each with the place of its key.
#[derive(Debug, Clone)]
pub struct Entries<K, V> {
    by_name: BTreeMap<K, At<V>>,
    whole: bool,
}

impl<K: Ord, V> Entries<K, V> {
    /// Adds a table.
    pub(super) fn insert(&mut self, name: K, table: At<V>) {
        self.by_name.insert(name, table);
    }

    /// The tables, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.by_name.values_mut().map(At::get_mut)
    }

    /// Something of the section could not be read; there is a problem about it already.
    pub(super) fn broken(&mut self) {
        self.whole = false;
    }

    /// Everything in the section could be read: what is not here is not in the file.
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), whole: true }
    }
}

impl<K, V> Deref for Entries<K, V> {
    type Target = BTreeMap<K, At<V>>;
    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}
