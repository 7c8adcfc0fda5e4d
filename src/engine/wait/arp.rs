//! One ARP probe on a bridge.
//!
//! The probe leaves through the bridge itself, so it needs no port, and no address on the host: its sender address
//! is 0.0.0.0, as for address conflict detection (RFC 5227, 2.1.1), which every host answers.

use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::names::Mac;

/// `ETH_P_ARP` of linux/if_ether.h.
const ETH_P_ARP: u16 = 0x0806;

/// Whether the owner of `mac` answers for `address` on a bridge of the calling thread's namespace within `limit`.
pub(super) async fn answers(bridge: &str, address: Ipv4Addr, mac: Mac, limit: Duration) -> io::Result<bool> {
    let index = nix::net::if_::if_nametoindex(bridge)?;
    let own = hardware_address(bridge)?;
    // No protocol yet: nothing arrives from other interfaces before it is bound to this one.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
    socket.bind(&link_address(index))?;
    // SAFETY: a `Socket` owns its descriptor: it stays open, and the same, until it is dropped.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)?;
    socket.get_ref().send(&request(own, address))?;
    let answered = async {
        let mut buffer = [0; 128];
        loop {
            let mut ready = socket.readable().await?;
            // Would block after all: then it is waited for again.
            let Ok(length) = ready.try_io(|socket| socket.get_ref().read(&mut buffer)) else { continue };
            if is_answer(&buffer[..length?], address, mac) {
                return io::Result::Ok(true);
            }
        }
    };
    tokio::time::timeout(limit, answered).await.unwrap_or(Ok(false))
}

fn hardware_address(name: &str) -> io::Result<[u8; 6]> {
    let found = getifaddrs()?.filter(|interface| interface.interface_name == name);
    let mut addresses = found.filter_map(|interface| interface.address?.as_link_addr()?.addr());
    addresses.next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The address of ARP on one interface, packet(7).
fn link_address(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll fits into a sockaddr_storage, and any bytes are a sockaddr_ll.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ETH_P_ARP.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the family is set and the length is that of the type that was written.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Ethernet header and ARP request (RFC 826): who has `address`, asked by nobody in particular.
fn request(own: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(own);
    frame.extend(ETH_P_ARP.to_be_bytes());
    // Ethernet, IPv4, the lengths of their addresses, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(own);
    frame.extend([0; 4 + 6]);
    frame.extend(address.octets());
    frame
}

fn is_answer(frame: &[u8], address: Ipv4Addr, mac: Mac) -> bool {
    frame.len() >= 42
        && frame[12..14] == ETH_P_ARP.to_be_bytes()
        && frame[20..22] == [0, 2]
        && frame[22..28] == mac.octets()
        && frame[28..32] == address.octets()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owners_own_reply_is_an_answer() {
        let mac = Mac::try_from([0x52, 0x54, 0, 1, 2, 3]).unwrap();
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let mut reply = request([2, 0, 0, 0, 0, 1], Ipv4Addr::new(192, 0, 2, 9));
        assert_eq!(reply.len(), 42);
        reply[21] = 2;
        reply[22..28].copy_from_slice(&mac.octets());
        reply[28..32].copy_from_slice(&address.octets());
        assert!(is_answer(&reply, address, mac));
        assert!(!is_answer(&reply[..41], address, mac));
        assert!(!is_answer(&reply, Ipv4Addr::new(192, 0, 2, 8), mac));
        assert!(!is_answer(&reply, address, Mac::try_from([2, 0, 0, 0, 0, 1]).unwrap()));
        reply[21] = 1;
        assert!(!is_answer(&reply, address, mac));
    }
}
