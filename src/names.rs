//! The names of things: parsed once into newtypes, never checked again.
//!
//! Everything that a user or the kernel calls by a name goes through here. A value of one of these types is valid
//! by construction; `serde` goes through the same parser (`try_from`), so a file can't smuggle one in.
//! Pure: no kernel, no files.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the wanted kind. Display says what is wrong; [`NameError::help`] what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found} {problem}")]
pub struct NameError {
    /// The kind of name, for example `network name`.
    what: &'static str,
    /// The text as given, escaped and quoted.
    found: String,
    /// What is wrong with it.
    problem: &'static str,
    /// What would be right.
    help: &'static str,
}

impl NameError {
    fn new(what: &'static str, found: &str, problem: &'static str, help: &'static str) -> Self {
        Self { what, found: quoted(found), problem, help }
    }

    /// What would be right, as a sentence without a full stop.
    pub fn help(&self) -> &'static str {
        self.help
    }
}

/// A text of foreign origin in quotes, for a message: escaped, and cut where it is longer than anybody wants to read.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// Names that mean something in commands and reports; refused for networks and guests, which share one name space.
pub const RESERVED: [&str; 6] = ["all", "default", "lo", "outside", "router", "host"];

/// The longest user-chosen name, in characters. A hostname label may have 63 (RFC 1035); 32 keeps tables readable
/// and namespace names far below NAME_MAX.
const NAME_MAX: usize = 32;

const NAME_HELP: &str = "use 1 to 32 of a-z, 0-9 and -, beginning with a letter or digit and not ending in -";

