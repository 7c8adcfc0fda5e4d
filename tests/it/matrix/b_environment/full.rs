//! The disk is full in the middle of a change.

use nix::mount::{MsFlags, mount};

use crate::faults::place::{self, BOOT, CHANGE, CREATE, Place, vmnet};
use crate::faults::promise::{self, Before};
use crate::faults::sweep;
use crate::faults::tracer::Deed;
use crate::matrix::{row, tally};
use crate::world::sh;

/// The disk is full at each write, and each making of a file, a folder or a name: rolled back.
#[test]
fn row_13_full_in_the_middle() {
    row!(|| {
        let mut jobs = sweep::jobs(&[CREATE, CHANGE, BOOT], sweep::failures);
        jobs.retain(|job| job.deed == Deed::Fail(libc::ENOSPC));
        sweep::take("fault points", jobs, 16);
    });
}

/// A state directory of so many pages, from none to enough: each time it is full somewhere else.
#[test]
fn row_13_a_small_disk() {
    row!(|| {
        let enough = (1..64).find(|pages| {
            Place::with(|place| {
                small_disk(*pages);
                let created = vmnet(&["create"]);
                if created.code() == 0 {
                    return true;
                }
                assert_eq!(created.code(), 1, "{pages} pages: {}", created.said);
                assert!(created.said.contains("No space left on device"), "{pages} pages: {}", created.said);
                let mut wrong = promise::nothing_left(place);
                wrong.retain(|line| !line.ends_with(": /run/state"));
                assert!(wrong.is_empty(), "{pages} pages: {}\n{}", created.said, wrong.join("\n"));
                false
            })
        });
        assert!(enough.is_some_and(|pages| pages > 1), "{enough:?}");
        tally("sizes of disks", enough.unwrap(), 0);
    });
}

/// So many pages are left when an edited definition is applied: the lab stays what it was, and guests run on.
#[test]
fn row_13_a_disk_that_fills_up() {
    row!(|| {
        let enough = (0..64).find(|pages| {
            Place::with(|place| {
                small_disk(256);
                place.prepare(&CHANGE);
                sh(&format!("dd if=/dev/zero of=/run/state/ballast bs=4k 2>/dev/null || true; truncate -s -{}k /run/state/ballast", pages * 4));
                let before = Before::look();
                let changed = vmnet(CHANGE.args);
                if changed.code() == 0 {
                    return true;
                }
                assert_eq!(changed.code(), 1, "{pages} pages: {}", changed.said);
                assert!(changed.said.contains("No space left on device"), "{pages} pages: {}", changed.said);
                let wrong = promise::rolled_back(place, &CHANGE, &before);
                assert!(wrong.is_empty(), "{pages} pages: {}\n{}", changed.said, wrong.join("\n"));
                sh("rm /run/state/ballast");
                let wrong = promise::converges(CHANGE.definition());
                assert!(wrong.is_empty(), "{pages} pages: {}", wrong.join("\n"));
                false
            })
        });
        assert!(enough.is_some_and(|pages| pages > 0), "{enough:?}");
        tally("sizes of disks", enough.unwrap(), 0);
    });
}

/// The disk is full, its last page and its last file: guests are stopped, and the lab is removed, all the same. That is
/// how people make room.
#[test]
fn row_13_full_when_something_goes() {
    row!(|| {
        let fills = [
            "dd if=/dev/zero of=/run/state/ballast bs=4k 2>/dev/null || true",
            "n=0; while n=$((n + 1)) && mkdir /run/state/ballast$n 2>/dev/null; do :; done",
        ];
        for fill in fills {
            Place::with(|place| {
                small_disk(256);
                let none: Option<&str> = None;
                mount(none, "/run/state", none, MsFlags::MS_REMOUNT, Some("nr_inodes=99")).unwrap();
                place.prepare(&BOOT);
                assert_eq!(vmnet(BOOT.args).code(), 0);
                sh(fill);
                let refused = vmnet(&["boot", "--all"]);
                assert!(refused.code() == 1 && refused.said.contains("No space left"), "{fill}: {}", refused.said);
                let stopped = vmnet(&["stop", "--all"]);
                assert!(stopped.code() == 0 && stopped.said.contains("no room"), "{fill}: {}", stopped.said);
                assert!(!sh("ls /run/netns").contains("vmnet-all."), "{fill}");
                let destroyed = vmnet(&["destroy", place::LAB]);
                assert!(destroyed.code() == 0 && destroyed.said.contains("no room"), "{fill}: {}", destroyed.said);
                let mut wrong = promise::destroys(place);
                wrong.retain(|line| !line.contains(": /run/state"));
                assert!(wrong.is_empty(), "{fill}: {}", wrong.join("\n"));
            });
        }
        tally("full disks", fills.len(), 0);
    });
}

fn small_disk(pages: usize) {
    std::fs::create_dir("/run/state").unwrap();
    let size = format!("mode=711,size={}k", pages * 4);
    mount(Some("tmpfs"), "/run/state", Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
    place::define(CREATE.definition());
}
