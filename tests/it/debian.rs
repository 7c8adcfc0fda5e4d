//! A distribution's own image from the first boot to the last: Debian with its kernel, boot loader and cloud-init, none
//! of which knows of vmnet. What the small guest does with a seed is our reading of it; here it is Debian's.
//!
//! `make test` runs it under emulation, by QEMU and by libvirt. Under KVM, in the kernel lab, it takes minutes: `make
//! test-long`.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::private_libvirt::{self, Libvirt};
use crate::sandbox;
use crate::skip::{say, skip};
use crate::snapshot::Snapshot;
use crate::world::{Engine, Lab, sh};

/// The outside: a machine that a nic of the host leads to. It is the guest's name server.
const OUTSIDE: &str = "
ip netns add outside
ip link add nic0 type veth peer name wire0 netns outside
ip -n outside link set lo up
ip -n outside link set wire0 addrgenmode none up
ip -n outside address add 192.0.2.1/24 dev wire0
ip address add 192.0.2.2/24 dev nic0
ip link set nic0 up
ip route add default via 192.0.2.1
mkdir -p /run/lab
ssh-keygen -q -t ed25519 -N '' -f /run/lab/key
";

const LAB: &str = r#"
lab = "distro"
[network.web]
subnet = ["10.1.0.0/24", "fd00:1::/64"]
dns = "192.0.2.1"
[network.db]
mode = "isolated"
subnet = "10.2.0.0/24"
mtu = 1400
[vm.vm1]
nic = ["web", { network = "db", address = "10.2.0.20" }]
image = "debian"
disk = "3GiB"
memory = "768MiB"
user = "anna"
ssh_keys = ["key.pub"]
run = ["echo ours $(id -un) $(hostname) >/order"]
[vm.peer]
engine = "netns"
nic = { network = "db", address = "10.2.0.30" }
[image.debian]
file = "/run/images/debian-12.qcow2"
"#;

/// How long one step of a guest may take before it is taken for dead. No figure: under KVM in the kernel lab everything
/// is emulated, too, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(900);

/// Where the sandbox has the image. libvirt's user may not reach the project's folder.
const IMAGES: &str = "/run/images";

/// What the guest's file of user-data has: what only it sets, what vmnet sets, too, and a list of both. The host key is
/// vmnet's whatever it says.
const USER_DATA: &str = r#"#cloud-config
# of the user's own: é 🦀
timezone: Asia/Kathmandu
ssh_pwauth: true
ssh_keys:
  ed25519_private: theirs
write_files:
  - path: /theirs
    permissions: "0640"
    content: "é 🦀\n"
users:
  - name: otto
    shell: /bin/sh
runcmd:
  - [sh, -c, "echo theirs >>/order"]
"#;

fn images() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/build/vm-images"))
}

fn test(name: &str, engine: Engine) {
    let name = format!("debian::{name}");
    if !images().join("debian-12.qcow2").exists() {
        return skip(&name, "needs the Debian image: make vm-images");
    }
    sandbox::run(&name, || from_the_first_boot_to_the_last(engine));
}

#[test]
fn under_emulation() {
    test("under_emulation", Engine::Qemu("tcg"));
}

#[test]
fn under_emulation_by_libvirt() {
    const NAME: &str = "under_emulation_by_libvirt";
    if private_libvirt::missing(&format!("debian::{NAME}")) {
        return;
    }
    test(NAME, Engine::Libvirt("tcg"));
}

#[test]
#[ignore = "takes minutes in the kernel lab: make test-long"]
fn under_kvm() {
    test("under_kvm", Engine::Qemu("kvm"));
}

/// The definition for an engine. A guest of libvirt has no file of user-data, so its seed is of the other form.
fn definition(engine: Engine) -> String {
    let (word, accel) = match engine {
        Engine::Netns => unreachable!("a namespace boots no image"),
        Engine::Qemu(accel) => ("qemu", accel),
        Engine::Libvirt(accel) => ("libvirt", accel),
    };
    let mut run_by = format!("engine = \"{word}\"\naccel = \"{accel}\"\n");
    // The machine's own, not those of an emulated one.
    if accel == "tcg" {
        run_by += "cpus = 2\n";
    }
    if word == "qemu" {
        run_by += "user_data = \"user-data\"\n";
    }
    LAB.replace("image = \"debian\"\n", &format!("image = \"debian\"\n{run_by}"))
}

