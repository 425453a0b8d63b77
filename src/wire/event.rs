//! Events as clients see them: the kinds, and the `data` of each.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::json;
use crate::model::{
    Action, Became, Counts, Cursor, Death, EntryState, Epoch, MarkTarget, Notification, Seq, StateChange, Timestamp,
    UserId,
};

/// The closed set of event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    Hello,
    Notification,
    State,
    Unread,
    Heartbeat,
    Token,
    Bye,
}

impl EventKind {
    pub const ALL: [Self; 7] =
        [Self::Hello, Self::Notification, Self::State, Self::Unread, Self::Heartbeat, Self::Token, Self::Bye];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Notification => "notification",
            Self::State => "state",
            Self::Unread => "unread",
            Self::Heartbeat => "heartbeat",
            Self::Token => "token",
            Self::Bye => "bye",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Why a stream could not go on from the client's cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// No cursor: a first visit.
    None,
    /// The cursor is of another log.
    Epoch,
    /// Something this user could see after it is gone.
    Pruned,
    /// It lies ahead of the head.
    Ahead,
    /// It is no cursor.
    Malformed,
}

impl ResetReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Epoch => "epoch",
            Self::Pruned => "pruned",
            Self::Ahead => "ahead",
            Self::Malformed => "malformed",
        }
    }
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByeReason {
    Shutdown,
    /// The stream can't go on as it is; another one can.
    Rotate,
    Overloaded,
    Expired,
    Revoked,
    Slow,
    Replaced,
}

impl ByeReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Rotate => "rotate",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Slow => "slow",
            Self::Replaced => "replaced",
        }
    }

    /// Whether the client may come back by itself with what it has.
    pub const fn reconnects(self) -> bool {
        match self {
            Self::Shutdown | Self::Rotate | Self::Overloaded | Self::Slow => true,
            Self::Expired | Self::Revoked | Self::Replaced => false,
        }
    }
}

/// How much of a backlog `missed` counts exactly.
pub const MISSED_EXACT: usize = 1_000;

/// The truth about recovery, first on every stream.
#[derive(Clone, Debug)]
pub struct Hello {
    pub user: UserId,
    /// The position before what follows; equals the frame's id.
    pub cursor: Cursor,
    pub head: Seq,
    /// `None` where the stream goes on from the client's cursor.
    pub reset: Option<ResetReason>,
    /// Events that follow as replay or snapshot; above [`MISSED_EXACT`] it is told as "1000+".
    pub missed: usize,
    pub counts: Counts,
    /// Seconds of silence after which a heartbeat comes.
    pub heartbeat: u64,
    pub expires: Option<Timestamp>,
    pub stream: String,
}

impl Serialize for Hello {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("user", self.user.as_str())?;
        map.serialize_entry("cursor", &Text(&self.cursor))?;
        map.serialize_entry("head", &Text(&Cursor { epoch: self.cursor.epoch.clone(), seq: self.head }))?;
        map.serialize_entry("recovered", &self.reset.is_none())?;
        if let Some(reason) = self.reset {
            map.serialize_entry("reason", reason.as_str())?;
        }
        if self.missed > MISSED_EXACT {
            map.serialize_entry("missed", &format!("{MISSED_EXACT}+"))?;
        } else {
            map.serialize_entry("missed", &self.missed)?;
        }
        map.serialize_entry("counts", &CountsBody(&self.counts))?;
        map.serialize_entry("heartbeat", &self.heartbeat)?;
        map.serialize_entry("expires", &self.expires.map(|at| at.to_string()))?;
        map.serialize_entry("stream", &self.stream)?;
        map.end()
    }
}

/// A notification as `data` of an event, and as an entry of the inbox.
pub struct NotificationBody<'a> {
    pub notification: &'a Notification,
    /// `None` in a live frame, which all share: it means new.
    pub state: Option<EntryState>,
    pub replayed: bool,
}

