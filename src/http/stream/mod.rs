//! The transports, a file each: server-sent events, long poll, WebSocket; and `GET /v1/stream` itself: opening a stream,
//! or refusing it in a form that does not stop a browser for ever.
//!
//! **Invariant**: a healthy EventSource never sees an error status. Overload, drain and a credential that has run out
//! are a `200` with a single `bye`. Only what never was good, or can't be read at all, is an error.

mod live;
pub mod long_poll;
mod options;
mod sse;
pub mod websocket;

use futures_util::stream;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};

use self::live::LiveStream;
pub use self::options::Options;
pub use self::sse::SseChunks;
pub use self::websocket::Session;
use super::auth::Denied;
use super::body::Body;
use super::call::Call;
use super::limits::Sole;
use super::query::Query;
use crate::broker::{AuthError, FeedRequest};
use crate::wire::event::ByeReason;
use crate::wire::frame::{Frame, Framing};
use crate::wire::problem::Problem;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
/// Proxies that transform would have to wait for an end that never comes.
const NO_TRANSFORM: HeaderValue = HeaderValue::from_static("no-store, no-transform");
/// nginx collects an answer before it passes it on, unless it is told.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The stream's id, for refreshing its credential.
const STREAM: HeaderName = HeaderName::from_static("tidings-stream");

/// Opens the caller's stream.
///
/// # Errors
/// 400 for a filter that can't be read; 503 where it is refused and the client does not speak `text/event-stream`.
pub fn open(call: &Call) -> Result<Response<Body>, Problem> {
    let Options { resume, snapshot, filter, framing, heartbeat } = Options::read(call.headers(), &call.query)?;
    let request = FeedRequest { resume, snapshot, filter };
    let who = call.user()?;
    let seat = match call.seat(&who.user, Sole::of(who)) {
        Ok(seat) => seat,
        Err(limited) if speaks_event_stream(call.headers()) => {
            tracing::debug!(limit = limited.limit, "a stream is refused");
            call.app.metrics().byes.get_or_create(&[("reason", ByeReason::Overloaded.as_str())]).inc();
            let reason = ByeReason::Overloaded;
            return refuse(call.headers(), reason, |reason| call.broker().retry_ms(reason), framing);
        }
        Err(limited) => return Err(limited.into()),
    };
    match call.broker().open_feed(call.user()?.clone(), request) {
        Ok(feed) => {
            let id = feed.stream_id();
            let live = LiveStream::new("sse", Some(seat), call.app.metrics());
            let chunks = SseChunks::new(feed, framing, heartbeat, call.broker().config().heartbeat, live);
            let mut response = event_stream(Body::Stream(Box::pin(chunks)));
            if let Ok(id) = HeaderValue::try_from(id.to_string()) {
                response.headers_mut().insert(STREAM, id);
            }
            Ok(response)
        }
        Err(reason) => refuse(call.headers(), reason, |reason| call.broker().retry_ms(reason), framing),
    }
}

/// Answers a caller who was not let in; `retry_ms` is when such a one should come back.
///
/// # Errors
/// 401 or 403 for a credential that never was good, was revoked, or is another's.
pub fn turn_away(
    headers: &HeaderMap,
    query: &Query,
    denied: Denied,
    retry_ms: impl FnOnce(ByeReason) -> u32,
) -> Result<Response<Body>, Problem> {
    refuse(headers, refusal(denied)?, retry_ms, options::framing(query))
}

/// What to say with a `bye` to a caller who was not let in.
///
/// # Errors
/// The problem, where the caller never was to be let in: coming back would not help.
fn refusal(denied: Denied) -> Result<ByeReason, Problem> {
    match denied {
        Denied::Unauthenticated(AuthError::Expired) => Ok(ByeReason::Expired),
        Denied::Unauthenticated(AuthError::Storage(cause)) => {
            tracing::error!(cause, "a stream's credential could not be looked up");
            Ok(ByeReason::Overloaded)
        }
        Denied::Missing
        | Denied::Unauthenticated(AuthError::Invalid | AuthError::Revoked)
        | Denied::Forbidden(_)
        | Denied::CrossSite(_)
        | Denied::Hidden => Err(denied.into()),
    }
}

/// A single `bye` without an id, or a problem for those who would not understand it.
fn refuse(
    headers: &HeaderMap,
    reason: ByeReason,
    retry_ms: impl FnOnce(ByeReason) -> u32,
    framing: Framing,
) -> Result<Response<Body>, Problem> {
    if !speaks_event_stream(headers) {
        return Err(reason.into());
    }
    let bye = Frame::bye(reason, retry_ms(reason)).sse(framing).clone();
    // A stream rather than a whole body: some parsers give up on an event stream that names its length.
    Ok(event_stream(Body::Stream(Box::pin(stream::iter([bye])))))
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.insert(CACHE_CONTROL, NO_TRANSFORM);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn speaks_event_stream(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts
        .flat_map(|text| text.split(','))
        .any(|range| range.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(text))])
    }

    #[test]
    fn an_event_source_is_refused_with_a_bye_and_others_with_a_status() {
        for spoken in ["text/event-stream", "text/html, Text/Event-Stream;q=0.9"] {
            let denied = Denied::Unauthenticated(AuthError::Expired);
            let refused = turn_away(&accept(spoken), &Query::default(), denied, |_| 2_000);
            assert_eq!(refused.map(|r| r.status().as_u16()).map_err(|p| p.code), Ok(200), "{spoken}");
        }
        for other in ["*/*", "application/json", "text/event-streams", ""] {
            let denied = Denied::Unauthenticated(AuthError::Storage("x".into()));
            let refused = turn_away(&accept(other), &Query::default(), denied, |_| 2_000);
            assert_eq!(refused.map_err(|p| (p.status, p.retry_after.is_some())).err(), Some((503, true)), "{other}");
        }
    }

    #[test]
    fn a_credential_that_never_was_good_is_an_error() {
        for (denied, status) in
            [(Denied::Missing, 401), (Denied::Unauthenticated(AuthError::Invalid), 401), (Denied::Forbidden("x"), 403)]
        {
            let refused = turn_away(&accept("text/event-stream"), &Query::default(), denied, |_| 2_000);
            assert_eq!(refused.map_err(|p| p.status).err(), Some(status));
        }
    }
}
