//! Network namespaces below `/run/netns`, where `ip netns` sees them.
//!
//! Made on a thread of their own (a namespace belongs to a thread), marked before they appear under their name, so
//! that none without a mark is ever left behind. What stands at a path is checked before it is entered: never a
//! link, never a plain file.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use super::KernelError;
use super::message;
use super::wire::Wire;
use crate::names::NsName;
use crate::state::Ns;

/// Where `ip netns` keeps namespaces.
pub const DIR: &str = "/run/netns";

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;

nix::ioctl_none_bad!(
    /// `NS_GET_NSTYPE`, ioctl_ns(2): the `CLONE_NEW*` flag of a namespace.
    ns_get_nstype,
    nix::request_code_none!(0xb7, 0x3)
);

/// The file of a namespace.
pub fn path(name: &NsName) -> PathBuf {
    Path::new(DIR).join(name.as_str())
}

/// What stands at a path below `/run/netns`.
#[derive(Debug)]
pub enum Standing {
    /// A network namespace.
    Namespace(OwnedFd),
    /// A plain file with this text (its first 256 bytes).
    File(String),
    /// A link, a folder or another kind of namespace.
    Other,
}

/// Looks at `file` without following a link.
pub fn look(file: &Path) -> io::Result<Standing> {
    let meta = fs::symlink_metadata(file)?;
    if !meta.is_file() {
        return Ok(Standing::Other);
    }
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let mut opened = match fs::File::options().read(true).custom_flags(flags).open(file) {
        Ok(opened) => opened,
        Err(source) if source.raw_os_error() == Some(libc::ELOOP) => return Ok(Standing::Other),
        Err(source) => return Err(source),
    };
    if nix::sys::statfs::fstatfs(&opened)?.filesystem_type().0 as i64 != NSFS_MAGIC {
        let mut text = vec![0; 256];
        let length = io::Read::read(&mut opened, &mut text)?;
        text.truncate(length);
        return Ok(Standing::File(String::from_utf8_lossy(&text).into_owned()));
    }
    let fd = OwnedFd::from(opened);
    // SAFETY: NS_GET_NSTYPE takes no argument and `fd` is open on nsfs.
    let kind = unsafe { ns_get_nstype(std::os::fd::AsRawFd::as_raw_fd(&fd)) }?;
    Ok(if kind == libc::CLONE_NEWNET { Standing::Namespace(fd) } else { Standing::Other })
}

/// A descriptor of a namespace: the calling thread's for [`Ns::Host`].
pub fn open(ns: &Ns) -> Result<OwnedFd, KernelError> {
    let Ns::Named(name) = ns else {
        let own = fs::File::open("/proc/thread-self/ns/net");
        return own.map(Into::into).map_err(|source| KernelError::Open { place: ns.to_string(), source });
    };
    let path = path(name);
    let fail = |source| KernelError::Enter { name: name.clone(), path: path.clone(), source };
    match look(&path) {
        // What is meant for a namespace of the lab's must not be done in the host's instead.
        Ok(Standing::Namespace(fd)) if is_hosts_own(&fd).map_err(fail)? => Err(KernelError::HostsOwn { path }),
        Ok(Standing::Namespace(fd)) => Ok(fd),
        Ok(Standing::File(_) | Standing::Other) => Err(KernelError::NotANamespace { path }),
        Err(source) => Err(fail(source)),
    }
}

/// Whether a namespace is the one that this process began in; its threads may be elsewhere.
fn is_hosts_own(fd: &OwnedFd) -> io::Result<bool> {
    let (found, own) = (nix::sys::stat::fstat(fd)?, fs::metadata("/proc/self/ns/net")?);
    Ok((found.st_dev, found.st_ino) == (own.dev(), own.ino()))
}

/// Runs `work` on a thread of its own inside the namespace; on the calling thread for [`Ns::Host`].
///
/// # Errors
/// When the namespace can't be entered: then `work` has not run, anywhere.
pub fn run_in<T: Send>(ns: &Ns, work: impl FnOnce() -> T + Send) -> Result<T, KernelError> {
    let Ns::Named(name) = ns else { return Ok(work()) };
    let fd = open(ns)?;
    let fail = |source| KernelError::Enter { name: name.clone(), path: path(name), source };
    on_thread(|| {
        nix::sched::setns(fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
    .map_err(fail)
}

/// Runs `work` on a new thread and waits for it: what it does to its own namespace ends with it.
pub fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a namespace with `lo` up and marked.
///
/// The order makes it safe to be killed anywhere: a file that says whose it will be, then the mark on `lo`, and
/// only then the mount which makes it a namespace of that name.
pub fn make(name: &NsName, mark: &str) -> Result<(), KernelError> {
    let fail = |source: io::Error| KernelError::Refused { action: format!("add namespace {name}"), text: None, source };
    prepare_folder().map_err(fail)?;
    let path = path(name);
    place_file(&path, mark).map_err(fail)?;
    let made = on_thread(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
        let mut wire = Wire::open()?;
        wire.request(message::mark_loopback(mark))?;
        let none: Option<&str> = None;
        nix::mount::mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)?;
        Ok(())
    });
    made.map_err(|source| {
        // Nothing is mounted there: the file is ours and of no use. That it stays would only be untidy.
        let _ = fs::remove_file(&path);
        fail(source)
    })
}

/// Removes a namespace's name; the namespace itself ends with its last process and socket. None there is no error.
pub fn remove(name: &NsName) -> Result<(), KernelError> {
    let path = path(name);
    let fail =
        |source: io::Error| KernelError::Refused { action: format!("remove namespace {name}"), text: None, source };
    match nix::mount::umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // EINVAL: nothing is mounted on that file.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(fail(errno.into())),
    }
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(fail(source)),
        _ => Ok(()),
    }
}

/// `/run/netns` as a shared mount, as ip-netns(8) makes it: so a namespace made here shows in other mount
/// namespaces, and one removed there goes here.
fn prepare_folder() -> io::Result<()> {
    let none: Option<&str> = None;
    let share = || nix::mount::mount(none, DIR, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    match fs::DirBuilder::new().mode(0o755).recursive(true).create(DIR) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(source),
        _ => {}
    }
    match share() {
        // Not a mount point yet. Two that do this at once stack two mounts, which does no harm.
        Err(Errno::EINVAL) => {
            nix::mount::mount(Some(DIR), DIR, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}

/// Puts a file with the mark at `path`: complete or not at all (`O_TMPFILE`, then a link).
fn place_file(path: &Path, mark: &str) -> io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .mode(0o444)
        .custom_flags(OFlag::O_TMPFILE.bits() | libc::O_CLOEXEC)
        .open(DIR)?;
    file.write_all(mark.as_bytes())?;
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    nix::unistd::linkat(AT_FDCWD, own.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?;
    Ok(())
}
