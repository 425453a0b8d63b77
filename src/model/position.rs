//! Positions in the log and the small numeric keys that the store gives to users and topics.

use std::fmt;
use std::sync::Arc;

/// Position in the one commit order. 0 is "before everything"; the first commit is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    pub const ZERO: Self = Self(0);
    /// The largest position SQLite can hold.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The position just before this one; `ZERO` stays `ZERO`.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The position just after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of one log: 1-16 characters of `a-z0-9`. A new database, or one restored from a backup, has a new one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Characters an epoch may have at most.
    pub const MAX_LEN: usize = 16;

    /// `None` where the text is not 1-16 characters of `a-z0-9`.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        (fits && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Epoch and seq: what a client has seen. Written `<epoch>.<seq>`; reading it is `wire::cursor`'s.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub epoch: Epoch,
    pub seq: Seq,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// The store's number for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey(pub i64);

/// The store's number for a topic. `everyone` has one per category, since a topic has one category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicKey(pub i64);

/// Where a user's entries come from: a topic, or what was sent to the user directly in one category.
///
/// Both are a list in seq order with one category, a watermark and sparse marks, so that one set of rules
/// serves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey(i64);

impl SourceKey {
    /// The entries of a topic.
    pub const fn topic(key: TopicKey) -> Self {
        Self(key.0)
    }

    /// The direct entries of one category, by the store's number for the category.
    pub const fn direct(category: i64) -> Self {
        Self(-category)
    }

    /// As the store keeps it: positive for a topic, negative for a category of direct entries.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// As the store keeps it.
    pub const fn from_i64(value: i64) -> Self {
        Self(value)
    }

    /// The topic, where this is one.
    pub const fn as_topic(self) -> Option<TopicKey> {
        if self.0 > 0 { Some(TopicKey(self.0)) } else { None }
    }
}

/// Names one live stream on this server; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u128);

impl StreamId {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
