//! [`Door`]: a `vmnet-libvirt` that is asked, one question after the other, each within a time limit.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::kernel::caps::Caps;
use crate::kernel::child;
use crate::libvirt::{Answer, Ask, Refusal, RefusalKind, VERSION};

/// The program.
pub const PROGRAM: &str = "vmnet-libvirt";

/// How long an answer may take. Starting a guest is the longest: libvirt waits for QEMU up to 30 s.
const LIMIT: Duration = Duration::from_secs(90);

/// How long it may take where nothing is done but looking; a libvirt that systemd starts for it included.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// Why nothing came of a question.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The program is not there.
    #[error("there is no {PROGRAM} beside vmnet, nor in the usual places")]
    NoProgram,
    /// It can't be started.
    #[error("cannot start {}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection to it broke.
    #[error("{PROGRAM} ended in the middle of a question: {said}")]
    Broken {
        /// The last it said on standard error, or how it ended.
        said: String,
    },
    /// It says something that is no answer.
    #[error("{PROGRAM} gives no answer that this vmnet understands; install both of one version")]
    Nonsense(#[source] serde_json::Error),
    /// No answer in time.
    #[error("libvirt gives no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// libvirt refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl DoorError {
    /// What kind of refusal it is, where it is one.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            DoorError::Refused(refusal) => Some(refusal.kind),
            DoorError::NoProgram
            | DoorError::Start { .. }
            | DoorError::Broken { .. }
            | DoorError::Nonsense(_)
            | DoorError::Late(_) => None,
        }
    }

    /// Whether the host lacks something: the program, or a daemon that lets vmnet in.
    pub fn is_lack(&self) -> bool {
        let absent = [Some(RefusalKind::NoDaemon), Some(RefusalKind::NotPermitted)];
        matches!(self, DoorError::NoProgram) || absent.contains(&self.refusal())
    }

    /// What to do about it, as a sentence without a full stop; `None` where nothing general helps.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            DoorError::NoProgram => Some("install it where vmnet is: cargo build --features libvirt; make install"),
            DoorError::Refused(refusal) => match refusal.kind {
                RefusalKind::NoDaemon => Some(
                    "start libvirt (systemctl start libvirtd, package libvirt-daemon-system), or do without it \
                     (engine = \"qemu\", libvirt = false)",
                ),
                RefusalKind::NotPermitted => Some("run vmnet as root, or as a member of the group libvirt"),
                _ => None,
            },
            DoorError::Late(_) => Some("look into journalctl -u libvirtd; systemctl restart libvirtd ends no guest"),
            _ => None,
        }
    }
}

/// `vmnet-libvirt`: beside this program, or where programs are looked for.
pub fn program() -> Option<PathBuf> {
    let own = std::fs::read_link("/proc/self/exe").ok();
    let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(PROGRAM));
    beside.filter(|path| path.is_file()).or_else(|| child::find(PROGRAM))
}

/// A connection to libvirt.
#[derive(Debug)]
pub struct Door {
    child: Child,
    /// `None` once it is closed.
    questions: Option<ChildStdin>,
    answers: ChildStdout,
    /// What came behind the last answer's end.
    rest: Vec<u8>,
}

impl Door {
    /// Starts it and connects.
    pub fn open(uri: &str) -> Result<Self, DoorError> {
        let path = program().ok_or(DoorError::NoProgram)?;
        let mut command = child::command(&path, Caps::NONE);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let fail = |source| DoorError::Start { path: path.clone(), source };
        let mut child = command.spawn().map_err(fail)?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fail(io::ErrorKind::BrokenPipe.into()));
        };
        let mut door = Self { child, questions: Some(questions), answers, rest: Vec::new() };
        door.ask(&Ask::Open { version: VERSION, uri: uri.to_owned() })?;
        Ok(door)
    }

    /// Asks.
    ///
    /// # Errors
    /// libvirt's refusal, or what kept its answer from coming.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, DoorError> {
        let mut line = serde_json::to_vec(ask).map_err(DoorError::Nonsense)?;
        line.push(b'\n');
        let written = match &mut self.questions {
            Some(questions) => questions.write_all(&line).and_then(|()| questions.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if written.is_err() {
            return Err(self.broken());
        }
        let line = self.line(match ask {
            Ask::Open { .. } | Ask::Domains | Ask::Networks => LOOK_LIMIT,
            _ => LIMIT,
        })?;
        match serde_json::from_slice(&line).map_err(DoorError::Nonsense)? {
            Answer::Refused { refusal } => Err(refusal.into()),
            answer => Ok(answer),
        }
    }

    fn line(&mut self, limit: Duration) -> Result<Vec<u8>, DoorError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.rest, rest));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut waits = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waits, timeout) {
                Ok(0) => return Err(DoorError::Late(limit)),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return Err(self.broken()),
            }
            let mut part = [0; 1 << 16];
            match self.answers.read(&mut part) {
                Ok(0) | Err(_) => return Err(self.broken()),
                Ok(length) => self.rest.extend_from_slice(&part[..length]),
            }
        }
    }

    /// It has closed its end, or is about to.
    fn broken(&mut self) -> DoorError {
        self.questions = None;
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Whatever can't be read is not said.
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let said: String = last.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let mut ended = || self.child.wait().map(|status| status.to_string()).unwrap_or_default();
        DoorError::Broken { said: if said.is_empty() { ended() } else { said } }
    }
}

impl Drop for Door {
    /// It ends with its standard input; what hangs is ended.
    fn drop(&mut self) {
        self.questions = None;
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
