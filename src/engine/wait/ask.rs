//! One question on a bridge: who has this address?
//!
//! It leaves through the bridge itself, so it needs no port and no address on the host. Without a sender address every
//! host would answer it, but that is how others look for duplicates: a guest that is just checking the same address would
//! give it up (RFC 5227, 2.1.1; RFC 4862, 5.4.3). So there is a sender, and a guest passes the question over until the
//! address is its own. In IPv6 the sender is the link-local address that belongs to the bridge's MAC. In IPv4 it is one
//! of the subnet that nobody of the lab has; the question goes to the guest's MAC alone, so no other machine learns that
//! the sender was here. Where the subnet has none free, it is an ARP probe after all.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::line::everything_on;
use crate::model::Model;
use crate::names::Mac;
use crate::probe::packet::{Answer, read_frame, who_has};

/// An address that a guest should answer for.
pub(super) struct Target {
    bridge: String,
    address: IpAddr,
    mac: Mac,
    /// Who asks for an IPv4 address.
    stranger: Option<Ipv4Addr>,
}

impl Target {
    /// An address of a guest, the MAC that has it, the bridge they are at, and what is [`taken`] in the lab.
    pub(super) fn new(bridge: String, net: IpNet, mac: Mac, taken: &BTreeSet<IpAddr>) -> Self {
        let stranger = match net {
            IpNet::V4(net) => stranger(net, taken),
            IpNet::V6(_) => None,
        };
        Self { bridge, address: net.addr(), mac, stranger }
    }

    fn question(&self, own: Mac) -> Vec<u8> {
        let sender = match self.address {
            IpAddr::V4(_) => self.stranger.map(IpAddr::V4),
            IpAddr::V6(_) => Some(link_local(own).into()),
        };
        let mut question = who_has(own, sender, self.address);
        if self.stranger.is_some() {
            question[..6].copy_from_slice(&self.mac.octets());
        }
        question
    }
}

/// Every address that the lab gives to somebody.
pub(super) fn taken(model: &Model) -> BTreeSet<IpAddr> {
    let of_guests = model.vms().values().flat_map(|vm| model.nics(vm)).flat_map(|(_, nic, _)| {
        nic.addresses().iter().map(IpNet::addr).chain(nic.routes().iter().map(|route| route.via))
    });
    let gateways =
        model.networks().values().flat_map(|network| network.subnets()).filter_map(|subnet| *subnet.gateway());
    of_guests.chain(gateways).collect()
}

/// A host address of the subnet that nobody has. From the middle on: the first ones and the last ones are where people
/// put what is not of the lab.
fn stranger(net: Ipv4Net, taken: &BTreeSet<IpAddr>) -> Option<Ipv4Addr> {
    let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
    let middle = first + (last - first) / 2;
    let mut candidates = (middle..last).chain(first + 1..middle).map(Ipv4Addr::from);
    candidates.find(|address| !taken.contains(&IpAddr::V4(*address)))
}

/// Whether the guest answers for its address, on a bridge of the calling thread's namespace, within `limit`.
pub(super) async fn answers(target: &Target, limit: Duration) -> io::Result<bool> {
    let index = nix::net::if_::if_nametoindex(target.bridge.as_str())?;
    let own = hardware_address(&target.bridge)?;
    // No protocol yet: nothing arrives from other interfaces before it is bound to this one.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
    socket.bind(&everything_on(index))?;
    // SAFETY: a `Socket` owns its descriptor: it stays open, and the same, until it is dropped.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)?;
    socket.get_ref().send(&target.question(own))?;
    let answered = async {
        // An answer is below 100 bytes long; of other frames only the beginning is read.
        let mut buffer = [0; 256];
        loop {
            let mut ready = socket.readable().await?;
            // Would block after all: then it is waited for again.
            let Ok(length) = ready.try_io(|socket| socket.get_ref().read(&mut buffer)) else { continue };
            if read_frame(&buffer[..length?]) == Some(Answer::Has(target.address, target.mac)) {
                return io::Result::Ok(true);
            }
        }
    };
    tokio::time::timeout(limit, answered).await.unwrap_or(Ok(false))
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

    const OWN: [u8; 6] = [2, 0x7f, 0x43, 0xff, 0xbf, 0xf5];
    const GUEST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    fn question(address: &str, stranger: Option<&str>) -> Vec<u8> {
        let stranger = stranger.map(|address| address.parse().unwrap());
        let mac = Mac::try_from(GUEST).unwrap();
        let target = Target { bridge: "br".into(), address: address.parse().unwrap(), mac, stranger };
        target.question(Mac::try_from(OWN).unwrap())
    }

    #[test]
    fn no_question_is_duplicate_address_detection() {
        let arp = question("10.1.0.10", Some("10.1.0.128"));
        // Where it goes, and the sender's addresses (RFC 826).
        assert_eq!((&arp[..6], &arp[22..28], &arp[28..32]), (&GUEST[..], &OWN[..], &[10, 1, 0, 128][..]));
        let probe = question("10.1.0.1", None);
        assert_eq!((&probe[..6], &probe[28..32]), (&[0xff; 6][..], &[0; 4][..]));
        let solicitation = question("fd00:1::a", None);
        let sender: Ipv6Addr = "fe80::7f:43ff:feff:bff5".parse().unwrap();
        assert_eq!(solicitation[22..38], sender.octets());
    }

    #[test]
    fn who_asks_is_nobody_of_the_lab() {
        let of = |net: &str, taken: &[&str]| {
            let taken = taken.iter().map(|address| address.parse().unwrap()).collect();
            stranger(net.parse().unwrap(), &taken).map(|address| address.to_string())
        };
        assert_eq!(of("10.1.0.10/24", &[]).as_deref(), Some("10.1.0.127"));
        assert_eq!(of("10.1.0.10/24", &["10.1.0.127", "10.1.0.128"]).as_deref(), Some("10.1.0.129"));
        assert_eq!(of("10.1.0.1/29", &["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]).as_deref(), Some("10.1.0.1"));
        assert_eq!(of("10.1.0.1/30", &["10.1.0.1", "10.1.0.2"]), None);
        // Both addresses of a point-to-point link are hosts' (RFC 3021).
        assert_eq!(of("10.1.0.1/31", &["10.1.0.1"]).as_deref(), Some("10.1.0.0"));
        assert_eq!(of("10.1.0.1/31", &["10.1.0.0", "10.1.0.1"]), None);
        assert_eq!(of("10.1.0.1/32", &[]), None);
        assert!(of("0.0.0.0/0", &[]).is_some());
    }
}
