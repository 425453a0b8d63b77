//! Topics and who follows them, as backends and users see them.

use serde::Serialize;

use super::json::{BodyError, Fields};
use super::manage::named_user;
use super::publish::category;
use crate::model::{Category, FollowRule, Timestamp, TopicName, UserId};

/// Entries that a new follower may ask to begin with.
pub const MAX_LAST: u32 = 100;

/// What `PUT /v1/topics/{topic}` asks for; `None` leaves a setting of an existing topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    pub category: Option<Category>,
    pub follow: Option<FollowRule>,
}

/// A topic, as its publishers and operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: TopicName,
    pub category: Category,
    pub follow: FollowRule,
    pub followers: u64,
    /// Entries published so far.
    pub published: u64,
    pub created_at: Timestamp,
}

/// A page of a listing in order of names; `next` is the last name of a page that is not the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// Who follows a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    pub user: UserId,
    /// Whether the user has taken the topic out of their counts.
    pub muted: bool,
}

/// A topic that a user follows or has muted, as the user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedTopic {
    pub topic: TopicName,
    pub category: Category,
    pub following: bool,
    pub muted: bool,
    /// Whether the user may follow and leave it by themselves.
    pub follow: FollowRule,
}

/// A follow as asked for: the user, and how many of the topic's newest entries they begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowLine {
    pub user: UserId,
    /// 0 to [`MAX_LAST`].
    pub last: u32,
}

/// Reads the body of `PUT /v1/topics/{topic}`: `{"category","follow"}`, or nothing.
///
/// # Errors
/// [`BodyError`].
pub fn parse_topic(body: &[u8]) -> Result<TopicSettings, BodyError> {
    if body.is_empty() {
        return Ok(TopicSettings::default());
    }
    let mut fields = Fields::parse(body)?;
    let category = category(&mut fields, "category");
    let follow = fields.string("follow").and_then(|text| {
        let rule = FollowRule::parse(&text);
        if rule.is_none() {
            fields.refuse("follow", "must be managed or open");
        }
        rule
    });
    fields.close(Some(TopicSettings { category, follow }))
}

/// Reads the body of a follow, `{"last"}` or nothing: how many of the topic's newest entries it begins with.
///
/// # Errors
/// [`BodyError`].
pub fn parse_follow(body: &[u8]) -> Result<u32, BodyError> {
    if body.is_empty() {
        return Ok(0);
    }
    let mut fields = Fields::parse(body)?;
    let last = last(&mut fields);
    fields.close(Some(last))
}

/// Reads a line of a bulk follow: `{"user","last"}`.
///
/// # Errors
/// [`BodyError`].
pub fn parse_follow_line(line: &[u8]) -> Result<FollowLine, BodyError> {
    let mut fields = Fields::parse(line)?;
    let (user, last) = (named_user(&mut fields), last(&mut fields));
    fields.close(user.map(|user| FollowLine { user, last }))
}

/// Takes the field `last`; 0 where it is not there.
pub fn last(fields: &mut Fields<'_>) -> u32 {
    let last = fields.read("last", "a whole number").unwrap_or_default();
    if last > MAX_LAST {
        fields.refuse("last", format!("must be 0 to {MAX_LAST}"));
    }
    last
}

/// [`Topic`] as a body.
#[derive(Serialize)]
pub struct TopicBody<'a> {
    topic: &'a str,
    category: &'a str,
    follow: &'static str,
    followers: u64,
    published: u64,
    created_at: String,
}

impl<'a> From<&'a Topic> for TopicBody<'a> {
    fn from(topic: &'a Topic) -> Self {
        Self {
            topic: topic.name.as_str(),
            category: topic.category.as_str(),
            follow: topic.follow.as_str(),
            followers: topic.followers,
            published: topic.published,
            created_at: topic.created_at.to_string(),
        }
    }
}

/// A page of topics.
#[derive(Serialize)]
pub struct TopicsBody<'a> {
    topics: Vec<TopicBody<'a>>,
    next: Option<&'a str>,
}

