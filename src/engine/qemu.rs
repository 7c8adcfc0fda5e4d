//! A guest as a QEMU process without a daemon.
//!
//! vmnet opens what needs a privilege (TAPs, vhost-net, image files) and hands over descriptors; QEMU itself runs
//! as an unprivileged user from its first instruction. When it ends, however it does, its TAPs are gone with it.

use std::fs::File;
use std::io::PipeWriter;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::folder::{Folder, Owner, service_user};
use super::keeper::Keeper;
use super::process::{self, Process};
use super::qmp::{Qmp, QmpError};
use super::record::{self, Running};
use super::scope::own_scope;
use super::{EngineError, PRESS_AGAIN, Stopped, disk, identity, kept, port, spawn};
use crate::kernel::{Kernel, child, tap};
use crate::names::{IfName, VmName};
use crate::render::qemu::QMP_SOCKET;
use crate::state::{Link, QemuGuest};

/// What QEMU says, in a guest's run folder.
const LOG: &str = "qemu.log";

/// The unit that shuts guests down before systemd ends their scopes.
const SHUTDOWN_UNIT: &str = "vmnet-guests.service";

/// How long QEMU may take until its control socket is there.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A guest whose folders, disk and seed are there, and whose QEMU is not started yet.
#[derive(Debug)]
#[must_use = "a guest runs only when it is launched"]
pub struct Prepared {
    launched: Launched,
    files: Vec<File>,
    disks: Vec<File>,
    identity: (Owner, Option<u32>),
}

/// A QEMU process that has just been started and may still fail.
#[derive(Debug)]
#[must_use = "a guest runs only when it is ready"]
pub struct Launched {
    vm: VmName,
    guest: QemuGuest,
    run: Folder,
    state: Folder,
    /// Files in its folder that this start made.
    made: Vec<String>,
    /// What keeps its console's log, once it is started.
    keeper: Option<Keeper>,
}

/// Prepares a guest and starts its QEMU, see [`prepare`] and [`Prepared::launch`].
///
/// # Errors
/// Also when the guest runs already.
pub async fn launch(kernel: &mut Kernel, vm: &VmName, guest: &QemuGuest) -> Result<Launched, EngineError> {
    prepare(vm, guest).await?.launch(kernel).await
}

/// Makes folders, disk and seed. On an error nothing of it stays but the guest's folder.
///
/// # Errors
/// Also when the guest runs already.
pub async fn prepare(vm: &VmName, guest: &QemuGuest) -> Result<Prepared, EngineError> {
    if let Some(record) = record::running_in(&guest.run_dir)? {
        return Err(EngineError::Running { vm: vm.clone(), pid: record.pid });
    }
    let (owner, kvm_group) = service_user(&guest.user)?;
    if guest.kvm {
        check_kvm(vm, guest, owner, kvm_group)?;
    }
    let files = open_files(vm, guest, owner, kvm_group)?;
    let may_write = |meta: &std::fs::Metadata| may(0o6, (meta.uid(), meta.gid(), meta.mode()), owner, kvm_group);
    let disks = guest.more.files.iter().map(|file| kept::open(vm, file, &guest.user, may_write));
    let disks = disks.collect::<Result<Vec<File>, _>>()?;
    let state = Folder::make(&guest.state_dir, owner)?;
    // Sockets of a QEMU that was killed: a new one would not bind to them. The folder was that QEMU's own.
    if let Some(old) = Folder::open(&guest.run_dir)? {
        old.remove_all()?;
    }
    let run = Folder::make(&guest.run_dir, owner)?;
    let (name, guest) = (vm.clone(), guest.clone());
    let mut launched = Launched { vm: name, guest, run, state, made: Vec::new(), keeper: None };
    match launched.disks().await {
        Ok(()) => Ok(Prepared { launched, files, disks, identity: (owner, kvm_group) }),
        Err(error) => {
            launched.undo().await?;
            Err(error)
        }
    }
}

impl Prepared {
    /// Makes the TAPs and starts QEMU. On an error nothing of it stays but the guest's folder.
    ///
    /// # Errors
    /// Where the kernel or QEMU does not do it.
    pub async fn launch(self, kernel: &mut Kernel) -> Result<Launched, EngineError> {
        let Self { mut launched, files, disks, identity } = self;
        match launched.begin(kernel, (files, disks), identity).await {
            Ok(()) => Ok(launched),
            Err(error) => {
                launched.undo().await?;
                Err(error)
            }
        }
    }
}

impl Launched {
    async fn disks(&mut self) -> Result<(), EngineError> {
        let Self { vm, guest, state, made, .. } = self;
        let files = disk::GuestFiles { disk: guest.disk.as_ref(), kept: &guest.more.kept, seed: &guest.seed };
        disk::make(vm, state, files, made).await
    }

