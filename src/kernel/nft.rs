//! nftables: text to `nft`, questions to the kernel.
//!
//! Tables are written by `nft -f -`, one transaction for all tables of a namespace. Whether a table is what was
//! written is told by its listing; whether a listing is worth a process is told by the generation number, which
//! every commit in a namespace moves.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use sha2::{Digest, Sha256};

use super::caps::Caps;
use super::{KernelError, child, netns};
use crate::plan::SetChange;
use crate::state::{Family, Ns, TableId};

/// Why nft did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The namespace can't be entered.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The program can't be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said no. Nothing has changed: a file is one transaction.
    #[error("nft refuses in {ns}: {message}")]
    Refused {
        /// The namespace.
        ns: Ns,
        /// What it printed, escaped, shortened.
        message: String,
    },
    /// What it printed is not what was asked for.
    #[error("{} printed something that is not JSON", program.display())]
    Json {
        /// The program.
        program: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The `nft` program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nft {
    program: PathBuf,
}

/// Above this length of a text, modules are loaded by a check of its skeleton first: see [`Nft::apply`].
const LONG: usize = 16 * 1024;

impl Nft {
    /// The program at an absolute path.
    pub fn new(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    /// Runs a text as one transaction.
    ///
    /// A kernel that lacks a module aborts the transaction, loads it and starts again; aborting big sets takes
    /// seconds to minutes before Linux 6.2. A long text is therefore checked without its elements first: that loads
    /// the modules and leaves nothing.
    pub fn apply(&self, ns: &Ns, text: &str) -> Result<(), NftError> {
        // A kernel without modules has no /proc/modules.
        if text.len() > LONG && Path::new("/proc/modules").exists() {
            self.check(ns, &without_elements(text))?;
        }
        self.run(ns, &["-f", "-"], text).map(drop)
    }

    /// Asks nft and the kernel whether they would take a text. Never with long sets: see [`Nft::apply`].
    pub fn check(&self, ns: &Ns, text: &str) -> Result<(), NftError> {
        self.run(ns, &["-c", "-f", "-"], text).map(drop)
    }

    /// A table's listing, without counters and other state; `None` when there is no such table.
    pub fn listing(&self, id: &TableId) -> Result<Option<Vec<u8>>, NftError> {
        let TableId { ns, family, name } = id;
        match self.run(ns, &["-s", "list", "table", family.word(), name], "") {
            Ok(listing) => Ok(Some(listing)),
            Err(NftError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A foreign table of the host as `nft -j` prints it.
    pub fn json(&self, family: &str, table: &str) -> Result<serde_json::Value, NftError> {
        let listing = self.run(&Ns::Host, &["-j", "list", "table", family, table], "")?;
        serde_json::from_slice(&listing).map_err(|source| NftError::Json { program: self.program.clone(), source })
    }

    fn run(&self, ns: &Ns, arguments: &[&str], text: &str) -> Result<Vec<u8>, NftError> {
        let fail = |source| NftError::Run { program: self.program.clone(), source };
        let once = || netns::run_in(ns, || self.spawn(arguments, text))?.map_err(fail);
        let mut output = once()?;
        // A signal from the terminal may hit it before it is in a group of its own. What it did is a transaction, and
        // doing it twice is the same as once.
        if output.status.signal().is_some() {
            output = once()?;
        }
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message: String = String::from_utf8_lossy(&output.stderr).chars().take(600).collect();
        let message = message.lines().map(|line| line.escape_debug().to_string()).collect::<Vec<_>>().join("; ");
        // One that was killed has said nothing.
        let message = if message.is_empty() { output.status.to_string() } else { message };
        Err(NftError::Refused { ns: ns.clone(), message })
    }

    /// A child inherits the namespace of the thread that starts it.
    fn spawn(&self, arguments: &[&str], text: &str) -> io::Result<Output> {
        let mut child = child::command(&self.program, Caps::NET_ADMIN)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        // Nothing to say, or nothing that a pipe does not hold (4 KiB is the least, pipe(7)), needs no thread.
        let write = move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
        let (output, written) = if text.len() <= 4096 {
            let written = write();
            (child.wait_with_output()?, written)
        } else {
            std::thread::scope(|scope| {
                // On a thread of its own: nft may print before it has read everything.
                let thread = match std::thread::Builder::new().spawn_scoped(scope, write) {
                    Ok(thread) => thread,
                    Err(error) => {
                        // It has got no text, and ends.
                        let _ = child.wait();
                        return Err(error);
                    }
                };
                let output = child.wait_with_output()?;
                Ok((output, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
            })?
        };
        // Half a text may be one that nft understands; one that it does not want to read to its end is told by itself.
        if output.status.success() {
            written?;
        }
        Ok(output)
    }
}

/// The text that replaces a table whole. `add` before `delete` makes it work where there is none (nft 1.0.6 has no
/// `destroy`).
pub fn replacing(id: &TableId, body: &str) -> String {
    let TableId { ns: _, family, name } = id;
    format!("add table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{body}\n}}\n")
}

/// The text that changes what sets of a table hold. What goes stands before what comes: it may overlap.
pub fn changing(id: &TableId, sets: &[SetChange]) -> String {
    let TableId { ns: _, family, name } = id;
    let lines = |verb: &str, of: fn(&SetChange) -> &Vec<String>| -> String {
        let line = |change: &SetChange| {
            format!("{verb} element {family} {name} {} {{ {} }}\n", change.set, of(change).join(", "))
        };
        sets.iter().filter(|change| !of(change).is_empty()).map(line).collect()
    };
    lines("delete", |change| &change.remove) + &lines("add", |change| &change.add)
}

/// The fingerprint of a listing.
pub fn fingerprint(listing: &[u8]) -> String {
    Sha256::digest(listing).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text that puts a table back as it was listed.
pub fn restoring(id: &TableId, listing: &str) -> String {
    format!("{}{listing}", removing(id))
}

/// The text that removes a table, there or not.
pub fn removing(id: &TableId) -> String {
    let TableId { ns: _, family, name } = id;
    format!("add table {family} {name}\ndelete table {family} {name}\n")
}

/// A text with all sets empty, and no changes to any.
fn without_elements(text: &str) -> String {
    let is_change = |line: &&str| line.starts_with("add element ") || line.starts_with("delete element ");
    let text: String = text.split_inclusive('\n').filter(|line| !is_change(line)).collect();
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("elements = {") {
        kept.push_str(before);
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    kept + rest
}

/// A table as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// `NFPROTO_*` of linux/netfilter.h.
    pub family: u8,
    /// Its name, lossy.
    pub name: String,
    /// Its comment, lossy.
    pub comment: Option<String>,
}

/// A base chain as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRow {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table, lossy.
    pub table: String,
    /// Its name, lossy.
    pub name: String,
    /// `NF_INET_*` or `NF_BR_*`: 2 is forward in both.
    pub hook: u32,
}

/// The `NFPROTO_*` number of a family.
pub fn protocol(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Bridge => 7,
    }
}

/// The nft word for an `NFPROTO_*` number.
pub fn family_word(protocol: u8) -> &'static str {
    match protocol {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skeleton_of_a_text_has_no_elements() {
        let text =
            "table inet x {\nset a {\ntype ifname\nelements = { \"a\",\n \"b\" }\n}\nset b {\nelements = { 1 }\n}\n}";
        assert_eq!(without_elements(text), "table inet x {\nset a {\ntype ifname\n\n}\nset b {\n\n}\n}");
        assert_eq!(without_elements("chain x {\n}"), "chain x {\n}");
        let change = SetChange { set: "a".into(), remove: vec!["1".into()], add: vec!["2".into(), "3".into()] };
        let id = TableId { ns: Ns::Host, family: Family::Inet, name: "x".into() };
        let text = changing(&id, &[change]);
        assert_eq!(text, "delete element inet x a { 1 }\nadd element inet x a { 2, 3 }\n");
        assert_eq!(without_elements(&format!("{text}chain x {{\n}}\n")), "chain x {\n}\n");
    }
}
