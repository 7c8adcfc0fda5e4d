//! Values of the command line that are more than a word: times, and guests by name.

use std::time::Duration;

use crate::names::{LabName, VmName};

/// `90`, `90s`, `2m` or `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) if text.ends_with('h') => (number, 60 * 60),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a time is a whole number with s, m or h: 30s, 2m, 1h".to_owned());
    }
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(0) => Err("that is no time at all: write at least 1s".to_owned()),
        Some(seconds) if seconds <= LONGEST.as_secs() => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("that is too long: at most {}h", LONGEST.as_secs() / 3600)),
    }
}

/// The longest time that can be asked for: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A guest as the command line names it, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestName {
    /// The lab, where it is said.
    pub lab: Option<LabName>,
    /// The guest.
    pub vm: VmName,
}

impl std::str::FromStr for GuestName {
    type Err = crate::names::NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((lab, vm)) => Ok(Self { lab: Some(lab.parse()?), vm: vm.parse()? }),
            None => Ok(Self { lab: None, vm: text.parse()? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_or_are_seconds() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for (bad, why) in [
            ("", "whole number"),
            ("s", "whole number"),
            ("-1s", "whole number"),
            ("1.5m", "whole number"),
            ("1d", "whole number"),
            ("0s", "at least 1s"),
            ("169h", "too long"),
            ("99999999999999999999s", "too long"),
        ] {
            assert!(duration(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
