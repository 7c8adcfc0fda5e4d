//! [`Key`]: what a key of the definition says. Pure.

use super::At;

/// What a key says. A value that could not be read is told apart from none, so that nobody is told to add what is
/// there.
#[derive(Debug, Clone, Default)]
pub enum Key<T> {
    /// The key is not there.
    #[default]
    Missing,
    /// Something is there that can't be read, or not as a whole, with what could be; there is a problem about it
    /// already.
    Wrong(Option<At<T>>),
    /// A value and its place.
    Is(At<T>),
}

impl<T> Key<T> {
    /// The value, as far as there is one.
    pub fn as_ref(&self) -> Option<&At<T>> {
        match self {
            Key::Is(value) => Some(value),
            Key::Wrong(value) => value.as_ref(),
            Key::Missing => None,
        }
    }

    /// The value alone, as far as there is one.
    pub fn value(&self) -> Option<&T> {
        self.as_ref().map(At::get_ref)
    }

    /// The key is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Key::Missing)
    }

    /// The key is there and can't be read as a whole.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Key::Wrong(_))
    }

    /// This one; where it is not there, the other.
    pub fn or<'a>(&'a self, other: &'a Self) -> &'a Self {
        if self.is_missing() { other } else { self }
    }
}

impl<T> Key<Vec<At<T>>> {
    /// The values of a list that could be read; none where there is no list.
    pub fn items(&self) -> impl Iterator<Item = &At<T>> {
        self.value().into_iter().flatten()
    }
}
