//! Frames on links: sent by hand, and captured.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::snapshot::inside;

/// A capture that runs. tcpdump puts a VLAN tag back that the kernel has taken off into its own records.
pub(crate) struct Capture {
    name: String,
    process: Child,
    file: PathBuf,
}

impl Capture {
    /// Captures on a link of a namespace (`None`: the host's).
    pub(crate) fn start(ns: Option<&str>, link: &str) -> Self {
        Self::start_by(|command| inside(ns, command), ns.unwrap_or("host"), link)
    }

    /// Captures on a link of a place that `enter` leads a command to.
    pub(crate) fn start_by(enter: impl Fn(&str) -> String, place: &str, link: &str) -> Self {
        let name = format!("{link} in {place}");
        let file = PathBuf::from(format!("/run/capture-{place}-{link}.pcap"));
        let log = file.with_extension("log");
        let command = enter(&format!("tcpdump -n -U --immediate-mode -Z root -i {link} -w {}", file.display()));
        let process = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log of the capture"))
            .spawn()
            .expect("sh starts");
        let capture = Self { name, process, file };
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        for _ in 0..500 {
            if said().contains("listening on") {
                return capture;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("tcpdump on {} does not start: {}", capture.name, said());
    }

    /// Ends the capture and reads what it has seen.
    pub(crate) fn stop(mut self) -> Vec<Frame> {
        // What is on its way arrives: the links are virtual, so this is much.
        std::thread::sleep(Duration::from_millis(150));
        let pid = i32::try_from(self.process.id()).expect("a pid fits");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("tcpdump still runs");
        self.process.wait().expect("tcpdump ends");
        let bytes = std::fs::read(&self.file).unwrap_or_else(|error| panic!("capture of {}: {error}", self.name));
        records(&bytes).into_iter().map(Frame).collect()
    }
}

/// The records of a capture file (pcap-savefile(5), in the byte order of this machine).
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    bytes = bytes.get(24..).unwrap_or_default();
    while let Some((header, rest)) = bytes.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((record, rest)) = rest.split_at_checked(length) else { break };
        found.push(record.to_vec());
        bytes = rest;
    }
    found
}

/// A captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame(pub Vec<u8>);

impl Frame {
    fn parsed(&self) -> Option<SlicedPacket<'_>> {
        SlicedPacket::from_ethernet(&self.0).ok()
    }

    /// The source MAC, with colons.
    pub(crate) fn source(&self) -> String {
        mac(self.0.get(6..12).unwrap_or_default())
    }

    /// Its VLAN tags, outermost first.
    pub(crate) fn tags(&self) -> Vec<u16> {
        let Some(packet) = self.parsed() else { return Vec::new() };
        let vlan = |extension: &LinkExtSlice<'_>| match extension {
            LinkExtSlice::Vlan(tag) => Some(tag.vlan_identifier().value()),
            LinkExtSlice::Macsec(_) => None,
        };
        packet.link_exts.iter().filter_map(vlan).collect()
    }

    /// Sender and receiver of an IPv4 packet.
    pub(crate) fn ipv4(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match self.parsed()?.net? {
            NetSlice::Ipv4(ip) => Some((ip.header().source_addr(), ip.header().destination_addr())),
            _ => None,
        }
    }

    /// Whether it is an ARP reply.
    pub(crate) fn is_arp_reply(&self) -> bool {
        matches!(self.parsed().and_then(|packet| packet.net),
            Some(NetSlice::Arp(arp)) if arp.operation() == etherparse::ArpOperation::REPLY)
    }
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Frames that no guest may send to a wire, each with the bytes that mark it: what follows the two addresses begins
/// with the type field. Their padding ends in `serial`, so that each is recognised wherever it turns up.
pub(crate) fn forbidden(source: &[u8; 6], serial: u8) -> Vec<(&'static str, Vec<u8>)> {
    let list: [(&str, [u8; 6], &[u8]); 8] = [
        ("BPDU", [0x01, 0x80, 0xc2, 0, 0, 0], &[0x00, 0x26, 0x42, 0x42, 0x03, 0, 0, 0, 0, 0]),
        ("LLDP", [0x01, 0x80, 0xc2, 0, 0, 0x0e], &[0x88, 0xcc, 0x02, 0x07]),
        ("LLDP to everybody", [0xff; 6], &[0x88, 0xcc, 0x02, 0x07]),
        ("pause", [0x01, 0x80, 0xc2, 0, 0, 0x01], &[0x88, 0x08, 0x00, 0x01, 0xff, 0xff]),
        ("802.1Q", [0xff; 6], &[0x81, 0x00, 0x00, 0x14, 0x08, 0x06]),
        ("802.1Q, priority only", [0xff; 6], &[0x81, 0x00, 0xe0, 0x00, 0x08, 0x06]),
        ("double-tagged", [0xff; 6], &[0x81, 0x00, 0x00, 0x14, 0x81, 0x00, 0x00, 0x15, 0x08, 0x00]),
        ("802.1ad", [0xff; 6], &[0x88, 0xa8, 0x00, 0x14, 0x81, 0x00, 0x00, 0x15, 0x08, 0x00]),
    ];
    list.into_iter().map(|(name, destination, rest)| (name, frame(&destination, source, rest, serial))).collect()
}

