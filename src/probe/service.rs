//! Services of others, tried from the calling thread's namespace by its routes: TCP handshakes and UDP datagrams.
//!
//! A handshake that succeeds is ended at once, without data. A datagram carries what the usual service of its port
//! answers, and else the number of the try.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::packet::Token;
use super::tries::{INTERVAL, PATIENCE, WINDOW};
use crate::kinds::Service;
use crate::reach::Seen;

/// One service to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Whose.
    pub target: IpAddr,
    /// Which; never an echo request.
    pub service: Service,
    /// An answer is waited for beyond the window.
    pub wanted: bool,
    /// The number of the try.
    pub number: u32,
}

/// A call that waits.
struct Open<'a> {
    call: &'a Call,
    socket: Socket,
    seen: Option<Seen>,
}

/// Tries everything; one outcome for each call, in order.
///
/// # Errors
/// When a socket can't be opened. What can't be sent (no route, link down) counts as not reached.
pub(super) fn run(calls: &[Call], run: u64) -> io::Result<Vec<Seen>> {
    let mut open = calls.iter().map(begin).collect::<io::Result<Vec<Open<'_>>>>()?;
    let start = Instant::now();
    let mut due = start;
    loop {
        let passed = start.elapsed();
        let missing = open.iter().any(|open| open.seen.is_none() && open.call.wanted);
        let waits = open.iter().any(|open| open.seen.is_none());
        if !waits || (passed >= WINDOW && !missing) || passed >= PATIENCE {
            return Ok(open.into_iter().map(|open| open.seen.unwrap_or(Seen::Silent)).collect());
        }
        if Instant::now() >= due {
            open.iter().for_each(|open| ask(open, run));
            due += INTERVAL;
        }
        look(&mut open, due)?;
    }
}

fn begin(call: &Call) -> io::Result<Open<'_>> {
    let domain = if call.target.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let (kind, protocol, port) = match call.service {
        Service::Tcp(port) => (Type::STREAM, Protocol::TCP, port),
        Service::Udp(port) => (Type::DGRAM, Protocol::UDP, port),
        Service::Icmp => return Err(io::Error::other("an echo request is no service of a port")),
    };
    let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
    let seen = match socket.connect(&SocketAddr::new(call.target, port).into()) {
        Ok(()) if kind == Type::DGRAM => None,
        Ok(()) => Some(Seen::Reached),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => None,
        Err(error) => Some(failed(&error)),
    };
    Ok(Open { call, socket, seen })
}

/// What an error of a socket says of the other end.
fn failed(error: &io::Error) -> Seen {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Seen::Refused,
        _ => Seen::Silent,
    }
}

/// Sends a datagram, once more where nothing has come yet. The kernel repeats handshakes by itself.
fn ask(open: &Open<'_>, run: u64) {
    if let (Service::Udp(port), None) = (open.call.service, &open.seen) {
        let token = Token { run, number: open.call.number };
        // An error of an earlier datagram is read with the answers.
        if let Err(error) = open.socket.send(&question(port, token)) {
            tracing::debug!(call = ?open.call, %error, "a datagram was not sent");
        }
    }
}

/// What the usual service of a port answers.
fn question(port: u16, token: Token) -> Vec<u8> {
    let bytes = token.bytes();
    match port {
        // The name servers of the root (RFC 1035, 4.1): a header with a number of ours and "recursion desired", then the
        // empty name, NS, IN.
        53 => [&bytes[10..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &[0, 0, 2, 0, 1]].concat(),
        // A client's request of version 4 (RFC 5905, 7.3).
        123 => [&[0x23][..], &[0; 47]].concat(),
        _ => bytes.to_vec(),
    }
}

/// Waits for answers until `until`, and reads them.
fn look(open: &mut [Open<'_>], until: Instant) -> io::Result<()> {
    let mut waiting: Vec<&mut Open<'_>> = open.iter_mut().filter(|open| open.seen.is_none()).collect();
    let events = |open: &&mut Open<'_>| match open.call.service {
        Service::Tcp(_) => PollFlags::POLLOUT,
        Service::Udp(_) | Service::Icmp => PollFlags::POLLIN,
    };
    let wait = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    let ready: Vec<bool> = {
        let mut polled: Vec<PollFd<'_>> =
            waiting.iter().map(|open| PollFd::new(open.socket.as_fd(), events(open))).collect();
        match poll(&mut polled, PollTimeout::try_from(wait.as_millis()).unwrap_or(PollTimeout::MAX)) {
            Ok(_) => polled.iter().map(|polled| polled.any().unwrap_or(true)).collect(),
            Err(nix::errno::Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    };
    for (open, _) in waiting.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
        open.seen = answer(open);
    }
    Ok(())
}

fn answer(open: &Open<'_>) -> Option<Seen> {
    match open.call.service {
        Service::Tcp(_) => Some(match open.socket.take_error() {
            Ok(None) => Seen::Reached,
            Ok(Some(error)) | Err(error) => failed(&error),
        }),
        Service::Udp(_) | Service::Icmp => {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 16];
            match open.socket.recv(&mut buffer) {
                Ok(_) => Some(Seen::Reached),
                // A router on the way may say that it has no way now, and have one soon.
                Err(error) => Some(failed(&error)).filter(|seen| *seen == Seen::Refused),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(service: Service, wanted: bool) -> Call {
        Call { target: "127.0.0.1".parse().unwrap(), service, wanted, number: 1 }
    }

    #[test]
    fn who_listens_answers_and_who_does_not_refuses() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (open, talks) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let closed = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap().port()
        };
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (length, from) = udp.recv_from(&mut buffer).unwrap();
            udp.send_to(&buffer[..length], from).unwrap();
        });
        let services = [Service::Tcp(open), Service::Tcp(closed), Service::Udp(talks), Service::Udp(closed)];
        let seen = run(&services.map(|service| call(service, true)), 7).unwrap();
        assert_eq!(seen, [Seen::Reached, Seen::Refused, Seen::Reached, Seen::Refused]);
        answering.join().unwrap();
    }

    #[test]
    fn silence_ends_with_the_window() {
        let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let begun = Instant::now();
        let service = Service::Udp(deaf.local_addr().unwrap().port());
        assert_eq!(run(&[call(service, false)], 7).unwrap(), [Seen::Silent]);
        assert!(begun.elapsed() >= WINDOW && begun.elapsed() < PATIENCE);
    }

    #[test]
    fn questions_are_what_the_services_know() {
        let token = Token { run: 1, number: 0x1234 };
        assert_eq!(question(53, token), [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]);
        assert_eq!(question(123, token).len(), 48);
        assert_eq!(question(514, token).len(), 12);
        assert!(crate::reach::ASKED.iter().all(|port| question(*port, token).len() != 12));
    }
}
