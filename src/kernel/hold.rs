//! Machines of a rehearsal: namespaces that a process of their own keeps, and that end with it.
//!
//! A holder is process 1 of its machine. Whoever started it has the other end of a pipe: when that is closed without a
//! word, however that process ended, the holder ends, the kernel ends everything else in the machine, and its links,
//! mounts and processes are gone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::Mode;

use super::wire::Wire;
use super::{caps, child, message, netns, sysctl};

/// What a holder says when its machine is ready; anything else is why it is not.
const READY: &str = "ready";

/// What it is told to go on without whoever started it.
const STAY: &[u8] = b"s";

/// What a machine has of its own. Users are those of whoever started it.
const OWN: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWUTS);

/// How long a machine may take to end, in milliseconds.
const ENDING: u16 = 10_000;

/// Where vmnet's state is in a machine, instead of `/var/lib/vmnet`.
pub const STATE: &str = "/run/vmnet-state";

/// A machine. It is gone when this is dropped.
#[derive(Debug)]
pub struct Holder {
    process: Child,
    /// Closed, it is the word to end.
    lifeline: Option<PipeWriter>,
}

impl Holder {
    /// Starts this program again with `arguments` as process 1 of a new machine, where it has to call [`settle`] and
    /// then [`stay`], and waits until that machine is ready.
    ///
    /// # Errors
    /// What the kernel says, or the holder.
    pub fn start(arguments: &[&OsStr]) -> io::Result<Self> {
        let (mut ready, its_ready) = pipe()?;
        let (its_lifeline, lifeline) = pipe()?;
        let mut command = child::bare(Path::new("/proc/self/exe"));
        command.arg0("vmnet").args(arguments).stdin(its_lifeline).stdout(its_ready).stderr(Stdio::null());
        // SAFETY: system calls only. A session of its own: no terminal ends it.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                Ok(())
            })
        };
        // Namespaces are a thread's, and this one's first child is process 1 of the new one.
        let process = netns::on_thread(|| {
            unshare(OWN)?;
            command.spawn()
        })?;
        drop(command);
        let holder = Self { process, lifeline: Some(lifeline) };
        let mut said = String::new();
        ready.read_to_string(&mut said)?;
        match said.as_str() {
            READY => Ok(holder),
            "" => Err(io::ErrorKind::UnexpectedEof.into()),
            why => Err(io::Error::other(why.to_owned())),
        }
    }

    /// Its process, in the numbers of this process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its network.
    ///
    /// # Errors
    /// When it has ended.
    pub fn network(&self) -> io::Result<OwnedFd> {
        Ok(File::open(format!("/proc/{}/ns/net", self.pid()))?.into())
    }

    /// Lets it go on without this process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn keep(mut self) -> io::Result<()> {
        self.lifeline.take().map_or(Ok(()), |mut lifeline| lifeline.write_all(STAY))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.lifeline.take().is_some() {
            // At most it has ended already. Waiting returns when everything in the machine has.
            let _ = self.process.kill().and_then(|()| self.process.wait());
        }
    }
}

/// Leaves the users of this machine where this process has none of root's rights: it is root of a namespace of its own
/// then. And leaves the machine's network, so that nothing that is done later can touch it. No other thread may be
/// there yet.
///
/// # Errors
/// What the kernel says; it may forbid both.
pub fn leave() -> io::Result<()> {
    let wanted = caps::Caps::NET_ADMIN.and(caps::Caps::SYS_ADMIN);
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if !user.is_root() || !wanted.without(caps::held()?).is_empty() {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // user_namespaces(7): without this, nobody but root may map a group.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    }
    let before = fs::metadata("/proc/self/ns/net").map(|meta| inode(&meta))?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let after = fs::metadata("/proc/self/ns/net").map(|meta| inode(&meta))?;
    if before == after { Err(io::Error::other("the kernel gave no network of its own")) } else { Ok(()) }
}

fn inode(meta: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (meta.dev(), meta.ino())
}

/// In a holder: makes its machine. Its files are those of the machine that it runs on, but for `/run`, which is empty
/// with these `folders` in it, for the processes of its own, and for domains of libvirt, which it has none of.
///
/// # Errors
/// What the kernel says, and of what.
pub fn settle(name: &str, folders: &[PathBuf]) -> io::Result<()> {
    nix::unistd::sethostname(name)?;
    root(folders).map_err(|error| told("its files", &error))?;
    let none: Option<&str> = None;
    let fresh = |kind: &str, path: &str| mount(Some(kind), path, Some(kind), MsFlags::empty(), none);
    // The old one shows foreign processes, and none of this machine's.
    fresh("proc", "/proc").map_err(|errno| {
        told("its /proc (a container that hides parts of /proc allows no other one)", &errno.into())
    })?;
    // Where that is forbidden, the one that is there shows other links; nothing of vmnet's reads that.
    let _ = fresh("sysfs", "/sys");
    if Path::new("/etc/libvirt").is_dir() {
        fresh("tmpfs", "/etc/libvirt").map_err(|errno| told("its /etc/libvirt", &errno.into()))?;
    }
    let mut wire = Wire::open()?;
    wire.request(message::up("lo")).map_err(|error| told("its lo", &error))
}

fn told(what: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

/// A root of its own: in a namespace of users `/` belongs to nobody, and no folder on it can be trusted.
fn root(folders: &[PathBuf]) -> io::Result<()> {
    let none: Option<&str> = None;
    let bind = |from: &Path, to: &Path| mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none);
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    // By descriptors: what is below /run can't be seen any more in a moment.
    let opened: Vec<(&PathBuf, OwnedFd)> = folders
        .iter()
        .map(|folder| Ok((folder, open(folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)))
        .collect::<io::Result<_>>()?;
    let new = Path::new("/run");
    let small = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), new, Some("tmpfs"), small, Some("mode=755"))?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let (from, to) = (entry.path(), new.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_dir() {
            fs::create_dir(&to)?;
            // What only root may see stays so: an empty folder stands in.
            if from != new && from != Path::new("/lost+found") {
                bind(&from, &to)?;
            }
        }
    }
    for (folder, fd) in opened {
        let to = new.join(folder.strip_prefix("/").unwrap_or(folder));
        fs::create_dir_all(&to)?;
        bind(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())), &to)?;
    }
    let old = new.join(".old");
    fs::create_dir(&old)?;
    nix::unistd::pivot_root(new, &old)?;
    std::env::set_current_dir("/")?;
    umount2("/.old", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/.old")
}

