//! [`Control`]: ioctls on links: index by name, checksum offload.
//!
//! A plain socket serves for them; it reaches the links of the namespace that it was opened in, from anywhere.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType};

/// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM` of linux/ethtool.h.
const GET_TX_CHECKSUM: u32 = 0x16;
const SET_TX_CHECKSUM: u32 = 0x17;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// A socket for ioctls on the links of one namespace.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Opens one in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        // AF_UNIX is always there; AF_INET may be compiled out or blocked.
        let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self(fd))
    }

    /// The index of a link; `None` when there is none of that name.
    pub fn index(&self, name: &str) -> io::Result<Option<u32>> {
        let Some(mut request) = request(name) else { return Ok(None) };
        // SAFETY: SIOCGIFINDEX reads the name of an `ifreq` and writes its index; `request` is one, terminated.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) } {
            // SAFETY: the call above has written this member of the union.
            0 => Ok(Some(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Whether a link is administratively up; `None` when there is none of that name.
    pub fn is_up(&self, name: &str) -> io::Result<Option<bool>> {
        let Some(mut request) = request(name) else { return Ok(None) };
        // SAFETY: SIOCGIFFLAGS reads the name of an `ifreq` and writes its flags; `request` is one, terminated.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } {
            // SAFETY: the call above has written this member of the union.
            0 => Ok(Some(i32::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0)),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Whether the link computes checksums of what it sends ("TX checksum offload").
    pub fn tx_checksum(&self, name: &str) -> io::Result<bool> {
        self.ethtool(name, GET_TX_CHECKSUM, 0).map(|data| data != 0)
    }

    /// Switches TX checksum offload.
    pub fn set_tx_checksum(&self, name: &str, on: bool) -> io::Result<()> {
        self.ethtool(name, SET_TX_CHECKSUM, on.into()).map(drop)
    }

    fn ethtool(&self, name: &str, command: u32, data: u32) -> io::Result<u32> {
        let mut value = EthtoolValue { command, data };
        let Some(mut request) = request(name) else { return Err(io::Error::from_raw_os_error(libc::ENODEV)) };
        request.ifr_ifru.ifru_data = (&raw mut value).cast::<c_char>();
        // SAFETY: SIOCETHTOOL reads the name of an `ifreq` and, for these two commands, reads and writes the
        // `ethtool_value` that its data points to; both live until the call returns.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
            0 => Ok(value.data),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// An `ifreq` with this name; `None` when no link can be called that.
fn request(name: &str) -> Option<libc::ifreq> {
    let mut field = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= field.len() || name.contains('\0') {
        return None;
    }
    for (place, byte) in field.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    let none = libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 };
    Some(libc::ifreq { ifr_name: field, ifr_ifru: none })
}
