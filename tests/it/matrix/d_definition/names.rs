//! Names that are none, and numbers that can't be: all refused at once, each at its line.

use vmnet::definition::{Definition, ProblemReport, Problems};
use vmnet::model::{Lock, resolve};

/// A definition that says everything that has a name, one thing a line. What stands between «» is replaced.
const EVERYTHING: &str = r#"lab = "«campus»"
[uplink."«trunk»"]
device = "«eno1»"
[uplink.other]
device = "«52:54:00:aa:00:01»"
[network."«web»"]
mode = "«nat»"
uplink = "«trunk»"
vlan = 10
subnet = "«10.0.0.0/24»"
gateway = "«10.0.0.1»"
dns = "«9.9.9.9»"
ifname = "«brw»"
[network.out]
mode = "bridged"
bridge = "«br0»"
[router]
[router.external]
via = "«vlan»"
uplink = "«trunk»"
vlan = 11
address = "«192.0.2.2/24»"
[image."«debian»"]
file = "disk.qcow2"
format = "«qcow2»"
[vm."«vm1»"]
engine = "«qemu»"
accel = "«tcg»"
memory = "«1GiB»"
image = "«debian»"
disk = "«20GiB»"
user = "«lab»"
[[vm.vm2.nic]]
network = "«out»"
mac = "«52:54:00:00:00:01»"
model = "«virtio»"
tap = "«tap1»"
[vm.vm2]
image = "«debian»"
"#;

/// Texts that would mean something to a shell, a path, a terminal, a rule or an option.
const HOSTILE: [&str; 30] = [
    "$(id)",
    "`id`",
    "a;b",
    "a\nb",
    "a\0b",
    "-a",
    "--help",
    "",
    " ",
    "a b",
    "a\tb",
    "a\rb",
    "../a",
    "a/b",
    "a|b",
    "a&b",
    "a'b",
    "a\"b",
    "a\\b",
    "é",
    "\u{202e}a",
    "\u{1b}[31m",
    "\u{9b}31m",
    "a,b",
    "a=b",
    "*",
    "{a}",
    "a%s",
    "~a",
    "..",
];

/// A TOML string: every character that is not plain is escaped.
fn quoted(text: &str) -> String {
    let character = |c: char| match c {
        ' '..='~' if c != '"' && c != '\\' => c.to_string(),
        _ if c.is_control() || c == '"' || c == '\\' => format!("\\u{:04x}", u32::from(c)),
        _ => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(character).collect::<String>())
}

fn problems(text: &str) -> Option<Problems> {
    Definition::parse(text).and_then(|definition| resolve(&definition, &Lock::default())).err()
}

/// The definition above in TOML's own order: keys of a guest before its nics.
fn everything() -> String {
    let (head, rest) = EVERYTHING.split_once("[[vm.vm2.nic]]\n").unwrap();
    let (nic, vm) = rest.split_once("[vm.vm2]\n").unwrap();
    let head = head.replace("[vm.\"«vm1»\"]\n", "[vm.\"«vm1»\"]\nnic = \"out\"\n");
    format!("{head}[vm.vm2]\n{vm}[[vm.vm2.nic]]\n{nic}")
}

/// The places of a definition with a name: the text before, the name, the text after.
fn places(text: &str) -> Vec<(String, String)> {
    let clear = |part: &str| part.replace(['«', '»'], "");
    let starts: Vec<usize> = text.match_indices("\"«").map(|(at, _)| at).collect();
    let place = |at: usize| {
        let end = at + text[at..].find("»\"").unwrap();
        (clear(&text[..at]), clear(&text[end + "»\"".len()..]))
    };
    starts.into_iter().map(place).collect()
}

/// In every place of the definition that has a name, an address or a word: each hostile text is refused, its line is
/// shown, and nothing that a terminal would obey.
#[test]
fn row_41_hostile_names() {
    let text = everything();
    let valid = text.replace(['«', '»'], "");
    assert!(problems(&valid).is_none(), "{}", problems(&valid).unwrap().render("net.toml", &valid, false));
    let places = places(&text);
    assert_eq!(places.len(), 29, "places with a name");
    let mut tried = 0;
    for (before, after) in &places {
        for hostile in HOSTILE {
            let text = format!("{before}{}{after}", quoted(hostile));
            let line = before.matches('\n').count() + 1;
            let shown = text.lines().nth(line - 1).unwrap().to_owned();
            let found = problems(&text).unwrap_or_else(|| panic!("taken: {shown}"));
            let reports = found.reports("net.toml", &text);
            assert!(reports.iter().any(|report| report.line == line), "{shown}: {reports:?}");
            let rendered = found.render("net.toml", &text, false);
            assert!(rendered.contains(&format!("net.toml:{line}:")), "{shown}: {rendered}");
            let obeyed = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!rendered.contains(obeyed), "{shown}: {rendered:?}");
            tried += 1;
        }
    }
    println!("{tried} hostile names");
}

