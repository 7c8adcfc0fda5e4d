//! Capabilities: which this thread has, giving up those that are not needed, and what a child gets.
//!
//! Capabilities belong to a thread and its later children: what [`confine`] gives up is gone for the process only when
//! it is called before any other thread is there.

use std::collections::BTreeSet;
use std::{fs, io};

/// Capability names by bit (linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The effective capabilities of the calling thread.
pub fn effective() -> io::Result<BTreeSet<String>> {
    Ok(parse(&fs::read_to_string("/proc/thread-self/status")?))
}

/// `CapEff` of proc_pid_status(5).
fn parse(status: &str) -> BTreeSet<String> {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default();
    let has = |bit: usize| bits >> bit & 1 == 1;
    NAMES.iter().enumerate().filter(|(bit, _)| has(*bit)).map(|(_, name)| (*name).to_owned()).collect()
}

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps(u64);

impl Caps {
    /// None.
    pub const NONE: Self = Self(0);
    /// All that there are or will be.
    pub const ALL: Self = Self(u64::MAX);
    /// Giving files away.
    pub const CHOWN: Self = Self(1);
    /// Entering folders of other users.
    pub const DAC_OVERRIDE: Self = Self(1 << 1);
    /// Changing the mode of other users' files.
    pub const FOWNER: Self = Self(1 << 3);
    /// Signals to processes of other users.
    pub const KILL: Self = Self(1 << 5);
    /// Becoming another group.
    pub const SETGID: Self = Self(1 << 6);
    /// Becoming another user.
    pub const SETUID: Self = Self(1 << 7);
    /// Taking capabilities from children for good.
    pub const SETPCAP: Self = Self(1 << 8);
    /// Links, addresses, routes, nftables, network settings.
    pub const NET_ADMIN: Self = Self(1 << 12);
    /// Packet sockets.
    pub const NET_RAW: Self = Self(1 << 13);
    /// Loading kernel modules.
    pub const SYS_MODULE: Self = Self(1 << 16);
    /// Opening the namespaces of processes that have more rights than this one.
    pub const SYS_PTRACE: Self = Self(1 << 19);
    /// Entering and mounting namespaces.
    pub const SYS_ADMIN: Self = Self(1 << 21);

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is not in the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names as capabilities(7) writes them.
    pub fn names(self) -> Vec<&'static str> {
        NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| *name).collect()
    }

    fn bits(self) -> impl Iterator<Item = u64> {
        (0..u64::from(u64::BITS)).filter(move |bit| self.0 >> bit & 1 == 1)
    }
}

/// Whether root here is another user outside (user_namespaces(7)): the kernel then loads modules when they are needed,
/// and none because of this process.
pub fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What the calling thread may have in effect: its permitted set.
///
/// # Errors
/// A kernel without capget(2) of this form.
pub fn held() -> io::Result<Caps> {
    let mut halves = [Half::default(); 2];
    // SAFETY: capget(2) in this version reads the header and writes two halves.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const HEADER, halves.as_mut_ptr()) })?;
    Ok(Caps(u64::from(halves[0].permitted) | u64::from(halves[1].permitted) << 32))
}

/// Gives up everything but `keep`, for this thread and all that come of it: also what a program would get for being
/// run by root, and by setuid bits and file capabilities.
///
/// Without `CAP_SETPCAP` the bounding set can't be made smaller, nor root's privilege at exec be switched off.
///
/// # Errors
/// What the kernel says. Then nothing that could be given up may have been.
pub fn confine(keep: Caps) -> io::Result<()> {
    let held = held()?;
    set(held, held, Caps::NONE)?;
    if !held.within(Caps::SETPCAP).is_empty() {
        bound(keep)?;
        prctl(libc::PR_SET_SECUREBITS, NO_ROOT, 0)?;
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    let kept = held.within(keep);
    set(kept, kept, Caps::NONE)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// In a child before exec: its program gets those of `only` that this thread has, and nothing can give it more. Makes
/// system calls only.
///
/// # Errors
/// What the kernel says.
pub fn hand(only: Caps) -> io::Result<()> {
    let held = held()?;
    if !held.within(Caps::SETPCAP).is_empty() {
        bound(only)?;
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    let handed = held.within(only);
    set(handed, handed, handed)?;
    for bit in handed.bits() {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, bit)?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// In a child that is about to become another user: no program gets anything from its file capabilities any more. Makes
/// system calls only; without `CAP_SETPCAP` it does nothing.
///
/// # Errors
/// What the kernel says.
pub fn empty_bounding_set() -> io::Result<()> {
    if held()?.within(Caps::SETPCAP).is_empty() { Ok(()) } else { bound(Caps::NONE) }
}

/// `SECBIT_NOROOT` and `SECBIT_NOROOT_LOCKED` of linux/securebits.h: exec gives root no capabilities.
const NO_ROOT: u64 = 0b11;

/// Makes the bounding set smaller.
fn bound(keep: Caps) -> io::Result<()> {
    for bit in Caps::ALL.without(keep).bits() {
        match prctl(libc::PR_CAPBSET_DROP, bit, 0) {
            // Beyond the last one that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// The header of capget(2) and capset(2): version 3, the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

static HEADER: Header = Header { version: 0x2008_0522, pid: 0 };

/// 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set(effective: Caps, permitted: Caps, inheritable: Caps) -> io::Result<()> {
    let half = |shift: u32| Half {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: (inheritable.0 >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: capset(2) in this version reads the header and two halves.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const HEADER, halves.as_ptr()) })
}

fn prctl(option: i32, second: u64, third: u64) -> io::Result<()> {
    // SAFETY: the options used here take numbers, no pointers.
    check(i64::from(unsafe { libc::prctl(option, second, third, 0, 0) }))
}

fn check(result: i64) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_names() {
        let both = Caps::NET_ADMIN.and(Caps::SYS_ADMIN);
        assert_eq!(both.names(), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(both.without(Caps::NET_ADMIN), Caps::SYS_ADMIN);
        let each =
            [Caps::CHOWN, Caps::DAC_OVERRIDE, Caps::FOWNER, Caps::KILL, Caps::SETGID, Caps::SETUID, Caps::SETPCAP];
        let names: Vec<_> = each.iter().flat_map(|one| one.names()).collect();
        let expected =
            ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"];
        assert_eq!(names, expected);
        assert_eq!(Caps::NET_RAW.and(Caps::SYS_MODULE).names(), ["CAP_NET_RAW", "CAP_SYS_MODULE"]);
    }

    #[test]
    fn what_is_given_up_is_gone_for_this_thread() {
        std::thread::spawn(|| {
            let before = held().unwrap();
            confine(Caps::NET_ADMIN).unwrap();
            assert_eq!(held().unwrap(), before.within(Caps::NET_ADMIN));
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
            if !before.within(Caps::SETPCAP).is_empty() {
                assert!(status.contains("CapBnd:\t0000000000001000"), "{status}");
            }
            assert!(effective().unwrap().iter().all(|name| name == "CAP_NET_ADMIN"));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn bits_are_names() {
        let found = parse("Name:\tx\nCapEff:\t0000000000203000\nCapBnd:\tffff\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]);
        assert!(parse("").is_empty());
    }
}
