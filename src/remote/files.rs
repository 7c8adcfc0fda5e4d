//! Files that a host needs: asked for by what is in them, and sent where they are missing. The other side is
//! `ledger::files`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{RemoteError, Trouble};
use super::event::Event;
use super::{Answer, Place};
use crate::engine::content;
use crate::names::{Algorithm, FileDigest};

/// What is in a file: its SHA-256, and its size in bytes. A thread of its own reads it.
///
/// # Errors
/// [`Trouble::File`].
pub async fn digest(path: &Path) -> Result<(FileDigest, u64), Trouble> {
    let of = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&of)).await;
    let read = read.map_err(std::io::Error::other).and_then(|read| read);
    read.map_err(|source| Trouble::File { path: path.to_owned(), source })
}

fn read(path: &Path) -> std::io::Result<(FileDigest, u64)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((content::digest(&mut file, Algorithm::Sha256, |_| {})?, size))
}

/// What a host has of some files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Has {
    /// The folder there that has them, each under its digest; absolute.
    pub folder: PathBuf,
    /// Those that are not there.
    pub missing: Vec<FileDigest>,
}

/// Sees to it that a host has these files, and gives where each is there. `on_progress` gets the file, and how many
/// bytes of how many have arrived.
///
/// # Errors
/// When a file can't be read here, or was not taken there; those before it are there then.
pub async fn send(
    place: &Place,
    files: &[PathBuf],
    on_progress: impl FnMut(&Path, u64, u64),
) -> Result<BTreeMap<PathBuf, PathBuf>, RemoteError> {
    let mut known = BTreeMap::new();
    for path in files {
        if !known.contains_key(path) {
            known.insert(path.clone(), digest(path).await.map_err(|trouble| place.error(trouble))?);
        }
    }
    send_known(place, &known, on_progress).await
}

/// As [`send`], of files whose content is known: one that several hosts get is read once for that.
///
/// # Errors
/// As [`send`].
pub async fn send_known(
    place: &Place,
    known: &BTreeMap<PathBuf, (FileDigest, u64)>,
    mut on_progress: impl FnMut(&Path, u64, u64),
) -> Result<BTreeMap<PathBuf, PathBuf>, RemoteError> {
    if known.is_empty() {
        return Ok(BTreeMap::new());
    }
    let Has { folder, mut missing } = ask(place, known.values().map(|(digest, _)| digest)).await?;
    for (path, (digest, size)) in known {
        // One that stands under two names is sent once.
        let Some(at) = missing.iter().position(|name| name == digest) else { continue };
        missing.swap_remove(at);
        take(place, path, digest, *size, |done| on_progress(path, done, *size)).await?;
    }
    Ok(known.iter().map(|(path, (digest, _))| (path.clone(), folder.join(digest.as_str()))).collect())
}

/// Which of these the host has.
///
/// # Errors
/// When it does not answer, or does not trust its folder.
pub async fn ask(place: &Place, wanted: impl Iterator<Item = &FileDigest>) -> Result<Has, RemoteError> {
    let wanted: BTreeSet<&str> = wanted.map(FileDigest::as_str).collect();
    let args: Vec<&str> = ["store", "has"].into_iter().chain(wanted).collect();
    let answer = place.call(&args, &[], |_| {}).await?;
    let has = if answer.failed { None } else { serde_json::from_value(answer.document.clone()).ok() };
    has.ok_or_else(|| place.error(Trouble::NoResult { code: answer.code, said: words(&answer) }))
}

async fn take(
    place: &Place,
    path: &Path,
    digest: &FileDigest,
    size: u64,
    mut on_progress: impl FnMut(u64),
) -> Result<(), RemoteError> {
    let fail = |trouble| place.error(trouble);
    let file = File::open(path).map_err(|source| fail(Trouble::File { path: path.to_owned(), source }))?;
    let arrived = |event| {
        if let Event::Progress { done, .. } = event {
            on_progress(done);
        }
    };
    let args = ["store", "take", digest.as_str(), &size.to_string()];
    let answer = place.call_with_file(&args, file, arrived).await?;
    match answer.failed {
        false => Ok(()),
        true => Err(fail(Trouble::NotTaken { path: path.to_owned(), said: words(&answer) })),
    }
}

/// The error and its causes, in one text.
fn words(answer: &Answer) -> String {
    let causes = answer.document["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = std::iter::once(&answer.document["error"]).chain(causes);
    words.filter_map(|word| word.as_str()).collect::<Vec<_>>().join(": ")
}
