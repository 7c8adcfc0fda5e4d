//! Packet sockets on one interface: all of its frames, packet(7).

use socket2::{SockAddr, SockAddrStorage};

/// `ETH_P_ALL` of linux/if_ether.h.
const ETH_P_ALL: u16 = 3;

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
