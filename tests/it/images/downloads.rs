//! [`vmnet::images::pull`] against a server that does what servers and lines do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use vmnet::images::{PullError, Step, Trouble, pull};
use vmnet::names::{Algorithm, FileDigest, Hasher};
use vmnet::paths::Paths;

use super::server::{Manner, Server};
use crate::private::{private, sh};

/// A store for one test, and an image of a few hundred KiB.
struct Place {
    _root: tempfile::TempDir,
    paths: Paths,
    image: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { state: root.path().join("state"), run: root.path().join("run") };
        Self { _root: root, paths, image: (0..700_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect() }
    }

    fn digest(&self, algorithm: Algorithm) -> FileDigest {
        let mut hash = Hasher::of(algorithm);
        hash.update(&self.image);
        hash.finish()
    }

    fn pull(&self, server: &Server) -> Result<bool, PullError> {
        pull(&self.paths, &server.url(), &self.digest(Algorithm::Sha256), |_| {})
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.paths.files()).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// It is here whole, and nothing beside it.
    fn is_here(&self) {
        let digest = self.digest(Algorithm::Sha256);
        assert_eq!(self.names(), [digest.as_str()]);
        assert!(fs::read(self.paths.file(&digest)).unwrap() == self.image);
    }

    fn part(&self) -> Option<u64> {
        fs::metadata(self.paths.part(&self.digest(Algorithm::Sha256))).ok().map(|meta| meta.len())
    }
}

#[test]
fn an_image_comes_once() {
    let place = Place::new();
    let server = Server::start(&place.image, &[]);
    let mut steps = Vec::new();
    let digest = place.digest(Algorithm::Sha512);
    assert!(pull(&place.paths, &server.url(), &digest, |step| steps.push(step)).unwrap());
    assert_eq!(steps.first(), Some(&Step::Receiving(0, Some(700_000))));
    assert_eq!(steps.last(), Some(&Step::Receiving(700_000, Some(700_000))));
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(place.paths.file(&digest)), mode(place.paths.files())), (0o644, 0o711));
    assert!(!pull(&place.paths, &server.url(), &digest, |_| panic!()).unwrap());
    assert_eq!(server.asked(), [None]);
    assert_eq!(place.names(), [digest.as_str()]);
}

#[test]
fn one_whose_size_nobody_says_comes_too() {
    let place = Place::new();
    let server = Server::start(&place.image, &[Manner::Unsized]);
    place.pull(&server).unwrap();
    place.is_here();
}

#[test]
fn a_connection_that_breaks_is_made_anew_and_goes_on() {
    let place = Place::new();
    let server = Server::start(&place.image, &[Manner::Cut(300_000), Manner::Cut(100_000)]);
    place.pull(&server).unwrap();
    place.is_here();
    let asked: Vec<Option<String>> = server.asked();
    assert_eq!(asked, [None, Some("bytes=300000-".into()), Some("bytes=400000-".into())]);
}

#[test]
fn what_came_stays_for_the_next_run() {
    let place = Place::new();
    let server = Server::start(&place.image, &[Manner::Cut(200_000), Manner::Cut(0)]);
    let error = place.pull(&server).unwrap_err();
    assert!(matches!(error, PullError::Broken { got: 200_000, size: Some(700_000), .. }), "{error:?}");
    assert!(error.help().unwrap().contains("run it again"));
    assert_eq!(place.part(), Some(200_000));
    // A server that refuses meanwhile takes nothing away.
    server.next(&[Manner::Status(503, String::new())]);
    assert!(matches!(place.pull(&server), Err(PullError::Server { source: Trouble::Status(503), .. })));
    assert_eq!(place.part(), Some(200_000));
    place.pull(&server).unwrap();
    place.is_here();
    assert_eq!(server.asked().last().unwrap().as_deref(), Some("bytes=200000-"));
}