    /// Makes TAPs and starts QEMU, recorded before it runs.
    async fn begin(
        &mut self,
        kernel: &mut Kernel,
        (files, disks): (Vec<File>, Vec<File>),
        identity: (Owner, Option<u32>),
    ) -> Result<(), EngineError> {
        let Self { vm, guest, run, state, made: _, keeper } = self;
        // The descriptors live on in QEMU alone.
        let mut handed = Handed { taps: Vec::new(), vhosts: Vec::new(), files, disks, log: None };
        for (number, (name, link)) in guest.taps.iter().enumerate() {
            handed.taps.push(open_tap(kernel, name, link).await?);
            let wanted = format!("{{vhost:{number}}}");
            let vhost = guest.vhost && guest.args.iter().any(|arg| arg.contains(&wanted));
            handed.vhosts.push(if vhost { Some(open_vhost()?) } else { None });
        }
        let (started, log) = Keeper::start(state)?;
        handed.log = Some(log);
        let kept = *keeper.insert(started);
        spawn(vm, guest, &handed, run, identity, kept)
    }

    /// Waits until QEMU answers on its control socket. On an error it is gone, and its record with it.
    pub async fn ready(self) -> Result<(), EngineError> {
        match self.answers().await {
            Ok(()) => {
                if let Some(record) = record::running_in(&self.guest.run_dir)? {
                    scope(&record).await;
                }
                Ok(())
            }
            Err(error) => {
                self.undo().await?;
                Err(error)
            }
        }
    }

