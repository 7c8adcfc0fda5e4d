//! What passes a link: a packet socket that sees what comes in and what goes out.
//!
//! Only questions who has an address and ICMP get through its filter, whatever else the link carries. It ends with its
//! process, and changes nothing but that a bridge, while it is watched, hands up what it forwards.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// `ETH_P_ALL` of linux/if_ether.h: only sockets of that protocol see what goes out.
const ETH_P_ALL: u16 = 3;

/// `PACKET_ADD_MEMBERSHIP`, `PACKET_AUXDATA` and `PACKET_MR_PROMISC` of linux/if_packet.h.
const ADD_MEMBERSHIP: i32 = 1;
const AUXDATA: i32 = 8;
const PROMISCUOUS: u16 = 1;

/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u8 = 4;

/// `TP_STATUS_VLAN_VALID` of linux/if_packet.h.
const VLAN_VALID: u32 = 1 << 4;

/// The VLAN's share of a tag.
const VLAN_BITS: u16 = 0xfff;

/// Receive buffer in bytes.
const BUFFER: usize = 1 << 20;

/// `struct packet_mreq` of linux/if_packet.h.
#[repr(C)]
struct Membership {
    index: i32,
    kind: u16,
    address_length: u16,
    address: [u8; 8],
}

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
        set(&socket, AUXDATA, &1_i32)?;
        socket.bind(&everything_on(index))?;
        if bridge {
            let all = Membership { index: index.cast_signed(), kind: PROMISCUOUS, address_length: 0, address: [0; 8] };
            set(&socket, ADD_MEMBERSHIP, &all)?;
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
            ControlMessageOwned::Unknown(unknown) => vlan(&unknown.data_bytes),
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

/// The VLAN in a `struct tpacket_auxdata`: status, two lengths and two offsets before it.
fn vlan(bytes: &[u8]) -> Option<u16> {
    let status = u32::from_ne_bytes(*bytes.first_chunk()?);
    let tag = u16::from_ne_bytes(*bytes.get(16..)?.first_chunk()?);
    (status & VLAN_VALID != 0).then_some(tag & VLAN_BITS)
}

fn set<T>(socket: &Socket, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`, which is that long and lives through the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address of everything on one link, packet(7).
fn everything_on(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll fits into a sockaddr_storage, and any bytes are a sockaddr_ll.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ETH_P_ALL.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the family is set and the length is that of the type that was written.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_one_where_the_kernel_says_so() {
        let auxiliary = |status: u32| {
            let mut bytes = status.to_ne_bytes().to_vec();
            bytes.extend([0; 12]);
            bytes.extend(0x600a_u16.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes
        };
        assert_eq!(vlan(&auxiliary(VLAN_VALID | 1)), Some(10), "without its priority");
        assert_eq!(vlan(&auxiliary(1)), None);
        assert_eq!(vlan(&[]), None);
    }
}
