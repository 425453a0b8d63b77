//! The commit feed: what each durable group changed, in seq order. The only source of durable events.
//!
//! **Invariant**: what a change tells of counts is absolute, with the seq it is as of, so that applying it twice, or
//! over a newer snapshot, does no harm.

use std::time::Instant;

use super::sight::Span;
use crate::model::{Category, Locale, Medium, Notification, Seq, StateChange, Tally, TopicKey, TopicName, UserKey};

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
    /// An entry died: for all of its topic who can see it, or for these users.
    Died {
        change: StateChange,
        /// Where the entry stands.
        entry: Seq,
        topic: Option<TopicName>,
        category: Category,
        reach: Reach,
    },
    /// Entries of a topic died or were pruned: counters of its followers that were read before are to be read again.
    Shrunk {
        topic: TopicKey,
        seq: Seq,
    },
    TopicDeleted {
        topic: TopicKey,
        seq: Seq,
    },
    /// A user is told things in another language from here on.
    Listens {
        user: UserKey,
        locale: Option<Locale>,
    },
    /// Everything about a user is gone.
    Erased {
        user: UserKey,
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
    /// So many deliveries by a medium came to be this.
    Outbox {
        medium: Medium,
        event: OutboxEvent,
        count: u64,
    },
    /// Deliveries to many are to be made, or cancelled.
    Expands,
}

/// What may happen to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutboxEvent {
    /// It was made, or revived.
    Pending,
    Sent,
    /// An attempt failed, and another one follows.
    Retried,
    /// It was leased and not tried, and waits as before.
    PutBack,
    Dead,
    Skipped,
    Cancelled,
}

/// A tally with what tells it from the user's others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub tally: Tally,
    pub joined: Seq,
    /// `None` while the user follows.
    pub parted: Option<Seq>,
    pub category: Category,
    /// `None` for direct entries.
    pub topic: Option<TopicName>,
}

impl Standing {
    /// A span's standing.
    pub fn of(span: &Span) -> Self {
        Self {
            tally: span.tally,
            joined: span.joined,
            parted: span.parted,
            category: span.category.clone(),
            topic: span.topic.clone(),
        }
    }

    /// Whether an entry of its source at this position is the user's.
    pub fn contains(&self, seq: Seq) -> bool {
        seq > self.joined && self.parted.is_none_or(|parted| seq <= parted)
    }
}

/// Whom a notification, or its death, reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Users(Vec<UserKey>),
    Topic(TopicKey),
    /// All; the part of `everyone` that bears the entry's category.
    Everyone(TopicKey),
}
