//! TAP devices: made by opening one, gone when the last descriptor is closed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::KernelError;
use crate::names::IfName;

nix::ioctl_write_ptr_bad!(
    /// `TUNSETIFF` of linux/if_tun.h.
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// Makes a TAP in the calling thread's namespace: not persistent, with virtio-net headers, down and unmarked.
///
/// # Errors
/// When a TAP of that name exists: without `IFF_TUN_EXCL` the kernel would attach to a foreign persistent one
/// without a word.
pub fn open(name: &IfName) -> Result<OwnedFd, KernelError> {
    let fail = |text: Option<&str>, source| KernelError::Refused {
        action: format!("open the TAP {name}"),
        text: text.map(str::to_owned),
        source,
    };
    let device = std::fs::File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/net/tun");
    let device = device.map_err(|source| fail(Some("/dev/net/tun comes with the module tun"), source))?;
    let mut field = [0; libc::IFNAMSIZ];
    // An IfName has at most 15 bytes, all of them ASCII.
    for (place, byte) in field.iter_mut().zip(name.as_str().bytes()) {
        *place = byte.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    // IFF_TUN_EXCL is bit 15, the sign of the kernel's 16-bit field.
    let flags = libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short };
    let request = libc::ifreq { ifr_name: field, ifr_ifru: flags };
    // SAFETY: TUNSETIFF reads an `ifreq` whose name is terminated; `request` lives until the call returns.
    match unsafe { tun_set_iff(device.as_raw_fd(), &raw const request) } {
        Ok(_) => Ok(device.into()),
        Err(nix::errno::Errno::EBUSY) => {
            Err(fail(Some("a link of that name exists and is not ours"), io::Error::from_raw_os_error(libc::EBUSY)))
        }
        Err(errno) => Err(fail(None, errno.into())),
    }
}
