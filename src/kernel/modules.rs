//! Which features the kernel has or could load, and loading them.
//!
//! Finding out has no side effects (but for `guests`, see [`find`]): what is loaded or built in is read from `/sys/module` and from the files that
//! depmod(8) writes. Only where there are none of those (a kernel without modules) is the kernel itself asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rtnetlink::packet_route::link::InfoKind;

use super::caps::Caps;
use super::wire::Wire;
use super::{child, message};
use crate::state::{Feature, NO_MODULES};

/// What is known of the kernel's features.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// There, or can be loaded.
    pub present: BTreeSet<Feature>,
    /// Missing, with the reason where more is known.
    pub missing: BTreeMap<Feature, String>,
}

/// Looks for every feature. Those that only guests need are looked for when `guests` says so: their device nodes
/// have to be opened, at which the kernel loads their modules.
pub fn find(guests: bool) -> Features {
    let modules = Modules::read();
    let mut found = Features::default();
    let wanted = |feature: &Feature| guests || !matches!(feature, Feature::Kvm | Feature::VhostNet);
    for feature in Feature::ALL.into_iter().filter(wanted) {
        match look(feature, modules.as_ref()) {
            Ok(()) => drop(found.present.insert(feature)),
            Err(reason) => drop(found.missing.insert(feature, reason)),
        }
    }
    found
}

fn look(feature: Feature, modules: Option<&Modules>) -> Result<(), String> {
    match feature {
        Feature::Kvm => opens("/dev/kvm"),
        Feature::VhostNet => opens("/dev/vhost-net"),
        // Not loaded yet, so opening it would do that.
        Feature::Tun if modules.is_some_and(|modules| modules.loadable.contains("tun")) && !is_loaded("tun") => Ok(()),
        Feature::Tun => opens("/dev/net/tun"),
        Feature::Bridge
        | Feature::Vlan
        | Feature::Veth
        | Feature::Macvlan
        | Feature::Nftables
        | Feature::NftablesBridge => {
            let module = feature.module();
            match modules {
                _ if is_loaded(module) => Ok(()),
                Some(modules) if modules.has(module) => Ok(()),
                Some(modules) => Err(format!("{} has no module {module}", modules.folder.display())),
                None => ask(feature),
            }
        }
    }
}

fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}

/// Whether a device node opens for reading and writing.
fn opens(path: &str) -> Result<(), String> {
    match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// The modules of the running kernel: names in lower case with underscores, as `/sys/module` spells them.
struct Modules {
    folder: PathBuf,
    built_in: BTreeSet<String>,
    loadable: BTreeSet<String>,
}

impl Modules {
    /// `None` where the kernel's folder has neither list.
    fn read() -> Option<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
        let folder = Path::new("/lib/modules").join(release.trim());
        let list = |file: &str| -> Option<BTreeSet<String>> {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            Some(text.lines().filter_map(name).collect())
        };
        let (built_in, loadable) = (list("modules.builtin"), list("modules.dep"));
        let any = built_in.is_some() || loadable.is_some();
        let [built_in, loadable] = [built_in, loadable].map(Option::unwrap_or_default);
        any.then_some(Self { folder, built_in, loadable })
    }

    fn has(&self, module: &str) -> bool {
        self.built_in.contains(module) || self.loadable.contains(module)
    }
}

/// `kernel/net/8021q/8021q.ko.xz: …` is `8021q`.
fn name(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let file = path.rsplit('/').next()?;
    Some(file.split(".ko").next()?.replace('-', "_"))
}

/// A kernel without modules knows a kind or does not.
fn ask(feature: Feature) -> Result<(), String> {
    let kind = match feature {
        Feature::Bridge => InfoKind::Bridge,
        Feature::Vlan => InfoKind::Vlan,
        Feature::Veth => InfoKind::Veth,
        Feature::Macvlan => InfoKind::MacVlan,
        Feature::Nftables => {
            return match super::nftables::generation() {
                // As below.
                Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => Err(error.to_string()),
                _ => Ok(()),
            };
        }
        // No question tells; a rule that needs it is refused with its own message.
        Feature::NftablesBridge => return Err(format!("the kernel was built {NO_MODULES}")),
        Feature::Tun | Feature::Kvm | Feature::VhostNet => return Ok(()),
    };
    let answer = Wire::open().and_then(|mut wire| wire.request(message::probe_kind(kind)));
    match answer.map_err(|error| error.raw_os_error()) {
        Ok(()) | Err(Some(libc::EINVAL)) => Ok(()),
        // Without the capability or memory the kernel does not say; that it is missing will be said by itself.
        Err(Some(libc::EPERM | libc::ENOMEM | libc::ENOBUFS)) => Ok(()),
        Err(_) => Err(format!("this kernel was built without {} and {NO_MODULES}", feature.module())),
    }
}

/// Loads the modules of features that are not there yet.
///
/// The kernel would load most of them by itself when they are needed; but then it would be too late to say so
/// before anything has changed.
///
/// # Errors
/// The features that can't be loaded, each with what modprobe(8) said.
pub fn load(features: &BTreeSet<Feature>, modprobe: &Path) -> Result<(), BTreeMap<Feature, String>> {
    let absent: Vec<Feature> = features.iter().filter(|feature| !is_loaded(feature.module())).copied().collect();
    // What is built in may have no folder there; a kernel without modules has nothing to load.
    let Some(modules) = (!absent.is_empty()).then(Modules::read).flatten() else { return Ok(()) };
    let loadable = absent.into_iter().filter(|feature| !modules.built_in.contains(feature.module()));
    let load = |feature: Feature| {
        if feature == Feature::Nftables {
            // One that is missing by this name (merged into another, or built in) is no reason to stop.
            let _ = run_modprobe(modprobe, &["-a", "-q"], &PARTS_OF_NFTABLES);
        }
        Some((feature, load_one(feature.module(), modprobe).err()?))
    };
    let failed: BTreeMap<_, _> = loadable.filter_map(load).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

/// What vmnet's tables need of nftables. Unasked, the kernel loads each of them in the middle of a transaction, which
/// it then gives up and begins anew: a first `create` takes many times as long.
const PARTS_OF_NFTABLES: [&str; 6] = ["nf_tables", "nft_ct", "nft_chain_nat", "nft_nat", "nft_masq", "nft_meta_bridge"];

fn run_modprobe(modprobe: &Path, options: &[&str], modules: &[&str]) -> std::io::Result<std::process::Output> {
    child::command(modprobe, Caps::SYS_MODULE).args(options).args(modules).output()
}

fn load_one(module: &str, modprobe: &Path) -> Result<(), String> {
    let output = run_modprobe(modprobe, &[], &[module]);
    let output = output.map_err(|error| format!("{}: {error}", modprobe.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_files_have_names() {
        assert_eq!(name("kernel/net/8021q/8021q.ko.xz: kernel/net/802/mrp.ko.xz"), Some("8021q".into()));
        assert_eq!(name("kernel/drivers/vhost/vhost-net.ko"), Some("vhost_net".into()));
    }
}
