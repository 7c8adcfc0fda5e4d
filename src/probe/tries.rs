//! Many tries at once from the calling thread's namespace: everything is sent, sent again, and collected.
//!
//! Blocking, one thread for each namespace. A try that is expected to succeed ends when it has; one that must fail is
//! watched for a whole window, since a reply might just be slow.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, SockaddrStorage, bind, recvfrom, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::packet::{self, Answer, Token};
use crate::names::Mac;

/// How long silence is listened to before it counts as silence.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// How long an expected answer is waited for: an emulated guest may be slow at its first packet.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How long a probe asks whether an address is free: shorter than RFC 5227 has it (up to 3 s), since the address is
/// given back at once.
pub(super) const GLANCE: Duration = Duration::from_millis(450);
/// Pause between two sendings of an unanswered request.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);
/// Sendings after which the answers so far are read, so that a socket's buffer never holds more.
pub(super) const BURST: usize = 64;
/// Receive buffer of each socket in bytes.
pub(super) const BUFFER: usize = 4 << 20;

/// A link of the calling thread's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    address: LinkAddr,
    mac: Mac,
}

impl Port {
    /// The link with this hardware address; `None` when there is none in the calling thread's namespace.
    pub(super) fn by_mac(mac: Mac) -> io::Result<Option<Self>> {
        Self::find(|_, own| own == mac)
    }

    /// The link of this name; `None` when there is none, or it has no Ethernet address.
    pub(super) fn by_name(name: &str) -> io::Result<Option<Self>> {
        Self::find(|other, _| other == name)
    }

    fn find(wanted: impl Fn(&str, Mac) -> bool) -> io::Result<Option<Self>> {
        for link in nix::ifaddrs::getifaddrs()? {
            let Some(address) = link.address.as_ref().and_then(SockaddrStorage::as_link_addr) else { continue };
            let Some(mac) = address.addr().and_then(|octets| Mac::try_from(octets).ok()) else { continue };
            if wanted(&link.interface_name, mac) {
                return Ok(Some(Self { address: *address, mac }));
            }
        }
        Ok(None)
    }

    /// Its hardware address.
    pub(super) fn mac(&self) -> Mac {
        self.mac
    }

    /// Its index.
    pub(super) fn index(&self) -> usize {
        self.address.ifindex()
    }
}

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Try {
    /// Ask on a link who has an address, and take the answer of these MACs only.
    WhoHas {
        /// The link.
        port: Port,
        /// An address of the asker's; `None` asks as an ARP probe does.
        sender: Option<IpAddr>,
        /// The address in question.
        target: IpAddr,
        /// Whose answer counts; empty: anybody's.
        macs: Vec<Mac>,
    },
    /// An ICMP echo request by the namespace's own routes.
    Echo {
        /// Whom.
        target: IpAddr,
    },
    /// An ICMP echo request through this next hop, whatever the namespace's routes say.
    Forced {
        /// The link.
        port: Port,
        /// The MAC of the next hop.
        next_hop: Mac,
        /// An address of the asker's.
        source: Ipv4Addr,
        /// Whom.
        target: Ipv4Addr,
    },
}

/// A try, and whether it is expected to succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    /// What.
    pub what: Try,
    /// Waited for beyond the window.
    pub wanted: bool,
    /// Its number, which an echo request carries; no two of a run have the same.
    pub number: u32,
}

/// Tries everything; one outcome for each attempt, in order.
///
/// # Errors
/// When a socket can't be opened or read. What can't be sent (no route, link down) counts as not reached.
pub(super) fn run(attempts: &[Attempt], run: u64) -> io::Result<Vec<bool>> {
    run_for(attempts, run, WINDOW)
}

/// As [`run`], with another window.
///
/// # Errors
/// As [`run`].
pub(super) fn run_for(attempts: &[Attempt], run: u64, window: Duration) -> io::Result<Vec<bool>> {
    let mut round = Round::new(attempts, run)?;
    let start = Instant::now();
    let mut due = start;
    loop {
        let passed = start.elapsed();
        let missing = round.missing();
        let quiet = attempts.iter().all(|attempt| attempt.wanted);
        let window_over = passed >= window || (quiet && !missing);
        if window_over && (!missing || passed >= PATIENCE) {
            return Ok(round.reached);
        }
        if Instant::now() >= due {
            round.send(passed < window)?;
            due += INTERVAL;
        }
        let limit = if passed < window { window } else { PATIENCE };
        round.receive(due.min(start + limit))?;
    }
}

/// The kinds of socket: ARP or IPv6 or IPv4 frames of one link, or echo replies of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Frames { index: usize, protocol: u16 },
    Icmp { ipv4: bool },
}

struct Round<'a> {
    attempts: &'a [Attempt],
    reached: Vec<bool>,
    sockets: BTreeMap<Key, Socket>,
    /// The attempts that wait for somebody's address, by that address.
    by_target: BTreeMap<IpAddr, Vec<usize>>,
    by_number: BTreeMap<u32, usize>,
    run: u64,
    buffer: Vec<u8>,
}

impl<'a> Round<'a> {
    fn new(attempts: &'a [Attempt], run: u64) -> io::Result<Self> {
        let mut sockets = BTreeMap::new();
        let mut by_target = BTreeMap::<IpAddr, Vec<usize>>::new();
        for (number, attempt) in attempts.iter().enumerate() {
            let key = key(&attempt.what);
            if let std::collections::btree_map::Entry::Vacant(place) = sockets.entry(key) {
                place.insert(open(key, &attempt.what)?);
            }
            if let Try::WhoHas { target, .. } = &attempt.what {
                by_target.entry(*target).or_default().push(number);
            }
        }
        let by_number = attempts.iter().enumerate().map(|(place, attempt)| (attempt.number, place)).collect();
        let (reached, buffer) = (vec![false; attempts.len()], vec![0; 4096]);
        Ok(Self { attempts, reached, sockets, by_target, by_number, run, buffer })
    }

