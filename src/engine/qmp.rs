//! A client for the QEMU monitor protocol: JSON lines on a UNIX socket (QEMU's docs/interop/qmp-spec).

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
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

/// A connection that is ready for commands. QEMU serves one at a time.
#[derive(Debug)]
pub struct Qmp {
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Qmp {
    /// Connects to the socket in a guest's run folder and leaves negotiation mode.
    pub async fn connect(run: &Folder) -> Result<Self, QmpError> {
        let place = run.socket(QMP_SOCKET).map_err(QmpError::Socket)?;
        let name = format!("/proc/self/fd/{}", place.as_raw_fd());
        let stream = UnixStream::connect(name).await.map_err(QmpError::Socket)?;
        let (read, write) = stream.into_split();
        let mut qmp = Self { lines: BufReader::new(read).lines(), write };
        let greeting = tokio::time::timeout(ANSWER_LIMIT, qmp.message()).await;
        let greeting = greeting.map_err(|_| QmpError::Late("the connection"))??;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Nonsense(greeting.to_string()));
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
                let message = self.message().await?;
                if let Some(value) = message.get("return") {
                    return Ok(value.clone());
                }
                if let Some(error) = message.get("error") {
                    let reason = error["desc"].as_str().unwrap_or_default().to_owned();
                    return Err(QmpError::Refused { command, reason });
                }
                // An event: those come at any time, also between a command and its return.
            }
        };
        tokio::time::timeout(ANSWER_LIMIT, answer).await.map_err(|_| QmpError::Late(command))?
    }

    async fn message(&mut self) -> Result<Value, QmpError> {
        let line = self.lines.next_line().await.map_err(QmpError::Socket)?.ok_or(QmpError::Closed)?;
        serde_json::from_str(&line).map_err(|_| QmpError::Nonsense(line))
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
                write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
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
        let closed = spoken(&[r#"{"QMP": {}}"#, r#"{"return": {}}"#], "stop").await;
        assert!(matches!(closed, Err(QmpError::Closed | QmpError::Socket(_))), "{closed:?}");
    }
}
