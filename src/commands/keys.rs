//! The public keys of a guest: as written in the definition, or in files that it names.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::failure::Failure;
use super::source::Source;
use crate::model::{Vm, ssh};

/// A file of public keys has at most this many bytes.
const LARGEST: u64 = 64 << 10;

/// The keys, one line each.
pub(super) fn read(source: &Source, vm: &Vm) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for entry in vm.ssh_keys() {
        if ssh::is_key(entry) {
            keys.push(entry.clone());
            continue;
        }
        let path = expand(source, entry);
        let place = format!("vm {}: ssh_keys: {}", vm.name(), path.display());
        let length =
            std::fs::metadata(&path).map(|metadata| if metadata.is_file() { metadata.len() } else { u64::MAX });
        let length = length.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let help = "make a pair of keys (ssh-keygen -t ed25519), or correct ssh_keys and run vmnet create";
                Failure::advised(format!("{place} can't be read: there is no such file"), help)
            }
            _ => Failure::failed(format!("{place} can't be read"), error),
        })?;
        if length > LARGEST {
            return Err(Failure::because(format!("{place} is no file of public keys; name a .pub file")));
        }
        let text =
            std::fs::read_to_string(&path).map_err(|error| Failure::failed(format!("{place} can't be read"), error))?;
        let found: Vec<&str> = text.lines().map(str::trim).filter(|line| ssh::is_key(line)).collect();
        if found.is_empty() {
            return Err(Failure::because(format!("{place} holds no public key; name a .pub file")));
        }
        keys.extend(found.into_iter().map(str::to_owned));
    }
    Ok(keys)
}

/// The files that a guest's keys are in.
pub(super) fn files(source: &Source, vm: &Vm) -> impl Iterator<Item = PathBuf> {
    entries(vm).map(|entry| expand(source, entry))
}

/// What a guest's definition says of such files.
pub(super) fn entries(vm: &Vm) -> impl Iterator<Item = &String> {
    vm.ssh_keys().iter().filter(|entry| !ssh::is_key(entry))
}

/// `~` is the caller's home: under sudo, that of who called sudo.
pub(super) fn expand(source: &Source, entry: &str) -> PathBuf {
    let as_written = source.files().find(Path::new(entry));
    let Some(rest) = entry.strip_prefix("~/").filter(|_| !source.origin.sent) else { return as_written };
    let caller =
        std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).map_or_else(Uid::current, Uid::from_raw);
    match User::from_uid(caller) {
        Ok(Some(user)) => user.dir.join(rest),
        _ => as_written,
    }
}
