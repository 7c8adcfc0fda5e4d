//! A guest's TAP: what makes it the lab's port.

use std::path::Path;

use super::EngineError;
use crate::kernel::{Kernel, sysctl};
use crate::names::IfName;
use crate::plan::LinkChange;
use crate::state::{Link, LinkId, Odd};

/// Switches IPv6 off on a TAP; then one message marks it, puts it on its bridge and brings it up.
pub(super) async fn settle(kernel: &mut Kernel, name: &IfName, link: &Link) -> Result<(), EngineError> {
    let Link { kind: _, mac, mtu, group, alias, master, up, ipv6, tx_checksum: _, odd: _ } = link;
    if !ipv6 && sysctl::has_ipv6() {
        let key = sysctl::disable_ipv6(name.as_str());
        let fail = |source| EngineError::File { action: "write", path: Path::new("/proc/sys/net").join(&key), source };
        sysctl::write(&key, "1").map_err(fail)?;
    }
    let change = LinkChange {
        alias: Some(alias.clone()),
        mac: Some(*mac),
        mtu: Some(*mtu),
        group: Some(*group),
        master: Some(master.clone()),
        up: Some(*up),
        bridge: None,
        port: Odd::new(),
    };
    kernel.change_link(&LinkId::host(name.clone()), &change)?.send().await?;
    Ok(())
}
