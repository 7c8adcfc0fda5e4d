//! A small HTTP server in the test's own process, as bad as a test wants it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use vmnet::kinds::Url;

/// How one request is answered.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    /// As it should be, ranges too.
    Right,
    /// The whole file whatever is asked for.
    NoRange,
    /// As it should be, but the connection breaks after so many bytes of the body.
    Cut(usize),
    /// Without saying how much comes.
    Unsized,
    /// From the beginning of the file, and it says that it is another place.
    WrongPlace,
    /// Nothing but a status and more header lines.
    Status(u16, String),
}

/// What it saw and what it does next.
struct Inner {
    body: Vec<u8>,
    manners: VecDeque<Manner>,
    /// The range of each request, or its absence.
    asked: Vec<Option<String>>,
}

/// It, until the end of the test's process.
pub(super) struct Server {
    port: u16,
    inner: Arc<Mutex<Inner>>,
}

impl Server {
    /// One that serves this, the first requests in these manners and all others as it should.
    pub(super) fn start(body: &[u8], manners: &[Manner]) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Inner { body: body.to_vec(), manners: manners.iter().cloned().collect(), asked: Vec::new() };
        let inner = Arc::new(Mutex::new(inner));
        let of_thread = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away is no matter.
                let _ = stream.and_then(|stream| answer(stream, &of_thread));
            }
        });
        Self { port, inner }
    }

    pub(super) fn url(&self) -> Url {
        self.url_at("127.0.0.1")
    }

    /// As others reach it.
    pub(super) fn url_at(&self, address: &str) -> Url {
        format!("http://{address}:{}/debian.qcow2", self.port).parse().unwrap()
    }

    pub(super) fn asked(&self) -> Vec<Option<String>> {
        self.inner.lock().unwrap().asked.clone()
    }

    pub(super) fn next(&self, manners: &[Manner]) {
        self.inner.lock().unwrap().manners.extend(manners.iter().cloned());
    }
}

fn answer(mut stream: TcpStream, inner: &Mutex<Inner>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let range = request.lines().find_map(|line| line.strip_prefix("range: ")).map(str::to_owned);
    let (body, manner) = {
        let mut inner = inner.lock().unwrap();
        inner.asked.push(range.clone());
        (inner.body.clone(), inner.manners.pop_front().unwrap_or(Manner::Right))
    };
    let from = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = if matches!(manner, Manner::NoRange) { 0 } else { from.unwrap_or(0) };
    let total = body.len();
    let (head, rest): (String, &[u8]) = match &manner {
        Manner::Status(status, lines) => (format!("{status} No\r\n{lines}content-length: 0\r\n"), &[]),
        Manner::Unsized => ("200 OK\r\n".to_owned(), &body),
        Manner::WrongPlace if from > 0 => {
            (format!("206 Partial\r\ncontent-range: bytes 0-{}/{total}\r\n", total - 1), &body)
        }
        _ if from >= total => (format!("416 No\r\ncontent-range: bytes */{total}\r\ncontent-length: 0\r\n"), &[]),
        _ if from > 0 => {
            let range = format!("content-range: bytes {from}-{}/{total}\r\n", total - 1);
            (format!("206 Partial\r\n{range}content-length: {}\r\n", total - from), &body[from..])
        }
        _ => (format!("200 OK\r\ncontent-length: {total}\r\n"), &body),
    };
    let rest = if let Manner::Cut(length) = manner { &rest[..length.min(rest.len())] } else { rest };
    stream.write_all(format!("HTTP/1.1 {head}connection: close\r\n\r\n").as_bytes())?;
    stream.write_all(rest)
}
