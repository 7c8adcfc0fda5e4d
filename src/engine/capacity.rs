//! What this host has for guests.

use std::fs;
use std::io;
use std::num::NonZeroUsize;

use crate::desired::capacity::{Capacity, Running};
use crate::engine::{libvirt, record};
use crate::names::LabName;
use crate::paths::Paths;
use crate::render::qemu::memory_in;

/// Looks at memory, CPUs, and the guests that run: those of these labs that have a record, and these domains of
/// libvirt's, each with its lab and the bytes of its memory.
///
/// # Errors
/// When `/proc/meminfo` is not as it should be.
pub fn capacity(paths: &Paths, labs: &[LabName], domains: &[(LabName, String, u64)]) -> io::Result<Capacity> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo does not say how much memory there is");
    let memory = field(&text, "MemTotal:").ok_or_else(missing)?;
    let available = field(&text, "MemAvailable:").ok_or_else(missing)?;
    // A lab whose records can't be read says so where they matter.
    let mut running = Vec::new();
    let mut add =
        |lab: &LabName, memory, pid| running.push(Running { lab: lab.clone(), memory, resident: resident(pid) });
    for lab in labs {
        for record in record::running(paths, lab).unwrap_or_default() {
            memory_in(&record.guest.args).into_iter().for_each(|memory| add(lab, memory, record.pid));
        }
    }
    for (lab, name, memory) in domains {
        // libvirt's file may have outlived the process.
        libvirt::process(name).into_iter().for_each(|(pid, _)| add(lab, *memory, pid));
    }
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Ok(Capacity { cpus, memory, available, running })
}

/// A line of `/proc/meminfo` in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a process has in memory, in bytes.
fn resident(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    pages.saturating_mul(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        let text = "MemTotal:       16303852 kB\nMemFree:         1234 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(field(text, "MemTotal:"), Some(16_303_852 * 1024));
        assert_eq!(field(text, "MemAvailable:"), Some(8_000_000 * 1024));
        assert_eq!(field("MemTotal: much\n", "MemTotal:"), None);
        assert!(resident(i32::try_from(std::process::id()).unwrap()) > 1 << 16);
    }
}
