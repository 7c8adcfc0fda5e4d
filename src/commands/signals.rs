//! [`Signals`]: SIGINT, SIGTERM and SIGHUP while something is being changed.
//!
//! A flag that the executor looks at between waves, set by the signal itself: much of a change is done without ever
//! coming back to the event loop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// A dead terminal is no reason to leave half a lab.
const CAUGHT: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// How many [`Signals`] there are, and what the first of them found. They end in any order: the last one puts it back.
static CATCHERS: Mutex<(usize, Vec<(Signal, SigAction)>)> = Mutex::new((0, Vec::new()));
static CAME: AtomicBool = AtomicBool::new(false);
static MUST_FINISH: AtomicBool = AtomicBool::new(false);
static NEVER: AtomicBool = AtomicBool::new(false);

/// Those that came and were not handed on, a bit each: all, and those of them that a process sent.
static ALL: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);

/// The signals are caught as long as one of these lives. One that the caller ignores, as `nohup` does, stays ignored.
#[derive(Debug)]
pub(super) struct Signals(());

impl Signals {
    /// From now on a signal sets the flag. One that has come to somebody who catches them already has come to this one,
    /// too: a rehearsal holds them around the `create` that does.
    pub(super) fn catch() -> Self {
        let mut catchers = CATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, found) = &mut *catchers;
        if *count == 0 {
            CAME.store(false, Ordering::Relaxed);
            MUST_FINISH.store(false, Ordering::Relaxed);
            ALL.store(0, Ordering::Relaxed);
            SENT.store(0, Ordering::Relaxed);
            *found = install();
        }
        *count += 1;
        Self(())
    }

    /// What says that a change shall be undone: one that must finish (`destroy`) never is, and a signal only makes it
    /// say so.
    pub(super) fn cancel(&self, interruptible: bool) -> &'static AtomicBool {
        MUST_FINISH.store(!interruptible, Ordering::Relaxed);
        if interruptible { &CAME } else { &NEVER }
    }

    /// Takes those that came since this was asked last; without `from_terminal` only those that a process sent: what a
    /// terminal sends, everybody in its foreground has got.
    pub(super) fn take(&self, from_terminal: bool) -> Vec<Signal> {
        let (all, sent) = (ALL.swap(0, Ordering::Relaxed), SENT.swap(0, Ordering::Relaxed));
        let bits = if from_terminal { all } else { sent };
        CAUGHT.into_iter().filter(|signal| bits & bit(*signal as libc::c_int) != 0).collect()
    }
}

/// A signal's bit.
fn bit(signal: libc::c_int) -> u64 {
    1 << (signal & 63)
}

/// Catches them, and gives what was there before of those that were not ignored.
fn install() -> Vec<(Signal, SigAction)> {
    let flags = SaFlags::SA_RESTART | SaFlags::SA_SIGINFO;
    let ours = SigAction::new(SigHandler::SigAction(note), flags, SigSet::empty());
    let mut found = Vec::new();
    for signal in CAUGHT {
        // SAFETY: the handler makes one system call and touches atomics only.
        let Ok(before) = (unsafe { sigaction(signal, &ours) }) else { continue };
        if matches!(before.handler(), SigHandler::SigIgn) {
            // SAFETY: what was there before, and is no function.
            let _ = unsafe { sigaction(signal, &before) };
        } else {
            found.push((signal, before));
        }
    }
    found
}

impl Drop for Signals {
    fn drop(&mut self) {
        let mut catchers = CATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, found) = &mut *catchers;
        *count -= 1;
        if *count == 0 {
            for (signal, before) in found.drain(..) {
                // SAFETY: what was there before: this program has no other handlers.
                let _ = unsafe { sigaction(signal, &before) };
            }
        }
    }
}

extern "C" fn note(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CAME.store(true, Ordering::Relaxed);
    // SAFETY: with SA_SIGINFO the kernel hands over a siginfo_t, or nothing.
    let code = unsafe { info.as_ref() }.map_or(0, |info| info.si_code);
    ALL.fetch_or(bit(signal), Ordering::Relaxed);
    // sigaction(2): above 0 it is the kernel's own, the terminal's among them.
    if code <= 0 {
        SENT.fetch_or(bit(signal), Ordering::Relaxed);
    }
    if MUST_FINISH.load(Ordering::Relaxed) {
        const TEXT: &[u8] = b"interrupted: finishing all the same, half removed is worse than gone\n";
        // Whoever is interrupted may be about to read it.
        let errno = Errno::last_raw();
        // SAFETY: write(2) may be called in a handler; the text is static. Who closed stderr does not want to know.
        unsafe { libc::write(libc::STDERR_FILENO, TEXT.as_ptr().cast(), TEXT.len()) };
        Errno::set_raw(errno);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::MutexGuard;

    use nix::sys::signal::{raise, signal};

    use super::*;

    /// One test at a time, since there is one of everything here; and none of the signals is ignored, as SIGINT is in
    /// what a shell starts in the background.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for caught in CAUGHT {
            // SAFETY: no function is installed.
            unsafe { signal(caught, SigHandler::SigDfl) }.unwrap();
        }
        alone
    }

    #[test]
    fn what_a_process_sent_is_handed_on_once() {
        let _alone = alone();
        let signals = Signals::catch();
        raise(Signal::SIGHUP).unwrap();
        assert_eq!(signals.take(false), [Signal::SIGHUP]);
        assert_eq!(signals.take(true), []);
    }

    #[test]
    fn a_signal_that_came_stays_until_nobody_catches_them() {
        let _alone = alone();
        let outer = Signals::catch();
        raise(Signal::SIGTERM).unwrap();
        let inner = Signals::catch();
        assert!(inner.cancel(true).load(Ordering::Relaxed));
        drop(inner);
        assert!(outer.cancel(true).load(Ordering::Relaxed));
        drop(outer);
        assert!(!Signals::catch().cancel(true).load(Ordering::Relaxed));
    }

    #[test]
    fn whoever_began_last_catches_them_though_the_first_ends_before() {
        let _alone = alone();
        let first = Signals::catch();
        let last = Signals::catch();
        drop(first);
        // It would end this test.
        raise(Signal::SIGINT).unwrap();
        assert!(last.cancel(true).load(Ordering::Relaxed));
    }
}
