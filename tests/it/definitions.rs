//! Definitions as data: `tests/definitions/bad/*.toml` with what vmnet says about each beside it, and
//! `tests/definitions/good/*.toml` with the model and the lock file that they mean.
//!
//! A new case is a new file. `INSTA_UPDATE=always cargo test --test it definitions` writes what stands beside it;
//! read it as the administrator would who made that mistake.

use std::fs;
use std::path::{Path, PathBuf};

use vmnet::definition::{Definition, Problems};
use vmnet::model::{Lock, Resolved, resolve};

/// The definition and its lock file as texts, to what they mean.
fn read(text: &str, lock: &str) -> Result<Resolved, Problems> {
    let lock = if lock.is_empty() { Lock::default() } else { Lock::parse(lock).unwrap() };
    resolve(&Definition::parse(text)?, &lock)
}

/// The files of a folder below `tests/definitions` that end in `.toml`, in order.
fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definitions").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has cases", folder.display());
    files
}

/// Compares with the snapshot that stands beside the case.
fn assert_beside(case: &Path, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(case.parent().unwrap());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(case.file_stem().unwrap().to_str().unwrap(), text));
}

#[test]
fn bad_definitions_are_told_what_is_wrong() {
    for case in cases("bad") {
        let text = fs::read_to_string(&case).unwrap();
        let lock = fs::read_to_string(case.with_extension("lock")).unwrap_or_default();
        match read(&text, &lock) {
            Ok(_) => panic!("{} is accepted", case.display()),
            Err(problems) => assert_beside(&case, &problems.render("net.toml", &text, false)),
        }
    }
}

#[test]
fn good_definitions_mean_what_they_should() {
    for case in cases("good") {
        let text = fs::read_to_string(&case).unwrap();
        let lock = fs::read_to_string(case.with_extension("lock")).unwrap_or_default();
        let Resolved { model, lock } =
            read(&text, &lock).unwrap_or_else(|problems| panic!("{}", problems.render("net.toml", &text, false)));
        let model = serde_json::to_string_pretty(&model).unwrap();
        assert_beside(&case, &format!("{model}\n\n--- net.lock\n{lock}"));
    }
}
