//! The lines that vmnet on a host says, read as they come.

use std::io;
use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::event::Event;
use crate::names::quoted;

/// The longest line, in bytes: the plan of a large lab is one.
const LONGEST: u64 = 256 << 20;

/// How much of standard error is kept, in bytes, from its beginning.
const KEPT: u64 = 64 << 10;

/// How long standard error is listened to after the last line.
const AFTER: Duration = Duration::from_secs(1);

/// A stream that the other side writes to.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// A stream that it reads.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// What was heard until the result, or until there was nothing more.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whether it failed, and the document.
    pub last: Option<(bool, Value)>,
    /// The first line that was no event, quoted.
    pub garbage: Option<String>,
    /// What was said on standard error.
    pub said: String,
}

/// Hands over `input`, and listens.
pub(super) async fn events(
    input: Option<(Writer, &[u8])>,
    output: Reader,
    error: Reader,
    on_event: impl FnMut(Event),
) -> io::Result<Heard> {
    let mut said = Vec::new();
    let mut heard = {
        let mut error = Kept { from: error };
        let mut overhear = pin!(error.read(&mut said));
        let mut work = pin!(async { tokio::join!(listen(output, on_event), hand_over(input)).0 });
        let mut quiet = false;
        let heard = loop {
            tokio::select! {
                heard = &mut work => break heard?,
                () = &mut overhear, if !quiet => quiet = true,
            }
        };
        if !quiet {
            // Whatever is late is not worth waiting for.
            let _ = timeout(AFTER, overhear).await;
        }
        heard
    };
    heard.said = String::from_utf8_lossy(&said).trim_end().to_owned();
    Ok(heard)
}

async fn listen(output: Reader, mut on_event: impl FnMut(Event)) -> io::Result<Heard> {
    let mut heard = Heard::default();
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        // What it started may hold its output open for longer than to its result.
        if heard.last.is_some() || (&mut lines).take(LONGEST).read_until(b'\n', &mut line).await? == 0 {
            return Ok(heard);
        }
        match serde_json::from_slice(&line) {
            Ok(Event::Result { value }) => heard.last = Some((false, value)),
            Ok(Event::Failure { value }) => heard.last = Some((true, value)),
            Ok(event) => on_event(event),
            Err(_) if heard.garbage.is_none() => {
                heard.garbage = Some(quoted(String::from_utf8_lossy(&line).trim_end()));
            }
            Err(_) => {}
        }
    }
}

/// Everything that a plain command says: standard output and error.
pub(super) async fn plain(output: Reader, error: Reader) -> io::Result<(String, String)> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut output, mut error) = (Kept { from: output }, Kept { from: error });
    tokio::join!(output.read(&mut out), error.read(&mut err));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    Ok((text(out), text(err)))
}

/// Writes all of it and closes. Who does not read it to its end has a reason, and says so elsewhere.
async fn hand_over(input: Option<(Writer, &[u8])>) {
    let Some((mut writer, bytes)) = input else { return };
    if writer.write_all(bytes).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

/// A stream of which the beginning is kept, and the rest is read and dropped: a full pipe would stop the other side.
struct Kept {
    from: Reader,
}

impl Kept {
    async fn read(&mut self, into: &mut Vec<u8>) {
        // A stream that breaks has ended.
        let _ = (&mut self.from).take(KEPT).read_to_end(into).await;
        let _ = tokio::io::copy(&mut self.from, &mut tokio::io::sink()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(text: &'static str) -> (Heard, Vec<Event>) {
        let mut events = Vec::new();
        let said: Reader = Box::new(&b"a word\n"[..]);
        let heard = super::events(None, Box::new(text.as_bytes()), said, |event| events.push(event)).await.unwrap();
        (heard, events)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn events_come_one_by_one_until_the_result() {
        let (seen, events) = heard(
            "{\"event\":\"note\",\"text\":\"x\"}\n{\"event\":\"result\",\"value\":{\"lab\":\"a\"}}\nnever read\n",
        )
        .await;
        assert_eq!(events, [Event::Note { text: "x".into() }]);
        assert_eq!(seen.last, Some((false, serde_json::json!({"lab": "a"}))));
        assert_eq!((seen.garbage, seen.said.as_str()), (None, "a word"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn garbage_is_kept_and_what_comes_after_it_is_heard() {
        let (seen, _) = heard("Welcome!\n\n{\"event\":\"failure\",\"value\":{}}").await;
        assert_eq!(seen.garbage.as_deref(), Some("\"Welcome!\""));
        assert_eq!(seen.last, Some((true, serde_json::json!({}))));
        let (seen, _) = heard("{\"event\":\"resu").await;
        assert!(seen.last.is_none() && seen.garbage.is_some());
    }
}
