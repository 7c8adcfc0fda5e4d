//! What a guest's own tools take for names: logins, groups, shells, packages, domains, password hashes.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::*;

name_type! {
    /// A login name as useradd(8) takes it; it reaches the guest's user database.
    Login, "login name", check_account
}
name_type! {
    /// The name of a group as groupadd(8) takes it.
    GroupName, "group name", check_account
}
name_type! {
    /// The path of a login shell.
    ShellPath, "shell", check_shell
}
name_type! {
    /// The name of a package, with `=VERSION`, `:ARCH` or `/RELEASE` where the guest's tool knows those.
    PackageName, "package", check_package
}
name_type! {
    /// A DNS domain that names are looked up in.
    DomainName, "domain", check_domain
}

fn check_account(what: &'static str, text: &str) -> Result<(), NameError> {
    let fits = text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
    let help = "use 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or _";
    if fits { Ok(()) } else { Err(NameError::new(what, text, "is not what a system takes", help)) }
}

fn check_shell(what: &'static str, text: &str) -> Result<(), NameError> {
    // A colon or a line break would end its field in passwd(5).
    let fits = text.len() <= 255
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-' | b'+'));
    let help = "write its absolute path in the guest, for example \"/bin/sh\"";
    if fits { Ok(()) } else { Err(NameError::new(what, text, "is no path of a program", help)) }
}

fn check_package(what: &'static str, text: &str) -> Result<(), NameError> {
    let help = "use letters, digits and + - . _ : = ~ / ^, beginning with a letter or digit and not ending in -";
    let extra = |b: u8| matches!(b, b'+' | b'-' | b'.' | b'_' | b':' | b'=' | b'~' | b'/' | b'^');
    let fits = text.len() <= 256
        // Else it could be an option of the tool, or one of its patterns.
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra(b));
    if !fits {
        return Err(NameError::new(what, text, "is no package's name", help));
    }
    match text.ends_with('-') {
        true => Err(NameError::new(what, text, "would be removed: apt-get reads a - at the end as «without»", help)),
        false => Ok(()),
    }
}

fn check_domain(what: &'static str, text: &str) -> Result<(), NameError> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let fits = text.len() <= 253 && text.split('.').all(is_label);
    let help = "write it like \"lab.example\", without a dot at its end";
    if fits { Ok(()) } else { Err(NameError::new(what, text, "is not what DNS takes", help)) }
}

/// The hash of a password as crypt(5) writes it. No output, log or error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The text, for the one place that it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A digest, so that another hash is another definition.
impl Serialize for PasswordHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digest: String = Sha256::digest(&self.0).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&format!("sha256:{digest}"))
    }
}

impl FromStr for PasswordHash {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fail = |problem| {
            let help = "write what `openssl passwd -6` or `mkpasswd` prints, in quotes; it begins with $";
            let found = "(not shown)".to_owned();
            Err(NameError { what: "password hash", found, problem, help })
        };
        if !text.starts_with('$') {
            return fail("is no hash; a password itself is never written into a definition");
        }
        match is_hash(text) {
            Some(true) => Ok(Self(text.to_owned())),
            Some(false) => fail("is not whole: nobody could log in with it"),
            None => fail("is of no kind that guests take today ($6$, $5$, $y$, $gy$, $7$, $2b$)"),
        }
    }
}

/// Whether a text is a whole hash of its kind (crypt(5)); `None` where the kind is not known, or known to be weak.
fn is_hash(text: &str) -> Option<bool> {
    let mut fields = text.strip_prefix('$')?.split('$');
    let kind = fields.next()?;
    let fields: Vec<&str> = fields.collect();
    let is_base64 = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/'));
    let sha = |length: usize| match fields.as_slice() {
        [salt, hash] => is_base64(salt) && salt.len() <= 16 && hash.len() == length && is_base64(hash),
        [rounds, salt, hash] => {
            let rounds = rounds.strip_prefix("rounds=").is_some_and(|number| number.parse::<u32>().is_ok());
            rounds && is_base64(salt) && salt.len() <= 16 && hash.len() == length && is_base64(hash)
        }
        _ => false,
    };
    Some(match kind {
        "6" => sha(86),
        "5" => sha(43),
        "y" | "gy" | "7" => match fields.as_slice() {
            [parameters, salt, hash] => {
                !parameters.is_empty() && [parameters, salt, hash].iter().all(|f| is_base64(f)) && hash.len() == 43
            }
            [salt, hash] if kind == "7" => is_base64(salt) && is_base64(hash) && hash.len() == 43,
            _ => false,
        },
        "2a" | "2b" | "2y" => match fields.as_slice() {
            [cost, rest] => {
                cost.len() == 2 && cost.bytes().all(|b| b.is_ascii_digit()) && rest.len() == 53 && is_base64(rest)
            }
            _ => false,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_whole_or_refused_and_never_shown() {
        let sha512 = format!("$6$salt${}", "a".repeat(86));
        let good = [
            sha512.clone(),
            format!("$6$rounds=4096$salt${}", "./Zz".repeat(21) + "ab"),
            format!("$5$salt${}", "a".repeat(43)),
            format!("$y$j9T$saltsalt${}", "a".repeat(43)),
            format!("$2b$12${}", "a".repeat(53)),
        ];
        for hash in good {
            let parsed: PasswordHash = hash.parse().unwrap_or_else(|error| panic!("{hash}: {error}"));
            assert!(!format!("{parsed:?}{}", serde_json::to_string(&parsed).unwrap()).contains("aaaa"));
            assert_eq!(parsed.reveal(), hash);
        }
        let bad = [
            "hunter2".to_owned(),
            String::new(),
            "$".to_owned(),
            "$6$salt$short".to_owned(),
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0".to_owned(),
            sha512.replace("salt", "s:lt"),
            format!("{sha512}\nroot:x"),
        ];
        for hash in bad {
            let error = hash.parse::<PasswordHash>().unwrap_err();
            assert!(hash.is_empty() || hash == "$" || !format!("{error} {error:?}").contains(&hash), "{error}");
        }
    }

    #[test]
    fn packages_are_names_and_never_options() {
        for good in ["nginx", "g++", "libc6:amd64", "linux-image-6.1=6.1.0-1~deb12", "0ad", "R", "dpkg/stable"] {
            assert!(good.parse::<PackageName>().is_ok(), "{good}");
        }
        for bad in ["", "-y", "nginx ", "a b", "nginx-", "a;id", "?name", "ä", "a\n", "$(id)"] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn accounts_shells_and_domains() {
        for bad in ["", "Anna", "1a", "a b", "root:x", "-a", &"a".repeat(33)] {
            assert!(bad.parse::<Login>().is_err() && bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
        for bad in ["", "bash", "/bin/", "/bin/a b", "/bin/sh:x", "/a\n"] {
            assert!(bad.parse::<ShellPath>().is_err(), "{bad:?}");
        }
        for bad in ["", ".", "lab.", "a..b", "-a", "a b", "ä.example", &"a".repeat(64)] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
        assert!("corp.example".parse::<DomainName>().is_ok() && "_anna-2".parse::<Login>().is_ok());
    }
}
