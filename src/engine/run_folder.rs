//! A guest's run folder: a file system of its own, as small as its sockets and what QEMU prints need.
//!
//! A guest can make QEMU print without end, and one that broke out of QEMU can write whatever it likes there. What
//! they can fill is this file system, and not the host's `/run`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::EngineError;
use super::folder::{Folder, Owner};

/// How much fits, in bytes: what QEMU prints beyond it is lost.
pub const ROOM: u64 = 1 << 20;

/// How many files and sockets fit.
const FILES: u32 = 64;

/// Makes the folder, empty, with a file system of its own. What stood there goes: sockets of a QEMU that was killed,
/// to which a new one would not bind. On an error nothing stays.
pub(super) fn make(path: &Path, owner: Owner) -> Result<Folder, EngineError> {
    remove(path)?;
    let below = Folder::make(path, owner)?;
    let place = format!("/proc/self/fd/{}", below.as_fd().as_raw_fd());
    let options = format!("size={ROOM},nr_inodes={FILES},mode=0700,uid={},gid={}", owner.uid, owner.gid);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = mount(Some("vmnet"), place.as_str(), Some("tmpfs"), flags, Some(options.as_str()));
    let opened = match mounted {
        Ok(()) => Folder::open(path),
        Err(errno) => Err(fail("mount a file system on", path, errno.into())),
    };
    match opened.and_then(|folder| folder.ok_or_else(|| fail("open", path, io::ErrorKind::NotFound.into()))) {
        Ok(folder) => Ok(folder),
        Err(error) => {
            // The first error is the one to tell; the next start of the guest removes what stays.
            let _ = remove(path);
            Err(error)
        }
    }
}

/// Removes the folder and its file system; that there is none is no error. No guest runs in it any more.
///
/// # Errors
/// What the kernel says.
pub fn remove(path: &Path) -> Result<(), EngineError> {
    loop {
        // Whoever still looks into it keeps what is there, without a name.
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: nothing is mounted there.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(fail("unmount", path, errno.into())),
        }
    }
    // std's removal goes by descriptors and follows no link.
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(fail("remove", path, source)),
        _ => Ok(()),
    }
}

fn fail(action: &'static str, path: &Path, source: io::Error) -> EngineError {
    EngineError::File { action, path: path.to_owned(), source }
}
