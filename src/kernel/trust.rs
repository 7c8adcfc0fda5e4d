//! Whether a folder can be changed by nobody but root and the user that vmnet runs as.
//!
//! What stands in such a folder is what vmnet or an administrator put there: links in it are theirs, and nobody swaps a
//! folder between two looks. The folders of guests, which are not like that, are entered by descriptor
//! (`engine::folder`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A folder or link on the way that others can change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It belongs to somebody else, who can change what is in it or where it points.
    #[error("{} belongs to user {uid}; give it to root (chown root) or choose another folder", path.display())]
    Owner {
        /// The folder or link.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others may write to it.
    #[error("others may write to {} (mode {mode:o}); take that away (chmod go-w) or choose another folder", path.display())]
    Mode {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Looks at every folder and link on the way to `path`, which is absolute, as far as it exists.
///
/// A folder with the sticky bit counts as trusted: what belongs to root in it nobody else can move away.
pub fn way_to(path: &Path) -> Result<(), Untrusted> {
    walk(path)?;
    // Links that root made may lead through other folders.
    let existing = path.ancestors().find_map(|folder| fs::canonicalize(folder).ok());
    existing.as_deref().map_or(Ok(()), walk)
}

fn walk(path: &Path) -> Result<(), Untrusted> {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    for part in above {
        // Not there yet, or not to be seen: whoever opens it gets the same error, and says so.
        let Ok(meta) = fs::symlink_metadata(part) else { return Ok(()) };
        let uid = meta.uid();
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            return Err(Untrusted::Owner { path: part.to_owned(), uid });
        }
        let mode = meta.mode() & 0o7777;
        let by_group = mode & 0o020 != 0 && meta.gid() != 0;
        if meta.is_dir() && mode & 0o1000 == 0 && (by_group || mode & 0o002 != 0) {
            return Err(Untrusted::Mode { path: part.to_owned(), mode });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn what_others_can_change_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("state");
        assert_eq!(way_to(&folder), Ok(()), "what does not exist yet is made by us");
        fs::create_dir(&folder).unwrap();
        assert_eq!(way_to(&folder.join("campus")), Ok(()));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(way_to(&folder), Err(Untrusted::Mode { path: folder.clone(), mode: 0o777 }));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(way_to(&folder), Ok(()));
        let link = root.path().join("link");
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o707)).unwrap();
        symlink(&open, &link).unwrap();
        assert_eq!(way_to(&link.join("campus")), Err(Untrusted::Mode { path: open.clone(), mode: 0o707 }));
        if nix::unistd::geteuid().is_root() {
            chown(&open, Some(65534), None).unwrap();
            assert_eq!(way_to(&open), Err(Untrusted::Owner { path: open, uid: 65534 }));
        }
    }
}
