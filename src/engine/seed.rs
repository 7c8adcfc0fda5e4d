//! The NoCloud seed as a volume: FAT with the label CIDATA, made in memory, the same bytes for the same files.

use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use crate::render::seed::{HOST_KEY_PRIVATE, HOST_KEY_PUBLIC};

/// An ssh host key in OpenSSH's own formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostKey {
    /// The private key, several lines.
    pub(super) private: String,
    /// The public key, one line.
    pub(super) public: String,
}

/// The least size of a volume in bytes; a bigger one is made where the files need it.
const LEAST: usize = 1 << 20;

/// The label that cloud-init looks for, in either case; a FAT label has upper case only.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// The volume with these files, name and text, the host key in its place.
pub(super) fn volume(files: &[(String, String)], key: &HostKey) -> io::Result<Vec<u8>> {
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), with_key(text, key))).collect();
    let content: usize = files.iter().map(|(_, text)| text.len()).sum();
    // Twice the content leaves room for the tables; FAT wants whole sectors.
    let size = (2 * content).next_power_of_two().max(LEAST);
    let mut disk = Cursor::new(vec![0; size]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new().volume_label(LABEL))?;
    {
        // Without its `chrono` feature fatfs writes 1980-01-01 as every time.
        let volume = FileSystem::new(&mut disk, FsOptions::new())?;
        for (name, text) in files {
            let mut file = volume.root_dir().create_file(name)?;
            file.write_all(text.as_bytes())?;
            file.flush()?;
        }
        volume.unmount()?;
    }
    Ok(disk.into_inner())
}

/// The text with the key's two JSON strings instead of their markers.
fn with_key(text: &str, key: &HostKey) -> String {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    text.replace(&string(HOST_KEY_PRIVATE), &string(&key.private))
        .replace(&string(HOST_KEY_PUBLIC), &string(key.public.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn key() -> HostKey {
        HostKey { private: "-----BEGIN\n\"x\"\n-----END\n".into(), public: "ssh-ed25519 AAAA vm1\n".into() }
    }

    #[test]
    fn a_volume_reads_back_and_is_the_same_every_time() {
        let text = format!("{{\"a\": \"{HOST_KEY_PRIVATE}\", \"b\": \"{HOST_KEY_PUBLIC}\"}}");
        let files = [("user-data".to_owned(), text), ("network-config".to_owned(), "x".repeat(300_000))];
        let bytes = volume(&files, &key()).unwrap();
        assert_eq!(bytes, volume(&files, &key()).unwrap());
        let read = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(read.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        let mut user_data = String::new();
        read.root_dir().open_file("user-data").unwrap().read_to_string(&mut user_data).unwrap();
        let json: serde_json::Value = serde_json::from_str(&user_data).unwrap();
        assert_eq!(json["a"], key().private);
        assert_eq!(json["b"], "ssh-ed25519 AAAA vm1");
    }

    #[test]
    fn files_of_any_size_fit() {
        for size in [0, 1 << 20, 3 << 20] {
            volume(&[("user-data".to_owned(), "x".repeat(size))], &key()).unwrap();
        }
    }
}
