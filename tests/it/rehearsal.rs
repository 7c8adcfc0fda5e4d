//! A rehearsal under test: kept, looked at, ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::wire::{Capture, send_at};
use super::world::{Engine, Lab};

/// A rehearsal that was kept. Dropping it leaves it to the end of the sandbox.
pub(crate) struct Rehearsal {
    /// The lab's name.
    pub(crate) name: String,
    /// What its guests are.
    pub(crate) engine: Engine,
    /// What `rehearse` reported.
    pub(crate) report: Value,
    /// What it exited with.
    pub(crate) code: i32,
    folder: PathBuf,
}

/// The program in a folder.
fn vmnet(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmnet"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).env_remove("RUST_LOG");
    command.output().expect("vmnet starts")
}

impl Rehearsal {
    /// Rehearses a lab's definition and keeps it.
    pub(crate) fn of(lab: &Lab) -> Self {
        let guests: &[&str] = if lab.engine == Engine::Netns { &[] } else { &["--guests"] };
        let args = [&["rehearse", "net.toml", "--keep", "--json"], guests].concat();
        let output = vmnet(lab.folder(), &args);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}{errors}"));
        assert!(report["machines"].is_object(), "{report:#}{errors}");
        let code = output.status.code().unwrap_or(-1);
        Self { name: lab.name.clone(), engine: lab.engine, report, code, folder: lab.folder().to_owned() }
    }

    /// The process of a machine.
    pub(crate) fn pid(&self, machine: &str) -> u64 {
        self.report["machines"][machine].as_u64().unwrap_or_else(|| panic!("no machine {machine} in {}", self.report))
    }

    /// Runs a shell command on a machine, and gives its output and exit code.
    pub(crate) fn on(&self, machine: &str, command: &str) -> (String, i32) {
        self.entered(machine, &["sh", "-c", command])
    }

    /// Runs vmnet on a machine.
    pub(crate) fn vmnet_on(&self, machine: &str, args: &[&str]) -> (String, i32) {
        self.entered(machine, &[&[env!("CARGO_BIN_EXE_vmnet")], args].concat())
    }

    fn entered(&self, machine: &str, command: &[&str]) -> (String, i32) {
        let output = vmnet(&self.folder, &[&["rehearse", &self.name, "--enter", machine, "--"], command].concat());
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (text.into_owned(), output.status.code().unwrap_or(-1))
    }

    /// As [`Rehearsal::on`], for a command that must succeed.
    #[track_caller]
    pub(crate) fn ok_on(&self, machine: &str, command: &str) -> String {
        let (text, code) = self.on(machine, command);
        assert_eq!(code, 0, "{command} on {machine}: {text}");
        text
    }

    /// The host of a guest, and its first address.
    pub(crate) fn guest(&self, vm: &str) -> (String, String) {
        let hosts = self.report["hosts"].as_object().expect("hosts");
        for host in hosts.keys() {
            let (text, code) = self.vmnet_on(host, &["--json", "ps", &self.name]);
            assert_eq!(code, 0, "{text}");
            let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
            let found = report["vms"].as_array().and_then(|vms| vms.iter().find(|row| row["name"] == vm));
            if let Some(found) = found {
                let address = found["nics"][0]["addresses"][0].as_str().expect("an address");
                return (host.clone(), address.split('/').next().expect("an address").to_owned());
            }
        }
        panic!("no host has {vm}")
    }

    /// Runs a shell command in a guest.
    pub(crate) fn in_guest(&self, vm: &str, command: &str) -> (String, i32) {
        let (host, _) = self.guest(vm);
        match self.engine {
            Engine::Netns => self.vmnet_on(&host, &["exec", vm, "--", "sh", "-c", command]),
            Engine::Qemu(_) | Engine::Libvirt(_) => {
                let run = format!("/proc/{}/root/run/vmnet/{}", self.pid(&host), self.name);
                let console = format!("{run}/guests/{vm}/console.sock");
                super::world::on_console(&console, command).unwrap_or_else(|error| panic!("console of {vm}: {error}"))
            }
        }
    }

    /// Whether a guest gets an answer to one of three echo requests.
    pub(crate) fn pings(&self, vm: &str, address: &str) -> bool {
        self.in_guest(vm, &format!("ping -c 3 -i 0.3 -W 1 {address}")).1 == 0
    }

    /// Captures on a link of a machine's own network.
    pub(crate) fn capture(&self, machine: &str, link: &str) -> Capture {
        let pid = self.pid(machine);
        Capture::start_by(|command| format!("nsenter -t {pid} -n {command}"), machine, link)
    }

    /// Makes a guest that is a namespace send frames on its first nic.
    pub(crate) fn send(&self, vm: &str, frames: &[Vec<u8>]) {
        let (host, _) = self.guest(vm);
        match self.engine {
            Engine::Netns => {
                let path = format!("/proc/{}/root/run/netns/vmnet-{}.{vm}", self.pid(&host), self.name);
                send_at(Some(path), "eth0", frames);
            }
            Engine::Qemu(_) | Engine::Libvirt(_) => {
                let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                let commands: Vec<String> =
                    frames.iter().map(|frame| format!("sudo rawframe eth0 {}", hex(frame))).collect();
                let (text, code) = self.in_guest(vm, &commands.join(" && "));
                assert_eq!(code, 0, "{vm}: {text}");
            }
        }
    }

    /// Ends it; nothing of it runs any more.
    pub(crate) fn end(self) {
        let output = vmnet(&self.folder, &["rehearse", "--end", &self.name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for machine in self.report["machines"].as_object().expect("machines").values() {
            let process = PathBuf::from(format!("/proc/{machine}/ns/net"));
            assert!(!process.exists(), "{} is still there", process.display());
        }
    }
}
