//! A client for the QEMU monitor protocol: JSON lines on a UNIX socket (QEMU's docs/interop/qmp-spec).

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::folder::Folder;
use crate::render::qemu::QMP_SOCKET;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket can't be reached, or broke.
    #[error("its control socket fails")]
    Socket(#[source] io::Error),
    /// QEMU closed the connection: it is ending.
    #[error("it closed its control socket")]
    Closed,
    /// No answer came in time.
    #[error("no answer to {0} within {ANSWER_LIMIT:?}")]
    Late(&'static str),
    /// It said something that is no QMP.
    #[error("it speaks no QMP: {0}")]
    Nonsense(String),
    /// It refused a command.
    #[error("it refused {command}: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its reason.
        reason: String,
    },
}

/// How long an answer may take. QEMU answers from its main loop, which a busy host can hold up.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The longest line that is read, in bytes. QEMU's own are below a few KiB; one that was taken over by its guest could
/// send lines without end.
const LONGEST: u64 = 1 << 20;

/// What QEMU says in one line.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line of a connection.
    Greeting,
    /// What a command returns.
    Return(Value),
    /// Why a command is refused, fit for printing.
    Refusal(String),
    /// Anything else. Events come at any time, also between a command and its return.
    Event,
}

/// Reads a line.
///
/// # Errors
/// [`QmpError::Nonsense`] when it is no JSON.
pub fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let mut message: Value = serde_json::from_slice(line).map_err(|_| nonsense(line))?;
    let Some(parts) = message.as_object_mut() else { return Err(nonsense(line)) };
    if let Some(value) = parts.remove("return") {
        return Ok(Message::Return(value));
    }
    if let Some(error) = parts.get("error") {
        return Ok(Message::Refusal(tame(error["desc"].as_str().unwrap_or_default())));
    }
    Ok(if parts.contains_key("QMP") { Message::Greeting } else { Message::Event })
}

fn nonsense(line: &[u8]) -> QmpError {
    QmpError::Nonsense(tame(&String::from_utf8_lossy(line)))
}

/// What a guest may have put into QEMU's mouth, for a terminal: printable ASCII, cut where nobody reads on.
fn tame(text: &str) -> String {
    text.chars().take(200).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// A connection that is ready for commands. QEMU serves one at a time.
#[derive(Debug)]
pub struct Qmp {
    read: BufReader<OwnedReadHalf>,
    /// What has come of a line: it outlives a wait that was given up.
    line: Vec<u8>,
    write: OwnedWriteHalf,
}

impl Qmp {
    /// Connects to the socket in a guest's run folder and leaves negotiation mode.
    pub async fn connect(run: &Folder) -> Result<Self, QmpError> {
        let place = run.socket(QMP_SOCKET).map_err(QmpError::Socket)?;
        let name = format!("/proc/self/fd/{}", place.as_raw_fd());
        let stream = UnixStream::connect(name).await.map_err(QmpError::Socket)?;
        let (read, write) = stream.into_split();
        let mut qmp = Self { read: BufReader::new(read), line: Vec::new(), write };
        let greeting = tokio::time::timeout(ANSWER_LIMIT, qmp.message()).await;
        let greeting = greeting.map_err(|_| QmpError::Late("the connection"))??;
        if greeting != Message::Greeting {
            return Err(QmpError::Nonsense("it does not greet".into()));
        }
        qmp.execute("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// Carries out a command without arguments and gives what it returns.
    pub async fn execute(&mut self, command: &'static str) -> Result<Value, QmpError> {
        let answer = async {
            let line = format!("{}\n", json!({ "execute": command }));
            self.write.write_all(line.as_bytes()).await.map_err(QmpError::Socket)?;
            loop {
                match self.message().await? {
                    Message::Return(value) => return Ok(value),
                    Message::Refusal(reason) => return Err(QmpError::Refused { command, reason }),
                    Message::Greeting | Message::Event => {}
                }
            }
        };
        tokio::time::timeout(ANSWER_LIMIT, answer).await.map_err(|_| QmpError::Late(command))?
    }

    async fn message(&mut self) -> Result<Message, QmpError> {
        let left = LONGEST.saturating_sub(self.line.len() as u64);
        (&mut self.read).take(left).read_until(b'\n', &mut self.line).await.map_err(QmpError::Socket)?;
        let line = std::mem::take(&mut self.line);
        if line.is_empty() { Err(QmpError::Closed) } else { parse(&line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that says `lines` one after the other, the first at once and each of the others after a command.
    async fn spoken(lines: &'static [&'static str], command: &'static str) -> Result<Value, QmpError> {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(folder.path().join(QMP_SOCKET)).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut commands = BufReader::new(read).lines();
            for (number, line) in lines.iter().enumerate() {
                if number > 0 {
                    commands.next_line().await.unwrap();
                }
                // Who has heard enough hangs up.
                let _ = write.write_all(format!("{line}\n").as_bytes()).await;
            }
        });
        let run = Folder::open(folder.path()).unwrap().unwrap();
        let result = async { Qmp::connect(&run).await?.execute(command).await }.await;
        server.await.unwrap();
        result
    }

    #[tokio::test(flavor = "current_thread")]
    async fn events_between_command_and_return_are_passed_over() {
        let answer = spoken(
            &[
                r#"{"QMP": {"version": {}, "capabilities": []}}"#,
                r#"{"return": {}}"#,
                "{\"event\": \"RESUME\"}\n{\"event\": \"SHUTDOWN\"}\n{\"return\": {\"status\": \"running\"}}",
            ],
            "query-status",
        );
        assert_eq!(answer.await.unwrap()["status"], "running");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn refusals_and_nonsense_are_told_apart() {
        let refused =
            spoken(&[r#"{"QMP": {}}"#, r#"{"return": {}}"#, r#"{"error": {"class": "X", "desc": "no"}}"#], "stop")
                .await;
        assert!(matches!(refused, Err(QmpError::Refused { command: "stop", .. })), "{refused:?}");
        let nonsense = spoken(&["HTTP/1.1 400"], "stop").await;
        assert!(matches!(nonsense, Err(QmpError::Nonsense(_))), "{nonsense:?}");
        let endless: &'static str = "\u{1b}".repeat(2 << 20).leak();
        let endless = spoken(vec![endless].leak(), "stop").await;
        assert!(matches!(endless, Err(QmpError::Nonsense(said)) if said.len() == 200), "a line without end");
        let closed = spoken(&[r#"{"QMP": {}}"#, r#"{"return": {}}"#], "stop").await;
        assert!(matches!(closed, Err(QmpError::Closed | QmpError::Socket(_))), "{closed:?}");
    }
}
