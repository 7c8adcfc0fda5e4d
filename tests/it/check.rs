//! `vmnet check` on files of every kind: what is no definition is told apart before it is read, and what is wrong
//! with one ends with exit code 2. Nothing of it needs a privilege.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use nix::sys::stat::Mode;
use serde_json::Value;

/// Exit code, standard output and standard error of `vmnet check` in a folder.
fn check(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmnet"));
    // A FIFO that is opened the wrong way waits for ever.
    let output = command.current_dir(folder).arg("check").args(arguments).timeout(std::time::Duration::from_secs(20));
    let output = output.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_is_no_definition_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("latin1.toml"), b"lab = \"a\"\n# \xe4\n").unwrap();
    nix::unistd::mkfifo(&at("fifo.toml"), Mode::S_IRWXU).unwrap();
    fs::create_dir(at("folder.toml")).unwrap();
    fs::File::create(at("huge.toml")).unwrap().set_len(1 << 30).unwrap();
    std::os::unix::fs::symlink("nowhere", at("broken.toml")).unwrap();
    for (name, complaint) in [
        ("latin1.toml", "line 2 is not UTF-8"),
        ("fifo.toml", "is not a regular file"),
        ("folder.toml", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("huge.toml", "has 1073741824 bytes"),
        ("broken.toml", "there is no such file"),
        ("missing.toml", "there is no such file"),
    ] {
        let (code, stdout, stderr) = check(folder.path(), &[name]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{name}: {stderr}");
        assert!(stderr.contains(complaint) && stderr.contains(name), "{name}: {stderr}");
    }
}

#[test]
fn links_and_paths_upward_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("below")).unwrap();
    fs::write(folder.path().join("real.toml"), "lab = \"a\"\n").unwrap();
    std::os::unix::fs::symlink("../real.toml", folder.path().join("below/net.toml")).unwrap();
    for name in ["../real.toml", "net.toml"] {
        let (code, _, stderr) = check(&folder.path().join("below"), &[name]);
        assert_eq!(code, 0, "{name}: {stderr}");
    }
    // net.toml is the definition where none is named.
    assert_eq!(check(&folder.path().join("below"), &[]).0, 0);
}

#[test]
fn problems_end_with_exit_code_2_for_people_and_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("net.toml"), "lab = \"a b\"\nvlan = 10\n").unwrap();
    let (code, stdout, stderr) = check(folder.path(), &[]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("net.toml:1:7") && stderr.contains("2 problems"), "{stderr}");
    let (code, stdout, _) = check(folder.path(), &["--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 2);
    assert_eq!((&report["problems"][0]["line"], &report["problems"][0]["column"]), (&1.into(), &7.into()));
    assert_eq!(report["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn a_lock_file_that_is_damaged_is_never_guessed_at() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("net.toml"), "lab = \"a\"\n").unwrap();
    for (lock, complaint) in [
        ("<<<<<<< HEAD\n", "is damaged"),
        ("version = 2\n", "version 2"),
        ("version = 1\n[address]\n\"a/n/0\" = [\"10.0.0.9\"]\n\"b/n/0\" = [\"10.0.0.9\"]\n", "to a/n/0 and to b/n/0"),
    ] {
        fs::write(folder.path().join("net.lock"), lock).unwrap();
        let (code, _, stderr) = check(folder.path(), &[]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("net.lock") && stderr.contains(complaint), "{stderr}");
        assert_eq!(fs::read_to_string(folder.path().join("net.lock")).unwrap(), lock, "check changes nothing");
    }
}

/// `vmnet man | head`: the reader goes, and that is no reason for a message.
#[test]
fn a_reader_that_is_gone_is_no_error_to_speak_of() {
    for arguments in [&["man"][..], &["completions", "bash"], &["check", "examples/demo.toml"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut vmnet = std::process::Command::new(env!("CARGO_BIN_EXE_vmnet"));
        let output = vmnet.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}
