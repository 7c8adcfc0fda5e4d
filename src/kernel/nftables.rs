//! Questions to nf_tables over its own netlink socket: tables with their comments, base chains, the generation.
//!
//! Microseconds where an `nft` process takes milliseconds; and `nft -j` 1.0.6 does not print comments at all.

use std::io;

use rtnetlink::packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator};
use rtnetlink::sys::{Socket, SocketAddr};

use super::nft::{HookRow, TableRow};

// linux/netfilter/nfnetlink.h and nf_tables.h
const NETLINK_NETFILTER: isize = 12;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETGEN: u16 = 16;

/// The number of the last commit in the calling thread's namespace, by anyone.
pub fn generation() -> io::Result<u32> {
    const NFTA_GEN_ID: u16 = 1;
    let number = |body: &[u8]| {
        let nla = nlas(body).find(|nla| nla.kind() == NFTA_GEN_ID)?;
        Some(u32::from_be_bytes(nla.value().try_into().ok()?))
    };
    // Acknowledged, so that both an answer and a refusal end the same way.
    let found = ask(NFT_MSG_GETGEN, (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16, number)?;
    found.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The tables of the calling thread's namespace.
pub fn tables() -> io::Result<Vec<TableRow>> {
    const NFTA_TABLE_NAME: u16 = 1;
    const NFTA_TABLE_USERDATA: u16 = 6;
    let row = |body: &[u8]| {
        let mut row = TableRow { family: *body.first()?, name: String::new(), comment: None };
        for nla in nlas(body) {
            match nla.kind() {
                NFTA_TABLE_NAME => row.name = text(nla.value()),
                NFTA_TABLE_USERDATA => row.comment = comment(nla.value()),
                _ => {}
            }
        }
        Some(row)
    };
    ask(NFT_MSG_GETTABLE, (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, row)
}

/// The base chains of the calling thread's namespace.
pub fn hooks() -> io::Result<Vec<HookRow>> {
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    let row = |body: &[u8]| {
        let (mut table, mut name, mut hook) = (String::new(), String::new(), None);
        for nla in nlas(body) {
            match nla.kind() {
                NFTA_CHAIN_TABLE => table = text(nla.value()),
                NFTA_CHAIN_NAME => name = text(nla.value()),
                NFTA_CHAIN_HOOK => {
                    let number = NlasIterator::new(nla.value()).map_while(Result::ok);
                    let number = number.filter(|nla| nla.kind() == NFTA_HOOK_HOOKNUM);
                    hook = number.last().and_then(|nla| Some(u32::from_be_bytes(nla.value().try_into().ok()?)));
                }
                _ => {}
            }
        }
        Some(HookRow { family: *body.first()?, table, name, hook: hook? })
    };
    ask(NFT_MSG_GETCHAIN, (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, row)
}

/// Attributes behind `struct nfgenmsg`.
fn nlas(body: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(body.get(4..).unwrap_or_default()).map_while(Result::ok)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// User data is a list of type, length, value, each in bytes; type 0 is the comment (libnftnl, udata.h).
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        data = &rest[value.len()..];
    }
    None
}

fn ask<T>(question: u16, flags: u16, parse: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // struct nlmsghdr and struct nfgenmsg; all families, version 0
    let mut request = Vec::with_capacity(20);
    request.extend(20_u32.to_ne_bytes());
    request.extend((NFNL_SUBSYS_NFTABLES << 8 | question).to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 12]);
    socket.send(&request, 0)?;
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match i32::from(message.message_type()) {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                    let code = message.payload().get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
                    return match code {
                        Some(code) if code != 0 => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                        _ => Ok(found),
                    };
                }
                _ => found.extend(parse(message.payload())),
            }
            rest = rest.get((message.length() as usize + 3) & !3..).unwrap_or_default();
        }
    }
}
