//! The packets that a probe sends, and what it reads from those that come back. Bytes only, no sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Slice, IcmpEchoHeader, Icmpv4Slice, Icmpv4Type,
    Icmpv6Slice, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};

use crate::names::{Mac, VlanId};

/// What a hop limit of 255 proves: that the packet has passed no router (RFC 4861, 7.1.1).
const HOP_LIMIT: u8 = 255;

/// Sent where nobody is known yet.
const BROADCAST: [u8; 6] = [0xff; 6];

/// Neighbour solicitation and advertisement (RFC 4861, 4.3 and 4.4), and the option with the sender's MAC.
const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;

/// What an echo request carries, so that its reply is told from everybody else's: who asked, and which try it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// One number for all requests of a run.
    pub run: u64,
    /// The try.
    pub number: u32,
}

impl Token {
    const LENGTH: usize = 12;

    pub(super) fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.run.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some(Self { run: u64::from_be_bytes(*run), number: u32::from_be_bytes(*number) })
    }
}

/// The question who has `target`: ARP, or a neighbour solicitation. Without a `sender` it is the one that everybody
/// answers who has the address, whatever their routes say: an ARP probe (RFC 5227, 2.1.1), or the solicitation of
/// duplicate address detection (RFC 4862, 5.4.2).
pub(crate) fn who_has(mac: Mac, sender: Option<IpAddr>, target: IpAddr) -> Vec<u8> {
    match target {
        IpAddr::V4(target) => {
            let sender = sender.and_then(ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED);
            arp_request(mac, sender, target)
        }
        IpAddr::V6(target) => {
            let sender = sender.and_then(ipv6).unwrap_or(Ipv6Addr::UNSPECIFIED);
            solicitation(mac, sender, target)
        }
    }
}

/// A frame with an 802.1Q tag behind its two addresses (IEEE 802.1Q, 9.3), priority 0.
pub(super) fn tagged(frame: &[u8], vlan: VlanId) -> Vec<u8> {
    const TAG: [u8; 2] = [0x81, 0x00];
    let (addresses, rest) = frame.split_at(12);
    [addresses, &TAG, &vlan.get().to_be_bytes(), rest].concat()
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn ipv6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &mac.octets(),
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    )
    .expect("addresses of equal length make an ARP packet");
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(mac.octets(), BROADCAST).arp(packet);
    builder.write(&mut frame).expect("a vector takes every byte");
    frame
}

fn solicitation(mac: Mac, sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = target.octets();
    // The solicited-node multicast address (RFC 4291, 2.7.1) and its Ethernet address (RFC 2464, 7).
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
    let mut body = target.octets().to_vec();
    if !sender.is_unspecified() {
        body.extend([SOURCE_LINK_ADDRESS, 1]);
        body.extend(mac.octets());
    }
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac.octets(), [0x33, 0x33, 0xff, x, y, z])
        .ipv6(sender.octets(), group, HOP_LIMIT)
        .icmpv6_raw(SOLICITATION, 0, [0; 4])
        .write(&mut frame, &body)
        .expect("a small packet fits");
    frame
}

/// An ICMP echo request without IP header, for a raw socket. The kernel fills in the checksum of ICMPv6 (RFC 3542,
/// 3.1), not that of ICMP.
pub(super) fn echo(ipv4: bool, token: Token) -> Vec<u8> {
    let header = echo_header(token);
    let mut message = Vec::new();
    if ipv4 {
        let header = etherparse::Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), &token.bytes());
        message.extend_from_slice(&header.to_bytes());
    } else {
        let header = etherparse::Icmpv6Header { icmp_type: Icmpv6Type::EchoRequest(header), checksum: 0 };
        message.extend_from_slice(&header.to_bytes());
    }
    message.extend(token.bytes());
    message
}

/// An ICMP echo request as a whole frame, for one given next hop.
pub(super) fn echo_frame(macs: (Mac, Mac), addresses: (Ipv4Addr, Ipv4Addr), token: Token) -> Vec<u8> {
    let IcmpEchoHeader { id, seq } = echo_header(token);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.octets(), macs.1.octets())
        .ipv4(addresses.0.octets(), addresses.1.octets(), 64)
        .icmpv4_echo_request(id, seq)
        .write(&mut frame, &token.bytes())
        .expect("a small packet fits");
    frame
}

/// Identifier and sequence number: a NAT keys its state by the first, so each run and try has its own pair.
fn echo_header(token: Token) -> IcmpEchoHeader {
    let [.., a, b] = token.run.to_be_bytes();
    let [.., c, d] = token.number.to_be_bytes();
    IcmpEchoHeader { id: u16::from_be_bytes([a, b]), seq: u16::from_be_bytes([c, d]) }
}

