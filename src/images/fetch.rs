//! [`pull`]: an image from a URL into the store.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use super::http::{self, Answer, Trouble};
use super::part::Part;
use crate::kinds::Url;
use crate::ledger::{LedgerError, files};
use crate::names::FileDigest;
use crate::paths::Paths;

/// How often a connection that breaks is made anew within one run, as long as each brings something.
const TRIES: u32 = 5;

/// How long to wait before that.
const PAUSE: Duration = Duration::from_secs(1);

/// After so many bytes it is said how many there are.
const STEP: u64 = 1 << 20;

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Another command downloads the same image.
    Waiting,
    /// So many bytes are there, of so many where the server says so.
    Receiving(u64, Option<u64>),
    /// The connection broke; it goes on from there.
    Again,
}

/// Why an image did not come.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The disk refuses.
    #[error("the image can't be written below {}", folder.display())]
    Io {
        /// The store.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no room for it.
    #[error("there is no room in {} for {url}{}; nothing of it was kept", folder.display(), of(*size))]
    Full {
        /// The store.
        folder: PathBuf,
        /// The image.
        url: Url,
        /// Its size in bytes, where it is known.
        size: Option<u64>,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The server does not send it.
    #[error("{url} can't be downloaded")]
    Server {
        /// The image.
        url: Url,
        /// Why.
        #[source]
        source: Trouble,
    },
    /// The connection broke.
    #[error("the connection broke after {got} bytes{} of {url}", of(*size))]
    Broken {
        /// The image.
        url: Url,
        /// Bytes that are there.
        got: u64,
        /// Bytes that there should be, where that is known.
        size: Option<u64>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else came.
    #[error(
        "{url} is not what the definition says: it has the {} {found}, and {wanted} is wanted; nothing of it was kept",
        wanted.algorithm().word()
    )]
    Other {
        /// The image.
        url: Url,
        /// What came.
        found: FileDigest,
        /// What was announced.
        wanted: FileDigest,
        /// It begins like a web page.
        is_page: bool,
    },
}

fn of(size: Option<u64>) -> String {
    size.map_or_else(String::new, |size| format!(" of {size}"))
}

impl PullError {
    /// What to do about it, as a sentence without a full stop, where that is known.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            PullError::Full { folder, .. } => {
                format!("make room in {} (vmnet image prune removes what no lab uses), or move it by VMNET_STATE_DIR", folder.display())
            }
            PullError::Broken { .. } => "run it again: it goes on where it broke off".to_owned(),
            PullError::Other { is_page: true, .. } => {
                "a web page came: name the address of the image itself, not that of a page about it".to_owned()
            }
            PullError::Other { .. } => {
                "publishers replace images under one name: take the address with a date or number in it, and the digest \
                 that belongs to it"
                    .to_owned()
            }
            PullError::Server { source: Trouble::Status(401 | 403), .. } => {
                "the server wants to know who asks: download the image by hand and name it with file =".to_owned()
            }
            PullError::Server { source: Trouble::Status(404 | 410), .. } => {
                "correct the url: publishers take old images away".to_owned()
            }
            PullError::Server { source: Trouble::Connection(_), .. } => {
                "look at the url, and at this host's name servers and way outside; a proxy is that of the environment \
                 (https_proxy, http_proxy)"
                    .to_owned()
            }
            PullError::Server { source: Trouble::Certificate(_), .. } => {
                "the package ca-certificates has what servers are known by; SSL_CERT_FILE names a certificate of your own"
                    .to_owned()
            }
            PullError::Server { source: Trouble::Downgrade, .. } => {
                "name the http:// address if that is meant: the digest says what is right".to_owned()
            }
            PullError::Ledger(_) | PullError::Io { .. } | PullError::Server { .. } => return None,
        })
    }
}

