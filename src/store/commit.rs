//! The commit feed: what each durable group changed, in seq order. The only source of durable events.
//!
//! **Invariant**: what a change tells of counts is absolute, with the seq it is as of, so that applying it twice, or
//! over a newer snapshot, does no harm.

use std::time::Instant;

use crate::model::{Category, Notification, Seq, StateChange, Tally, TopicKey, TopicName, UserKey};

/// One durable group.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The newest position in it.
    pub head: Seq,
    /// When it was durable.
    pub at: Instant,
    pub changes: Vec<Change>,
}

/// One thing that changed.
#[derive(Clone, Debug)]
pub enum Change {
    Published {
        notification: Notification,
        reach: Reach,
    },
    Marked {
        user: UserKey,
        change: StateChange,
    },
    /// A user's standing in one source is now this.
    Standing {
        user: UserKey,
        seq: Seq,
        standing: Standing,
    },
    /// A topic has now published `total` entries.
    Total {
        topic: TopicKey,
        name: TopicName,
        category: Category,
        total: u64,
        seq: Seq,
    },
    Followed {
        user: UserKey,
        topic: TopicKey,
        name: TopicName,
        seq: Seq,
    },
    Left {
        user: UserKey,
        topic: TopicKey,
        seq: Seq,
    },
}

/// A tally with what tells it from the user's others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub tally: Tally,
    pub joined: Seq,
    pub category: Category,
    /// `None` for direct entries.
    pub topic: Option<TopicName>,
}

/// Whom a notification reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Users(Vec<UserKey>),
    Topic(TopicKey),
    Everyone,
}
