//! Foreign names with what a terminal or a shell would obey: shown, never obeyed.

use std::process::Output;

use crate::matrix::promise::{keep, same};
use crate::matrix::row;
use crate::snapshot::Snapshot;
use crate::world::{Lab, sh};

const LAB: &str = "lab = \"shown\"\n[defaults.vm]\nengine = \"netns\"\n[network.web]\nsubnet = \"10.1.0.0/24\"\n\
                   [vm.a]\nnic = \"web\"\n[vm.b]\nnic = \"web\"\n";

/// Names that the kernel takes for devices, as printf writes them.
const NAMES: [&str; 11] = [
    "\\033[31mred",
    "x$(id)",
    "*",
    "-x",
    "\"q",
    "\\377\\376",
    "\\302\\2331m",
    "\\342\\200\\256abc",
    "<b>",
    "a,b=c",
    "\\177del",
];

/// Whether a terminal would obey a character, or show what follows it elsewhere.
fn is_obeyed(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn assert_tame(what: &str, output: &Output) -> String {
    let mut all = String::new();
    for channel in [&output.stdout, &output.stderr] {
        let text = std::str::from_utf8(channel).unwrap_or_else(|error| panic!("{what}: {error}: {channel:?}"));
        assert!(!text.contains(is_obeyed), "{what}: {text:?}");
        all.push_str(text);
    }
    all
}

/// Foreign devices as ports of the lab's bridge and elsewhere, foreign altnames, aliases, namespaces, tables and
/// chains, all with such names: in no output of any verb is there anything that a terminal would obey, and all JSON is
/// JSON.
#[test]
fn row_50_foreign_names() {
    row!(|| {
        let empty = Snapshot::when_settled();
        sh("ip link add nic0 type veth peer name far0; ip link set far0 up; ip link set nic0 up
            ip addr add 192.0.2.2/24 dev nic0; ip route add default via 192.0.2.1 dev nic0");
        let lab = Lab::from_text(LAB);
        lab.ok(&["create"]);
        lab.ok(&["boot", "--all"]);
        foreign_things();
        let before = Snapshot::when_settled();
        let verbs: [&[&str]; 12] = [
            &["plan"],
            &["create"],
            &["status"],
            &["verify"],
            &["ps"],
            &["boot", "--all"],
            &["boot", "a"],
            &["destroy", "--stop", "shown"],
            &["plan", "less.toml"],
            &["create", "less.toml"],
            &["plan", "wrong.toml"],
            &["create", "wrong.toml"],
        ];
        let less = "lab = \"shown\"\n[defaults.vm]\nengine = \"netns\"\n[network.db]\nsubnet = \"10.3.0.0/24\"\n";
        std::fs::write(lab.folder().join("less.toml"), less).unwrap();
        let wrong = "lab = \"wrong\"\n[uplink.t]\ndevice = \"absent0\"\n[network.web]\nsubnet = \"192.0.2.0/24\"\n\
                     [network.b]\nmode = \"bridged\"\nbridge = \"far0\"\n[network.c]\nifname = \"nic0\"\nmode = \"isolated\"\n\
                     [router]\nexternal = { via = \"macvlan\", address = \"192.0.2.9/24\" }\n";
        std::fs::write(lab.folder().join("wrong.toml"), wrong).unwrap();
        let mut seen = String::new();
        for verb in verbs {
            let shown = assert_tame(&format!("{verb:?}"), &lab.vmnet(verb));
            seen.push_str(&shown);
            let mut json = verb.to_vec();
            json.push("--json");
            let output = lab.vmnet(&json);
            assert_tame(&format!("{json:?}"), &output);
            let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
            assert!(parsed.is_ok(), "{json:?}: {parsed:?}");
        }
        // Else they were never shown, and this proves nothing.
        for shown in ["\\u{1b}[31mred", "x$(id)", "\\u{9b}1m", "\\u{202e}abc", "\\u{7f}del"] {
            assert!(seen.contains(shown), "{shown} is in no output: {seen}");
        }
        same(&before, "nothing of that changed anything");
        crate::matrix::tally("outputs with foreign names", verbs.len() * 2, 0);
        sh("for p in /sys/class/net/pp*; do ip link del ${p##*/}; done; umount /run/netns/x* 2>/dev/null || true
            rm -f /run/netns/x*; rm -f /run/netns/*ns; nft delete table inet foreign");
        lab.ok(&["destroy", "--stop"]);
        sh("ip link del nic0");
        same(&empty, "all is gone");
        let plain = Lab::from_text("lab = \"shown\"\n[network.web]\nmode = \"isolated\"\n");
        keep(&plain, &empty);
    });
}

/// Half of the devices are ports of the lab's bridge. They get their names at last: `ip` itself takes some of them for
/// options or patterns.
fn foreign_things() {
    for (number, name) in NAMES.iter().enumerate() {
        let master = if number % 3 == 2 { "nomaster" } else { "master br-web" };
        sh(&format!(
            "ip link add p{number} type veth peer name pp{number}; ip link set p{number} {master}
             ip link property add dev p{number} altname \"$(printf 'alt\\033[32m{number}')\"
             ip link set p{number} alias \"$(printf 'al\\033[31m{number}')\"; ip link set pp{number} up
             ip link set p{number} name \"$(printf -- '{name}')\"; ip link set dev \"$(printf -- '{name}')\" up"
        ));
    }
    sh("touch \"$(printf '/run/netns/\\033[31mns')\"; ip netns add 'x$(id)'; touch \"$(printf '/run/netns/vmnet-shown.\\033[1m.ns')\"
        printf 'table inet foreign {\\n chain c {\\n type filter hook forward priority 0; policy drop;\\n }\\n}\\n' | nft -f -");
}

/// A definition whose folder, name and images have such names, and programs that say such things: the same.
#[test]
fn row_50_paths() {
    row!(|| {
        let before = Snapshot::when_settled();
        let lab = Lab::from_text(LAB);
        let folder = lab.folder().join("\u{1b}[31mred\u{9b}2J\u{202e}\n");
        std::fs::create_dir(&folder).unwrap();
        let image = "[image.i]\nfile = \"gone.qcow2\"\n[vm.q]\nengine = \"qemu\"\naccel = \"tcg\"\nimage = \"i\"\nnic = \"web\"\n\
                     ssh_keys = \"nowhere.pub\"\n";
        std::fs::write(folder.join("net.toml"), format!("{LAB}{image}")).unwrap();
        std::fs::write(folder.join("bad.toml"), "lab = 1\nx\u{1b} = 2\n").unwrap();
        std::fs::write(folder.join("damaged.toml"), LAB).unwrap();
        std::fs::write(folder.join("damaged.lock"), "x\u{1b}[31m").unwrap();
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let (net, bad, damaged, none) = (path("net.toml"), path("bad.toml"), path("damaged.toml"), path("none.toml"));
        for args in [
            &["check", net.as_str()][..],
            &["check", &bad],
            &["check", &damaged],
            &["check", &none],
            &["plan", &net],
            &["create", &net],
            &["create"],
            &["create", &net],
            &["status", "shown"],
            &["ps", "shown"],
            &["boot", "q"],
            &["xml", "q"],
            &["qemu-args", "q"],
            &["destroy", &net],
        ] {
            for json in [false, true] {
                let mut args = args.to_vec();
                args.extend(json.then_some("--json"));
                let output = lab.vmnet(&args);
                let mut lines = output.clone();
                // A line break in a name is one of the output's own by then.
                lines.stderr.retain(|byte| *byte != b'\n');
                assert_tame(&format!("{args:?}"), &lines);
                if json {
                    let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
                    assert!(parsed.is_ok(), "{args:?}: {parsed:?}: {output:?}");
                }
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
        keep(&lab, &before);
    });
}
