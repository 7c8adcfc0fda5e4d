//! What cloud-init does in a guest beside its login and its network: users, password hashes, packages, commands, and a
//! file of the user's own. Pure.

use std::ops::Range;

use serde::Serialize;

use super::ssh;
use crate::definition::{At, Definition, Key, Problem, Problems, Text, UserDef, VmDef};
use crate::kinds::Command;
use crate::names::{GroupName, Login, PackageName, PasswordHash, ShellPath, VmName, quoted};

/// What cloud-init is told of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Setup {
    /// The password of the guest's login; `None`: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
    /// Further users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Account>,
    /// Packages to install.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PackageName>,
    /// Commands to run once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<Command>,
    /// A file of user-data, as written in the definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

impl Setup {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One of a guest's further users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// The login name.
    pub name: Login,
    /// Keys that may log in, or files that hold them, as written in the definition.
    pub ssh_keys: Vec<String>,
    /// The password; `None`: none.
    pub password_hash: Option<PasswordHash>,
    /// May become root without a password.
    pub sudo: bool,
    /// Groups beside the user's own.
    pub groups: Vec<GroupName>,
    /// The login shell; `None`: bash, as the guest's login has it.
    pub shell: Option<ShellPath>,
}

/// The name of the login where nobody says one.
pub(super) const LOGIN: &str = "lab";

pub(super) fn setup(vm: &VmName, def: &VmDef, definition: &Definition, problems: &mut Problems) -> Setup {
    let defaults = &definition.defaults;
    if def.cloud_init.or(&defaults.cloud_init).value() == Some(&false) {
        means_nothing(vm, def, problems);
        return Setup::default();
    }
    let login = def.user.or(&defaults.user);
    Setup {
        password_hash: def.password_hash.or(&defaults.password_hash).value().cloned(),
        users: users(login, def.users.or(&defaults.users), problems),
        packages: def.packages.or(&defaults.packages).items().map(|at| at.get_ref().clone()).collect(),
        run: def.run.or(&defaults.run).items().map(|at| at.get_ref().clone()).collect(),
        user_data: def.user_data.or(&defaults.user_data).value().map(|path| path.0.clone()),
    }
}

/// Keys that only cloud-init reads, in a guest that does without it. What defaults say of them is for others.
fn means_nothing(vm: &VmName, def: &VmDef, problems: &mut Problems) {
    let VmDef { ssh_keys, password_hash, users, packages, run, user_data, .. } = def;
    let said = [
        ("ssh_keys", ssh_keys.as_ref().map(At::span)),
        ("password_hash", password_hash.as_ref().map(At::span)),
        ("users", users.as_ref().map(At::span)),
        ("packages", packages.as_ref().map(At::span)),
        ("run", run.as_ref().map(At::span)),
        ("user_data", user_data.as_ref().map(At::span)),
    ];
    for (key, span) in said {
        let Some(span) = span else { continue };
        let problem = Problem::new(span, format!("{key} is what cloud-init does, and vm {vm} has cloud_init = false"));
        problems.push(problem.help(format!("remove {key}, or cloud_init = false")));
    }
}

fn users(login: &Key<Login>, users: &Key<Vec<At<UserDef>>>, problems: &mut Problems) -> Vec<Account> {
    let mut accounts: Vec<Account> = Vec::new();
    let mut places: Vec<Range<usize>> = Vec::new();
    for at in users.items() {
        let UserDef { name: key, ssh_keys, password_hash, sudo, groups, shell } = at.get_ref();
        whole_keys(ssh_keys, problems);
        let Key::Is(name) = key else { continue };
        let is_login = match login {
            Key::Is(login) => login.get_ref() == name.get_ref(),
            Key::Missing => name.get_ref().as_str() == LOGIN,
            Key::Wrong(_) => false,
        };
        if is_login {
            let problem = Problem::new(name.span(), format!("user {} is the guest's login already", name.get_ref()));
            let help =
                "the keys of the guest itself (ssh_keys, password_hash) are about it; user = \"…\" names another";
            problems.push(problem.help(help));
        }
        if let Some(place) = accounts.iter().position(|other| other.name == *name.get_ref()) {
            let first = places[place].clone();
            let problem = Problem::new(name.span(), format!("user {} is there twice", name.get_ref()));
            problems
                .push(problem.related(first, "the first").help("write all that is to be said of a user at one place"));
            continue;
        }
        places.push(name.span());
        accounts.push(Account {
            name: name.get_ref().clone(),
            ssh_keys: ssh_keys.items().map(|key| key.get_ref().0.clone()).collect(),
            password_hash: password_hash.value().cloned(),
            sudo: sudo.value().is_some_and(|sudo| *sudo),
            groups: groups.items().map(|group| group.get_ref().clone()).collect(),
            shell: shell.value().cloned(),
        });
    }
    accounts
}

/// Complains about keys that were cut off.
pub(super) fn whole_keys(keys: &Key<Vec<At<Text>>>, problems: &mut Problems) {
    for key in keys.items() {
        let text = &key.get_ref().0;
        if !ssh::is_key(text) && !ssh::can_be_path(text) {
            let problem = Problem::new(key.span(), format!("{} is no whole public key", quoted(text)));
            problems.push(problem.help("write the whole line of a .pub file, or its path with a / or an ending"));
        }
    }
}
