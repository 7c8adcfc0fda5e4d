//! [`FileDigest`]: what a file's content is called.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NameError;

name_type! {
    /// A SHA-256 in 64 lower-case hexadecimal digits.
    FileDigest, "digest", check
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(is_digit) {
        return Ok(());
    }
    Err(NameError::new(what, text, "is no SHA-256", "write 64 digits of 0-9 and a-f, as sha256sum prints them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_leads_nowhere_but_to_its_file() {
        assert!("0".repeat(64).parse::<FileDigest>().is_ok());
        for bad in ["", "..", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &format!("../{}", "0".repeat(61))] {
            assert!(bad.parse::<FileDigest>().is_err(), "{bad}");
        }
    }
}
