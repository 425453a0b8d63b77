//! The one place where problems (RFC 9457) are made: the table of every kind, and what becomes which.
//!
//! A kind's `code` is stable and never reused; its page at `/problems/<code>` is made from the same table.
//! **Invariant**: what the store or a panic said goes to the log and never into a `detail`.

use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use super::answer;
use super::auth::Denied;
use super::body::Body;
use crate::broker::{AuthError, BrokerError};
use crate::metrics::Metrics;
use crate::model::ContentError;
use crate::wire::batch::LineTooLong;
use crate::wire::event::ByeReason;
use crate::wire::json::BodyError;
use crate::wire::problem::{Problem, ProblemBody};

/// Broken fields that one problem names at most, so that an answer stays small whatever was sent.
const MAX_FIELD_ERRORS: usize = 20;
/// What sizes are told in.
const MIB: u64 = 1024 * 1024;
/// Characters of a pointer, which may hold a field's name as it was sent.
const MAX_POINTER_CHARS: usize = 200;
/// Characters of what is said about one field.
const MAX_FIELD_DETAIL_CHARS: usize = 400;

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    pub title: &'static str,
    /// What to do about it: the text of the page.
    pub explanation: &'static str,
}

impl Kind {
    /// A problem of this kind; `detail` is for the person who reads the answer.
    pub fn because(&self, detail: impl Into<String>) -> Problem {
        Problem {
            status: self.status,
            code: self.code,
            title: self.title,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// A problem that will pass by itself in so many seconds.
    pub fn for_now(&self, detail: impl Into<String>, retry_after: u32) -> Problem {
        Problem { retry_after: Some(retry_after), ..self.because(detail) }
    }
}

macro_rules! kinds {
    ($($name:ident = $status:literal $code:literal, $title:literal, $explanation:literal;)*) => {
        $(pub const $name: Kind = Kind { code: $code, status: $status, title: $title, explanation: $explanation };)*
        /// Every kind there is.
        pub const KINDS: &[Kind] = &[$($name),*];
    };
}

kinds! {
    BAD_REQUEST = 400 "bad-request", "The request is malformed",
        "The request can't be understood as HTTP, or its path holds percent-encoding that is no UTF-8. Nothing was done.";
    BAD_HOST = 400 "bad-host", "The request needs exactly one Host",
        "A request must name the host it is for, once, in a Host header that is a host with an optional port. A proxy in between may have dropped or doubled it.";
    BAD_HANDSHAKE = 400 "bad-handshake", "The request opens no WebSocket",
        "A WebSocket's opening request is a GET without a body, with one Sec-WebSocket-Key of 16 bytes in base64 (RFC 6455, 4.1).";
    BAD_QUERY = 400 "bad-query", "A query parameter is not as it must be",
        "The detail names the parameter and its rule. Values are percent-encoded UTF-8.";
    BAD_JSON = 400 "bad-json", "The body is not the JSON expected here",
        "The body must be one JSON object in UTF-8 (one a line in a batch), nesting at most 32 levels deep.";
    BROKEN_BODY = 400 "broken-body", "The body ended too early",
        "The connection was cut, or the chunks of the body are malformed. Whether a batch was partly taken is unknown; send it again with the same idempotency keys.";
    UNAUTHENTICATED = 401 "unauthenticated", "A credential is needed",
        "Send a user's token or an API key as `Authorization: Bearer …`, sign in for the session cookie, or open a stream with a ticket.";
    BAD_CREDENTIAL = 401 "bad-credential", "The credential is not valid",
        "The token, key, cookie or ticket was never good here. Trying again with the same one will not help.";
    REVOKED = 401 "revoked", "The credential was revoked",
        "It was good, and was taken back by an application or an operator (`tidings revoke`, `tidings key revoke`). Only a new one helps.";
    EXPIRED = 401 "expired", "The credential has run out",
        "It was good and has run out. Get a fresh one from whoever signed you in.";
    FORBIDDEN = 403 "forbidden", "This credential may not do that",
        "The credential is good, but not for this: a key lacks a scope, a user's token was sent where a key is needed, or a ticket, which only reads streams, was sent elsewhere.";
    TOPIC_MANAGED = 403 "topic-managed", "The application decides who follows this topic",
        "Users follow and leave only topics that were made open to that, with `PUT /v1/topics/{topic}` and `\"follow\":\"open\"`. Muting one is always theirs.";
    CROSS_SITE = 403 "cross-site", "The request may come from another site",
        "A request that changes something and relies on the session cookie must have `Content-Type: application/json` and come from the same origin or from one that `[http] origins` names. It protects people from pages that act in their name.";
    NOT_FOUND = 404 "not-found", "There is nothing here",
        "The path, or what it names, does not exist for you. Behind a proxy, check the base path.";
    METHOD_NOT_ALLOWED = 405 "method-not-allowed", "The method is not allowed here",
        "The path exists with other methods; the Allow header names them.";
    TIMEOUT = 408 "timeout", "The request took too long",
        "The head or the body of the request did not come in time, so the request was given up. Nothing was done, save lines of a batch that were answered before.";
    BEING_READ = 409 "being-read", "Another program reads the database file",
        "The file can't be cleared of what was deleted while somebody reads it. End the backup or the shell that holds it open and ask again.";
    COPY_RUNNING = 409 "copy-running", "A copy of the log is being made",
        "One backup or check runs at a time, until its answer was read to the end. Try again after Retry-After.";
    CATEGORY_CONFLICT = 409 "category-conflict", "The topic has another category",
        "A topic has one category, which all its entries bear. Publish without a category, or with the topic's own.";
    IDEMPOTENCY_RUNNING = 409 "idempotency-running", "The first request with this key is still running",
        "Another request with the same Idempotency-Key has not been answered yet. Try again after Retry-After: the stored answer will be given.";
    NOT_SCHEDULED = 409 "not-scheduled", "The notification does not wait any more",
        "It was delivered or cancelled meanwhile, or never was scheduled. `GET /v1/notifications/{id}` tells what became of it.";
    BODY_TOO_LARGE = 413 "body-too-large", "The body is too large",
        "Bodies have a limit (256 KiB unless the operator set another), batches a higher one. Send less at a time.";
    TOO_MANY_RECIPIENTS = 413 "too-many-recipients", "The publish names too many users",
        "One publish may name 10,000 users. Let more people than that follow a topic and publish to it, or send several publishes.";
    LINE_TOO_LONG = 413 "line-too-long", "A line of the batch is too long",
        "One line may have 256 KiB. The batch ends at such a line; the lines before it were taken and answered.";
    TOO_MANY_LINES = 413 "too-many-lines", "The batch has too many lines",
        "The batch ends where the limit is reached; the lines before were taken and answered. Send the rest as another batch.";
    TARGET_TOO_LONG = 414 "target-too-long", "The address is too long",
        "Path and query together may have 8 KiB.";
    UNSUPPORTED_TYPE = 415 "unsupported-type", "This content type is not taken here",
        "Send JSON as `Content-Type: application/json`, a batch as `application/x-ndjson`, plain text to `/v1/publish`.";
    CONTENT_ENCODING = 415 "content-encoding", "Encoded bodies are not taken",
        "Send the body as it is, without Content-Encoding: a small compressed body can unpack to a very large one.";
    INVALID = 422 "invalid", "A field is not as it must be",
        "`errors` names every broken field with a JSON pointer and its rule. Fields that are not known are refused, so that a misspelt one is not ignored.";
    BAD_OPERATION = 422 "bad-operation", "The operation is not known here",
        "A WebSocket's message is `{\"op\":…,\"ref\":…}`. The detail names the operations there are, or why this one can't be done now.";
    IDEMPOTENCY_MISMATCH = 422 "idempotency-mismatch", "The key was used with another body",
        "An Idempotency-Key stands for one request. Use a new key for a new request.";
    TOPIC_RESERVED = 422 "topic-reserved", "The topic is reserved",
        "`everyone` is the topic that all follow. Nobody follows or leaves it by hand, and it has no settings.";
    UNKNOWN_TOPIC = 422 "unknown-topic", "The topic does not exist",
        "This server only takes publishes to topics that were made with `PUT /v1/topics/{topic}`.";
    UNKNOWN_USER = 422 "unknown-user", "A user is not known here",
        "This server only takes publishes to users who have appeared: who have signed in, or whom a backend has let follow a topic. Nothing was published.";
    UNKNOWN_EPOCH = 422 "unknown-epoch", "The cursor is of another log",
        "The log was replaced or restored since the cursor was given. Read the inbox again and use its cursor.";
    AHEAD = 422 "ahead", "The cursor lies ahead of the log",
        "The cursor names a position that has not been reached. Use a cursor as it was given by this server.";
    UPGRADE_REQUIRED = 426 "upgrade-required", "This address speaks WebSocket",
        "Open it with a WebSocket client (RFC 6455, version 13, over HTTP/1.1). A proxy in between must pass on `Upgrade` and `Connection`. Events can also be had from `/v1/stream` and `/v1/poll`.";
    NOT_RELOADED = 422 "not-reloaded", "The settings were not read again",
        "They can't be used as they are, for the reasons that the detail names, one a line; the server goes on with those it has. `tidings config check` looks at them without a server.";
    TOO_MANY = 429 "too-many", "A limit is reached",
        "The detail names the limit. Try again after Retry-After.";
    HEADERS_TOO_LARGE = 431 "headers-too-large", "The request's headers are too large",
        "The head of a request may have 16 KiB and 64 header fields. Large cookies of other applications on the same host are the usual reason.";
    INTERNAL = 500 "internal", "The server failed",
        "A fault of the server, which it has logged. Whether the request had an effect is unknown; repeat it with the same Idempotency-Key.";
    DAMAGED = 500 "damaged", "The log is damaged",
        "What the server stores is not as it must be, so no copy of it was handed out. The server has logged what it found. Stop it and run `tidings check`, then `tidings restore` with the newest backup.";
    OVERLOADED = 503 "overloaded", "The server has too much to do",
        "Try again after Retry-After, with growing pauses.";
    DRAINING = 503 "draining", "The server is shutting down",
        "It comes back after a restart. Try again after Retry-After.";
    STORAGE = 503 "storage", "The server's storage failed",
        "The server has logged the cause. Whether a publish was taken is unknown; repeat it with the same Idempotency-Key.";
    OUTBOX_FULL = 503 "outbox-full", "Too many deliveries are still being made",
        "A publish to many by mail or another medium is noted at once, and the deliveries to each person are made behind the answer. As many publishes as may wait for that do so. Nothing was stored. Try again after Retry-After; what goes to the inbox alone is taken all the while.";
    STORAGE_FULL = 507 "storage-full", "The server's disk is full",
        "Nothing can be published until the operator frees space. Reading goes on.";
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let detail = error.to_string();
        match error {
            BodyError::Encoding(_) | BodyError::Syntax(_) | BodyError::Depth => {
                BAD_JSON.because(clip(&detail, MAX_FIELD_DETAIL_CHARS))
            }
            BodyError::TooManyRecipients(_) => TOO_MANY_RECIPIENTS.because(detail),
            BodyError::Fields(errors) => invalid(&detail, errors),
        }
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Forbidden(why) => FORBIDDEN.because(why),
            BrokerError::NotFound(what) => NOT_FOUND.because(format!("there is no such {what} here")),
            BrokerError::Invalid(errors) => BodyError::Fields(errors).into(),
            BrokerError::CategoryConflict(category) => {
                CATEGORY_CONFLICT.because(format!("the topic has the category `{category}`"))
            }
            BrokerError::TopicReserved => TOPIC_RESERVED.because("this topic is reserved"),
            BrokerError::UnknownTopic => UNKNOWN_TOPIC.because("make the topic first, with PUT /v1/topics/{topic}"),
            BrokerError::UnknownUsers(some) => {
                UNKNOWN_USER.because(clip(&format!("nobody here has the id {some}"), MAX_FIELD_DETAIL_CHARS))
            }
            BrokerError::TopicManaged => {
                TOPIC_MANAGED.because("users neither follow nor leave this topic by themselves")
            }
            BrokerError::NotScheduled => {
                NOT_SCHEDULED.because("the notification was delivered or cancelled, or never was scheduled")
            }
            BrokerError::IdempotencyRunning => {
                IDEMPOTENCY_RUNNING.for_now("the first request with this Idempotency-Key has not been answered yet", 1)
            }
            BrokerError::IdempotencyMismatch => {
                IDEMPOTENCY_MISMATCH.because("this Idempotency-Key was used with a body that differs")
            }
            BrokerError::UnknownEpoch => UNKNOWN_EPOCH.because("the cursor is of another log than this one"),
            BrokerError::Ahead => AHEAD.because("the cursor lies ahead of the newest position"),
            BrokerError::TooMany(limit) => TOO_MANY.because(format!("the limit of {limit} is reached; fewer must be there first")),
            BrokerError::TooManyExpansions => {
                OUTBOX_FULL.for_now("deliveries of publishes before this one are still being made; nothing was stored", 5)
            }
            BrokerError::BeingRead => BEING_READ.because(
                "the file was rewritten, but what was deleted is still in it for a program that reads it, such as a backup",
            ),
            BrokerError::CopyRunning => {
                COPY_RUNNING.for_now("a copy of the log is being made or read; there is one at a time", 5)
            }
            BrokerError::NoRoom { needed, free } => STORAGE_FULL.because(format!(
                "a copy needs {} MiB on the disk that holds the log, and {} MiB are free there",
                needed.div_ceil(MIB),
                free / MIB
            )),
            BrokerError::Damaged(cause) => {
                tracing::error!(cause, "the log is damaged; stop the server and run `tidings check`");
                DAMAGED.because("the log, or the copy that was made of it, is not whole; a copy was thrown away, and the server has logged why")
            }
            BrokerError::StorageFull => STORAGE_FULL.for_now("the disk that holds the log is full", 30),
            BrokerError::StorageBusy => {
                STORAGE.for_now("another program holds the log, or memory or files are short; nothing was stored", 1)
            }
            BrokerError::StorageStopped => {
                // Why was told once; of a thousand requests that come too late each would tell it again.
                tracing::debug!("the store has stopped, and refused a request");
                STORAGE.for_now("the store could not do it; the server has logged why", 2)
            }
            BrokerError::Storage(cause) | BrokerError::Operation(cause) => {
                tracing::error!(cause, "the store failed a request");
                STORAGE.for_now("the store could not do it; the server has logged why", 2)
            }
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid => BAD_CREDENTIAL.because("the credential that came with the request is not valid here"),
            AuthError::Revoked => REVOKED.because("the credential that came with the request was revoked"),
            AuthError::Expired => EXPIRED.because("the credential that came with the request has run out"),
            AuthError::Storage(cause) => {
                tracing::error!(cause, "a credential could not be looked up");
                STORAGE.for_now("the credential could not be looked up", 2)
            }
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Missing => UNAUTHENTICATED.because("this needs a credential, and none came with the request"),
            Denied::Unauthenticated(error) => error.into(),
            Denied::Forbidden(why) => FORBIDDEN.because(why),
            Denied::CrossSite(why) => CROSS_SITE.because(why),
            Denied::Hidden => nothing_here(),
        }
    }
}

