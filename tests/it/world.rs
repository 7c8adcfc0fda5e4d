//! A lab under test: the program, its definition, and the surroundings that a scenario builds.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What runs the guests of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Namespaces.
    Netns,
    /// QEMU, with this accelerator.
    Qemu(&'static str),
    /// libvirt, with this accelerator.
    Libvirt(&'static str),
}

/// A scenario's lab.
pub(crate) struct Lab {
    /// Its name.
    pub name: String,
    /// What its guests are.
    pub engine: Engine,
    folder: PathBuf,
}

impl Lab {
    /// Copies the definition of a scenario to a folder of its own, for this engine.
    pub(crate) fn new(scenario: &Path, engine: Engine) -> Self {
        let text = std::fs::read_to_string(scenario.join("net.toml")).expect("a net.toml");
        let text = match engine {
            Engine::Netns => text,
            Engine::Qemu(_) | Engine::Libvirt(_) => for_machines(&text, engine),
        };
        Self { engine, ..Self::from_text(&text) }
    }

    /// A lab of guests of an engine, from the text of one of namespace guests.
    pub(crate) fn of(text: &str, engine: Engine) -> Self {
        match engine {
            Engine::Netns => Self::from_text(text),
            Engine::Qemu(_) | Engine::Libvirt(_) => Self { engine, ..Self::from_text(&for_machines(text, engine)) },
        }
    }

    /// A lab of namespace guests.
    pub(crate) fn from_text(text: &str) -> Self {
        // Below /run, which is the sandbox's own; QEMU's user must get through it.
        let folder = PathBuf::from("/run/lab");
        std::fs::create_dir_all(&folder).expect("a folder for the lab");
        std::fs::write(folder.join("net.toml"), text).expect("net.toml is written");
        let name = text.lines().find_map(|line| line.strip_prefix("lab")).expect("a line with the lab's name");
        let name = name.trim_matches([' ', '=', '"']).to_owned();
        Self { name, engine: Engine::Netns, folder }
    }

    /// A lab of QEMU guests that boot the tiny image, from the text of one of namespace guests.
    pub(crate) fn of_qemu(text: &str, accel: &'static str) -> Self {
        Self::of(text, Engine::Qemu(accel))
    }

    /// The program with these arguments, in the lab's folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmnet"));
        command.args(args).current_dir(&self.folder).stdin(Stdio::null());
        command.env("VMNET_STATE_DIR", "/run/state").env("VMNET_RUN_DIR", "/run/vmnet").env_remove("RUST_LOG");
        command
    }

    /// Runs the program, whatever comes of it.
    pub(crate) fn vmnet(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().expect("vmnet starts");
        let printed = [output.stdout.as_slice(), &output.stderr].concat();
        let leaks = leaks(&String::from_utf8_lossy(&printed), &["/run/state", "/run/vmnet", "/run/lab"]);
        assert!(leaks.is_empty(), "vmnet {args:?} prints what is in {leaks:?}");
        output
    }

    /// Runs the program, which must succeed, and gives its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        text_of(&format!("vmnet {}", args.join(" ")), self.vmnet(args))
    }

    /// Runs a shell command in a guest, and gives its output and exit code.
    pub(crate) fn in_guest(&self, vm: &str, command: &str) -> (String, i32) {
        if self.engine != Engine::Netns {
            let console = format!("/run/vmnet/{}/guests/{vm}/console.sock", self.name);
            return on_console(&console, command).unwrap_or_else(|error| panic!("console of {vm}: {error}"));
        }
        let output = self.vmnet(&["exec", &format!("{}/{vm}", self.name), "--", "sh", "-c", command]);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (text.into_owned(), output.status.code().unwrap_or(-1))
    }

    /// Whether a guest gets an answer to one of three echo requests.
    pub(crate) fn pings(&self, vm: &str, address: &str) -> bool {
        self.in_guest(vm, &format!("ping -c 3 -W 1 {address}")).1 == 0
    }

    /// The namespace of a guest of the netns engine.
    pub(crate) fn guest_ns(&self, vm: &str) -> String {
        format!("vmnet-{}.{vm}", self.name)
    }

    /// The router's namespace.
    pub(crate) fn router_ns(&self) -> String {
        format!("vmnet-{}", self.name)
    }

    /// The folder that the definition stands in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a guest send frames on its first nic.
    pub(crate) fn send(&self, vm: &str, frames: &[Vec<u8>]) {
        match self.engine {
            Engine::Netns => super::wire::send(Some(&self.guest_ns(vm)), "eth0", frames),
            Engine::Qemu(_) | Engine::Libvirt(_) => {
                let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                let commands: Vec<String> =
                    frames.iter().map(|frame| format!("sudo rawframe eth0 {}", hex(frame))).collect();
                let (text, code) = self.in_guest(vm, &commands.join(" && "));
                assert_eq!(code, 0, "{vm}: {text}");
            }
        }
    }

    /// The host's end of a guest's first nic.
    pub(crate) fn tap(&self, vm: &str) -> String {
        let lab = self.name.parse().expect("a lab name");
        vmnet::rule::tap_name(&lab, &vm.parse().expect("a guest name"), 0).to_string()
    }

    /// The MAC of a guest's first nic, where it is the only one on its network.
    pub(crate) fn mac(&self, vm: &str, network: &str) -> [u8; 6] {
        let lab = self.name.parse().expect("a lab name");
        let (vm, network) = (vm.parse().expect("a guest name"), network.parse().expect("a network name"));
        vmnet::rule::guest_mac(&lab, &vm, &network, 0, 0).octets()
    }

    /// A hook of a network.
    pub(crate) fn hook(&self, network: &str, hook: &str) -> String {
        format!("/run/vmnet/{}/hooks/{network}/{hook}", self.name)
    }
}