    /// Whether an expected answer has not come yet.
    fn missing(&self) -> bool {
        self.attempts.iter().zip(&self.reached).any(|(attempt, reached)| attempt.wanted && !reached)
    }

    fn send(&mut self, everything: bool) -> io::Result<()> {
        let mut sent = 0;
        for number in 0..self.attempts.len() {
            let attempt = &self.attempts[number];
            if self.reached[number] || !(everything || attempt.wanted) {
                continue;
            }
            self.send_one(number);
            sent += 1;
            if sent % BURST == 0 {
                self.drain()?;
            }
        }
        Ok(())
    }

    /// Sends one request. That the kernel refuses (no route, link down, a full neighbour table) is an outcome: no
    /// answer will come.
    fn send_one(&self, number: usize) {
        let what = &self.attempts[number].what;
        let socket = &self.sockets[&key(what)];
        let token = Token { run: self.run, number: self.attempts[number].number };
        let outcome = match what {
            Try::WhoHas { port, sender, target, .. } => socket.send(&packet::who_has(port.mac, *sender, *target)),
            Try::Echo { target } => {
                let message = packet::echo(target.is_ipv4(), token);
                socket.send_to(&message, &SocketAddr::new(*target, 0).into())
            }
            Try::Forced { port, next_hop, source, target } => {
                socket.send(&packet::echo_frame((port.mac, *next_hop), (*source, *target), token))
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(?what, %error, "a probe was not sent");
        }
    }

    /// Waits for answers until `until`, and reads them.
    fn receive(&mut self, until: Instant) -> io::Result<()> {
        let mut waiting: Vec<PollFd<'_>> =
            self.sockets.values().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // Rounded up: a wait of 0 ms over and over would be a busy loop.
        let wait = until.saturating_duration_since(Instant::now()).as_millis() + 1;
        match poll(&mut waiting, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => self.drain(),
            Err(errno) => Err(errno.into()),
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut answers = Vec::new();
        for (key, socket) in &self.sockets {
            loop {
                match recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut self.buffer) {
                    Ok((length, from)) => answers.extend(read(*key, &self.buffer[..length], from.as_ref())),
                    Err(nix::errno::Errno::EAGAIN) => break,
                    // An error of an earlier packet, or the link went down: no answer, not a failure of the probe.
                    Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENETDOWN | nix::errno::Errno::ENXIO) => {}
                    Err(nix::errno::Errno::EHOSTUNREACH | nix::errno::Errno::ENETUNREACH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        for (index, answer) in answers {
            self.take(index, answer);
        }
        Ok(())
    }

    fn take(&mut self, index: Option<usize>, answer: Answer) {
        match answer {
            Answer::Has(address, mac) => {
                for number in self.by_target.get(&address).into_iter().flatten() {
                    let Try::WhoHas { port, macs, .. } = &self.attempts[*number].what else { continue };
                    let counts = macs.is_empty() || macs.contains(&mac);
                    if counts && index == Some(port.index()) {
                        self.reached[*number] = true;
                    }
                }
            }
            Answer::Echo(from, token) if token.run == self.run => {
                let Some(&number) = self.by_number.get(&token.number) else { return };
                let target = match &self.attempts[number].what {
                    Try::Echo { target } => Some(*target),
                    Try::Forced { target, .. } => Some(IpAddr::V4(*target)),
                    Try::WhoHas { .. } => None,
                };
                if target == Some(from) {
                    self.reached[number] = true;
                }
            }
            Answer::Echo(..) => {}
        }
    }
}

fn key(what: &Try) -> Key {
    let frames = |port: &Port, protocol: i32| Key::Frames {
        index: port.index(),
        protocol: u16::try_from(protocol).expect("an EtherType has 16 bits"),
    };
    match what {
        Try::WhoHas { port, target: IpAddr::V4(_), .. } => frames(port, libc::ETH_P_ARP),
        Try::WhoHas { port, target: IpAddr::V6(_), .. } => frames(port, libc::ETH_P_IPV6),
        Try::Forced { port, .. } => frames(port, libc::ETH_P_IP),
        Try::Echo { target } => Key::Icmp { ipv4: target.is_ipv4() },
    }
}

fn open(key: Key, what: &Try) -> io::Result<Socket> {
    let socket = match (key, what) {
        (Key::Frames { protocol, .. }, Try::WhoHas { port, .. } | Try::Forced { port, .. }) => {
            let protocol = Protocol::from(i32::from(protocol.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
            // The protocol in the address is 0, which keeps the socket's (packet_bind).
            bind(socket.as_raw_fd(), &port.address)?;
            socket
        }
        (Key::Icmp { ipv4: true }, _) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
        (Key::Icmp { ipv4: false } | Key::Frames { .. }, _) => {
            Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?
        }
    };
    socket.set_nonblocking(true)?;
    // Beyond the system's limit where we may (CAP_NET_ADMIN); the default does for a small lab.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    Ok(socket)
}

fn read(key: Key, bytes: &[u8], from: Option<&SockaddrStorage>) -> Option<(Option<usize>, Answer)> {
    match key {
        Key::Frames { index, .. } => packet::read_frame(bytes).map(|answer| (Some(index), answer)),
        Key::Icmp { .. } => {
            let from = from?;
            let address = match (from.as_sockaddr_in(), from.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) => IpAddr::V6(v6.ip()),
                (None, None) => return None,
            };
            packet::read_icmp(address, bytes).map(|answer| (None, answer))
        }
    }
}
