//! Images: what guests boot. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Image, ImageFormat};
use crate::definition::{At, Entries, ImageDef, Key, Problem, Problems, Text};
use crate::kinds::Url;
use crate::names::{FileDigest, ImageName};

/// The base disk of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Base {
    /// A file.
    File {
        /// Relative to the definition's folder or absolute.
        file: PathBuf,
        /// What has to be in it, where that is said.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<FileDigest>,
    },
    /// Downloaded once, and kept by what is in it.
    Url {
        /// Where from.
        url: Url,
        /// What has to be in it.
        digest: FileDigest,
    },
}

impl Base {
    /// What has to be in it, where that is said.
    pub fn digest(&self) -> Option<&FileDigest> {
        match self {
            Base::File { digest, .. } => digest.as_ref(),
            Base::Url { digest, .. } => Some(digest),
        }
    }
}

impl Image {
    /// Where its disk is downloaded from.
    pub fn url(&self) -> Option<&Url> {
        match self.base.as_ref()? {
            Base::File { .. } => None,
            Base::Url { url, .. } => Some(url),
        }
    }

    /// Where its disk is downloaded from, and what has to come.
    pub fn download(&self) -> Option<(&Url, &FileDigest)> {
        self.url().zip(self.base.as_ref().and_then(Base::digest))
    }

    /// The files that it names: disk, kernel and initial RAM disk.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let file = self.base.as_ref().and_then(|base| match base {
            Base::File { file, .. } => Some(file),
            Base::Url { .. } => None,
        });
        [file, self.kernel.as_ref(), self.initrd.as_ref()].into_iter().flatten()
    }
}

/// Every image that makes sense, whether a guest uses it or not.
pub(super) fn images(defs: &Entries<ImageName, ImageDef>, problems: &mut Problems) -> BTreeMap<ImageName, Image> {
    defs.iter().filter_map(|(name, def)| Some((name.clone(), image(name, def, problems)?))).collect()
}

fn image(name: &ImageName, at: &At<ImageDef>, problems: &mut Problems) -> Option<Image> {
    let ImageDef { file, url, sha256: _, sha512: _, format, kernel, initrd, cmdline } = at.get_ref();
    let has_disk = !file.is_missing() || !url.is_missing();
    if !has_disk && kernel.is_missing() {
        let problem = Problem::new(at.span(), format!("image {name} has neither a file nor a url nor a kernel"));
        problems.push(problem.help("add file = \"vm-images/debian-12.qcow2\", or url = \"https://…\" with sha256"));
    }
    for (key, other) in [("initrd", initrd), ("cmdline", cmdline)] {
        if let (Key::Is(other), Key::Missing) = (other, kernel) {
            let problem = Problem::new(other.span(), format!("{key} without a kernel has no meaning"));
            problems.push(problem.help(format!("add kernel = \"…\", or remove {key}")));
        }
    }
    if let (false, Key::Is(format)) = (has_disk, format) {
        let problem = Problem::new(format.span(), "format without a file has no meaning");
        problems.push(problem.help("add file = \"…\", or remove format"));
    }
    let by_default = || kernel.as_ref().map(|_| "console=ttyS0".to_owned());
    let base = base(name, at, problems);
    Some(Image {
        name: name.clone(),
        base,
        format: match (file, url) {
            (Key::Missing, Key::Is(url)) => image_format(format, Some((url.get_ref().path(), url.span())), problems)?,
            (Key::Wrong(_), _) | (_, Key::Wrong(_)) => image_format(format, None, problems)?,
            _ => image_format(format, named(file), problems)?,
        },
        kernel: path(kernel),
        initrd: path(initrd),
        cmdline: cmdline.value().map(|text| text.0.clone()).or_else(by_default),
    })
}

/// Where the disk comes from, with the digest that has to be its.
fn base(name: &ImageName, at: &At<ImageDef>, problems: &mut Problems) -> Option<Base> {
    let ImageDef { file, url, sha256, sha512, .. } = at.get_ref();
    let span = sha256.as_ref().map(At::span).or(sha512.as_ref().map(At::span));
    if let (Key::Is(first), Key::Is(second)) = (sha256, sha512) {
        let problem = Problem::new(second.span(), format!("image {name} has two digests"));
        problems.push(problem.related(first.span(), "the other").help("remove one of them"));
    }
    if let (Key::Is(file), Key::Is(url)) = (file, url) {
        let problem = Problem::new(url.span(), format!("image {name} has a file and a url"));
        problems.push(problem.related(file.span(), "the file").help("remove one of them"));
    }
    let no_digest = sha256.is_missing() && sha512.is_missing();
    if let (Key::Is(url), true) = (url, no_digest) {
        let problem = Problem::new(url.span(), format!("image {name} has a url and no digest"));
        let help = "add sha256 = \"…\" or sha512 = \"…\", as the publisher prints it beside the image";
        problems.push(problem.help(help));
    }
    if let (Key::Missing, Key::Missing, Some(span)) = (file, url, span) {
        let problem = Problem::new(span, "a digest without a file or a url has no meaning");
        problems.push(problem.help("add url = \"https://…\", or remove the digest"));
    }
    let digest = sha256.value().map(|sha256| &sha256.0).or(sha512.value().map(|sha512| &sha512.0)).cloned();
    match (file.value(), url.value()) {
        (Some(file), _) => Some(Base::File { file: PathBuf::from(&file.0), digest }),
        (None, Some(url)) => Some(Base::Url { url: url.clone(), digest: digest? }),
        (None, None) => None,
    }
}

pub(super) fn path(key: &Key<Text>) -> Option<PathBuf> {
    key.value().map(|text| PathBuf::from(&text.0))
}

/// What a file is called, and where the definition says so.
pub(super) fn named(file: &Key<Text>) -> Option<(&str, std::ops::Range<usize>)> {
    match file {
        Key::Is(file) => Some((&file.get_ref().0, file.span())),
        Key::Missing | Key::Wrong(_) => None,
    }
}

/// The format as it is said, or by the name's ending; never by looking into the file, which a guest may have written.
/// Without a name there is nothing to have a format.
pub(super) fn image_format(
    format: &Key<ImageFormat>,
    name: Option<(&str, std::ops::Range<usize>)>,
    problems: &mut Problems,
) -> Option<ImageFormat> {
    let (name, span) = match (format, name) {
        (Key::Is(format), _) => return Some(*format.get_ref()),
        (Key::Wrong(_), _) => return None,
        (Key::Missing, None) => return Some(ImageFormat::Raw),
        (Key::Missing, Some(named)) => named,
    };
    if name.ends_with(".qcow2") {
        return Some(ImageFormat::Qcow2);
    }
    if name.ends_with(".raw") || name.ends_with(".img") {
        return Some(ImageFormat::Raw);
    }
    let problem = Problem::new(span, "this file's ending does not tell its format");
    problems.push(problem.help("add format = \"qcow2\" or \"raw\" (qemu-img info tells which)"));
    None
}
