//! `vmnet image`, and what `boot` needs of images before it changes anything.

mod list;
mod meter;
mod prune;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::failure::Failure;
use super::lookup;
use super::output::{BAD, GOOD, Output, in_one, shown, visible};
use super::session::paths;
use super::source::Source;
use crate::cli;
use crate::images::{self, PullError};
use crate::ledger;
use crate::model::{Image, Model, Vm};
use crate::names::{Algorithm, FileDigest, ImageName, VmName};
use crate::paths::Paths;
pub(super) use list::list;
use meter::Meter;
pub(super) use prune::prune;

/// Sees to it that the disks of these guests' images are here, and are what the definition says. Nothing of a lab is
/// changed. Of several guests each stands for itself: what fails is told, and ends those that need it later.
pub(super) fn ready(source: &Source, vms: &[VmName], output: &Output) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for vm in vms.iter().filter_map(|vm| source.model.vms().get(vm)) {
        let Some(image) = vm.image().as_ref().filter(|image| seen.insert(image.name().clone())) else { continue };
        match one_ready(source, vm, image, output) {
            Err(failure) if vms.len() > 1 => {
                output.say(format_args!("{BAD}error{BAD:#}: {}", visible(&in_one(&failure))));
            }
            done => done?,
        }
    }
    Ok(())
}

fn one_ready(source: &Source, vm: &Vm, image: &Image, output: &Output) -> Result<(), Failure> {
    let paths = paths()?;
    if source.files().base(image).is_some_and(|path| !path.is_file()) {
        download(&paths, image, output)?;
    }
    // What is not there is told where it is needed.
    if source.files().base(image).is_some_and(|path| path.is_file()) {
        let meter = Meter::new(&format!("reading {}", image.name()), output);
        content(&paths, source, vm, |done, size| meter.at(done, Some(size)))?;
    }
    Ok(())
}

/// What is in the base disk of a guest's image, once that is what the definition says; `None` where it has none.
pub(super) fn content(
    paths: &Paths,
    source: &Source,
    vm: &Vm,
    on_progress: impl FnMut(u64, u64),
) -> Result<Option<FileDigest>, Failure> {
    let Some(image) = vm.image() else { return Ok(None) };
    let (Some(base), Some(path)) = (image.base(), source.files().base(image)) else { return Ok(None) };
    let (name, place) = (image.name(), shown(&path));
    if image.url().is_some() && !path.is_file() {
        let help = format!("run: vmnet image pull {} {name}", source.model.lab());
        return Err(Failure::advised(format!("vm {}: image {name} is not downloaded", vm.name()), help));
    }
    let algorithm = base.digest().map_or(Algorithm::Sha256, FileDigest::algorithm);
    let found = match source.files().stored(&path).filter(|stored| stored.algorithm() == algorithm) {
        // It was compared when it came, and nobody but root could change it since.
        Some(stored) => stored,
        None => images::digest_of(paths, &path, algorithm, on_progress)
            .map_err(|error| Failure::failed(format!("image {name}: {place} can't be read"), error))?,
    };
    match base.digest() {
        Some(wanted) if *wanted != found => {
            let word = algorithm.word();
            let message = format!("image {name}: {place} has the {word} {found}, and the definition says {wanted}");
            Err(Failure::advised(message, "put the right file there, or correct the digest and run vmnet create"))
        }
        _ => Ok(Some(found)),
    }
}

/// Downloads an image with a url where it is not here; says whether it had to.
fn download(paths: &Paths, image: &Image, output: &Output) -> Result<bool, Failure> {
    let Some((url, digest)) = image.download() else { return Ok(false) };
    let meter = Meter::new(&format!("downloading {}", image.name()), output);
    let pulled = images::pull(paths, url, digest, |step| meter.step(step));
    drop(meter);
    pulled.map_err(|error| not_pulled(image, error))
}

fn not_pulled(image: &Image, error: PullError) -> Failure {
    let message = format!("image {} is not here", image.name());
    match error.help() {
        Some(help) => {
            let causes = super::output::chain(&error).join(": ");
            Failure::advised(format!("{message}: {causes}"), help)
        }
        None => Failure::failed(message, error),
    }
}

#[derive(Serialize)]
struct Report {
    lab: String,
    images: Vec<Pulled>,
}

#[derive(Serialize)]
struct Pulled {
    image: ImageName,
    url: String,
    digest: FileDigest,
    /// Bytes.
    size: u64,
    /// False where it was here already.
    downloaded: bool,
}

/// `vmnet image pull`
pub(super) fn pull(lab: &cli::Lab, names: &[ImageName], output: &Output) -> Result<ExitCode, Failure> {
    let source = source(lab)?;
    let known = known(&source.model, names)?;
    let paths = paths()?;
    let mut report = Report { lab: source.model.lab().to_string(), images: Vec::new() };
    for image in known.into_values().filter(|image| names.is_empty() || names.contains(image.name())) {
        let Some((url, digest)) = image.download() else { continue };
        let downloaded = download(&paths, &image, output)?;
        let size = std::fs::metadata(paths.file(digest)).map(|meta| meta.len()).unwrap_or_default();
        let (url, digest) = (url.to_string(), digest.clone());
        report.images.push(Pulled { image: image.name().clone(), url, digest, size, downloaded });
    }
    output.result(&report, || text(&report))?;
    Ok(ExitCode::SUCCESS)
}

/// The images of a lab's guests. Refuses names of which there is none, or none to be downloaded.
pub(super) fn known(model: &Model, names: &[ImageName]) -> Result<BTreeMap<ImageName, Image>, Failure> {
    let images = model.vms().values().filter_map(|vm| vm.image().clone());
    let known: BTreeMap<ImageName, Image> = images.map(|image| (image.name().clone(), image)).collect();
    let lab = model.lab();
    if let Some(unknown) = names.iter().find(|name| !known.contains_key(*name)) {
        let names: Vec<&str> = known.keys().map(ImageName::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Failure::Usage(format!("no guest of lab {lab} has an image {unknown}; their images: {known}")));
    }
    if let Some(file) = names.iter().find(|name| known[*name].download().is_none()) {
        let why = "and only one with a url is downloaded; nothing was done";
        return Err(Failure::Usage(format!("image {file} of lab {lab} is a file of this host, {why}")));
    }
    Ok(known)
}

/// A definition as it is, or a lab as it was applied.
fn source(meant: &cli::Lab) -> Result<Source, Failure> {
    let cli::Lab { lab, named, hosts } = meant;
    let path = Path::new(lab);
    match (lookup::is_file(lab), &hosts.here) {
        (true, Some(here)) => Source::read(path, named.as_ref(), Some(here)),
        (true, None) => Source::read_whole(path, named.as_ref()),
        (false, _) => {
            let lab = lookup::lab(&lookup::meant(meant)?)?;
            let ledger = ledger::read(&paths()?, &lab)?.ok_or_else(|| {
                let help = format!("an image of a definition is named behind its file: vmnet image pull FILE {lab}");
                Failure::advised(format!("lab {lab} is not created on this host"), help)
            })?;
            Source::applied(&ledger)
        }
    }
}

fn text(report: &Report) -> String {
    if report.images.is_empty() {
        return format!("no guest of lab {} has an image with a url\n", report.lab);
    }
    let line = |pulled: &Pulled| {
        let size = indicatif::BinaryBytes(pulled.size);
        let came = if pulled.downloaded { format!("{GOOD}downloaded{GOOD:#}") } else { "here already".to_owned() };
        format!("image {}: {came}, {size}\n", pulled.image)
    };
    report.images.iter().map(line).collect()
}
