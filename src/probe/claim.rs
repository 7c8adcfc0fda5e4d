//! Whether somebody answers already for addresses that a router would take: all of them asked at the same time, on the
//! devices that carry their segments.
//!
//! What belongs to the segment on this host (bridge, sub-interface) may not be there yet. So the question leaves
//! through the device itself, with the VLAN's tag in the frame, and the answer is read there: a socket for all frames
//! sees it before the kernel hands it to a sub-interface or a bridge, and is told its tag beside it (`PACKET_AUXDATA`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnknownCmsg, recvmsg, setsockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::packet::{self, Answer};
use super::tries::{BUFFER, BURST, GLANCE, INTERVAL, Port};
use crate::desired::Claim;
use crate::kernel::line::{everything_on, hear, tag, with_tags};
use crate::names::{IfName, Mac};

/// What came of asking.
#[derive(Debug)]
pub struct Asked {
    /// Who answered for each claim, in their order.
    pub answers: Vec<BTreeSet<Mac>>,
    /// The devices on which nobody could be asked.
    pub failed: BTreeMap<IfName, io::Error>,
}

/// Asks for every claim at once.
///
/// Blocking, for half a second; not at all where there is nothing to ask.
pub fn ask(claims: &[Claim]) -> Asked {
    let mut asked = Asked { answers: vec![BTreeSet::new(); claims.len()], failed: BTreeMap::new() };
    let mut by_device = BTreeMap::<&IfName, Vec<usize>>::new();
    for (number, claim) in claims.iter().enumerate() {
        by_device.entry(&claim.device).or_default().push(number);
    }
    let mut lines = Vec::new();
    for (device, numbers) in by_device {
        match Line::open(device, claims, numbers) {
            Ok(line) => lines.push(line),
            Err(error) => drop(asked.failed.insert(device.clone(), error)),
        }
    }
    if !lines.is_empty() {
        listen(&mut lines, &mut asked);
    }
    asked
}

fn listen(lines: &mut Vec<Line<'_>>, asked: &mut Asked) {
    let start = Instant::now();
    let mut due = start;
    while start.elapsed() < GLANCE {
        if Instant::now() >= due {
            due += INTERVAL;
            each(lines, asked, Line::send);
        }
        let until = due.min(start + GLANCE).saturating_duration_since(Instant::now());
        let mut waiting: Vec<PollFd<'_>> =
            lines.iter().map(|line| PollFd::new(line.socket.as_fd(), PollFlags::POLLIN)).collect();
        // Rounded up: a wait of 0 ms over and over would be a busy loop.
        let wait = PollTimeout::try_from(until.as_millis() + 1).unwrap_or(PollTimeout::ZERO);
        // Interrupted, or without memory: what has come is read, and the time is kept.
        let _ = poll(&mut waiting, wait);
        each(lines, asked, Line::drain);
    }
}

/// Does this on every line. One that fails has been lost.
fn each<'a>(
    lines: &mut Vec<Line<'a>>,
    asked: &mut Asked,
    step: impl Fn(&mut Line<'a>, &mut [BTreeSet<Mac>]) -> io::Result<()>,
) {
    lines.retain_mut(|line| match step(line, &mut asked.answers) {
        Ok(()) => true,
        Err(error) => {
            asked.failed.insert(line.device.clone(), error);
            false
        }
    });
}

/// A device with the questions that are asked on it.
struct Line<'a> {
    device: &'a IfName,
    socket: Socket,
    /// The number of each claim, and its question.
    questions: Vec<(usize, Vec<u8>)>,
    /// The claims by VLAN (0: no tag) and address.
    wanted: BTreeMap<(u16, IpAddr), Vec<usize>>,
}

impl<'a> Line<'a> {
    fn open(device: &'a IfName, claims: &[Claim], numbers: Vec<usize>) -> io::Result<Self> {
        let port = Port::by_name(device.as_str())?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        let mut wanted = BTreeMap::<(u16, IpAddr), Vec<usize>>::new();
        let mut questions = Vec::new();
        for number in numbers {
            let claim = &claims[number];
            let plain = packet::who_has(port.mac(), None, claim.address);
            let vlan = claim.vlan.map_or(0, |vlan| vlan.get());
            questions.push((number, claim.vlan.map_or(plain.clone(), |vlan| packet::tagged(&plain, vlan))));
            wanted.entry((vlan, claim.address)).or_default().push(number);
        }
        let has = |vlan: bool, ipv6: bool| {
            wanted.keys().any(|(number, address)| (!vlan || *number != 0) && (!ipv6 || address.is_ipv6()))
        };
        // A NIC that filters VLANs knows none of ours before the sub-interface is there, and one that filters
        // multicast may not know the group that advertisements go to. The membership ends with the socket.
        let hear = match (has(true, false), has(false, true)) {
            (true, _) => Some(libc::PACKET_MR_PROMISC),
            (false, true) => Some(libc::PACKET_MR_ALLMULTI),
            (false, false) => None,
        };
        Ok(Self { device, socket: open(&port, hear)?, questions, wanted })
    }

