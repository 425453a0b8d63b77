//! The cross-site rule: a request that changes something and relies on what browsers send by themselves must prove
//! that no foreign page made it.
//!
//! Two proofs are needed together. `Content-Type: application/json` can't be sent by a form and makes a foreign
//! `fetch` ask first. And the browser's own word on where the request comes from: `Sec-Fetch-Site`, else `Origin`.

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use super::call::is_json;

/// Checks the rule.
///
/// # Errors
/// What is missing, in words.
pub fn check(headers: &HeaderMap, origins: &[String]) -> Result<(), &'static str> {
    if !is_json(headers) {
        return Err("a change that relies on the session cookie needs `Content-Type: application/json`");
    }
    let same = match text(headers, "sec-fetch-site") {
        Some(site) => site == "same-origin",
        // Old browsers, and pages that are neither over TLS nor on this machine, send no Sec-Fetch-Site.
        None => text(headers, ORIGIN.as_str()).is_some_and(|origin| is_own(origin, headers)),
    };
    let listed = text(headers, ORIGIN.as_str()).is_some_and(|origin| is_listed(origin, origins));
    if same || listed {
        Ok(())
    } else {
        Err("the browser does not say that a page of the same origin, or of an allowed one, sent this")
    }
}

/// Checks the `Origin` of a request to open a WebSocket. Only browsers send one; who sends none is no page.
///
/// # Errors
/// What is wrong, in words.
pub fn check_origin(headers: &HeaderMap, origins: &[String]) -> Result<(), &'static str> {
    let mut sent = headers.get_all(ORIGIN).iter();
    let Some(origin) = sent.next() else { return Ok(()) };
    let allowed = sent.next().is_none()
        && origin.to_str().is_ok_and(|origin| is_own(origin, headers) || is_listed(origin, origins));
    if allowed {
        Ok(())
    } else {
        Err("a page of this origin may open no WebSocket here; `[http] origins` names those that may")
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_listed(origin: &str, origins: &[String]) -> bool {
    origins.iter().any(|known| known == origin)
}

fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let own = |authority: &str| text(headers, HOST.as_str()).is_some_and(|host| authority.eq_ignore_ascii_case(host));
    matches!(origin.split_once("://"), Some(("http" | "https", authority)) if own(authority))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn allowed(pairs: &[(&'static str, &'static str)]) -> bool {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        check(&pairs.collect(), &["https://app.example".to_owned()]).is_ok()
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
    const HOST: (&str, &str) = ("host", "bell.example:8080");

    #[test]
    fn a_page_of_ours_or_of_an_allowed_origin_may_change_things() {
        assert!(allowed(&[JSON, ("sec-fetch-site", "same-origin")]));
        assert!(allowed(&[JSON, ("sec-fetch-site", "cross-site"), ("origin", "https://app.example")]));
        assert!(allowed(&[JSON, ("origin", "https://app.example")]));
        assert!(allowed(&[JSON, HOST, ("origin", "http://BELL.example:8080")]));
    }

    #[test]
    fn a_form_can_not() {
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"]
        {
            assert!(!allowed(&[("content-type", kind), ("sec-fetch-site", "same-origin")]), "{kind}");
        }
        assert!(!allowed(&[("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn a_foreign_page_can_not() {
        for site in ["cross-site", "same-site", "none", "Same-Origin", ""] {
            assert!(
                !allowed(&[JSON, HOST, ("sec-fetch-site", site), ("origin", "http://bell.example:8080")]),
                "{site}"
            );
        }
        for origin in [
            "null",
            "https://evil.example",
            "https://app.example.evil",
            "https://app.example/",
            "HTTPS://app.example",
            "bell.example:8080",
            "ftp://bell.example:8080",
        ] {
            assert!(!allowed(&[JSON, HOST, ("origin", origin)]), "{origin}");
        }
        assert!(!allowed(&[JSON, HOST]));
    }

    #[test]
    fn only_pages_of_ours_or_of_an_allowed_origin_may_open_a_websocket() {
        let opens = |pairs: &[(&'static str, &'static str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            check_origin(&pairs.collect(), &["https://app.example".to_owned()]).is_ok()
        };
        assert!(opens(&[HOST]), "a program sends no origin");
        assert!(opens(&[HOST, ("origin", "http://bell.example:8080")]));
        assert!(opens(&[HOST, ("origin", "https://app.example")]));
        for foreign in ["https://evil.example", "null", "", "http://bell.example", "https://app.example.evil"] {
            assert!(!opens(&[HOST, ("origin", foreign)]), "{foreign}");
        }
    }
}
