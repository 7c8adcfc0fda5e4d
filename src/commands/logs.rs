//! `vmnet logs`: what a guest wrote to its serial console.
//!
//! A guest's output is untrusted: without `--raw` nothing is left in it that a terminal would obey.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anstream::adapter::StripBytes;
use serde::Serialize;

use super::failure::Failure;
use super::inside::is_machine;
use super::lookup;
use super::output::Output;
use super::session::paths;
use crate::engine::console_log::{self, Followed, Name};
use crate::engine::folder::Folder;
use crate::engine::{self, EngineError};
use crate::model::Engine;
use crate::names::{LabName, VmName};
use crate::rule;

/// How often somebody who follows looks for more.
const PAUSE: Duration = Duration::from_millis(200);

/// What the command line says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// Until the guest ends.
    pub(super) follow: bool,
    /// Only the last.
    pub(super) lines: Option<usize>,
    /// Those of the start before.
    pub(super) previous: bool,
    /// As the guest wrote it.
    pub(super) raw: bool,
}

impl Options {
    /// The same for a vmnet on another host.
    pub(super) fn words(&self, output: &Output) -> Vec<String> {
        let Self { follow, lines, previous, raw } = *self;
        let flags = [(follow, "--follow"), (previous, "--previous"), (raw, "--raw"), (!output.is_text(), "--json")];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag.to_owned());
        flags.chain(lines.map(|lines| format!("--lines={lines}"))).collect()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    lab: &'a str,
    vm: &'a str,
    running: bool,
    text: String,
}