/// In a holder: says whether its machine is ready, and keeps it until it is told to end.
///
/// # Errors
/// When the machine is not ready; that is said already.
pub fn stay(ready: io::Result<()>) -> io::Result<()> {
    let text = ready.as_ref().map_or_else(ToString::to_string, |()| READY.to_owned());
    // Whoever is gone has no need to know.
    let _ = nix::unistd::write(io::stdout(), text.as_bytes());
    nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    ready?;
    // Whatever loses its parent is this process's child then, and nobody asks how it ended.
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::SA_NOCLDWAIT, SigSet::empty());
    // SAFETY: no handler is set.
    unsafe { sigaction(Signal::SIGCHLD, &ignore) }?;
    let mut word = [0];
    let told = loop {
        match io::stdin().read(&mut word) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if told == 0 {
        return Ok(());
    }
    loop {
        nix::unistd::pause();
    }
}

/// Enters the machine of a holder: its network, files and name for this process, its processes for what it starts. No
/// other thread may be there yet.
///
/// # Errors
/// When it has ended, or belongs to another user.
pub fn enter(pid: u32) -> io::Result<()> {
    let fd = open_process(pid)?;
    let users = |of: &str| fs::read_link(format!("/proc/{of}/ns/user"));
    let other_users = users("self")? != users(&pid.to_string())?;
    let flags = if other_users { OWN | CloneFlags::CLONE_NEWUSER } else { OWN };
    setns(fd.as_fd(), flags)?;
    std::env::set_current_dir("/")
}

/// Runs `work` on a thread of its own in a machine's network.
///
/// # Errors
/// When it can't be entered, and what `work` says.
pub fn run_in<T: Send>(network: &OwnedFd, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    netns::on_thread(|| {
        setns(network.as_fd(), CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// The holders of this user that run with these arguments before any others: each with the rest.
///
/// # Errors
/// When `/proc` can't be read.
pub fn find(arguments: &[&str]) -> io::Result<Vec<(u32, Vec<String>)>> {
    use std::os::unix::fs::MetadataExt;
    let own = nix::unistd::geteuid().as_raw();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if entry.metadata().is_ok_and(|meta| meta.uid() != own) {
            continue;
        }
        // One that has just ended is none.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let mut words = words.into_iter();
        if words.next().as_deref() == Some("vmnet")
            && arguments.iter().all(|wanted| words.next().as_deref() == Some(wanted))
        {
            found.push((pid, words.filter(|word| !word.is_empty()).collect()));
        }
    }
    found.sort();
    Ok(found)
}

/// Ends a holder that was kept, and everything in its machine.
///
/// # Errors
/// When that is not allowed.
pub fn end(pid: u32) -> io::Result<()> {
    let process = match open_process(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        process => process?,
    };
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL) {
        Err(Errno::ESRCH) | Ok(()) => {}
        Err(errno) => return Err(errno.into()),
    }
    // It can be read when the process has ended, which comes after everything in the machine.
    match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], ENDING) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two numbers and gives a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: it was opened right now and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for a program that was started in a machine. What the terminal says to both is for it alone.
///
/// # Errors
/// What the kernel says.
pub fn wait_for(command: &mut Command) -> io::Result<ExitStatus> {
    // SAFETY: system calls only. Whoever asked for it is gone: so is its terminal, or its test.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?)) };
    let mut child = command.spawn()?;
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is set.
        unsafe { sigaction(signal, &ignore) }?;
    }
    child.wait()
}

/// Switches IPv6 off for links to come, in the calling thread's network.
///
/// # Errors
/// What the kernel says; one that has no IPv6 is none.
pub(super) fn without_ipv6() -> io::Result<()> {
    if !sysctl::has_ipv6() {
        return Ok(());
    }
    sysctl::write(&sysctl::disable_ipv6("default"), "1")
}