/// The files with private keys below `folders` of which a text has a line.
pub(crate) fn leaks(text: &str, folders: &[&str]) -> Vec<PathBuf> {
    const KEY: &str = "PRIVATE KEY-----";
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(path),
                // Seeds hold keys, too, as JSON: the same lines.
                Ok(meta) if meta.is_file() && meta.len() < 1 << 16 => {
                    let key = std::fs::read(&path).unwrap_or_default();
                    let key = String::from_utf8_lossy(&key);
                    // A last line of a key may be short enough to stand in anything.
                    let is_printed = |line: &str| line.len() >= 16 && text.contains(line);
                    if key.contains(KEY) && key.lines().any(is_printed) {
                        found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// A lab with a guest in QEMU that boots nothing: an empty disk, which a test makes as `empty.qcow2`.
pub(crate) fn with_empty_guest(lab: &str) -> String {
    format!(
        r#"
lab = "{lab}"
[image.empty]
file = "empty.qcow2"
[network.web]
mode = "isolated"
[vm.vm1]
engine = "qemu"
accel = "tcg"
image = "empty"
memory = "64MiB"
nic = "web"
"#
    )
}

/// Types a command into the root shell on a guest's serial console, and reads until it has ended. The tiny guest's
/// shell does not echo.
pub(crate) fn on_console(socket: &str, command: &str) -> std::io::Result<(String, i32)> {
    // Its own for each command: the answer to one that was typed before the shell was there comes when it is.
    static COMMANDS: AtomicUsize = AtomicUsize::new(0);
    let end = format!("END-OF-COMMAND-{}-", COMMANDS.fetch_add(1, Ordering::Relaxed));
    let mut console = UnixStream::connect(socket)?;
    console.set_read_timeout(Some(Duration::from_secs(120)))?;
    console.write_all(format!("{command} 2>&1; echo {end}$?.\n").as_bytes())?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = console.read(&mut buffer).map_err(|error| {
            let tail = String::from_utf8_lossy(&seen[seen.len().saturating_sub(200)..]).into_owned();
            std::io::Error::other(format!("{error}, after {} bytes that end in {tail:?}", seen.len()))
        })?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend(&buffer[..length]);
        // Where the end may be: to look through all of a long output for each part of it would slow the guest down.
        let new = seen.len().saturating_sub(length + end.len() + "255.".len());
        let answered = String::from_utf8_lossy(&seen[new..]).contains(&end);
        let text = if answered { String::from_utf8_lossy(&seen) } else { continue };
        let answer = text.split_once(&end).and_then(|(output, rest)| Some((output, rest.split_once('.')?.0)));
        if let Some((output, code)) = answer {
            return Ok((output.to_owned(), code.parse().map_err(std::io::Error::other)?));
        }
    }
}

/// The same definition with machines for guests: other defaults, and the image that they boot. libvirt's user may not
/// reach the project's folder, so it gets a copy.
fn for_machines(text: &str, engine: Engine) -> String {
    let (word, accel) = match engine {
        Engine::Qemu(accel) => ("qemu", accel),
        Engine::Libvirt(accel) => ("libvirt", accel),
        Engine::Netns => unreachable!("a namespace is no machine"),
    };
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
    assert!(tiny.join("disk.qcow2").exists(), "the tiny guest is not built; run: make vm-images");
    let netns = "engine = \"netns\"";
    assert!(text.contains(netns), "[defaults.vm] says {netns}");
    let tiny = match engine {
        Engine::Libvirt(_) => {
            sh(&format!(
                "mkdir -p /run/images; cp {}/disk.qcow2 {0}/vmlinuz {0}/initrd.img /run/images",
                tiny.display()
            ));
            sh("chmod 644 /run/images/*");
            PathBuf::from("/run/images")
        }
        Engine::Qemu(_) | Engine::Netns => tiny,
    };
    let defaults = format!("engine = \"{word}\"\naccel = \"{accel}\"\nimage = \"tiny\"\nmemory = \"160MiB\"");
    let image = format!(
        "\n[image.tiny]\nfile = \"{0}/disk.qcow2\"\nkernel = \"{0}/vmlinuz\"\ninitrd = \"{0}/initrd.img\"\n\
         cmdline = \"console=ttyS0 quiet\"\n",
        tiny.display()
    );
    text.replacen(netns, &defaults, 1) + &image
}

#[track_caller]
fn text_of(what: &str, output: Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{stdout}{stderr}", output.status);
    stdout
}

/// Runs a shell command, which must succeed, and gives its stdout.
#[track_caller]
pub(crate) fn sh(command: &str) -> String {
    text_of(command, Command::new("sh").args(["-euc", command]).stdin(Stdio::null()).output().expect("sh starts"))
}

/// As [`sh`], and empty when the command fails: some kernels lack a table or a family.
pub(crate) fn output(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().expect("sh starts");
    if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { String::new() }
}

/// Whether a shell command succeeds.
pub(crate) fn succeeds(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().expect("sh starts").status.success()
}
