//! The hook pairs as people run them: by a shell, as root, in a network namespace of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmnet::definition::Definition;
use vmnet::model::{Lock, resolve};
use vmnet::paths::Paths;
use vmnet::render::hooks;

use crate::sandbox;
use crate::skip::skip_this;

const LAB: &str = "lab = \"t\"\n[network.web]\nmode = \"isolated\"\n";

/// A pair of hooks on disk.
struct Pair {
    up: PathBuf,
    down: PathBuf,
    folder: tempfile::TempDir,
}

impl Pair {
    fn write() -> Self {
        let model = resolve(&Definition::parse(LAB).unwrap(), &Lock::default()).unwrap().model;
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { state: folder.path().join("state"), run: folder.path().join("run") };
        let ip = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].into_iter().find(|path| Path::new(path).exists()).unwrap();
        let files = hooks::pair(&paths, model.lab(), &model.networks()["web"], 1400, Path::new(ip)).unwrap();
        for (path, file) in &files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &file.content).unwrap();
            fs::set_permissions(path, PermissionsExt::from_mode(file.mode)).unwrap();
        }
        let [(up, _), (down, _)] = files;
        Self { up, down, folder }
    }
}

fn run(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn ip(args: &str) -> String {
    let output = run(Path::new("ip"), &args.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "ip {args}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `work` in a sandbox with the network's bridge and a guest's TAP.
fn in_sandbox(name: &str, work: impl FnOnce(&Pair)) {
    sandbox::run(&format!("hooks::{name}"), || {
        ip("link add br-web type bridge");
        ip("link add br-other type bridge");
        ip("tuntap add tap0 mode tap");
        work(&Pair::write());
    });
}

#[test]
fn ifup_makes_a_port_and_ifdown_takes_it_off() {
    in_sandbox("ifup_makes_a_port_and_ifdown_takes_it_off", |pair| {
        let up = run(&pair.up, &["tap0"]);
        assert!(up.status.success(), "{up:?}");
        let link = ip("link show tap0");
        assert!(link.contains("mtu 1400") && link.contains("master br-web") && link.contains(",UP"), "{link}");
        assert_eq!(fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap().matches("tap0").count(), 0);
        assert!(run(&pair.up, &["tap0"]).status.success(), "twice is no error");
        assert!(run(&pair.down, &["tap0"]).status.success());
        let link = ip("link show tap0");
        assert!(!link.contains("master") && !link.contains(",UP"), "{link}");
        assert!(run(&pair.down, &["tap0"]).status.success(), "twice is no error");
        ip("link del tap0");
        assert!(run(&pair.down, &["tap0"]).status.success(), "gone is no error");
    });
}

#[test]
fn ifdown_leaves_a_port_of_another_bridge_alone() {
    in_sandbox("ifdown_leaves_a_port_of_another_bridge_alone", |pair| {
        ip("link set tap0 master br-other");
        ip("link set tap0 up");
        let before = ip("link show tap0");
        assert!(run(&pair.down, &["tap0"]).status.success());
        assert_eq!(ip("link show tap0"), before);
    });
}

#[test]
fn anything_but_one_interface_is_refused_and_changes_nothing() {
    in_sandbox("anything_but_one_interface_is_refused_and_changes_nothing", |pair| {
        let before = ip("-d link");
        let bad: [&[&str]; 13] = [
            &[],
            &["tap0", "tap0"],
            &[""],
            &["tap1"],
            &["a-name-of-16-chr"],
            &["../tap0"],
            &["a/b"],
            &["-x"],
            &["tap0 up"],
            &["tap0\n"],
            &["$(id)"],
            &["all"],
            &["*"],
        ];
        for args in bad {
            let up = run(&pair.up, args);
            assert_eq!(up.status.code(), Some(2), "{args:?}: {up:?}");
            assert!(String::from_utf8_lossy(&up.stderr).starts_with("qemu-ifup (web of t): "), "{up:?}");
            let down = run(&pair.down, args);
            let gone = args == ["tap1"];
            assert_eq!(down.status.code(), Some(if gone { 0 } else { 2 }), "{args:?}: {down:?}");
        }
        assert_eq!(ip("-d link"), before);
    });
}

#[test]
fn a_hostile_environment_does_not_count() {
    in_sandbox("a_hostile_environment_does_not_count", |pair| {
        let trap = pair.folder.path().join("trap");
        let body = format!("#!/bin/sh\ntouch {}\n", trap.display());
        let folder = pair.folder.path().join("bin");
        fs::create_dir(&folder).unwrap();
        for name in ["ip", "echo", "[", "test"] {
            fs::write(folder.join(name), &body).unwrap();
            fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        for shell in ["sh", "bash"] {
            let Ok(shell) = fs::canonicalize(format!("/bin/{shell}")) else { continue };
            let mut command = Command::new(shell);
            // The name under which a shell keeps to POSIX, and reads functions from the environment all the same.
            std::os::unix::process::CommandExt::arg0(&mut command, "sh");
            command.arg(&pair.up).arg("tap0").current_dir(&folder);
            command.env("PATH", format!("{0}:.", folder.display())).env("IFS", "a0").env("ENV", folder.join("ip"));
            command
                .env("BASH_ENV", folder.join("ip"))
                .env("LD_PRELOAD", folder.join("ip"))
                .env("LC_ALL", "tr_TR.UTF-8");
            for name in ["ip", "echo", "[", "exec", "set", "unset", "exit", "/usr/sbin/ip", "/sbin/ip"] {
                command.env(format!("BASH_FUNC_{name}%%"), format!("() {{ touch {}; }}", trap.display()));
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert!(ip("link show tap0").contains("master br-web"));
            assert!(!trap.exists(), "the environment took part in {}", pair.up.display());
            ip("link set tap0 nomaster");
        }
    });
}

#[test]
fn without_the_right_to_change_links_it_fails_and_says_so() {
    in_sandbox("without_the_right_to_change_links_it_fails_and_says_so", |pair| {
        fs::set_permissions(pair.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new(&pair.up);
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        let output = command.arg("tap0").output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty(), "{output:?}");
        assert!(!ip("link show tap0").contains("master"));
    });
}

#[test]
fn shellcheck_finds_nothing() {
    let pair = Pair::write();
    match Command::new("shellcheck").arg(&pair.up).arg(&pair.down).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => skip_this("needs shellcheck"),
    }
}
