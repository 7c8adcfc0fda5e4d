//! The matrix of hazards: one test a row, named `row_NN_…`, a module for each group of rows.
//!
//! What every row holds to: the host's addresses, routes, MACs and every foreign object are the same before and
//! after; a `create` afterwards succeeds; `destroy` twice exits 0. `tests/all` prints a summary line for each group.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

mod a_crash;
mod b_environment;
mod c_state;
mod d_definition;
mod f_hooks;
mod promise;
pub(crate) mod rows;

/// Runs a row's body in a sandbox; to be called in the test function itself, whose name it finds out.
macro_rules! row {
    ($test:expr) => {{
        fn here() {}
        $crate::sandbox::run($crate::matrix::test_name(std::any::type_name_of_val(&here)), $test)
    }};
}
use row;

/// The name of a test as the harness knows it, from the path of an item inside it.
pub(crate) fn test_name(item: &'static str) -> &'static str {
    let path = item.strip_suffix("::here").unwrap_or(item);
    path.split_once("::").map_or(path, |(_, name)| name)
}

/// Adds to what the summary says of the row that runs: so many points of a kind were tried, and so many residues were
/// found, which a row that passes has none of.
pub(crate) fn tally(what: &str, points: usize, residues: usize) {
    let test = crate::sandbox::test();
    let folder = std::env::var_os("VMNET_LAB_OUT").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let path = PathBuf::from(folder).join("matrix.tally");
    let line = format!("{test}\t{what}\t{points}\t{residues}\n");
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