fn check_name(what: &'static str, text: &str) -> Result<(), NameError> {
    let fail = |problem| Err(NameError::new(what, text, problem, NAME_HELP));
    if text.is_empty() {
        return fail("is empty");
    }
    if text.len() > NAME_MAX {
        return fail("is longer than 32 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return fail("has a character that is not a-z, 0-9 or -");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return fail("begins or ends with -");
    }
    Ok(())
}

fn check_unreserved(what: &'static str, text: &str) -> Result<(), NameError> {
    check_name(what, text)?;
    if RESERVED.contains(&text) {
        return Err(NameError::new(
            what,
            text,
            "is reserved",
            "choose a name other than all, default, lo, outside, router and host",
        ));
    }
    Ok(())
}

/// What stands below the run folder beside the folders of labs: no lab's folder can have its name.
pub const LOCK: &str = "lock";

fn check_lab(what: &'static str, text: &str) -> Result<(), NameError> {
    check_name(what, text)?;
    match text == LOCK {
        true => Err(NameError::new(what, text, "is reserved", "choose a name other than lock")),
        false => Ok(()),
    }
}

/// The longest serial number that a virtio disk can say (VIRTIO_BLK_ID_BYTES).
const SERIAL_MAX: usize = 20;

fn check_disk(what: &'static str, text: &str) -> Result<(), NameError> {
    check_name(what, text)?;
    if text.len() > SERIAL_MAX {
        let help = "use at most 20 characters: the guest sees the name as the disk's serial number";
        return Err(NameError::new(what, text, "is longer than 20 characters", help));
    }
    Ok(())
}

/// Makes a newtype over `String` with one parser for `FromStr`, `TryFrom<String>` and serde.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

mod account;
mod digest;

pub use account::{DomainName, GroupName, Login, PackageName, PasswordHash, ShellPath};
pub use digest::{Algorithm, FileDigest, Hasher};

name_type! {
    /// The name of a further disk of a guest, which its hardware says as its serial number.
    DiskName, "disk name", check_disk
}

name_type! {
    /// The name of a lab: everything that one definition describes.
    LabName, "lab name", check_lab
}
name_type! {
    /// The name of a network, one layer-2 segment. Shares one name space with guests.
    NetName, "network name", check_unreserved
}
name_type! {
    /// The name of a guest; also its hostname. Shares one name space with networks.
    VmName, "vm name", check_unreserved
}
name_type! {
    /// The name of an uplink, a physical NIC or bond that a lab uses.
    UplinkName, "uplink name", check_name
}
name_type! {
    /// The name of a host, a machine that carries a part of a lab.
    HostName, "host name", check_name
}
name_type! {
    /// The name of a guest image.
    ImageName, "image name", check_name
}
name_type! {
    /// The name of a network interface as vmnet writes it: at most 15 characters (`IFNAMSIZ` less the NUL) of
    /// letters, digits, `.`, `_` and `-`. Narrower than the kernel's own rule (`dev_valid_name`), since these
    /// names reach files, rules and command lines.
    IfName, "interface name", check_ifname
}
name_type! {
    /// The name or altname of a device of the host as a definition writes it. The kernel takes nearly any byte
    /// (`dev_valid_name`); a device with an odder name can be named by its permanent MAC.
    DeviceName, "device name", check_device
}
name_type! {
    /// The name of a network namespace below `/run/netns`.
    NsName, "namespace name", check_nsname
}

fn check_ifname(what: &'static str, text: &str) -> Result<(), NameError> {
    let help = "use 1 to 15 letters, digits, '.', '_' and '-', beginning with a letter or digit";
    let fail = |problem| Err(NameError::new(what, text, problem, help));
    if text.is_empty() {
        return fail("is empty");
    }
    if text.len() > 15 {
        return fail("is longer than 15 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return fail("has a character that vmnet does not write into rules and files");
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() {
        return fail("does not begin with a letter or digit");
    }
    // The kernel keeps these two for its per-namespace settings in /proc/sys/net/ipv4/conf.
    if matches!(text, "all" | "default") {
        return fail("is the kernel's own word");
    }
    Ok(())
}

fn check_device(what: &'static str, text: &str) -> Result<(), NameError> {
    let help = "write the name, an altname or the permanent MAC of a NIC or bond, for example \"eno1\"";
    let fail = |problem| Err(NameError::new(what, text, problem, help));
    // ALTIFNAMSIZ less the NUL.
    if text.is_empty() || text.len() > 127 {
        return fail("is empty or longer than 127 characters");
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() {
        return fail("does not begin with a letter or digit");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@' | b'+')) {
        return fail("has a character that is not a letter, a digit or one of . _ - @ +");
    }
    Ok(())
}

fn check_nsname(what: &'static str, text: &str) -> Result<(), NameError> {
    let help = "use letters, digits, '.', '_' and '-', beginning with a letter or digit";
    let fail = |problem| Err(NameError::new(what, text, problem, help));
    if text.is_empty() || text.len() > 128 {
        return fail("is empty or longer than 128 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        || !text.as_bytes()[0].is_ascii_alphanumeric()
    {
        return fail("has a character that is not allowed");
    }
    Ok(())
}

/// An 802.1Q VLAN identifier, 1 to 4094 (IEEE 802.1Q, 9.6: 0 is the priority tag, 4095 is reserved).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u16")]
pub struct VlanId(u16);

/// A number outside 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("VLAN {0} does not exist")]
pub struct VlanError(i64);

impl VlanError {
    /// What would be right, as a sentence without a full stop.
    pub fn help(&self) -> &'static str {
        "use a number from 1 to 4094: 0 is the priority tag and 4095 is reserved (IEEE 802.1Q)"
    }
}

impl VlanId {
    /// The identifier as a number from 1 to 4094.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for VlanId {
    type Error = VlanError;
    fn try_from(number: i64) -> Result<Self, VlanError> {
        match u16::try_from(number) {
            Ok(id @ 1..=4094) => Ok(Self(id)),
            _ => Err(VlanError(number)),
        }
    }
}

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> u16 {
        id.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A unicast, non-zero Ethernet address; written in lower case with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// A text or a number of bytes that is no usable Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MAC address {found} {problem}")]
pub struct MacError {
    found: String,
    problem: &'static str,
}

impl MacError {
    /// What would be right, as a sentence without a full stop.
    pub fn help(&self) -> &'static str {
        "write six hexadecimal bytes, the first of them even, for example \"52:54:00:12:34:56\""
    }
}

impl Mac {
    /// The six bytes in transmission order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl TryFrom<[u8; 6]> for Mac {
    type Error = MacError;
    fn try_from(octets: [u8; 6]) -> Result<Self, MacError> {
        let problem = if octets == [0; 6] {
            "is all zeros"
        } else if octets[0] & 1 == 1 {
            "is a multicast address (the lowest bit of its first byte is set)"
        } else {
            return Ok(Self(octets));
        };
        Err(MacError { found: Self(octets).to_string(), problem })
    }
}

impl FromStr for Mac {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError { found: quoted(text), problem: "is not six bytes with colons" };
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            // `from_str_radix` takes a sign too.
            let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(hex).ok_or_else(malformed)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        octets.try_into()
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_a_shell_or_a_path_would_read() {
        for bad in ["", "-x", "x-", "a b", "$(id)", "a;b", "a\nb", "a\0", "../x", "Ä", "UPPER", "a.b", "`id`"] {
            assert!(bad.parse::<NetName>().is_err(), "{bad:?}");
            assert!(bad.parse::<LabName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(33).parse::<VmName>().is_err());
        assert!("a".repeat(32).parse::<VmName>().is_ok());
        for reserved in RESERVED {
            assert!(reserved.parse::<NetName>().is_err());
            assert!(reserved.parse::<VmName>().is_err());
        }
        assert!(LOCK.parse::<LabName>().is_err() && LOCK.parse::<NetName>().is_ok());
    }

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        assert_eq!(quoted("a\u{1b}[31m\"\u{202e}"), "\"a\\u{1b}[31m\\\"\\u{202e}\"");
        assert_eq!(quoted(&"ä".repeat(65)), format!("\"{}\"…", "ä".repeat(64)));
    }

    #[test]
    fn serde_goes_through_the_parser() {
        assert!(serde_json::from_str::<NetName>("\"$(id)\"").is_err());
        assert!(serde_json::from_str::<VlanId>("4095").is_err());
        assert!(serde_json::from_str::<Mac>("\"01:00:00:00:00:00\"").is_err());
    }

    #[test]
    fn vlan_ids_are_1_to_4094() {
        assert!(VlanId::try_from(0).is_err());
        assert!(VlanId::try_from(4095).is_err());
        assert!(VlanId::try_from(-1).is_err());
        assert_eq!(VlanId::try_from(4094).map(VlanId::get), Ok(4094));
    }

    #[test]
    fn macs_are_unicast_and_lower_case() {
        assert_eq!("52-54-00-AB-CD-EF".parse::<Mac>().map(|m| m.to_string()), Ok("52:54:00:ab:cd:ef".into()));
        for bad in [
            "",
            "52:54:00",
            "52:54:00:1:2:3",
            "52:54:00:12:34:+5",
            "01:80:c2:00:00:00",
            "00:00:00:00:00:00",
            "52:54:00:11:22:33:44",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names_fit_the_kernel_and_a_rule() {
        for good in ["eno1", "eno1.10", "br-web", "brvlan-4094"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", "sixteen-chars-xx", "x$(id)", "q\"q", "*", "-x", "..", "all", "a b", "a/b", "a%d"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }
}