/// A frame of 64 bytes whose last four are a mark and `serial`.
pub(crate) fn frame(destination: &[u8; 6], source: &[u8; 6], rest: &[u8], serial: u8) -> Vec<u8> {
    let mut frame = [destination.as_slice(), source, rest].concat();
    frame.resize(60, 0);
    frame.extend([0xde, 0xad, 0xbe, serial]);
    frame
}

/// Whether a captured frame is one of [`frame`]'s with this serial, whatever was done to its head.
pub(crate) fn is_marked(captured: &Frame, serial: u8) -> bool {
    captured.0.ends_with(&[0xde, 0xad, 0xbe, serial])
}

/// A frame that anybody may send: broadcast, of a type for local experiments (IEEE 802, 9.2.3).
pub(crate) fn harmless(source: &[u8; 6], serial: u8) -> Vec<u8> {
    frame(&[0xff; 6], source, &[0x88, 0xb5], serial)
}

/// An ARP request.
pub(crate) fn who_has(source: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let (hardware, protocol) = (etherparse::ArpHardwareId::ETHERNET, etherparse::EtherType::IPV4);
    let request = etherparse::ArpOperation::REQUEST;
    let addresses = (sender.octets(), target.octets());
    let packet = etherparse::ArpPacket::new(hardware, protocol, request, &source, &addresses.0, &[0; 6], &addresses.1);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(source, [0xff; 6])
        .arp(packet.expect("addresses of equal length"))
        .write(&mut frame)
        .expect("a vector takes every byte");
    frame
}

/// An echo request with these hops to live, to the gateway whose MAC is `to`.
pub(crate) fn echo(macs: ([u8; 6], [u8; 6]), addresses: (Ipv4Addr, Ipv4Addr), hops: u8) -> Vec<u8> {
    let ((from, to), (source, target)) = (macs, addresses);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(from, to)
        .ipv4(source.octets(), target.octets(), hops)
        .icmpv4_echo_request(1, 1)
        .write(&mut frame, b"whose source is this?")
        .expect("a vector takes every byte");
    frame
}

/// Sends frames as they are on a link of a namespace.
pub(crate) fn send(ns: Option<&str>, link: &str, frames: &[Vec<u8>]) {
    send_at(ns.map(|ns| format!("/run/netns/{ns}")), link, frames);
}

/// As [`send`], with the file of a namespace.
pub(crate) fn send_at(path: Option<String>, link: &str, frames: &[Vec<u8>]) {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            if let Some(path) = path {
                let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering the namespace");
            }
            let links = nix::ifaddrs::getifaddrs().expect("links");
            let address = links
                .filter(|found| found.interface_name == link)
                .find_map(|found| found.address.and_then(|address| address.as_link_addr().copied()))
                .unwrap_or_else(|| panic!("there is no link {link}"));
            // Protocol 0: it receives nothing.
            let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None).expect("a socket");
            nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).expect("bound to the link");
            for frame in frames {
                socket.send(frame).expect("sent");
            }
        });
        sender.join().expect("the frames are sent");
    });
}
