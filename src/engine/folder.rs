//! [`Folder`]: a guest's own folder, reached without following a link.
//!
//! The folder belongs to the user that QEMU runs as. A guest that has broken out of QEMU can put anything into it,
//! so root goes through an open descriptor, makes files under new names only and never follows a link there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::EngineError;
use crate::render::libvirt::LIBVIRT_USER;
use crate::render::qemu::QEMU_USER;

/// The user and group that a folder and its files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// An open folder of one guest.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    owner: Owner,
}

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Folder {
    /// Opens `…/<lab>/guests/<vm>` and makes what is missing of it: the guest's own 0700 and its owner's, those
    /// above 0711 and root's.
    pub fn make(path: &Path, owner: Owner) -> Result<Self, EngineError> {
        let (_, name) = split(path)?;
        let guests_fd = make_parent(path)?;
        let is_new = fstatat(&guests_fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_err();
        let fd = enter(&guests_fd, name, 0o700, path)?;
        if let Err(error) = give(&fd, path, owner) {
            // What could not be finished was not begun. It is empty, or it stays.
            if is_new {
                let _ = unlinkat(&guests_fd, name, UnlinkatFlags::RemoveDir);
            }
            return Err(error);
        }
        Ok(Self { fd, path: path.to_owned(), owner })
    }

    /// Opens a guest's folder that is there; `None` when it is not.
    pub fn open(path: &Path) -> Result<Option<Self>, EngineError> {
        let fd = match nix::fcntl::open(path, FOLDER, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP | Errno::ENOTDIR) => return Err(untrusted(path, "it is a link or no folder")),
            Err(errno) => return Err(lost(path, errno)),
        };
        let found = fstat(&fd).map_err(|errno| lost(path, errno))?;
        Ok(Some(Self { fd, path: path.to_owned(), owner: Owner { uid: found.st_uid, gid: found.st_gid } }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's path, for messages and for programs that get a name.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether there is anything of that name.
    pub fn has(&self, name: &str) -> bool {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Reads a small plain file; `None` when it is not there.
    pub fn read(&self, name: &str) -> Result<Option<String>, EngineError> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(SMALL).read_to_end(&mut bytes).map_err(|source| self.fail("read", name, source))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Opens a plain file for reading; `None` when it is not there.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, EngineError> {
        // Not to wait for a FIFO's other end.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(self.fail("read", name, errno.into())),
        };
        if !file.metadata().map_err(|source| self.fail("read", name, source))?.is_file() {
            return Err(untrusted(&self.join(name), "it is no plain file"));
        }
        Ok(Some(file))
    }

    /// Makes a new, empty file of the owner's; one of that name that stood there is removed before.
    pub fn create(&self, name: &str) -> Result<File, EngineError> {
        self.remove(name)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fail = |errno: Errno| self.fail("write", name, errno.into());
        let fd = openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(fail)?;
        fchown(&fd, Some(self.owner.uid.into()), Some(self.owner.gid.into())).map_err(fail)?;
        Ok(fd.into())
    }

    /// Writes a file whole: under another name first, so that nobody sees half of it.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), EngineError> {
        let new = format!("{name}.new");
        let mut file = self.create(&new)?;
        if let Err(source) = file.write_all(content).and_then(|()| file.sync_all()) {
            // Half a file is of no use, and on a full disk in the way.
            self.remove(&new)?;
            return Err(self.fail("write", name, source));
        }
        self.rename(&new, name)
    }

    /// Renames a file within the folder, onto one that may be there.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        let fail = |errno: Errno| self.fail("rename", from, errno.into());
        renameat(&self.fd, from, &self.fd, to).map_err(fail)?;
        nix::unistd::fsync(&self.fd).map_err(fail)
    }

    /// Removes a file; that there is none is no error.
    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.fail("remove", name, errno.into())),
        }
    }

    /// Names of everything in it.
    pub fn names(&self) -> Result<Vec<String>, EngineError> {
        let fail = |source| EngineError::File { action: "list", path: self.path.clone(), source };
        let own = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(own).map_err(fail)? {
            names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Opens a socket's place, so that it can be connected to by `/proc/self/fd/N` however long its path is.
    pub fn socket(&self, name: &str) -> io::Result<OwnedFd> {
        let fd = openat(&self.fd, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let kind = fstat(&fd)?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFSOCK { Ok(fd) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Removes the folder with all that is in it.
    pub fn remove_all(self) -> Result<(), EngineError> {
        // std's removal goes by descriptors and follows no link.
        std::fs::remove_dir_all(&self.path).map_err(|source| EngineError::File {
            action: "remove",
            path: self.path.clone(),
            source,
        })
    }

    fn fail(&self, action: &'static str, name: &str, source: io::Error) -> EngineError {
        EngineError::File { action, path: self.join(name), source }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// More than any file that is read whole has, in bytes; QEMU's log can be longer.
const SMALL: u64 = 1 << 20;

fn split(path: &Path) -> Result<(&Path, &str), EngineError> {
    let name = path.file_name().and_then(|name| name.to_str());
    path.parent().zip(name).ok_or_else(|| untrusted(path, "it is no path of a folder"))
}

/// Makes what is missing above a guest's folder `…/<lab>/guests/<vm>`, 0711 and root's, and opens the last of it.
pub(super) fn make_parent(path: &Path) -> Result<OwnedFd, EngineError> {
    let (guests, _) = split(path)?;
    let (lab, guests_name) = split(guests)?;
    make_above(lab).map_err(|source| EngineError::File { action: "make", path: lab.to_owned(), source })?;
    let lab_fd = open_root(lab)?;
    ours(&enter(&lab_fd, guests_name, 0o711, guests)?, guests)
}

/// The lab's folder: the last part of its path may not be a link, and it has to be ours.
fn open_root(path: &Path) -> Result<OwnedFd, EngineError> {
    match nix::fcntl::open(path, FOLDER, Mode::empty()) {
        Ok(fd) => ours(&fd, path),
        Err(Errno::ELOOP | Errno::ENOTDIR) => Err(untrusted(path, "it is a link or no folder")),
        Err(errno) => Err(lost(path, errno)),
    }
}

/// Makes a folder with those above it, each new one 0711 whatever the umask: QEMU's user has to pass.
fn make_above(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_above(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o711).create(path) {
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)),
        // Made meanwhile, or a link: whoever opens it will see.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a folder its user's own.
fn give(fd: &OwnedFd, path: &Path, owner: Owner) -> Result<(), EngineError> {
    let found = fstat(fd).map_err(|errno| lost(path, errno))?;
    if found.st_uid != owner.uid {
        // Root's is one that was just made, or one whose handing over was interrupted.
        let root = Uid::effective().as_raw();
        let former = Former { root, guests: guests_users() };
        if !former.has(found.st_uid) {
            return Err(untrusted(path, "it belongs to another user"));
        }
        hand_over(fd, path, &former, owner)?;
    }
    fchmod(fd, Mode::S_IRWXU).map_err(|errno| lost(path, errno))
}

/// Whose a guest's folder and files may have been before.
struct Former {
    root: u32,
    guests: Vec<u32>,
}

impl Former {
    fn has(&self, uid: u32) -> bool {
        uid == self.root || self.guests.contains(&uid)
    }
}

/// The users that guests run as, whatever runs them.
fn guests_users() -> Vec<u32> {
    let uid_of = |name| nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    [QEMU_USER, LIBVIRT_USER].into_iter().filter_map(uid_of).collect()
}

/// Gives the folder of a guest that gets another engine to the user that it will run as, with its files. The former
/// one's processes are shut out first; what they may have put there beside plain files of a guest's stays theirs.
///
/// The folder is root's until all files are the new user's: where this is interrupted, the next start does the rest.
fn hand_over(fd: &OwnedFd, path: &Path, former: &Former, to: Owner) -> Result<(), EngineError> {
    let lost = |errno| lost(path, errno);
    let give = |fd: BorrowedFd<'_>, to: Owner| fchown(fd, Some(to.uid.into()), Some(to.gid.into())).map_err(lost);
    let root = Owner { uid: former.root, gid: Gid::effective().as_raw() };
    give(fd.as_fd(), root)?;
    // Only now: whose it was could open it again.
    fchmod(fd, Mode::S_IRWXU).map_err(lost)?;
    let copy = fd.try_clone().map_err(|source| EngineError::File { action: "open", path: path.to_owned(), source })?;
    let folder = Folder { fd: copy, path: path.to_owned(), owner: root };
    for name in folder.names()? {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let Ok(file) = openat(&folder.fd, name.as_str(), flags, Mode::empty()) else { continue };
        let found = fstat(&file).map_err(lost)?;
        // libvirt leaves root's behind.
        let is_plain = found.st_mode & libc::S_IFMT == libc::S_IFREG && found.st_nlink == 1;
        if is_plain && former.has(found.st_uid) {
            give(file.as_fd(), to)?;
        }
    }
    give(fd.as_fd(), to)
}

/// Opens a folder in another and makes it when it is not there.
fn enter(parent: &OwnedFd, name: &str, mode: u32, path: &Path) -> Result<OwnedFd, EngineError> {
    let mode = Mode::from_bits_truncate(mode);
    let made = match mkdirat(parent, name, mode) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(EngineError::File { action: "make", path: path.to_owned(), source: errno.into() }),
    };
    match openat(parent, name, FOLDER, Mode::empty()) {
        Ok(fd) if made => {
            // The caller's umask took its share of the mode.
            fchmod(&fd, mode).map_err(|errno| {
                let _ = unlinkat(parent, name, UnlinkatFlags::RemoveDir);
                lost(path, errno)
            })?;
            Ok(fd)
        }
        Ok(fd) => Ok(fd),
        Err(Errno::ELOOP | Errno::ENOTDIR) => Err(untrusted(path, "it is a link or no folder")),
        Err(errno) => Err(lost(path, errno)),
    }
}

/// A folder that only we can change things in.
fn ours(fd: &OwnedFd, path: &Path) -> Result<OwnedFd, EngineError> {
    let fail = |source| EngineError::File { action: "look at", path: path.to_owned(), source };
    let copy = fd.try_clone().map_err(fail)?;
    let found = File::from(fd.try_clone().map_err(fail)?).metadata().map_err(fail)?;
    if found.uid() != Uid::effective().as_raw() {
        return Err(untrusted(path, "it belongs to another user"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(untrusted(path, "others may write to it"));
    }
    Ok(copy)
}

fn untrusted(path: &Path, problem: &'static str) -> EngineError {
    EngineError::Folder { path: path.to_owned(), problem }
}

fn lost(path: &Path, errno: Errno) -> EngineError {
    EngineError::File { action: "open", path: path.to_owned(), source: errno.into() }
}

/// Looks a user up by name, with the group that `/dev/kvm` belongs to when that is not root's.
pub fn service_user(name: &str) -> Result<(Owner, Option<u32>), EngineError> {
    let missing = || EngineError::NoUser { user: name.to_owned() };
    let user = nix::unistd::User::from_name(name).ok().flatten().ok_or_else(missing)?;
    let kvm = std::fs::metadata("/dev/kvm").ok().map(|meta| meta.gid()).filter(|gid| *gid != 0);
    Ok((Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }, kvm))
}
