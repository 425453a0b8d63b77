//! Topics: their names, settings and totals; and the categories that they and direct entries bear.

use rusqlite::{OptionalExtension, Row, params};

use super::commit::Change;
use super::reader::Reader;
use super::writer::{Need, OpError, Operation, Tx};
use super::{MAX_CATEGORIES, Refusal, StoreError};
use crate::model::{Category, FollowRule, Seq, Timestamp, TopicKey, TopicName};

pub(super) const SELECT_TOPIC: &str = "
    SELECT t.id, t.name, c.name, t.follow, t.followers, t.published, t.created_at, t.category
    FROM topics t JOIN categories c ON c.id = t.category
    WHERE t.name = ?1 AND t.name <> 'everyone'";
const SELECT_TOPICS: &str = "
    SELECT t.id, t.name, c.name, t.follow, t.followers, t.published, t.created_at, t.category
    FROM topics t INDEXED BY topics_by_name JOIN categories c ON c.id = t.category
    WHERE t.name > ?1 AND t.name <> 'everyone' AND t.deleted IS NULL ORDER BY t.name LIMIT ?2";
const SELECT_EVERYONE_OF: &str = "SELECT id FROM topics WHERE name = 'everyone' AND category = ?1";
const NEXT_KEY: &str = "UPDATE log SET last_topic = last_topic + 1 WHERE id = 1 RETURNING last_topic";
const INSERT_TOPIC: &str = "INSERT INTO topics (id, name, category, created_at) VALUES (?1, ?2, ?3, ?4)";
const SET_FOLLOW: &str = "UPDATE topics SET follow = ?2 WHERE id = ?1";
/// The name is free at once. What stands in its place is none, so that it can't be asked for.
const DELETE_TOPIC: &str = "UPDATE topics SET deleted = ?2, name = '/' || id WHERE id = ?1";
const SELECT_CATEGORY: &str = "SELECT id FROM categories WHERE name = ?1";
const INSERT_CATEGORY: &str = "INSERT INTO categories (name) VALUES (?1)";
const COUNT_CATEGORIES: &str = "SELECT count(*) FROM categories";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_TOPIC,
    SELECT_TOPICS,
    SELECT_EVERYONE_OF,
    NEXT_KEY,
    INSERT_TOPIC,
    SET_FOLLOW,
    DELETE_TOPIC,
    SELECT_CATEGORY,
    INSERT_CATEGORY,
    COUNT_CATEGORIES,
];

/// A topic as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRow {
    pub key: TopicKey,
    pub name: TopicName,
    pub category: Category,
    pub(super) category_key: i64,
    pub follow: FollowRule,
    pub followers: u64,
    pub published: u64,
    pub created_at: Timestamp,
}

fn topic(row: &Row<'_>) -> Result<TopicRow, rusqlite::Error> {
    Ok(TopicRow {
        key: row.get(0)?,
        name: row.get(1)?,
        category: row.get(2)?,
        follow: row.get(3)?,
        followers: row.get(4)?,
        published: row.get(5)?,
        created_at: row.get(6)?,
        category_key: row.get(7)?,
    })
}

/// Makes sure that a topic is there.
#[derive(Clone, Debug)]
pub struct PutTopic {
    pub name: TopicName,
    /// `None` keeps what an existing topic bears.
    pub category: Option<Category>,
    /// `None` keeps the rule of an existing topic.
    pub follow: Option<FollowRule>,
    pub now: Timestamp,
}

impl Operation for PutTopic {
    /// The topic, and whether it was made now.
    type Output = (TopicRow, bool);

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Output, OpError> {
        let (mut topic, made) = match find(tx, &self.name)? {
            Some(topic) => match &self.category {
                Some(category) if *category != topic.category => {
                    return Err(Refusal::CategoryConflict(topic.category).into());
                }
                _ => (topic, false),
            },
            None => (add(tx, &self.name, self.category.clone().unwrap_or_default(), self.now)?, true),
        };
        if let Some(follow) = self.follow.filter(|follow| *follow != topic.follow) {
            tx.sql(SET_FOLLOW)?.execute(params![topic.key, follow])?;
            topic.follow = follow;
        }
        Ok((topic, made))
    }
}

pub(super) fn find(tx: &Tx<'_>, name: &TopicName) -> Result<Option<TopicRow>, rusqlite::Error> {
    tx.sql(SELECT_TOPIC)?.query_row([name], topic).optional()
}

pub(super) fn add(tx: &mut Tx<'_>, name: &TopicName, category: Category, now: Timestamp) -> Result<TopicRow, OpError> {
    let category_key = category_key(tx, &category)?;
    let key: TopicKey = tx.sql(NEXT_KEY)?.query_row([], |row| row.get(0))?;
    tx.sql(INSERT_TOPIC)?.execute(params![key, name, category_key, now])?;
    Ok(TopicRow {
        key,
        name: name.clone(),
        category,
        category_key,
        follow: FollowRule::default(),
        followers: 0,
        published: 0,
        created_at: now,
    })
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

/// Whether a category is known, or could be added.
pub(super) fn check_room(tx: &Tx<'_>, category: &Category) -> Result<(), OpError> {
    let found: Option<i64> = tx.sql(SELECT_CATEGORY)?.query_row([category], |row| row.get(0)).optional()?;
    if found.is_some() { Ok(()) } else { check_number(tx) }
}

fn check_number(tx: &Tx<'_>) -> Result<(), OpError> {
    let count: usize = tx.sql(COUNT_CATEGORIES)?.query_row([], |row| row.get(0))?;
    if count >= MAX_CATEGORIES { Err(Refusal::TooManyCategories.into()) } else { Ok(()) }
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
            check_number(tx)?;
            tx.sql(INSERT_CATEGORY)?.execute([category])?;
            tx.connection().last_insert_rowid()
        }
    };
    tx.categories().insert(category.clone(), key);
    Ok(key)
}

/// Removes a topic. It is gone for everyone with this commit; its rows go bit by bit ([`super::Prune`]).
#[derive(Clone, Debug)]
pub struct DeleteTopic {
    pub name: TopicName,
}

impl Operation for DeleteTopic {
    type Output = ();

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        let topic = find(tx, &self.name)?.ok_or(Refusal::NotFound("topic"))?;
        let seq: Seq = tx.next_seq();
        tx.sql(DELETE_TOPIC)?.execute(params![topic.key, seq])?;
        tx.change(Change::TopicDeleted { topic: topic.key, seq });
        Ok(())
    }
}

impl Reader<'_> {
    /// One topic; `everyone` is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn topic(&self, name: &TopicName) -> Result<Option<TopicRow>, StoreError> {
        Ok(self.sql(SELECT_TOPIC)?.query_row([name], topic).optional()?)
    }

    /// Topics after a name, in order of their names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn topics(&self, after: &str, limit: usize) -> Result<Vec<TopicRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(self.sql(SELECT_TOPICS)?.query_map(params![after, limit], topic)?.collect::<Result<_, _>>()?)
    }
}