/// What an incoming frame says to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This address is at this MAC.
    Has(IpAddr, Mac),
    /// A reply to an echo request, from this address.
    Echo(IpAddr, Token),
}

/// Reads a frame as AF_PACKET delivers it; `None` when it answers nothing.
pub(crate) fn read_frame(frame: &[u8]) -> Option<Answer> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        NetSlice::Arp(arp) if arp.operation() == ArpOperation::REPLY => {
            let mac: [u8; 6] = arp.sender_hw_addr().try_into().ok()?;
            let address: [u8; 4] = arp.sender_protocol_addr().try_into().ok()?;
            Some(Answer::Has(IpAddr::from(address), Mac::try_from(mac).ok()?))
        }
        NetSlice::Arp(_) => None,
        NetSlice::Ipv4(ip) => match packet.transport? {
            TransportSlice::Icmpv4(icmp) => read_echo(ip.header().source_addr().into(), &icmp),
            _ => None,
        },
        NetSlice::Ipv6(_) => match packet.transport? {
            TransportSlice::Icmpv6(icmp) => advertisement(frame, &icmp),
            _ => None,
        },
    }
}

/// What passes on the way of a probe's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passing {
    /// The question who has an address, and the MAC that asks.
    Asks(Mac, IpAddr),
    /// The answer that it is at the frame's sender, to this MAC or to everybody.
    Has(Option<Mac>, IpAddr),
    /// An echo request.
    Request(Token),
    /// Its reply.
    Reply(Token),
}

/// A frame as it passes a link, whoever it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passer {
    /// The MAC that it comes from.
    pub from: Mac,
    /// The MAC that it goes to; `None`: to several.
    pub to: Option<Mac>,
    /// The VLAN of a tag in the frame.
    pub tag: Option<u16>,
    /// What it is.
    pub what: Passing,
}

/// Reads a frame that passes; `None` when it is none of those.
pub(super) fn read_passing(frame: &[u8]) -> Option<Passer> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).ok()?;
    let from = Mac::try_from(ethernet.source()).ok()?;
    // Multicast and broadcast addresses are no MAC of anybody's.
    let to = Mac::try_from(ethernet.destination()).ok();
    let tag = packet.vlan_ids().first().map(|id| id.value());
    let what = match (packet.net?, packet.transport) {
        (NetSlice::Arp(arp), _) => {
            let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
            match arp.operation() {
                ArpOperation::REQUEST => Passing::Asks(from, address(arp.target_protocol_addr())?),
                ArpOperation::REPLY => Passing::Has(to, address(arp.sender_protocol_addr())?),
                _ => return None,
            }
        }
        (NetSlice::Ipv4(_), Some(TransportSlice::Icmpv4(icmp))) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(_) => Passing::Request(Token::read(icmp.payload())?),
            Icmpv4Type::EchoReply(_) => Passing::Reply(Token::read(icmp.payload())?),
            _ => return None,
        },
        (NetSlice::Ipv6(_), Some(TransportSlice::Icmpv6(icmp))) => match (icmp.type_u8(), icmp.icmp_type()) {
            (_, Icmpv6Type::EchoRequest(_)) => Passing::Request(Token::read(icmp.payload())?),
            (_, Icmpv6Type::EchoReply(_)) => Passing::Reply(Token::read(icmp.payload())?),
            (SOLICITATION, _) => Passing::Asks(from, target(&icmp)?),
            (ADVERTISEMENT, _) => Passing::Has(to, target(&icmp)?),
            _ => return None,
        },
        _ => return None,
    };
    Some(Passer { from, to, tag, what })
}

/// The address that a solicitation or an advertisement is about (RFC 4861, 4.3 and 4.4).
fn target(icmp: &Icmpv6Slice<'_>) -> Option<IpAddr> {
    let target: [u8; 16] = *icmp.slice().get(8..)?.first_chunk()?;
    Some(IpAddr::from(target))
}

/// A neighbour advertisement. The answer to duplicate address detection carries the MAC in an option, which the
/// frame's own sender equals on Ethernet.
fn advertisement(frame: &[u8], icmp: &Icmpv6Slice<'_>) -> Option<Answer> {
    if icmp.type_u8() != ADVERTISEMENT {
        return None;
    }
    let mac = Ethernet2Slice::from_slice_without_fcs(frame).ok()?.source();
    Some(Answer::Has(target(icmp)?, Mac::try_from(mac).ok()?))
}

fn read_echo(from: IpAddr, icmp: &Icmpv4Slice<'_>) -> Option<Answer> {
    match icmp.icmp_type() {
        Icmpv4Type::EchoReply(_) => Some(Answer::Echo(from, Token::read(icmp.payload())?)),
        _ => None,
    }
}

