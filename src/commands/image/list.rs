//! `vmnet image list`: the images that labs of this host use, and what else is in the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::BinaryBytes;
use serde::Serialize;

use super::usage::Usage;
use crate::commands::failure::Failure;
use crate::commands::output::{Output, WARN, foreign, table};
use crate::commands::session::paths;
use crate::images;
use crate::names::{Algorithm, FileDigest};
use crate::paths::Paths;

#[derive(Serialize)]
struct Report {
    /// The folder of what was downloaded or sent.
    store: PathBuf,
    images: Vec<ImageReport>,
    /// Labs whose ledger can't be read.
    unknown: Vec<String>,
}

#[derive(Serialize)]
struct ImageReport {
    path: PathBuf,
    state: State,
    /// As far as it is known without reading the file.
    digest: Option<FileDigest>,
    /// Bytes.
    size: Option<u64>,
    used_by: Vec<UseReport>,
    /// Guests whose disks were made of it, as `lab/guest`, or `lab/by-hand/…`.
    disks: Vec<String>,
}

#[derive(Serialize)]
struct UseReport {
    lab: String,
    /// `None`: a kernel, an initial RAM disk or public keys.
    image: Option<String>,
    url: Option<String>,
    guests: Vec<String>,
}

/// What is there of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// In the store, whole.
    Stored,
    /// In the store, and not all of it.
    Part,
    /// A file of the user's.
    File,
    /// Not there.
    Missing,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            State::Stored => "stored",
            State::Part => "unfinished",
            State::File => "file",
            State::Missing => "missing",
        }
    }
}

/// `vmnet image list`
pub(in crate::commands) fn list(output: &Output) -> Result<ExitCode, Failure> {
    let paths = paths()?;
    let report = report(&paths)?;
    output.result(&report, || text(&report))?;
    Ok(ExitCode::SUCCESS)
}

fn report(paths: &Paths) -> Result<Report, Failure> {
    let usage = Usage::look(paths)?;
    let failed = |error| Failure::failed(format!("{} can't be read", paths.files().display()), error);
    let mut images = BTreeMap::new();
    for entry in images::entries(paths).map_err(failed)? {
        let state = if entry.is_part { State::Part } else { State::Stored };
        let (digest, size) = (Some(entry.digest), Some(entry.size));
        let (used_by, disks) = (Vec::new(), Vec::new());
        let path = entry.path.clone();
        images.insert(entry.path, ImageReport { path, state, digest, size, used_by, disks });
    }
    for (path, users) in &usage.images {
        let image = images.entry(path.clone()).or_insert_with(|| of_path(paths, path));
        image.used_by.extend(users.iter().map(|used| UseReport {
            lab: used.lab.to_string(),
            image: Some(used.image.clone()),
            url: used.url.clone(),
            guests: used.guests.clone(),
        }));
    }
    for (path, labs) in usage.others.iter().filter(|(path, _)| !usage.images.contains_key(*path)) {
        let image = images.entry(path.clone()).or_insert_with(|| of_path(paths, path));
        let of_lab = |lab: &_| UseReport { lab: format!("{lab}"), image: None, url: None, guests: Vec::new() };
        image.used_by.extend(labs.iter().map(of_lab));
    }
    for image in images.values_mut().filter(|image| image.state != State::Part) {
        let disks = image.digest.as_ref().and_then(|digest| usage.disks.get(digest));
        image.disks = disks.into_iter().flatten().cloned().collect();
    }
    let unknown = usage.unknown.iter().map(ToString::to_string).collect();
    Ok(Report { store: paths.files(), images: images.into_values().collect(), unknown })
}

/// An image that is not in the store.
fn of_path(paths: &Paths, path: &Path) -> ImageReport {
    let meta = std::fs::metadata(path).ok();
    let stored = path.strip_prefix(paths.files()).ok().and_then(|name| name.to_str()?.parse().ok());
    ImageReport {
        path: path.to_owned(),
        state: if meta.is_some() { State::File } else { State::Missing },
        digest: stored.or_else(|| images::known(paths, path, Algorithm::Sha256)),
        size: meta.map(|meta| meta.len()),
        used_by: Vec::new(),
        disks: Vec::new(),
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    if report.images.is_empty() {
        text.push_str("there is no image on this host\n");
    } else {
        let mut rows = table(&["image", "state", "size", "digest", "guests", "where"]);
        for ImageReport { path, state, digest, size, used_by, disks } in &report.images {
            let names: Vec<String> = used_by
                .iter()
                .map(|used| format!("{}/{}", used.lab, used.image.as_deref().unwrap_or("(other files)")))
                .collect();
            let mut guests: Vec<String> = used_by
                .iter()
                .flat_map(|used| used.guests.iter().map(move |guest| format!("{}/{guest}", used.lab)))
                .chain(disks.iter().cloned())
                .collect();
            guests.sort();
            guests.dedup();
            let or_none = |list: Vec<String>| if list.is_empty() { "-".to_owned() } else { list.join(" ") };
            rows.add_row([
                or_none(names),
                state.text().to_owned(),
                size.map_or_else(|| "-".to_owned(), |size| BinaryBytes(size).to_string()),
                digest.as_ref().map_or_else(|| "-".to_owned(), short),
                or_none(guests),
                foreign(&path.display().to_string()),
            ]);
        }
        text.push_str(&format!("{rows}\n"));
    }
    for lab in &report.unknown {
        text.push_str(&format!(
            "{WARN}note{WARN:#}: the ledger of lab {lab} can't be read; what it uses is not known\n"
        ));
    }
    text
}

/// Enough of a digest to tell it from others.
pub(super) fn short(digest: &FileDigest) -> String {
    digest.as_str().chars().take(12).collect()
}
