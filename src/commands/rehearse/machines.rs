//! The machines of a rehearsal: started, looked up, entered.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use crate::cli::{HOLD, INSIDE};
use crate::commands::failure::Failure;
use crate::commands::source::Source;
use crate::kernel::child;
use crate::kernel::hold::{self, Holder};
use crate::kernel::standin::{self, Networks};
use crate::names::{HostName, LabName};
use crate::remote::Factory;
use crate::stage::Stage;

/// The machine that the world beyond the lab is.
pub(super) const OUTSIDE: &str = "outside";

/// The machine that the switches are in.
pub(super) const SWITCHES: &str = "switches";

/// All machines of a rehearsal. They are gone when this is dropped.
pub(super) struct Machines {
    world: Vec<Holder>,
    pub(super) hosts: BTreeMap<HostName, Holder>,
}

impl Machines {
    /// Starts them, and makes what stands between them.
    pub(super) fn start(stage: &Stage, source: &Source) -> Result<Self, Failure> {
        let folders = below_run(source);
        let start = |name: &str| {
            let words: [&OsStr; 3] = [HOLD.as_ref(), stage.lab.as_str().as_ref(), name.as_ref()];
            let words: Vec<&OsStr> = words.into_iter().chain(folders.iter().map(|folder| folder.as_os_str())).collect();
            Holder::start(&words).map_err(|error| no_machine(name, error))
        };
        let world = vec![start(SWITCHES)?, start(OUTSIDE)?];
        let hosts = stage.hosts.keys().map(|host| Ok((host.clone(), start(host.as_str())?)));
        let hosts = hosts.collect::<Result<BTreeMap<_, _>, Failure>>()?;
        let machines = Self { world, hosts };
        let networks = machines.networks().map_err(|error| Failure::failed("a machine has ended", error))?;
        standin::build(stage, &networks)
            .map_err(|error| Failure::failed("the stand-ins for devices and networks can't be made", error))?;
        Ok(machines)
    }

    fn networks(&self) -> std::io::Result<Networks> {
        let hosts = self.hosts.iter().map(|(name, holder)| Ok((name.clone(), holder.network()?)));
        let hosts = hosts.collect::<std::io::Result<_>>()?;
        Ok(Networks { switches: self.world[0].network()?, outside: self.world[1].network()?, hosts })
    }

    /// The way to each host.
    pub(super) fn ways(&self) -> BTreeMap<HostName, Factory> {
        let way = |(name, holder): (&HostName, &Holder)| {
            let pid = holder.pid();
            let command: Factory = Arc::new(move |args: &[&str]| {
                let mut command = child::bare(Path::new("/proc/self/exe"));
                command.arg0("vmnet").arg(INSIDE).arg(pid.to_string()).args(args);
                command
            });
            (name.clone(), command)
        };
        self.hosts.iter().map(way).collect()
    }

    /// The process that keeps each.
    pub(super) fn processes(&self) -> BTreeMap<String, u32> {
        let [switches, outside] = [0, 1].map(|number: usize| self.world[number].pid());
        let world = [(SWITCHES.to_owned(), switches), (OUTSIDE.to_owned(), outside)];
        world.into_iter().chain(self.hosts.iter().map(|(name, holder)| (name.to_string(), holder.pid()))).collect()
    }

    /// Leaves them there.
    pub(super) fn keep(self) -> Result<(), Failure> {
        let fail = |error| Failure::failed("a machine ended by itself", error);
        self.world.into_iter().chain(self.hosts.into_values()).try_for_each(|holder| holder.keep().map_err(fail))
    }
}

/// Folders below `/run`, of which machines have their own, that hold files of the definition.
fn below_run(source: &Source) -> BTreeSet<PathBuf> {
    let images = source.whole.vms().values().filter_map(|vm| vm.image().as_ref());
    let disks = source.whole.vms().values().flat_map(|vm| vm.disk_files().map(|(file, _)| file));
    let files = images.flat_map(|image| image.files()).chain(disks);
    let files = files.map(|file| source.files().find(file)).chain([source.path.clone()]);
    let folders = files.filter_map(|file| std::fs::canonicalize(file.parent()?).ok());
    folders.filter(|folder| folder.starts_with("/run") && folder != Path::new("/run")).collect()
}

