//! The scripts around the tests: they see what they are there to see.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::sandbox;
use crate::world::{leaks, sh};

fn script(name: &str, args: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    Command::new(program).args(args).output().unwrap()
}

/// Each of these changes something of a machine, and takes it back: `make test` would tell.
const CHANGES: [(&str, &str); 17] = [
    ("ip link add b0 type bridge", "ip link del b0"),
    ("ip link set nic0 alias mine", "ip link set nic0 alias ''"),
    ("ip link set nic0 promisc on", "ip link set nic0 promisc off"),
    ("ip address add 192.0.2.1/32 dev lo", "ip address del 192.0.2.1/32 dev lo"),
    ("ip route add 192.0.2.0/24 dev nic0", "ip route del 192.0.2.0/24"),
    ("ip route add blackhole 192.0.2.0/24 table 7", "ip route del 192.0.2.0/24 table 7"),
    ("ip -6 route add 2001:db8::/32 dev nic0", "ip -6 route del 2001:db8::/32 dev nic0"),
    ("ip rule add from 192.0.2.0/24 table 7", "ip rule del from 192.0.2.0/24"),
    ("ip -6 rule add from 2001:db8::/32 table 7", "ip -6 rule del from 2001:db8::/32"),
    ("nft add table inet mine", "nft delete table inet mine"),
    ("ip netns add mine", "ip netns del mine"),
    ("sysctl -qw net.ipv4.conf.nic0.forwarding=1", "sysctl -qw net.ipv4.conf.nic0.forwarding=0"),
    ("mkdir -p /run/vmnet/mine", "rm -r /run/vmnet"),
    ("touch /run/systemd/network/05-vmnet-a.network", "rm /run/systemd/network/05-vmnet-a.network"),
    ("touch /run/systemd/transient/vmnet-a.b.scope", "rm /run/systemd/transient/vmnet-a.b.scope"),
    ("chmod 700 /run/systemd/network", "chmod 755 /run/systemd/network"),
    ("echo more >>/run/file", "echo text >/run/file; touch -d @0 /run/file"),
];

#[test]
fn whatever_changes_the_machine_is_seen() {
    sandbox::run("suite::whatever_changes_the_machine_is_seen", || {
        // What ip and nft themselves leave is there from the beginning.
        sh("ip netns add first; ip netns del first; nft add table inet first; nft delete table inet first
            mkdir -p /run/systemd/network /run/systemd/transient; echo text >/run/file; touch -d @0 /run/file
            ip link add nic0 type veth peer name nic1; ip link set nic0 up; ip link set nic1 up
            while ip -o link show up | grep -q NO-CARRIER; do sleep 0.01; done; sysctl -qw net.ipv4.conf.nic0.forwarding=0");
        // Not below what is looked at.
        let folder = tempfile::tempdir().unwrap();
        let before = folder.path().join("before");
        let compare = || script("untouched", &["compare", before.to_str().unwrap()]);
        let look = || fs::write(&before, script("untouched", &["look"]).stdout).unwrap();
        // The kernel's word that a link is up comes late.
        std::thread::sleep(std::time::Duration::from_secs(2));
        look();
        for (change, back) in CHANGES {
            sh(change);
            assert_eq!(compare().status.code(), Some(1), "not seen: {change}");
            sh(back);
        }
        let after = compare();
        assert!(after.status.success(), "{}", String::from_utf8_lossy(&after.stdout));
        // A look that saw nothing is no proof.
        fs::write(&before, "").unwrap();
        assert_eq!(compare().status.code(), Some(1));
    });
}

/// What `tests/summary` makes of a log, and how it ends.
fn summary(log: &str) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, log).unwrap();
    let output = script("summary", &[path.to_str().unwrap()]);
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

