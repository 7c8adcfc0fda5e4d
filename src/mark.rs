//! [`Mark`]: how an object says whose it is. Pure.
//!
//! Links carry it as their alias, a namespace as the alias of its `lo`, an nftables table as its comment, a file as
//! a line of text.

use std::fmt;
use std::str::FromStr;

use crate::names::LabName;

/// Lab, role and full name of an object, written `vmnet:<lab>:<role>:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Whose it is.
    pub lab: LabName,
    /// What it is there for, for example `bridge`, `port` or `nic`.
    pub role: String,
    /// Its full name within the role, for example the network's or `vm1.0`.
    pub name: String,
}

impl Mark {
    /// The mark of an object of `lab`.
    pub fn new(lab: &LabName, role: &str, name: impl fmt::Display) -> Self {
        Self { lab: lab.clone(), role: role.to_owned(), name: name.to_string() }
    }

    /// Whether `text` marks an object of `lab`.
    pub fn is_of(text: &str, lab: &LabName) -> bool {
        text.parse::<Mark>().is_ok_and(|mark| mark.lab == *lab)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vmnet:{}:{}:{}", self.lab, self.role, self.name)
    }
}

/// The text is no mark of vmnet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no vmnet mark")]
pub struct NotAMark;

impl FromStr for Mark {
    type Err = NotAMark;
    fn from_str(text: &str) -> Result<Self, NotAMark> {
        let mut parts = text.splitn(4, ':');
        let (Some("vmnet"), Some(lab), Some(role), Some(name)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAMark);
        };
        Ok(Self { lab: lab.parse().map_err(|_| NotAMark)?, role: role.into(), name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back() {
        let lab: LabName = "campus".parse().unwrap();
        let mark = Mark::new(&lab, "nic", "vm1.0");
        assert_eq!(mark.to_string(), "vmnet:campus:nic:vm1.0");
        assert_eq!(mark.to_string().parse(), Ok(mark));
    }

    #[test]
    fn a_foreign_alias_is_no_mark() {
        for text in ["", "eno1", "vmnet", "vmnet:campus", "vmnet:$(id):a:b", "VMNET:campus:a:b"] {
            assert!(text.parse::<Mark>().is_err(), "{text:?}");
        }
        assert!(!Mark::is_of("vmnet:other:a:b", &"campus".parse().unwrap()));
    }
}
