//! [`Told`]: a netlink socket that remembers why it failed.
//!
//! When sending or receiving fails, the connection only ends, and with it the answers to everything that is in flight:
//! that must not look like success, and the reason is worth telling.

use std::io;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::BufMut;
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};

/// Why a connection ended; empty while it works.
#[derive(Debug, Clone, Default)]
pub(super) struct End(Arc<OnceLock<io::Error>>);

impl End {
    /// The reason, when it has ended by an error.
    pub(super) fn reason(&self) -> Option<io::Error> {
        let error = self.0.get()?;
        Some(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error))
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            let kept = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            // The first one is the reason.
            let _ = self.0.set(kept);
        }
        result
    }
}

/// The socket.
pub(super) struct Told {
    socket: TokioSocket,
    end: End,
}

impl Told {
    /// Takes a socket, and gives what will tell its end.
    pub(super) fn of(socket: TokioSocket) -> (Self, End) {
        let end = End::default();
        (Self { socket, end: end.clone() }, end)
    }
}

impl AsyncSocket for Told {
    fn socket_ref(&self) -> &Socket {
        self.socket.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        TokioSocket::new(protocol).map(|socket| Self::of(socket).0)
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.end.note(self.socket.poll_send(cx, buf))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        self.end.note(self.socket.poll_send_to(cx, buf, addr))
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.end.note(self.socket.poll_recv(cx, buf))
    }

    fn poll_recv_from<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        self.end.note(self.socket.poll_recv_from(cx, buf))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.end.note(self.socket.poll_recv_from_full(cx))
    }
}