/// A connection that breaks, and a server that is starting again: in one run.
#[test]
fn what_came_stays_when_the_server_refuses_then() {
    let place = Place::new();
    let server = Server::start(&place.image, &[Manner::Cut(200_000), Manner::Status(503, String::new())]);
    let error = place.pull(&server).unwrap_err();
    assert!(matches!(error, PullError::Server { source: Trouble::Status(503), .. }), "{error:?}");
    assert_eq!(place.part(), Some(200_000));
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_of_it_again() {
    for manner in [Manner::NoRange, Manner::WrongPlace] {
        let place = Place::new();
        let server = Server::start(&place.image, &[Manner::Cut(200_000), Manner::Cut(0)]);
        place.pull(&server).unwrap_err();
        server.next(&[manner]);
        place.pull(&server).unwrap();
        place.is_here();
    }
}

#[test]
fn a_part_that_a_crash_damaged_is_fetched_anew() {
    let place = Place::new();
    let server = Server::start(&place.image, &[]);
    fs::create_dir_all(place.paths.files()).unwrap();
    let part = place.paths.part(&place.digest(Algorithm::Sha256));
    fs::write(&part, vec![0; 100_000]).unwrap();
    place.pull(&server).unwrap();
    place.is_here();
    assert_eq!(server.asked(), [Some("bytes=100000-".into()), None]);
    // Longer than the image is.
    fs::remove_file(place.paths.file(&place.digest(Algorithm::Sha256))).unwrap();
    fs::write(&part, vec![0; 800_000]).unwrap();
    place.pull(&server).unwrap();
    place.is_here();
}

#[test]
fn a_whole_part_needs_nothing_more() {
    let place = Place::new();
    let server = Server::start(&place.image, &[]);
    fs::create_dir_all(place.paths.files()).unwrap();
    fs::write(place.paths.part(&place.digest(Algorithm::Sha256)), &place.image).unwrap();
    place.pull(&server).unwrap();
    place.is_here();
    assert_eq!(server.asked(), [Some("bytes=700000-".into())]);
}

#[test]
fn another_content_than_announced_does_not_stay() {
    let place = Place::new();
    let mut other = place.image.clone();
    other[400_000] ^= 1;
    let server = Server::start(&other, &[]);
    let error = place.pull(&server).unwrap_err();
    let PullError::Other { found, wanted, is_page: false, .. } = &error else { panic!("{error:?}") };
    let text = error.to_string();
    for word in [found.as_str(), wanted.as_str(), server.url().as_str()] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    assert_eq!(place.names(), Vec::<String>::new());
    let server = Server::start(b"\n<!DOCTYPE html><title>Download</title>", &[]);
    let error = place.pull(&server).unwrap_err();
    assert!(error.help().unwrap().contains("web page"), "{error:?}");
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn a_server_that_does_not_have_it_leaves_nothing() {
    for (status, word) in [(404, "correct the url"), (403, "by hand")] {
        let place = Place::new();
        let server = Server::start(&place.image, &[Manner::Status(status, String::new())]);
        let error = place.pull(&server).unwrap_err();
        assert!(matches!(error, PullError::Server { source: Trouble::Status(is), .. } if is == status), "{error:?}");
        assert!(error.help().unwrap().contains(word));
        assert_eq!(place.names(), Vec::<String>::new());
    }
}

#[test]
fn a_redirect_is_followed_and_a_circle_is_not() {
    let place = Place::new();
    let target = Server::start(&place.image, &[]);
    let lines = format!("location: {}\r\n", target.url());
    let server = Server::start(b"", &[Manner::Status(302, lines)]);
    place.pull(&server).unwrap();
    place.is_here();
    let place = Place::new();
    let server = Server::start(b"", &[]);
    let circle = Manner::Status(302, format!("location: {}\r\n", server.url()));
    server.next(&vec![circle; 50]);
    assert!(matches!(place.pull(&server), Err(PullError::Server { source: Trouble::Request(_), .. })));
    assert!(server.asked().len() < 12, "{}", server.asked().len());
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn two_at_a_time_download_once() {
    let place = Place::new();
    let server = Server::start(&place.image, &[]);
    let pulled: Vec<bool> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..4).map(|_| scope.spawn(|| place.pull(&server).unwrap())).collect();
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(pulled.iter().filter(|pulled| **pulled).count(), 1);
    assert_eq!(server.asked().len(), 1);
    place.is_here();
}

#[test]
fn a_link_in_the_place_of_a_part_is_not_followed() {
    let place = Place::new();
    let server = Server::start(&place.image, &[]);
    fs::create_dir_all(place.paths.files()).unwrap();
    let victim = place.paths.state.join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, place.paths.part(&place.digest(Algorithm::Sha256))).unwrap();
    assert!(matches!(place.pull(&server), Err(PullError::Io { .. })));
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

/// What fills the disk goes, at once where the size is said, in the middle where it is not.
#[test]
fn a_full_disk_keeps_nothing_of_it() {
    private(|| {
        for manner in [Manner::Right, Manner::Unsized] {
            let place = Place::new();
            let store = place.paths.files();
            fs::create_dir_all(&store).unwrap();
            sh(&format!("mount -t tmpfs -o size=400k,mode=711 tmpfs {}", store.display()));
            let is_announced = matches!(manner, Manner::Right);
            let server = Server::start(&place.image, &[manner]);
            let error = place.pull(&server).unwrap_err();
            let PullError::Full { size, .. } = &error else { panic!("{error:?}") };
            assert_eq!(size.is_some(), is_announced);
            assert!(error.help().unwrap().contains("vmnet image prune"));
            assert_eq!(place.names(), Vec::<String>::new());
            assert_eq!(sh(&format!("df --output=used {} | tail -1", store.display())).trim(), "0");
            sh(&format!("umount {}", store.display()));
        }
    });
}
