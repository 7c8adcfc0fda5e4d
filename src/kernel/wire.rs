//! [`Wire`]: a blocking rtnetlink socket for dumps and for a thread's single requests.
//!
//! Changes go through `rtnetlink` (see [`super::netlink`]). Dumps don't: its parser drops a link whose name is not
//! UTF-8 or whose driver adds an attribute of unknown shape, and it reads every attribute; here only those that are
//! asked for are looked at, whatever else stands in the message.

use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkMessage,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// `NLM_F_DUMP_INTR`: the dumped table changed meanwhile, so the dump may have gaps.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// How often an interrupted dump is begun anew before it is taken as it is.
const ATTEMPTS: usize = 8;

/// A dump fills datagrams of at most 32 KiB (`netlink_dump`).
const BUFFER: usize = 64 * 1024;

/// A socket in the namespace of the thread that opened it.
pub(super) struct Wire {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Lets the kernel filter routes by table and protocol; it then refuses what it does not understand.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(super) fn request(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        self.replies(|_, _, _| {})
    }

    /// Sends one request to make something that must not be there yet, and waits for its acknowledgement.
    pub(super) fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
        self.replies(|_, _, _| {})
    }

    /// Sends one request and gives its one answer to `parse`.
    pub(super) fn ask<T>(
        &mut self,
        message: RouteNetlinkMessage,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut found = None;
        self.replies(|_, _, payload| found = found.take().or_else(|| parse(payload)))?;
        Ok(found)
    }

    /// Dumps a table: `parse` sees the body of each message and says `None` for what is of no interest.
    pub(super) fn dump<T>(
        &mut self,
        message: RouteNetlinkMessage,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for attempt in 1.. {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut found = Vec::new();
            let mut interrupted = false;
            let end = self.replies(|_, flags, payload| {
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                found.extend(parse(payload));
            });
            match end {
                // A family or routing table that does not exist has nothing in it.
                Err(source) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => {}
                other => other?,
            }
            if !interrupted || attempt >= ATTEMPTS {
                return Ok(found);
            }
        }
        unreachable!("the loop above ends by itself")
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads until the end of the answer to the last request.
    fn replies(&mut self, mut each: impl FnMut(u16, u16, &[u8])) -> io::Result<()> {
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = self.buffer.as_slice();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let length = message.length() as usize;
                if message.sequence_number() == self.sequence {
                    let payload = message.payload();
                    match message.message_type() {
                        NLMSG_ERROR | NLMSG_DONE => return outcome(payload),
                        kind => each(kind, message.flags(), payload),
                    }
                }
                // NLMSG_ALIGN
                rest = rest.get((length + 3) & !3..).unwrap_or_default();
            }
        }
    }
}

/// Both an error and the end of a dump begin with a negative error number, or 0.
fn outcome(payload: &[u8]) -> io::Result<()> {
    let Some(Ok(code)) = payload.get(..4).map(<[u8; 4]>::try_from) else { return Ok(()) };
    match i32::from_ne_bytes(code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
    }
}