impl From<LineTooLong> for Problem {
    fn from(error: LineTooLong) -> Self {
        LINE_TOO_LONG.because(error.to_string())
    }
}

/// A refused stream, for a client that does not speak `text/event-stream`.
impl From<ByeReason> for Problem {
    fn from(reason: ByeReason) -> Self {
        match reason {
            ByeReason::Shutdown => DRAINING.for_now("the server is shutting down", 2),
            ByeReason::Overloaded | ByeReason::Rotate | ByeReason::Slow | ByeReason::Replaced => {
                OVERLOADED.for_now("no further stream can be opened now", 5)
            }
            ByeReason::Expired => AuthError::Expired.into(),
            ByeReason::Revoked => AuthError::Revoked.into(),
        }
    }
}

/// 404 for a path.
pub fn nothing_here() -> Problem {
    NOT_FOUND.because("there is nothing at this path")
}

/// 422 about one field.
pub fn invalid_field(pointer: &str, detail: impl Into<String>) -> Problem {
    BodyError::Fields(vec![ContentError { pointer: pointer.to_owned(), detail: detail.into() }]).into()
}

fn invalid(detail: &str, mut errors: Vec<ContentError>) -> Problem {
    errors.truncate(MAX_FIELD_ERRORS);
    for error in &mut errors {
        error.pointer = clip(&error.pointer, MAX_POINTER_CHARS);
        error.detail = clip(&error.detail, MAX_FIELD_DETAIL_CHARS);
    }
    Problem { errors, ..INVALID.because(clip(detail, MAX_POINTER_CHARS + MAX_FIELD_DETAIL_CHARS)) }
}

