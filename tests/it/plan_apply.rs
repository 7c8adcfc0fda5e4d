//! Plans on a host in memory: they lead where they should, once, and back from anywhere.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use vmnet::apply::{self, ApplyError, Event, Restored, WayBack, Work, guests_of};
use vmnet::names::VmName;
use vmnet::plan::{Apart, Op, Plan, Strangers, diff, own_groups};
use vmnet::state::{Facts, HostState};

use crate::fake::FakeHost;
use crate::states::{self, defaults, found_settings, state};

/// Runs to the end on one thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn plan(host: &FakeHost, desired: &HostState) -> Plan {
    diff(&host.look(), desired, &found_settings(), &own_groups(&host.look(), &Facts::default(), &Strangers::new()))
}

fn run(host: &mut FakeHost, desired: &HostState) -> Result<apply::Report, ApplyError> {
    let (before, found, cancel) = (host.look(), found_settings(), AtomicBool::new(false));
    let plan = plan(host, desired);
    let work =
        Work { before: &before, desired, plan: &plan, found: &found, cancel: &cancel, apart: &Default::default() };
    block_on(apply::run(host, &work, &mut |_| {}))
}

/// Equal but for settings, of which one that nobody wants may stay as it is when it is not the host's.
fn assert_same(now: &HostState, then: &HostState) {
    let strip = |state: &HostState| HostState { settings: Default::default(), ..state.clone() };
    assert_eq!(strip(now), strip(then));
    for (key, value) in &then.settings {
        assert_eq!(now.settings.get(key), Some(value), "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_leads_to_what_was_wanted_without_repair(a in states::found(), b in states::wanted()) {
        let (a, b) = (state(&a, true), state(&b, false));
        let mut host = FakeHost::new(&a, &defaults());
        let report = run(&mut host, &b).unwrap();
        prop_assert_eq!(report.repaired, 0);
        assert_same(&host.look(), &b);
        prop_assert!(plan(&host, &b).is_empty(), "the second plan is empty");
    }

    #[test]
    fn destroy_leaves_nothing_and_restores_what_was_found(a in states::found()) {
        let mut host = FakeHost::new(&state(&a, true), &defaults());
        run(&mut host, &HostState::default()).unwrap();
        let now = host.look();
        assert_eq!(now.settings, found_settings());
        assert_eq!(HostState { settings: Default::default(), ..now }, HostState::default());
    }

    #[test]
    fn killed_anywhere_the_next_run_finishes(a in states::found(), b in states::wanted(), at in any::<prop::sample::Index>()) {
        let (a, b) = (state(&a, true), state(&b, false));
        let mut host = FakeHost::new(&a, &defaults());
        let first = plan(&host, &b);
        let ops: Vec<Op> = first.ops().cloned().collect();
        if !ops.is_empty() {
            block_on(apply::Host::run(&mut host, &ops[..at.index(ops.len())]));
        }
        let mut other = host.clone();
        run(&mut host, &b).unwrap();
        assert_same(&host.look(), &b);
        run(&mut other, &HostState::default()).unwrap();
        assert_eq!(other.look().settings, found_settings());
        prop_assert!(other.look().links.is_empty());
    }

    #[test]
    fn killed_anywhere_the_way_back_leads_back(a in states::wanted(), b in states::wanted(), at in any::<prop::sample::Index>()) {
        let (a, b) = (state(&a, true), state(&b, false));
        let mut host = FakeHost::new(&a, &defaults());
        let plan = plan(&host, &b);
        let ops: Vec<Op> = plan.ops().cloned().collect();
        block_on(apply::Host::run(&mut host, &ops[..at.index(ops.len() + 1)]));
        let found = found_settings();
        let way = WayBack { to: &a, found: &found, guests: guests_of(&plan) };
        let restored = block_on(apply::back(&mut host, &way, &mut |_| {}));
        prop_assert!(matches!(restored, Restored::Completely), "{restored:?}");
        assert_same(&host.look(), &a);
        assert_eq!(host.look().settings, a.settings);
    }

    #[test]
    fn a_failure_anywhere_leads_back(a in states::wanted(), b in states::wanted()) {
        let (a, b) = (state(&a, true), state(&b, false));
        let count = plan(&FakeHost::new(&a, &defaults()), &b).len();
        for k in 0..count {
            let mut host = FakeHost::new(&a, &defaults());
            host.fails.insert(k);
            match run(&mut host, &b) {
                Err(ApplyError::Failed { restored: Restored::Completely, .. }) => {}
                other => panic!("operation {k}: {other:?}"),
            }
            assert_same(&host.look(), &a);
            assert_eq!(host.look().settings, a.settings);
        }
    }
}

/// Guests that one state runs and the other does not.
fn new_guests(a: &HostState, b: &HostState) -> BTreeSet<VmName> {
    b.guests.keys().filter(|vm| !a.guests.contains_key(*vm)).cloned().collect()
}

/// As [`run`], each new guest standing or falling alone.
fn run_apart(host: &mut FakeHost, desired: &HostState) -> Result<apply::Report, ApplyError> {
    let (before, found, cancel) = (host.look(), found_settings(), AtomicBool::new(false));
    let plan = plan(host, desired);
    let apart = new_guests(&before, desired);
    let work = Work { before: &before, desired, plan: &plan, found: &found, cancel: &cancel, apart: &apart };
    block_on(apply::run(host, &work, &mut |_| {}))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever fails: either it was a guest's, which alone is not there then, or everything is as before.
    #[test]
    fn a_guest_apart_fails_alone(a in states::wanted(), b in states::wanted()) {
        let (a, b) = (state(&a, true), state(&b, false));
        let plan = plan(&FakeHost::new(&a, &defaults()), &b);
        let apart = Apart::new(&b, &new_guests(&a, &b));
        for (k, op) in plan.ops().enumerate() {
            let mut host = FakeHost::new(&a, &defaults());
            host.fails.insert(k);
            let guest = apart.guest_of(op).filter(|_| !op.removes());
            match (run_apart(&mut host, &b), guest) {
                (Ok(report), Some(vm)) => {
                    prop_assert_eq!(report.failed.keys().collect::<Vec<_>>(), [vm]);
                    let mut rest = b.clone();
                    rest.remove_guest(vm);
                    // One that was defined before still is, as it was or as it shall be.
                    let is = host.look().domains.remove(vm);
                    let was = a.domains.get(vm);
                    assert!(is.is_some() == was.is_some() || !b.domains.contains_key(vm));
                    assert!(is.is_none() || is.as_ref() == was || is.as_ref() == b.domains.get(vm));
                    rest.domains.remove(vm);
                    rest.domains.extend(is.map(|domain| (vm.clone(), domain)));
                    assert_same(&host.look(), &rest);
                }
                (Err(ApplyError::Failed { restored: Restored::Completely, .. }), None) => {
                    assert_same(&host.look(), &a);
                }
                (other, _) => panic!("operation {k}, {op}: {other:?}"),
            }
        }
    }
}

#[test]
fn guests_apart_fail_in_any_number() {
    let (a, b) = two_states();
    let apart = Apart::new(&b, &new_guests(&a, &b));
    let mut host = FakeHost::new(&a, &defaults());
    host.fails = plan(&host, &b)
        .ops()
        .enumerate()
        .filter(|(_, op)| matches!(op, Op::AddVeth { .. }) && apart.guest_of(op).is_some())
        .map(|(k, _)| k)
        .collect();
    assert!(host.fails.len() > 1, "several guests are started");
    let report = run_apart(&mut host, &b).unwrap();
    assert_eq!(report.failed.keys().cloned().collect::<BTreeSet<_>>(), new_guests(&a, &b));
    let mut rest = b.clone();
    new_guests(&a, &b).iter().for_each(|vm| rest.remove_guest(vm));
    assert_same(&host.look(), &rest);
    // What is asked for alone leads back as a whole.
    let mut host = FakeHost::new(&a, &defaults());
    host.fails.insert(plan(&host, &b).len() - 1);
    assert!(matches!(run(&mut host, &b), Err(ApplyError::Failed { restored: Restored::Completely, .. })));
}

fn two_states() -> (HostState, HostState) {
    let net = states::Net {
        vlan: true,
        routed: true,
        route: true,
        more: true,
        mtu: 1500,
        guest: states::Runs::Netns,
        down: false,
        stp: false,
        foreign: false,
        libvirt: true,
        spoilt: false,
    };
    let empty = states::Shape { nets: vec![None; 3], rules: 0, files: 0, forwards: false, outside: false };
    let full = states::Shape { nets: vec![Some(net); 3], rules: 1, files: 2, forwards: true, outside: true };
    (state(&empty, true), state(&full, false))
}

#[test]
fn a_cancelled_run_goes_back() {
    let (a, b) = two_states();
    let mut host = FakeHost::new(&a, &defaults());
    let (found, cancel) = (found_settings(), AtomicBool::new(false));
    let plan = plan(&host, &b);
    let work =
        Work { before: &a, desired: &b, plan: &plan, found: &found, cancel: &cancel, apart: &Default::default() };
    let mut waves = 0;
    let mut events = |event| {
        if let Event::WaveDone { .. } = event {
            waves += 1;
            cancel.store(waves >= 5, Ordering::Relaxed);
        }
    };
    let outcome = block_on(apply::run(&mut host, &work, &mut events));
    assert!(matches!(outcome, Err(ApplyError::Cancelled { restored: Restored::Completely })), "{outcome:?}");
    assert_same(&host.look(), &a);
}

#[test]
fn what_cannot_be_undone_is_listed() {
    let (a, b) = two_states();
    let mut host = FakeHost::new(&a, &defaults());
    let count = plan(&host, &b).len();
    // The last operation fails, and so does everything that would remove a link afterwards.
    host.fails = (count - 1..count + 40).collect();
    match run(&mut host, &b) {
        Err(error @ ApplyError::Failed { restored: Restored::Except { .. }, .. }) => {
            let text = error.to_string();
            assert!(text.contains("left to do:\n  "), "{text}");
        }
        other => panic!("{other:?}"),
    }
}
