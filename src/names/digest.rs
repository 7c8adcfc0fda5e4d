//! [`FileDigest`]: what a file's content is called, and [`Hasher`], which finds it out.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use super::NameError;

name_type! {
    /// A SHA-256 in 64, or a SHA-512 in 128 lower-case hexadecimal digits.
    FileDigest, "digest", check
}

/// How a digest is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The word in a definition.
    pub fn word(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// How many digits it has.
    pub fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl FileDigest {
    /// How it was made, which its length tells.
    pub fn algorithm(&self) -> Algorithm {
        if self.as_str().len() == Algorithm::Sha512.digits() { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let lengths = [Algorithm::Sha256, Algorithm::Sha512].map(Algorithm::digits);
    if lengths.contains(&text.len()) && text.bytes().all(is_digit) {
        return Ok(());
    }
    let help = "write 64 (SHA-256) or 128 (SHA-512) digits of 0-9 and a-f, as sha256sum and sha512sum print them";
    Err(NameError::new(what, text, "is no SHA-256 or SHA-512", help))
}

/// A digest in the making.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// One that has seen nothing.
    pub fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
        }
    }

    /// What all of it is called.
    pub fn finish(self) -> FileDigest {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        FileDigest(match self {
            Hasher::Sha256(hash) => hex(&hash.finalize()),
            Hasher::Sha512(hash) => hex(&hash.finalize()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_leads_nowhere_but_to_its_file() {
        assert!("0".repeat(64).parse::<FileDigest>().is_ok());
        assert!("0".repeat(128).parse::<FileDigest>().is_ok());
        let climbs = format!("../{}", "0".repeat(61));
        for bad in ["", "..", &"0".repeat(63), &"0".repeat(65), &"0".repeat(127), &"A".repeat(64), &climbs] {
            assert!(bad.parse::<FileDigest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_hashed_is_named_by_it() {
        for (algorithm, start) in [(Algorithm::Sha256, "ba7816bf8f01cfea"), (Algorithm::Sha512, "ddaf35a193617aba")] {
            let mut hash = Hasher::of(algorithm);
            hash.update(b"a");
            hash.update(b"bc");
            let digest = hash.finish();
            assert!(digest.as_str().starts_with(start), "{digest}");
            assert_eq!(digest.as_str().parse::<FileDigest>().unwrap().algorithm(), algorithm);
        }
    }
}
