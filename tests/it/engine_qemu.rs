//! Real guests by QEMU: started, reached, stopped, killed. Emulated, so that any machine can run them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmnet::definition::Definition;
use vmnet::engine::folder::Folder;
use vmnet::engine::wait::Stage;
use vmnet::engine::{self, EngineError, Stopped, qemu};
use vmnet::kernel::Kernel;
use vmnet::model::{Lock, Model, resolve};
use vmnet::names::VmName;
use vmnet::paths::Paths;
use vmnet::render::{self, Files, Given, GuestView};
use vmnet::state::{Facts, Feature, QemuGuest, ServiceUser, Tool};

use crate::sandbox;
use crate::skip::skip;

/// A user that every system has, in place of the one that an administrator would add.
const USER: &str = "nobody";

const LAB: &str = r#"
lab = "t"
[defaults.vm]
image = "tiny"
memory = "128MiB"
accel = "tcg"
[network.web]
mode = "isolated"
subnet = "192.168.10.0/24"
[network.six]
mode = "isolated"
subnet = "fd00:10::/64"
[image.tiny]
file = "disk.qcow2"
kernel = "vmlinuz"
initrd = "initrd.img"
cmdline = "console=ttyS0 quiet"
[image.none]
file = "disk.qcow2"
[vm.silent]
image = "none"
nic = { network = "web", model = "e1000" }
[vm.vm1]
nic = "web"
[vm.vm6]
nic = "six"
"#;

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny")
}

/// Whether the tests here can't run, and says why.
fn missing(name: &str) -> bool {
    let reason = if !images().join("vmlinuz").exists() {
        "needs the small guest: make vm-images"
    } else if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        "needs qemu-system-x86_64"
    } else {
        return false;
    };
    skip(name, reason);
    true
}

/// A lab of its own: folders, the lab's bridge, and what is found there.
struct Stand {
    model: Model,
    paths: Paths,
    facts: Facts,
    kernel: Kernel,
}

impl Stand {
    /// Runs `work` in a sandbox, whose end is the end of every guest too.
    fn run<F: Future<Output = ()>>(name: &str, work: impl FnOnce(Stand) -> F) {
        let name = format!("engine_qemu::{name}");
        if missing(&name) {
            return;
        }
        sandbox::run(&name, || {
            for bridge in ["br-web", "br-six"] {
                ip(&format!("link add {bridge} type bridge"));
                ip(&format!("link set {bridge} up"));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(Stand::new(Path::new("/run"))).await });
        });
    }

    fn new(root: &Path) -> Self {
        let definition = Definition::parse(LAB).unwrap();
        let model = resolve(&definition, &Lock::default()).unwrap().model;
        let paths = Paths { state: root.join("state"), run: root.join("run") };
        let facts = Facts {
            tools: [(Tool::Qemu, "/usr/bin/qemu-system-x86_64"), (Tool::QemuImg, "/usr/bin/qemu-img")]
                .into_iter()
                .chain([(Tool::SshKeygen, "/usr/bin/ssh-keygen")])
                .map(|(tool, path)| (tool, path.into()))
                .collect(),
            features: Feature::ALL.into_iter().filter(|feature| *feature != Feature::VhostNet).collect(),
            qemu_user: Some(ServiceUser { name: USER.into(), uid: 65534, gid: 65534, kvm_gid: None }),
            ..Facts::default()
        };
        Stand { model, paths, facts, kernel: Kernel::new() }
    }

    fn guest(&self, vm: &str) -> (VmName, QemuGuest) {
        let vm = &self.model.vms()[vm];
        let instance = engine::instance(&self.paths.guest_state(self.model.lab(), vm.name())).unwrap();
        let images = images();
        let view = GuestView {
            model: &self.model,
            vm,
            files: Files::beside(&images),
            given: &Given::default(),
            instance,
            mtus: &[],
        };
        (vm.name().clone(), render::qemu::guest(&view, &self.paths, &self.facts).unwrap())
    }

    async fn start(&mut self, vm: &str) -> (VmName, QemuGuest) {
        let (vm, guest) = self.guest(vm);
        qemu::launch(&mut self.kernel, &vm, &guest).await.unwrap().ready().await.unwrap();
        (vm, guest)
    }

    async fn until_up(&self, vm: &VmName) {
        let vm = &self.model.vms()[vm];
        engine::wait::until_up(&self.model, vm, &self.paths, &Arc::default(), Duration::from_secs(60)).await.unwrap();
    }
}

fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn links() -> String {
    ip("-br link")
}

#[test]
fn a_guest_starts_answers_and_powers_off() {
    Stand::run("a_guest_starts_answers_and_powers_off", async |mut stand| {
        let (vm, guest) = stand.start("vm1").await;
        let tap = guest.taps[0].0.clone();
        assert!(ip(&format!("link show {tap}")).contains("master br-web"));
        assert!(ip(&format!("-d link show {tap}")).contains("vmnet:t:nic:vm1.0"));
        assert_eq!(ip(&format!("-6 addr show dev {tap}")), "");
        let running = engine::running(&stand.paths, stand.model.lab()).unwrap();
        assert_eq!((running.len(), &running[0].guest), (1, &guest));
        let again = qemu::launch(&mut stand.kernel, &vm, &guest).await;
        assert!(matches!(again, Err(EngineError::Running { pid, .. }) if pid == running[0].pid), "{again:?}");
        check_process(running[0].pid);
        stand.until_up(&vm).await;
        let stopped = qemu::stop(&vm, &guest, Duration::from_secs(30)).await.unwrap();
        assert_eq!(stopped, Stopped::PoweredOff);
        assert!(!links().contains(tap.as_str()), "{}", links());
        assert!(engine::running(&stand.paths, stand.model.lab()).unwrap().is_empty());
        assert!(!guest.run_dir.exists());
        assert_eq!(qemu::stop(&vm, &guest, Duration::ZERO).await.unwrap(), Stopped::WasOff);
    });
}

/// QEMU runs without privilege and with nothing open that it does not need.
fn check_process(pid: i32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(field("Gid:"), "65534\t65534\t65534\t65534");
    // The group of /dev/kvm where it has one, and no other.
    let kvm = fs::metadata("/dev/kvm").map_or(0, |found| found.gid());
    assert_eq!(field("Groups:"), if kvm == 0 { String::new() } else { kvm.to_string() });
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Umask:"), "0077");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(cores.split_whitespace().filter(|word| *word == "0").count() == 2, "{cores}");
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert!(cwd.ends_with("t/guests/vm1"), "{}", cwd.display());
    // A session of its own: what ends a login does not end it.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3), Some(pid.to_string().as_str()), "{stat}");
    let known = ["/dev/null", "/dev/urandom", "/dev/net/tun", "anon_inode:", "socket:", "pipe:"];
    let own = ["qemu.log", "disk.qcow2", "vmlinuz", "initrd.img", "disk-1.qcow2", "seed.img"];
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let expected =
            known.iter().any(|start| target.starts_with(start)) || own.iter().any(|end| target.ends_with(end));
        assert!(expected, "QEMU has {target} open");
    }
}

#[test]
fn a_guest_with_ipv6_alone_answers_too() {
    Stand::run("a_guest_with_ipv6_alone_answers_too", async |mut stand| {
        let (vm, guest) = stand.start("vm6").await;
        stand.until_up(&vm).await;
        qemu::stop(&vm, &guest, Duration::ZERO).await.unwrap();
    });
}

