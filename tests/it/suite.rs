//! The scripts around the tests: they see what they are there to see.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::sandbox;
use crate::world::sh;

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
        ("b_environment", 12..=27),
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
