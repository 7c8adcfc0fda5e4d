//! What the files hold that a definition names for a guest's seed: public keys, and user-data.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::failure::Failure;
use super::source::Source;
use crate::model::{Model, Vm, ssh};
use crate::render::Given;
use crate::render::seed::raw::{self, RawUserData};

/// A file of public keys has at most this many bytes.
const LARGEST: u64 = 64 << 10;

/// All of them.
pub(super) fn read(source: &Source, vm: &Vm) -> Result<Given, Failure> {
    let mut given = Given { keys: keys(source, vm, vm.ssh_keys(), "ssh_keys")?, ..Given::default() };
    for account in &vm.setup().users {
        let found = keys(source, vm, &account.ssh_keys, &format!("users: {}: ssh_keys", account.name))?;
        given.keys_of.insert(account.name.to_string(), found);
    }
    if let Some(entry) = &vm.setup().user_data {
        given.user_data = Some(user_data(source, vm, entry)?);
    }
    Ok(given)
}

/// Refuses what stands in files that are there and is not what it should be. Those that are not may come later.
pub(super) fn check(source: &Source, vm: &Vm) -> Result<(), Failure> {
    let is_there = |(_, path): (_, PathBuf)| path.exists();
    if vm.engine().is_machine() && files(source, vm).all(is_there) { read(source, vm).map(drop) } else { Ok(()) }
}

/// The keys, one line each.
fn keys(source: &Source, vm: &Vm, entries: &[String], key: &str) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for entry in entries {
        if ssh::is_key(entry) {
            keys.push(entry.clone());
            continue;
        }
        let path = expand(source, entry);
        let place = format!("vm {}: {key}: {}", vm.name(), path.display());
        let no_keys = |problem: &str| Failure::because(format!("{place} {problem}; name a .pub file"));
        let help = "make a pair of keys (ssh-keygen -t ed25519), or correct ssh_keys and run vmnet create";
        let bytes = small_file(&path, LARGEST, &place, help)?.ok_or_else(|| no_keys("is no file of public keys"))?;
        let text =
            String::from_utf8(bytes).map_err(|error| Failure::failed(format!("{place} can't be read"), error))?;
        let found: Vec<&str> = text.lines().map(str::trim).filter(|line| ssh::is_key(line)).collect();
        if found.is_empty() {
            return Err(no_keys("holds no public key"));
        }
        keys.extend(found.into_iter().map(str::to_owned));
    }
    Ok(keys)
}

fn user_data(source: &Source, vm: &Vm, entry: &str) -> Result<RawUserData, Failure> {
    let path = expand(source, entry);
    let place = format!("vm {}: user_data: {}", vm.name(), path.display());
    let help = "put it there, or correct user_data and run vmnet create";
    let bytes = small_file(&path, raw::LARGEST, &place, help)?.ok_or_else(|| {
        let most = raw::LARGEST >> 10;
        Failure::because(format!(
            "{place} is no file of at most {most} KiB; let it fetch what is larger, or #include it"
        ))
    })?;
    RawUserData::parse(bytes).map_err(|unfit| Failure::advised(format!("{place}: {unfit}"), unfit.help()))
}

/// What a file holds; `None` where it is no plain file, or larger than anybody means.
fn small_file(path: &Path, largest: u64, place: &str, help: &str) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::advised(format!("{place} can't be read: there is no such file"), help),
        _ => Failure::failed(format!("{place} can't be read"), error),
    };
    // Without O_NONBLOCK opening a FIFO waits for a writer.
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes.len() as u64 <= largest).then_some(bytes))
}

/// The files that a guest's seed is made of, each with the key that names it.
pub(super) fn files(source: &Source, vm: &Vm) -> impl Iterator<Item = (&'static str, PathBuf)> {
    entries(vm).map(|(key, entry)| (key, expand(source, entry)))
}

/// What a guest's definition says of such files, each with its key.
pub(super) fn entries(vm: &Vm) -> impl Iterator<Item = (&'static str, &String)> {
    let of_users = vm.setup().users.iter().flat_map(|account| &account.ssh_keys);
    let keys = vm.ssh_keys().iter().chain(of_users).filter(|entry| !ssh::is_key(entry));
    keys.map(|entry| ("ssh_keys", entry)).chain(vm.setup().user_data.iter().map(|entry| ("user_data", entry)))
}

/// `~` is the home of who created the lab.
pub(super) fn expand(source: &Source, entry: &str) -> PathBuf {
    let as_written = source.files().find(Path::new(entry));
    let Some(rest) = entry.strip_prefix("~/").filter(|_| !source.origin.sent) else { return as_written };
    // A ledger of an older vmnet does not say it.
    let home = source.origin.home.clone().or_else(caller);
    home.map_or(as_written, |home| home.join(rest))
}

/// The caller's home, where guests of the model have files in it.
pub(super) fn home(model: &Model) -> Option<PathBuf> {
    let is_needed = model.vms().values().flat_map(entries).any(|(_, entry)| entry.starts_with("~/"));
    is_needed.then(caller).flatten()
}

/// The home of the caller; under sudo, of who called sudo.
fn caller() -> Option<PathBuf> {
    let by_sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let user = User::from_uid(by_sudo.map_or_else(Uid::current, Uid::from_raw));
    user.ok().flatten().map(|user| user.dir)
}
