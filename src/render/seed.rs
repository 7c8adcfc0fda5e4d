//! The cloud-init NoCloud seed of a guest: `meta-data`, `network-config` and `user-data`.
//!
//! All three are JSON, which cloud-init reads as YAML, so that no value can break out of its place; with a file of the
//! user's own, `user-data` is a MIME message that holds both. Pure: the guest's own ssh host key is not known here; two
//! markers stand for it.

mod mime;
mod network;
pub mod raw;
mod user_data;

use serde::Serialize;

use super::GuestView;
use network::NetworkConfig;

pub use user_data::{HOST_KEY_PRIVATE, HOST_KEY_PUBLIC};

/// The files of a guest's seed, name and text; none for a guest that does without cloud-init.
pub fn files(view: &GuestView<'_>) -> Vec<(String, String)> {
    if !view.vm.cloud_init() {
        return Vec::new();
    }
    vec![
        ("meta-data".into(), json(&MetaData::of(view))),
        ("network-config".into(), json(&NetworkConfig::of(view))),
        ("user-data".into(), user_data::text(view)),
    ]
}

/// A guest's instance-id: `<lab>-<vm>-<number of its disk>`. cloud-init does its once-per-instance work again when
/// it changes, which is right exactly when the disk is a fresh one.
pub fn instance_id(view: &GuestView<'_>) -> String {
    format!("{}-{}", view.full_name(), view.instance)
}

fn json(value: &impl Serialize) -> String {
    // These types hold strings, numbers and lists, and maps with string keys only.
    let text = serde_json::to_string_pretty(value).expect("plain data serializes");
    // To YAML some characters that JSON takes are line breaks (U+2028) or not allowed at all (U+007F). Those beyond
    // U+FFFF are none of them, and their escapes in JSON, two halves, are not what YAML reads.
    let escaped = |c: char| (c == '\u{7f}' || !c.is_ascii()) && u32::from(c) <= 0xffff;
    let write = |c: char| if escaped(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(write).chain(["\n".to_owned()]).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData {
    instance_id: String,
    local_hostname: String,
}

impl MetaData {
    fn of(view: &GuestView<'_>) -> Self {
        Self { instance_id: instance_id(view), local_hostname: view.vm.name().to_string() }
    }
}
