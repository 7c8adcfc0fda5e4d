//! Programs that vmnet starts: which file, with what environment and which capabilities.
//!
//! A program is found on a fixed path, whatever `PATH` says, and started directly: no shell reads anything. It gets
//! none of the caller's environment. The one exception is what is the caller's own ([`callers`]).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::caps::{self, Caps};

/// Where programs are looked for.
const FOLDERS: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/qemu", "/usr/libexec"];

/// Where a program that is started looks for others.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The program of this name on the fixed search path.
pub fn find(name: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0);
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(runs)
}

/// A program at an absolute path, in `/`, with an environment of `PATH` and `LC_ALL=C` and nothing on standard input.
/// Who it runs as and what it may do is still to be said.
pub fn bare(program: &Path) -> Command {
    debug_assert!(program.is_absolute(), "{}", program.display());
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command
}

/// As [`bare`]; with those of the capabilities `only` that vmnet has itself, and able to gain none.
pub fn command(program: &Path, only: Caps) -> Command {
    let mut command = bare(program);
    // A signal from the terminal is for vmnet to handle, not for its helpers to die of. (What gets a session of its own
    // must not lead a group before.)
    command.process_group(0);
    // SAFETY: between fork and exec `hand` makes system calls only.
    unsafe { command.pre_exec(move || caps::hand(only)) };
    command
}

/// A program of the caller's, found on their `PATH` and with their environment: what they would start themselves, as
/// themselves (ssh, whose configuration, agent and proxies are theirs). It may do what vmnet may.
pub fn callers(name: &str) -> Command {
    Command::new(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_nothing_of_the_callers() {
        let output = command(&find("env").unwrap(), Caps::NONE).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("LC_ALL=C\nPATH={PATH}\n"));
        assert_eq!(find("no-such-program"), None);
    }
}
