//! A guest's disk, seed and host key in its folder.
//!
//! Helper programs run as the folder's owner, inside it: they could only harm what is the guest's anyway.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::error::BaseProblem;
use super::folder::{Folder, Owner};
use super::seed::{self, HostKey};
use super::{EngineError, content, identity, kept};
use crate::kernel::child;
use crate::names::{Algorithm, FileDigest, VmName};
use crate::render::qemu::{SEED_IMAGE, disk_name};
use crate::state::{Kept, Overlay};

/// The private host key in a guest's folder.
const HOST_KEY: &str = "host-key";
/// The public one.
const HOST_KEY_PUBLIC: &str = "host-key.pub";
/// What the guest's present disk was made of.
const BASE: &str = "base";
/// The number of the guest's present disk.
const INSTANCE: &str = "instance";

/// The number of the disk that the guest with this folder has, or gets at its next start: 1, and one more after
/// each reset.
pub fn instance(folder: &Path) -> Result<u32, EngineError> {
    let Some(folder) = Folder::open(folder)? else { return Ok(1) };
    let text = folder.read(INSTANCE)?;
    Ok(text.and_then(|text| text.trim().parse().ok()).unwrap_or(1))
}

/// What is in the base of the disk of the guest with this folder; `None` where that is not known.
pub fn base_of(folder: &Path) -> Result<Option<FileDigest>, EngineError> {
    let Some(folder) = Folder::open(folder)? else { return Ok(None) };
    Ok(MadeOf::read(&folder)?.map(|made_of| made_of.digest))
}

/// Gives the guest with this folder a fresh disk at its next start. It does not run.
pub fn reset(folder: &Path) -> Result<(), EngineError> {
    let number = instance(folder)?;
    let Some(folder) = Folder::open(folder)? else { return Ok(()) };
    // The number first: whatever interrupts this, the old disk is never started again under the new number.
    let count = || folder.replace(INSTANCE, format!("{}\n", number.saturating_add(1)).as_bytes());
    let counted = count();
    if counted.as_ref().is_err_and(|error| !error.is_full()) {
        return counted;
    }
    folder.remove(&disk_name(number))?;
    kept::reset(&folder)?;
    // On a full disk only now there is room for the number; a fresh disk under the old one does no harm either.
    counted.or_else(|_| count())
}

/// Whether a process works on a disk: QEMU locks bytes of an image that it has open (docs/system/qemu-block-drivers,
/// «image locking»), whoever started it.
pub fn is_in_use(disk: &Path) -> io::Result<bool> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = match File::options().read(true).custom_flags(flags).open(disk) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // The first lock that keeps others from writing, anywhere in it.
    let mut lock =
        libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&opened, nix::fcntl::FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Makes the overlay where it is missing; says whether it did. Never leaves half of one.
async fn make_overlay(vm: &VmName, folder: &Folder, disk: &Overlay) -> Result<bool, EngineError> {
    let name = disk.path.file_name().and_then(|name| name.to_str()).unwrap_or("disk.qcow2");
    if folder.has(name) {
        same_base(vm, folder, name, disk).await?;
        return Ok(false);
    }
    let size = match (base_size(vm, disk)?, disk.size) {
        (base, Some(wanted)) if wanted < base => {
            return Err(EngineError::Base { path: disk.base.clone(), problem: BaseProblem::Larger { base, wanted } });
        }
        (_, Some(wanted)) => wanted,
        (base, None) => base,
    };
    let digest = match &disk.digest {
        Some(digest) => digest.clone(),
        None => digest_of(vm, disk, Algorithm::Sha256).await?,
    };
    let new = format!("{name}.new");
    folder.remove(&new)?;
    let mut command = inside("qemu-img", folder)?;
    // -u: the base is not opened, so QEMU's user needs no way to it; what must be known of it is known.
    command.args(["create", "-q", "-u", "-f", "qcow2", "-F", &disk.base_format, "-b"]).arg(&disk.base);
    command.args([new.as_str(), &size.to_string()]);
    let made = async {
        run(vm, "qemu-img", command).await?;
        MadeOf::now(disk, digest).write(folder)
    };
    let made = made.await;
    if made.is_err() {
        folder.remove(&new)?;
    }
    made?;
    folder.rename(&new, name)?;
    Ok(true)
}

/// What an overlay is an overlay of. The digest counts: a base that was copied, touched or moved is the same one.
#[derive(Debug, PartialEq, Eq)]
struct MadeOf {
    /// Where it was.
    path: String,
    /// What was meant by it.
    format: String,
    /// What was in it.
    digest: FileDigest,
}

