//! [`Kernel`]: one rtnetlink connection a namespace, and the requests that go over it.
//!
//! A request is built first and sent afterwards, so that the requests of a wave can be in flight together. Links
//! are found by name in the message itself where rtnetlink allows it. Where it wants an index (masters, parents,
//! addresses, routes), the name is looked up right before by an ioctl of a microsecond: an index is never kept, so
//! none can be stale.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, TokioSocket};

use super::ethtool::Control;
use super::message::{self, Sits};
use super::told::{End, Told};
use super::{KernelError, netns};
use crate::names::{IfName, NsName};
use crate::plan::LinkChange;
use crate::render::ETHERNET_MTU;
use crate::state::{Address, Link, LinkId, LinkKind, Ns, Route};

/// The connections of a process to the kernel. Lives on a tokio runtime; opens each namespace when it is needed.
#[derive(Debug, Default)]
pub struct Kernel {
    entered: BTreeMap<Ns, Entered>,
}

/// What is open in one namespace.
#[derive(Debug)]
struct Entered {
    handle: Handle,
    /// Why the connection ended, if it has.
    end: End,
    /// Drives the socket; ended when the namespace goes, since an open socket keeps a namespace alive.
    task: tokio::task::JoinHandle<()>,
    control: Control,
    fd: Arc<OwnedFd>,
}

/// A request that is ready to be sent.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    handle: Handle,
    end: End,
    /// One message, in one case two: the second is sent when the first has worked.
    messages: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    action: String,
    /// Keeps a descriptor that the message names open until the kernel has read it.
    _target: Option<Arc<OwnedFd>>,
}

