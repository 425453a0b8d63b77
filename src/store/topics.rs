//! Topics and who follows them. A follow is an interval of the log: entries after `joined`, up to `parted`, are the
//! user's. Following takes a seq of its own, so that it has its place in the one order.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::commit::{Change, Standing};
use super::writer::{OpError, Operation, Tx};
use super::{MAX_CATEGORIES, Refusal, users};
use crate::model::{Category, Seq, SourceKey, Tally, Timestamp, TopicKey, TopicName, UserId};

const SELECT_TOPIC: &str = "
    SELECT t.id, t.followers, t.published, c.name
    FROM topics t JOIN categories c ON c.id = t.category
    WHERE t.name = ?1 AND t.name <> 'everyone'";
const SELECT_EVERYONE_OF: &str = "SELECT id FROM topics WHERE name = 'everyone' AND category = ?1";
const INSERT_TOPIC: &str = "INSERT INTO topics (name, category, created_at) VALUES (?1, ?2, ?3)";
const SELECT_CATEGORY: &str = "SELECT id FROM categories WHERE name = ?1";
const INSERT_CATEGORY: &str = "INSERT INTO categories (name) VALUES (?1)";
const COUNT_CATEGORIES: &str = "SELECT count(*) FROM categories";
const SELECT_FOLLOW: &str =
    "SELECT joined, unread_gone, unseen_gone FROM standings WHERE user = ?1 AND source = ?2 AND parted IS NULL";
const INSERT_FOLLOW: &str = "
    INSERT INTO standings (user, source, joined, unread_gone, unseen_gone)
    SELECT ?1, id, ?3, published, published FROM topics WHERE id = ?2";
const CLOSE_FOLLOW: &str = "
    UPDATE standings SET parted = ?4, published = (SELECT published FROM topics WHERE id = ?2)
    WHERE user = ?1 AND source = ?2 AND joined = ?3";
const COUNT_FOLLOWER: &str = "UPDATE topics SET followers = followers + ?2 WHERE id = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_TOPIC,
    SELECT_EVERYONE_OF,
    INSERT_TOPIC,
    SELECT_CATEGORY,
    INSERT_CATEGORY,
    COUNT_CATEGORIES,
    SELECT_FOLLOW,
    INSERT_FOLLOW,
    CLOSE_FOLLOW,
    COUNT_FOLLOWER,
];

/// A topic as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRow {
    pub key: TopicKey,
    pub category: Category,
    pub followers: u64,
    pub published: u64,
}

/// Makes sure that a topic is there.
#[derive(Clone, Debug)]
pub struct PutTopic {
    pub name: TopicName,
    /// `None` keeps what an existing topic bears.
    pub category: Option<Category>,
    pub now: Timestamp,
}

impl Operation for PutTopic {
    /// The topic, and whether it was made now.
    type Output = (TopicRow, bool);

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Output, OpError> {
        if let Some(topic) = find(tx, &self.name)? {
            return match &self.category {
                Some(category) if *category != topic.category => Err(Refusal::CategoryConflict(topic.category).into()),
                _ => Ok((topic, false)),
            };
        }
        Ok((add(tx, &self.name, self.category.clone().unwrap_or_default(), self.now)?, true))
    }
}

pub(super) fn find(tx: &Tx<'_>, name: &TopicName) -> Result<Option<TopicRow>, rusqlite::Error> {
    tx.sql(SELECT_TOPIC)?
        .query_row([name], |row| {
            Ok(TopicRow { key: row.get(0)?, followers: row.get(1)?, published: row.get(2)?, category: row.get(3)? })
        })
        .optional()
}

pub(super) fn add(tx: &mut Tx<'_>, name: &TopicName, category: Category, now: Timestamp) -> Result<TopicRow, OpError> {
    let category_key = category_key(tx, &category)?;
    tx.sql(INSERT_TOPIC)?.execute(params![name, category_key, now])?;
    Ok(TopicRow { key: TopicKey(tx.connection().last_insert_rowid()), category, followers: 0, published: 0 })
}

/// The part of `everyone` that bears this category.
pub(super) fn everyone(tx: &mut Tx<'_>, category: &Category, now: Timestamp) -> Result<TopicKey, OpError> {
    let category_key = category_key(tx, category)?;
    let found = tx.sql(SELECT_EVERYONE_OF)?.query_row([category_key], |row| row.get(0)).optional()?;
    match found {
        Some(key) => Ok(key),
        None => Ok(add(tx, &TopicName::everyone(), category.clone(), now)?.key),
    }
}

