//! Files are replaced whole: written beside their place, then renamed over it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use crate::kernel::caps::Caps;
use crate::kernel::child;
use crate::paths::unfinished;
use crate::plan::Service;
use crate::state::File;

/// Writes a file; folders that are missing are made, 0755. A link at its place is replaced, never followed.
///
/// Below `root`, which is a folder of ours, the file's own folder is set right too.
/// `durable`: on disk when this returns. Needless below the run directory, which does not outlive a reboot.
pub fn write(path: &Path, file: &File, root: Option<&Path>, durable: bool) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_folders(folder)?;
    if root.is_some_and(|root| folder != root) {
        settle_folder(folder, (nix::unistd::geteuid().as_raw(), FOLDER_MODE))?;
    }
    let beside = unfinished(path);
    let open = || fs::File::options().write(true).create_new(true).mode(0o600).open(&beside);
    let mut new = match open() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&beside)?;
            open()?
        }
        other => other?,
    };
    new.write_all(file.content.as_bytes())?;
    // Not by the mode of the opening call: the umask would narrow it.
    new.set_permissions(fs::Permissions::from_mode(file.mode))?;
    if let Some(access) = file.access {
        fchown(&new, Some(access.uid), None)?;
    }
    if durable {
        new.sync_all()?;
    }
    fs::rename(&beside, path)?;
    if durable {
        fs::File::open(folder)?.sync_all()?;
    }
    // A way back: as it was found.
    if let Some(owner) = file.access.and_then(|access| access.folder) {
        settle_folder(folder, owner)?;
    }
    Ok(())
}

/// Permission bits of folders.
const FOLDER_MODE: u32 = 0o755;

/// Gives a folder its user and permission bits, where it has others. A link at its place is not followed.
fn settle_folder(folder: &Path, (uid, mode): (u32, u32)) -> io::Result<()> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let folder = fs::File::options().read(true).custom_flags(flags).open(folder)?;
    let meta = folder.metadata()?;
    if meta.uid() != uid {
        fchown(&folder, Some(uid), None)?;
    }
    if meta.mode() & 0o7777 != mode {
        folder.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folders(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a file, there or not, and then the folders above it that are empty, below `root` only.
pub fn remove(path: &Path, root: Option<&Path>) -> io::Result<()> {
    remove_one(path)?;
    remove_one(&unfinished(path))?;
    let Some(root) = root else { return Ok(()) };
    let above = path.ancestors().skip(1).take_while(|folder| *folder != root && folder.starts_with(root));
    for folder in above {
        // The first one that is not empty, or that another process needs, ends it.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

fn remove_one(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Tells a network manager to read its drop-ins again; one that does not run has nothing to read.
///
/// # Errors
/// When its program is not there or fails.
pub fn reload(service: Service) -> io::Result<()> {
    let (program, args): (&str, &[&str]) = match service {
        Service::NetworkManager => ("nmcli", &["general", "reload", "conf"]),
        Service::Networkd => ("networkctl", &["reload"]),
    };
    let path = child::find(program)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{program} is not installed")))?;
    let output = child::command(&path, Caps::NONE).args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", output.status, said.trim().escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str) -> File {
        File::new(0o755, content)
    }

    #[test]
    fn a_file_is_written_with_its_folders_and_removed_with_them() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("campus/hooks/web/qemu-ifup");
        write(&path, &text("one"), Some(root.path()), true).unwrap();
        write(&path, &text("two"), Some(root.path()), false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove(&path, Some(root.path())).unwrap();
        assert!(!root.path().join("campus").exists());
        remove(&path, Some(root.path())).unwrap();
    }

    #[test]
    fn a_folder_in_use_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("campus/hooks/web/qemu-ifup");
        write(&path, &text("one"), None, false).unwrap();
        fs::write(root.path().join("campus/other"), "x").unwrap();
        remove(&path, Some(root.path())).unwrap();
        assert!(root.path().join("campus/other").exists());
        assert!(!root.path().join("campus/hooks").exists());
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (path, target) = (root.path().join("file"), root.path().join("target"));
        fs::write(&target, "untouched").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        std::os::unix::fs::symlink(&target, unfinished(&path)).unwrap();
        write(&path, &text("ours"), None, false).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    }
}
