//! What the fuzz targets check, on their seeds and on what fuzzing has found. `make fuzz` looks for more.

use std::fs;
use std::path::{Path, PathBuf};

#[expect(unreachable_pub, reason = "the fuzz targets use it from another package")]
#[path = "../../fuzz/src/check.rs"]
mod check;

/// Every file of some folders, with its bytes.
fn files(folders: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root.join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.push((path.clone(), fs::read(&path).unwrap()));
            } else {
                all.extend(files(&[path.to_str().unwrap()]));
            }
        }
    }
    all
}

/// Runs a check on some folders' files and on each of them cut short.
fn holds(check: fn(&[u8]), folders: &[&str]) {
    let files = files(folders);
    assert!(!files.is_empty(), "{folders:?} are empty");
    for (path, bytes) in files {
        for part in [&bytes[..], &bytes[..bytes.len() / 2]] {
            let held = std::panic::catch_unwind(|| check(part));
            assert!(held.is_ok(), "{}, {} bytes of it", path.display(), part.len());
        }
    }
}

#[test]
fn definitions() {
    holds(
        check::definition,
        &["examples", "tests/definitions", "tests/desired", "tests/scenarios", "fuzz/found/definition"],
    );
}

#[test]
fn lock_files() {
    holds(check::lock, &["fuzz/seeds/lock", "fuzz/found/lock"]);
}

#[test]
fn ledgers() {
    holds(check::ledger, &["fuzz/seeds/ledger", "fuzz/found/ledger"]);
}

#[test]
fn records_of_changes() {
    holds(check::change, &["fuzz/seeds/change", "fuzz/found/change"]);
}

#[test]
fn records() {
    holds(check::record, &["fuzz/seeds/record", "fuzz/found/record"]);
}

#[test]
fn what_qemu_says() {
    holds(check::qmp, &["fuzz/seeds/qmp", "fuzz/found/qmp"]);
}
