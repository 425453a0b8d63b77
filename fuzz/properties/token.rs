//! No token lets anybody in that one of our keys has not signed with its own algorithm; one that is signed says its user and
//! its end in the right types, or is refused; and a good one is good in one spelling only.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use tidings::broker::{AuthError, Credentials};
use tidings::model::{Identity, UserIdentity};

use super::gate::{Gate, NAMED_SECRET, NOW, PUBLIC_KEY, SECRET};
use super::input::Input;

/// Claims that are good at the gate.
const GOOD: &[u8] = br#"{"sub":"alice","exp":1777626060}"#;
const PLAIN_HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

/// Claims as anybody reads them, of any type. What else stands in a token is ignored, down to bytes that are no text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    sub: Value,
    exp: Value,
    iat: Value,
    nbf: Value,
    topics: Value,
}

/// The same of a header.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SaidHeader {
    alg: Value,
    kid: Value,
    crit: Value,
}

pub fn token(data: &[u8]) {
    Gate::with(|gate| {
        let mut input = Input::new(data);
        match input.byte() % 5 {
            0 => stranger(gate, &input.text()),
            1 => claims(gate, input.rest()),
            2 => header(gate, input.field()),
            3 => secret(gate, input.field(), input.field()),
            _ => spelling(gate, &mut input),
        }
    });
}

fn ask(gate: &Gate, token: &str) -> Result<UserIdentity, AuthError> {
    match gate.knock(Credentials::Cookie(token)) {
        Ok(Identity::User(user)) => Ok(user),
        Ok(other) => panic!("{other:?} by a token"),
        Err(error) => Err(error),
    }
}

/// Puts a token together and signs it.
fn sign(header: &[u8], claims: &[u8], secret: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Any text at all.
fn stranger(gate: &Gate, text: &str) {
    if !gate.is_ours(text) {
        assert_eq!(ask(gate, text), Err(AuthError::Invalid));
        assert_eq!(gate.knock(Credentials::Bearer(text)), Err(AuthError::Invalid), "{text}");
    }
}

/// Any claims, well signed.
fn claims(gate: &Gate, claims: &[u8]) {
    let Ok(user) = ask(gate, &sign(PLAIN_HEADER, claims, SECRET)) else { return };
    let said: Said = serde_json::from_slice(claims).expect("claims that count are JSON");
    assert_eq!(said.sub.as_str(), Some(user.user.as_str()));
    #[allow(clippy::cast_precision_loss, reason = "a moment of this century is exact")]
    let now = NOW.as_seconds() as f64;
    assert!(said.exp.as_f64().is_some_and(|end| end >= now + 1.0), "{said:?}");
    for early in [&said.iat, &said.nbf] {
        assert!(early.is_null() || early.as_f64().is_some_and(|from| from < now + 61.0), "{said:?}");
    }
    assert!(user.expires.is_some_and(|end| end > NOW), "who is let in is let out again");
    let topics = said.topics.as_array().map(Vec::len);
    assert_eq!(user.topics.map(|patterns| patterns.len()), topics, "no pattern is left out");
}

/// Any header, over good claims, signed with the secret that has no name.
fn header(gate: &Gate, header: &[u8]) {
    if ask(gate, &sign(header, GOOD, SECRET)).is_ok() {
        let said: SaidHeader = serde_json::from_slice(header).expect("a header that counts is JSON");
        assert_eq!(said.alg, "HS256", "the algorithm is ours to choose");
        assert!(said.kid.is_null(), "the key is of another name");
        assert!(said.crit.is_null(), "what must be understood is not");
    }
}

/// Any secret, by the name of any key. The public key is a secret that everybody knows.
fn secret(gate: &Gate, name: &[u8], secret: &[u8]) {
    let secret = if secret == b"public" { PUBLIC_KEY } else { secret };
    for name in [String::from_utf8_lossy(name).as_ref(), "named", "public"] {
        let header = serde_json::json!({ "alg": "HS256", "kid": name }).to_string();
        let good = name == "named" && is_same(secret, NAMED_SECRET);
        assert_eq!(ask(gate, &sign(header.as_bytes(), GOOD, secret)).is_ok(), good, "{name}");
    }
    assert_eq!(ask(gate, &sign(PLAIN_HEADER, GOOD, secret)).is_ok(), is_same(secret, SECRET));
}

/// Whether HMAC takes the one secret for the other: it fills them up with zeros to 64 bytes (RFC 2104).
fn is_same(secret: &[u8], ours: &[u8]) -> bool {
    let filled = |bytes: &[u8]| [bytes, &vec![0; 64usize.saturating_sub(bytes.len())]].concat();
    filled(secret) == filled(ours)
}

/// A good token with a few bytes of it changed.
fn spelling(gate: &Gate, input: &mut Input<'_>) {
    let mut token = gate.token.clone().into_bytes();
    for _ in 0..=input.byte() % 4 {
        let at = usize::from(input.byte()) * 256 + usize::from(input.byte());
        let at = at % token.len();
        token[at] = input.byte() % 0x80;
    }
    let token = String::from_utf8(token).expect("ASCII for ASCII");
    assert_eq!(ask(gate, &token).is_ok(), token == gate.token, "{token}");
}