/// A lab with one Debian guest and a namespace beside it.
struct Stand {
    lab: Lab,
    begun: Instant,
}

fn from_the_first_boot_to_the_last(engine: Engine) {
    sh(OUTSIDE);
    sh(&format!("mkdir {IMAGES}; mount --bind {} {IMAGES}", images().display()));
    let _libvirt = matches!(engine, Engine::Libvirt(_)).then(Libvirt::start);
    let before = Snapshot::when_settled();
    let mut lab = Lab::from_text(&definition(engine));
    lab.engine = engine;
    std::fs::write(lab.folder().join("user-data"), USER_DATA).unwrap();
    let names = NameServer::start();
    let stand = Stand { lab, begun: Instant::now() };
    stand.lab.ok(&["create"]);
    stand.lab.ok(&["boot", "--all", &format!("--wait={}s", LIMIT.as_secs())]);
    stand.say("answers");
    stand.until_login("the first boot");
    stand.cloud_init();
    stand.everything_is_as_defined();
    stand.the_seed_had_its_effect();
    assert!(names.asked(), "nobody asked the name server");
    stand.a_reboot_changes_nothing();
    stand.shuts_down();
    stand.lab.ok(&["destroy", "--stop", "--purge"]);
    let differences = before.differences(&Snapshot::take());
    assert!(differences.is_empty(), "left behind:\n{}", differences.join("\n"));
    assert_eq!(sh("find /run/state/distro /run/vmnet/distro -type f 2>/dev/null || true"), "");
}

