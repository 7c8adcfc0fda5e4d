//! Which system calls are points: those that change something outside of the process, and those whose failure a
//! change has to cope with.
//!
//! No points: what only reads; memory; waiting; descriptors; what goes to stdout, stderr, pipes and event
//! descriptors; and everything of a program that only lists (`nft list`).

use nix::unistd::Pid;

use super::memory;

/// What a system call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A netlink request that changes something, or a batch of them.
    Netlink,
    /// A message to QEMU.
    Monitor,
    /// Text into a file; below `/proc/sys` a setting.
    Write,
    /// A file is opened to be made or emptied.
    Create,
    /// A name or a folder comes.
    Name,
    /// A name or a folder goes.
    Remove,
    /// Mode or owner.
    Mode,
    /// Length, or the way to the disk.
    Sync,
    /// A mount comes.
    Mount,
    /// A mount goes.
    Unmount,
    /// A namespace is made.
    Unshare,
    /// A TAP is made, or an offload switched.
    Device,
    /// A signal to another process.
    Signal,
    /// A process is made.
    Fork,
    /// A program is started.
    Exec,
    /// A thread is made. Changes nothing, may fail.
    Thread,
    /// A namespace is entered. Changes nothing, may fail.
    Enter,
}

impl Kind {
    /// Whether it changes something outside of the process.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Self::Thread | Self::Enter)
    }

    /// The errors that it is made to fail with: those of EPERM, ENOMEM, EBUSY and ENOSPC that its manual page knows.
    pub(crate) fn errors(self) -> &'static [i32] {
        match self {
            Self::Netlink => &[libc::EPERM, libc::ENOMEM],
            Self::Monitor => &[libc::ENOMEM],
            Self::Write | Self::Sync => &[libc::ENOSPC],
            Self::Create | Self::Name => &[libc::ENOSPC, libc::EPERM],
            Self::Remove | Self::Unmount => &[libc::EBUSY, libc::EPERM],
            Self::Mode | Self::Signal => &[libc::EPERM],
            Self::Mount | Self::Device => &[libc::EPERM, libc::EBUSY],
            Self::Unshare => &[libc::EPERM, libc::ENOSPC],
            Self::Fork | Self::Exec => &[libc::ENOMEM],
            Self::Thread => &[libc::EAGAIN],
            Self::Enter => &[libc::EPERM, libc::ENOMEM],
        }
    }
}

/// A system call as it is about to be made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What it is about.
    pub kind: Kind,
    /// It in words.
    pub text: String,
    /// How many netlink messages it carries.
    pub messages: usize,
}

const TUNSETIFF: u64 = 0x4004_54ca;
const SIOCETHTOOL: u64 = 0x8946;
/// `ETHTOOL_STXCSUM` of linux/ethtool.h.
const STXCSUM: u32 = 0x17;

/// The point that a system call is, if it is one.
pub(crate) fn look(pid: Pid, number: i64, args: &[u64; 6]) -> Option<Call> {
    match number {
        libc::SYS_sendto | libc::SYS_sendmsg => sent(pid, number, args),
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev => written(pid, number, args),
        libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => Some(cloned(pid, number, args)),
        libc::SYS_ioctl => device(pid, args),
        _ => on_files(pid, number, args).or_else(|| other(pid, number, args)),
    }
}

fn call(kind: Kind, text: String) -> Call {
    Call { kind, text, messages: 0 }
}

