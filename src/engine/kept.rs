//! What a guest keeps in its folder beside disk and seed: UEFI variables, and further disks that are empty at first.
//! And the user's own files that are disks.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::EngineError;
use super::disk::{image_size, inside, run};
use super::folder::Folder;
use crate::names::VmName;
use crate::state::{DiskFile, Kept};

/// Makes what is missing, and names it. Never leaves half of anything.
pub(super) async fn make(vm: &VmName, folder: &Folder, kept: &Kept) -> Result<Vec<String>, EngineError> {
    let mut made = Vec::new();
    let done = make_all(vm, folder, kept, &mut made).await;
    if done.is_err() {
        made.iter().try_for_each(|name| folder.remove(name))?;
    }
    done.map(|()| made)
}

async fn make_all(vm: &VmName, folder: &Folder, kept: &Kept, made: &mut Vec<String>) -> Result<(), EngineError> {
    if let Some(uefi) = &kept.uefi {
        let name = file_name(&uefi.variables);
        if !folder.has(&name) {
            let template = &uefi.firmware.variables;
            let fail = |source| EngineError::File { action: "read", path: template.clone(), source };
            folder.replace(&name, &std::fs::read(template).map_err(fail)?)?;
            made.push(name);
        }
    }
    for own in &kept.disks {
        let name = file_name(&own.path);
        if folder.has(&name) {
            continue;
        }
        let new = format!("{name}.new");
        folder.remove(&new)?;
        let mut command = inside("qemu-img", folder)?;
        command.args(["create", "-q", "-f", "qcow2", new.as_str(), &own.size.to_string()]);
        let created = run(vm, "qemu-img", command).await;
        if created.is_err() {
            folder.remove(&new)?;
        }
        created?;
        folder.rename(&new, &name)?;
        made.push(name);
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Opens a file of the user's that is a disk. Root's own power lends it for reading; to be written to it has to be the
/// guest's by its mode. A folder, a device or a FIFO is none, and what is in it has to be a disk: a definition can't lend
/// a guest just any file.
pub(super) fn open(
    vm: &VmName,
    file: &DiskFile,
    user: &str,
    may_write: impl Fn(&std::fs::Metadata) -> bool,
) -> Result<File, EngineError> {
    let DiskFile { path, format, readonly } = file;
    let fail = |source| EngineError::Disk { vm: vm.clone(), path: path.clone(), source };
    let mut options = File::options();
    options.read(true).write(!readonly).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let mut opened = options.open(path).map_err(fail)?;
    let meta = opened.metadata().map_err(fail)?;
    if !meta.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    if !readonly && !may_write(&meta) {
        return Err(EngineError::DiskAccess { vm: vm.clone(), path: path.clone(), user: user.to_owned() });
    }
    match image_size(&mut opened, format).map_err(fail)? {
        Ok(_) => Ok(opened),
        Err(problem) => Err(EngineError::NoDisk { vm: vm.clone(), path: path.clone(), problem }),
    }
}

/// What a fresh start of a guest takes away beside its disk: where its system boots from is in the variables.
pub(super) fn reset(folder: &Folder) -> Result<(), EngineError> {
    folder.remove(crate::render::qemu::VARIABLES)
}