impl Stand {
    /// How far it is, for whoever looks on (`--nocapture`).
    fn say(&self, what: &str) {
        say(&format!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64()));
    }

    /// A shell command in the guest, by `vmnet ssh`: what it printed and how it ended. Nobody is asked for anything.
    fn ssh(&self, command: &str) -> (String, Option<i32>) {
        let output = self.lab.vmnet(&["ssh", "vm1", "--", "-F", "none", "-i", "key", "-o", "BatchMode=yes", command]);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (text.into_owned(), output.status.code())
    }

    /// Several shell commands in the guest by one login, which costs an emulated guest seconds.
    fn guest<const N: usize>(&self, commands: [&str; N]) -> [Answer; N] {
        const END: &str = "END-OF-COMMAND-";
        let script: Vec<String> = commands.iter().map(|command| format!("({command}) 2>&1; echo {END}$?.\n")).collect();
        let (text, _) = self.ssh(&script.concat());
        let mut rest = text.as_str();
        commands.map(|command| {
            let found = rest.split_once(END).and_then(|(output, more)| Some((output, more.split_once(".\n")?)));
            let (output, (code, more)) = found.unwrap_or_else(|| panic!("no answer to {command}: {text}"));
            rest = more;
            Answer { command: command.to_owned(), text: output.trim_end().to_owned(), code: code.parse().unwrap() }
        })
    }

    /// Until somebody can log in, and gives the id of this boot.
    fn until_login(&self, what: &str) -> String {
        let begun = Instant::now();
        loop {
            let (text, code) = self.ssh("cat /proc/sys/kernel/random/boot_id");
            if code == Some(0) {
                self.say(&format!("login after {what}"));
                return text.trim().to_owned();
            }
            // All but a server that is not there yet, or not any more, is a failure: a host key that is not known.
            const WAITS: [&str; 7] = [
                "refused",
                "timed out",
                "closed by",
                "reset by",
                "No route to host",
                "System is booting up",
                "System is going down",
            ];
            assert!(WAITS.iter().any(|words| text.contains(words)), "{what}: {text}");
            assert!(begun.elapsed() < LIMIT, "no login after {what}: {text}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// cloud-init has done all that the seed says, without a complaint, and Debian is content with itself.
    fn cloud_init(&self) {
        let [status, complaints, state, failed] = self.guest([
            "cloud-init status --wait --long",
            "sudo grep -E 'WARNING|ERROR|CRITICAL|Traceback' /var/log/cloud-init.log",
            "systemctl is-system-running --wait",
            "systemctl --failed --no-legend --plain",
        ]);
        self.say("cloud-init is done");
        assert!(status.ok().contains("status: done"), "{status:?}");
        assert_eq!((complaints.text.as_str(), complaints.code), ("", 1));
        if state.text != "running" {
            let [more, journal] =
                self.guest(["networkctl status --all --no-pager", "sudo journalctl -b --no-pager -o short-monotonic"]);
            panic!("{state:?} {failed:?}\n{}\n{}", more.text, journal.text);
        }
    }

    fn everything_is_as_defined(&self) {
        let [names, links, four, six, dns, lookup, pings, fits, too_long, size] = self.guest([
            "hostname; hostname -f; id -un; sudo -n id -un",
            "ip -j address",
            "ip -j -4 route show default",
            "ip -j -6 route show default",
            "resolvectl dns eth0",
            "getent ahostsv4 answer.example | cut -d' ' -f1 | sort -u",
            "ping -c 3 -i 0.2 -W 5 -q 192.0.2.1 && ping -c 3 -i 0.2 -W 5 -q fd00:1::1",
            // The second nic: the largest packet that fits, and one byte more.
            "ping -c 3 -i 0.2 -W 5 -q -M do -s 1372 10.2.0.30",
            "ping -c 1 -W 1 -M do -s 1373 10.2.0.30",
            "findmnt -bno SIZE /",
        ]);
        assert_eq!(names.ok(), "vm1\nvm1.distro\nanna\nroot");
        self.addresses(&links.json());
        let gateways = |routes: &Answer| -> Vec<String> {
            let words = |route: &Value| format!("{} {}", route["gateway"], route["dev"]).replace('"', "");
            routes.json().as_array().unwrap().iter().map(words).collect()
        };
        assert_eq!(gateways(&four), ["10.1.0.1 eth0"]);
        assert_eq!(gateways(&six), ["fd00:1::1 eth0"]);
        assert!(dns.ok().ends_with("(eth0): 192.0.2.1"), "{dns:?}");
        // Answered by the server outside alone, by way of the router.
        assert_eq!(lookup.ok(), "192.0.2.77");
        pings.ok();
        fits.ok();
        assert!(too_long.code == 1 && too_long.text.to_lowercase().contains("message too long"), "{too_long:?}");
        // The root has grown to the disk of the definition, which is larger than the image.
        assert!(size.ok().parse::<u64>().unwrap() > 2_600_000_000, "{size:?}");
        self.say("all is as defined");
    }

    fn addresses(&self, links: &Value) {
        let links = links.as_array().unwrap();
        let names: Vec<&Value> = links.iter().map(|link| &link["ifname"]).collect();
        // In the order of their numbers in the guest, which may be any.
        assert!(names.len() == 3 && names[0] == "lo", "{names:?}");
        for (name, network, mtu, addresses) in
            [("eth0", "web", 1500, &["10.1.0.10/24", "fd00:1::a/64"][..]), ("eth1", "db", 1400, &["10.2.0.20/24"])]
        {
            let link = links.iter().find(|link| link["ifname"] == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
            let mac = self.lab.mac("vm1", network).map(|byte| format!("{byte:02x}")).join(":");
            assert_eq!((link["address"].as_str(), link["mtu"].as_i64()), (Some(mac.as_str()), Some(mtu)), "{link}");
            let found = link["addr_info"].as_array().unwrap().iter().filter(|row| row["scope"] == "global");
            let found: Vec<String> =
                found.map(|row| format!("{}/{}", row["local"].as_str().unwrap(), row["prefixlen"])).collect();
            assert_eq!(found, addresses, "{link}");
        }
    }

    /// What the definition has cloud-init run, and the file of user-data where there is one.
    fn the_seed_had_its_effect(&self) {
        let [schema, order, users, theirs, timezone, passwords] = self.guest([
            "sudo cloud-init schema --system",
            "cat /order",
            "id -un anna otto 2>&1; getent passwd otto | cut -d: -f7",
            "sudo cat /theirs && stat -c '%A %U' /theirs",
            "date +%Z",
            "sudo sshd -T | grep ^passwordauthentication",
        ]);
        assert!(schema.ok().contains("Valid cloud-config"), "{schema:?}");
        if let Engine::Libvirt(_) = self.lab.engine {
            assert_eq!((order.ok(), theirs.code), ("ours root vm1", 1));
            assert_eq!(passwords.ok(), "passwordauthentication no");
            return;
        }
        assert_eq!(order.ok(), "ours root vm1\ntheirs");
        assert_eq!(users.ok(), "anna\notto\n/bin/sh");
        assert_eq!(theirs.ok(), "é 🦀\n-rw-r----- root");
        assert_eq!(timezone.ok(), "+0545");
        assert_eq!(passwords.ok(), "passwordauthentication yes");
    }

    /// The same instance: what cloud-init does once is not done again, and the network is the same.
    fn a_reboot_changes_nothing(&self) {
        let once = "stat -c '%n %Y %i' /var/lib/cloud/instance/sem/* /etc/ssh/ssh_host_* .ssh/authorized_keys kept && \
                    readlink /var/lib/cloud/instance";
        let [boot, before] = self.guest(["cat /proc/sys/kernel/random/boot_id; echo kept >kept", once]);
        // The connection may end before the command does.
        self.ssh("sudo systemctl reboot");
        while self.until_login("the reboot") == boot.ok() {}
        self.cloud_init();
        let [after] = self.guest([once]);
        assert_eq!(after.ok(), before.ok());
        self.everything_is_as_defined();
    }

    /// By itself: one that does not is ended by its engine.
    fn shuts_down(&self) {
        let report: Value = serde_json::from_str(&self.lab.ok(&["shutdown", "--json"])).unwrap();
        let guests = report["guests"].as_array().unwrap();
        assert!(guests.iter().any(|guest| guest["vm"] == "vm1" && guest["in_order"] == true), "{report:#}");
        self.say("has shut down");
        if let Engine::Qemu(_) = self.lab.engine {
            let log = self.lab.ok(&["logs", "vm1"]);
            assert!(log.contains("Linux version") && log.contains("reboot: Power down"), "{log}");
        }
    }
}

/// What came of a command in the guest.
#[derive(Debug)]
struct Answer {
    command: String,
    text: String,
    code: i32,
}

impl Answer {
    /// What it printed. It must have succeeded.
    #[track_caller]
    fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{}: {}", self.command, self.text);
        &self.text
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.ok()).unwrap_or_else(|error| panic!("{}: {error}: {}", self.command, self.text))
    }
}

/// A name server in the namespace `outside`: whatever is asked for has the IPv4 address 192.0.2.77, and no other.
struct NameServer {
    asked: mpsc::Receiver<()>,
}

impl NameServer {
    fn start() -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (asks, asked) = mpsc::channel();
        std::thread::spawn(move || {
            let ns = std::fs::File::open("/run/netns/outside").expect("the namespace");
            nix::sched::setns(ns, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering the namespace");
            let socket = UdpSocket::bind("192.0.2.1:53").expect("the address is there");
            ready.send(()).expect("the test waits");
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..length]) {
                    let _ = socket.send_to(&answer, from);
                    let _ = asks.send(());
                }
            }
        });
        is_ready.recv().expect("the name server starts");
        Self { asked }
    }

    fn asked(&self) -> bool {
        self.asked.try_recv().is_ok()
    }
}

/// The answer to a question of one name (RFC 1035, 4.1): its header and question, and for an address (type A) a record.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let name_end = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)?;
    let asked = question.get(..name_end + 5)?;
    let is_address = asked[name_end + 1..name_end + 3] == [0, 1];
    let mut answer = asked.to_vec();
    // A response without errors, recursion available; one question, and one answer or none.
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    if is_address {
        // The name of the question, type A, class IN, a minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    }
    Some(answer)
}
