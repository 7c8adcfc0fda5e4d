//! Becoming somebody else between fork and exec.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::folder::Owner;

/// Makes `command` run as `owner` with at most one supplementary group, in `folder`, in a session of its own, able
/// to gain no privilege, and with no descriptor beyond the standard three and `kept`.
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
            // Only root can, and only root needs to; a program run by a user for itself stays that user.
            if libc::geteuid() == 0 {
                let groups = group.unwrap_or_default();
                check(libc::setgroups(usize::from(group.is_some()), &raw const groups))?;
                check(libc::setresgid(owner.gid, owner.gid, owner.gid))?;
                check(libc::setresuid(owner.uid, owner.uid, owner.uid))?;
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            Ok(())
        });
    }
}

fn check(result: i32) -> std::io::Result<()> {
    if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
