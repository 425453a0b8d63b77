//! A frame: one event, encoded once for each framing and shared by every subscriber it goes to.
//!
//! **Invariant**: a frame is written whole or not at all; `retry:` and `id:` never stand in a block of their own, and
//! no event has an empty id (httpx-sse and sseclient-py misread the alternatives). The standard is WHATWG HTML,
//! "Server-sent events".

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;

use super::event::{ByeBody, ByeReason, EventKind, Hello, NotificationBody, StateChangeBody, TokenBody, UnreadBody};
use crate::model::{Category, Counts, Cursor, EntryState, Epoch, Notification, Seq, StateChange, TopicName};

/// The comment that keeps proxies from cutting a silent stream.
pub const HEARTBEAT_COMMENT: Bytes = Bytes::from_static(b": heartbeat\n\n");

/// How a stream wants its events written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// `event:` names the kind, `data:` is the event's data.
    #[default]
    Named,
    /// No `event:`; `data:` is the whole event object, for clients that only know `onmessage`.
    Envelope,
}

/// One event, ready to be written.
#[derive(Debug)]
pub struct Frame {
    pub kind: EventKind,
    /// The position of a durable event.
    pub seq: Option<Seq>,
    /// Set on durable events and on `hello` only: a control frame with a later id would make clients skip events.
    id: Option<Cursor>,
    /// Milliseconds a client should wait before it reconnects; stands in the same block.
    retry_ms: Option<u32>,
    data: String,
    /// What filters look at.
    pub topic: Option<TopicName>,
    pub category: Option<Category>,
    /// When the transaction was durable, for the commit-to-socket histogram.
    pub committed: Option<Instant>,
    named: OnceLock<Bytes>,
    enveloped: OnceLock<Bytes>,
    object: OnceLock<Bytes>,
}

impl Frame {
    fn new(kind: EventKind, data: &impl Serialize) -> Self {
        let data = serde_json::to_string(data).expect("our own bodies have string keys and no failing parts");
        debug_assert!(!data.contains(['\n', '\r']), "data is one line");
        Self {
            kind,
            seq: None,
            id: None,
            retry_ms: None,
            data,
            topic: None,
            category: None,
            committed: None,
            named: OnceLock::new(),
            enveloped: OnceLock::new(),
            object: OnceLock::new(),
        }
    }

    fn durable(mut self, epoch: &Epoch, seq: Seq) -> Self {
        self.seq = Some(seq);
        self.id = Some(Cursor { epoch: epoch.clone(), seq });
        self
    }

    /// The first frame of a stream.
    pub fn hello(hello: &Hello, retry_ms: u32) -> Self {
        let mut frame = Self::new(EventKind::Hello, hello);
        frame.id = Some(hello.cursor.clone());
        frame.retry_ms = Some(retry_ms);
        frame
    }

    /// A notification as it happens: one frame for all who see it.
    pub fn live(epoch: &Epoch, notification: &Notification, committed: Instant) -> Self {
        let body = NotificationBody { notification, state: None, replayed: false };
        let mut frame = Self::notification(epoch, &body);
        frame.committed = Some(committed);
        frame
    }

    /// A notification read from the log for one user.
    pub fn replayed(epoch: &Epoch, notification: &Notification, state: EntryState) -> Self {
        Self::notification(epoch, &NotificationBody { notification, state: Some(state), replayed: true })
    }

    fn notification(epoch: &Epoch, body: &NotificationBody<'_>) -> Self {
        let mut frame = Self::new(EventKind::Notification, body).durable(epoch, body.notification.seq);
        frame.topic.clone_from(&body.notification.topic);
        frame.category = Some(body.notification.content.category.clone());
        frame
    }

    /// What a mark changed.
    pub fn state(epoch: &Epoch, change: &StateChange, committed: Option<Instant>) -> Self {
        let mut frame = Self::new(EventKind::State, &StateChangeBody { epoch, change }).durable(epoch, change.seq);
        frame.committed = committed;
        frame
    }