/// The category's number; a new one is added.
pub(super) fn category_key(tx: &mut Tx<'_>, category: &Category) -> Result<i64, OpError> {
    if let Some(key) = tx.categories().get(category) {
        return Ok(*key);
    }
    let found: Option<i64> = tx.sql(SELECT_CATEGORY)?.query_row([category], |row| row.get(0)).optional()?;
    let key = match found {
        Some(key) => key,
        None => {
            let count: usize = tx.sql(COUNT_CATEGORIES)?.query_row([], |row| row.get(0))?;
            if count >= MAX_CATEGORIES {
                return Err(Refusal::TooManyCategories.into());
            }
            tx.sql(INSERT_CATEGORY)?.execute([category])?;
            tx.connection().last_insert_rowid()
        }
    };
    tx.categories().insert(category.clone(), key);
    Ok(key)
}

/// A user follows a topic, from here on.
#[derive(Clone, Debug)]
pub struct Follow {
    pub topic: TopicName,
    pub user: UserId,
    pub now: Timestamp,
    pub everyone_horizon: Duration,
    pub unknown: super::UnknownTopics,
}

/// Whether a follow, or its end, changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowOutcome {
    Changed,
    Unchanged,
}

impl Operation for Follow {
    type Output = FollowOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<FollowOutcome, OpError> {
        let topic = match find(tx, &self.topic)? {
            Some(topic) => topic,
            None if self.unknown == super::UnknownTopics::Refuse => return Err(Refusal::UnknownTopic.into()),
            None => add(tx, &self.topic, Category::default(), self.now)?,
        };
        let user = users::find_or_add(tx, &self.user, self.now, self.everyone_horizon)?;
        if tx.sql(SELECT_FOLLOW)?.exists(params![user, topic.key])? {
            return Ok(FollowOutcome::Unchanged);
        }
        let seq = tx.next_seq();
        tx.sql(INSERT_FOLLOW)?.execute(params![user, topic.key, seq])?;
        tx.sql(COUNT_FOLLOWER)?.execute(params![topic.key, 1])?;
        // Subscribers learn the name's total before a standing that counts from it.
        tx.change(Change::Total {
            topic: topic.key,
            name: self.topic.clone(),
            category: topic.category.clone(),
            total: topic.published,
            seq,
        });
        tx.change(Change::Followed { user, topic: topic.key, name: self.topic.clone(), seq });
        let tally = Tally {
            source: SourceKey::topic(topic.key),
            own_total: None,
            unread_gone: topic.published,
            unseen_gone: topic.published,
        };
        let standing = Standing { tally, joined: seq, category: topic.category, topic: Some(self.topic.clone()) };
        tx.change(Change::Standing { user, seq, standing });
        Ok(FollowOutcome::Changed)
    }
}

/// A user stops following; what came until now stays in the inbox.
#[derive(Clone, Debug)]
pub struct Unfollow {
    pub topic: TopicName,
    pub user: UserId,
}

impl Operation for Unfollow {
    type Output = FollowOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<FollowOutcome, OpError> {
        let topic = find(tx, &self.topic)?.ok_or(Refusal::UnknownTopic)?;
        let Some(user) = users::find(tx, &self.user)? else { return Ok(FollowOutcome::Unchanged) };
        let open: Option<(Seq, u64, u64)> = tx
            .sql(SELECT_FOLLOW)?
            .query_row(params![user, topic.key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((joined, unread_gone, unseen_gone)) = open else { return Ok(FollowOutcome::Unchanged) };
        let seq = tx.next_seq();
        tx.sql(CLOSE_FOLLOW)?.execute(params![user, topic.key, joined, seq])?;
        tx.sql(COUNT_FOLLOWER)?.execute(params![topic.key, -1])?;
        tx.change(Change::Left { user, topic: topic.key, seq });
        let tally =
            Tally { source: SourceKey::topic(topic.key), own_total: Some(topic.published), unread_gone, unseen_gone };
        let standing = Standing { tally, joined, category: topic.category, topic: Some(self.topic.clone()) };
        tx.change(Change::Standing { user, seq, standing });
        Ok(FollowOutcome::Changed)
    }
}