pub(super) fn run(name: &str, options: Options, output: &Output) -> Result<ExitCode, Failure> {
    let Options { follow, lines, previous, raw } = options;
    if follow && !output.is_text() {
        return Err(Failure::Usage("--follow has no end, and --json prints one document: leave out one".to_owned()));
    }
    let (lab, vm) = lookup::guest(name)?;
    let (_, source) = lookup::applied(&lab)?;
    is_machine(&source, &vm, "no console")?;
    let failed = |error: EngineError| Failure::failed(format!("the log of vm {vm} can't be read"), error);
    let kept = match source.model.vms()[&vm].engine() {
        Engine::Libvirt => Kept::by_libvirt(&lab, &vm, previous)?,
        Engine::Qemu | Engine::Netns => Kept::by_vmnet(&lab, &vm, previous)?,
    };
    let folder = Folder::open(&kept.folder).map_err(failed)?.ok_or_else(|| none(&lab, &vm, previous))?;
    // Before it is read: what comes in between is shown twice rather than never.
    let followed = if follow { Some(Followed::from_end(&folder, &kept.name).map_err(failed)?) } else { None };
    let bytes = console_log::read(&folder, &kept.name).map_err(failed)?.ok_or_else(|| none(&lab, &vm, previous))?;
    let bytes = last(&bytes, lines);
    if !output.is_text() {
        let running = kept.runs().map_err(failed)?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        output.result(&Report { lab: lab.as_str(), vm: vm.as_str(), running, text }, String::new)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut written = Written { raw, strip: StripBytes::new() };
    written.write(bytes)?;
    let Some(mut followed) = followed else { return Ok(ExitCode::SUCCESS) };
    loop {
        // In this order: what a guest wrote before its end is read after it.
        let runs = kept.runs().map_err(failed)?;
        written.write(&followed.more(&folder).map_err(failed)?)?;
        if !runs {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Where a guest's log is, and how to know whether the guest runs.
struct Kept {
    folder: PathBuf,
    name: Name,
    guest: Runs,
}

/// Who knows whether it runs.
enum Runs {
    /// The record of this folder.
    Record(PathBuf),
    /// libvirt's file of this domain.
    Domain(String),
}

impl Kept {
    fn by_vmnet(lab: &LabName, vm: &VmName, previous: bool) -> Result<Self, Failure> {
        let paths = paths()?;
        let name = if previous { Name::previous() } else { Name::present() };
        Ok(Self { folder: paths.guest_state(lab, vm), name, guest: Runs::Record(paths.guest_run(lab, vm)) })
    }

    fn by_libvirt(lab: &LabName, vm: &VmName, previous: bool) -> Result<Self, Failure> {
        if previous {
            let text = format!("vm {vm} runs under libvirt, whose virtlogd keeps one log over all starts");
            return Err(Failure::advised(text, "leave out --previous"));
        }
        let domain = rule::domain_name(lab, vm);
        Ok(Self { folder: rule::LIBVIRT_LOGS.into(), name: Name::of_domain(&domain), guest: Runs::Domain(domain) })
    }

    fn runs(&self) -> Result<bool, EngineError> {
        match &self.guest {
            Runs::Record(run_dir) => Ok(engine::running_in(run_dir)?.is_some()),
            Runs::Domain(domain) => Ok(engine::libvirt::process(domain).is_some()),
        }
    }
}

/// Keeps the log of a guest, see [`engine::keep`].
pub(super) fn keep() -> Result<ExitCode, Failure> {
    engine::keep().map_err(|error| Failure::failed("the console can't be read any more", error))?;
    Ok(ExitCode::SUCCESS)
}

fn none(lab: &LabName, vm: &VmName, previous: bool) -> Failure {
    let what = if previous { "of the start before the last one" } else { "of the console" };
    Failure::advised(format!("vm {vm} has no log {what}"), format!("one is begun at each start: vmnet boot {lab}/{vm}"))
}

/// The last lines of a text; its end need not be the end of a line.
fn last(bytes: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return bytes };
    let end = if bytes.ends_with(b"\n") { bytes.len() - 1 } else { bytes.len() };
    let mut ends = (0..end).rev().filter(|at| bytes[*at] == b'\n');
    match (lines, ends.nth(lines.saturating_sub(1))) {
        (0, _) => &[],
        (_, Some(at)) => &bytes[at + 1..],
        (_, None) => bytes,
    }
}

/// Standard output.
struct Written {
    raw: bool,
    strip: StripBytes,
}

impl Written {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        let written = match self.raw {
            true => stdout.write_all(bytes),
            false => stdout.write_all(clean(&mut self.strip, bytes).as_bytes()),
        };
        written.and_then(|()| stdout.flush()).map_err(Failure::output)
    }
}

/// Without escape sequences and carriage returns; what else a terminal would obey is made visible.
fn clean(strip: &mut StripBytes, bytes: &[u8]) -> String {
    let plain: Vec<u8> = strip.strip_next(bytes).flatten().copied().collect();
    let mut text = String::with_capacity(plain.len());
    for c in String::from_utf8_lossy(&plain).chars() {
        match c {
            '\r' => {}
            '\n' | '\t' | '\'' | '"' | '\\' => text.push(c),
            c => text.extend(c.escape_debug()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_can_tell_a_terminal_nothing() {
        let clean = |bytes: &[u8]| clean(&mut StripBytes::new(), bytes);
        assert_eq!(clean(b"\x1b[2J\x1b]0;title\x07one\r\n\ttwo \"q\" \\\r\n"), "one\n\ttwo \"q\" \\\n");
        assert_eq!(clean("ü \u{9b}31m \u{202e}x".as_bytes()), "ü \\u{9b}31m \\u{202e}x");
        assert!(clean(b"\xff\xfe").chars().all(|c| !c.is_control()));
        // In two pieces.
        let mut strip = StripBytes::new();
        assert_eq!(super::clean(&mut strip, b"a\x1b[3") + &super::clean(&mut strip, b"1mb"), "ab");
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(last(text, None), text);
        assert_eq!(last(text, Some(0)), b"");
        assert_eq!(last(text, Some(1)), b"three\n");
        assert_eq!(last(text, Some(2)), b"two\nthree\n");
        assert_eq!(last(text, Some(9)), text);
        assert_eq!(last(b"one\nlogin: ", Some(1)), b"login: ");
        assert_eq!(last(b"", Some(1)), b"");
    }
}
