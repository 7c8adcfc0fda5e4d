//! A place of one's own: network and mount namespaces with an empty `/run`, gone when the test ends.

use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use vmnet::kernel::modules;
use vmnet::state::Feature;

use super::skip::skip_this;

/// Runs `test` on a thread in fresh namespaces, with `/run` empty and `lo` up. Without root it is skipped, visibly.
pub(crate) fn private(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        return skip_this("needs root for namespaces of its own");
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        sh("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// As [`private`], where the kernel has a feature or can load it.
pub(crate) fn private_with(feature: Feature, test: impl FnOnce() + Send + 'static) {
    let modprobe = Path::new("/sbin/modprobe");
    // A kernel that has it built in needs no modprobe; what is missing then shows below.
    let _ = modules::load(&[feature].into(), modprobe);
    match modules::find(true).missing.get(&feature) {
        Some(reason) => skip_this(reason),
        None => private(test),
    }
}

/// Runs a line of shell in the test's namespaces and gives what it printed.
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("/bin/sh").args(["-euc", line]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {out}{err}");
    out.into_owned()
}
