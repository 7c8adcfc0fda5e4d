//! [`Effects`]: when what a definition says of a guest anew takes effect in one that is there already. Pure.
//!
//! A guest of an engine that has machines is its arguments, which count when it starts; its disk, which is made once;
//! and what cloud-init did on that disk, which it does once for each instance. The rest is vmnet's own and the host's,
//! and counts when `create` is through. A namespace is changed in place, all of it.

use super::{Base, Engine, Image, Model, Vm};

/// The keys of one guest that say something else, by when they count. The names are the definition's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// As soon as it is applied.
    pub live: Vec<&'static str>,
    /// When the guest is started the next time.
    pub next_boot: Vec<&'static str>,
    /// On a fresh disk; never on the one that there is.
    pub fresh_disk: Vec<&'static str>,
}

impl Effects {
    /// What differs for guest `vm` of two definitions of a lab that both have it.
    pub fn between(old: (&Model, &Vm), new: (&Model, &Vm)) -> Self {
        let mut effects = Self::default();
        if new.1.engine.is_machine() {
            effects.of_the_machine(old.1, new.1);
            effects.of_the_base(&old.1.image, &new.1.image);
            effects.of_its_nics(old, new);
        }
        effects
    }

    fn of_the_machine(&mut self, old: &Vm, new: &Vm) {
        // Whole, so that a new key is not forgotten here.
        let Vm {
            // It is found by its name.
            name: _,
            engine,
            accel,
            cpus,
            memory,
            image,
            disk,
            disks,
            firmware,
            qemu_args,
            libvirt_xml,
            user,
            ssh_keys,
            cloud_init,
            setup,
            autostart,
            description,
            // On another host it is another guest.
            host: _,
            // See `of_its_nics`.
            nics: _,
        } = new;
        let by_libvirt = new.engine == Engine::Libvirt;
        let kernel = |image: &Option<Image>| image.clone().map(|image| (image.kernel, image.initrd, image.cmdline));
        let is_new = |differs: bool, key: &'static str| differs.then_some(key);
        self.live.extend(is_new(*autostart != old.autostart, "autostart"));
        // libvirt says it of a domain, which is defined when it starts.
        let of_description = if by_libvirt { &mut self.next_boot } else { &mut self.live };
        of_description.extend(is_new(*description != old.description, "description"));
        self.next_boot.extend(
            [
                is_new(*engine != old.engine, "engine"),
                is_new(*accel != old.accel, "accel"),
                is_new(*cpus != old.cpus, "cpus"),
                is_new(*memory != old.memory, "memory"),
                is_new(kernel(image) != kernel(&old.image), "kernel, initrd, cmdline of its image"),
                is_new(*disks != old.disks, "disks"),
                is_new(*firmware != old.firmware, "firmware"),
                is_new(*qemu_args != old.qemu_args, "qemu_args"),
                is_new(*libvirt_xml != old.libvirt_xml && by_libvirt, "libvirt_xml"),
                is_new(*cloud_init != old.cloud_init, "cloud_init"),
            ]
            .into_iter()
            .flatten(),
        );
        self.fresh_disk.extend(
            [
                is_new(*disk != old.disk, "disk"),
                is_new(*user != old.user, "user"),
                is_new(*ssh_keys != old.ssh_keys, "ssh_keys"),
                is_new(setup.password_hash != old.setup.password_hash, "password_hash"),
                is_new(setup.users != old.setup.users, "users"),
                is_new(setup.packages != old.setup.packages, "packages"),
                is_new(setup.run != old.setup.run, "run"),
                is_new(setup.user_data != old.setup.user_data, "user_data"),
            ]
            .into_iter()
            .flatten(),
        );
    }

    /// A disk is tied to the content of its base, wherever that stands.
    fn of_the_base(&mut self, old: &Option<Image>, new: &Option<Image>) {
        let base = |image: &Option<Image>| image.clone().map(|image| (image.base, image.format));
        let (old, new) = (base(old), base(new));
        if old == new {
            return;
        }
        let digest = |base: &Option<(Option<Base>, _)>| base.as_ref()?.0.as_ref()?.digest().cloned();
        let same_format = old.as_ref().map(|(_, format)| format) == new.as_ref().map(|(_, format)| format);
        match (digest(&old), digest(&new)) {
            (Some(before), Some(now)) if before == now && same_format => self.next_boot.push("image"),
            (Some(before), Some(now)) if before.algorithm() == now.algorithm() => {
                self.fresh_disk.push("image (boot refuses it until then)");
            }
            _ => self.next_boot.push("image (refused where its content is not that of the disk's)"),
        }
    }

