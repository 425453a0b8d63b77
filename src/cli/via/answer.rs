//! What is read of an answer: its head, the problem it bears, and of Tidings' JSON the little that is needed.

use std::time::{Duration, Instant};

use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, LOCATION, SERVER, SET_COOKIE, VIA};
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::figures::{Answer, Head};
use super::line::{LineError, ms, whole};

/// How long the body of a refusal is waited for.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(10);

/// What is read of `hello`.
#[derive(Deserialize)]
pub(super) struct Hello {
    pub(super) recovered: bool,
    pub(super) heartbeat: u64,
}

/// What is read of `bye`.
#[derive(Deserialize)]
pub(super) struct Bye {
    pub(super) reason: String,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

impl Head {
    pub(super) fn of(response: &Response<Incoming>, asked: Instant) -> Self {
        let text = |name: HeaderName| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        Self {
            status: response.status().as_u16(),
            took_ms: ms(asked.elapsed()),
            content_type: text(CONTENT_TYPE),
            content_encoding: text(CONTENT_ENCODING),
            cache_control: text(CACHE_CONTROL),
            location: text(LOCATION),
            set_cookie: text(SET_COOKIE),
            code: None,
        }
    }

    /// Whether events follow, and so no end.
    pub(super) fn is_stream(&self) -> bool {
        self.status == 200 && self.content_type.as_ref().is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// With the code of the problem that the answer bears, if it is one of Tidings'.
    pub(super) async fn with_code(self, body: Incoming) -> Self {
        let code = match whole(body, REFUSAL_DEADLINE).await {
            Ok(text) if self.content_type.as_deref() == Some("application/problem+json") => {
                read::<Problem>(&String::from_utf8_lossy(&text)).map(|problem| problem.code)
            }
            _ => None,
        };
        Self { code, ..self }
    }
}

impl From<LineError> for Answer {
    fn from(error: LineError) -> Self {
        Self::Failed { error: error.to_string() }
    }
}

/// What stands in front, as it calls itself.
pub(super) fn proxy(headers: &HeaderMap) -> Option<String> {
    [SERVER, VIA].into_iter().find_map(|name| Some(headers.get(name)?.to_str().ok()?.to_owned()))
}

/// JSON that came, where it is as it should be.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}
