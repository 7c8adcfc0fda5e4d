//! Single values: what TOML may say where a typed value is wanted, and what to tell who wrote something else. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use toml::de::DeValue;

use super::{At, Problem, Problems};
use crate::kinds::{
    Accel, Across, DeviceRef, Engine, Firmware, ImageFormat, Mode, NicModel, Peer, Service, Snippet, Url, Wanted,
};
use crate::names::{
    Algorithm, DomainName, FileDigest, GroupName, HostName, IfName, ImageName, LabName, Login, Mac, NetName,
    PackageName, PasswordHash, ShellPath, UplinkName, VlanId, VmName, quoted,
};

/// A value that a key of the definition may have.
pub(super) trait FromValue: Sized {
    /// Reads it; a value that does not fit becomes a problem.
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>>;
}

/// Free text without control characters; not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

/// A number of bytes, at least `LEAST` MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes<const LEAST: u64>(pub u64);

/// The SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha256(pub FileDigest);

/// The SHA-512 of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha512(pub FileDigest);

/// A number of virtual CPUs, 1 to 512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus(pub u32);

/// `via` of the router's external side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalKind {
    /// `host`
    Host,
    /// `macvlan`
    Macvlan,
    /// `vlan`
    Vlan,
    /// `none`
    None,
}

/// A value of the wrong TOML type; `title` says what is right.
pub(super) fn wrong(value: &At<DeValue<'_>>, title: &str) -> Problem {
    let this = match value.get_ref() {
        DeValue::String(_) => "this is text in quotes",
        DeValue::Integer(_) => "this is a number",
        DeValue::Float(_) => "this is a number with a decimal point",
        DeValue::Boolean(_) => "this is true or false",
        DeValue::Datetime(_) => "this is a date or time",
        DeValue::Array(_) => "this is a list",
        DeValue::Table(_) => "this is a table",
    };
    Problem::new(value.span(), title).label(this)
}

pub(super) fn wanted(value: &At<DeValue<'_>>, what: &str) -> Problem {
    wrong(value, &format!("{what} is wanted here"))
}

pub(super) fn string<'v>(value: &'v At<DeValue<'_>>, what: &str, problems: &mut Problems) -> Option<&'v str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        problems.push(wanted(value, what).help(match value.get_ref() {
            DeValue::Array(_) => "write one value, in quotes, without brackets",
            DeValue::Table(_) => "write one value, in quotes",
            _ => "write it in quotes",
        }));
    }
    text
}

/// Values whose parser knows what would be right.
macro_rules! named_values {
    ($($type:ty: $wanted:literal,)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
                match string(value, $wanted, problems)?.parse::<Self>() {
                    Ok(parsed) => Some(At::new(value.span(), parsed)),
                    Err(error) => {
                        problems.push(Problem::new(value.span(), error.to_string()).help(error.help()));
                        None
                    }
                }
            }
        }
    )*};
}

named_values! {
    LabName: "a lab's name",
    HostName: "a host's name",
    UplinkName: "an uplink's name",
    NetName: "a network's name",
    ImageName: "an image's name",
    VmName: "a guest's name",
    IfName: "an interface's name",
    Mac: "a MAC address",
    DeviceRef: "a device's name or permanent MAC",
    Login: "a login name",
    GroupName: "a group's name",
    ShellPath: "a shell's path",
    PackageName: "a package's name",
    DomainName: "a domain",
    PasswordHash: "a password's hash",
    Url: "the address of an image",
}

/// Values that the standard or a library parses: their errors say little, so the help is ours.
macro_rules! parsed_values {
    ($($type:ty: $wanted:literal, $help:expr;)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
                let text = string(value, $wanted, problems)?;
                let parsed = text.parse::<Self>().ok();
                if parsed.is_none() {
                    let problem = Problem::new(value.span(), format!("{} is not {}", quoted(text), $wanted));
                    problems.push(problem.help($help(text)));
                }
                Some(At::new(value.span(), parsed?))
            }
        }
    )*};
}

