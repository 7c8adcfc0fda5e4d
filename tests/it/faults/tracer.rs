//! Runs a program under ptrace, follows its threads and children, and meddles at one of its points.
//!
//! A point is named by who makes the call and the number of the point there: `0` is the program's first thread,
//! `0.2` the second thread or child that it made. Threads run side by side, so a number over all of them would mean
//! another call each time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls::{self, Call};
use super::memory;

/// What runs longer hangs: the longest wait of vmnet's own is a minute.
const LIMIT: Duration = Duration::from_secs(90);

/// The name of a point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Who makes the call.
    pub actor: String,
    /// Which of its points, from 0.
    pub number: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.actor, self.number)
    }
}

/// What is done at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The program gets SIGKILL before the call is made.
    KillBefore,
    /// The program gets SIGKILL after the call was made.
    KillAfter,
    /// The call is not made and fails with this error number.
    Fail(i32),
    /// The netlink message of this number in the call becomes one that the kernel refuses.
    Spoil(usize),
    /// The program gets a signal before the call is made, and its whole process group does, as from a terminal.
    Signal(Signal),
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBefore => f.write_str("kill-before"),
            Self::KillAfter => f.write_str("kill-after"),
            Self::Fail(errno) => write!(f, "fail-{:?}", Errno::from_raw(*errno)),
            Self::Spoil(message) => write!(f, "spoil-{message}"),
            Self::Signal(signal) => write!(f, "{signal}"),
        }
    }
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// How the program ended.
    pub status: ExitStatus,
    /// Its points, in the order in which they came.
    pub points: Vec<(Key, Call)>,
    /// Whether the deed was done.
    pub done: bool,
}

/// Runs a program to its end, and that of all its children which are followed: not QEMU and its log's keeper, and no
/// `nft list`.
///
/// The caller's thread is the tracer: no other child of it may run meanwhile.
pub(crate) fn run(command: &mut Command, deed: Option<(&Key, Deed)>) -> Run {
    command.process_group(0);
    // SAFETY: ptrace(2) is a system call without memory.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    let child = command.spawn().expect("the program starts");
    let root = Pid::from_raw(i32::try_from(child.id()).expect("a process number"));
    // Reaped below, by its number.
    std::mem::forget(child);
    let (finished, wait) = mpsc::channel::<()>();
    // What hangs is killed, and counts as a failure like any other.
    let watch = std::thread::spawn(move || {
        if wait.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = killpg(root, Signal::SIGKILL);
        }
    });
    let mut tracer = Tracer {
        root,
        deed: deed.map(|(key, deed)| (key.clone(), deed)),
        followed: BTreeMap::new(),
        early: BTreeSet::new(),
        points: Vec::new(),
        status: None,
        done: false,
    };
    tracer.begin();
    while tracer.step() {}
    drop(finished);
    watch.join().expect("the watch ends");
    Run { status: tracer.status.expect("the program has ended"), points: tracer.points, done: tracer.done }
}

/// One thread or process that is followed.
#[derive(Debug, Default)]
struct Actor {
    name: String,
    children: usize,
    points: usize,
    pending: Option<Pending>,
    /// Its first stop, by SIGSTOP, is still to come.
    fresh: bool,
}

/// What is to be done when the call that was entered is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Kill,
    Fail(i32),
}

struct Tracer {
    root: Pid,
    deed: Option<(Key, Deed)>,
    followed: BTreeMap<Pid, Actor>,
    /// New ones whose first stop came before their parent's word of them.
    early: BTreeSet<Pid>,
    points: Vec<(Key, Call)>,
    status: Option<ExitStatus>,
    done: bool,
}

impl Tracer {
    fn begin(&mut self) {
        let stopped = waitpid(self.root, Some(WaitPidFlag::__WALL)).expect("the program stops at its start");
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(self.root, options).expect("a traced process");
        self.followed.insert(self.root, Actor { name: "0".into(), ..Actor::default() });
        go_on(self.root, None);
    }

    /// Handles one stop; says whether there can be another.
    fn step(&mut self) -> bool {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitpid(Pid::from_raw(-1), Some(flags)) {
            Ok(WaitStatus::PtraceSyscall(pid)) => self.at_call(pid),
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => self.at_event(pid, event),
            Ok(WaitStatus::Stopped(pid, signal)) => self.at_signal(pid, signal),
            Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended(pid, ExitStatus::from_raw(signal as i32)),
            Ok(other) => panic!("an unexpected stop: {other:?}"),
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return false,
            Err(errno) => panic!("waitpid: {errno}"),
        }
        true
    }

    fn at_signal(&mut self, pid: Pid, signal: Signal) {
        match self.followed.get_mut(&pid) {
            None => drop(self.early.insert(pid)),
            Some(actor) if signal == Signal::SIGSTOP && actor.fresh => {
                actor.fresh = false;
                go_on(pid, None);
            }
            Some(_) => go_on(pid, Some(signal)),
        }
    }