impl MadeOf {
    fn now(disk: &Overlay, digest: FileDigest) -> Self {
        Self { path: disk.base.display().to_string(), format: disk.base_format.clone(), digest }
    }

    /// As it stands in a guest's folder; `None` where nothing is there that can be understood.
    fn read(folder: &Folder) -> Result<Option<Self>, EngineError> {
        let text = folder.read(BASE)?.unwrap_or_default();
        let parse = || {
            // The path comes last: it may hold anything.
            let (digest, rest) = text.split_once(' ')?;
            let (format, path) = rest.split_once(' ')?;
            let (path, digest) = (path.trim_end_matches('\n').to_owned(), digest.parse().ok()?);
            Some(Self { path, format: format.to_owned(), digest })
        };
        Ok(parse())
    }

    fn write(&self, folder: &Folder) -> Result<(), EngineError> {
        let Self { path, format, digest } = self;
        folder.replace(BASE, format!("{digest} {format} {path}\n").as_bytes())
    }
}

impl std::fmt::Display for MadeOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, format, digest } = self;
        write!(f, "{} ({format}, {} {digest})", path.escape_debug(), digest.algorithm().word())
    }
}

/// An overlay holds the blocks that differ from its base: over any other one it is garbage, and ruins itself when it
/// is written to.
async fn same_base(vm: &VmName, folder: &Folder, name: &str, disk: &Overlay) -> Result<(), EngineError> {
    let made_of = MadeOf::read(folder)?;
    let algorithm = made_of.as_ref().map_or(Algorithm::Sha256, |made_of| made_of.digest.algorithm());
    let digest = match &disk.digest {
        Some(digest) if digest.algorithm() == algorithm => digest.clone(),
        _ => digest_of(vm, disk, algorithm).await?,
    };
    let now = MadeOf::now(disk, digest);
    match made_of {
        Some(made_of) if made_of == now => Ok(()),
        // The name in the header is for people, and for a QEMU that they start themselves.
        Some(made_of) if (&made_of.digest, &made_of.format) == (&now.digest, &now.format) => {
            let mut command = inside("qemu-img", folder)?;
            command.args(["rebase", "-u", "-f", "qcow2", "-F", &disk.base_format, "-b"]).arg(&disk.base).arg(name);
            run(vm, "qemu-img", command).await?;
            now.write(folder)
        }
        made_of => Err(EngineError::OtherBase {
            vm: vm.clone(),
            made_of: made_of.map_or_else(|| "an unknown image".to_owned(), |made_of| made_of.to_string()),
            wanted: now.to_string(),
        }),
    }
}

/// What is in a base, on a thread of its own: it may be large.
async fn digest_of(vm: &VmName, disk: &Overlay, algorithm: Algorithm) -> Result<FileDigest, EngineError> {
    let path = disk.base.clone();
    let read = tokio::task::spawn_blocking(move || content::digest(&mut open_image(&path)?, algorithm, |_| {})).await;
    let read = read.map_err(io::Error::other).and_then(|read| read);
    read.map_err(|source| EngineError::Image { vm: vm.clone(), path: disk.base.clone(), source })
}

/// The virtual size of a base image in bytes, once it is known to be one.
fn base_size(vm: &VmName, disk: &Overlay) -> Result<u64, EngineError> {
    let path = &disk.base;
    let fail = |source| EngineError::Image { vm: vm.clone(), path: path.clone(), source };
    let size = image_size(&mut open_image(path).map_err(fail)?, &disk.base_format).map_err(fail)?;
    size.map_err(|problem| EngineError::Base { path: path.clone(), problem })
}

