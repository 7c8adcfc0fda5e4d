//! `ssh` to a guest from inside the router: no route on the host is needed, and the guest's host key is known
//! beforehand.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use serde::{Deserialize, Serialize};

use super::folder::make_parent;
use super::{EngineError, netns, public_host_key, runs};
use crate::model::{Model, Vm};
use crate::names::{LabName, NsName};
use crate::paths::Paths;

/// Where ssh servers listen.
const PORT: u16 = 22;

/// How often it is tried, how long each time, and the pause between.
const TRIES: (u32, Duration, Duration) = (5, Duration::from_secs(4), Duration::from_secs(1));

/// How a guest is reached by ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The router's namespace.
    pub ns: NsName,
    /// The guest's address on a network of the router's.
    pub address: IpAddr,
}

/// The guest's first address on a network that the router serves.
pub fn way(model: &Model, vm: &Vm) -> Result<Way, EngineError> {
    let none = || EngineError::NoWay { lab: model.lab().clone(), vm: vm.name().clone() };
    let router = model.router().as_ref().ok_or_else(none)?;
    let served = vm.nics().iter().filter(|nic| router.ports().contains_key(nic.network().as_str()));
    let address = served.flat_map(|nic| nic.addresses()).next().ok_or_else(none)?;
    Ok(Way { ns: router.namespace().clone(), address: address.addr() })
}

/// Replaces this process by ssh in the router's namespace, as the user who called (the one behind sudo, so that
/// their keys, agent and configuration count). Comes back with an error only.
///
/// `extra` are further arguments: options, then a command.
pub fn exec(paths: &Paths, model: &Model, vm: &Vm, ssh: &Path, extra: &[String]) -> EngineError {
    match command(paths, model, vm, ssh, extra) {
        Ok(mut command) => EngineError::Spawn { program: ssh.to_owned(), source: command.exec() },
        Err(error) => error,
    }
}

fn command(paths: &Paths, model: &Model, vm: &Vm, ssh: &Path, extra: &[String]) -> Result<Command, EngineError> {
    let way = way(model, vm)?;
    let mut command = Command::new(ssh);
    let (lab, name) = (model.lab(), vm.name());
    if !runs(paths, model, vm)? {
        return Err(EngineError::not_running(lab, name));
    }
    let alias = alias(model, vm);
    if let Some(key) = host_key(paths, lab, vm)? {
        let file = known_hosts(&paths.guest_run(lab, name), &format!("{alias} {}\n", key.trim_end()))?;
        command.arg("-o").arg(format!("UserKnownHostsFile={}", quoted(&file)));
        command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]);
    } else if !vm.cloud_init() {
        // Its key is its own, and known from the first time on; each disk has another.
        let instance = super::instance(&paths.guest_state(lab, name))?;
        let file = seen_hosts(&paths.guest_run(lab, name), instance)?;
        command.arg("-o").arg(format!("UserKnownHostsFile={}", quoted(&file)));
        command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=accept-new"]);
    }
    command.args(["-o", &format!("HostKeyAlias={alias}"), "-o", "CheckHostIP=no"]);
    // A guest answers on the network before its ssh server does; one that does not answer at all is not waited for.
    command.args(["-o", "ConnectionAttempts=5", "-o", "ConnectTimeout=4", "-l", vm.user()]);
    // Options may stand before the host as well as after; a command only after.
    command.arg(way.address.to_string()).args(extra);
    netns::enter(&way.ns)?;
    as_caller(&mut command)?;
    Ok(command)
}

/// The key that a guest's seed gave it; `None` where it has no seed, whatever it had before.
fn host_key(paths: &Paths, lab: &LabName, vm: &Vm) -> Result<Option<String>, EngineError> {
    if *vm.cloud_init() { public_host_key(&paths.guest_state(lab, vm.name())) } else { Ok(None) }
}

/// What ssh calls a guest, whatever its address.
fn alias(model: &Model, vm: &Vm) -> String {
    format!("{}-{}", model.lab(), vm.name())
}

/// What an ssh on another machine has to know of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The guest's address.
    pub address: IpAddr,
    /// Who logs in.
    pub user: String,
    /// The name that its host key goes by.
    pub alias: String,
    /// The key, where it is known beforehand.
    pub host_key: Option<String>,
}