/// Sees to it that an image is in the store; says whether it had to be downloaded.
///
/// # Errors
/// [`PullError`]. Only after a connection that broke something of it stays, for the next run.
pub fn pull(paths: &Paths, url: &Url, digest: &FileDigest, mut on_step: impl FnMut(Step)) -> Result<bool, PullError> {
    let folder = paths.files();
    let failed = |source| PullError::Io { folder: folder.clone(), source };
    files::make_folder(paths).map_err(failed)?;
    if files::has(paths, digest)? {
        return Ok(false);
    }
    let mut part = Part::open(paths, digest, || on_step(Step::Waiting)).map_err(failed)?;
    if files::has(paths, digest)? {
        part.remove().map_err(failed)?;
        return Ok(false);
    }
    let mut pull = Pull { paths, url, size: None, on_step: &mut on_step };
    part.resume().map_err(failed)?;
    // What a crash left may have holes: then all of it is asked for once more.
    let mut may_restart = part.length > 0;
    loop {
        if let Err(error) = pull.receive(&mut part) {
            // A server that does not answer now has not made worse what came before.
            let stays = part.length > 0 && matches!(error, PullError::Broken { .. } | PullError::Server { .. });
            if !stays {
                part.remove().map_err(failed)?;
            }
            return Err(error);
        }
        let found = part.found();
        if found == *digest {
            part.settle(paths).map_err(failed)?;
            return Ok(true);
        }
        if !std::mem::take(&mut may_restart) {
            let is_page = is_page(&part.head);
            part.remove().map_err(failed)?;
            return Err(PullError::Other { url: url.clone(), found, wanted: digest.clone(), is_page });
        }
        part.restart().map_err(failed)?;
    }
}

/// One download.
struct Pull<'p> {
    paths: &'p Paths,
    url: &'p Url,
    size: Option<u64>,
    on_step: &'p mut dyn FnMut(Step),
}

impl Pull<'_> {
    /// Receives the rest, over several connections where one breaks.
    fn receive(&mut self, part: &mut Part) -> Result<(), PullError> {
        let mut tries = 1;
        loop {
            let before = part.length;
            match self.once(part) {
                Err(PullError::Broken { .. }) if part.length > before && tries < TRIES => {
                    (self.on_step)(Step::Again);
                    std::thread::sleep(PAUSE);
                    tries += 1;
                }
                // It answered before, and is not there now.
                Err(PullError::Server { source: Trouble::Connection(source), .. }) if tries > 1 => {
                    let (url, got, size) = (self.url.clone(), part.length, self.size);
                    return Err(PullError::Broken { url, got, size, source });
                }
                result => return result,
            }
        }
    }

    /// Receives over one connection.
    fn once(&mut self, part: &mut Part) -> Result<(), PullError> {
        let url = self.url.clone();
        let server = |source| PullError::Server { url: url.clone(), source };
        let asked = match http::get(self.url, part.length) {
            // It does not go on where it should; from the beginning it can't be wrong.
            Err(Trouble::Place) => http::get(self.url, 0),
            asked => asked,
        };
        let Some(answer) = asked.map_err(server)? else {
            // There is nothing behind what is here; the digest tells whether that is all.
            return Ok(());
        };
        let Answer { from, size, mut body } = answer;
        if from != part.length {
            part.restart().map_err(|source| self.no_room(source))?;
        }
        self.size = size;
        if let Some(size) = size {
            part.reserve(size).map_err(|source| self.no_room(source))?;
        }
        let mut buffer = vec![0; 256 << 10];
        let mut told = part.length;
        (self.on_step)(Step::Receiving(told, size));
        loop {
            // More than was announced is not taken.
            let left = size.map_or(u64::MAX, |size| size.saturating_sub(part.length));
            let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let broken = |source| PullError::Broken { url: url.clone(), got: part.length, size, source };
            let length = match body.read(&mut buffer[..room]) {
                Ok(0) if left > 0 && size.is_some() => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error)),
            };
            part.add(&buffer[..length]).map_err(|source| self.no_room(source))?;
            if part.length - told >= STEP {
                told = part.length;
                (self.on_step)(Step::Receiving(told, size));
            }
        }
        (self.on_step)(Step::Receiving(part.length, size));
        Ok(())
    }

    fn no_room(&self, source: io::Error) -> PullError {
        let folder = self.paths.files();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                PullError::Full { folder, url: self.url.clone(), size: self.size, source }
            }
            _ => PullError::Io { folder, source },
        }
    }
}

/// Whether something begins like HTML.
fn is_page(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    text.starts_with("<!doctype html") || text.starts_with("<html")
}
