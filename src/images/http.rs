//! One HTTP request for the rest of a file.
//!
//! No downgrade from https on the way, few redirects, a limit on every wait. The digest says whether what came is right,
//! so the connection need not be trusted; https keeps others from knowing what comes.

use std::io::Read;
use std::time::Duration;

use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{RootCerts, TlsConfig};

use crate::kinds::Url;

/// How long a server may take to answer a call, or to say anything more.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a name or a connection may take.
const CONNECTING: Duration = Duration::from_secs(30);

/// More than any publisher's mirrors need.
const REDIRECTS: u32 = 8;

/// What a server did not do.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection.
    #[error("no connection")]
    Connection(#[source] std::io::Error),
    /// Whose server it is can't be verified.
    #[error("the server does not prove to be who it should be")]
    Certificate(#[source] std::io::Error),
    /// It leads from https to http.
    #[error("the server leads to an address without https")]
    Downgrade,
    /// No answer, or none that can be understood.
    #[error("the request failed")]
    Request(#[source] Box<ureq::Error>),
    /// An answer that is no file.
    #[error("the server answers {0}")]
    Status(u16),
    /// It goes on somewhere else in the file than it was asked to.
    #[error("the server sends another part of the file than it was asked for")]
    Place,
}

/// What a server sends.
pub(super) struct Answer {
    /// The place in the file where it begins, in bytes.
    pub(super) from: u64,
    /// How many bytes the whole file has, where it says so.
    pub(super) size: Option<u64>,
    /// The rest of the file.
    pub(super) body: Box<dyn Read>,
}

/// Whether TLS needs the system's own certificates, and proxies are those of the caller's environment.
fn agent(url: &Url) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    Agent::config_builder()
        .https_only(url.is_https())
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .user_agent(concat!("vmnet/", env!("CARGO_PKG_VERSION")))
        // What is hashed is what is in the file, not what a server made of it on the way.
        .accept_encoding("identity")
        .timeout_resolve(Some(CONNECTING))
        .timeout_connect(Some(CONNECTING))
        .timeout_send_request(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .build()
        .new_agent()
}

/// Asks for a file from a place on; `None` where there is nothing behind that place.
pub(super) fn get(url: &Url, from: u64) -> Result<Option<Answer>, Trouble> {
    let mut request = agent(url).get(url.as_str());
    if from > 0 {
        request = request.header("range", format!("bytes={from}-"));
    }
    let response = request.call().map_err(trouble)?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
    let (from, size) = match response.status() {
        StatusCode::OK => (0, length),
        StatusCode::PARTIAL_CONTENT => match header("content-range").as_deref().and_then(range) {
            Some((start, size)) if start == from => (from, size),
            _ => return Err(Trouble::Place),
        },
        StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => return Ok(None),
        status => return Err(Trouble::Status(status.as_u16())),
    };
    Ok(Some(Answer { from, size, body: Box::new(response.into_body().into_reader()) }))
}

fn trouble(error: ureq::Error) -> Trouble {
    match error {
        // So rustls tells everything that is wrong with a certificate.
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Trouble::Certificate(error),
        ureq::Error::Rustls(error) => Trouble::Certificate(std::io::Error::other(error)),
        ureq::Error::Io(error) => Trouble::Connection(error),
        ureq::Error::HostNotFound => Trouble::Connection(std::io::Error::other("the host is not found")),
        ureq::Error::Timeout(_) => Trouble::Connection(std::io::ErrorKind::TimedOut.into()),
        ureq::Error::RequireHttpsOnly(_) => Trouble::Downgrade,
        other => Trouble::Request(Box::new(other)),
    }
}

/// `bytes 100-199/200`: where it begins, and the size of all; RFC 9110, section 14.4.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, size.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn a_range_is_taken_apart() {
        assert_eq!(range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(range("bytes 100-199/*"), Some((100, None)));
        for bad in ["", "bytes */200", "bytes 100", "lines 1-2/3", "bytes a-b/c"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
