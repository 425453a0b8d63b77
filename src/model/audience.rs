//! What a publish addresses.

use super::{TopicName, UserId};

/// How many users one publish may name. More people than this are a topic's followers.
pub const MAX_RECIPIENTS: usize = 10_000;

/// Who a notification is for; it resolves to recipients when it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Named users, each once, at least one and at most [`MAX_RECIPIENTS`].
    Users(Vec<UserId>),
    /// All who follow the topic when it is committed.
    Topic(TopicName),
    /// Everyone, those who first appear later included.
    Everyone,
}