    /// A port moves to another bridge under a running guest. What QEMU has of a nic is what it was started with; and
    /// what the guest makes of it, cloud-init writes once.
    fn of_its_nics(&mut self, old: (&Model, &Vm), new: (&Model, &Vm)) {
        let hardware = |vm: &Vm| vm.nics.iter().map(|nic| (nic.mac, nic.model, nic.tap.clone())).collect::<Vec<_>>();
        let networks = |vm: &Vm| vm.nics.iter().map(|nic| nic.network.clone()).collect::<Vec<_>>();
        if hardware(old.1) != hardware(new.1) {
            self.next_boot.push("nic");
        } else if networks(old.1) != networks(new.1) {
            self.live.push("network of a nic");
        }
        if configuration(old) != configuration(new) {
            self.fresh_disk.push("addresses, routes, DNS of its nics");
        }
    }
}

/// What cloud-init makes of a guest's nics, but for the MTU, which is the host's.
fn configuration<'a>((model, vm): (&'a Model, &'a Vm)) -> impl PartialEq + use<'a> {
    let nics = model.nics(vm).map(|(_, nic, network)| {
        // What of the DHCP server's answer counts: even no name server is another one than the server's.
        let by_dhcp = nic.automatic.dhcp.then_some((nic.gateway, nic.dns.is_some()));
        (&nic.addresses, nic.automatic, by_dhcp, &nic.routes, nic.name_servers(network), nic.search_domains(network))
    });
    (model.default_routes(vm), nics.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Definition;
    use crate::model::{Lock, resolve};

    const BEFORE: &str = "lab = \"l\"\n[image.a]\nfile = \"a.qcow2\"\n[image.b]\nfile = \"b.qcow2\"\n\
                          [network.n]\nmode = \"nat\"\nsubnet = \"10.0.0.0/24\"\n[network.m]\nmode = \"isolated\"\n\
                          [vm.v]\nimage = \"a\"\nmemory = \"1GiB\"\n";

    fn model(text: &str) -> Model {
        let definition = Definition::parse(text).unwrap_or_else(|p| panic!("{}", p.render("net.toml", text, false)));
        resolve(&definition, &Lock::default()).unwrap_or_else(|p| panic!("{}", p.render("net.toml", text, false))).model
    }

    fn of(before: &str, after: &str) -> Effects {
        let (before, after) = (model(before), model(after));
        Effects::between((&before, &before.vms()["v"]), (&after, &after.vms()["v"]))
    }

    #[test]
    fn each_key_counts_at_its_time() {
        let nic = "nic = \"n\"\n";
        let before = format!("{BEFORE}{nic}");
        assert_eq!(of(&before, &before), Effects::default());
        let at_once = ["autostart = true", "description = \"x\""];
        let at_next_boot = [
            ("accel = \"tcg\"", "accel"),
            ("cpus = 2", "cpus"),
            ("engine = \"libvirt\"", "engine"),
            ("disks = { d = \"1GiB\" }", "disks"),
            ("firmware = \"uefi\"", "firmware"),
            ("qemu_args = [\"-x\"]", "qemu_args"),
            ("cloud_init = false", "cloud_init"),
        ];
        let on_a_fresh_disk = [
            ("disk = \"9GiB\"", "disk"),
            ("user = \"me\"", "user"),
            ("ssh_keys = [\"~/.ssh/id.pub\"]", "ssh_keys"),
            ("packages = [\"htop\"]", "packages"),
            ("run = [\"true\"]", "run"),
            ("user_data = \"u\"", "user_data"),
            ("users = [{ name = \"you\" }]", "users"),
        ];
        for line in at_once {
            let key = line.split(' ').next().unwrap();
            assert_eq!(of(&before, &format!("{before}{line}\n")), Effects { live: vec![key], ..Effects::default() });
        }
        for (line, key) in at_next_boot {
            let effects = of(&before, &format!("{before}{line}\n"));
            assert_eq!(effects, Effects { next_boot: vec![key], ..Effects::default() }, "{line}");
        }
        for (line, key) in on_a_fresh_disk {
            let effects = of(&before, &format!("{before}{line}\n"));
            assert_eq!(effects, Effects { fresh_disk: vec![key], ..Effects::default() }, "{line}");
        }
        assert_eq!(of(&before, &before.replace("1GiB", "2GiB")).next_boot, ["memory"]);
    }

    #[test]
    fn a_disk_is_tied_to_what_its_image_holds() {
        let before = format!("{BEFORE}nic = \"n\"\n");
        let with = |digest: char| {
            let said = format!("a.qcow2\"\nsha256 = \"{}\"", digest.to_string().repeat(64));
            before.replace("a.qcow2\"", &said)
        };
        let unknown = vec!["image (refused where its content is not that of the disk's)"];
        let other = vec!["image (boot refuses it until then)"];
        for (from, to, wanted) in [
            (before.clone(), before.replace("image = \"a\"", "image = \"b\""), (unknown.clone(), vec![])),
            (before.clone(), with('a'), (unknown, vec![])),
            (with('a'), with('a').replace("a.qcow2", "moved.qcow2"), (vec!["image"], vec![])),
            (with('a'), with('b'), (vec![], other)),
        ] {
            let effects = of(&from, &to);
            assert_eq!((effects.next_boot, effects.fresh_disk), wanted, "{to}");
        }
    }

    #[test]
    fn nics_are_ports_devices_and_what_the_guest_makes_of_them() {
        let before = format!("{BEFORE}nic = \"n\"\n");
        let addresses = "addresses, routes, DNS of its nics";
        let moved = of(&before, &format!("{BEFORE}nic = \"m\"\n"));
        assert_eq!(moved.fresh_disk, [addresses]);
        let one_more = of(&before, &format!("{BEFORE}nic = [\"n\", \"m\"]\n"));
        assert_eq!((one_more.next_boot, one_more.live), (vec!["nic"], vec![]));
        let renumbered = of(&before, &before.replace("10.0.0.0/24", "10.0.1.0/24"));
        assert_eq!((renumbered.fresh_disk, renumbered.next_boot), (vec![addresses], vec![]));
    }

    #[test]
    fn what_a_guest_takes_from_a_dhcp_server() {
        let segment = "[network.p]\nmode = \"bridged\"\nbridge = \"br9\"\n";
        let nic = |more: &str| format!("{BEFORE}nic = {{ network = \"p\"{more} }}\n{segment}");
        assert_eq!(of(&nic(""), &nic(", address = \"dhcp\"")).fresh_disk, ["addresses, routes, DNS of its nics"]);
        let before = nic(", address = \"dhcp\"");
        for more in [", gateway = false", ", dns = []"] {
            let effects = of(&before, &nic(&format!(", address = \"dhcp\"{more}")));
            let fresh_disk = vec!["addresses, routes, DNS of its nics"];
            assert_eq!(effects, Effects { fresh_disk, ..Effects::default() }, "{more}");
        }
        // Of one with an address of its own, it is the same.
        let before = format!("{BEFORE}nic = \"m\"\n");
        assert_eq!(of(&before, &format!("{BEFORE}nic = {{ network = \"m\", dns = [] }}\n")), Effects::default());
    }

    #[test]
    fn of_a_namespace_and_of_a_domain() {
        let namespace = format!("{BEFORE}nic = \"n\"\nengine = \"netns\"\n");
        assert_eq!(of(&namespace, &namespace.replace("1GiB", "2GiB")), Effects::default());
        let domain = format!("{BEFORE}nic = \"n\"\nengine = \"libvirt\"\n");
        assert_eq!(of(&domain, &format!("{domain}autostart = true\n")).live, ["autostart"]);
        assert_eq!(of(&domain, &format!("{domain}description = \"x\"\n")).next_boot, ["description"]);
        assert_eq!(of(&domain, &format!("{domain}qemu_args = [\"-x\"]\n")).next_boot, ["qemu_args"]);
    }
}
