//! What of this edge's reading the fuzz targets must reach (`fuzz/properties/`), and nothing else: pure functions from the
//! headers and the query of a stranger to values.
//!
//! It is public because a fuzz target is another crate, and hidden because nobody else is meant: the edge itself is
//! [`serve_connection`](super::serve_connection), whose sockets no fuzzer needs. Nothing is decided here.

use http::HeaderMap;

pub use super::api::publish::{idempotency_key, plain_fields};
use super::auth::{self, Presented};
pub use super::cookie::{session, set as set_cookie};
pub use super::network::client;
pub use super::query::Query;
pub use super::stream::Options;

/// A credential as the `Authorization` header bears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    Bearer(String),
    /// The password of Basic credentials.
    Password(String),
}

/// What the one `Authorization` header says; `None` where there is none, or several, or none that is understood.
pub fn authorization(headers: &HeaderMap) -> Option<Authorization> {
    match auth::authorization(headers)? {
        Presented::Bearer(token) => Some(Authorization::Bearer(token.to_owned())),
        Presented::Basic(password) => Some(Authorization::Password(password)),
        Presented::Cookie(_) | Presented::Ticket(_) | Presented::Proxy(_) => None,
    }
}
