//! The `qemu-ifup`/`qemu-ifdown` pair of a network, from `templates/` and `hooks/`.
//!
//! Only validated names, a number and the path of `ip` go into the text. Pure.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tera::{Context, Tera};

use crate::mark::Mark;
use crate::model::Network;
use crate::names::LabName;
use crate::paths::{KEPT_IN, Paths};
use crate::state::File;

/// Why a hook can't be written.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The path of a program that a shell would read otherwise.
    #[error("the path of ip, {found}, can't stand in a script")]
    Path {
        /// The path, escaped.
        found: String,
    },
    /// The template engine gave up.
    #[error("the hook {template} does not render")]
    Render {
        /// Which template.
        template: &'static str,
        /// Its reason.
        #[source]
        source: tera::Error,
    },
}

const IFUP: &str = "qemu-ifup.sh";
const IFDOWN: &str = "qemu-ifdown.sh";

static TEMPLATES: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::default();
    let sources = [
        ("guard.sh", include_str!("../../hooks/guard.sh")),
        (IFUP, include_str!("../../templates/qemu-ifup.sh")),
        (IFDOWN, include_str!("../../templates/qemu-ifdown.sh")),
    ];
    // A unit test renders both.
    tera.add_raw_templates(sources).expect("the built-in templates parse");
    tera
});

/// The two scripts of a network, each with its path. `mtu` is the segment's in bytes, `ip` the program's path.
pub fn pair(
    paths: &Paths,
    lab: &LabName,
    network: &Network,
    mtu: u32,
    ip: &Path,
) -> Result<[(PathBuf, File); 2], HookError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let ip = ip
        .to_str()
        .filter(|text| text.starts_with('/') && text.chars().all(plain))
        .ok_or_else(|| HookError::Path { found: format!("{ip:?}") })?;
    let mut context = Context::new();
    context.insert("mark", &Mark::new(lab, "hook", network.name()).to_string());
    context.insert("lab", lab);
    context.insert("network", network.name());
    context.insert("bridge", network.bridge().name());
    context.insert("mtu", &mtu);
    context.insert("ip", ip);
    // A line break would end the comment.
    if let Some(state) = paths.state.to_str().filter(|state| !state.contains(char::is_control)) {
        context.insert("kept_in", KEPT_IN);
        context.insert("state", state);
    }
    let render =
        |template| TEMPLATES.render(template, &context).map_err(|source| HookError::Render { template, source });
    let (up, down) = paths.hook_pair(lab, network.name());
    Ok([(up, File::new(0o755, render(IFUP)?)), (down, File::new(0o755, render(IFDOWN)?))])
}