/// The same on the command line: no such name, exit code 2, nothing that a terminal would obey.
#[test]
fn row_41_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    // An argument can't hold NUL, what begins with - is an option, and a/b is guest b of lab a.
    for hostile in HOSTILE.into_iter().filter(|text| !text.contains('\0') && !text.starts_with('-') && *text != "a/b") {
        for verb in ["status", "destroy", "ps", "verify", "boot", "stop", "reset", "console", "xml", "qemu-args"] {
            let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_vmnet"));
            command
                .current_dir(folder.path())
                .env("VMNET_STATE_DIR", folder.path())
                .env("VMNET_RUN_DIR", folder.path());
            let output = command.args([verb, hostile]).timeout(std::time::Duration::from_secs(20)).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{verb} {hostile:?}: {text}");
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{verb} {hostile:?}: {text:?}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
}

/// A text of raw control characters, in comments, keys and values: refused, shown, and not obeyed.
#[test]
fn row_41_raw_control_characters() {
    for raw in ["\0", "\u{1b}]0;title\u{7}", "\u{1b}[2J", "\u{7f}", "\r", "\u{8}\u{8}"] {
        for text in [format!("lab = \"a\"\n# {raw} x\n"), format!("lab = \"a{raw}b\"\n"), format!("{raw}lab = \"a\"\n")]
        {
            let Some(found) = problems(&text) else {
                assert!(raw == "\r" && text.starts_with(raw), "taken: {text:?}");
                continue;
            };
            let rendered = found.render("net.toml", &text, false);
            assert!(!rendered.contains(|c: char| c.is_control() && c != '\n'), "{text:?}: {rendered:?}");
        }
    }
}

fn lines_of(reports: &[ProblemReport], what: &str) -> Vec<usize> {
    reports.iter().filter(|report| report.problem.contains(what)).map(|report| report.line).collect()
}

const IMPOSSIBLE: &str = r#"lab = "numbers"
uplink.trunk.device = "eno1"
[network.zero]
vlan = 0
subnet = "10.0.0.0/24"
[network.last]
vlan = 4095
subnet = "10.1.0.0/24"
[network.one]
vlan = 7
subnet = "10.2.0.0/24"
gateway = "10.2.0.255"
[network.two]
vlan = 7
subnet = "10.2.0.128/25"
[network.three]
vlan = -1
subnet = "10.4.0.0/24"
gateway = "10.4.0.0"
[network.four]
subnet = "10.5.0.0/24"
gateway = "10.6.0.1"
[vm.a]
engine = "netns"
nic = { network = "four", mac = "01:00:5e:00:00:01" }
[vm.b]
engine = "netns"
nic = { network = "four", mac = "00:00:00:00:00:00", address = "10.5.0.255" }
[vm.c]
engine = "netns"
nic = { network = "four", mac = "52:54:00:00:00:01" }
[vm.d]
engine = "netns"
nic = { network = "four", mac = "52:54:00:00:00:01", address = "224.0.0.1" }
"#;

/// VLAN 0 and 4095, one twice, overlapping subnets, gateways that are a broadcast address, a multicast MAC and others:
/// all are listed at once, each with its line.
#[test]
fn row_48_impossible_numbers() {
    let found = problems(IMPOSSIBLE).expect("refused");
    let reports = found.reports("net.toml", IMPOSSIBLE);
    let rendered = found.render("net.toml", IMPOSSIBLE, false);
    for line in [4, 7, 12, 14, 15, 17, 19, 22, 25, 28, 34] {
        assert!(reports.iter().any(|report| report.line == line), "nothing about line {line}:\n{rendered}");
        assert!(rendered.contains(&format!("net.toml:{line}:")), "{rendered}");
    }
    assert_eq!(lines_of(&reports, "VLAN"), [4, 7, 14, 17], "{rendered}");
    assert!(lines_of(&reports, "overlap").contains(&15), "{rendered}");
    assert!(reports.iter().all(|report| report.help.is_some()), "each has a remedy: {rendered}");
}
