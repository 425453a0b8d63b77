//! gzip on answers that are whole and worth it. Never on a stream: a compressor holds back what a reader waits for.
//!
//! tower-http negotiates and compresses. It is run over the finished answer rather than as a layer, since its body would
//! stay around every stream for as long as that lives (3 kB a connection).

use std::convert::Infallible;
use std::future::ready;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _};

use super::body::Body;

/// Bytes below which the headers cost what the compression saves. Secrets (tickets, keys) stay below it too.
const MIN_BYTES: usize = 1024;

/// Compresses an answer, where its client takes gzip.
pub async fn compress(accepted: Option<HeaderValue>, response: Response<Body>) -> Response<Body> {
    let Some(accepted) = accepted.filter(|_| is_worth_it(response.body())) else { return response };
    let worth = NotForContentType::IMAGES.and(NotForContentType::const_new("font/"));
    let layer = CompressionLayer::new().gzip(true).quality(CompressionLevel::Default).compress_when(worth);
    let mut request = Request::new(());
    request.headers_mut().insert(ACCEPT_ENCODING, accepted);
    let (status, mut made) = (response.status(), Some(response));
    let service = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(made.take().expect("it is called once"))));
    let Ok(response) = layer.layer(service).oneshot(request).await;
    let (mut head, body) = response.into_parts();
    // The layer refuses those who take neither gzip nor the answer as it is. What was done is done: a client that reads
    // 406 would do it again. RFC 9110, 12.5.3, lets us answer without an encoding.
    head.status = status;
    if head.headers.contains_key(CONTENT_ENCODING)
        && let Some(weak) = head.headers.get(ETAG).and_then(weak)
    {
        head.headers.insert(ETAG, weak);
    }
    let whole = body.collect().await.expect("a whole body has nothing to fail at").to_bytes();
    Response::from_parts(head, Body::Full(whole))
}

/// A strong tag stands for one sequence of bytes, and these are others now (RFC 9110, 8.8.3.3).
fn weak(tag: &HeaderValue) -> Option<HeaderValue> {
    let strong = tag.as_bytes().starts_with(b"\"");
    strong.then(|| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()).flatten()
}

fn is_worth_it(body: &Body) -> bool {
    matches!(body, Body::Full(bytes) if bytes.len() > MIN_BYTES)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::VARY;

    use super::*;
    use crate::http::answer;

    async fn ask(accepted: &'static str, response: Response<Body>) -> (Option<String>, usize) {
        let compressed = compress(Some(HeaderValue::from_static(accepted)), response).await;
        let encoding = compressed.headers().get(CONTENT_ENCODING);
        let encoding = encoding.map(|value| value.to_str().unwrap_or_default().to_owned());
        (encoding, compressed.into_body().collect().await.map(|body| body.to_bytes().len()).unwrap_or_default())
    }

    fn json(bytes: usize) -> Response<Body> {
        answer::typed(StatusCode::OK, answer::JSON, "x".repeat(bytes))
    }

    #[tokio::test]
    async fn a_long_answer_is_compressed_for_those_who_take_it() {
        let (encoding, bytes) = ask("br, gzip;q=0.8", json(10_000)).await;
        assert_eq!(encoding.as_deref(), Some("gzip"));
        assert!(bytes < 1_000, "{bytes}");
        for refused in ["identity", "br", "gzip;q=0", "", "*;q=0", "identity;q=0", "br, identity;q=0"] {
            assert_eq!(ask(refused, json(10_000)).await, (None, 10_000), "{refused}");
        }
    }

    #[tokio::test]
    async fn what_was_done_is_told_also_to_those_who_refuse_every_encoding() {
        let made = answer::typed(StatusCode::CREATED, answer::JSON, "x".repeat(10_000));
        let told = compress(Some(HeaderValue::from_static("*;q=0")), made).await;
        assert_eq!(told.status(), StatusCode::CREATED);
    }

    #[tokio::test]
    async fn a_short_answer_and_a_picture_stay_as_they_are() {
        assert_eq!(ask("gzip", json(1_000)).await, (None, 1_000));
        let picture = answer::typed(StatusCode::OK, HeaderValue::from_static("image/png"), "x".repeat(5_000));
        assert_eq!(ask("gzip", picture).await, (None, 5_000));
    }

    #[tokio::test]
    async fn a_stream_is_never_touched() {
        let endless = futures_util::stream::repeat(bytes::Bytes::from_static(&[b'x'; 4096]));
        let response = Response::new(Body::Stream(Box::pin(endless)));
        let response = compress(Some(HeaderValue::from_static("gzip")), response).await;
        assert!(matches!(response.body(), Body::Stream(_)) && response.headers().is_empty());
    }

    #[tokio::test]
    async fn caches_are_told_that_encodings_differ() {
        let mut response = json(10_000);
        response.headers_mut().insert(ETAG, HeaderValue::from_static("\"a\""));
        let compressed = compress(Some(HeaderValue::from_static("gzip")), response).await;
        let vary = compressed.headers()[VARY].to_str().map(str::to_ascii_lowercase);
        assert_eq!(vary.ok().as_deref(), Some("accept-encoding"));
        assert_eq!(compressed.headers()[ETAG], "W/\"a\"");
    }
}
