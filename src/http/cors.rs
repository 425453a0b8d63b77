//! What other origins' pages may do (CORS): an exact list, with credentials. Nothing is reflected, and no `*` is sent.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ALLOW, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response};

use super::answer;
use super::body::Body;

/// Request headers that an allowed page may set.
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, last-event-id, cache-control");
/// Answer headers that an allowed page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("tidings-stream, idempotent-replayed, retry-after");
/// Seconds for which a browser may remember a preflight; Chromium remembers no longer than this.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The request's origin, where the list names it.
pub fn allowed_origin(headers: &HeaderMap, origins: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// Answers `OPTIONS`: a preflight, or somebody who asks what the path can do. `allow` names the path's methods.
pub fn options(headers: &HeaderMap, allow: HeaderValue, origin: Option<&HeaderValue>) -> Response<Body> {
    let mut response = answer::nothing();
    let answered = response.headers_mut();
    if origin.is_some() && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        answered.insert(ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
        answered.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        answered.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }
    answered.insert(ALLOW, allow);
    response
}

/// Adds to any answer what lets an allowed origin's page read it.
pub fn finish(answered: &mut HeaderMap, origin: Option<HeaderValue>, origins: &[String]) {
    if !origins.is_empty() {
        answered.append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = origin {
        answered.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answered.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        answered.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_origin_is_named_in_the_answer() {
        let origins = ["https://app.example".to_owned()];
        let asked = |origin: &'static str| HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        assert_eq!(
            allowed_origin(&asked("https://app.example"), &origins),
            Some(HeaderValue::from_static("https://app.example"))
        );
        for foreign in ["null", "*", "https://app.example.evil", "https://APP.example", "http://app.example"] {
            assert_eq!(allowed_origin(&asked(foreign), &origins), None, "{foreign}");
        }
        let mut answered = HeaderMap::new();
        finish(&mut answered, None, &origins);
        assert!(!answered.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(answered[VARY], "origin");
    }

    #[test]
    fn a_preflight_of_a_foreign_origin_learns_nothing() {
        let mut headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://app.example"))]);
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        let allow = || HeaderValue::from_static("POST, OPTIONS");
        assert!(!options(&headers, allow(), None).headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS));
        let answered = options(&headers, allow(), headers.get(ORIGIN));
        assert_eq!(answered.headers()[ACCESS_CONTROL_MAX_AGE], "7200");
        assert_eq!(answered.headers()[ACCESS_CONTROL_ALLOW_METHODS], "POST, OPTIONS");
    }
}
