//! One question on a bridge: who has this address?
//!
//! It leaves through the bridge itself, so it needs no port and no address on the host. In IPv4 its sender address is the
//! unspecified one, which every host answers. In IPv6 that would be duplicate address detection: a guest that is doing
//! its own for the same address would give the address up (RFC 4862, 5.4.3). So the sender there is the link-local
//! address that belongs to the bridge's MAC: such a question a guest passes over until the address is its own.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::line::everything_on;
use crate::names::Mac;
use crate::probe::packet::{Answer, read_frame, who_has};

/// Whether the owner of `mac` answers for `address` on a bridge of the calling thread's namespace within `limit`.
pub(super) async fn answers(bridge: &str, address: IpAddr, mac: Mac, limit: Duration) -> io::Result<bool> {
    let index = nix::net::if_::if_nametoindex(bridge)?;
    let own = hardware_address(bridge)?;
    // No protocol yet: nothing arrives from other interfaces before it is bound to this one.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
    socket.bind(&everything_on(index))?;
    // SAFETY: a `Socket` owns its descriptor: it stays open, and the same, until it is dropped.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)?;
    socket.get_ref().send(&who_has(own, sender(own, address), address))?;
    let answered = async {
        // An answer is below 100 bytes long; of other frames only the beginning is read.
        let mut buffer = [0; 256];
        loop {
            let mut ready = socket.readable().await?;
            // Would block after all: then it is waited for again.
            let Ok(length) = ready.try_io(|socket| socket.get_ref().read(&mut buffer)) else { continue };
            if read_frame(&buffer[..length?]) == Some(Answer::Has(address, mac)) {
                return io::Result::Ok(true);
            }
        }
    };
    tokio::time::timeout(limit, answered).await.unwrap_or(Ok(false))
}

fn sender(own: Mac, target: IpAddr) -> Option<IpAddr> {
    target.is_ipv6().then(|| link_local(own).into())
}

/// The link-local address of a MAC (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn hardware_address(name: &str) -> io::Result<Mac> {
    let found = getifaddrs()?.filter(|interface| interface.interface_name == name);
    let mut addresses = found.filter_map(|interface| interface.address?.as_link_addr()?.addr());
    let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
    Mac::try_from(address).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_question_is_duplicate_address_detection() {
        let own = Mac::try_from([2, 0x7f, 0x43, 0xff, 0xbf, 0xf5]).unwrap();
        let sender = |target: &str| sender(own, target.parse().unwrap());
        assert_eq!(sender("fd00:1::a"), Some("fe80::7f:43ff:feff:bff5".parse().unwrap()));
        assert_eq!(sender("10.1.0.10"), None);
    }
}
