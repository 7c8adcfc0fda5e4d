//! Packet sockets on one interface: all of its frames, and the tags that the kernel took out of them; packet(7).

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use socket2::{SockAddr, SockAddrStorage, Socket};

/// `ETH_P_ALL` of linux/if_ether.h: only sockets of that protocol see what goes out, and what a bridge takes.
const ETH_P_ALL: u16 = 3;

/// The VLAN's share of a tag.
const VLAN_BITS: u16 = 0xfff;

/// The address of everything on one interface. A socket of protocol 0 that is bound to it has heard of no other
/// interface before.
pub(crate) fn everything_on(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll fits into a sockaddr_storage, and any bytes are a sockaddr_ll.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ETH_P_ALL.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the family is set and the length is that of the type that was written.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Has the tag of each frame told beside it (`PACKET_AUXDATA`), see [`tag`].
pub(crate) fn with_tags(socket: &Socket) -> io::Result<()> {
    set(socket, libc::PACKET_AUXDATA, &libc::c_int::from(true))
}

/// Has the interface take more than what is for it (`PACKET_MR_*`), until the socket is closed.
pub(crate) fn hear(socket: &Socket, index: u32, kind: libc::c_int) -> io::Result<()> {
    let kind = u16::try_from(kind).map_err(io::Error::other)?;
    let more = libc::packet_mreq { mr_ifindex: index.cast_signed(), mr_type: kind, mr_alen: 0, mr_address: [0; 8] };
    set(socket, libc::PACKET_ADD_MEMBERSHIP, &more)
}

fn set<T: Copy>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    let (pointer, length) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes behind the pointer, which are those of `value`.
    Errno::result(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, pointer, length) })?;
    Ok(())
}

/// The VLAN of a frame that was told beside it (`struct tpacket_auxdata` of linux/if_packet.h); `None`: it had no tag.
pub(crate) fn tag(auxdata: &[u8]) -> Option<u16> {
    const STATUS: usize = std::mem::offset_of!(libc::tpacket_auxdata, tp_status);
    const TCI: usize = std::mem::offset_of!(libc::tpacket_auxdata, tp_vlan_tci);
    let status = u32::from_ne_bytes(*auxdata.get(STATUS..)?.first_chunk()?);
    let tci = u16::from_ne_bytes(*auxdata.get(TCI..)?.first_chunk()?);
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tci & VLAN_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_without_its_priority() {
        let mut auxdata = [0; size_of::<libc::tpacket_auxdata>()];
        auxdata[16..18].copy_from_slice(&0xe00a_u16.to_ne_bytes());
        assert_eq!(tag(&auxdata), None, "no tag is valid");
        auxdata[..4].copy_from_slice(&libc::TP_STATUS_VLAN_VALID.to_ne_bytes());
        assert_eq!(tag(&auxdata), Some(10));
        auxdata[..4].copy_from_slice(&(libc::TP_STATUS_VLAN_VALID | 1).to_ne_bytes());
        assert_eq!(tag(&auxdata), Some(10), "beside other states");
        auxdata[..4].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(tag(&auxdata), None);
        assert_eq!(tag(&auxdata[..16]), None);
        assert_eq!(tag(&[]), None);
    }
}
