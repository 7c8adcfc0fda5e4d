//! The house rules that a compiler does not know: pure rooms have no effects, imports go one way only, every file
//! says what it is for and stays short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines.
const LONGEST: usize = 500;

/// What a pure room never names: the world outside, time and chance.
const IMPURE: [&str; 17] = [
    "std::fs",
    "std::process",
    "std::env",
    "std::io",
    "std::os",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "nix",
    "libc",
    "rtnetlink",
    "rand",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The rooms in the order of `src/lib.rs`, and how many of them are pure.
fn rooms() -> (Vec<String>, usize) {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut rooms = Vec::new();
    let mut pure = 0;
    for line in text.lines() {
        if line == "//! With effects:" {
            pure = rooms.len();
        }
        if let Some((room, _)) = line.strip_prefix("//! - [`").and_then(|rest| rest.split_once('`')) {
            rooms.push(room.to_owned());
        }
    }
    let modules: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(rooms.iter().map(String::as_str).collect::<BTreeSet<_>>(), modules, "src/lib.rs lists its modules");
    assert!(pure > 5, "src/lib.rs says where effects begin");
    (rooms, pure)
}

/// Every path that a text of Rust names, as `a::b::c`: uses with their braces taken apart, and paths in the code.
/// Comments and string literals name nothing.
fn paths(text: &str) -> BTreeSet<String> {
    let tokens = tokens(text);
    let mut paths = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if is_word(&tokens[at]) { tree(&tokens, at, "", &mut paths) } else { at + 1 };
    }
    paths
}