parsed_values! {
    IpAddr: "an IP address", |text| address_help(text, "\"192.168.10.1\" or \"fd00:10::1\"");
    Ipv4Addr: "an IPv4 address", |text| address_help(text, "\"192.168.10.1\"");
    IpNet: "an address with a prefix length", |text| net_help(text, "\"192.168.10.0/24\" or \"fd00:10::/64\"");
    Service: "a service", |_| "write \"icmp\", or a port like \"tcp/22\" or \"udp/53\"";
    Peer: "somebody to try", |_| "write a guest's name, \"gateway:NETWORK\", or \"outside\" with an address";
    Ipv4Net: "an IPv4 network with a prefix length", |text| net_help(text, "\"100.64.0.0/30\"");
}

pub(super) fn address_help(text: &str, example: &str) -> String {
    match text.parse::<IpNet>() {
        Ok(net) => format!("leave out the prefix length: write {:?}", net.addr().to_string()),
        Err(_) => format!("write it like {example}"),
    }
}

fn net_help(text: &str, example: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => format!("add the prefix length, for example \"{text}/24\""),
        Ok(IpAddr::V6(_)) => format!("add the prefix length, for example \"{text}/64\""),
        Err(_) => format!("write it like {example}"),
    }
}

/// Values that are one of a few words.
macro_rules! words {
    ($($type:ty: $wanted:literal { $($word:literal => $variant:expr,)* })*) => {$(
        impl FromValue for $type {
            fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
                const WORDS: &[&str] = &[$($word),*];
                let text = string(value, $wanted, problems)?;
                let found = match text {
                    $($word => $variant,)*
                    _ => {
                        let problem = Problem::new(value.span(), format!("{} is not {}", quoted(text), $wanted))
                            .help(format!("use one of {}", WORDS.join(", ")));
                        problems.push(match super::read::nearest(text, WORDS) {
                            Some(near) => problem.label(format!("did you mean {near}?")),
                            None => problem,
                        });
                        return None;
                    }
                };
                Some(At::new(value.span(), found))
            }
        }
    )*};
}

words! {
    Mode: "a network's mode" {
        "nat" => Mode::Nat,
        "routed" => Mode::Routed,
        "isolated" => Mode::Isolated,
        "bridged" => Mode::Bridged,
    }
    Across: "what joins a network's hosts" { "vlan" => Across::Vlan, "routed" => Across::Routed, }
    Wanted: "a result" { "reach" => Wanted::Reach, "deny" => Wanted::Deny, }
    Engine: "an engine" { "qemu" => Engine::Qemu, "libvirt" => Engine::Libvirt, "netns" => Engine::Netns, }
    Accel: "an accelerator" { "kvm" => Accel::Kvm, "tcg" => Accel::Tcg, }
    NicModel: "a nic model" {
        "virtio" => NicModel::Virtio,
        "e1000" => NicModel::E1000,
        "e1000e" => NicModel::E1000e,
    }
    Firmware: "a firmware" { "bios" => Firmware::Bios, "uefi" => Firmware::Uefi, }
    ImageFormat: "an image format" { "qcow2" => ImageFormat::Qcow2, "raw" => ImageFormat::Raw, }
    ExternalKind: "a way to the outside" {
        "host" => ExternalKind::Host,
        "macvlan" => ExternalKind::Macvlan,
        "vlan" => ExternalKind::Vlan,
        "none" => ExternalKind::None,
    }
}

impl FromValue for Text {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let text = string(value, "text", problems)?;
        if text.is_empty() {
            problems.push(Problem::new(value.span(), "this text is empty").help("write something, or remove the key"));
            return None;
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            let title = format!("this text has the control character {control:?}");
            problems.push(Problem::new(value.span(), title).help("write one line of visible characters"));
            return None;
        }
        Some(At::new(value.span(), Text(text.to_owned())))
    }
}

impl FromValue for Sha256 {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        digest(value, Algorithm::Sha256, problems).map(|digest| At::new(value.span(), Sha256(digest)))
    }
}

impl FromValue for Sha512 {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        digest(value, Algorithm::Sha512, problems).map(|digest| At::new(value.span(), Sha512(digest)))
    }
}

