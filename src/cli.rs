//! The command line as clap sees it. Its types stop here: commands take them apart and know no clap.

mod image;
mod plug;
mod values;
mod with;

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;

pub use image::Image;
pub use plug::{Model, Plug};
pub use values::GuestName;
pub(crate) use values::duration;
pub use with::With;

use crate::engine::KEEP;
use crate::names::{FileDigest, HostName, LabName};

/// One TOML file in, a working VM network out.
///
/// Exit codes: 0 done; 1 failed; 2 the definition or the command line is wrong; 3 `plan --check` found changes; 4 the
/// host lacks something, and the message names the package, module or capability.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print JSON lines: progress, remarks, then the result; for a vmnet on another host.
    #[arg(long, global = true, hide = true)]
    pub events: bool,
    /// Say more about what is done (repeat for more); RUST_LOG overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Cli {
    /// The command line of this process. One that can't be understood ends it.
    pub fn of_process() -> Self {
        let words: Vec<_> = std::env::args_os().collect();
        match words.iter().map(|word| word.to_str()).collect::<Vec<_>>().as_slice() {
            [_, Some(WATCH), Some(lab), Some(id)] => {
                let command = Command::Watch { lab: (*lab).to_owned(), id: (*id).to_owned() };
                Self { command, json: false, events: false, verbose: 0 }
            }
            [_, Some(KEEP)] => Self { command: Command::Keep, json: false, events: false, verbose: 0 },
            [_, Some(HOLD), Some(lab), Some(machine), folders @ ..] => {
                let folders = folders.iter().flatten().map(PathBuf::from).collect();
                let command = Command::Hold { lab: (*lab).to_owned(), machine: (*machine).to_owned(), folders };
                Self { command, json: false, events: false, verbose: 0 }
            }
            [_, Some(INSIDE), Some(pid), args @ ..] => {
                let args = args.iter().flatten().map(|arg| (*arg).to_owned()).collect();
                let command = Command::Inside { pid: pid.parse().unwrap_or_default(), args };
                Self { command, json: false, events: false, verbose: 0 }
            }
            _ => Self::parse_from(words),
        }
    }
}

/// The verb of the process that waits for a change to be confirmed.
pub const WATCH: &str = "await-confirm";

/// The verb of the process that keeps a machine of a rehearsal.
pub const HOLD: &str = "hold-rehearsed";

/// The verb of the process that runs vmnet in a machine of a rehearsal.
pub const INSIDE: &str = "inside-rehearsed";