/// What stands at `at`, behind `prefix`: a path, or a tree of them in braces. Gives the place behind it.
fn tree(tokens: &[String], at: usize, prefix: &str, paths: &mut BTreeSet<String>) -> usize {
    match tokens.get(at).map(String::as_str) {
        Some("{") => {
            let mut inside = at + 1;
            while tokens.get(inside).is_some_and(|token| token != "}") {
                inside = tree(tokens, inside, prefix, paths);
            }
            inside + 1
        }
        Some(word) if is_word(word) => {
            let path = if prefix.is_empty() { word.to_owned() } else { format!("{prefix}::{word}") };
            let goes_on = |token: &String| is_word(token) || token == "{" || token == "*";
            if tokens.get(at + 1).is_some_and(|token| token == "::") && tokens.get(at + 2).is_some_and(goes_on) {
                return tree(tokens, at + 2, &path, paths);
            }
            paths.insert(path);
            at + 1
        }
        Some("*") => {
            paths.insert(prefix.to_owned());
            at + 1
        }
        _ => at + 1,
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single signs; comments, strings and characters are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") || rest.starts_with("br#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_length(rest)
        } else if let Some(length) = character_length(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; a lifetime is none.
fn character_length(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let mut chars = rest.char_indices();
    let (_, first) = chars.next()?;
    let end = if first == '\\' { rest[2..].find('\'')? + 2 } else { chars.next().filter(|(_, c)| *c == '\'')?.0 };
    Some(end + 2)
}

/// The room that a file of `src` belongs to; `main` for the program itself.
fn room(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn pure_rooms_have_no_effects() {
    let (rooms, pure) = rooms();
    let mut found = Vec::new();
    for file in rust_files(&root().join("src")) {
        if !rooms[..pure].contains(&room(&file)) {
            continue;
        }
        for path in paths(&fs::read_to_string(&file).unwrap()) {
            let below =
                |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
            if let Some(name) = IMPURE.iter().find(|name| below(name)) {
                found.push(format!("{} names {path}: a pure room must not use {name}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn imports_go_downward_only() {
    let (rooms, _) = rooms();
    let place = |room: &str| rooms.iter().position(|known| known == room);
    let mut found = Vec::new();
    for file in rust_files(&root().join("src")) {
        let own = room(&file);
        // The two programs.
        if matches!(own.as_str(), "main" | "lib" | "bin") {
            continue;
        }
        let rank = place(&own).unwrap_or_else(|| panic!("{} is in no room of src/lib.rs", file.display()));
        for path in paths(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = path.strip_prefix("crate::").map(|rest| rest.split("::").next().unwrap()) else {
                continue;
            };
            if place(other).is_some_and(|other| other > rank) {
                found.push(format!("{} names {path}: {own} stands above {other}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_say_what_they_are_for_and_stay_short() {
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for file in rust_files(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            if !text.starts_with("//! ") {
                found.push(format!("{} does not begin with //! and its purpose", file.display()));
            }
            let lines = text.lines().count();
            if lines > LONGEST {
                found.push(format!("{} has {lines} lines, more than {LONGEST}: take it apart", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Where a program may be started: vmnet's own in one place, and the caller's own.
const STARTERS: [&str; 3] = ["kernel/child.rs", "engine/netns.rs", "engine/ssh.rs"];

#[test]
fn programs_are_started_in_one_place_and_no_shell_is() {
    let (rooms, pure) = rooms();
    let mut found = Vec::new();
    let src = root().join("src");
    // A pure room can start nothing; a shell that it names is a guest's.
    for file in rust_files(&src).into_iter().filter(|file| !rooms[..pure].contains(&room(file))) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let may = STARTERS.iter().any(|starter| file == src.join(starter));
        let words = tokens(code);
        let starts = words.windows(3).any(|words| words == ["Command", "::", "new"]);
        let names_exec =
            words.iter().any(|word| ["execv", "execve", "execvp", "posix_spawn", "system"].contains(&&**word));
        if (starts && !may) || names_exec {
            found.push(format!("{} starts a program: use kernel::child", file.display()));
        }
        for shell in ["sh", "bash", "dash", "/bin/sh", "/bin/bash", "-c"] {
            // clap's own names of shells are no strings.
            if code.contains(&format!("\"{shell}\"")) && !(shell == "-c" && file.ends_with("nft.rs")) {
                found.push(format!("{} names the shell {shell:?}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Where `ssh` to other hosts may be started, by the crate, which starts it itself, and as a program of the caller's; and
/// where another program of the caller's is: the shell in a machine of a rehearsal, and the command of `with`.
const SSH: [&str; 4] = ["remote/ssh.rs", "remote/started.rs", "commands/rehearse/machines.rs", "commands/with.rs"];

#[test]
fn ssh_to_other_hosts_is_started_in_one_place() {
    let src = root().join("src");
    for file in rust_files(&src) {
        let text = fs::read_to_string(&file).unwrap();
        let may = SSH.iter().any(|place| file == src.join(place)) || file == src.join("kernel/child.rs");
        let named = paths(text.split("#[cfg(test)]").next().unwrap_or_default());
        let found = named.iter().find(|path| path.starts_with("openssh::") || path.ends_with("child::callers"));
        assert!(may || found.is_none(), "{} names {}", file.display(), found.unwrap());
    }
}

#[test]
fn the_scan_sees_what_it_should() {
    let text = r#"
        use std::{collections::BTreeMap, fs::{self, File}};
        use crate::{names::NetName, kernel::{netns, Kernel as K}};
        // std::env in a comment, and 'lifetimes'
        fn f<'a>(x: &'a str) -> char { let _ = "std::process"; let c = '\''; crate::observe::read(x, '"'); c }
        fn g() { if a::b { c::d() } tokio::spawn(async {}); }
    "#;
    let paths = paths(text);
    for path in [
        "std::collections::BTreeMap",
        "std::fs::self",
        "std::fs::File",
        "crate::names::NetName",
        "crate::kernel::netns",
        "crate::kernel::Kernel",
        "crate::observe::read",
        "a::b",
        "c::d",
        "tokio::spawn",
    ] {
        assert!(paths.contains(path), "{path} is not in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.contains("env") || path.contains("process")), "{paths:?}");
}
