//! Images: what guests boot. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Image, ImageFormat};
use crate::definition::{At, Entries, ImageDef, Key, Problem, Problems, Text};
use crate::names::ImageName;

/// Every image that makes sense, whether a guest uses it or not.
pub(super) fn images(defs: &Entries<ImageName, ImageDef>, problems: &mut Problems) -> BTreeMap<ImageName, Image> {
    defs.iter().filter_map(|(name, def)| Some((name.clone(), image(name, def, problems)?))).collect()
}

fn image(name: &ImageName, at: &At<ImageDef>, problems: &mut Problems) -> Option<Image> {
    let ImageDef { file, format, kernel, initrd, cmdline } = at.get_ref();
    if file.is_missing() && kernel.is_missing() {
        let problem = Problem::new(at.span(), format!("image {name} has neither a file nor a kernel"));
        problems.push(problem.help("add file = \"vm-images/debian-12.qcow2\""));
    }
    for (key, other) in [("initrd", initrd), ("cmdline", cmdline)] {
        if let (Key::Is(other), Key::Missing) = (other, kernel) {
            let problem = Problem::new(other.span(), format!("{key} without a kernel has no meaning"));
            problems.push(problem.help(format!("add kernel = \"…\", or remove {key}")));
        }
    }
    if let (Key::Missing, Key::Is(format)) = (file, format) {
        let problem = Problem::new(format.span(), "format without a file has no meaning");
        problems.push(problem.help("add file = \"…\", or remove format"));
    }
    let by_default = || kernel.as_ref().map(|_| "console=ttyS0".to_owned());
    Some(Image {
        name: name.clone(),
        file: path(file),
        format: image_format(file, format, problems)?,
        kernel: path(kernel),
        initrd: path(initrd),
        cmdline: cmdline.value().map(|text| text.0.clone()).or_else(by_default),
    })
}

fn path(key: &Key<Text>) -> Option<PathBuf> {
    key.value().map(|text| PathBuf::from(&text.0))
}

/// The format as it is said, or by the file's ending; never by looking into the file, which a guest may have written.
fn image_format(file: &Key<Text>, format: &Key<ImageFormat>, problems: &mut Problems) -> Option<ImageFormat> {
    let file = match (format, file) {
        (Key::Is(format), _) => return Some(*format.get_ref()),
        (Key::Wrong(_), _) | (_, Key::Wrong(_)) => return None,
        (Key::Missing, Key::Missing) => return Some(ImageFormat::Raw),
        (Key::Missing, Key::Is(file)) => file,
    };
    let name = file.get_ref().0.as_str();
    if name.ends_with(".qcow2") {
        return Some(ImageFormat::Qcow2);
    }
    if name.ends_with(".raw") || name.ends_with(".img") {
        return Some(ImageFormat::Raw);
    }
    let problem = Problem::new(file.span(), "this file's ending does not tell its format");
    problems.push(problem.help("add format = \"qcow2\" or \"raw\" (qemu-img info tells which)"));
    None
}
