//! The memory and the descriptors of a process that is stopped.

use std::io::IoSliceMut;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// Reads up to `length` bytes; less where they end.
pub(crate) fn read(pid: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let from = [RemoteIoVec { base: address as usize, len: length }];
    let count = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &from).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

/// Reads a text that ends with a zero.
pub(crate) fn text(pid: Pid, address: u64) -> String {
    let mut bytes = Vec::new();
    // Page by page: the one behind the text may not be there.
    while bytes.len() < 4096 {
        let next = address + bytes.len() as u64;
        let page = read(pid, next, 256 - (next % 256) as usize);
        let end = page.iter().position(|byte| *byte == 0);
        bytes.extend(&page[..end.unwrap_or(page.len())]);
        if end.is_some() || page.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a descriptor stands for: a path, `socket:[n]`, `pipe:[n]`, `anon_inode:…`.
pub(crate) fn descriptor(pid: Pid, fd: u64) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{}", fd as i32));
    link.map(|path| path.display().to_string()).unwrap_or_default()
}

/// The pieces of memory that a `sendto` or `sendmsg` hands over, address and length.
pub(crate) fn pieces(pid: Pid, number: i64, args: &[u64; 6]) -> Vec<(u64, usize)> {
    if number == libc::SYS_sendto {
        return vec![(args[1], args[2] as usize)];
    }
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
    };
    // struct msghdr: name, its length, iov, number of iovs
    let header = read(pid, args[1], 32);
    let vectors = read(pid, word(&header, 16), word(&header, 24).min(1024) as usize * 16);
    vectors.chunks_exact(16).map(|vector| (word(vector, 0), word(vector, 8) as usize)).collect()
}

/// Where in the process's memory the netlink messages begin that it sends, each with its beginning; of the first
/// 512 KiB.
pub(crate) fn messages(pid: Pid, pieces: &[(u64, usize)]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    for (base, length) in pieces {
        let bytes = read(pid, *base, (*length).min(512 << 10));
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + 16) {
            let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            if size < 16 || at + size > bytes.len() {
                break;
            }
            found.push((base + at as u64, bytes[at..at + size].to_vec()));
            at += (size + 3) & !3;
        }
    }
    found
}
