//! What is in a file: its digest.

use std::fs::File;
use std::io::{self, Read};

use crate::names::{Algorithm, FileDigest, Hasher};

/// After so many bytes it is said how many there are.
const STEP: u64 = 32 << 20;

/// Reads all that follows in a file. `on_progress` gets how many bytes were read so far.
///
/// # Errors
/// What reading says.
pub fn digest(file: &mut File, algorithm: Algorithm, mut on_progress: impl FnMut(u64)) -> io::Result<FileDigest> {
    let mut hash = Hasher::of(algorithm);
    let mut buffer = vec![0; 1 << 20];
    let (mut read, mut told) = (0, 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finish()),
            Ok(length) => {
                hash.update(&buffer[..length]);
                read += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if read - told >= STEP {
            told = read;
            on_progress(read);
        }
    }
}