/// A digest of one kind; that of the other has its own key.
fn digest(value: &At<DeValue<'_>>, wanted: Algorithm, problems: &mut Problems) -> Option<FileDigest> {
    let text = string(value, "a digest", problems)?;
    let word = wanted.word();
    let help = match text.to_ascii_lowercase().parse::<FileDigest>() {
        Ok(digest) if digest.algorithm() == wanted => return Some(digest),
        Ok(digest) => format!("it is a {0}: write {0} = \"…\"", digest.algorithm().word()),
        Err(_) => format!("write the {} hexadecimal digits that {word}sum prints", wanted.digits()),
    };
    problems.push(Problem::new(value.span(), format!("{} is no {word}", quoted(text))).help(help));
    None
}

/// Several lines, as TOML has them between three quotes.
impl FromValue for Snippet {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        match string(value, "XML", problems)?.parse::<Self>() {
            Ok(snippet) => Some(At::new(value.span(), snippet)),
            Err(error) => {
                let help = "write whole elements as they stand below <devices>, between three single quotes";
                problems.push(Problem::new(value.span(), error.to_string()).help(help));
                None
            }
        }
    }
}

fn integer(value: &At<DeValue<'_>>, what: &str, help: &str, problems: &mut Problems) -> Option<i64> {
    let Some(number) = value.get_ref().as_integer() else {
        problems.push(wanted(value, what).help(match value.get_ref() {
            DeValue::String(_) => "write the number without quotes",
            _ => help,
        }));
        return None;
    };
    let parsed = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
    if parsed.is_none() {
        problems.push(Problem::new(value.span(), format!("this is too large for {what}")).help(help));
    }
    parsed
}

impl FromValue for VlanId {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        match VlanId::try_from(integer(value, "a VLAN number", "use a number from 1 to 4094", problems)?) {
            Ok(id) => Some(At::new(value.span(), id)),
            Err(error) => {
                problems.push(Problem::new(value.span(), error.to_string()).help(error.help()));
                None
            }
        }
    }
}

impl FromValue for bool {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            problems.push(wanted(value, "true or false").help("write true or false, without quotes"));
        }
        found.map(|found| At::new(value.span(), found))
    }
}

/// A number of bytes in a frame; how few are possible depends on the network.
impl FromValue for u32 {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        const HELP: &str = "use a number of bytes up to 65535, for example 1500";
        let number = integer(value, "an MTU", HELP, problems)?;
        let Ok(number) = u32::try_from(number) else {
            problems.push(Problem::new(value.span(), format!("an MTU of {number} bytes is not possible")).help(HELP));
            return None;
        };
        Some(At::new(value.span(), number))
    }
}

impl FromValue for Cpus {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        const HELP: &str = "use a number from 1 to 512";
        let number = integer(value, "a number of CPUs", HELP, problems)?;
        match u32::try_from(number) {
            Ok(cpus @ 1..=512) => Some(At::new(value.span(), Cpus(cpus))),
            _ => {
                problems.push(Problem::new(value.span(), format!("a guest can't have {number} CPUs")).help(HELP));
                None
            }
        }
    }
}

impl<const LEAST: u64> FromValue for Bytes<LEAST> {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        const HELP: &str = "write a whole number with KiB, MiB, GiB or TiB in quotes, for example \"512MiB\"";
        let Some(text) = value.get_ref().as_str() else {
            problems.push(wanted(value, "a size with its unit").help(HELP));
            return None;
        };
        let Some(bytes) = parse_bytes(text) else {
            problems.push(Problem::new(value.span(), format!("{} is not a size", quoted(text))).help(HELP));
            return None;
        };
        if bytes < LEAST << 20 {
            let problem = Problem::new(value.span(), format!("{} is too little", quoted(text)));
            problems.push(problem.help(format!("use at least {LEAST}MiB")));
            return None;
        }
        Some(At::new(value.span(), Bytes(bytes)))
    }
}

/// `512MiB`, `20 GiB`; binary units only (IEC 80000-13), since `GB` means two things.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    // The largest file that there can be (off_t) bounds disks and memory alike.
    number.checked_mul(1 << shift).filter(|bytes| (1..=i64::MAX as u64).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_bytes("512MiB"), Some(512 << 20));
        assert_eq!(parse_bytes("1 GiB"), Some(1 << 30));
        for bad in ["", "512", "512MB", "1.5GiB", "0GiB", "-1GiB", "99999999999TiB", "8388608TiB", "GiB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