    fn ended(&mut self, pid: Pid, status: ExitStatus) {
        self.followed.remove(&pid);
        if pid == self.root {
            self.status = Some(status);
        }
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        if event == libc::PTRACE_EVENT_EXEC {
            if is_left_alone(pid) {
                let actor = self.followed.remove(&pid);
                if actor.is_some_and(|actor| actor.pending == Some(Pending::Kill)) {
                    self.kill();
                }
                let _ = ptrace::detach(pid, None);
                return;
            }
        } else if let (Ok(new), Some(parent)) = (ptrace::getevent(pid), self.followed.get_mut(&pid)) {
            parent.children += 1;
            let name = format!("{}.{}", parent.name, parent.children);
            let new = Pid::from_raw(i32::try_from(new).expect("a process number"));
            let stopped = self.early.remove(&new);
            self.followed.insert(new, Actor { name, fresh: !stopped, ..Actor::default() });
            if stopped {
                go_on(new, None);
            }
        }
        go_on(pid, None);
    }

    fn at_call(&mut self, pid: Pid) {
        let Ok(info) = ptrace::syscall_info(pid) else { return };
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: `op` says that the kernel filled in this variant.
            let entry = unsafe { info.u.entry };
            self.entered(pid, entry.nr as i64, &entry.args);
        } else if let Some(pending) = self.followed.get_mut(&pid).and_then(|actor| actor.pending.take()) {
            match pending {
                Pending::Kill => self.kill(),
                Pending::Fail(errno) => returns(pid, -i64::from(errno)),
            }
        }
        go_on(pid, None);
    }

    fn entered(&mut self, pid: Pid, number: i64, args: &[u64; 6]) {
        let Some(call) = calls::look(pid, number, args) else { return };
        let Some(actor) = self.followed.get_mut(&pid) else { return };
        let key = Key { actor: actor.name.clone(), number: actor.points };
        actor.points += 1;
        let deed = self.deed.as_ref().filter(|(at, _)| *at == key).map(|(_, deed)| *deed);
        self.points.push((key, call));
        let Some(deed) = deed else { return };
        self.done = true;
        match deed {
            Deed::KillBefore => {
                // The call is not made, whatever becomes of the signal first.
                never_made(pid);
                self.kill();
            }
            Deed::KillAfter => actor.pending = Some(Pending::Kill),
            Deed::Fail(errno) => {
                never_made(pid);
                actor.pending = Some(Pending::Fail(errno));
            }
            // Where threads took turns in another way, this may be another call.
            Deed::Spoil(message) => self.done = spoil(pid, number, args, message),
            Deed::Signal(signal) => {
                let _ = killpg(self.root, signal);
            }
        }
    }

    fn kill(&self) {
        // That it has ended already is as good.
        let _ = kill(self.root, Signal::SIGKILL);
    }
}

/// Lets a stopped process go on to its next system call; one that was killed meanwhile needs no leave.
fn go_on(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => panic!("ptrace of {pid}: {errno}"),
    }
}

/// QEMU is no part of vmnet, what keeps its console's log lives as long as it does, and lists only read.
fn is_left_alone(pid: Pid) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    words.first().is_some_and(|program| program.windows(11).any(|part| part == b"qemu-system"))
        || [b"list".as_slice(), b"keep-console-log"].iter().any(|word| words.contains(word))
}

/// Makes the call that a process is about to make none at all.
fn never_made(pid: Pid) {
    if let Ok(mut registers) = ptrace::getregs(pid) {
        registers.orig_rax = u64::MAX;
        let _ = ptrace::setregs(pid, registers);
    }
}

/// Sets what the call that a process is leaving returns.
fn returns(pid: Pid, value: i64) {
    if let Ok(mut registers) = ptrace::getregs(pid) {
        registers.rax = value.cast_unsigned();
        let _ = ptrace::setregs(pid, registers);
    }
}

/// Makes a netlink message one that the kernel refuses with EINVAL: an rtnetlink message of four bytes more than its
/// header, and what follows it is none; an nftables message of a type that there is not. Says whether there was one.
fn spoil(pid: Pid, number: i64, args: &[u64; 6], message: usize) -> bool {
    const NFTABLES: u16 = 10 << 8;
    const HEADER: u32 = 16;
    let messages = memory::messages(pid, &memory::pieces(pid, number, args));
    let Some((address, bytes)) = messages.get(message) else { return false };
    let mut word: [u8; 8] = bytes[..8].try_into().expect("a header");
    if messages.len() > 1 {
        word[4..6].copy_from_slice(&(NFTABLES | 0xff).to_ne_bytes());
    } else {
        word[..4].copy_from_slice(&(HEADER + 4).to_ne_bytes());
    }
    ptrace::write(pid, *address as ptrace::AddressType, i64::from_ne_bytes(word)).is_ok()
}