/// Names, modes, lengths.
fn on_files(pid: Pid, number: i64, args: &[u64; 6]) -> Option<Call> {
    let text = |number: usize| memory::text(pid, args[number]);
    let fd = |number: usize| memory::descriptor(pid, args[number]);
    let makes = |flags: u64| {
        flags as i32 & (libc::O_CREAT | libc::O_TRUNC) != 0 || flags as i32 & libc::O_TMPFILE == libc::O_TMPFILE
    };
    Some(match number {
        libc::SYS_openat if makes(args[2]) => call(Kind::Create, format!("openat({}, {:#o})", text(1), args[2])),
        libc::SYS_open if makes(args[1]) => call(Kind::Create, format!("open({}, {:#o})", text(0), args[1])),
        libc::SYS_rename => call(Kind::Name, format!("rename({}, {})", text(0), text(1))),
        libc::SYS_renameat | libc::SYS_renameat2 => call(Kind::Name, format!("renameat({}, {})", text(1), text(3))),
        libc::SYS_link | libc::SYS_symlink => call(Kind::Name, format!("link({}, {})", text(0), text(1))),
        libc::SYS_linkat => call(Kind::Name, format!("linkat({}, {})", text(1), text(3))),
        libc::SYS_symlinkat => call(Kind::Name, format!("symlinkat({}, {})", text(0), text(2))),
        libc::SYS_mkdir => call(Kind::Name, format!("mkdir({})", text(0))),
        libc::SYS_mkdirat => call(Kind::Name, format!("mkdirat({}, {})", fd(0), text(1))),
        libc::SYS_unlink => call(Kind::Remove, format!("unlink({})", text(0))),
        libc::SYS_unlinkat => call(Kind::Remove, format!("unlinkat({}, {})", fd(0), text(1))),
        libc::SYS_rmdir => call(Kind::Remove, format!("rmdir({})", text(0))),
        libc::SYS_chmod => call(Kind::Mode, format!("chmod({}, {:#o})", text(0), args[1])),
        libc::SYS_chown | libc::SYS_lchown => call(Kind::Mode, format!("chown({})", text(0))),
        libc::SYS_fchmod => call(Kind::Mode, format!("fchmod({}, {:#o})", fd(0), args[1])),
        libc::SYS_fchown => call(Kind::Mode, format!("fchown({})", fd(0))),
        libc::SYS_fchmodat | libc::SYS_fchownat => call(Kind::Mode, format!("fchmodat/fchownat({})", text(1))),
        libc::SYS_ftruncate => call(Kind::Sync, format!("ftruncate({}, {})", fd(0), args[1])),
        libc::SYS_fallocate => call(Kind::Sync, format!("fallocate({})", fd(0))),
        libc::SYS_fsync | libc::SYS_fdatasync => call(Kind::Sync, format!("fsync({})", fd(0))),
        _ => return None,
    })
}

/// Mounts, namespaces, signals, programs.
fn other(pid: Pid, number: i64, args: &[u64; 6]) -> Option<Call> {
    let text = |number: usize| memory::text(pid, args[number]);
    Some(match number {
        libc::SYS_mount => {
            let what = if args[0] == 0 { "none".to_owned() } else { text(0) };
            call(Kind::Mount, format!("mount({what}, {}, flags {:#x})", text(1), args[3]))
        }
        libc::SYS_umount2 => call(Kind::Unmount, format!("umount2({})", text(0))),
        libc::SYS_unshare => call(Kind::Unshare, format!("unshare({:#x})", args[0])),
        libc::SYS_setns => call(Kind::Enter, format!("setns({})", memory::descriptor(pid, args[0]))),
        libc::SYS_kill => call(Kind::Signal, format!("kill({}, {})", args[0] as i32, args[1])),
        libc::SYS_pidfd_send_signal => call(Kind::Signal, format!("pidfd_send_signal({}, {})", args[0], args[1])),
        libc::SYS_execve => call(Kind::Exec, format!("execve({})", text(0))),
        _ => return None,
    })
}

fn cloned(pid: Pid, number: i64, args: &[u64; 6]) -> Call {
    let flags = match number {
        libc::SYS_clone => args[0],
        // struct clone_args begins with the flags.
        libc::SYS_clone3 => memory::read(pid, args[0], 8).try_into().map_or(0, u64::from_ne_bytes),
        _ => 0,
    };
    match flags & libc::CLONE_THREAD as u64 {
        0 => call(Kind::Fork, "clone(a process)".to_owned()),
        _ => call(Kind::Thread, "clone(a thread)".to_owned()),
    }
}

