//! The session cookie: reading it, setting it, clearing it. Its value is the user's token itself.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::{Config, SecureCookies};

const NAME: &str = "tidings_session";

/// Bytes of a token that is kept as a cookie at most: browsers drop longer cookies without a word.
pub const MAX_TOKEN_BYTES: usize = 3_800;

/// The session's token, where the cookie came. Of several the first counts: browsers put the one with the most
/// specific path there. Those of other applications may hold any bytes, so each is read by itself.
pub fn session(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.trim().split_once('='))
        .find(|(name, value)| *name == NAME && !value.is_empty())
        .map(|(_, value)| value)
}

/// `Set-Cookie` for a session that lasts as long as its token. `None` where the token can't stand in a cookie.
pub fn set(headers: &HeaderMap, config: &Config, token: &str, lasts: Duration) -> Option<HeaderValue> {
    let fits = token.len() <= MAX_TOKEN_BYTES && token.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b));
    fits.then(|| write(headers, config, token, lasts)).flatten()
}

/// `Set-Cookie` that ends the session.
pub fn cleared(headers: &HeaderMap, config: &Config) -> Option<HeaderValue> {
    write(headers, config, "", Duration::ZERO)
}

fn write(headers: &HeaderMap, config: &Config, value: &str, lasts: Duration) -> Option<HeaderValue> {
    let path = if config.base_path.is_empty() { "/" } else { &config.base_path };
    let secure = if is_secure(headers, config.secure_cookies) { "; Secure" } else { "" };
    let cookie = format!("{NAME}={value}; Path={path}; Max-Age={}; HttpOnly; SameSite=Lax{secure}", lasts.as_secs());
    let mut cookie = HeaderValue::try_from(cookie).ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

/// Whoever the peer is may say that it speaks TLS to the browser: a caller that lies marks its own cookie `Secure`
/// and harms nobody else.
fn is_secure(headers: &HeaderMap, rule: SecureCookies) -> bool {
    let says = |name: &str, told: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|text| text.to_ascii_lowercase().contains(told))
    };
    rule == SecureCookies::Always || says("x-forwarded-proto", "https") || says("forwarded", "proto=https")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        assert_eq!(session(&headers(&[("cookie", "a=b; tidings_session=x.y.z; c=d")])), Some("x.y.z"));
        assert_eq!(session(&headers(&[("cookie", "a=b"), ("cookie", "tidings_session=x")])), Some("x"));
        assert_eq!(session(&headers(&[("cookie", "tidings_session=1; tidings_session=2")])), Some("1"));
        let foreign = HeaderValue::from_bytes(b"city=\xb1\xb1\xbe\xa9; tidings_session=x").expect("browsers send it");
        assert_eq!(session(&HeaderMap::from_iter([(COOKIE, foreign)])), Some("x"));
        for none in ["xtidings_session=x", "tidings_session=", "tidings_session", "a=tidings_session=x", ""] {
            assert_eq!(session(&headers(&[("cookie", none)])), None, "{none}");
        }
    }

    #[test]
    fn a_cookie_lasts_as_long_as_its_token_and_keeps_to_the_base_path() {
        let config = Config { base_path: "/tidings".into(), ..Config::default() };
        let cookie = set(&HeaderMap::new(), &config, "x.y", Duration::from_secs(90)).expect("a token that fits");
        assert_eq!(cookie, "tidings_session=x.y; Path=/tidings; Max-Age=90; HttpOnly; SameSite=Lax");
        let cookie = cleared(&HeaderMap::new(), &Config::default()).expect("a cookie");
        assert_eq!(cookie, "tidings_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn a_cookie_is_secure_where_the_page_came_over_tls() {
        let ends = |headers: &HeaderMap, config: &Config| {
            let cookie = set(headers, config, "x", Duration::ZERO).expect("a token that fits");
            cookie.to_str().is_ok_and(|text| text.ends_with("; Secure"))
        };
        assert!(ends(&headers(&[("x-forwarded-proto", "https")]), &Config::default()));
        assert!(ends(&headers(&[("forwarded", "for=1.2.3.4;proto=https")]), &Config::default()));
        assert!(!ends(&headers(&[("x-forwarded-proto", "http")]), &Config::default()));
        assert!(ends(&HeaderMap::new(), &Config { secure_cookies: SecureCookies::Always, ..Config::default() }));
    }

    #[test]
    fn what_can_not_stand_in_a_cookie_is_none() {
        for bad in ["a b", "a;b", "a\nb", "库", "a\"b", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            assert!(set(&HeaderMap::new(), &Config::default(), bad, Duration::ZERO).is_none());
        }
    }
}