#[test]
fn a_killed_qemu_leaves_no_tap_and_the_guest_starts_again() {
    Stand::run("a_killed_qemu_leaves_no_tap_and_the_guest_starts_again", async |mut stand| {
        let (vm, guest) = stand.start("vm1").await;
        let pid = engine::running(&stand.paths, stand.model.lab()).unwrap()[0].pid;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // The kernel closes what a process had before it says that it has ended.
        let running = || engine::running(&stand.paths, stand.model.lab()).unwrap().len();
        while links().contains(guest.taps[0].0.as_str()) || running() > 0 {
            assert!(Instant::now() < deadline, "{} run; {}", running(), links());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stand.start("vm1").await;
        stand.until_up(&vm).await;
        assert_eq!(qemu::stop(&vm, &guest, Duration::ZERO).await.unwrap(), Stopped::Quit);
    });
}

#[test]
fn a_qemu_that_fails_leaves_nothing() {
    Stand::run("a_qemu_that_fails_leaves_nothing", async |mut stand| {
        let (vm, mut guest) = stand.guest("vm1");
        guest.args.push("-no-such-option".into());
        let result = qemu::launch(&mut stand.kernel, &vm, &guest).await.unwrap().ready().await;
        let Err(EngineError::Died { log, .. }) = result else { panic!("{result:?}") };
        assert!(log.contains("no-such-option"), "{log}");
        assert!(!links().contains(guest.taps[0].0.as_str()));
        assert!(!guest.run_dir.exists());
        assert!(!guest.disk.unwrap().path.exists());
    });
}

#[test]
fn the_stage_that_was_not_reached_is_named() {
    Stand::run("the_stage_that_was_not_reached_is_named", async |mut stand| {
        // Its disk has nothing to boot.
        let (vm, guest) = stand.start("silent").await;
        let model = stand.model.clone();
        let paths = stand.paths.clone();
        let wait = async || {
            let limit = Duration::from_secs(1);
            engine::wait::until_up(&model, &model.vms()[vm.as_str()], &paths, &Arc::default(), limit).await.unwrap_err()
        };
        let is_stage = |error, wanted| matches!(error, EngineError::Wait { stage, .. } if stage == wanted);
        assert!(is_stage(wait().await, Stage::Arp));
        let tap = &guest.taps[0].0;
        ip(&format!("link set {tap} down"));
        assert!(is_stage(wait().await, Stage::Carrier));
        let run = Folder::open(&guest.run_dir).unwrap().unwrap();
        engine::qmp::Qmp::connect(&run).await.unwrap().execute("stop").await.unwrap();
        assert!(is_stage(wait().await, Stage::Qemu));
        fs::write(guest.run_dir.join("qemu.log"), "one\ntwo\nthree\nfour\x1b[2J\n").unwrap();
        let pid = engine::running(&stand.paths, stand.model.lab()).unwrap()[0].pid;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let error = wait().await.to_string();
        assert_eq!(error, "QEMU of guest silent has ended: two; three; four?[2J");
        qemu::stop(&vm, &guest, Duration::ZERO).await.unwrap();
        assert!(matches!(wait().await, EngineError::NotRunning { .. }));
    });
}

/// A connection to a guest's console, as a program uses it.
struct Console(std::os::unix::net::UnixStream);

impl Console {
    fn open(guest: &QemuGuest) -> Self {
        let stream = std::os::unix::net::UnixStream::connect(guest.run_dir.join("console.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    fn say(&mut self, line: &str) {
        std::io::Write::write_all(&mut self.0, format!("{line}\n").as_bytes()).unwrap();
    }

    /// Reads until `end` appears and gives all that came.
    fn until(&mut self, end: &str) -> String {
        self.answers(end).unwrap()
    }

    /// As [`Console::until`]; an error where nothing comes within the time of a read.
    fn answers(&mut self, end: &str) -> std::io::Result<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = std::io::Read::read(&mut self.0, &mut buffer)?;
            assert!(length > 0, "the console closed: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..length]);
            // Not all of it each time: it can be megabytes.
            let tail = &all[all.len().saturating_sub(length + end.len())..];
            if String::from_utf8_lossy(tail).contains(end) {
                return Ok(String::from_utf8_lossy(&all).into_owned());
            }
        }
    }
}

/// A guest that writes to a console that nobody reads must go on; a megabyte is more than any buffer on the way has.
#[test]
fn a_console_without_a_reader_does_not_stall_the_guest() {
    Stand::run("a_console_without_a_reader_does_not_stall_the_guest", async |mut stand| {
        let (vm, guest) = stand.start("vm1").await;
        stand.until_up(&vm).await;
        let mut console = Console::open(&guest);
        console.say("echo re\"\"ady");
        console.until("ready");
        // In the background, so that the shell answers; begun before the connection goes, which would cut it short.
        console.say("(sleep 1; yes 0123456789abcde | head -c 1000000; echo written >/tmp/done) & echo be\"\"gun");
        console.until("begun");
        drop(console);
        let begun = Instant::now();
        let mut pause = Duration::from_secs(3);
        loop {
            tokio::time::sleep(pause).await;
            let mut console = Console::open(&guest);
            console.0.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            console.say("cat /tmp/done; echo as\"\"ked");
            // Beside a megabyte that is being written, QEMU may drop the answer: what counts is that the guest goes on.
            if console.answers("asked").is_ok_and(|said| said.contains("written")) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "the guest is still writing");
            pause *= 2;
        }
        qemu::stop(&vm, &guest, Duration::ZERO).await.unwrap();
    });
}