fn device(pid: Pid, args: &[u64; 6]) -> Option<Call> {
    let request = memory::read(pid, args[2], 24);
    let name: Vec<u8> = request.iter().copied().take_while(|byte| *byte != 0).take(libc::IFNAMSIZ).collect();
    let name = String::from_utf8_lossy(&name).into_owned();
    match args[1] {
        TUNSETIFF => Some(call(Kind::Device, format!("ioctl(TUNSETIFF, {name})"))),
        SIOCETHTOOL => {
            // struct ifreq: behind the name stands where the command is.
            let place = u64::from_ne_bytes(request.get(16..24)?.try_into().ok()?);
            let command = u32::from_ne_bytes(memory::read(pid, place, 4).try_into().ok()?);
            (command == STXCSUM).then(|| call(Kind::Device, format!("ioctl(SIOCETHTOOL, {name}, STXCSUM)")))
        }
        _ => None,
    }
}

fn written(pid: Pid, number: i64, args: &[u64; 6]) -> Option<Call> {
    // Standard output and error are the user's, and QEMU's log and what a child says to its parent are none of ours.
    if args[0] <= 2 {
        return None;
    }
    let target = memory::descriptor(pid, args[0]);
    let begin =
        if number == libc::SYS_writev { Vec::new() } else { memory::read(pid, args[1], (args[2] as usize).min(40)) };
    let text = String::from_utf8_lossy(&begin).escape_debug().to_string();
    if target.starts_with("socket:") {
        return begin.starts_with(b"{").then(|| call(Kind::Monitor, format!("write(QEMU, {text})")));
    }
    let is_file = target.starts_with('/') && !target.starts_with("/dev/");
    is_file.then(|| call(Kind::Write, format!("write({target}, \"{text}\", {})", args[2])))
}

fn sent(pid: Pid, number: i64, args: &[u64; 6]) -> Option<Call> {
    let pieces = memory::pieces(pid, number, args);
    let begin = memory::read(pid, pieces.first()?.0, pieces.first()?.1.min(40));
    if begin.starts_with(b"{") {
        return Some(call(Kind::Monitor, format!("send(QEMU, {})", String::from_utf8_lossy(&begin).escape_debug())));
    }
    let messages = memory::messages(pid, &pieces);
    let words: Vec<String> = messages.iter().filter_map(|(_, message)| word(message, messages.len() > 1)).collect();
    let shown = words.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = if words.len() > 3 { format!(", … {} in all", words.len()) } else { String::new() };
    let text = format!("send(netlink, {shown}{more})");
    (!words.is_empty()).then_some(Call { kind: Kind::Netlink, text, messages: messages.len() })
}

/// A netlink message that changes something, in words. Batches are nftables'.
fn word(message: &[u8], batch: bool) -> Option<String> {
    const NFTABLES: u16 = 10;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if batch || kind >> 8 == NFTABLES {
        return batch.then(|| format!("nftables {:#x}", kind));
    }
    // linux/rtnetlink.h: by four, each NEW, DEL, GET, SET; from 16 on.
    let verb = ["NEW", "DEL", "GET", "SET"][usize::from(kind % 4)];
    let object = match kind.checked_sub(16)? / 4 {
        0 => "LINK",
        1 => "ADDR",
        2 => "ROUTE",
        _ => "OTHER",
    };
    // The name (IFLA_IFNAME, 3) stands behind the header and struct ifinfomsg.
    let name = if object == "LINK" { attribute(message.get(32..)?, 3) } else { None }.unwrap_or_default();
    (verb != "GET").then(|| format!("RTM_{verb}{object} {name}"))
}

fn attribute(mut rest: &[u8], wanted: u16) -> Option<String> {
    while let [a, b, c, d, ..] = rest {
        let (length, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]));
        if kind == wanted {
            return Some(String::from_utf8_lossy(rest.get(4..length)?).trim_end_matches('\0').to_owned());
        }
        rest = rest.get((length.max(4) + 3) & !3..)?;
    }
    None
}
