//! Private namespaces for a test: network, mounts (with `/run` and `/sys` of its own) and processes.
//!
//! The test binary starts itself again in them through `unshare`, below a shell that is process 1 there and reaps what
//! daemons leave behind. When that process ends the kernel ends everything in it, so nothing outlives a test.

use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};

use super::skip::{say, skip};

/// Set in the sandbox to the name of the test that runs there.
const INSIDE: &str = "VMNET_SANDBOX";

/// Runs `test` in a sandbox. `name` is the test's own full name.
///
/// Without root it is skipped, visibly.
pub(crate) fn run(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        prepare();
        test();
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return skip(name, "needs root");
    }
    let own = std::env::current_exe().expect("the test binary's path");
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            "\"$@\"; exit $?",
            "sh",
        ])
        .arg(own)
        .args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .stdin(Stdio::null())
        .output()
        .expect("unshare (util-linux) starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    for line in text.lines().filter(|line| line.starts_with("SKIP ") || line.starts_with("POINT")) {
        say(line);
    }
    assert!(output.status.success(), "in the sandbox:\n{text}");
    assert!(text.contains("1 passed"), "no test is called {name}:\n{text}");
}

/// As [`run`], for a test with guests in QEMU.
pub(crate) fn with_qemu(name: &str, test: impl FnOnce()) {
    if !super::world::succeeds("id vmnet-qemu && command -v qemu-system-x86_64 qemu-img") {
        return skip(name, "needs QEMU and the user vmnet-qemu");
    }
    run(name, test);
}

/// The name of the test that runs in this sandbox.
pub(crate) fn test() -> String {
    std::env::var(INSIDE).expect("this is asked inside a sandbox only")
}

fn prepare() {
    let none: Option<&str> = None;
    let tmpfs = |path: &str| mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"));
    tmpfs("/run").expect("a private /run");
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("a private /sys");
    std::fs::create_dir_all("/run/netns").expect("a folder for namespaces");
    super::world::sh("ip link set lo up");
    // Link-local addresses would be tentative for a while, and change a snapshot by themselves.
    super::world::sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
}
