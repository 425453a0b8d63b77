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

/// Who decides who follows a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FollowRule {
    /// Backends, by API key.
    #[default]
    Managed,
    /// Users too, each for themselves, as far as their token may see the topic.
    Open,
}

impl FollowRule {
    pub const ALL: [Self; 2] = [Self::Managed, Self::Open];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Open => "open",
        }
    }

    /// Reads what [`FollowRule::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == text)
    }
}
