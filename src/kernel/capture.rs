//! What passes a link: a packet socket that sees what comes in and what goes out.
//!
//! Only questions who has an address and ICMP get through its filter, whatever else the link carries. It ends with its
//! process, and changes nothing but that a bridge, while it is watched, hands up what it forwards.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::line::{everything_on, hear, tag, with_tags};

/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u8 = 4;

/// Receive buffer in bytes.
const BUFFER: usize = 1 << 20;

/// A link that is watched.
#[derive(Debug)]
pub struct Capture(Socket);

/// A frame that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Its length in bytes, as far as it was read.
    pub length: usize,
    /// It left by the link, rather than come in by it.
    pub outgoing: bool,
    /// The VLAN of a tag that the kernel has taken off it.
    pub tag: Option<u16>,
}

impl Capture {
    /// Watches a link of the calling thread's namespace by its index. A `bridge` forwards past its own link, unless it
    /// is promiscuous.
    pub fn open(index: u32, bridge: bool) -> io::Result<Self> {
        // No protocol yet: nothing arrives before the filter stands and the socket is bound to this link.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        socket.attach_filter(&filter())?;
        // Beyond the system's limit where we may; the default does.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        with_tags(&socket)?;
        socket.bind(&everything_on(index))?;
        if bridge {
            hear(&socket, index, libc::PACKET_MR_PROMISC)?;
        }
        Ok(Self(socket))
    }

    /// The next frame into `buffer`; `None` when there is none now.
    pub fn next(&self, buffer: &mut [u8]) -> io::Result<Option<Passed>> {
        let mut parts = [IoSliceMut::new(buffer)];
        // struct tpacket_auxdata.
        let mut control = nix::cmsg_space!([u8; 20]);
        let received = recvmsg::<LinkAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let message = match received {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let outgoing = message.address.is_some_and(|address| address.pkttype() == OUTGOING);
        let tag = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Unknown(unknown) => tag(&unknown.data_bytes),
            _ => None,
        });
        Ok(Some(Passed { length: message.bytes, outgoing, tag }))
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// ARP, ICMP and ICMPv6, with a tag or without: in classic BPF, for sockets since Linux 2.2.
fn filter() -> Vec<SockFilter> {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Instructions for what begins with an EtherType.
    const BLOCK: u8 = 7;
    let (accept, refuse) = (3 + 2 * BLOCK, 4 + 2 * BLOCK);
    let mut program = Vec::new();
    let mut add = |code, value, jumps: Option<(u8, u8)>| {
        // Jumps count from the instruction after their own.
        let here = u8::try_from(program.len()).unwrap_or(u8::MAX) + 1;
        let (yes, no) = jumps.map_or((0, 0), |(yes, no)| (yes - here, no - here));
        program.push(SockFilter::new(code, yes, no, value));
    };
    add(LOAD_HALF, 12, None);
    add(JUMP_IF_EQUAL, 0x8100, Some((2 + BLOCK, 2)));
    for (begin, offset) in [(2, 0), (2 + BLOCK, 4)] {
        if offset > 0 {
            add(LOAD_HALF, 12 + offset, None);
        }
        let begin = begin + u8::from(offset > 0);
        add(JUMP_IF_EQUAL, 0x0806, Some((accept, begin + 1)));
        add(JUMP_IF_EQUAL, 0x0800, Some((begin + 2, begin + 4)));
        add(LOAD_BYTE, 23 + offset, None);
        add(JUMP_IF_EQUAL, 1, Some((accept, refuse)));
        add(JUMP_IF_EQUAL, 0x86dd, Some((begin + 5, refuse)));
        add(LOAD_BYTE, 20 + offset, None);
        add(JUMP_IF_EQUAL, 58, Some((accept, refuse)));
    }
    add(RETURN, 256, None);
    add(RETURN, 0, None);
    program
}
