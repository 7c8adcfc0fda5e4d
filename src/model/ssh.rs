//! Public keys as `ssh_keys` has them: lines, or paths of files that hold some. Pure.

/// The words that public keys begin with (sshd(8), AUTHORIZED_KEYS).
const KEY_TYPES: [&str; 3] = ["ssh-", "ecdsa-", "sk-"];

/// Whether a line is a public key: its type, and the key.
pub fn is_key(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next().is_some_and(begins_key) && words.next().is_some()
}

/// Whether a text that is no key can be the path of a file: one that begins as a key does is a key that was cut off.
pub(super) fn can_be_path(text: &str) -> bool {
    !text.split_whitespace().next().is_some_and(begins_key) || text.contains(['/', '.'])
}

fn begins_key(word: &str) -> bool {
    KEY_TYPES.iter().any(|kind| word.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_paths_are_told_apart() {
        for key in ["ssh-ed25519 AAAAC3Nz me@host", "ecdsa-sha2-nistp256 AAAA=", "sk-ssh-ed25519@openssh.com AAAA"] {
            assert!(is_key(key), "{key}");
        }
        for path in ["~/.ssh/id_ed25519.pub", "id.pub", "ssh-keys/me", "/etc/keys", "authorized_keys"] {
            assert!(!is_key(path) && can_be_path(path), "{path}");
        }
        for neither in ["ssh-rsa", " ssh-ed25519 "] {
            assert!(!is_key(neither) && !can_be_path(neither), "{neither}");
        }
    }
}
