//! Images: what is in them, and how those come here that a definition names by a URL.
//!
//! A download is there whole, with the digest that the definition says, or it is not there: [`pull`] writes beside the
//! store and gives the file its place at the end. An image that is a file of the user's is read once ([`digest_of`]);
//! what was found out is kept with the file's identity.

mod fetch;
mod http;
mod known;
mod part;
mod store;

pub use fetch::{PullError, Step, pull};
pub use http::Trouble;
pub use known::{digest_of, known};
pub use store::{Entry, PruneError, entries, remove};
