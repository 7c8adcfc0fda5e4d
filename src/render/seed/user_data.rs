//! `user-data`: cloud-config of ours, and with a file of the user's own a MIME message that holds both. Pure.
//!
//! The parts, and how cloud-init puts them together («merging user data sections» in its manual): the user's comes first,
//! so where both set one key, theirs counts; lists are joined, ours first. The host key comes last and replaces what is
//! there: it is the one by which `vmnet ssh` knows the guest.

use serde::Serialize;

use super::json;
use super::mime::{self, Part};
use super::raw::{Kind, RawUserData};
use crate::kinds::Command;
use crate::model::Account;
use crate::names::{GroupName, PackageName};
use crate::render::GuestView;

/// The JSON string that stands where the guest's private host key goes.
pub const HOST_KEY_PRIVATE: &str = "{host-key-private}";
/// The JSON string that stands where the guest's public host key goes.
pub const HOST_KEY_PUBLIC: &str = "{host-key-public}";

/// How our part joins what is there: keys that are there stay, tables and lists are joined, lists with ours first.
const JOIN: &str = "dict(no_replace,recurse_list)+list(prepend)+str()";

/// The login shell of every user that does not say another.
const SHELL: &str = "/bin/bash";

pub(super) fn text(view: &GuestView<'_>) -> String {
    let (config, host_key) = (Config::of(view), HostKey::of());
    match &view.given.user_data {
        // cloud-init tells the kinds of user-data apart by the first line.
        None => cloud_config(&Whole { config, host_key }),
        Some(theirs) => message(theirs, &cloud_config(&config), &cloud_config(&host_key)),
    }
}

fn cloud_config(value: &impl Serialize) -> String {
    format!("#cloud-config\n{}", json(value))
}

fn message(theirs: &RawUserData, ours: &str, host_key: &str) -> String {
    const CONFIG: &str = "text/cloud-config";
    let theirs_part = match theirs.kind {
        Kind::Mime => Part::Whole(&theirs.text),
        kind => Part::Text { kind: kind.content_type(), name: "user_data", merge: None, text: &theirs.text },
    };
    let ours = Part::Text { kind: CONFIG, name: "vmnet", merge: Some(JOIN), text: ours };
    // As it is, since the key itself is not known yet; neither JSON nor the key has anything but ASCII.
    let host_key = Part::Plain { kind: CONFIG, name: "host-key", text: host_key };
    mime::message(&match theirs.kind {
        // A patch is of what is there when it comes.
        Kind::Patch => [ours, theirs_part, host_key],
        _ => [theirs_part, ours, host_key],
    })
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    config: Config,
    #[serde(flatten)]
    host_key: HostKey,
}

#[derive(Serialize)]
struct Config {
    hostname: String,
    fqdn: String,
    prefer_fqdn_over_hostname: bool,
    manage_etc_hosts: &'static str,
    users: Vec<User>,
    disable_root: bool,
    ssh_pwauth: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    packages: Vec<PackageName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runcmd: Vec<Command>,
}

#[derive(Serialize)]
struct HostKey {
    ssh_deletekeys: bool,
    ssh_keys: SshKeys,
}

#[derive(Serialize)]
struct SshKeys {
    ed25519_private: &'static str,
    ed25519_public: &'static str,
}

#[derive(Serialize)]
struct User {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupName>,
    shell: String,
    lock_passwd: bool,
    /// This one, unlike `passwd`, is set for a user that the image has already, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    hashed_passwd: Option<String>,
    /// To cloud-init's schema an empty list is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh_authorized_keys: Vec<String>,
}

impl Config {
    fn of(view: &GuestView<'_>) -> Self {
        let setup = view.vm.setup();
        let root = "root";
        let hash = setup.password_hash.as_ref();
        let login = User {
            name: view.vm.user().clone(),
            sudo: (view.vm.user() != root).then_some(SUDO),
            groups: Vec::new(),
            shell: SHELL.to_owned(),
            lock_passwd: hash.is_none(),
            hashed_passwd: hash.map(|hash| hash.reveal().to_owned()),
            ssh_authorized_keys: view.given.keys.clone(),
        };
        let keys = |account: &Account| view.given.keys_of.get(account.name.as_str()).cloned().unwrap_or_default();
        let users = setup.users.iter().map(|account| User::of(account, keys(account)));
        let users: Vec<User> = std::iter::once(login).chain(users).collect();
        Self {
            hostname: view.vm.name().to_string(),
            fqdn: format!("{}.{}", view.vm.name(), view.model.lab()),
            prefer_fqdn_over_hostname: false,
            manage_etc_hosts: "localhost",
            disable_root: users.iter().all(|user| user.name != root),
            users,
            ssh_pwauth: false,
            packages: setup.packages.clone(),
            runcmd: setup.run.clone(),
        }
    }
}

/// May become root without a password.
const SUDO: &str = "ALL=(ALL) NOPASSWD:ALL";

impl User {
    fn of(account: &Account, keys: Vec<String>) -> Self {
        let Account { name, ssh_keys: _, password_hash, sudo, groups, shell } = account;
        Self {
            name: name.to_string(),
            sudo: sudo.then_some(SUDO),
            groups: groups.clone(),
            shell: shell.as_ref().map_or_else(|| SHELL.to_owned(), ToString::to_string),
            lock_passwd: password_hash.is_none(),
            hashed_passwd: password_hash.as_ref().map(|hash| hash.reveal().to_owned()),
            ssh_authorized_keys: keys,
        }
    }
}

impl HostKey {
    fn of() -> Self {
        let ssh_keys = SshKeys { ed25519_private: HOST_KEY_PRIVATE, ed25519_public: HOST_KEY_PUBLIC };
        Self { ssh_deletekeys: true, ssh_keys }
    }
}
