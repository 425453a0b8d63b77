//! Users' tokens, minted as an embedding application would.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

/// Now, in seconds since the Unix epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Signs claims with the secret of a state directory.
pub fn sign(data: &Path, claims: &Value) -> String {
    let secret = std::fs::read_to_string(data.join("token.key")).expect("the server has made its secret");
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(secret.trim_end().as_bytes()),
    )
    .expect("claims are JSON")
}
