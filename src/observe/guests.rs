//! Guests that run: QEMU processes by what their start wrote down, namespace guests by their namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::census::Census;
use super::{ObserveError, Scope};
use crate::names::VmName;
use crate::rule;
use crate::state::Guest;

/// The longest description of a guest; its arguments and seed are in it.
const LONGEST: u64 = 4 << 20;

/// The guests of the lab that run.
pub fn read(scope: &Scope, census: &Census) -> Result<BTreeMap<VmName, Guest>, ObserveError> {
    let mut guests = BTreeMap::new();
    for ns in census.marks.keys() {
        let vm = ns.as_str().strip_prefix(rule::router_namespace(&scope.lab).as_str());
        if let Some(Ok(vm)) = vm.and_then(|rest| rest.strip_prefix('.')).map(str::parse) {
            guests.insert(vm, Guest::Netns { ns: ns.clone() });
        }
    }
    let folder = scope.paths.lab_run(&scope.lab).join("guests");
    let fail = |source| ObserveError::File { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(guests),
        Err(error) => return Err(fail(error)),
    };
    for entry in entries {
        let name = entry.map_err(fail)?.file_name();
        let Some(vm) = name.to_str().and_then(|name| name.parse::<VmName>().ok()) else { continue };
        if let Some(guest) = qemu(&folder.join(vm.as_str()))? {
            guests.insert(vm, guest);
        }
    }
    Ok(guests)
}

/// The guest whose folder this is, when its process is alive.
fn qemu(folder: &Path) -> Result<Option<Guest>, ObserveError> {
    let Some(pid) = trusted(&folder.join("pid"))? else { return Ok(None) };
    if !is_alive(&pid) {
        return Ok(None);
    }
    let path = folder.join("guest.json");
    let Some(text) = trusted(&path)? else { return Ok(None) };
    match serde_json::from_str(&text) {
        Ok(guest) => Ok(Some(Guest::Qemu(guest))),
        Err(source) => Err(ObserveError::Guest { path, source }),
    }
}

/// Whether `pid starttime` names a process that runs: a number alone may have been given to another one since.
fn is_alive(text: &str) -> bool {
    let mut parts = text.split_whitespace();
    let (Some(Ok(pid)), Some(start)) = (parts.next().map(str::parse::<u32>), parts.next()) else { return false };
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
    let stat = String::from_utf8_lossy(&stat);
    // proc_pid_stat(5): field 2 is a name in parentheses that may hold anything, field 3 the state, field 22 the
    // start time.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    fields.next() != Some("Z") && fields.nth(18) == Some(start)
}

/// The text of a file that we wrote; `None` when there is none. The folder belongs to the user that QEMU runs as,
/// who could put anything there: a file of another owner, a link or a pipe is none of ours.
fn trusted(path: &Path) -> Result<Option<String>, ObserveError> {
    let fail = |source| ObserveError::File { path: path.to_owned(), source };
    let file = match fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENXIO)) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(fail(error)),
    };
    let meta = file.metadata().map_err(fail)?;
    if !meta.is_file() || meta.nlink() != 1 || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(None);
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(fail)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let start = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
        let pid = std::process::id();
        assert!(is_alive(&format!("{pid} {start}\n")));
        assert!(!is_alive(&format!("{pid} 1")));
        assert!(!is_alive(&format!("{pid}")));
        assert!(!is_alive(""));
    }
}
