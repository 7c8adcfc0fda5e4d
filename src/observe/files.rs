//! The lab's files: everything below its hooks folder, and drop-ins that carry its mark.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{ObserveError, Scope};
use crate::mark::Mark;
use crate::paths::unfinished;
use crate::state::File;

/// No file of ours is longer; of a longer one only the beginning is read, which differs enough.
const LONGEST: u64 = 1 << 20;

/// Reads them.
pub(super) fn read(scope: &Scope) -> Result<BTreeMap<PathBuf, File>, ObserveError> {
    let mut files = BTreeMap::new();
    below(&scope.paths.hooks(&scope.lab), &mut files)?;
    for path in &scope.drop_ins {
        // What a crash has left half-written has our own name, which nobody else uses.
        for (path, needs_mark) in [(path.clone(), true), (unfinished(path), false)] {
            if let Some(file) = one(&path)?
                && (!needs_mark || is_marked(&file, scope))
            {
                files.insert(path, file);
            }
        }
    }
    Ok(files)
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

fn below(folder: &Path, files: &mut BTreeMap<PathBuf, File>) -> Result<(), ObserveError> {
    let fail = |source| ObserveError::File { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if entry.file_type().map_err(fail)?.is_dir() {
            below(&path, files)?;
        } else if let Some(file) = one(&path)? {
            files.insert(path, file);
        }
    }
    Ok(())
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
        return Ok(Some(File { mode, content: "not a plain file".into() }));
    }
    let file = fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    // Room for one byte more than there is: the read that finds the end is the second one.
    let length = usize::try_from(meta.len().min(LONGEST)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(length + 1);
    file.and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)).map_err(fail)?;
    Ok(Some(File { mode, content: String::from_utf8_lossy(&bytes).into_owned() }))
}
