//! What other origins' pages may do (CORS): an exact list, with credentials. Nothing is reflected, and no `*` is sent.
//!
//! tower-http answers preflights and adds the headers; here stands what we allow.

use std::time::Duration;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember a preflight; Chromium remembers no longer than this.
const MAX_AGE: Duration = Duration::from_hours(2);

/// The layer for these origins; `None` where no other origin may call, so that nothing at all is said about it.
pub fn layer(origins: &[String]) -> Option<CorsLayer> {
    // An origin that is no header value can't be one that a browser sends.
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CACHE_CONTROL,
            CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([
            RETRY_AFTER,
            HeaderName::from_static("idempotent-replayed"),
            HeaderName::from_static("tidings-stream"),
        ])
        .max_age(MAX_AGE);
    Some(layer)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    };
    use http::{HeaderMap, Request, Response};
    use tower::{Layer as _, ServiceExt as _, service_fn};

    use super::*;

    async fn ask(method: Method, origin: &'static str) -> HeaderMap {
        let origins = ["https://app.example".to_owned()];
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(String::new())) });
        let service = layer(&origins).expect("one origin is named").layer(inner);
        let request = Request::builder()
            .method(method)
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .body(())
            .expect("a valid request");
        service.oneshot(request).await.map(|response| response.into_parts().0.headers).unwrap_or_default()
    }

    #[tokio::test]
    async fn only_a_listed_origin_is_named_in_the_answer() {
        let answered = ask(Method::GET, "https://app.example").await;
        assert_eq!(answered[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(answered[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        for foreign in ["null", "*", "https://app.example.evil", "https://APP.example", "http://app.example"] {
            let answered = ask(Method::GET, foreign).await;
            assert!(!answered.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{foreign}: {answered:?}");
            assert!(answered[VARY].to_str().is_ok_and(|vary| vary.contains("origin")), "{foreign}");
        }
    }

    #[tokio::test]
    async fn a_preflight_is_answered_and_remembered() {
        let answered = ask(Method::OPTIONS, "https://app.example").await;
        assert_eq!(answered[ACCESS_CONTROL_MAX_AGE], "7200");
        assert!(answered[ACCESS_CONTROL_ALLOW_METHODS].to_str().is_ok_and(|methods| methods.contains("POST")));
        assert!(!ask(Method::OPTIONS, "https://evil.example").await.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }

    #[test]
    fn without_origins_nothing_is_said() {
        assert!(layer(&[]).is_none());
    }
}