/// A verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read a definition and report every problem in it; the host is not looked at.
    Check(File),
    /// Show what `create` would do, and do nothing.
    Plan {
        /// The definition.
        #[command(flatten)]
        file: File,
        /// The hosts.
        #[command(flatten)]
        hosts: Hosts,
        /// Exit with 3 when there is something to do.
        #[arg(long)]
        check: bool,
    },
    /// Make the network, or change and repair it until it is as the definition says.
    Create {
        /// The definition.
        #[command(flatten)]
        file: File,
        /// The hosts.
        #[command(flatten)]
        hosts: Hosts,
        /// Undo it after this time (60s, 5m) unless `vmnet confirm` comes before: for changes that might cut you off.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        confirm: Option<Duration>,
        /// Of several hosts: unless all are done within this time, all go back by themselves; without it that is two
        /// minutes, and more for a large lab.
        #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "confirm")]
        within: Option<Duration>,
        /// Refuse where there is anything of such a lab already; for `vmnet with`.
        #[arg(long, hide = true)]
        new: bool,
    },
    /// Make a lab, start its guests, wait for them, run a command and remove everything again, whatever comes of it; exit
    /// with the command's code.
    With(With),
    /// Make a lab anew: destroy it, create it, give its guests fresh disks, start them, wait for them and verify. After
    /// an interruption run it again; it ends in the same state.
    Rebuild {
        /// The definition.
        #[command(flatten)]
        file: File,
        /// The hosts.
        #[command(flatten)]
        hosts: Hosts,
        /// Don't ask whether the guests' disks may go.
        #[arg(long)]
        yes: bool,
        /// Wait for guests at most this long.
        #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
        wait: Duration,
        /// Of several hosts: unless all are created within this time, all go back by themselves.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        within: Option<Duration>,
    },
    /// Keep what `create --confirm` made.
    Confirm(Lab),
    /// Go back to what was there before a change that is not confirmed, or was interrupted.
    Undo(Lab),
    /// Bring labs back as they were applied, after a reboot, and start their guests with autostart.
    Restore {
        /// Definitions (by their path), or names of labs; without one: all labs of this host.
        #[arg(value_name = "FILE|LAB")]
        labs: Vec<String>,
        /// The name that the lab of the file has instead of the one which the file says.
        #[arg(long = "lab", value_name = "NAME")]
        named: Option<LabName>,
    },
    /// Remove everything that belongs to a lab; guests' disks are kept.
    Destroy {
        /// The lab.
        #[command(flatten)]
        lab: Lab,
        /// Stop running guests first.
        #[arg(long)]
        stop: bool,
        /// Remove the guests' disks and keys too.
        #[arg(long)]
        purge: bool,
        /// Go on although devices that are not the lab's are plugged into its bridges, stacked on them, or in its
        /// namespaces.
        #[arg(long)]
        force: bool,
    },
    /// Try a definition out on this machine: every host of it becomes namespaces, with stand-ins for its devices and the
    /// world around it; create, boot and verify run there, and then everything disappears. Nothing of this machine's
    /// network is touched, and root is not needed.
    Rehearse(Rehearse),
    /// List the labs of this host: those that were created, and those of which only leftovers are there.
    #[command(visible_alias = "ls")]
    List,
    /// Remove what is left of labs without a ledger: what a crash, a deleted state folder or a foreign hand left
    /// behind. A lab that has one is not touched, and a thing without a mark neither.
    Gc {
        /// Only show what would go.
        #[arg(long)]
        dry_run: bool,
        /// Stop guests of such labs that still run.
        #[arg(long)]
        stop: bool,
        /// Remove the disks of labs that are gone too, those that destroy kept among them.
        #[arg(long)]
        purge: bool,
        /// Go on although devices that are not the lab's are plugged into its bridges, stacked on them, or in its
        /// namespaces, or guests run of which nothing was recorded.
        #[arg(long)]
        force: bool,
    },
    /// Show the network, and what differs from how it was created.
    Status(Lab),
    /// Probe who reaches whom, and compare with what the definition says.
    Verify {
        /// The lab.
        #[command(flatten)]
        lab: Lab,
        /// Write a JUnit report too.
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// An address beyond the router that answers echo requests, for example 9.9.9.9: tried too.
        #[arg(long, value_name = "ADDRESS")]
        outside: Vec<IpAddr>,
    },
    /// Start guests.
    Boot {
        /// Which.
        #[command(flatten)]
        guests: Guests,
        /// Wait until they answer on the network, at most this long (30s, 2m).
        #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "120s", value_parser = duration,
              require_equals = true)]
        wait: Option<Duration>,
        /// Start at most so many guests in QEMU at the same time; without it as many as this host has CPUs, and twice
        /// as many where all are accelerated by KVM. With --wait the next one starts when one answers.
        #[arg(long, value_name = "N")]
        jobs: Option<NonZeroUsize>,
        /// Start guests although the host has not enough free memory for all of them.
        #[arg(long)]
        overcommit: bool,
    },
    /// Stop guests: by the power button (ACPI), and after a minute by the power cord.
    Stop {
        /// Which.
        #[command(flatten)]
        guests: Guests,
        /// Go on although devices that are not the lab's are in a guest's namespace: they go with it.
        #[arg(long)]
        force: bool,
    },
    /// Shut the guests of all labs down, side by side, before the host is shut down: by the power button, and after a
    /// minute by the power cord. vmnet-guests.service runs it.
    Shutdown,
    /// Give guests fresh disks at their next boot; they must not be running.
    Reset {
        /// Which.
        #[command(flatten)]
        guests: Guests,
        /// Stop them first.
        #[arg(long)]
        stop: bool,
    },
    /// Plug a domain of libvirt's that is nobody's guest into a network of a lab of this host: now, where it runs, and
    /// for its next starts. Where it is plugged in already, nothing is done.
    Attach {
        /// What, and where.
        #[command(flatten)]
        plug: Plug,
        /// The kind of NIC that it sees.
        #[arg(long, value_enum, default_value_t = Model::Virtio)]
        model: Model,
    },
    /// Take away what attach plugged in.
    Detach(Plug),
    /// List guests with the MAC, TAP, bridge and address of each nic.
    Ps(Lab),
    /// Talk to a guest's serial console; Ctrl-] leaves.
    Console(Guest),
    /// Show what a guest wrote to its serial console since its last start, while it runs and afterwards. Kept are the
    /// last two MiB.
    Logs {
        /// Which guest.
        #[command(flatten)]
        guest: Guest,
        /// Go on until the guest ends.
        #[arg(short, long, conflicts_with = "previous")]
        follow: bool,
        /// Only the last lines.
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
        /// That of the start before.
        #[arg(long)]
        previous: bool,
        /// Byte for byte as the guest wrote it; else without what a terminal would obey.
        #[arg(long)]
        raw: bool,
    },
    /// Log in to a guest, through the lab's router.
    Ssh {
        /// Which guest.
        #[command(flatten)]
        guest: Guest,
        /// Further arguments for ssh: options, or a command to run.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a command in a guest of the netns engine.
    Exec {
        /// Which guest.
        #[command(flatten)]
        guest: Guest,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Print libvirt domain XML for a guest; the first time that makes its disk and seed, for libvirt's user.
    Xml(Guest),
    /// Print a QEMU command line for a guest, for people who start QEMU themselves; the first time that makes its disk
    /// and seed, for the user who will.
    QemuArgs {
        /// Which guest.
        #[command(flatten)]
        guest: Guest,
        /// For a user who is not root: QEMU's bridge helper instead of the hooks.
        #[arg(long)]
        unprivileged: bool,
    },
    /// Images of guests: download them, list them, remove those that nobody uses.
    #[command(subcommand)]
    Image(Image),
    /// Keep files for guests that come from another host; no verb for people.
    #[command(subcommand, hide = true)]
    Store(Store),
    /// Join standard input and output with a guest's ssh server, for an ssh on another machine; no verb for people.
    #[command(hide = true)]
    Reach {
        /// Which guest.
        #[command(flatten)]
        guest: Guest,
        /// Only say what that ssh has to know.
        #[arg(long)]
        about: bool,
    },
    /// Do this host's part of a verify of several; a coordinator asks on standard input, and it is no verb for people.
    #[command(hide = true)]
    ProbePart {
        /// The lab.
        lab: LabName,
    },
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
    /// Wait for the end of a change's time, and go back unless it was confirmed; started by `create --confirm`, and
    /// no verb for people.
    #[command(skip)]
    Watch {
        /// The lab.
        lab: String,
        /// The change.
        id: String,
    },
    /// Log standard input to the working directory; no verb for people.
    #[command(skip)]
    Keep,
    /// Keep a machine of a rehearsal; no verb for people.
    #[command(skip)]
    Hold {
        /// The lab.
        lab: String,
        /// The machine.
        machine: String,
        /// Folders below /run that are there, too.
        folders: Vec<PathBuf>,
    },
    /// Run vmnet in a machine of a rehearsal; no verb for people.
    #[command(skip)]
    Inside {
        /// The process that keeps the machine.
        pid: u32,
        /// What vmnet gets.
        args: Vec<String>,
    },
}

/// What is done with a rehearsal.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// The definition (net.toml unless said); for --enter and --end also the name of a lab.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Run the file as the lab of this name instead of the one that it says: another lab beside that one.
    #[arg(long = "lab", value_name = "NAME")]
    pub named: Option<LabName>,
    /// Leave everything there for looking around, and say how.
    #[arg(long)]
    pub keep: bool,
    /// Boot guests as the definition says, and not as namespaces; needs root.
    #[arg(long)]
    pub guests: bool,
    /// Only these hosts.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub only: Vec<HostName>,
    /// Write a JUnit report of what verify saw.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Run a shell, or the command behind --, on a host of a rehearsal that was kept; `outside` and `switches` are
    /// machines of it, too.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["keep", "guests", "only", "junit", "end"])]
    pub enter: Option<String>,
    /// End a rehearsal that was kept.
    #[arg(long, conflicts_with_all = ["keep", "guests", "only", "junit"])]
    pub end: bool,
    /// The command for --enter.
    #[arg(last = true, value_name = "COMMAND", requires = "enter")]
    pub command: Vec<String>,
}

