//! Headers that strangers send: whatever stands in one, it decides only what it may.
//!
//! An address is believed from a named proxy only, and only the hop that the proxy has seen. The session's cookie is found
//! whatever other applications on the host have put beside it. Two credentials are none. A key is one printable word.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use tidings::http::fuzzing::{
    Authorization, Options, Query, authorization, client, idempotency_key, session, set_cookie,
};
use tidings::http::{Address, Config, Peer, Peers};
use tidings::wire::cursor;
use tidings::wire::publish::is_idempotency_key;

const COOKIE_NAME: &str = "tidings_session";

pub fn headers(data: &[u8]) {
    forwarded(data);
    cookies(data);
    credentials(data);
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let key = idempotency_key(&HeaderMap::from_iter([(HeaderName::from_static("idempotency-key"), value.clone())]));
        if let Ok(Some(key)) = &key {
            assert!(key.as_bytes() == data && is_idempotency_key(key));
        }
        assert_ne!(key, Ok(None), "a key that came is never overlooked");
        let resumed = HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), value)]);
        let options = Options::read(&resumed, &Query::default()).expect("a cursor is never refused");
        assert_eq!(options.resume, cursor::parse(data));
    }
}

fn peer(text: &str) -> Peer {
    Peer::Tcp(SocketAddr::new(ip(text), 4_711))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn forwarded(data: &[u8]) {
    const NAME: HeaderName = HeaderName::from_static("x-forwarded-for");
    let proxies = Peers::parse(["10.0.0.0/8", "unix"]).expect("peers");
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let told = HeaderMap::from_iter([(NAME, value.clone())]);
    for (stranger, seen) in [("192.0.2.1", Some(Address::new(ip("192.0.2.1")))), ("127.0.0.1", None)] {
        assert_eq!(client(peer(stranger), &told, &proxies), seen, "a stranger's word counts for nothing");
    }
    if let Some(address) = client(peer("10.1.1.1"), &told, &proxies) {
        let address = ip(&address.to_string());
        assert!(!proxies.contains(Peer::Tcp(SocketAddr::new(address, 1))), "a proxy of ours is no client");
    }
    // A proxy that appends to what the client sent, in the same line or in one of its own.
    let seen = Some(Address::new(ip("198.51.100.7")));
    let appended = [data, b", 198.51.100.7"].concat();
    let one_line = HeaderMap::from_iter([(NAME, HeaderValue::from_bytes(&appended).expect("it was a value"))]);
    assert_eq!(client(peer("10.1.1.1"), &one_line, &proxies), seen);
    let mut two_lines = told;
    two_lines.append(NAME, HeaderValue::from_static("198.51.100.7, 10.2.2.2"));
    assert_eq!(client(Peer::Unix, &two_lines, &proxies), seen);
}

fn cookies(data: &[u8]) {
    let with = |bytes: &[u8]| HeaderValue::from_bytes(bytes).map(|value| HeaderMap::from_iter([(COOKIE, value)]));
    let Ok(alone) = with(data) else { return };
    if let Some(found) = session(&alone) {
        assert!(!found.is_empty() && !found.contains(';'));
        let pair = format!("{COOKIE_NAME}={found}");
        assert!(data.windows(pair.len()).any(|window| window == pair.as_bytes()), "{found} came from nowhere");
    }
    if !data.windows(COOKIE_NAME.len()).any(|window| window == COOKIE_NAME.as_bytes()) {
        for beside in [[data, b"; tidings_session=good"].concat(), [b"tidings_session=good; ", data].concat()] {
            let headers = with(&beside).expect("it was a value");
            assert_eq!(session(&headers), Some("good"), "another application's cookie hides ours");
        }
    }
    let Ok(token) = std::str::from_utf8(data) else { return };
    if let Some(set) = set_cookie(&HeaderMap::new(), &Config::default(), token, std::time::Duration::from_secs(60)) {
        let set = set.to_str().expect("a cookie of ours is ASCII");
        assert!(set.starts_with(&format!("{COOKIE_NAME}={token}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax")));
        if !token.is_empty() {
            let back = with(format!("{COOKIE_NAME}={token}").as_bytes()).expect("it was a value");
            assert_eq!(session(&back), Some(token), "what a browser is given comes back as it was");
        }
    }
}

fn credentials(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    if let Some(Authorization::Bearer(token)) = authorization(&headers) {
        assert!(!token.is_empty() && data.trim_ascii_end().ends_with(token.as_bytes()));
    }
    headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
    assert_eq!(authorization(&headers), None, "nobody can say which of two was meant");

    let Ok(password) = std::str::from_utf8(data) else { return };
    let basic = format!("bAsIc {}", STANDARD.encode(format!("any user:{password}")));
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(basic).expect("base64 is ASCII"))]);
    assert_eq!(authorization(&headers), Some(Authorization::Password(password.to_owned())));
}