/// What an ssh on another machine has to know.
///
/// # Errors
/// When the guest does not run, or the router does not serve it.
pub fn door(paths: &Paths, model: &Model, vm: &Vm) -> Result<Door, EngineError> {
    let way = way(model, vm)?;
    if !runs(paths, model, vm)? {
        return Err(EngineError::not_running(model.lab(), vm.name()));
    }
    let host_key = host_key(paths, model.lab(), vm)?.map(|key| key.trim_end().to_owned());
    Ok(Door { address: way.address, user: vm.user().clone(), alias: alias(model, vm), host_key })
}

/// Joins standard input and output with the guest's ssh server, from inside the router.
///
/// # Errors
/// When the router can't be entered. What becomes of the connection is the inner result.
pub fn pipe(model: &Model, vm: &Vm) -> Result<io::Result<()>, EngineError> {
    let way = way(model, vm)?;
    netns::enter(&way.ns)?;
    Ok(join(SocketAddr::new(way.address, PORT)))
}

fn join(to: SocketAddr) -> io::Result<()> {
    // A guest answers on the network before its ssh server does.
    let mut tries = TRIES.0;
    let stream = loop {
        match TcpStream::connect_timeout(&to, TRIES.1) {
            Err(_) if tries > 1 => std::thread::sleep(TRIES.2),
            connected => break connected?,
        }
        tries -= 1;
    };
    let mut up = stream.try_clone()?;
    // It ends with this process, should nothing more be typed.
    std::thread::spawn(move || {
        let ended = io::copy(&mut io::stdin().lock(), &mut up);
        ended.and_then(|_| up.shutdown(Shutdown::Write))
    });
    let mut down = stream;
    let mut out = io::stdout().lock();
    let mut buffer = [0; 16 << 10];
    loop {
        match down.read(&mut buffer)? {
            0 => return Ok(()),
            length => out.write_all(&buffer[..length]).and_then(|()| out.flush())?,
        }
    }
}

/// A value of an ssh option: in quotes, since ssh splits such a value at blanks.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Writes the file with the guest's one key beside its run folder, readable for the caller.
fn known_hosts(run_dir: &Path, line: &str) -> Result<PathBuf, EngineError> {
    make_parent(run_dir)?;
    let path = run_dir.with_extension("known_hosts");
    let put = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.write_all(line.as_bytes())?;
        file.persist(&path)?;
        Ok(())
    };
    put().map_err(|source| EngineError::File { action: "write", path: path.clone(), source })?;
    Ok(path)
}

/// The file with the keys that a guest without a seed was seen with, one for each caller and disk. The caller's ssh writes
/// to it.
fn seen_hosts(run_dir: &Path, instance: u32) -> Result<PathBuf, EngineError> {
    let caller = caller();
    let uid = caller.as_ref().map_or_else(Uid::effective, |(user, _)| user.uid);
    let path = run_dir.with_extension(format!("seen-{instance}-{uid}"));
    let make = || -> io::Result<()> {
        let file = std::fs::File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        std::os::unix::fs::fchown(&file, Some(uid.as_raw()), None)
    };
    make().map_err(|source| EngineError::File { action: "write", path: path.clone(), source })?;
    Ok(path)
}

/// Under sudo: who called it, and their group.
fn caller() -> Option<(User, Gid)> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u32>().ok());
    let uid = number("SUDO_UID").filter(|uid| *uid != 0 && Uid::effective().is_root())?;
    let user = User::from_uid(uid.into()).ok().flatten()?;
    let gid = number("SUDO_GID").map_or(user.gid, Gid::from_raw);
    Some((user, gid))
}

/// Under sudo: the user who called it, with their groups and home.
fn as_caller(command: &mut Command) -> Result<(), EngineError> {
    let Some((user, gid)) = caller() else { return Ok(()) };
    command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name).env("SHELL", &user.shell);
    let fail = |source| EngineError::Spawn { program: command.get_program().into(), source };
    let name = CString::new(user.name.as_str()).map_err(|error| fail(error.into()))?;
    // The process is about to become ssh, so it may change itself for good.
    nix::unistd::initgroups(&name, gid)
        .and_then(|()| nix::unistd::setresgid(gid, gid, gid))
        .and_then(|()| nix::unistd::setresuid(user.uid, user.uid, user.uid))
        .map_err(|errno| fail(errno.into()))
}