/// A row counts where each test of it ran and passed, here or in the lab.
#[test]
fn a_row_counts_when_each_of_its_tests_passed() {
    const GROUPS: [(&str, std::ops::RangeInclusive<u32>); 5] = [
        ("a_crash", 1..=11),
        ("b_environment", 12..=28),
        ("c_state", 29..=40),
        ("d_definition", 41..=50),
        ("f_hooks", 57..=60),
    ];
    let rows = |(group, rows): (&str, std::ops::RangeInclusive<u32>)| {
        rows.map(|row| format!("test matrix::{group}::x::row_{row:02}_y ... ok\n")).collect::<String>()
    };
    let all: String = GROUPS.map(rows).concat();
    let (text, code) = summary(&all);
    assert!(code == Some(0) && text.contains("11 of 11 rows") && text.contains("4 of  4 rows"), "{text}");
    let other = "matrix::c_state::x::row_33_z";
    for more in [format!("test {other} ... FAILED\n"), format!("SKIP {other}: needs it\ntest {other} ... ok\n")] {
        let (text, code) = summary(&format!("{all}{more}"));
        assert!(code == Some(1) && text.contains("not passed: rows 33"), "{more}{text}");
    }
    // It was skipped here, and passed in the lab.
    let (text, code) = summary(&format!("{all}SKIP {other}: x\ntest {other} ... ok\ntest {other} ... ok\n"));
    assert_eq!(code, Some(0), "{text}");
    // One that failed in the lab may be tried there once more.
    let (text, code) =
        summary(&format!("{all}SKIP {other}: x\ntest {other} ... ok\ntest {other} ... FAILED\ntest {other} ... ok\n"));
    assert_eq!(code, Some(0), "{text}");
    let (text, code) = summary(&all.replace("row_58", "row_61"));
    assert!(code == Some(1) && text.contains("not passed: rows 58"), "{text}");
}

/// A text with a line of a private key is seen, wherever the key stands.
#[test]
fn a_key_that_is_printed_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("guests/vm1");
    fs::create_dir_all(&place).unwrap();
    let line = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB";
    let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n-----END OPENSSH PRIVATE KEY-----\n");
    fs::write(place.join("host-key"), &key).unwrap();
    fs::write(place.join("host-key.pub"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI vm1\n").unwrap();
    let seen = |text: &str| leaks(text, &[folder.path().to_str().unwrap()]);
    assert_eq!(seen(&format!("error: {line} is no value")), [place.join("host-key")]);
    assert!(seen("lab a: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI vm1").is_empty());
}

/// Runs `tests/all` with everything around it replaced by stubs, each of which leaves its name in `ran`. What fails is
/// named.
fn all(fails: &str) -> (String, Option<i32>) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    put("tests/all", include_str!("../all"));
    let stub = "#!/bin/sh\nset -- \"${0##*/} $*\"\necho \"$1\" >>\"$RAN\"\ncase $1 in \"$FAILS\"*) exit 1 ;; esac\n";
    for name in [
        "tests/setup",
        "vm-images/tiny/build",
        "vm-images/debian/build",
        "tests/untouched",
        "tests/summary",
        "tests/lab/run",
    ] {
        put(name, stub);
    }
    let cargo = "echo 'SKIP a::b: x'; echo 'SKIP scenarios::with_qemu::c: x'\n\
                 echo '{\"kind\":[\"test\"],\"executable\":\"it\"}'\n";
    put("bin/cargo", &stub.replacen("case", &format!("{cargo}case"), 1));
    let ran = root.join("ran");
    let path = format!("{}:{}", root.join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(root.join("tests/all"));
    let output = command.env("PATH", path).env("RAN", &ran).env("FAILS", fails).output().unwrap();
    (fs::read_to_string(ran).unwrap(), output.status.code())
}

/// Whatever fails, the summary is shown and the machine compared, and the whole fails.
#[test]
fn all_tests_end_with_the_summary_and_the_comparison() {
    let last = |ran: &str| {
        ran.lines().rev().take(2).map(|line| line.split('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (ran, code) = all("nothing");
    assert!(code == Some(0) && ran.contains("--exact a::b") && ran.contains("--exact scenarios"), "{code:?} {ran}");
    for fails in [
        "cargo test --features libvirt --no-run",
        "cargo test --features libvirt --no-fail-fast",
        "run ",
        "summary ",
        "untouched compare",
    ] {
        let (ran, code) = all(fails);
        assert_eq!(code, Some(1), "{fails}: {ran}");
        assert_eq!(last(&ran), ["untouched compare build", "summary build"], "{fails}: {ran}");
        assert!(
            fails == "cargo test --features libvirt --no-run" || ran.contains("--exact scenarios"),
            "{fails}: {ran}"
        );
    }
}
