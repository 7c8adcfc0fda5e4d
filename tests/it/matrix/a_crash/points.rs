//! The rows that take every system call of a command: see [`crate::faults`].

use nix::sys::signal::Signal;

use crate::faults::calls::{Call, Kind};
use crate::faults::place::{
    BOOT, BOOT_QEMU, CHANGE, CHANGE_VLANS, CREATE, CREATE_VLANS, DESTROYED, DESTROYED_QEMU, DESTROYED_VLANS, Scenario,
};
use crate::faults::sweep::{self, Job, take};
use crate::faults::tracer::Deed;
use crate::matrix::row;

fn killed(scenario: Scenario, most: usize) {
    take("kill points", sweep::jobs(&[scenario], sweep::kills), most);
}

/// With a guest in QEMU.
fn killed_with_qemu(scenario: Scenario, most: usize) {
    sweep::take_some("kill points", sweep::jobs(&[scenario], sweep::kills), most, 60);
}

/// SIGKILL before and after each call of `create`: `create` converges, `destroy` cleans.
#[test]
fn row_01_killed_while_creating() {
    row!(|| killed(CREATE, 24));
}

/// The same while an edited definition is applied over running guests.
#[test]
fn row_01_killed_while_changing() {
    row!(|| killed(CHANGE, 20));
}

/// The same during `boot`.
#[test]
fn row_01_killed_while_booting() {
    row!(|| {
        killed(BOOT, 10);
        killed_with_qemu(BOOT_QEMU, 6);
    });
}

/// The same during `destroy`.
#[test]
fn row_02_killed_while_destroying() {
    row!(|| {
        killed(DESTROYED, 16);
        killed_with_qemu(DESTROYED_QEMU, 3);
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

/// Each call that changes something fails once: rolled back, exit 1, and a message that names operation and object.
#[test]
fn faults_each_call_fails_once() {
    row!(|| {
        let mut jobs = sweep::jobs(&[CREATE, CHANGE, DESTROYED, BOOT], sweep::failures);
        jobs.retain(|job| job.deed != Deed::Fail(libc::ENOSPC) || job.scenario == DESTROYED);
        take("fault points", jobs, 40);
        let with_qemu = sweep::jobs(&[BOOT_QEMU, DESTROYED_QEMU], sweep::failures);
        sweep::take_some("fault points", with_qemu, 5, 80);
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

/// Requests about links on VLANs, which not every kernel has.
#[test]
fn row_01_points_on_vlans() {
    row!(|| {
        if !crate::world::succeeds("ip link add nic0 type veth peer name far0 && ip link add link nic0 type vlan id 10")
        {
            return crate::skip::skip(&crate::sandbox::test(), "needs 8021q");
        }
        crate::world::sh("ip link del nic0");
        // A point takes half a minute of an emulated processor. VLANs have a part in requests about links alone: whatever
        // else is called is a point of the labs without them, on every kernel, with every error.
        let deeds = |call: &Call| match call.kind {
            Kind::Netlink if call.messages == 1 && call.text.contains("LINK") => {
                [sweep::kills(call), sweep::refusals(call)].concat()
            }
            _ => Vec::new(),
        };
        let all = [CHANGE_VLANS, CREATE_VLANS, DESTROYED_VLANS];
        let jobs = sweep::jobs(if sweep::is_long() { &all } else { &all[..1] }, deeds);
        let (kills, refusals): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| matches!(job.deed, Deed::KillBefore | Deed::KillAfter));
        take("kill points", kills, 2);
        take("refused requests", refusals, 2);
    });
}
