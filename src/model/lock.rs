//! [`Lock`]: what was chosen by rule and must never move, kept beside the definition as `net.lock`. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use serde::{Deserialize, Serialize};

use crate::names::{HostName, LabName, Mac, NetName, VmName, quoted};

/// The version that this program writes and the only one it reads.
const VERSION: u32 = 1;

const HEADER: &str = "# Addresses and MACs that vmnet chose by rule. Keep this file beside the definition, in git too:\n\
                      # with it, adding a guest moves nobody.\n";

/// A nic by guest, network and its number among the guest's nics on that network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NicKey {
    /// The guest.
    pub vm: VmName,
    /// The network.
    pub network: NetName,
    /// Counted from 0.
    pub number: usize,
}

impl fmt::Display for NicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.vm, self.network, self.number)
    }
}

impl FromStr for NicKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or_else(|| format!("{} is not guest/network/number", quoted(text)));
        let key = Self {
            vm: next()?.parse().map_err(|error| format!("{error}"))?,
            network: next()?.parse().map_err(|error| format!("{error}"))?,
            number: next()?.parse().map_err(|_| format!("{} does not end in a number", quoted(text)))?,
        };
        match parts.next() {
            None => Ok(key),
            Some(_) => Err(format!("{} has more than three parts", quoted(text))),
        }
    }
}

impl TryFrom<String> for NicKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NicKey> for String {
    fn from(key: NicKey) -> String {
        key.to_string()
    }
}

/// Addresses chosen by rule, and MACs chosen because the first choice collided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// The addresses of nics that have none in the definition.
    #[serde(default, rename = "address")]
    pub addresses: BTreeMap<NicKey, Vec<IpAddr>>,
    /// The MACs that settled a collision inside the definition.
    #[serde(default, rename = "mac")]
    pub macs: BTreeMap<NicKey, Mac>,
    /// Each host's subnets of networks that are routed between hosts.
    #[serde(default, rename = "share")]
    pub shares: BTreeMap<ShareKey, Vec<IpNet>>,
    /// What is another lab's that runs from the same file: addresses don't depend on a lab's name, MACs do.
    #[serde(default, rename = "lab")]
    pub others: BTreeMap<LabName, OfLab>,
}

/// What a lock file holds for a lab that has not the name which the definition says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfLab {
    /// As [`Lock::macs`].
    #[serde(rename = "mac")]
    pub macs: BTreeMap<NicKey, Mac>,
}

/// One host's part of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShareKey {
    /// The network.
    pub network: NetName,
    /// The host.
    pub host: HostName,
}

impl fmt::Display for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.host)
    }
}

impl TryFrom<String> for ShareKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (network, host) = text.split_once('/').ok_or_else(|| format!("{} is not network/host", quoted(&text)))?;
        let network = network.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { network, host: host.parse().map_err(|error| format!("{error}"))? })
    }
}

impl From<ShareKey> for String {
    fn from(key: ShareKey) -> String {
        key.to_string()
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            version: VERSION,
            addresses: BTreeMap::new(),
            macs: BTreeMap::new(),
            shares: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }
}

/// A lock file that can't be used. It is never guessed at: a wrong guess would move addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// No TOML, or not of this form.
    #[error("the lock file is damaged: {0}; restore it from version control, or delete it to choose anew")]
    Damaged(String),
    /// Two nics have one address of a network, or one MAC: most likely two branches were merged.
    #[error(
        "the lock file gives {what} to {} and to {}; remove one of the two lines, and it gets a new one",
        .nics[0], .nics[1]
    )]
    Twice {
        /// The address or MAC.
        what: String,
        /// The two nics.
        nics: Box<[NicKey; 2]>,
    },
    /// Written by another version of vmnet.
    #[error("the lock file has version {0}, this vmnet reads {VERSION}; use the vmnet that wrote it")]
    Version(u32),
}

