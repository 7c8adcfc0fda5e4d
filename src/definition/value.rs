//! Single values: what TOML may say where a typed value is wanted, and what to tell who wrote something else. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use toml::de::DeValue;

use super::{At, Problem, Problems};
use crate::model::{Accel, Engine, ImageFormat, Mode, NicModel};
use crate::names::{IfName, ImageName, LabName, Mac, NetName, UplinkName, VlanId};

/// A value that a key of the definition may have.
pub(super) trait FromValue: Sized {
    /// Reads it; a value that does not fit becomes a problem.
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>>;
}

/// Free text without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

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

fn wrong(value: &At<DeValue<'_>>, wanted: &str) -> Problem {
    let found = value.get_ref().type_str();
    Problem::new(value.span(), format!("{wanted} is wanted here")).label(format!("this is {}", article(found)))
}

fn article(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if vowel { "an" } else { "a" })
}

fn string<'v>(value: &'v At<DeValue<'_>>, wanted: &str, problems: &mut Problems) -> Option<&'v str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        problems.push(wrong(value, wanted).help("write it in quotes"));
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
    UplinkName: "an uplink's name",
    NetName: "a network's name",
    ImageName: "an image's name",
    IfName: "an interface's name",
    Mac: "a MAC address",
}

/// Values that the standard or a library parses: their errors say little, so the help is ours.
macro_rules! parsed_values {
    ($($type:ty: $wanted:literal, $example:literal;)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
                let text = string(value, $wanted, problems)?;
                let parsed = text.parse::<Self>().ok();
                if parsed.is_none() {
                    problems.push(
                        Problem::new(value.span(), format!("{text:?} is not {}", $wanted)).help(concat!("for example ", $example)),
                    );
                }
                Some(At::new(value.span(), parsed?))
            }
        }
    )*};
}

parsed_values! {
    IpAddr: "an IP address", "\"192.168.10.1\" or \"fd00:10::1\"";
    Ipv4Addr: "an IPv4 address", "\"192.168.10.1\"";
    IpNet: "an address with a prefix length", "\"192.168.10.0/24\" or \"fd00:10::/64\"";
    Ipv4Net: "an IPv4 network with a prefix length", "\"100.64.0.0/30\"";
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
                        let problem = Problem::new(value.span(), format!("{text:?} is not {}", $wanted))
                            .help(format!("use one of {}", WORDS.join(", ")));
                        problems.push(match super::read::nearest(text, WORDS) {
                            Some(near) => problem.label(format!("did you mean {near:?}?")),
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
    Engine: "an engine" { "qemu" => Engine::Qemu, "netns" => Engine::Netns, }
    Accel: "an accelerator" { "kvm" => Accel::Kvm, "tcg" => Accel::Tcg, }
    NicModel: "a nic model" {
        "virtio" => NicModel::Virtio,
        "e1000" => NicModel::E1000,
        "e1000e" => NicModel::E1000e,
    }
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
        if text.is_empty() || text.chars().any(char::is_control) {
            let problem = Problem::new(value.span(), "this text is empty or has a control character");
            problems.push(problem.help("write one line of visible characters"));
            return None;
        }
        Some(At::new(value.span(), Text(text.to_owned())))
    }
}

fn integer(value: &At<DeValue<'_>>, wanted: &str, problems: &mut Problems) -> Option<i64> {
    let Some(number) = value.get_ref().as_integer() else {
        problems.push(wrong(value, wanted));
        return None;
    };
    let parsed = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
    if parsed.is_none() {
        problems.push(Problem::new(value.span(), "this number is too large"));
    }
    parsed
}

impl FromValue for VlanId {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        match VlanId::try_from(integer(value, "a VLAN number", problems)?) {
            Ok(id) => Some(At::new(value.span(), id)),
            Err(error) => {
                problems.push(Problem::new(value.span(), error.to_string()).help(error.help()));
                None
            }
        }
    }
}

impl FromValue for u32 {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let number = integer(value, "a number", problems)?;
        let Ok(number) = u32::try_from(number) else {
            problems.push(Problem::new(value.span(), format!("{number} is out of range")));
            return None;
        };
        Some(At::new(value.span(), number))
    }
}

impl FromValue for Bytes {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        const HELP: &str = "write a whole number with KiB, MiB, GiB or TiB, for example \"512MiB\"";
        let text = match value.get_ref().as_str() {
            Some(text) => text,
            None => {
                problems.push(wrong(value, "a size with its unit").help(HELP));
                return None;
            }
        };
        let bytes = parse_bytes(text);
        if bytes.is_none() {
            problems.push(Problem::new(value.span(), format!("{text:?} is not a size")).help(HELP));
        }
        Some(At::new(value.span(), Bytes(bytes?)))
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
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_bytes("512MiB"), Some(512 << 20));
        assert_eq!(parse_bytes("1 GiB"), Some(1 << 30));
        for bad in ["", "512", "512MB", "1.5GiB", "0GiB", "-1GiB", "99999999999TiB", "GiB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
