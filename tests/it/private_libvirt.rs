//! A libvirt of a test's own, in its sandbox.

use std::path::Path;

use super::skip::skip;
use super::world::{sh, succeeds};

/// libvirt's own folders are covered, so that no definition, network or log of the machine is read or written. The
/// sandbox has no cgroups, so libvirt is told to do without; nor has it KVM, which no guest here uses: where its device is
/// there and does not work, libvirt tries it again at every domain, for seconds.
pub(crate) const COVER: &str = r"
cp -a /etc/libvirt /run/etc-libvirt
rm -rf /run/etc-libvirt/qemu/*
echo 'cgroup_controllers = []' >>/run/etc-libvirt/qemu.conf
mount --bind /run/etc-libvirt /etc/libvirt
for folder in /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
mkdir -p /run/libvirt /var/lib/libvirt/qemu /var/log/libvirt/qemu
mkdir /run/dev
mount -t tmpfs -o mode=755 tmpfs /run/dev
mkdir /run/dev/pts /run/dev/shm /run/dev/net
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /run/dev
cp -a /dev/net/tun /run/dev/net
mknod -m 666 /run/dev/ptmx c 5 2
mount --bind /dev/pts /run/dev/pts
umount -R -l /dev
mount --move /run/dev /dev
";

/// Starts the daemons, and waits until they answer.
pub(crate) const START: &str = r"
virtlogd -d
libvirtd -d
virsh='virsh -q -c qemu:///system'
for _ in $(seq 600); do $virsh uri >/dev/null 2>&1 && break; sleep 0.1; done
$virsh uri >/dev/null
";

/// Ends them; guests run on.
pub(crate) const STOP: &str = r#"
pids="$(cat /run/libvirtd.pid) $(cat /run/virtlogd.pid)"
kill $pids
for pid in $pids; do while kill -0 $pid 2>/dev/null; do sleep 0.05; done; done
rm -f /run/libvirtd.pid /run/virtlogd.pid
"#;

/// Whether a test can't run, and says why.
pub(crate) fn missing(name: &str) -> bool {
    let program = Path::new(env!("CARGO_BIN_EXE_vmnet")).with_file_name(vmnet::engine::libvirt::PROGRAM);
    let reason = if !Path::new("/usr/sbin/libvirtd").exists() {
        "needs libvirtd"
    } else if !program.exists() {
        "needs vmnet-libvirt: cargo build --features libvirt"
    } else {
        return false;
    };
    skip(name, reason);
    true
}

/// The daemons of this sandbox.
pub(crate) struct Libvirt;

impl Libvirt {
    /// Starts them.
    pub(crate) fn start() -> Self {
        if !Path::new("/run/etc-libvirt").exists() {
            sh(COVER);
        }
        sh(START);
        Self
    }

    /// `virsh`, which must succeed.
    #[track_caller]
    pub(crate) fn virsh(&self, args: &str) -> String {
        sh(&format!("virsh -q -c qemu:///system {args}"))
    }

    /// The names of all domains.
    pub(crate) fn domains(&self) -> String {
        self.virsh("list --all --name").trim().to_owned()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // What does not end now ends with the sandbox, as guests do.
        let _ = succeeds(STOP);
    }
}
