//! What ssh's own words mean. It has one exit code for everything, so its log is all there is to go by.

use super::error::Trouble;

/// Why a connection did not come about, by the log of ssh.
pub(super) fn trouble(log: &str) -> Trouble {
    let has = |text: &str| log.contains(text);
    let said = || last(log);
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") || has("has changed and you have requested strict checking") {
        return Trouble::KeyChanged { file: offending(log), name: changed(log) };
    }
    if has("Host key verification failed") || has("host key is known for") {
        return Trouble::KeyUnknown { said: said() };
    }
    if has("Could not resolve hostname") {
        return Trouble::Unresolved { said: said() };
    }
    // A refusal by the jump host may be behind what the last one says.
    if has("Permission denied (") || has("Too many authentication failures") {
        return Trouble::Denied { said: said() };
    }
    if has("Connection refused") {
        return Trouble::Refused { said: said() };
    }
    let silent = ["timed out", "No route to host", "Network is unreachable", "Host is down", "not responding"];
    if silent.into_iter().any(has) {
        return Trouble::NoAnswer { said: said() };
    }
    Trouble::Ssh { said: said() }
}

/// The last thing that was said, in a line fit for a message.
pub(super) fn last(log: &str) -> String {
    let line = log.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or("not a word");
    visible(line.strip_prefix("ssh: ").unwrap_or(line))
}

/// What was said, cut where it is longer than anybody wants to read, with what a terminal would obey made visible.
pub(super) fn visible(text: &str) -> String {
    const SHOWN: usize = 2000;
    let mut shown = String::new();
    for c in text.chars().take(SHOWN) {
        match c {
            '\n' | '\'' | '"' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// `Offending ED25519 key in /home/me/.ssh/known_hosts:3`
fn offending(log: &str) -> Option<String> {
    let line = log.lines().find_map(|line| line.trim().strip_prefix("Offending ")?.split_once(" key in "))?.1;
    let file = line.rsplit_once(':').map_or(line, |(file, _)| file);
    Some(file.to_owned())
}

/// `Host key for [10.99.0.1]:2222 has changed and you have requested strict checking.`
fn changed(log: &str) -> Option<String> {
    let rest = log.lines().find_map(|line| line.trim().strip_prefix("Host key for "))?;
    Some(rest.split_once(" has changed")?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_ssh_are_sorted() {
        let named = |log: &str| match trouble(log) {
            Trouble::KeyUnknown { .. } => "unknown",
            Trouble::Unresolved { .. } => "unresolved",
            Trouble::Denied { .. } => "denied",
            Trouble::Refused { .. } => "refused",
            Trouble::NoAnswer { .. } => "no answer",
            Trouble::Ssh { .. } => "ssh",
            other => panic!("{other}"),
        };
        for (log, expected) in [
            ("Host key verification failed.\r\n", "unknown"),
            (
                "No ED25519 host key is known for h1 and you have requested strict checking.\r\nHost key verification failed.\r\n",
                "unknown",
            ),
            ("ssh: Could not resolve hostname h9: Name or service not known\r\n", "unresolved"),
            ("root@10.99.0.1: Permission denied (publickey).\r\n", "denied"),
            ("ssh: connect to host 10.99.0.1 port 22: Connection refused\r\n", "refused"),
            ("ssh: connect to host 10.99.0.1 port 22: Connection timed out\r\n", "no answer"),
            (
                "Connection timed out during banner exchange\r\nConnection to 10.99.0.1 port 22 timed out\r\n",
                "no answer",
            ),
            ("ssh: connect to host 10.99.0.1 port 22: No route to host\r\n", "no answer"),
            ("/home/me/.ssh/config: line 3: Bad configuration option: hots\r\n", "ssh"),
            ("", "ssh"),
        ] {
            assert_eq!(named(log), expected, "{log}");
        }
    }

    #[test]
    fn a_changed_key_is_named_with_its_place() {
        let log = "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n\
                   Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.\r\n\
                   Offending ED25519 key in /home/me/.ssh/known_hosts:1\r\n\
                   Host key for [10.99.0.1]:2222 has changed and you have requested strict checking.\r\n\
                   Host key verification failed.\r\n";
        let Trouble::KeyChanged { file, name } = trouble(log) else { panic!() };
        assert_eq!(file.as_deref(), Some("/home/me/.ssh/known_hosts"));
        assert_eq!(name.as_deref(), Some("[10.99.0.1]:2222"));
    }

    #[test]
    fn what_a_host_says_does_not_reach_the_terminal_as_it_is() {
        assert_eq!(last("a\n\u{1b}[2Jgone\r\n\n"), "\\u{1b}[2Jgone");
    }
}