impl Lock {
    /// Reads a lock file's text.
    ///
    /// # Errors
    /// [`LockError`] when it is damaged, gives something to two nics, or is of another version.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let damaged = |error: toml::de::Error| LockError::Damaged(error.message().to_owned());
        let head: Head = toml::from_str(text).map_err(damaged)?;
        if head.version != VERSION {
            return Err(LockError::Version(head.version));
        }
        let lock: Self = toml::from_str(text).map_err(damaged)?;
        lock.each_once()?;
        Ok(lock)
    }

    fn each_once(&self) -> Result<(), LockError> {
        let twice = |what: String, first: &NicKey, second: &NicKey| {
            Err(LockError::Twice { what, nics: Box::new([first.clone(), second.clone()]) })
        };
        let mut addresses = BTreeMap::new();
        for (key, list) in &self.addresses {
            for address in list {
                if let Some(first) = addresses.insert((&key.network, address), key) {
                    return twice(address.to_string(), first, key);
                }
            }
        }
        for own in std::iter::once(&self.macs).chain(self.others.values().map(|other| &other.macs)) {
            let mut macs = BTreeMap::new();
            for (key, mac) in own {
                if let Some(first) = macs.insert(mac, key) {
                    return twice(mac.to_string(), first, key);
                }
            }
        }
        Ok(())
    }

    /// What counts for one lab of the file: `None` is the one whose name the file says.
    #[must_use]
    pub fn of(&self, alias: Option<&LabName>) -> Self {
        let macs = match alias {
            None => self.macs.clone(),
            Some(alias) => self.others.get(alias).map(|other| other.macs.clone()).unwrap_or_default(),
        };
        Self { macs, others: BTreeMap::new(), ..self.clone() }
    }

    /// What was chosen for one lab, in the place where a file that was `old` holds it. What is the other labs' stays.
    #[must_use]
    pub(super) fn into_file(mut self, alias: Option<&LabName>, old: &Self) -> Self {
        self.others.clone_from(&old.others);
        if let Some(alias) = alias {
            let macs = std::mem::replace(&mut self.macs, old.macs.clone());
            self.others.remove(alias);
            if !macs.is_empty() {
                self.others.insert(alias.clone(), OfLab { macs });
            }
        }
        self
    }

    /// Nothing is locked: no file is needed.
    pub fn is_empty(&self) -> bool {
        let Self { version: _, addresses, macs, shares, others } = self;
        addresses.is_empty() && macs.is_empty() && shares.is_empty() && others.is_empty()
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written out, since the form is three lines and a serializer's error has no place in a Display.
        writeln!(f, "{HEADER}version = {VERSION}")?;
        let Self { version: _, addresses, macs, shares, others } = self;
        if !addresses.is_empty() {
            f.write_str("\n[address]\n")?;
        }
        for (key, list) in addresses {
            let list: Vec<String> = list.iter().map(|address| format!("\"{address}\"")).collect();
            writeln!(f, "\"{key}\" = [{}]", list.join(", "))?;
        }
        if !macs.is_empty() {
            f.write_str("\n[mac]\n")?;
        }
        for (key, mac) in macs {
            writeln!(f, "\"{key}\" = \"{mac}\"")?;
        }
        if !shares.is_empty() {
            f.write_str("\n[share]\n")?;
        }
        for (key, list) in shares {
            let list: Vec<String> = list.iter().map(|net| format!("\"{net}\"")).collect();
            writeln!(f, "\"{key}\" = [{}]", list.join(", "))?;
        }
        for (lab, OfLab { macs }) in others {
            // Names of labs are bare keys.
            writeln!(f, "\n[lab.{lab}.mac]")?;
            for (key, mac) in macs {
                writeln!(f, "\"{key}\" = \"{mac}\"")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_back() {
        let mut lock = Lock::default();
        let key: NicKey = "vm1/web/0".parse().unwrap();
        lock.addresses.insert(key.clone(), vec!["192.168.10.10".parse().unwrap(), "fd00::a".parse().unwrap()]);
        let macs = BTreeMap::from([(key, "52:54:00:00:00:01".parse().unwrap())]);
        lock.macs.clone_from(&macs);
        lock.others.insert("ci-7".parse().unwrap(), OfLab { macs });
        assert_eq!(Lock::parse(&lock.to_string()), Ok(lock));
    }

    #[test]
    fn a_damaged_lock_is_never_guessed_at() {
        for text in ["", "version = 1\n[address]\n\"vm1\" = []", "version = 1\nx = 1", "garbage", "version = \"1\""] {
            assert!(matches!(Lock::parse(text), Err(LockError::Damaged(_))), "{text:?}");
        }
        assert_eq!(Lock::parse("version = 2\nnew = true"), Err(LockError::Version(2)));
    }

    #[test]
    fn two_branches_that_each_added_a_guest_are_told_apart() {
        let both = "version = 1\n[address]\n\"vm1/web/0\" = [\"10.0.0.9\"]\n\"vm2/web/0\" = [\"10.0.0.9\"]\n";
        let error = Lock::parse(both).unwrap_err();
        assert!(error.to_string().contains("gives 10.0.0.9 to vm1/web/0 and to vm2/web/0"), "{error}");
        // On another network it is another address.
        assert!(Lock::parse(&both.replace("vm2/web", "vm2/db")).is_ok());
        let macs = "version = 1\n[mac]\n\"vm1/web/0\" = \"52:54:00:00:00:01\"\n\"vm2/db/0\" = \"52:54:00:00:00:01\"\n";
        assert!(matches!(Lock::parse(macs), Err(LockError::Twice { .. })));
    }

    #[test]
    fn labs_of_one_file_share_its_addresses_and_no_macs() {
        let text = "version = 1\n[address]\n\"vm1/web/0\" = [\"10.0.0.9\"]\n[mac]\n\"vm1/web/0\" = \"52:54:00:00:00:01\"\n\
                    [lab.ci.mac]\n\"vm2/web/0\" = \"52:54:00:00:00:02\"\n";
        let file = Lock::parse(text).unwrap();
        let (ci, new): (LabName, LabName) = ("ci".parse().unwrap(), "new".parse().unwrap());
        assert_eq!(file.of(Some(&ci)).macs.len(), 1);
        assert!(file.of(Some(&ci)).macs.keys().all(|key| key.vm.as_str() == "vm2"));
        assert!(file.of(Some(&new)).macs.is_empty());
        for lab in [None, Some(&ci), Some(&new)] {
            assert_eq!(file.of(lab).addresses, file.addresses);
            assert_eq!(file.of(lab).into_file(lab, &file), file, "{lab:?}");
        }
        // One that settles nothing any more leaves no line, and takes nobody else's.
        let without = Lock { macs: BTreeMap::new(), ..file.of(Some(&ci)) }.into_file(Some(&ci), &file);
        assert!(without.others.is_empty());
        assert_eq!(without.macs, file.macs);
    }
}