fn clip(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The answer that tells a problem; counts it.
pub fn answer(problem: &Problem, base_path: &str, metrics: &Arc<Metrics>) -> Response<Body> {
    count(problem, metrics);
    let status = StatusCode::from_u16(problem.status).expect("the table holds only valid status codes");
    let mut response = answer::json(status, &ProblemBody { problem, base_path });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// 405, with the methods that the path has.
pub fn method_not_allowed(allow: HeaderValue, base_path: &str, metrics: &Arc<Metrics>) -> Response<Body> {
    let problem = METHOD_NOT_ALLOWED.because("this path has other methods; see Allow");
    let mut response = answer(&problem, base_path, metrics);
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// Counts a problem that is told inside an answer rather than as one.
pub fn count(problem: &Problem, metrics: &Arc<Metrics>) {
    metrics.errors.get_or_create(&[("code", problem.code)]).inc();
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_passes_by_itself_says_when_to_come_back() {
        for (error, code) in [
            (BrokerError::TooManyExpansions, "outbox-full"),
            (BrokerError::StorageBusy, "storage"),
            (BrokerError::StorageFull, "storage-full"),
        ] {
            let problem = Problem::from(error);
            assert!(problem.code == code && problem.retry_after.is_some(), "{problem:?}");
        }
    }

    #[test]
    fn codes_are_unique_and_fit_a_path() {
        let codes: HashSet<_> = KINDS.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), KINDS.len());
        for kind in KINDS {
            assert!(kind.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", kind.code);
            assert!((400..600).contains(&kind.status), "{}", kind.code);
            assert!(kind.explanation.ends_with('.') && !kind.title.ends_with('.'), "{}", kind.code);
        }
    }

    #[test]
    fn what_was_sent_comes_back_clipped() {
        let errors =
            vec![ContentError { pointer: format!("/{}", "库".repeat(10_000)), detail: "x".repeat(10_000) }; 500];
        let problem = Problem::from(BodyError::Fields(errors));
        assert_eq!(problem.errors.len(), MAX_FIELD_ERRORS);
        assert!(problem.errors[0].pointer.chars().count() <= MAX_POINTER_CHARS + 1);
        assert!(problem.detail.len() < 2_000);
    }

    #[test]
    fn the_cause_of_a_storage_fault_is_not_told() {
        for error in [BrokerError::Storage, BrokerError::Operation] {
            let problem = Problem::from(error("no such table: secrets".into()));
            assert!(!format!("{problem:?}").contains("secrets"));
            assert_eq!((problem.status, problem.retry_after), (503, Some(2)));
        }
    }

    #[test]
    fn a_refusal_says_how_to_sign_in_and_when_to_come_back() {
        let metrics = Arc::new(Metrics::default());
        let missing = answer(&Denied::Missing.into(), "/tidings", &metrics);
        assert_eq!(missing.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(missing.headers()[CONTENT_TYPE], "application/problem+json");
        let running = answer(&BrokerError::IdempotencyRunning.into(), "", &metrics);
        assert_eq!((running.status().as_u16(), &running.headers()[RETRY_AFTER]), (409, &HeaderValue::from(1)));
        assert!(metrics.text().contains("tidings_errors_total{code=\"unauthenticated\"} 1"));
    }
}
