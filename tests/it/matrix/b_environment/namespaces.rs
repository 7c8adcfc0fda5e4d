//! Namespaces that can't be entered: what was meant for one of them is never done in the host's instead.

use std::os::unix::process::CommandExt;
use std::process::Output;

use crate::matrix::promise::{keep, said};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

const LAB: &str = "lab = \"inner\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nmode = \"routed\"\n\
                   subnet = [\"10.1.0.0/24\", \"fd00:1::/64\"]\n[router]\nexternal = { via = \"none\" }\n\
                   [vm.a]\nnic = \"web\"\n[vm.b]\nnic = \"web\"\n";

/// The router has a network more, an address more, and other rules.
const CHANGED: &str = "[network.db]\nmode = \"routed\"\nsubnet = \"10.2.0.0/24\"\n[vm.c]\nnic = \"db\"\n";

/// What the host's own namespace has, but for the links of the lab's that belong there: whatever the program left,
/// no address, route, rule or setting of the router's or a guest's may be in it.
fn hosts_own() -> String {
    sh("ip -o addr; ip route show table all; ip -6 route show table all; ip rule
        nft list tables | grep -v 'bridge vmnet-inner' || true
        ip -o link show | grep -v 'alias vmnet:inner:' | sed 's/<.*//'
        cd /proc/sys/net; grep -r . ipv4/ip_forward ipv4/conf/all ipv4/conf/default ipv4/conf/lo ipv6/conf/all ipv6/conf/default \
        ipv6/conf/lo | grep -v stable_secret")
}

/// Runs the program where these system calls end with EPERM: a filter that the kernel keeps for it and its children.
fn refusing(lab: &Lab, calls: &[i64], args: &[&str]) -> Output {
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for call in calls {
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        filter.push(libc::sock_filter { code: equal as u16, jt: 0, jf: 1, k: u32::try_from(*call).unwrap() });
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let mut command = lab.command(args);
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the filter, which lives until this closure ends.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, and memory that was allocated before.
    unsafe { command.pre_exec(install) };
    command.output().unwrap()
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// No namespace can be entered, made or given a name: everything fails, and the host's own namespace stays what it
/// was.
#[test]
fn row_23_system_calls_refused() {
    row!(|| {
        let before = Snapshot::when_settled();
        let own = hosts_own();
        let lab = Lab::from_text(LAB);
        let mut tried = 0;
        for calls in
            [&[libc::SYS_setns][..], &[libc::SYS_unshare], &[libc::SYS_mount], &[libc::SYS_setns, libc::SYS_umount2]]
        {
            let mut fails = |args: &[&str]| {
                let output = refusing(&lab, calls, args);
                let text = said(&output);
                assert!(!output.status.success(), "{args:?} without {calls:?}: {text}");
                assert!(text.contains("vmnet-inner"), "{args:?} without {calls:?}: {text}");
                assert_eq!(hosts_own(), own, "{args:?} without {calls:?}: {text}");
                tried += 1;
            };
            fails(&["create"]);
            lab.ok(&["create"]);
            lab.ok(&["boot", "a"]);
            fails(&["boot", "b"]);
            if calls[0] == libc::SYS_setns {
                fails(&["stop", "a"]);
                fails(&["exec", "a", "--", "ip", "addr", "add", "10.66.66.66/32", "dev", "lo"]);
                fails(&["destroy", "--stop", "inner"]);
                Lab::from_text(&format!("{LAB}{CHANGED}"));
                fails(&["create"]);
                Lab::from_text(LAB);
            }
            lab.ok(&["create"]);
            lab.ok(&["destroy", "--stop"]);
            assert_eq!(hosts_own(), own);
        }
        crate::matrix::tally("commands without a system call", tried, 0);
        keep(&lab, &before);
    });
}

/// What stands in the place of the router's or a guest's namespace is something else: a plain file, a link to the
/// host's namespace, the host's namespace itself, another kind of namespace, a folder. Every verb leaves it and the host alone.
#[test]
fn row_23_wrong_thing_in_its_place() {
    row!(|| {
        let before = Snapshot::when_settled();
        let own = hosts_own();
        let lab = Lab::from_text(LAB);
        let mut tried = 0;
        for (stands, make) in [
            ("a file", "touch $F"),
            ("a link", "ln -s /proc/1/ns/net $F"),
            ("the host's own", "touch $F; mount --bind /proc/self/ns/net $F"),
            ("another kind of namespace", "touch $F; mount --bind /proc/self/ns/uts $F"),
            ("a folder", "mkdir $F"),
        ] {
            for name in ["vmnet-inner", "vmnet-inner.a"] {
                let file = format!("/run/netns/{name}");
                let place = |command: &str| sh(&format!("F={file}; N={name}; {command}"));
                lab.ok(&["create"]);
                lab.ok(&["boot", "a"]);
                // The lab's own namespace lives on elsewhere, with everything in it.
                place("mkdir -p /run/aside; touch /run/aside/$N; mount --bind $F /run/aside/$N; umount $F; rm $F");
                place(make);
                let thing = place("stat -L -c '%F %i' $F; stat -c %F $F");
                for args in [
                    &["create"][..],
                    &["boot", "b"],
                    &["stop", "a"],
                    &["exec", "a", "--", "ip", "addr", "add", "10.66.66.66/32", "dev", "lo"],
                    &["destroy", "--stop", "inner"],
                    &["status", "inner"],
                    &["ps", "inner"],
                ] {
                    let text = said(&lab.vmnet(args));
                    let now = hosts_own();
                    assert_eq!(now, own, "{args:?} with {stands} at {file}: {text}");
                    assert_eq!(place("stat -L -c '%F %i' $F; stat -c %F $F"), thing, "{args:?} with {stands}: {text}");
                    tried += 1;
                }
                place("umount $F 2>/dev/null || true; rm -rf $F; umount /run/aside/$N; rm /run/aside/$N");
                lab.ok(&["create"]);
                lab.ok(&["destroy", "--stop"]);
                assert_eq!(hosts_own(), own);
            }
        }
        crate::matrix::tally("commands with a wrong thing", tried, 0);
        keep(&lab, &before);
    });
}