/// The virtual size of an image in bytes; or why it is no image of that format, or leads to other files.
pub(super) fn image_size(file: &mut File, format: &str) -> io::Result<Result<u64, BaseProblem>> {
    let mut header = [0; 80];
    let length = read_up_to(file, &mut header)?;
    let qcow2 = length >= 72 && header.starts_with(b"QFI\xfb");
    if format != "qcow2" {
        let bytes = file.metadata()?.len();
        return Ok(match qcow2 {
            true => Err(BaseProblem::IsQcow2),
            // Hardly any file that is no disk gets past this: a definition can't lend a guest just any file of root's.
            false if !bytes.is_multiple_of(512) || bytes == 0 => Err(BaseProblem::Sectors { bytes }),
            false => Ok(bytes),
        });
    }
    if !qcow2 {
        return Ok(Err(BaseProblem::NotQcow2));
    }
    // QEMU's docs/interop/qcow2: version at 4, backing file's place at 8, virtual size at 24, and from version 3
    // the incompatible features at 72, bit 2 of which is an external data file. All big-endian.
    let number = |at: usize| header[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    if number(8) != 0 {
        return Ok(Err(BaseProblem::Backing));
    }
    if header[7] >= 3 && number(72) & 4 != 0 {
        return Ok(Err(BaseProblem::DataFile));
    }
    Ok(Ok(number(24)))
}

/// Opens a file of an image for reading; a folder or a FIFO is none.
pub(super) fn open_image(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::FileTypeExt;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_block_device() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// Writes the seed anew, with the guest's host key; makes that where it is missing. A guest without a seed has none of an
/// earlier definition either.
async fn make_seed(vm: &VmName, folder: &Folder, files: &[(String, String)]) -> Result<(), EngineError> {
    if files.is_empty() {
        return folder.remove(SEED_IMAGE);
    }
    let key = host_key(vm, folder).await?;
    let place = folder.join(SEED_IMAGE);
    let volume =
        seed::volume(files, &key).map_err(|source| EngineError::File { action: "make", path: place, source })?;
    folder.replace(SEED_IMAGE, &volume)
}

async fn host_key(vm: &VmName, folder: &Folder) -> Result<HostKey, EngineError> {
    // The private key comes last under its name: where it is, both are whole.
    if !folder.has(HOST_KEY) {
        let (new, new_public) = ("host-key.new", "host-key.new.pub");
        folder.remove(new)?;
        folder.remove(new_public)?;
        let mut command = inside("ssh-keygen", folder)?;
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", vm.as_str(), "-f", new]);
        run(vm, "ssh-keygen", command).await?;
        folder.rename(new_public, HOST_KEY_PUBLIC)?;
        folder.rename(new, HOST_KEY)?;
    }
    let read = |name| {
        let missing =
            || EngineError::File { action: "read", path: folder.join(name), source: io::ErrorKind::NotFound.into() };
        folder.read(name)?.ok_or_else(missing)
    };
    Ok(HostKey { private: read(HOST_KEY)?, public: read(HOST_KEY_PUBLIC)? })
}

/// The public host key of the guest with this folder; `None` before its first start.
pub fn public_host_key(folder: &Path) -> Result<Option<String>, EngineError> {
    let Some(folder) = Folder::open(folder)? else { return Ok(None) };
    folder.read(HOST_KEY_PUBLIC)
}

/// A helper program that runs as the folder's owner in the folder, without a privilege.
pub(super) fn inside(program: &'static str, folder: &Folder) -> Result<Command, EngineError> {
    let missing = || EngineError::Spawn { program: program.into(), source: io::ErrorKind::NotFound.into() };
    let mut command = child::bare(&child::find(program).ok_or_else(missing)?);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    identity::drop_in_child(&mut command, folder.owner(), None, folder.as_fd(), &[]);
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    Ok(command)
}

pub(super) async fn run(vm: &VmName, program: &'static str, mut command: Command) -> Result<(), EngineError> {
    let output = command.output().await.map_err(|source| EngineError::Spawn { program: program.into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(EngineError::Helper { vm: vm.clone(), program, output: said })
}

/// What a guest has in its folder: made where it is missing, the seed anew.
#[derive(Debug, Clone, Copy)]
pub struct GuestFiles<'a> {
    /// Its disk.
    pub disk: Option<&'a Overlay>,
    /// UEFI variables and further disks.
    pub kept: &'a Kept,
    /// The files of its seed.
    pub seed: &'a [(String, String)],
}

/// Makes all of it. `made` gets the names of what stays and was not there before, on an error too: for who takes that
/// back.
pub(super) async fn make(
    vm: &VmName,
    folder: &Folder,
    files: GuestFiles<'_>,
    made: &mut Vec<String>,
) -> Result<(), EngineError> {
    if let Some(overlay) = files.disk
        && make_overlay(vm, folder, overlay).await?
    {
        made.extend(overlay.path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    made.extend(kept::make(vm, folder, files.kept).await?);
    make_seed(vm, folder, files.seed).await
}

/// Makes the files of a guest in a folder of its own, for people and programs that start it without vmnet.
/// The folder's parents are made where they are missing; the folder and its files belong to `owner`.
pub async fn prepare(vm: &VmName, folder: &Path, owner: Owner, files: GuestFiles<'_>) -> Result<(), EngineError> {
    make(vm, &Folder::make(folder, owner)?, files, &mut Vec::new()).await
}