/// Reads what a raw ICMP socket delivers: with an IP header in IPv4 (raw(7)), without one in IPv6 (RFC 3542, 3).
pub(super) fn read_icmp(from: IpAddr, bytes: &[u8]) -> Option<Answer> {
    match from {
        IpAddr::V4(_) => {
            let header = usize::from(bytes.first()? & 0xf) * 4;
            read_echo(from, &Icmpv4Slice::from_slice(bytes.get(header..)?).ok()?)
        }
        IpAddr::V6(_) => {
            let icmp = Icmpv6Slice::from_slice(bytes).ok()?;
            match icmp.icmp_type() {
                Icmpv6Type::EchoReply(_) => Some(Answer::Echo(from, Token::read(icmp.payload())?)),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token { run: 0x0102_0304_0506_0708, number: 77 };

    fn mac(last: u8) -> Mac {
        Mac::try_from([2, 0, 0, 0, 0, last]).unwrap()
    }

    #[test]
    fn a_question_is_no_answer() {
        for (sender, target) in [(Some("192.0.2.1"), "192.0.2.2"), (None, "192.0.2.2"), (None, "2001:db8::2")] {
            let sender = sender.map(|text: &str| text.parse().unwrap());
            assert_eq!(read_frame(&who_has(mac(1), sender, target.parse().unwrap())), None);
        }
        assert_eq!(read_frame(&[]), None);
        assert_eq!(read_frame(&[0; 60]), None);
    }

    #[test]
    fn an_arp_probe_has_no_sender_address() {
        let frame = who_has(mac(1), None, "192.0.2.2".parse().unwrap());
        assert_eq!(frame[..6], BROADCAST);
        assert_eq!(frame[28..32], [0; 4]);
        assert_eq!(frame[38..42], [192, 0, 2, 2]);
    }

    #[test]
    fn a_tag_stands_behind_the_addresses() {
        let plain = who_has(mac(1), None, "192.0.2.2".parse().unwrap());
        let frame = tagged(&plain, VlanId::try_from(0x123).unwrap());
        assert_eq!(frame[..12], plain[..12]);
        assert_eq!(frame[12..16], [0x81, 0, 1, 0x23]);
        assert_eq!(frame[16..], plain[12..]);
    }

    #[test]
    fn an_arp_reply_is_read() {
        let mut frame = who_has(mac(7), Some("192.0.2.9".parse().unwrap()), "192.0.2.2".parse().unwrap());
        frame[21] = 2;
        assert_eq!(read_frame(&frame), Some(Answer::Has("192.0.2.9".parse().unwrap(), mac(7))));
    }

    #[test]
    fn echo_replies_carry_the_token() {
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let mut frame = echo_frame((mac(1), mac(2)), (from, to), TOKEN);
        assert_eq!(read_frame(&frame), None, "a request");
        frame[34] = 0;
        assert_eq!(read_frame(&frame), Some(Answer::Echo(from.into(), TOKEN)));
        assert_eq!(read_icmp(from.into(), &frame[14..]), Some(Answer::Echo(from.into(), TOKEN)));
    }

    #[test]
    fn what_passes_is_read_with_its_tag() {
        let addresses = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let mut frame = echo_frame((mac(1), mac(2)), addresses, TOKEN);
        let passer = |tag, what| Some(Passer { from: mac(1), to: Some(mac(2)), tag, what });
        assert_eq!(read_passing(&frame), passer(None, Passing::Request(TOKEN)));
        frame[34] = 0;
        frame.splice(12..12, [0x81, 0, 0x20, 10]);
        assert_eq!(read_passing(&frame), passer(Some(10), Passing::Reply(TOKEN)));
        for target in ["192.0.2.2", "2001:db8::2"] {
            let target: IpAddr = target.parse().unwrap();
            let asked = read_passing(&who_has(mac(1), None, target)).unwrap();
            assert_eq!((asked.to, asked.what), (None, Passing::Asks(mac(1), target)));
        }
        let mut answer = who_has(mac(2), Some(addresses.1.into()), addresses.0.into());
        answer[..6].copy_from_slice(&mac(1).octets());
        answer[21] = 2;
        let has = read_passing(&answer).unwrap();
        assert_eq!((has.from, has.what), (mac(2), Passing::Has(Some(mac(1)), addresses.1.into())));
        assert_eq!(read_passing(&[0; 60]), None);
    }

    #[test]
    fn both_families_echo() {
        assert_eq!(echo(true, TOKEN)[0], 8);
        let mut message = echo(false, TOKEN);
        assert_eq!(message[0], 128);
        message[0] = 129;
        let from: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(read_icmp(from, &message), Some(Answer::Echo(from, TOKEN)));
    }
}
