//! F. Hooks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, output, sh};

// With a guest on it the bridge has its carrier, and stays as it is.
const LAB: &str = "lab = \"hooks\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"isolated\"\n\
                   subnet = \"192.168.10.0/24\"\n[vm.vm1]\nnic = \"web\"\n";

/// The lab as it runs, and everything there is then.
fn running() -> (Lab, Snapshot) {
    let lab = Lab::from_text(LAB);
    lab.ok(&["create"]);
    lab.ok(&["boot", "--all"]);
    (lab, Snapshot::when_settled())
}

/// What holds after each row: nothing has changed since, `create` finds nothing to do, `destroy` twice leaves nothing.
#[track_caller]
fn is_as_before(lab: &Lab, before: &Snapshot) {
    let differences = before.differences(&Snapshot::take());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    lab.ok(&["create"]);
    lab.ok(&["destroy", "--stop", "--purge"]);
    lab.ok(&["destroy"]);
    assert!(!output("ip -o link").contains("vmnet:hooks"), "{}", output("ip -o link"));
}

fn hook(lab: &Lab, name: &str, arguments: &[&str]) -> Output {
    Command::new(lab.hook("web", name)).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A TAP as QEMU makes it before it runs the hook.
fn with_tap(test: impl FnOnce(&str)) {
    sh("ip tuntap add tap0 mode tap");
    test("tap0");
    sh("ip tuntap del tap0 mode tap 2>/dev/null || ip link del tap0 2>/dev/null || :");
}

fn is_port(tap: &str) -> bool {
    sh(&format!("ip -o link show {tap}")).contains(" master br-web ")
}

/// No argument, two, an unknown, a 16-character and a slashed name: exit 2, and nothing is changed.
#[test]
fn row_57_wrong_arguments() {
    row!(|| {
        let (lab, before) = running();
        let wrong: [&[&str]; 6] = [&[], &["a", "b"], &["absent0"], &["sixteen-letters-"], &["../lo"], &[""]];
        for arguments in wrong {
            for name in ["qemu-ifup", "qemu-ifdown"] {
                let ran = hook(&lab, name, arguments);
                // A TAP that is gone is nothing to take off a bridge.
                let expected = if name == "qemu-ifdown" && arguments == ["absent0"] { 0 } else { 2 };
                assert_eq!(ran.status.code(), Some(expected), "{name} {arguments:?}: {ran:?}");
            }
        }
        super::tally("wrong arguments", wrong.len() * 2, 0);
        is_as_before(&lab, &before);
    });
}

/// An interface that is not a guest's (of another kind, with an address, a port of something else): exit 2, unchanged.
#[test]
fn row_57_interfaces_of_others() {
    row!(|| {
        sh("ip link add other type bridge; ip link set other up; ip link add nic type veth peer name wire; \
            ip address add 192.0.2.1/24 dev nic; ip link add six type veth peer name six-wire; \
            ip address add 2001:db8::1/64 dev six nodad; ip link add mac0 link wire type macvlan; \
            ip tuntap add taken mode tap; ip link set taken master other; ip tuntap add vpn mode tap; \
            ip address add 198.51.100.1/24 dev vpn; ip link set vpn up; ip link set nic up; ip link set wire up; \
            ip link set six up; ip link set six-wire up");
        // The VPN's TAP and the empty bridge have no carrier: nothing to wait for.
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        std::thread::sleep(Duration::from_secs(2));
        let before = Snapshot::take();
        let others = ["other", "nic", "six", "mac0", "taken", "vpn", "lo"];
        for other in others {
            let ran = hook(&lab, "qemu-ifup", &[other]);
            assert_eq!(ran.status.code(), Some(2), "{other}: {ran:?}");
            assert_eq!(hook(&lab, "qemu-ifdown", &[other]).status.code(), Some(0), "{other} is no port of ours");
        }
        super::tally("interfaces of others", others.len(), 0);
        is_as_before(&lab, &before);
    });
}

/// Hostile PATH, preloaded library, exported functions, IFS, ENV, BASH_ENV, working directory; with dash and bash.
#[test]
fn row_58_hostile_environment() {
    row!(|| {
        let (lab, before) = running();
        let folder = Path::new("/run/hostile");
        fs::create_dir(folder).unwrap();
        let trap = folder.join("trap");
        let programs = ["ip", "echo", "[", "test", "read", "timeout", "sh", "set", "cat"];
        for name in programs {
            fs::write(folder.join(name), format!("#!/bin/sh\n: >{}\n", trap.display())).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut tried = 0;
        for shell in ["/bin/dash", "/bin/bash"].into_iter().filter(|shell| Path::new(shell).exists()) {
            sh(&format!("mount --bind {shell} $(readlink -f /bin/sh)"));
            // Down first, then up already: the hook tells a guest's interface in two ways.
            for state in ["down", "up"] {
                with_tap(|tap| {
                    sh(&format!("ip link set {tap} {state}"));
                    for name in ["qemu-ifup", "qemu-ifdown"] {
                        let mut command = Command::new(lab.hook("web", name));
                        command.arg(tap).current_dir(folder).env("PATH", format!(".:{}", folder.display()));
                        command.env("LD_PRELOAD", trap.with_file_name("ip")).env("IFS", "ap0/").env("CDPATH", folder);
                        command
                            .env("ENV", folder.join("ip"))
                            .env("BASH_ENV", folder.join("ip"))
                            .env("SHELLOPTS", "xtrace");
                        command.env("LC_ALL", "tr_TR.UTF-8").env("PS4", format!("$(: >{})", trap.display()));
                        for function in programs.iter().chain(&["exec", "unset", "exit", "refuse", "/usr/bin/timeout"])
                        {
                            command.env(format!("BASH_FUNC_{function}%%"), format!("() {{ : >{}; }}", trap.display()));
                        }
                        let ran = command.stdin(Stdio::null()).output().unwrap();
                        assert!(ran.status.success(), "{shell} {name}: {ran:?}");
                        assert_eq!(is_port(tap), name == "qemu-ifup", "{shell} {name}");
                        assert!(!trap.exists(), "the environment took part in {name} with {shell}");
                        tried += 1;
                    }
                });
            }
            sh("umount -l $(readlink -f /bin/sh)");
        }
        super::tally("hooks in a hostile environment", tried, 0);
        is_as_before(&lab, &before);
    });
}

/// As nobody: it fails, says so and changes nothing. As nobody with CAP_NET_ADMIN, and as root with that alone, as
/// libvirt runs scripts: it works.
#[test]
fn row_59_without_root() {
    row!(|| {
        let (lab, before) = running();
        let nobody = "--reuid=65534 --regid=65534 --clear-groups";
        let as_nobody = |caps: &str, name: &str, tap: &str| {
            let line =
                format!("setpriv {nobody} --inh-caps={caps} --ambient-caps={caps} {} {tap}", lab.hook("web", name));
            Command::new("sh").args(["-c", &line]).output().unwrap()
        };
        with_tap(|tap| {
            let ran = as_nobody("-all", "qemu-ifup", tap);
            assert!(!ran.status.success() && !ran.stderr.is_empty(), "{ran:?}");
            assert!(!is_port(tap) && !sh(&format!("ip -o link show {tap}")).contains("UP"));
            for name in ["qemu-ifup", "qemu-ifup", "qemu-ifdown"] {
                let ran = as_nobody("-all,+net_admin", name, tap);
                assert!(ran.status.success(), "{name}: {ran:?}");
                assert_eq!(is_port(tap), name == "qemu-ifup");
            }
            let bounded = format!("setpriv --bounding-set=-all,+net_admin {} {tap}", lab.hook("web", "qemu-ifup"));
            sh(&bounded);
            assert!(is_port(tap));
            let alone = sh(&format!("cat /proc/sys/net/ipv6/conf/{tap}/disable_ipv6"));
            assert_eq!(alone.trim(), "1");
            sh(&format!("{} {tap}", lab.hook("web", "qemu-ifdown")));
        });
        is_as_before(&lab, &before);
    });
}

/// ifdown missing, twice, after the TAP is gone.
#[test]
fn row_60_ifdown_missing_twice_or_late() {
    row!(|| {
        let (lab, before) = running();
        with_tap(|tap| {
            assert!(hook(&lab, "qemu-ifup", &[tap]).status.success());
            assert!(hook(&lab, "qemu-ifdown", &[tap]).status.success());
            assert!(hook(&lab, "qemu-ifdown", &[tap]).status.success(), "twice");
            assert!(hook(&lab, "qemu-ifup", &[tap]).status.success());
            sh(&format!("ip link del {tap}"));
            assert!(hook(&lab, "qemu-ifdown", &[tap]).status.success(), "after the TAP is gone");
        });
        // A hook that somebody removed comes back, and nothing depended on it.
        fs::remove_file(lab.hook("web", "qemu-ifdown")).unwrap();
        assert!(lab.ok(&["plan"]).contains("qemu-ifdown"));
        lab.ok(&["create"]);
        assert!(Path::new(&lab.hook("web", "qemu-ifdown")).exists());
        is_as_before(&lab, &before);
    });
}

/// A hook that hangs: what it asks `ip` is bounded in time, and what it does it has become itself, so that ending it
/// leaves no child.
#[test]
fn row_60_hanging() {
    row!(|| {
        let (lab, before) = running();
        let hangs = "/run/hangs";
        fs::write(hangs, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(hangs, fs::Permissions::from_mode(0o755)).unwrap();
        let ip = sh("grep -o '^exec [^ ]*' /run/vmnet/hooks/hooks/web/qemu-ifup").trim().replace("exec ", "");
        let sleeping = || output("ps -e -o args= | grep '^sleep 600' || :");
        with_tap(|tap| {
            sh(&format!("ip link set {tap} up"));
            sh(&format!("mount --bind {hangs} $(readlink -f {ip})"));
            let begun = Instant::now();
            let ran = hook(&lab, "qemu-ifup", &[tap]);
            assert_eq!(ran.status.code(), Some(2), "{ran:?}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
            assert_eq!(sleeping(), "");
            // ifdown of a port becomes ip.
            sh(&format!(
                "umount $(readlink -f {ip}); ip link set {tap} master br-web; mount --bind {hangs} $(readlink -f {ip})"
            ));
            let mut child = Command::new(lab.hook("web", "qemu-ifdown")).arg(tap).spawn().unwrap();
            while sleeping().is_empty() {
                std::thread::sleep(Duration::from_millis(20));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(sleeping(), "");
            sh(&format!("umount $(readlink -f {ip})"));
        });
        is_as_before(&lab, &before);
    });
}
