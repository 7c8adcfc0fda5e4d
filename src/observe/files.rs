//! The lab's files: the hooks below its hooks folder, and drop-ins that carry its mark.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{ObserveError, Scope};
use crate::mark::Mark;
use crate::names::LabName;
use crate::paths::{KEPT_IN, Paths, unfinished};
use crate::state::{Access, File};

/// No file of ours is longer; of a longer one only the beginning is read, which differs enough.
const LONGEST: u64 = 1 << 20;

/// What stands below the hooks folder, and drop-ins.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The lab's: by the names of hooks, or by the mark.
    pub ours: BTreeMap<PathBuf, File>,
    /// What is below the hooks folder otherwise.
    pub foreign: BTreeSet<PathBuf>,
}

/// Reads them.
pub(super) fn read(scope: &Scope) -> Result<Found, ObserveError> {
    let mut found = Found::default();
    let hooks = scope.paths.hooks(&scope.lab);
    below(&hooks, &hooks, &mut found)?;
    for path in &scope.drop_ins {
        // What a crash has left half-written has our own name, which nobody else uses.
        for (path, needs_mark) in [(path.clone(), true), (unfinished(path), false)] {
            if let Some(file) = one(&path)?
                && (!needs_mark || is_marked(&file, scope))
            {
                found.ours.insert(path, file);
            }
        }
    }
    Ok(found)
}

/// The files below a lab's hooks folder that vmnet wrote, and the others.
pub fn below_hooks(paths: &Paths, lab: &LabName) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ObserveError> {
    let hooks = paths.hooks(lab);
    let mut found = Found::default();
    below(&hooks, &hooks, &mut found)?;
    let (made, unmarked): (Vec<_>, Vec<_>) = found.ours.into_iter().partition(|(path, file)| file.is_made(path));
    let paths = |files: Vec<(PathBuf, File)>| files.into_iter().map(|(path, _)| path);
    Ok((paths(made).collect(), found.foreign.into_iter().chain(paths(unmarked)).collect()))
}

/// The state folder of which a hook of the lab says that the lab is kept there.
pub fn kept_in(paths: &Paths, lab: &LabName) -> Result<Option<PathBuf>, ObserveError> {
    for path in below_hooks(paths, lab)?.0 {
        let text = one(&path)?.map(|file| file.content).unwrap_or_default();
        let folder = text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(KEPT_IN));
        if let Some(folder) = folder {
            return Ok(Some(folder.into()));
        }
    }
    Ok(None)
}

/// What stands at a drop-in's place without our mark.
pub(super) fn foreign(scope: &Scope) -> BTreeSet<PathBuf> {
    // One that can't be read is not ours either; reading it as one of ours fails with its name.
    let strange = |path: &&PathBuf| one(path).is_ok_and(|file| file.is_some_and(|file| !is_marked(&file, scope)));
    scope.drop_ins.iter().filter(strange).cloned().collect()
}

/// Whether a word of the text is a mark of the lab.
fn is_marked(file: &File, scope: &Scope) -> bool {
    file.content.split_whitespace().any(|word| Mark::is_of(word, &scope.lab))
}

fn below(root: &Path, folder: &Path, found: &mut Found) -> Result<(), ObserveError> {
    let fail = |source| ObserveError::File { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    let of_network = folder.parent() == Some(root);
    let mut own = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if entry.file_type().map_err(fail)?.is_dir() {
            below(root, &path, found)?;
        } else if of_network && is_hook(&path) {
            own.push(path);
        } else {
            found.foreign.insert(path);
        }
    }
    if own.is_empty() {
        return Ok(());
    }
    let meta = fs::symlink_metadata(folder).map_err(fail)?;
    let owner = (meta.uid(), meta.mode() & 0o7777);
    let folder = Some(owner).filter(|owner| *owner != (own_user(), FOLDER_MODE));
    for path in own {
        if let Some(mut file) = one(&path)? {
            if folder.is_some() {
                let uid = file.access.map_or(own_user(), |access| access.uid);
                file.access = Some(Access { uid, folder });
            }
            found.ours.insert(path, file);
        }
    }
    Ok(())
}

/// Permission bits of folders that vmnet makes.
const FOLDER_MODE: u32 = 0o755;

fn own_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn is_hook(path: &Path) -> bool {
    ["qemu-ifup", "qemu-ifdown"].into_iter().any(|hook| {
        let hook = path.with_file_name(hook);
        path == hook || path == unfinished(&hook)
    })
}

/// One file; `None` when there is none. What is no plain file is never opened: its text says what it is, so that it
/// differs from anything wanted.
pub(super) fn one(path: &Path) -> Result<Option<File>, ObserveError> {
    let fail = |source| ObserveError::File { path: path.to_owned(), source };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(fail(error)),
    };
    let mode = meta.mode() & 0o7777;
    if !meta.is_file() {
        return Ok(Some(File::new(mode, "not a plain file")));
    }
    let file = fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    // Room for one byte more than there is: the read that finds the end is the second one.
    let length = usize::try_from(meta.len().min(LONGEST)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(length + 1);
    file.and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)).map_err(fail)?;
    let access = (meta.uid() != own_user()).then(|| Access { uid: meta.uid(), folder: None });
    Ok(Some(File { mode, content: String::from_utf8_lossy(&bytes).into_owned(), access }))
}
