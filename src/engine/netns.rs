//! Guests that are namespaces: running a command in one.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

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
    let status = netns::run_in(&Ns::Named(ns.clone()), || Command::new(program).args(args).status())?;
    let status = status.map_err(fail)?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// Puts the calling thread into a namespace for good.
pub(super) fn enter(ns: &NsName) -> Result<(), EngineError> {
    let fd = netns::open(&Ns::Named(ns.clone()))?;
    setns(fd.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
        crate::kernel::KernelError::Enter { name: ns.clone(), path: netns::path(ns), source: errno.into() }.into()
    })
}
