//! A small writer for nftables: it takes validated newtypes only and quotes every interface name. Pure.
//!
//! Identifiers (chains, sets, counters) can't be quoted in nft 1.0.6 and some words are keywords, so they are
//! constants of this program and carry a hyphen or are known to be free. One statement a line, since a statement
//! needs a line's end or `;` before `}`.

use std::fmt::{Display, Write};

use ipnet::IpNet;

use crate::names::IfName;

/// The body of a table while it is written.
#[derive(Default)]
pub(super) struct Body(String);

/// An element of a set, in nft syntax.
pub(super) struct Element(String);

impl From<&IfName> for Element {
    fn from(name: &IfName) -> Self {
        Self(format!("\"{name}\""))
    }
}

impl From<&IpNet> for Element {
    fn from(net: &IpNet) -> Self {
        Self(net.to_string())
    }
}

impl From<(&IfName, &IpNet)> for Element {
    fn from((name, net): (&IfName, &IpNet)) -> Self {
        Self(format!("\"{name}\" . {net}"))
    }
}

impl Body {
    /// A body that begins with the table's mark.
    pub(super) fn marked(mark: impl Display) -> Self {
        let mut body = Self::default();
        body.line(format!("comment \"{mark}\""));
        body
    }

    fn line(&mut self, text: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "\t{text}");
    }

    /// Named counters: a listing without state does not change with traffic.
    pub(super) fn counters(&mut self, names: &[&str]) {
        for name in names {
            self.line(format!("counter {name} {{"));
            self.line("}");
        }
    }

    /// A set of elements; `kind` is its type, with flags where it has any.
    pub(super) fn set<E: Into<Element>>(&mut self, name: &str, kind: &str, elements: impl IntoIterator<Item = E>) {
        self.line(format!("set {name} {{"));
        for part in kind.split("; ") {
            self.line(format!("\t{part}"));
        }
        let elements: Vec<String> = elements.into_iter().map(|element| element.into().0).collect();
        // An empty list of elements is a syntax error.
        if !elements.is_empty() {
            self.line(format!("\telements = {{ {} }}", elements.join(", ")));
        }
        self.line("}");
    }

    /// A chain; for a base chain its first statement says type, hook and priority.
    pub(super) fn chain<S: AsRef<str>>(&mut self, name: &str, statements: &[S]) {
        self.line(format!("chain {name} {{"));
        for statement in statements {
            self.line(format!("\t{}", statement.as_ref()));
        }
        self.line("}");
    }

    /// The text between the table's braces.
    pub(super) fn finish(self) -> String {
        self.0
    }
}
