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

fn small_disk(pages: usize) {
    std::fs::create_dir("/run/state").unwrap();
    let size = format!("mode=711,size={}k", pages * 4);
    mount(Some("tmpfs"), "/run/state", Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
    place::define(CREATE.definition());
}
