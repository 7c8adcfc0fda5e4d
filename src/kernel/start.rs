//! What a program that runs as root puts right about its process before it begins, whoever started it.

use std::io;

use nix::sys::stat::{Mode, umask};

/// Takes what the caller left: files made from here on are writable for their owner alone, no core dump holds a
/// guest's keys, and no child inherits a descriptor that the caller left open. (That the standard three are open, std
/// has seen to by now: `/dev/null` stands in.)
///
/// # Errors
/// What the kernel says.
pub fn put_right() -> io::Result<()> {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit(2) reads the one struct; close_range(2) with this flag closes nothing now.
    let results = unsafe {
        [
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none),
            libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32),
        ]
    };
    if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}
