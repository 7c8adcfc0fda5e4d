//! The rows that take every system call of a command: see [`crate::faults`].

use nix::sys::signal::Signal;

use crate::faults::calls::Kind;
use crate::faults::place::{BOOT, BOOT_QEMU, CHANGE, CREATE, DESTROYED, DESTROYED_QEMU, Scenario};
use crate::faults::sweep::{self, Job, Tried};
use crate::faults::tracer::Deed;
use crate::matrix::{row, tally};

/// Takes the jobs, or a sample of them, and tells the summary.
fn take(what: &str, jobs: Vec<Job>, most: usize) {
    let counted = jobs.len();
    let jobs = sweep::sample(jobs, most);
    let Tried { points, missed, wrong } = sweep::all(&jobs);
    tally(what, points, wrong.len());
    println!("{what}: {points} of {counted} points, {missed} not reached, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{} points:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(missed * 20 <= jobs.len(), "{missed} of {} points were not reached", jobs.len());
}

fn killed(scenarios: &[Scenario], most: usize) {
    take("kill points", sweep::jobs(scenarios, sweep::kills), most);
}

/// SIGKILL before and after each call of `create`: `create` converges, `destroy` cleans.
#[test]
fn row_01_killed_while_creating() {
    row!(|| killed(&[CREATE], 24));
}

/// The same while an edited definition is applied over running guests.
#[test]
fn row_01_killed_while_changing() {
    row!(|| killed(&[CHANGE], 20));
}

/// The same during `boot`.
#[test]
fn row_01_killed_while_booting() {
    row!(|| {
        killed(&[BOOT], 10);
        killed(&[BOOT_QEMU], 6);
    });
}

/// The same during `destroy`.
#[test]
fn row_02_killed_while_destroying() {
    row!(|| {
        killed(&[DESTROYED], 16);
        killed(&[DESTROYED_QEMU], 3);
    });
}

/// SIGKILL between a link's creation and its alias: the link group says whose it is.
#[test]
fn row_03_killed_between_link_and_alias() {
    row!(|| {
        let mut jobs = sweep::jobs(&[CREATE], sweep::kills);
        jobs.retain(|job| job.deed == Deed::KillAfter && job.call.text.contains("RTM_NEWLINK"));
        assert!(!jobs.is_empty());
        take("kill points", jobs, 6);
    });
}

/// SIGINT, SIGTERM and SIGHUP during `create`: rolled back, exit 1.
#[test]
fn row_04_signals_while_creating() {
    row!(|| {
        take("signal points", sweep::jobs(&[CREATE], sweep::signals), 16);
        take("signal points", sweep::jobs(&[CHANGE], sweep::signals), 8);
    });
}

/// SIGINT during `destroy`: it finishes.
#[test]
fn row_05_signals_while_destroying() {
    row!(|| {
        let mut jobs = sweep::jobs(&[DESTROYED], sweep::signals);
        jobs.retain(|job| job.deed == Deed::Signal(Signal::SIGINT) || sweep::is_long());
        take("signal points", jobs, 10);
    });
}

/// The disk is full at each write, and each making of a file, a folder or a name: rolled back.
#[test]
fn row_13_full_in_the_middle() {
    row!(|| {
        let mut jobs = sweep::jobs(&[CREATE, CHANGE, BOOT], sweep::failures);
        jobs.retain(|job| job.deed == Deed::Fail(libc::ENOSPC));
        take("fault points", jobs, 16);
    });
}

/// Each call that changes something fails once: rolled back, exit 1, and a message that names operation and object.
#[test]
fn faults_each_call_fails_once() {
    row!(|| {
        let mut jobs = sweep::jobs(&[CREATE, CHANGE, DESTROYED, BOOT], sweep::failures);
        jobs.retain(|job| job.deed != Deed::Fail(libc::ENOSPC) || job.scenario == DESTROYED);
        take("fault points", jobs, 40);
        take("fault points", sweep::jobs(&[BOOT_QEMU, DESTROYED_QEMU], sweep::failures), 5);
    });
}

/// Each request of a pipelined wave is refused by the kernel while the others are not; each message of nft's
/// transaction, too.
#[test]
fn faults_each_request_of_a_wave() {
    row!(|| {
        let (batches, single): (Vec<Job>, Vec<Job>) = sweep::jobs(&[CREATE, CHANGE, DESTROYED, BOOT], sweep::refusals)
            .into_iter()
            .partition(|job| job.call.messages > 1);
        assert!(single.iter().all(|job| job.call.kind == Kind::Netlink));
        take("refused requests", single, 30);
        take("refused requests", batches, 10);
    });
}
