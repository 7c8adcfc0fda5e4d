//! The small guest, started by others than `vmnet boot`: by a script in a sandbox.

use std::path::Path;

use super::sandbox;
use super::skip::skip;
use super::world::output;

/// `lay_lab` copies the images, since whoever starts the guest may not reach the project's folder, and creates the lab
/// `$LAB` beside them.
const PRELUDE: &str = r#"
lay_lab() {
    cp "$IMAGES/disk.qcow2" "$IMAGES/vmlinuz" "$IMAGES/initrd.img" /run/lab
    chmod 644 /run/lab/*
    cd /run/lab
    cat >net.toml <<END
lab = "$LAB"
[image.tiny]
file = "disk.qcow2"
kernel = "vmlinuz"
initrd = "initrd.img"
[network.web]
subnet = "192.168.10.0/24"
[router]
external = { via = "none" }
[vm.vm1]
nic = { network = "web", address = "192.168.10.10" }
image = "tiny"
memory = "128MiB"
accel = "tcg"
END
    export VMNET_STATE_DIR=/run/state
    "$VMNET" create
}
"#;

/// Runs a script that starts the guest of a lab by the program at `needs`, and looks at what it said.
pub(crate) fn run(name: &str, (needs, word): (&str, &str), lab: &str, script: &str, look: impl Fn(&str)) {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/vm-images/tiny");
    if !Path::new(needs).exists() {
        return skip(name, &format!("needs {word}"));
    }
    if !images.join("vmlinuz").exists() {
        return skip(name, "needs the small guest: make vm-images");
    }
    sandbox::run(name, || {
        let (images, vmnet) = (images.display(), env!("CARGO_BIN_EXE_vmnet"));
        let script = format!("IMAGES='{images}'; VMNET='{vmnet}'; LAB={lab}; {PRELUDE}\n{script}");
        look(&output(&format!("( {script} ) 2>&1 || echo \"failed: $?\"")));
    });
}
