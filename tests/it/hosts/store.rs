//! Files that a host needs, sent by what is in them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use vmnet::remote::{Place, Trouble, files};

use super::{Hosts, can, wait_for};
use crate::sandbox;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn files_are_sent_once_and_whole() {
    let name = "hosts::store::files_are_sent_once_and_whole";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let hosts = Hosts::start(1);
        let large: Vec<u8> = (0..20_000_000_u32).map(|number| (number % 251) as u8).collect();
        fs::write("/run/large", &large).unwrap();
        fs::write("/run/same", &large).unwrap();
        fs::write("/run/empty", "").unwrap();
        let paths: Vec<PathBuf> = ["/run/large", "/run/same", "/run/empty"].map(PathBuf::from).to_vec();
        wait_for(async {
            let place = Place::connect("h1", "h1").await.unwrap();
            let mut told = Vec::new();
            let progress = |path: &Path, done, total| told.push((path.to_owned(), done, total));
            let names = files::send(&place, &paths, progress).await.unwrap();
            assert_eq!(names[&paths[0]], Path::new("/run/state/.files").join(digest(&large)));
            assert_eq!(names[&paths[0]], names[&paths[1]]);
            assert_eq!(told.last(), Some(&(paths[0].clone(), 20_000_000, 20_000_000)));
            assert!(told.len() >= 3, "{told:?}");
            let there = fs::read(hosts.path(1, &format!("/run/state/.files/{}", digest(&large)))).unwrap();
            assert!(there == large);
            assert_eq!(hosts.sh(1, "stat -c %a /run/state/.files /run/state/.files/*"), "711\n644\n644\n");
            // Nothing is sent twice.
            files::send(&place, &paths, |_, _, _| panic!("it is there")).await.unwrap();
            // A file that changes while it is sent is not taken for what it was.
            let wrong = "0".repeat(64);
            let answer = place.call(&["store", "take", &wrong, "3"], b"abc", |_| {}).await.unwrap();
            assert!(answer.failed && answer.document.to_string().contains("damaged on the way"), "{answer:?}");
            let answer = place.call(&["store", "take", &wrong, "4"], b"abc", |_| {}).await.unwrap();
            assert!(answer.document.to_string().contains("only 3 of 4 bytes"), "{answer:?}");
            let answer = place.call(&["store", "take", &digest(b"abc"), "99999999999999999"], b"abc", |_| {}).await;
            assert!(answer.unwrap().failed);
            assert!(place.call(&["store", "has", "../x"], &[], |_| {}).await.is_err());
            let missing = files::send(&place, &[PathBuf::from("/run/none")], |_, _, _| {}).await.unwrap_err();
            assert!(matches!(missing.trouble, Trouble::File { .. }), "{missing:?}");
            assert_eq!(hosts.sh(1, "ls -A /run/state/.files | wc -l"), "2\n");
            // Labs are elsewhere.
            let answer = place.call(&["list"], &[], |_| {}).await.unwrap();
            assert_eq!(answer.document["labs"], serde_json::json!([]));
            hosts.sh(1, "chmod 777 /run/state/.files");
            let untrusted = files::send(&place, &paths, |_, _, _| {}).await.unwrap_err();
            assert!(format!("{:?}", untrusted.trouble).contains("others may write"), "{untrusted:?}");
        });
    });
}

#[test]
fn two_who_bring_the_same_file_both_succeed() {
    let name = "hosts::store::two_who_bring_the_same_file_both_succeed";
    if !can(name) {
        return;
    }
    sandbox::run(name, || {
        let hosts = Hosts::start(1);
        let bytes = vec![7; 3_000_000];
        let (name, size) = (digest(&bytes), bytes.len().to_string());
        let mut takers: Vec<_> = (0..4)
            .map(|_| {
                let mut taker = hosts.on(1, "vmnet", &["store", "take", &name, &size]);
                taker.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        // One of them is killed in the middle.
        let mut streams: Vec<_> = takers.iter_mut().map(|taker| taker.stdin.take().unwrap()).collect();
        for half in [&bytes[..1_000_000], &bytes[1_000_000..]] {
            for stream in &mut streams {
                stream.write_all(half).unwrap();
            }
            if half.len() == 1_000_000 {
                takers[3].kill().unwrap();
                takers[3].wait().unwrap();
                takers.pop();
                streams.pop();
            }
        }
        drop(streams);
        for mut taker in takers {
            assert!(taker.wait().unwrap().success());
        }
        // What the killed one left goes with the next file.
        let next = digest(b"abc");
        let mut taker = hosts.on(1, "vmnet", &["store", "take", &next, "3"]);
        let mut taker = taker.stdin(Stdio::piped()).spawn().unwrap();
        taker.stdin.take().unwrap().write_all(b"abc").unwrap();
        assert!(taker.wait().unwrap().success());
        let mut expected = [format!("{name}\n"), format!("{next}\n")];
        expected.sort();
        assert_eq!(hosts.sh(1, "ls -A /run/state/.files"), expected.concat());
    });
}
