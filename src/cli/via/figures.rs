//! What was measured, as plain values: filled by `measure`, judged by `judge`, and printed whole by `--json`.
//!
//! **Invariant**: a figure that is absent was not measured; what failed has a value that says so.

use serde::Serialize;

use super::line::Opened;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) connection: Option<Opened>,
    /// Why there was no connection.
    pub(super) unreachable: Option<String>,
    /// What stands in front calls itself, by its `Server` or `Via`.
    pub(super) proxy: Option<String>,
    pub(super) stream: Option<StreamStart>,
    /// A second try where the first came compressed; the figures below are of this one then.
    pub(super) stream_uncompressed: Option<StreamStart>,
    pub(super) publishes: Vec<Publish>,
    pub(super) resumed: Option<Resumed>,
    /// A stream with a ticket that is good and an `Authorization` that is not: Tidings refuses it, where it sees both.
    pub(super) authorization: Option<Answer>,
    pub(super) websocket: Option<SocketStart>,
    /// A path that is none of Tidings'.
    pub(super) unknown_path: Option<Answer>,
    /// An answer that sets a cookie.
    pub(super) cookie: Option<Answer>,
    pub(super) metrics: Option<Answer>,
    pub(super) silence: Option<Silence>,
    /// Why what was published could not be taken back.
    pub(super) left_behind: Option<String>,
}

/// What a request brought.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Came(Head),
    Failed { error: String },
}

/// The head of an answer, as far as it matters.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) took_ms: f64,
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) location: Option<String>,
    pub(super) set_cookie: Option<String>,
    /// The problem's code, where it is one of Tidings'.
    pub(super) code: Option<String>,
}

/// How a stream began.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StreamStart {
    pub(super) answer: Answer,
    /// From the request to the first byte of the body.
    pub(super) first_byte_ms: Option<f64>,
    /// From the request to the whole `hello`.
    pub(super) hello_ms: Option<f64>,
    /// The stream's heartbeat, as `hello` says.
    pub(super) heartbeat_s: Option<u64>,
    /// The reason of a `bye` that came instead.
    pub(super) bye: Option<String>,
}

/// One publish and its arrival. Times count from the first publish.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Publish {
    /// When the server acknowledged it.
    pub(super) answered_ms: f64,
    /// When its event came; `None` where it did not.
    pub(super) arrived_ms: Option<f64>,
}

/// A stream that was asked for with `Last-Event-ID`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Resumed {
    pub(super) answer: Answer,
    /// What `hello` says; `None` where it did not come.
    pub(super) recovered: Option<bool>,
}

/// How a WebSocket began.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SocketStart {
    pub(super) answer: Answer,
    pub(super) hello_ms: Option<f64>,
    /// Whether it was refused to a page of the address itself.
    pub(super) origin_refused: bool,
}

/// Connections that were kept while nothing happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Silence {
    pub(super) watched_s: f64,
    pub(super) stream: Option<Life>,
    pub(super) websocket: Option<Life>,
    pub(super) polls: Vec<Poll>,
}

/// How long a connection lived while it was watched.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Life {
    pub(super) lived_s: f64,
    /// How long nothing had come when it ended, or when the watch did.
    pub(super) silent_s: f64,
    /// Heartbeats, or pings, that came.
    pub(super) heartbeats: u32,
    /// How it ended before the watch did.
    pub(super) ended: Option<String>,
    /// The reason of the `bye` by which Tidings ended it.
    pub(super) bye: Option<String>,
}

/// A long poll with nothing to tell.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Poll {
    pub(super) wait_s: u64,
    pub(super) took_s: f64,
    pub(super) answer: Answer,
    /// Whether Tidings' answer came whole.
    pub(super) whole: bool,
}

impl StreamStart {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, first_byte_ms: None, hello_ms: None, heartbeat_s: None, bye: None }
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.answer.head().is_some_and(|head| head.content_encoding.as_ref().is_some_and(|how| how != "identity"))
    }
}

impl Answer {
    pub(super) const fn head(&self) -> Option<&Head> {
        match self {
            Self::Came(head) => Some(head),
            Self::Failed { .. } => None,
        }
    }

    /// What came, in a few words.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Failed { error } => error.clone(),
            Self::Came(Head { status, code: Some(code), .. }) => format!("Tidings answered {status} {code}"),
            Self::Came(Head { status, .. }) => format!("it was answered {status}"),
        }
    }
}
