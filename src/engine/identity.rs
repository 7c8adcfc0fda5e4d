//! Becoming somebody else between fork and exec.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::folder::Owner;
use crate::kernel::caps::{self, Caps};

/// Makes `command` run as `owner` with at most one supplementary group, in `folder`, in a session of its own, without
/// any capability and able to gain none, and with no descriptor beyond the standard three and `kept`. Its core dumps
/// would hold a guest's memory and keys: it makes none.
///
/// `folder` and `kept` have to stay open until the command is spawned.
pub(super) fn drop_in_child(
    command: &mut Command,
    owner: Owner,
    group: Option<u32>,
    folder: BorrowedFd<'_>,
    kept: &[RawFd],
) {
    let kept = kept.to_vec();
    let folder = folder.as_raw_fd();
    // SAFETY: between fork and exec only system calls are made, none of which allocates or takes a lock; `kept` was
    // allocated before.
    unsafe {
        command.pre_exec(move || {
            // Everything closes at exec, what the caller left open for its children included; then what stays.
            check(libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32))?;
            for fd in &kept {
                check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            }
            check(libc::fchdir(folder))?;
            check(libc::setsid())?;
            libc::umask(0o077);
            caps::empty_bounding_set()?;
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
            // A program run by a user for itself stays that user.
            if libc::geteuid() != owner.uid {
                let groups = group.unwrap_or_default();
                check(libc::setgroups(usize::from(group.is_some()), &raw const groups))?;
                check(libc::setresgid(owner.gid, owner.gid, owner.gid))?;
                check(libc::setresuid(owner.uid, owner.uid, owner.uid))?;
            }
            caps::hand(Caps::NONE)
        });
    }
}

fn check(result: i32) -> std::io::Result<()> {
    if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
