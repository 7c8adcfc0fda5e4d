//! What each command may do: the one table of capabilities (capabilities(7)).
//!
//! Before any work, [`enter`] refuses a command that lacks what it always needs, naming all of it, and gives up for
//! good whatever the command never needs. What only guests in QEMU need is asked for when a plan has some. The table
//! stands in `docs/security.md`, too.

use super::failure::Failure;
use crate::cli::Command;
use crate::kernel::caps::{self, Caps};
use crate::kernel::start;
use crate::plan::{Op, Plan};

/// Links, addresses, routes and tables of the host and of namespaces.
const NETWORK: Caps = Caps::NET_ADMIN.and(Caps::SYS_ADMIN);

/// Files and processes of the user that QEMU runs as, and becoming that user.
const GUESTS: Caps = PREPARING.and(Caps::KILL);

/// Files of another user, made by programs that run as that user.
const PREPARING: Caps = FOLDERS.and(Caps::SETGID).and(Caps::SETUID);

/// Folders of guests, which belong to another user.
const FOLDERS: Caps = Caps::CHOWN.and(Caps::DAC_OVERRIDE).and(Caps::FOWNER);

/// Entries of guests' folders, iptables' old tables, who has an address on a wire, and the namespaces of processes, which have more rights than are
/// left here: a container's device may hang on the lab's.
const LOOKING: Caps = Caps::DAC_OVERRIDE.and(Caps::NET_RAW).and(Caps::SYS_PTRACE);

/// What a command may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// It becomes, or starts, a program of the caller's, who keeps what they have.
    TheCallers,
    /// It needs `always`, and keeps `sometimes` where it is there.
    Only { always: Caps, sometimes: Caps },
}

impl Needs {
    const NOTHING: Self = Self::Only { always: Caps::NONE, sometimes: Caps::NONE };
    const LOOK: Self = Self::Only { always: NETWORK, sometimes: LOOKING };
    const CHANGE: Self =
        Self::Only { always: NETWORK, sometimes: LOOKING.and(GUESTS).and(Caps::SETPCAP).and(Caps::SYS_MODULE) };
    const PROBE: Self = Self::Only { always: NETWORK.and(Caps::NET_RAW), sometimes: Caps::DAC_OVERRIDE };
    /// A guest's disk and seed for somebody else; nothing is signalled, nothing of the network changed.
    const PREPARE: Self = Self::Only { always: NETWORK, sometimes: PREPARING.and(Caps::SETPCAP).and(Caps::NET_RAW) };
    /// A socket or a log in a guest's folder.
    const CONNECT: Self = Self::Only { always: Caps::NONE, sometimes: Caps::DAC_OVERRIDE };

    fn of(command: &Command) -> Self {
        match command {
            Command::Check(_) | Command::Completions { .. } | Command::Man | Command::Keep => Self::NOTHING,
            Command::Plan { .. } | Command::Status(_) | Command::List | Command::Ps(_) => Self::LOOK,
            Command::Create { .. }
            | Command::Undo(_)
            | Command::Restore { .. }
            | Command::Watch { .. }
            | Command::Destroy { .. }
            | Command::Gc { .. }
            | Command::Boot { .. }
            | Command::Stop { .. }
            | Command::Shutdown
            | Command::Reset { .. } => Self::CHANGE,
            // libvirt does it.
            Command::Attach { .. } | Command::Detach(_) => Self::LOOK,
            // It enters the router's namespace.
            Command::Reach { .. } => Self::LOOK,
            Command::Verify { .. } | Command::ProbePart { .. } => Self::PROBE,
            Command::Xml(_) | Command::QemuArgs { .. } => Self::PREPARE,
            // The word of consent alone, or files for later; root's files.
            Command::Confirm(_) | Command::Store(_) => Self::NOTHING,
            // Folders of guests say what their disks were made of; the store is root's.
            Command::Image(_) => Self::CONNECT,
            Command::Console(_) | Command::Logs { .. } => Self::CONNECT,
            Command::Ssh { .. } | Command::Exec { .. } | Command::Rebuild { .. } | Command::With(_) => Self::TheCallers,
            // What runs in the machines gives up what it does not need.
            Command::Rehearse(_) | Command::Hold { .. } | Command::Inside { .. } => Self::TheCallers,
        }
    }
}

/// Prepares this process for a command. No other thread may be there yet.
pub(super) fn enter(command: &Command) -> Result<(), Failure> {
    let Needs::Only { always, sometimes } = Needs::of(command) else { return Ok(()) };
    require(always)?;
    let fail = |error| Failure::failed("privileges that are not needed can't be given up; nothing was changed", error);
    start::put_right().map_err(fail)?;
    caps::confine(always.and(sometimes)).map_err(fail)
}

/// Refuses to go on without some capabilities: one error that names all that are missing.
pub(super) fn require(needed: Caps) -> Result<(), Failure> {
    let held =
        caps::held().map_err(|error| Failure::failed("the kernel does not tell this process's rights", error))?;
    let missing = needed.without(held);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.names().join(", ");
    Err(Failure::lacks(format!("this needs {names}, which vmnet was started without; run it as root (sudo vmnet …)")))
}

/// What the guests of a plan need.
pub(super) fn require_for(plan: &Plan) -> Result<(), Failure> {
    let is_machine = |op: &Op| match op {
        Op::StartGuest { guest, .. } | Op::StopGuest { guest, .. } => guest.is_machine(),
        _ => false,
    };
    if plan.ops().any(is_machine) { require_guests() } else { Ok(()) }
}

/// What starting and stopping guests in QEMU needs.
pub(super) fn require_guests() -> Result<(), Failure> {
    require(GUESTS)
}

/// What guests' folders need.
pub(super) fn require_folders() -> Result<(), Failure> {
    require(FOLDERS)
}

/// What making a disk and a seed for another user needs.
pub(super) fn require_to_prepare() -> Result<(), Failure> {
    require(PREPARING)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn reading_a_definition_needs_nothing_and_looking_changes_nothing() {
        let of = |line: &str| Needs::of(&Cli::try_parse_from(line.split(' ')).unwrap().command);
        assert_eq!(of("vmnet check"), Needs::NOTHING);
        assert_eq!(of("vmnet completions bash"), Needs::NOTHING);
        let changes = GUESTS.without(Caps::DAC_OVERRIDE).and(Caps::SYS_MODULE);
        for line in ["vmnet plan", "vmnet status", "vmnet ps", "vmnet verify", "vmnet console vm1"] {
            let Needs::Only { always, sometimes } = of(line) else { panic!("{line}") };
            assert!(always.and(sometimes).within(changes).is_empty(), "{line}");
        }
    }
}