impl<'a> From<&'a Listing<Topic>> for TopicsBody<'a> {
    fn from(page: &'a Listing<Topic>) -> Self {
        Self { topics: page.items.iter().map(TopicBody::from).collect(), next: page.next.as_deref() }
    }
}

/// A page of followers.
#[derive(Serialize)]
pub struct FollowersBody<'a> {
    followers: Vec<FollowerBody<'a>>,
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct FollowerBody<'a> {
    user: &'a str,
    muted: bool,
}

impl<'a> From<&'a Listing<Follower>> for FollowersBody<'a> {
    fn from(page: &'a Listing<Follower>) -> Self {
        let body = |follower: &'a Follower| FollowerBody { user: follower.user.as_str(), muted: follower.muted };
        Self { followers: page.items.iter().map(body).collect(), next: page.next.as_deref() }
    }
}

/// What a user follows or has muted.
#[derive(Serialize)]
pub struct FollowsBody<'a> {
    topics: Vec<FollowedBody<'a>>,
}

#[derive(Serialize)]
struct FollowedBody<'a> {
    topic: &'a str,
    category: &'a str,
    following: bool,
    muted: bool,
    follow: &'static str,
}

impl<'a> From<&'a [FollowedTopic]> for FollowsBody<'a> {
    fn from(topics: &'a [FollowedTopic]) -> Self {
        let body = |followed: &'a FollowedTopic| FollowedBody {
            topic: followed.topic.as_str(),
            category: followed.category.as_str(),
            following: followed.following,
            muted: followed.muted,
            follow: followed.follow.as_str(),
        };
        Self { topics: topics.iter().map(body).collect() }
    }
}

/// The answer to a follow or its end.
#[derive(Serialize)]
pub struct FollowBody<'a> {
    pub topic: &'a str,
    /// `None` where the user is the one who asked, on their own connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    pub following: bool,
    pub changed: bool,
}

/// The answer to a mute or its end.
#[derive(Serialize)]
pub struct MuteBody<'a> {
    pub topic: &'a str,
    /// `None` where the user is the one who asked, on their own connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    pub muted: bool,
    pub changed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers<T: std::fmt::Debug>(read: Result<T, BodyError>) -> Vec<String> {
        match read {
            Err(BodyError::Fields(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_topic_is_asked_for_with_what_it_says() {
        let settings = parse_topic(br#"{"category":"alerts","follow":"open"}"#).expect("settings");
        assert_eq!(settings.category.as_ref().map(Category::as_str), Some("alerts"));
        assert_eq!(settings.follow, Some(FollowRule::Open));
        for nothing in [&b""[..], b"{}", br#"{"category":null,"follow":null}"#] {
            assert_eq!(parse_topic(nothing), Ok(TopicSettings::default()));
        }
        assert_eq!(
            pointers(parse_topic(br#"{"category":" ","follow":"Open","name":"x"}"#)),
            ["/category", "/follow", "/name"]
        );
        assert_eq!(pointers(parse_topic(br#"{"follow":true}"#)), ["/follow"]);
    }

    #[test]
    fn a_follow_begins_with_the_last_few_at_most() {
        assert_eq!(parse_follow(b""), Ok(0));
        assert_eq!(parse_follow(b"{}"), Ok(0));
        assert_eq!(parse_follow(br#"{"last":100}"#), Ok(MAX_LAST));
        for bad in ["101", "-1", "1.5", "\"1\"", "4294967296"] {
            assert_eq!(pointers(parse_follow(format!(r#"{{"last":{bad}}}"#).as_bytes())), ["/last"], "{bad}");
        }
        let line = parse_follow_line(br#"{"user":"alice","last":3}"#).expect("a line");
        assert_eq!((line.user.as_str(), line.last), ("alice", 3));
        assert_eq!(pointers(parse_follow_line(br#"{"last":101}"#)), ["/user", "/last"]);
    }
}