    async fn answers(&self) -> Result<(), EngineError> {
        let vm = &self.vm;
        let deadline = tokio::time::Instant::now() + READY_LIMIT;
        let mut pause = Duration::from_millis(2);
        loop {
            if self.run.has(QMP_SOCKET) {
                match Qmp::connect(&self.run).await {
                    Ok(_) => return Ok(()),
                    // It is between bind and listen, or about to end.
                    Err(QmpError::Socket(_) | QmpError::Closed) => {}
                    Err(source) => return Err(EngineError::Qmp { vm: vm.clone(), source }),
                }
            }
            let ended = match record::running_in(&self.guest.run_dir)?.and_then(|record| record.process()) {
                Some(process) => ended(&process, pause).await,
                None => true,
            };
            if ended {
                return Err(EngineError::Died { vm: vm.clone(), log: last_words(&self.run) });
            }
            if tokio::time::Instant::now() >= deadline {
                let source = QmpError::Late("the connection");
                return Err(EngineError::Qmp { vm: vm.clone(), source });
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    async fn undo(self) -> Result<(), EngineError> {
        let Self { vm, guest, run, state, made, keeper } = self;
        if let Some(process) = record::running_in(&guest.run_dir)?.and_then(|record| record.process()) {
            end(&vm, &process).await?;
        }
        Keeper::ended(keeper).await;
        record::remove(&guest.run_dir)?;
        run.remove_all()?;
        made.iter().try_for_each(|name| state.remove(name))
    }
}

/// The last lines of QEMU's log, escaped, in one line.
pub(super) fn last_words(run: &Folder) -> String {
    let log = run.read(LOG).ok().flatten().unwrap_or_default();
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    last.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Presses the power button, waits for `grace`, then pulls the cord: `quit`, and if that does nothing, signals.
pub async fn stop(vm: &VmName, guest: &QemuGuest, grace: Duration) -> Result<Stopped, EngineError> {
    let record = record::running_in(&guest.run_dir)?;
    let stopped = match record.as_ref().and_then(Running::process) {
        Some(process) => shut_down(vm, guest, &process, grace).await?,
        None => Stopped::WasOff,
    };
    Keeper::ended(record.and_then(|record| record.keeper)).await;
    record::remove(&guest.run_dir)?;
    if let Some(run) = Folder::open(&guest.run_dir)? {
        run.remove_all()?;
    }
    Ok(stopped)
}

async fn shut_down(vm: &VmName, guest: &QemuGuest, process: &Process, grace: Duration) -> Result<Stopped, EngineError> {
    if let Some(run) = Folder::open(&guest.run_dir)?
        && let Ok(mut qmp) = Qmp::connect(&run).await
    {
        if press(&mut qmp, process, grace).await {
            return Ok(Stopped::PoweredOff);
        }
        // It closes the connection rather than answer, or it hangs: either way the wait below tells.
        let _ = qmp.execute("quit").await;
        if ended(process, Duration::from_secs(5)).await {
            return Ok(Stopped::Quit);
        }
    }
    end(vm, process).await?;
    Ok(Stopped::Killed)
}

/// Presses the power button until the guest has ended or `grace` is over; says whether it has ended. A guest that is
/// still booting does not notice the button, so it is pressed again.
async fn press(qmp: &mut Qmp, process: &Process, grace: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + grace;
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() || qmp.execute("system_powerdown").await.is_err() {
            // When it refuses because it is about to end, the wait shows it.
            return ended(process, left.min(PRESS_AGAIN)).await;
        }
        if ended(process, left.min(PRESS_AGAIN)).await {
            return true;
        }
    }
}

/// Ends a process by signals.
async fn end(vm: &VmName, process: &Process) -> Result<(), EngineError> {
    for (signal, limit) in [(Signal::SIGTERM, 2), (Signal::SIGKILL, 10)] {
        // What can't be signalled shows in the wait.
        let _ = process.signal(signal);
        if ended(process, Duration::from_secs(limit)).await {
            return Ok(());
        }
    }
    Err(EngineError::Unkillable { vm: vm.clone(), pid: process.pid() })
}

async fn ended(process: &Process, limit: Duration) -> bool {
    process.ended_within(limit).await.unwrap_or(false)
}

/// What is opened for QEMU.
struct Handed {
    taps: Vec<OwnedFd>,
    /// In the order of the TAPs, and `None` where one goes without.
    vhosts: Vec<Option<OwnedFd>>,
    files: Vec<File>,
    /// The user's files that are further disks.
    disks: Vec<File>,
    /// Where its console goes beside the socket.
    log: Option<PipeWriter>,
}

impl Handed {
    fn descriptors(&self) -> Vec<RawFd> {
        let sockets = self.taps.iter().chain(self.vhosts.iter().flatten()).map(AsRawFd::as_raw_fd);
        let files = self.files.iter().chain(&self.disks).map(AsRawFd::as_raw_fd);
        sockets.chain(files).chain(self.log.iter().map(AsRawFd::as_raw_fd)).collect()
    }

    /// The arguments with numbers of descriptors in place of what stands for them. Only in the options that may
    /// have them: a kernel's command line is the user's own text.
    fn args(&self, args: &[String]) -> Vec<String> {
        let mut option = "";
        let mut filled = Vec::with_capacity(args.len());
        for arg in args {
            let takes = matches!(option, "-netdev" | "-add-fd" | "-kernel" | "-initrd");
            filled.push(if takes { self.fill(arg) } else { arg.clone() });
            option = arg;
        }
        filled
    }

    fn fill(&self, arg: &str) -> String {
        let mut text = arg.to_owned();
        let taps = self.taps.iter().map(|fd| Some(fd.as_raw_fd())).collect();
        let vhosts = self.vhosts.iter().map(|fd| fd.as_ref().map(AsRawFd::as_raw_fd)).collect();
        let numbers = |files: &[File]| files.iter().map(|fd| Some(fd.as_raw_fd())).collect();
        let (files, disks) = (numbers(&self.files), numbers(&self.disks));
        let log = vec![self.log.as_ref().map(AsRawFd::as_raw_fd)];
        let kinds: [(&str, Vec<Option<RawFd>>); 5] =
            [("tap", taps), ("vhost", vhosts), ("file", files), ("disk", disks), ("log", log)];
        for (kind, numbers) in kinds {
            for (place, number) in numbers.iter().enumerate() {
                if let Some(number) = number {
                    text = text.replace(&format!("{{{kind}:{place}}}"), &number.to_string());
                }
            }
        }
        text
    }
}

fn open_files(vm: &VmName, guest: &QemuGuest, owner: Owner, kvm_group: Option<u32>) -> Result<Vec<File>, EngineError> {
    let mut files = Vec::new();
    for (number, path) in guest.files.iter().enumerate() {
        let fail = |source| EngineError::Image { vm: vm.clone(), path: path.clone(), source };
        let file = disk::open_image(path).map_err(fail)?;
        // What is named by /proc/self/fd is opened once more, by QEMU's user.
        let reopened = guest.args.iter().any(|arg| *arg == format!("/proc/self/fd/{{file:{number}}}"));
        let meta = file.metadata().map_err(fail)?;
        if reopened && !may(0o4, (meta.uid(), meta.gid(), meta.mode()), owner, kvm_group) {
            return Err(EngineError::ImageAccess { vm: vm.clone(), path: path.clone(), user: guest.user.clone() });
        }
        files.push(file);
    }
    Ok(files)
}

fn check_kvm(vm: &VmName, guest: &QemuGuest, owner: Owner, kvm_group: Option<u32>) -> Result<(), EngineError> {
    let meta = Path::new("/dev/kvm").metadata().ok();
    let may = meta.is_some_and(|meta| may(0o6, (meta.uid(), meta.gid(), meta.mode()), owner, kvm_group));
    if may { Ok(()) } else { Err(EngineError::KvmAccess { vm: vm.clone(), user: guest.user.clone() }) }
}

/// Whether mode bits of a file with this owner, group and mode let a user in.
fn may(wanted: u32, (uid, gid, mode): (u32, u32, u32), owner: Owner, group: Option<u32>) -> bool {
    let shift = if uid == owner.uid {
        6
    } else if gid == owner.gid || Some(gid) == group {
        3
    } else {
        0
    };
    mode >> shift & wanted == wanted
}

/// A TAP, marked before it comes up: it is not persistent, so whatever interrupts this, it is gone.
async fn open_tap(kernel: &mut Kernel, name: &IfName, link: &Link) -> Result<OwnedFd, EngineError> {
    let tap = tap::open(name)?;
    port::settle(kernel, name, link).await?;
    Ok(tap)
}

fn open_vhost() -> Result<OwnedFd, EngineError> {
    let path = Path::new("/dev/vhost-net");
    let open = File::options().read(true).write(true).open(path);
    open.map(Into::into).map_err(|source| EngineError::File { action: "open", path: path.to_owned(), source })
}

/// Starts QEMU as its user.
fn spawn(
    vm: &VmName,
    guest: &QemuGuest,
    handed: &Handed,
    run: &Folder,
    (owner, kvm_group): (Owner, Option<u32>),
    keeper: Keeper,
) -> Result<(), EngineError> {
    let log = run.create(LOG)?;
    let fail = |source| EngineError::Spawn { program: guest.program.clone(), source };
    let mut command = child::bare(&guest.program);
    command
        .env_clear()
        .args(handed.args(&guest.args))
        .args(&guest.more.args)
        .stdout(log.try_clone().map_err(fail)?)
        .stderr(log);
    identity::drop_in_child(&mut command, owner, kvm_group, run.as_fd(), &handed.descriptors());
    let write = |pid| {
        let started = process::start_time(pid).unwrap_or_default();
        record::write(&Running { vm: vm.clone(), pid, started, guest: guest.clone(), keeper: Some(keeper) })
    };
    spawn::recorded(command, write).map_err(fail)?
}

/// A scope of its own for QEMU. Lab and guest stand in its folder's path, `<lab>/guests/<vm>`.
async fn scope(record: &Running) {
    let lab = record.guest.run_dir.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default();
    let name = format!("vmnet-{}.{}.scope", lab.to_string_lossy(), record.vm);
    // One that has ended would be an error.
    let keeper = record.keeper.and_then(|keeper| keeper.process()).map(|process| process.pid());
    let pids: Vec<i32> = std::iter::once(record.pid).chain(keeper).collect();
    if !own_scope(&name, &pids, Some(SHUTDOWN_UNIT)).await {
        tracing::warn!(guest = %record.vm, "not in a systemd scope of its own: it may end with this login");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_stand_only_where_they_belong() {
        let file = || File::open("/dev/null").unwrap();
        let handed = Handed {
            taps: vec![file().into()],
            vhosts: vec![None, Some(file().into())],
            files: vec![file()],
            log: None,
            disks: vec![file()],
        };
        let words = ["-netdev", "tap,fd={tap:0},vhostfd={vhost:1}", "-kernel", "/proc/self/fd/{file:0}", "-append"];
        let args: Vec<String> = words.iter().chain(&["{tap:0} {file:0}"]).map(|word| (*word).to_owned()).collect();
        let filled = handed.args(&args);
        let (tap, vhost) = (handed.taps[0].as_raw_fd(), handed.vhosts[1].as_ref().unwrap().as_raw_fd());
        assert_eq!(filled[1], format!("tap,fd={tap},vhostfd={vhost}"));
        assert_eq!(filled[3], format!("/proc/self/fd/{}", handed.files[0].as_raw_fd()));
        assert_eq!(filled[5], "{tap:0} {file:0}");
    }

    #[test]
    fn mode_bits_count_for_the_class_that_the_user_is_in() {
        let owner = Owner { uid: 990, gid: 990 };
        assert!(may(0o4, (0, 0, 0o644), owner, None));
        assert!(!may(0o4, (0, 0, 0o640), owner, None));
        assert!(may(0o6, (0, 104, 0o660), owner, Some(104)));
        assert!(!may(0o6, (0, 104, 0o606), owner, Some(104)));
        assert!(may(0o4, (990, 0, 0o400), owner, None));
    }
}