    /// Asks for everything that nobody has answered for. That a frame is not sent is silence.
    fn send(&mut self, answers: &mut [BTreeSet<Mac>]) -> io::Result<()> {
        for at in 0..self.questions.len() {
            let (number, question) = &self.questions[at];
            if !answers[*number].is_empty() {
                continue;
            }
            if let Err(error) = self.socket.send(question) {
                tracing::debug!(device = %self.device, %error, "a question was not sent");
            }
            if (at + 1) % BURST == 0 {
                self.drain(answers)?;
            }
        }
        Ok(())
    }

    /// Reads everything that has come.
    fn drain(&mut self, answers: &mut [BTreeSet<Mac>]) -> io::Result<()> {
        loop {
            match receive(&self.socket) {
                Ok(Some((vlan, address, mac))) => {
                    for number in self.wanted.get(&(vlan, address)).into_iter().flatten() {
                        answers[*number].insert(mac);
                    }
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// A socket that gets every answer on a device: of one protocol alone it would miss those that go to a bridge.
fn open(port: &Port, more: Option<libc::c_int>) -> io::Result<Socket> {
    // No protocol yet: nothing arrives before the filter stands.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
    socket.attach_filter(&ANSWERS)?;
    with_tags(&socket)?;
    let index = u32::try_from(port.index()).map_err(io::Error::other)?;
    if let Some(kind) = more {
        hear(&socket, index, kind)?;
    }
    // Beyond the system's limit where we may (CAP_NET_ADMIN).
    let _ = setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &BUFFER);
    socket.bind(&everything_on(index))?;
    Ok(socket)
}

/// Lets ARP replies and neighbour advertisements of others through, whatever their VLAN, so that a busy trunk costs
/// nothing (BPF of linux/filter.h; offsets behind the Ethernet header, since the kernel takes the tag out).
static ANSWERS: [SockFilter; 13] = {
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    const BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const fn load(code: u16, offset: u32) -> SockFilter {
        SockFilter::new(code, 0, 0, offset)
    }
    const fn when(value: u32, yes: u8, no: u8) -> SockFilter {
        SockFilter::new(IF_EQUAL, yes, no, value)
    }
    [
        load(BYTE, PACKET_TYPE),
        when(libc::PACKET_OUTGOING as u32, 9, 0),
        load(HALF, 12),
        when(libc::ETH_P_ARP as u32, 0, 2),
        // ar_op: a reply.
        load(HALF, 20),
        when(2, 6, 5),
        when(libc::ETH_P_IPV6 as u32, 0, 4),
        // The next header: ICMPv6; its type: a neighbour advertisement.
        load(BYTE, 20),
        when(libc::IPPROTO_ICMPV6 as u32, 0, 2),
        load(BYTE, 54),
        when(packet::ADVERTISEMENT as u32, 1, 0),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u16::MAX as u32),
    ]
};

/// The next answer: VLAN (0: no tag, or one that gives a priority alone), address, MAC.
fn receive(socket: &Socket) -> nix::Result<Option<(u16, IpAddr, Mac)>> {
    let mut frame = [0; 256];
    let mut control = nix::cmsg_space!(libc::tpacket_auxdata);
    let mut parts = [IoSliceMut::new(&mut frame)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let vlan = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Unknown(UnknownCmsg { cmsg_header, data_bytes })
            if (cmsg_header.cmsg_level, cmsg_header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) =>
        {
            tag(&data_bytes)
        }
        _ => None,
    });
    let length = message.bytes;
    Ok(match packet::read_frame(&frame[..length]) {
        Some(Answer::Has(address, mac)) => Some((vlan.unwrap_or(0), address, mac)),
        Some(Answer::Echo(..)) | None => None,
    })
}
