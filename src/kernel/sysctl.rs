//! Files below `/proc/sys/net`. They show the namespace of the thread that opens them, so a batch for a namespace
//! runs on one thread inside it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{KernelError, netns};
use crate::state::Ns;

/// Where the settings of the network stand.
const ROOT: &str = "/proc/sys/net";

/// The file of a key such as `ipv4/conf/eno1/forwarding`; `None` for a key that would lead elsewhere.
fn file(key: &str) -> Option<PathBuf> {
    let path = Path::new(key);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| Path::new(ROOT).join(path))
}

/// Whether the kernel has IPv6 at all (it may be compiled out or switched off at boot).
pub fn has_ipv6() -> bool {
    Path::new(ROOT).join("ipv6").exists()
}

/// Reads a key in the calling thread's namespace; `None` when there is no such key.
pub fn read(key: &str) -> io::Result<Option<String>> {
    let Some(file) = file(key) else { return Ok(None) };
    match fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a key in the calling thread's namespace.
pub fn write(key: &str, value: &str) -> io::Result<()> {
    let Some(file) = file(key) else { return Err(io::ErrorKind::InvalidInput.into()) };
    // Never creates one: a key that is missing has to be an error.
    let mut file = fs::File::options().write(true).open(file)?;
    io::Write::write_all(&mut file, value.as_bytes())
}

/// Writes many keys of a namespace by one visit to it; one answer each, in order.
pub fn write_all<'a>(
    ns: &Ns,
    settings: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Send> + Send,
) -> Result<Vec<io::Result<()>>, KernelError> {
    netns::run_in(ns, || settings.into_iter().map(|(key, value)| write(key, value)).collect())
}

/// The key that switches IPv6 off on a link.
pub fn disable_ipv6(link: &str) -> String {
    format!("ipv6/conf/{link}/disable_ipv6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_below_its_root() {
        for bad in ["../vm/swappiness", "/etc/passwd", "ipv4/../../kernel/hostname", "ipv4/conf/../../../x"] {
            assert!(file(bad).is_none(), "{bad}");
            assert!(write(bad, "1").is_err(), "{bad}");
        }
        assert_eq!(file("ipv4/conf/eno1.10/forwarding"), Some("/proc/sys/net/ipv4/conf/eno1.10/forwarding".into()));
    }

    #[test]
    fn a_missing_key_reads_as_none() {
        assert_eq!(read("ipv4/conf/no-such-link/forwarding").unwrap(), None);
    }
}