/// Why there can be no machines, as far as the kernel's settings tell.
pub(super) fn no_machine(what: &str, error: std::io::Error) -> Failure {
    let title = format!("this kernel allows no machine of a rehearsal ({what})");
    let setting = |key: &str, forbids: &str| {
        let value = std::fs::read_to_string(Path::new("/proc/sys").join(key.replacen('.', "/", 1)));
        value.is_ok_and(|value| value.trim() == forbids)
    };
    let forbidding = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "100"),
        ("user.max_net_namespaces", "0", "100"),
    ];
    let of_root = nix::unistd::geteuid().is_root();
    let found = forbidding.into_iter().find(|(key, value, _)| {
        let for_others = key.starts_with("kernel");
        (!of_root || !for_others) && setting(key, value)
    });
    let title = match found {
        Some((key, forbids, allows)) => {
            let root = if key.starts_with("kernel") { "run it as root, or " } else { "" };
            format!("{title}: {key} is {forbids}; {root}allow it: sysctl {key}={allows}")
        }
        None if of_root => title,
        None => format!("{title}; run it as root"),
    };
    Failure::Lacks { message: title, source: Some(error.into()) }
}

/// The machines of this user's rehearsals that are there: lab, machine and process.
pub(super) fn kept() -> Result<Vec<(LabName, String, u32)>, Failure> {
    let found = hold::find(&[HOLD]).map_err(|error| Failure::failed("the processes can't be listed", error))?;
    let machine = |(pid, words): (u32, Vec<String>)| Some((words.first()?.parse().ok()?, words.get(1)?.clone(), pid));
    Ok(found.into_iter().filter_map(machine).collect())
}

/// A holder's own work.
pub(in crate::commands) fn hold(machine: &str, folders: &[PathBuf]) -> Result<ExitCode, Failure> {
    let ready = hold::settle(machine, folders);
    hold::stay(ready).map_err(|error| Failure::failed("the machine can't be kept", error))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs vmnet in a machine.
pub(in crate::commands) fn inside(pid: u32, args: &[String]) -> Result<ExitCode, Failure> {
    // Its path means nothing there; the descriptor does.
    let own = File::open("/proc/self/exe").map_err(|error| Failure::failed("vmnet's own file can't be read", error))?;
    hold::enter(pid).map_err(|error| Failure::failed("the machine can't be entered", error))?;
    let mut command = child::bare(Path::new(&format!("/proc/self/fd/{}", own.as_raw_fd())));
    command.arg0("vmnet").args(args).env("VMNET_STATE_DIR", hold::STATE).stdin(Stdio::inherit());
    finish(command, "vmnet")
}

/// Runs a command in a machine, or the caller's shell.
pub(super) fn enter(pid: u32, command: &[String]) -> Result<ExitCode, Failure> {
    let shell = || {
        let of_user = || Some(nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??.shell);
        let said = std::env::var_os("SHELL").map(PathBuf::from).filter(|shell| shell.is_absolute());
        said.or_else(of_user).map(|shell| shell.to_string_lossy().into_owned())
    };
    let (program, args) = match command.split_first() {
        Some((program, args)) => (program.clone(), args),
        None => (shell().ok_or_else(|| Failure::because("which shell is yours is not known; set SHELL"))?, &[][..]),
    };
    hold::enter(pid).map_err(|error| Failure::failed("the machine can't be entered", error))?;
    let mut started = child::callers(&program);
    started.args(args).env("VMNET_STATE_DIR", hold::STATE).env_remove("VMNET_RUN_DIR");
    finish(started, &program)
}

/// Waits for a command's end; its exit code as a shell would tell it.
fn finish(mut command: Command, program: &str) -> Result<ExitCode, Failure> {
    let status =
        hold::wait_for(&mut command).map_err(|error| Failure::failed(format!("{program} can't be started"), error))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
