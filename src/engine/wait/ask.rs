//! One question on a bridge: who has this address?
//!
//! It leaves through the bridge itself, so it needs no port and no address on the host: its sender address is the
//! unspecified one, which every host answers.

use std::io::{self, Read};
use std::net::IpAddr;
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
    socket.get_ref().send(&who_has(own, None, address))?;
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

fn hardware_address(name: &str) -> io::Result<Mac> {
    let found = getifaddrs()?.filter(|interface| interface.interface_name == name);
    let mut addresses = found.filter_map(|interface| interface.address?.as_link_addr()?.addr());
    let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
    Mac::try_from(address).map_err(io::Error::other)
}
