//! What a guest's tables hold beside single words: its users, commands, routes, and where addresses come from. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::read::Reader;
use super::value::{FromValue, Text, address_help, string, wanted, wrong};
use super::{At, Key, Problem, Problems};
use crate::kinds::{Command, NicAddress};
use crate::names::{GroupName, Login, PasswordHash, ShellPath, quoted};

pub(super) const ROUTE: &[&str] = &["to", "via"];
pub(super) const USER: &[&str] = &["name", "ssh_keys", "password_hash", "sudo", "groups", "shell"];

/// One of a guest's further users.
#[derive(Debug, Clone, Default)]
pub struct UserDef {
    /// `name`
    pub name: Key<Login>,
    /// `ssh_keys`, one or a list
    pub ssh_keys: Key<Vec<At<Text>>>,
    /// `password_hash`
    pub password_hash: Key<PasswordHash>,
    /// `sudo`
    pub sudo: Key<bool>,
    /// `groups`, one or a list
    pub groups: Key<Vec<At<GroupName>>>,
    /// `shell`
    pub shell: Key<ShellPath>,
}

/// One route of a nic.
#[derive(Debug, Clone, Default)]
pub struct RouteDef {
    /// `to`
    pub to: Key<IpNet>,
    /// `via`
    pub via: Key<IpAddr>,
}

/// A user is never refused as a whole: all problems at once.
impl FromValue for UserDef {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let Some(table) = value.get_ref().as_table() else {
            problems.push(wrong(value, "a user is a table").help("write users = [{ name = \"anna\", ssh_keys = … }]"));
            return None;
        };
        let mut reader = Reader::new(table, "a user", USER, problems);
        let user = UserDef {
            name: reader.get("name", problems),
            ssh_keys: reader.list("ssh_keys", problems),
            password_hash: reader.get("password_hash", problems),
            sudo: reader.get("sudo", problems),
            groups: reader.list("groups", problems),
            shell: reader.get("shell", problems),
        };
        if user.name.is_missing() {
            problems.push(Problem::new(value.span(), "this user has no name").help("add name = \"anna\""));
        }
        reader.finish();
        Some(At::new(value.span(), user))
    }
}

/// A route is never refused as a whole: all problems at once.
impl FromValue for RouteDef {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        const HELP: &str = "write routes = [{ to = \"10.0.0.0/8\", via = \"192.168.10.254\" }]";
        let Some(table) = value.get_ref().as_table() else {
            problems.push(wrong(value, "a route is a table").help(HELP));
            return None;
        };
        let mut reader = Reader::new(table, "a route", ROUTE, problems);
        let route = RouteDef { to: reader.get("to", problems), via: reader.get("via", problems) };
        for (missing, what) in [(route.to.is_missing(), "to"), (route.via.is_missing(), "via")] {
            if missing {
                problems.push(Problem::new(value.span(), format!("this route has no {what}")).help(HELP));
            }
        }
        reader.finish();
        Some(At::new(value.span(), route))
    }
}

impl FromValue for NicAddress {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let text = string(value, "an IP address, dhcp or slaac", problems)?;
        let found = match text {
            "dhcp" => Some(Self::Dhcp),
            "slaac" => Some(Self::Slaac),
            _ => text.parse().ok().map(Self::Fixed),
        };
        if found.is_none() {
            let problem = Problem::new(value.span(), format!("{} is not an IP address", quoted(text)));
            problems.push(
                problem.help(match text {
                    "auto" | "dhcp4" | "dhcp6" | "ra" => {
                        "write \"dhcp\" for IPv4 by DHCP, \"slaac\" for IPv6 by router \
                                                      advertisements"
                            .to_owned()
                    }
                    _ => address_help(text, "\"192.168.10.1\" or \"fd00:10::1\", or \"dhcp\" or \"slaac\""),
                }),
            );
        }
        found.map(|found| At::new(value.span(), found))
    }
}

impl FromValue for Command {
    fn from_value(value: &At<DeValue<'_>>, problems: &mut Problems) -> Option<At<Self>> {
        let command = match value.get_ref() {
            DeValue::String(line) => Self::Line(word(line, value, problems)?),
            DeValue::Array(words) => {
                let words = words.iter().map(|at| word(string(at, "a word of a command", problems)?, at, problems));
                Self::Argv(words.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?)
            }
            _ => {
                let help = "write a line for a shell in quotes, or a list: [\"touch\", \"/tmp/x\"]";
                problems.push(wanted(value, "a command").help(help));
                return None;
            }
        };
        let is_empty = match &command {
            Self::Line(line) => line.trim().is_empty(),
            Self::Argv(words) => words.first().is_none_or(|program| program.trim().is_empty()),
        };
        if is_empty {
            let problem = Problem::new(value.span(), "this command is empty");
            problems.push(problem.help("write what is to run, or remove it"));
            return None;
        }
        Some(At::new(value.span(), command))
    }
}

/// A word or line as the guest's shell gets it: line breaks are a script's, a NUL is nobody's.
fn word(text: &str, at: &At<DeValue<'_>>, problems: &mut Problems) -> Option<String> {
    if text.contains('\0') {
        let problem = Problem::new(at.span(), "this command has the character '\\0'");
        problems.push(problem.help("no command can have it: leave it out"));
        return None;
    }
    Some(text.to_owned())
}