    /// What became of an entry that is over.
    pub fn death(
        epoch: &Epoch,
        change: &StateChange,
        topic: Option<&TopicName>,
        category: &Category,
        committed: Instant,
    ) -> Self {
        let mut frame = Self::state(epoch, change, Some(committed));
        frame.topic = topic.cloned();
        frame.category = Some(category.clone());
        frame
    }

    /// A user's counts as of a position.
    pub fn unread(epoch: &Epoch, counts: &Counts, as_of: Seq) -> Self {
        let as_of = Cursor { epoch: epoch.clone(), seq: as_of };
        Self::new(EventKind::Unread, &UnreadBody { counts, as_of })
    }

    /// A visible sign of life, for watchdogs.
    pub fn heartbeat() -> Self {
        Self::new(EventKind::Heartbeat, &serde_json::Map::new())
    }

    /// The credential runs out in so many seconds.
    pub fn token(seconds: u64) -> Self {
        Self::new(EventKind::Token, &TokenBody { seconds })
    }

    /// Why the server ends the stream, and when to come back.
    pub fn bye(reason: ByeReason, retry_ms: u32) -> Self {
        let body = ByeBody { reason: reason.as_str(), reconnect: reason.reconnects(), retry_ms };
        let mut frame = Self::new(EventKind::Bye, &body);
        frame.retry_ms = Some(retry_ms);
        frame
    }

    /// The frame as one block of `text/event-stream`, encoded at the first call.
    pub fn sse(&self, framing: Framing) -> &Bytes {
        let cell = match framing {
            Framing::Named => &self.named,
            Framing::Envelope => &self.enveloped,
        };
        cell.get_or_init(|| self.encode(framing).into())
    }

    /// The event object `{"id","event","data"}`, the same on every transport, encoded at the first call.
    pub fn object(&self) -> &Bytes {
        self.object.get_or_init(|| self.encode_object().into())
    }

    fn encode_object(&self) -> String {
        let mut object = String::with_capacity(self.data.len() + 64);
        object.push('{');
        if let Some(id) = &self.id {
            let _ = write!(object, "\"id\":\"{id}\",");
        }
        let _ = write!(object, "\"event\":\"{}\",\"data\":{}}}", self.kind.as_str(), self.data);
        object
    }

    fn encode(&self, framing: Framing) -> String {
        let mut block = String::with_capacity(self.data.len() + 96);
        if let Some(retry_ms) = self.retry_ms {
            let _ = writeln!(block, "retry: {retry_ms}");
        }
        if let Some(id) = &self.id {
            let _ = writeln!(block, "id: {id}");
        }
        match framing {
            Framing::Named => {
                let _ = writeln!(block, "event: {}\ndata: {}", self.kind.as_str(), self.data);
            }
            Framing::Envelope => {
                let _ = writeln!(block, "data: {}", self.encode_object());
            }
        }
        block.push('\n');
        block
    }

    /// What the frame may take in a queue, in bytes.
    pub fn weight(&self) -> usize {
        self.data.len() + 96
    }
}

/// A frame that several subscribers hold.
pub type SharedFrame = Arc<Frame>;

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch() -> Epoch {
        Epoch::new("k7x2m").expect("an epoch")
    }

    #[test]
    fn a_control_frame_has_no_id_and_a_durable_one_has_its_cursor() {
        let unread = Frame::unread(&epoch(), &Counts::default(), Seq(7));
        assert_eq!(
            unread.sse(Framing::Named),
            "event: unread\ndata: {\"unread\":0,\"unseen\":0,\"by_category\":{},\"as_of\":\"k7x2m.7\"}\n\n"
        );
        let bye = Frame::bye(ByeReason::Shutdown, 1500);
        assert_eq!(
            bye.sse(Framing::Named),
            "retry: 1500\nevent: bye\ndata: {\"reason\":\"shutdown\",\"reconnect\":true,\"retry_ms\":1500}\n\n"
        );
    }

    #[test]
    fn an_envelope_holds_the_whole_event() {
        let token = Frame::token(60);
        assert_eq!(token.sse(Framing::Envelope), "data: {\"event\":\"token\",\"data\":{\"seconds\":60}}\n\n");
    }
}