impl Kernel {
    /// Nothing is opened yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn enter(&mut self, ns: &Ns) -> Result<&Entered, KernelError> {
        // A connection ends with the runtime that drives it.
        if self.entered.get(ns).is_none_or(|entered| entered.task.is_finished()) {
            self.entered.insert(ns.clone(), open(ns)?);
        }
        Ok(&self.entered[ns])
    }

    /// Closes what is open in a namespace, so that it can end.
    pub async fn leave(&mut self, name: &NsName) {
        if let Some(entered) = self.entered.remove(&Ns::Named(name.clone())) {
            entered.task.abort();
            // Aborted or ended: the socket is closed either way once the task is joined.
            let _ = entered.task.await;
        }
    }

    /// The index of a link by name.
    pub fn index(&mut self, ns: &Ns, name: &str) -> Result<Option<u32>, KernelError> {
        let control = &self.enter(ns)?.control;
        control.index(name).map_err(|source| KernelError::Refused {
            action: format!("look up {}", name.escape_default()),
            text: None,
            source,
        })
    }

    /// The control socket of a namespace, for ioctls on links there.
    pub fn control(&mut self, ns: &Ns) -> Result<&Control, KernelError> {
        Ok(&self.enter(ns)?.control)
    }

    fn need(&mut self, ns: &Ns, name: &str, action: &str) -> Result<u32, KernelError> {
        let missing = || KernelError::NoLink { action: action.to_owned(), name: name.escape_default().to_string() };
        self.index(ns, name)?.ok_or_else(missing)
    }

    fn request(
        &mut self,
        ns: &Ns,
        action: String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Request, KernelError> {
        let Entered { handle, end, .. } = self.enter(ns)?;
        let (handle, end) = (handle.clone(), end.clone());
        Ok(Request { handle, end, messages: vec![flagged(message, flags)], action, _target: None })
    }

    /// Makes a link in one message: kind, MAC, MTU, group, master. It stays down.
    ///
    /// # Errors
    /// Also for a veth end without its peer and for a TAP, which no message can make.
    pub fn add_link(&mut self, id: &LinkId, link: &Link) -> Result<Request, KernelError> {
        let action = format!("add {} {id}", link.kind.word());
        let master = self.master(&id.ns, link, &action)?;
        let (sits, parent) = match &link.kind {
            LinkKind::Bridge(settings) => {
                // An MTU that came with the creation does not count as chosen: the bridge would take its ports' smallest
                // one, and Ethernet's again when the last of them leaves. One that is set afterwards stays.
                let plain = Link { mtu: ETHERNET_MTU, ..link.clone() };
                let message = message::add_bridge(&id.name, &plain, settings, master);
                let mut request = self.request(&id.ns, action, message, NLM_F_CREATE | NLM_F_EXCL)?;
                if link.mtu != ETHERNET_MTU {
                    let change = LinkChange { mtu: Some(link.mtu), ..LinkChange::default() };
                    request.messages.push(flagged(message::change_link(id.name.as_str(), &change, None), 0));
                }
                return Ok(request);
            }
            LinkKind::Vlan { parent, id } => (Sits::Vlan(id.get()), parent),
            LinkKind::Macvlan { parent } => (Sits::Macvlan, parent),
            LinkKind::Veth { .. } | LinkKind::Tap => {
                let source = io::Error::from(io::ErrorKind::Unsupported);
                return Err(KernelError::Refused { action, text: None, source });
            }
        };
        let parent = self.need(&Ns::Host, parent.as_str(), &action)?;
        let target = self.target(&id.ns)?;
        let fd = target.as_ref().map(|fd| fd.as_raw_fd());
        let message = message::add_on_parent((&id.name, link), sits, parent, (master, fd));
        let request = self.request(&Ns::Host, action, message, NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(Request { _target: target, ..request })
    }

    /// Makes both ends of a veth pair in one message, each in its namespace; the near one with its master.
    pub fn add_veth(&mut self, near: (&LinkId, &Link), far: (&LinkId, &Link)) -> Result<Request, KernelError> {
        let ((near, near_link), (far, far_link)) = (near, far);
        let action = format!("add veth {near} to {far}");
        let master = self.master(&near.ns, near_link, &action)?;
        let target = self.enter(&far.ns)?.fd.clone();
        let far_end: (&IfName, &Link, RawFd) = (&far.name, far_link, target.as_raw_fd());
        let message = message::add_veth((&near.name, near_link, master), far_end);
        let request = self.request(&near.ns, action, message, NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(Request { _target: Some(target), ..request })
    }

    /// Changes attributes of a link in one message.
    pub fn change_link(&mut self, id: &LinkId, change: &LinkChange) -> Result<Request, KernelError> {
        let action = format!("set {id}: {change}");
        let master = match &change.master {
            Some(Some(bridge)) => Some(self.need(&id.ns, bridge, &action)?),
            Some(None) => Some(0),
            None => None,
        };
        let mut request = self.request(&id.ns, action, message::change_link(id.name.as_str(), change, master), 0)?;
        if change.bridge.is_some_and(|settings| !settings.stp) {
            request.messages.insert(0, flagged(message::stp_off(id.name.as_str()), 0));
        }
        Ok(request)
    }

    /// Removes a link; for one end of a veth pair, both.
    pub fn remove_link(&mut self, id: &LinkId) -> Result<Request, KernelError> {
        self.request(&id.ns, format!("remove link {id}"), message::remove_link(&id.name), 0)
    }

    /// Removes every link of a group in a namespace.
    pub fn remove_group(&mut self, ns: &Ns, group: u32) -> Result<Request, KernelError> {
        self.request(ns, format!("remove the links of group {group} in {ns}"), message::remove_group(group), 0)
    }

    /// Adds an address.
    pub fn add_address(&mut self, address: &Address) -> Result<Request, KernelError> {
        let action = format!("add address {} to {}", address.net, address.link);
        let index = self.need(&address.link.ns, address.link.name.as_str(), &action)?;
        let message = RouteNetlinkMessage::NewAddress(message::address(index, address.net));
        self.request(&address.link.ns, action, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes an address.
    pub fn remove_address(&mut self, address: &Address) -> Result<Request, KernelError> {
        let action = format!("remove address {} from {}", address.net, address.link);
        let index = self.need(&address.link.ns, address.link.name.as_str(), &action)?;
        let message = RouteNetlinkMessage::DelAddress(message::address(index, address.net));
        self.request(&address.link.ns, action, message, 0)
    }

    /// Adds a route with our protocol number to the main table.
    pub fn add_route(&mut self, route: &Route) -> Result<Request, KernelError> {
        let action = format!("add route {} dev {} in {}", route.to, route.dev, route.ns);
        let index = self.need(&route.ns, route.dev.as_str(), &action)?;
        let message = RouteNetlinkMessage::NewRoute(message::route(index, route));
        self.request(&route.ns, action, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a route with our protocol number from the main table.
    pub fn remove_route(&mut self, route: &Route) -> Result<Request, KernelError> {
        let action = format!("remove route {} dev {} in {}", route.to, route.dev, route.ns);
        let index = self.need(&route.ns, route.dev.as_str(), &action)?;
        let message = RouteNetlinkMessage::DelRoute(message::route(index, route));
        self.request(&route.ns, action, message, 0)
    }

    fn master(&mut self, ns: &Ns, link: &Link, action: &str) -> Result<Option<u32>, KernelError> {
        link.master.as_ref().map(|bridge| self.need(ns, bridge, action)).transpose()
    }

    /// The descriptor of a namespace that is not the host's.
    fn target(&mut self, ns: &Ns) -> Result<Option<Arc<OwnedFd>>, KernelError> {
        match ns {
            Ns::Host => Ok(None),
            Ns::Named(_) => Ok(Some(self.enter(ns)?.fd.clone())),
        }
    }
}

/// Opens the sockets of a namespace on a thread inside it: a socket belongs to the namespace of the thread that
/// opened it, and works from any other afterwards.
fn open(ns: &Ns) -> Result<Entered, KernelError> {
    let runtime = tokio::runtime::Handle::current();
    let sockets = || -> io::Result<(TokioSocket, Control)> {
        let _guard = runtime.enter();
        let socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_ref().set_ext_ack(true)?;
        // Without the request's own text in front of it, the kernel's explanation is easy to find.
        socket.socket_ref().set_cap_ack(true)?;
        Ok((socket, Control::open()?))
    };
    let (socket, control) =
        netns::run_in(ns, sockets)?.map_err(|source| KernelError::Open { place: ns.to_string(), source })?;
    let (socket, end) = Told::of(socket);
    let (connection, handle, _) = rtnetlink::from_socket(socket);
    let fd = Arc::new(netns::open(ns)?);
    Ok(Entered { handle, end, task: tokio::spawn(connection), control, fd })
}

impl Request {
    /// Sends the request and waits for the kernel's answer.
    pub async fn send(self) -> Result<(), KernelError> {
        let Self { mut handle, end, messages, action, _target } = self;
        let refused = |text, source| KernelError::Refused { action: action.clone(), text, source };
        for message in messages {
            let lost = || refused(None, end.reason().unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
            let mut replies = handle.request(message).map_err(|_| lost())?;
            while let Some(reply) = replies.next().await {
                if let NetlinkPayload::Error(error) = reply.payload {
                    return Err(refused(explanation(&error), error.to_io()));
                }
            }
            // An acknowledgement ends the replies, and so does the end of the connection.
            if end.reason().is_some() {
                return Err(lost());
            }
        }
        Ok(())
    }
}

fn flagged(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message
}

/// The kernel's text in an extended acknowledgement: behind the 16 bytes of the request's header.
fn explanation(error: &ErrorMessage) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let text = NlasIterator::new(error.header.get(16..)?).flatten().find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(text.value()).trim_end_matches(['\0', '.']).to_owned();
    (!text.is_empty()).then_some(text)
}