/// What a coordinator asks about files.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Which of these files are not here.
    Has {
        /// SHA-256 of each.
        digests: Vec<FileDigest>,
    },
    /// Take a file from standard input.
    Take {
        /// Its SHA-256.
        digest: FileDigest,
        /// How many bytes it has.
        size: u64,
    },
}

/// A definition.
#[derive(Debug, Args)]
pub struct File {
    /// The definition.
    #[arg(value_name = "FILE", default_value = "net.toml")]
    pub file: PathBuf,
    /// Run the file as the lab of this name instead of the one that it says: another lab beside that one.
    #[arg(long = "lab", value_name = "NAME")]
    pub named: Option<LabName>,
}

/// Which hosts, where a definition names some. Without a word all of them, over ssh.
#[derive(Debug, Clone, Default, Args)]
pub struct Hosts {
    /// Of a definition with hosts: take this host's part, on this machine.
    #[arg(long, value_name = "HOST")]
    pub here: Option<HostName>,
    /// Of a definition with hosts: only these.
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', conflicts_with = "here")]
    pub only: Vec<HostName>,
    /// Copy this vmnet to hosts that have none, or another version.
    #[arg(long, conflicts_with = "here")]
    pub install: bool,
}

/// A lab, by file or by name.
#[derive(Debug, Args)]
pub struct Lab {
    /// A definition (its path: with a dot or a slash), or the name of a lab that was created on this host.
    #[arg(value_name = "FILE|LAB", default_value = "net.toml")]
    pub lab: String,
    /// The lab of this name that runs from the file, instead of the one that the file says.
    #[arg(long = "lab", value_name = "NAME")]
    pub named: Option<LabName>,
    /// The hosts.
    #[command(flatten)]
    pub hosts: Hosts,
}

/// Some guests of one lab.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["vms", "all"]))]
pub struct Guests {
    /// Guests, as vm1 or campus/vm1.
    #[arg(value_name = "VM")]
    pub vms: Vec<String>,
    /// All guests of the lab.
    #[arg(long)]
    pub all: bool,
    /// The lab they are in, by file or name; without it --all means that of ./net.toml, or the only one.
    #[arg(long, value_name = "FILE|LAB")]
    pub of: Option<String>,
    /// The lab of this name that runs from the file, instead of the one that the file says.
    #[arg(long = "lab", value_name = "NAME")]
    pub named: Option<LabName>,
    /// The hosts.
    #[command(flatten)]
    pub hosts: Hosts,
}

/// One guest.
#[derive(Debug, Args)]
pub struct Guest {
    /// The guest, as vm1 or campus/vm1.
    #[arg(value_name = "VM")]
    pub vm: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
