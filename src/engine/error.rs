//! [`EngineError`]: what went wrong with a guest.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::libvirt::DoorError;
use super::qmp::QmpError;
use super::wait::Stage;
use crate::kernel::KernelError;
use crate::names::{LabName, VmName};
use crate::render::libvirt::LIBVIRT_USER;

/// A guest that could not be started, stopped or reached.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The guest's disk was made of another image, or the image was changed since.
    #[error("the disk of guest {vm} was made of {made_of}, which is not what {wanted} is now")]
    OtherBase {
        /// The guest.
        vm: VmName,
        /// The image that it was made of.
        made_of: String,
        /// The image that the definition names.
        wanted: String,
    },
    /// It runs already.
    #[error("guest {vm} runs already, as process {pid}")]
    Running {
        /// The guest.
        vm: VmName,
        /// Its QEMU.
        pid: i32,
    },
    /// It does not run.
    #[error("guest {vm} does not run")]
    NotRunning {
        /// Its lab.
        lab: LabName,
        /// The guest.
        vm: VmName,
    },
    /// The user that QEMU runs as is missing.
    #[error("there is no user {user}, which guests run as")]
    NoUser {
        /// Its name.
        user: String,
    },
    /// `/dev/kvm` does not open for the user that QEMU runs as.
    #[error("the user {user} may not open /dev/kvm, which guest {vm} needs")]
    KvmAccess {
        /// The guest.
        vm: VmName,
        /// QEMU's user.
        user: String,
    },
    /// A file of the guest's image can't be opened.
    #[error("cannot open {}, which guest {vm} boots from", path.display())]
    Image {
        /// The guest.
        vm: VmName,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that QEMU opens by itself is not readable for its user.
    #[error("the user {user} may not read {}, which guest {vm} boots from", path.display())]
    ImageAccess {
        /// The guest.
        vm: VmName,
        /// The file.
        path: PathBuf,
        /// QEMU's user.
        user: String,
    },
    /// A file that is a further disk can't be opened.
    #[error("cannot open {}, which is a disk of guest {vm}", path.display())]
    Disk {
        /// The guest.
        vm: VmName,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is a further disk is not the guest's to write to.
    #[error("the user {user} may not write to {}, which is a disk of guest {vm}", path.display())]
    DiskAccess {
        /// The guest.
        vm: VmName,
        /// The file.
        path: PathBuf,
        /// QEMU's user.
        user: String,
    },
    /// A file that is called a further disk is none.
    #[error("{} can't be a disk of guest {vm}: {problem}", path.display())]
    NoDisk {
        /// The guest.
        vm: VmName,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: BaseProblem,
    },
    /// A base image that is not what it should be.
    #[error("{} can't be the base of a disk: {problem}", path.display())]
    Base {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: BaseProblem,
    },
    /// Something stands where a folder of ours should be.
    #[error("{} is not a folder that vmnet can trust: {problem}", path.display())]
    Folder {
        /// The place.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file of the guest's can't be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record of a running guest that nobody can read.
    #[error("{} is not a record of a guest as this version writes it", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: super::record::Unreadable,
    },
    /// A helper program failed.
    #[error("{program} failed for guest {vm}: {output}")]
    Helper {
        /// The guest.
        vm: VmName,
        /// The program.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// A program can't be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// QEMU ended when it should have gone on.
    #[error("QEMU of guest {vm} has ended{}", if log.is_empty() { String::new() } else { format!(": {log}") })]
    Died {
        /// The guest.
        vm: VmName,
        /// The last lines of what it said.
        log: String,
    },
    /// QEMU does not answer on its control socket.
    #[error("QEMU of guest {vm} does not answer")]
    Qmp {
        /// The guest.
        vm: VmName,
        /// Why.
        #[source]
        source: QmpError,
    },
    /// A process of the guest's does not end.
    #[error("process {pid} of guest {vm} does not end")]
    Unkillable {
        /// The guest.
        vm: VmName,
        /// The process.
        pid: i32,
    },
    /// libvirt did not do something with the guest's domain.
    #[error("libvirt did not {action} guest {vm}")]
    Libvirt {
        /// What it was to do.
        action: &'static str,
        /// The guest.
        vm: VmName,
        /// Why.
        #[source]
        source: DoorError,
    },
    /// The kernel refused something about a TAP or a namespace.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The guest did not get as far as it should within the time.
    #[error("guest {vm} did not answer within {} s: {}", limit.as_secs(), stage.missing())]
    Wait {
        /// Its lab.
        lab: LabName,
        /// The guest.
        vm: VmName,
        /// What was not reached.
        stage: Stage,
        /// The time given.
        limit: Duration,
    },
    /// The console is in use.
    #[error("another vmnet console is open on guest {vm}")]
    ConsoleBusy {
        /// The guest.
        vm: VmName,
    },
    /// The terminal or the socket broke.
    #[error("the console of guest {vm} broke off")]
    Console {
        /// The guest.
        vm: VmName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No way leads to the guest by ssh.
    #[error("guest {vm} has no address on a network that the router serves")]
    NoWay {
        /// Its lab.
        lab: LabName,
        /// The guest.
        vm: VmName,
    },
}

/// What is wrong with a base image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseProblem {
    /// The definition says qcow2.
    #[error("it is no qcow2 image")]
    NotQcow2,
    /// The definition says raw.
    #[error("it is a qcow2 image, not a raw one")]
    IsQcow2,
    /// The definition says raw, and it has a part of a sector.
    #[error("it has {bytes} bytes, and a raw disk has whole sectors of 512")]
    Sectors {
        /// Bytes of the file.
        bytes: u64,
    },
    /// It leans on another file, which its header names.
    #[error("it has a backing file of its own")]
    Backing,
    /// Its data are in another file, which its header names.
    #[error("it keeps its data in another file")]
    DataFile,
    /// The disk is to be smaller than the image.
    #[error("it has {base} bytes and the disk is to have {wanted}")]
    Larger {
        /// Bytes of the base.
        base: u64,
        /// Bytes asked for.
        wanted: u64,
    },
}

impl EngineError {
    /// A guest that does not run.
    pub(crate) fn not_running(lab: &LabName, vm: &VmName) -> Self {
        Self::NotRunning { lab: lab.clone(), vm: vm.clone() }
    }

    /// What to do about it, as a sentence without a full stop, where that is known.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            EngineError::OtherBase { .. } => {
                "give it a fresh disk (vmnet reset), or put the old image back, unchanged".into()
            }
            EngineError::Running { .. } => "stop it first (vmnet stop)".into(),
            EngineError::NotRunning { lab, vm } => format!("start it: vmnet boot {lab}/{vm}"),
            EngineError::NoUser { user } if user == LIBVIRT_USER => {
                "install libvirt (Debian, Ubuntu: libvirt-daemon-system), or use engine = \"qemu\"".into()
            }
            EngineError::NoUser { user } => {
                format!("run: useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin --groups kvm {user}")
            }
            EngineError::KvmAccess { .. } => {
                "run: chgrp kvm /dev/kvm && chmod 660 /dev/kvm, or write accel = \"tcg\" for slow emulation".into()
            }
            EngineError::Image { .. } => {
                "correct the path in [image.*] of the definition, or put the file there".into()
            }
            EngineError::ImageAccess { path, .. } => format!("run: chmod a+r {}", path.display()),
            EngineError::Base { problem, .. } => problem.help().into(),
            EngineError::NoDisk { problem, .. } => problem.help().into(),
            EngineError::Disk { vm, .. } => format!("correct disks of vm {vm}, or put the file there"),
            EngineError::DiskAccess { path, user, .. } => {
                format!("run: chown {user} {}, or write readonly = true", path.display())
            }
            EngineError::Folder { path, .. } => format!("look at {} and move it away", path.display()),
            EngineError::Record { path, .. } => format!("stop the guest's QEMU by hand and remove {}", path.display()),
            EngineError::Libvirt { source, .. } => source.help()?.into(),
            EngineError::Kernel(source) => source.help()?.into(),
            EngineError::Wait { lab, vm, .. } => format!("vmnet logs {lab}/{vm} shows its console"),
            EngineError::ConsoleBusy { .. } => "leave it there with Ctrl-]".into(),
            EngineError::NoWay { lab, vm } => format!("use its console: vmnet console {lab}/{vm}"),
            EngineError::File { .. }
            | EngineError::Helper { .. }
            | EngineError::Spawn { .. }
            | EngineError::Died { .. }
            | EngineError::Qmp { .. }
            | EngineError::Unkillable { .. }
            | EngineError::Console { .. } => return None,
        })
    }

    /// Whether the disk has no room for a file.
    pub(super) fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, EngineError::File { source, .. } if full.contains(&source.kind()))
    }

    /// Whether the host lacks something, as opposed to something going wrong (exit code 4).
    pub fn is_lack(&self) -> bool {
        match self {
            EngineError::NoUser { .. } | EngineError::KvmAccess { .. } => true,
            EngineError::Libvirt { source, .. } => source.is_lack(),
            _ => false,
        }
    }
}

impl BaseProblem {
    fn help(&self) -> &'static str {
        match self {
            BaseProblem::NotQcow2 => "write format = \"raw\" in [image.*] if it is one",
            BaseProblem::IsQcow2 => "write format = \"qcow2\" in [image.*]",
            BaseProblem::Sectors { .. } => "name the image of a disk; one that is cut short has to be fetched again",
            BaseProblem::Backing | BaseProblem::DataFile => "make one file of it: qemu-img convert -O qcow2 OLD NEW",
            BaseProblem::Larger { .. } => "write a larger disk = in the definition, or leave it out",
        }
    }
}