impl Serialize for NotificationBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Notification { seq, id, topic, content, created_at } = self.notification;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &Text(id))?;
        map.serialize_entry("seq", &seq.0)?;
        map.serialize_entry("topic", &topic.as_ref().map(|t| t.as_str()))?;
        map.serialize_entry("category", content.category.as_str())?;
        map.serialize_entry("title", &content.title)?;
        map.serialize_entry("body", &content.body)?;
        map.serialize_entry("data", &content.data.as_deref().and_then(json::stored))?;
        map.serialize_entry("icon", &content.icon)?;
        map.serialize_entry("click", &content.click)?;
        map.serialize_entry("actions", &Actions(&content.actions))?;
        map.serialize_entry("priority", &content.priority.as_u8())?;
        map.serialize_entry("sender", &content.sender)?;
        map.serialize_entry("created_at", &Text(created_at))?;
        map.serialize_entry("replayed", &self.replayed)?;
        if let Some(state) = &self.state {
            map.serialize_entry("state", &StateBody(state))?;
        }
        map.end()
    }
}

/// Buttons, as the store keeps them too.
pub struct Actions<'a>(pub &'a [Action]);

impl Serialize for Actions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            label: &'a str,
            click: &'a str,
        }
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for Action { label, click } in self.0 {
            seq.serialize_element(&Body { label, click })?;
        }
        seq.end()
    }
}

struct StateBody<'a>(&'a EntryState);

impl Serialize for StateBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("seen_at", &self.0.seen_at.map(|at| at.to_string()))?;
        map.serialize_entry("read_at", &self.0.read_at.map(|at| at.to_string()))?;
        map.serialize_entry("archived_at", &self.0.archived_at.map(|at| at.to_string()))?;
        map.end()
    }
}

/// `data` of a `state` event.
pub struct StateChangeBody<'a> {
    pub epoch: &'a Epoch,
    pub change: &'a StateChange,
}

impl Serialize for StateChangeBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.change.target {
            MarkTarget::Upto(seq) => {
                map.serialize_entry("upto", &Text(&Cursor { epoch: self.epoch.clone(), seq: *seq }))?;
            }
            MarkTarget::Ids(ids) => map.serialize_entry("ids", &Texts(ids))?,
        }
        if let Some(category) = &self.change.category {
            map.serialize_entry("category", category.as_str())?;
        }
        map.serialize_entry("state", self.change.became.as_str())?;
        if let Became::Dead(Death::Replaced { by }) = &self.change.became {
            map.serialize_entry("by", &Text(by))?;
        }
        map.end()
    }
}

/// Counts as they stand in `hello` and in replies.
pub struct CountsBody<'a>(pub &'a Counts);

impl CountsBody<'_> {
    fn fill<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("unread", &self.0.unread)?;
        map.serialize_entry("unseen", &self.0.unseen)?;
        map.serialize_entry("by_category", &ByCategory(self.0))
    }
}

impl Serialize for CountsBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        self.fill(&mut map)?;
        map.end()
    }
}

struct ByCategory<'a>(&'a Counts);

impl Serialize for ByCategory<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body {
            unread: u64,
            unseen: u64,
        }
        serializer.collect_map(
            self.0
                .by_category
                .iter()
                .map(|(name, counts)| (name.as_str(), Body { unread: counts.unread, unseen: counts.unseen })),
        )
    }
}

/// `data` of an `unread` event, and the answer of the counts resources.
pub struct UnreadBody<'a> {
    pub counts: &'a Counts,
    pub as_of: Cursor,
}

impl Serialize for UnreadBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        CountsBody(self.counts).fill(&mut map)?;
        map.serialize_entry("as_of", &Text(&self.as_of))?;
        map.end()
    }
}

/// `data` of a `token` event.
#[derive(Serialize)]
pub struct TokenBody {
    pub seconds: u64,
}

/// `data` of a `bye` event.
#[derive(Serialize)]
pub struct ByeBody {
    pub reason: &'static str,
    pub reconnect: bool,
    pub retry_ms: u32,
}

/// Anything that is written as the text of its `Display`.
pub struct Text<'a, T>(pub &'a T);

impl<T: std::fmt::Display> Serialize for Text<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// A list of [`Text`].
pub struct Texts<'a, T>(pub &'a [T]);

impl<T: std::fmt::Display> Serialize for Texts<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Text))
    }
}
