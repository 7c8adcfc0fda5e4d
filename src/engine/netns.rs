//! Guests that are namespaces: running a command in one.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::EngineError;
use crate::kernel::netns;
use crate::names::NsName;
use crate::state::Ns;

/// Runs a command in a namespace with this process's standard streams, and gives its exit code as a shell would:
/// 128 and the signal's number when one ended it.
///
/// # Errors
/// When the namespace can't be entered: then nothing was started. When there is no such program.
pub fn exec(ns: &NsName, command: &[String]) -> Result<i32, EngineError> {
    let Some((program, args)) = command.split_first() else { return Ok(0) };
    let fail = |source: io::Error| EngineError::Spawn { program: PathBuf::from(program), source };
    let work = || -> io::Result<ExitStatus> {
        own_sys()?;
        Command::new(program).args(args).status()
    };
    let status = netns::run_in(&Ns::Named(ns.clone()), work)?;
    let status = status.map_err(fail)?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// Gives the calling thread a mount namespace whose `/sys` is the one of its network namespace, as ip-netns(8) does:
/// `/sys/class/net` shows the namespace that it was mounted in.
fn own_sys() -> io::Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    umount2("/sys", MntFlags::MNT_DETACH)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    Ok(())
}

/// Puts the calling thread into a namespace for good.
pub(super) fn enter(ns: &NsName) -> Result<(), EngineError> {
    let fd = netns::open(&Ns::Named(ns.clone()))?;
    setns(fd.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
        crate::kernel::KernelError::Enter { name: ns.clone(), path: netns::path(ns), source: errno.into() }.into()
    })
}
