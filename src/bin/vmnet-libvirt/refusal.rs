//! libvirt's errors, whole, and told apart as far as vmnet must.

use virt::error::{Error, ErrorDomain, ErrorNumber};
use vmnet::libvirt::{Refusal, RefusalKind};

/// A refusal of this program's own.
pub(super) fn own(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, code: 0, domain: 0, message }
}

/// What libvirt said.
pub(super) fn from(error: Error) -> Refusal {
    let message = error.message().to_owned();
    Refusal { kind: kind(&error), code: error.code().to_raw(), domain: error.domain().to_raw(), message }
}

/// One of a list, looked at; `None` where it went meanwhile. One that changes under the look, as a guest that ends does,
/// is looked at once more. Everything else fails the list: half of one would say that the rest is gone.
pub(super) fn still_there<T>(look: impl Fn() -> Result<T, Error>) -> Option<Result<T, Error>> {
    match look().or_else(|_| look()) {
        Err(error) if kind(&error) == RefusalKind::NotThere => None,
        result => Some(result),
    }
}

/// By libvirt's own numbers; words only where one number means several things (libvirt reports everything about its
/// socket as a system error, with the reason in the text).
pub(super) fn kind(error: &Error) -> RefusalKind {
    let says = |words: &[&str]| words.iter().any(|word| error.message().contains(word));
    match error.code() {
        ErrorNumber::SystemError if error.domain() == ErrorDomain::Rpc && says(&["Permission denied"]) => {
            RefusalKind::NotPermitted
        }
        ErrorNumber::SystemError if error.domain() == ErrorDomain::Rpc => RefusalKind::NoDaemon,
        ErrorNumber::NoConnect | ErrorNumber::Rpc => RefusalKind::NoDaemon,
        ErrorNumber::InternalError if says(&["client socket is closed", "connection closed"]) => RefusalKind::NoDaemon,
        ErrorNumber::AuthFailed
        | ErrorNumber::AuthCancelled
        | ErrorNumber::AuthUnavailable
        | ErrorNumber::OperationDenied
        | ErrorNumber::AccessDenied => RefusalKind::NotPermitted,
        ErrorNumber::NoDomain | ErrorNumber::NoNetwork => RefusalKind::NotThere,
        ErrorNumber::DomExist | ErrorNumber::NetworkExist => RefusalKind::Taken,
        // A name that another UUID has, or a UUID that has another name.
        ErrorNumber::OperationFailed if says(&["already exists", "already defined"]) => RefusalKind::Taken,
        ErrorNumber::OperationInvalid => RefusalKind::State,
        ErrorNumber::InternalError if says(&["is already running", "is not running"]) => RefusalKind::State,
        ErrorNumber::XmlError | ErrorNumber::XmlDetail | ErrorNumber::XmlInvalidSchema => RefusalKind::Xml,
        ErrorNumber::InvalidArg if says(&["unsupported flags"]) => RefusalKind::Unsupported,
        ErrorNumber::NoSupport | ErrorNumber::OperationUnsupported | ErrorNumber::ConfigUnsupported => {
            RefusalKind::Unsupported
        }
        _ => RefusalKind::Other,
    }
}
