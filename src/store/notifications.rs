//! Publishing: one row for the notification, however many read it, and one for each user it was sent to directly.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::commit::{Change, Reach, Standing};
use super::writer::{OpError, Operation, Tx};
use super::{IdempotencyKey, Refusal, topics, users};
use crate::model::{
    Action, Audience, Category, Content, Cursor, Draft, Notification, NotificationId, Priority, Seq, SourceKey, Tally,
    Timestamp, TopicKey, TopicName, UserId, UserKey,
};

const INSERT_NOTIFICATION: &str = "
    INSERT INTO notifications
        (seq, id, topic, ordinal, category, priority, title, body, data, icon, click, actions, sender, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
const INSERT_ENTRY: &str = "INSERT INTO entries (user, source, seq) VALUES (?1, ?2, ?3)";
const COUNT_ENTRY: &str = "
    INSERT INTO standings (user, source, joined, published, newest, unread_gone, unseen_gone)
    VALUES (?1, ?2, 0, 1, ?3, 0, 0)
    ON CONFLICT DO UPDATE SET published = published + 1, newest = excluded.newest
    RETURNING published, unread_gone, unseen_gone";
const COUNT_PUBLISHED: &str = "
    UPDATE topics SET published = published + 1, newest = ?2 WHERE id = ?1 RETURNING published, followers";
pub(super) const SELECT_NOTIFICATION: &str = "
    SELECT n.seq, n.id, t.name, c.name, n.priority, n.title, n.body, n.data, n.icon, n.click, n.actions, n.sender,
           n.created_at, n.topic, n.category
    FROM notifications n
    JOIN categories c ON c.id = n.category
    LEFT JOIN topics t ON t.id = n.topic
    WHERE n.seq = ?1";
const SELECT_SEQ: &str = "SELECT seq, topic, category FROM notifications WHERE id = ?1";
const ENTRY_EXISTS: &str = "SELECT 1 FROM entries WHERE user = ?1 AND source = ?2 AND seq = ?3";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[INSERT_NOTIFICATION, INSERT_ENTRY, COUNT_ENTRY, COUNT_PUBLISHED, SELECT_NOTIFICATION, SELECT_SEQ, ENTRY_EXISTS];

/// What to do with a topic nobody has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownTopics {
    /// Make it: a script need not know whether it is the first.
    Create,
    /// Refuse, so that a misspelt name does not vanish into a topic without followers.
    Refuse,
}

/// One publish.
#[derive(Clone, Debug)]
pub struct Publish {
    pub id: NotificationId,
    pub draft: Draft,
    pub idempotency: Option<IdempotencyKey>,
    pub now: Timestamp,
    pub everyone_horizon: Duration,
    pub unknown: UnknownTopics,
}

/// What a publish did, now or when its key was first used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishOutcome {
    pub id: NotificationId,
    pub cursor: Cursor,
    /// `None` for everyone.
    pub recipients: Option<u64>,
    /// Whether this is a stored answer.
    pub replayed: bool,
}

impl Operation for Publish {
    type Output = PublishOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<PublishOutcome, OpError> {
        if let Some(key) = &self.idempotency
            && let Some(answer) = key.find(tx)?
        {
            return Ok(answer);
        }
        let (seq, recipients) = match &self.draft.to {
            Audience::Users(names) => self.to_users(tx, names)?,
            Audience::Topic(name) => self.to_topic(tx, name)?,
            Audience::Everyone => self.to_everyone(tx)?,
        };
        let cursor = Cursor { epoch: tx.epoch().clone(), seq };
        let outcome = PublishOutcome { id: self.id, cursor, recipients, replayed: false };
        if let Some(key) = &self.idempotency {
            key.keep(tx, &outcome, self.now)?;
        }
        Ok(outcome)
    }
}

type Sent = (Seq, Option<u64>);

impl Publish {
    fn to_users(&self, tx: &mut Tx<'_>, names: &[UserId]) -> Result<Sent, OpError> {
        let category = &self.draft.content.category;
        let category_key = topics::category_key(tx, category)?;
        let seq = tx.next_seq();
        let notification = self.notification(seq, None, category.clone());
        insert(tx, &notification, category_key, None)?;
        let source = SourceKey::direct(category_key);
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let user = users::find_or_add(tx, name, self.now, self.everyone_horizon)?;
            tx.sql(INSERT_ENTRY)?.execute(params![user, source, seq])?;
            let tally = tx.sql(COUNT_ENTRY)?.query_row(params![user, source, seq], |row| {
                Ok(Tally { source, own_total: Some(row.get(0)?), unread_gone: row.get(1)?, unseen_gone: row.get(2)? })
            })?;
            let standing = Standing { tally, joined: Seq::ZERO, category: category.clone(), topic: None };
            tx.change(Change::Standing { user, seq, standing });
            keys.push(user);
        }
        let recipients = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        tx.change(Change::Published { notification, reach: Reach::Users(keys) });
        Ok((seq, Some(recipients)))
    }

    fn to_topic(&self, tx: &mut Tx<'_>, name: &TopicName) -> Result<Sent, OpError> {
        let named = self.draft.category_named.then_some(&self.draft.content.category);
        let topic = match topics::find(tx, name)? {
            Some(topic) => topic,
            None if self.unknown == UnknownTopics::Refuse => return Err(Refusal::UnknownTopic.into()),
            None => topics::add(tx, name, named.cloned().unwrap_or_default(), self.now)?,
        };
        if named.is_some_and(|category| *category != topic.category) {
            return Err(Refusal::CategoryConflict(topic.category).into());
        }
        let (seq, followers) = self.append(tx, topic.key, name.clone(), topic.category)?;
        Ok((seq, Some(followers)))
    }

    fn to_everyone(&self, tx: &mut Tx<'_>) -> Result<Sent, OpError> {
        let category = self.draft.content.category.clone();
        let key = topics::everyone(tx, &category, self.now)?;
        let (seq, _) = self.append(tx, key, TopicName::everyone(), category)?;
        Ok((seq, None))
    }

    /// Writes two rows, the notification and the topic's total, however many follow.
    fn append(
        &self,
        tx: &mut Tx<'_>,
        key: TopicKey,
        name: TopicName,
        category: Category,
    ) -> Result<(Seq, u64), OpError> {
        let category_key = topics::category_key(tx, &category)?;
        let seq = tx.next_seq();
        let (total, followers): (u64, u64) =
            tx.sql(COUNT_PUBLISHED)?.query_row(params![key, seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let reach = if name.is_everyone() { Reach::Everyone } else { Reach::Topic(key) };
        let notification = self.notification(seq, Some(name.clone()), category.clone());
        insert(tx, &notification, category_key, Some((key, total)))?;
        tx.change(Change::Total { topic: key, name, category, total, seq });
        tx.change(Change::Published { notification, reach });
        Ok((seq, followers))
    }

    fn notification(&self, seq: Seq, topic: Option<TopicName>, category: Category) -> Notification {
        let content = Content { category, ..self.draft.content.clone() };
        Notification { seq, id: self.id, topic, content: Arc::new(content), created_at: self.now }
    }
}

fn insert(
    tx: &Tx<'_>,
    notification: &Notification,
    category: i64,
    topic: Option<(TopicKey, u64)>,
) -> Result<(), rusqlite::Error> {
    let Notification { seq, id, content, created_at, .. } = notification;
    tx.sql(INSERT_NOTIFICATION)?.execute(params![
        seq,
        id,
        topic.map(|(key, _)| key),
        topic.map(|(_, ordinal)| ordinal),
        category,
        content.priority.as_u8(),
        content.title,
        content.body,
        content.data,
        content.icon,
        content.click,
        actions_column(&content.actions),
        content.sender,
        created_at,
    ])?;
    Ok(())
}

/// Neither a label nor a link can hold a line break, so lines keep them apart.
fn actions_column(actions: &[Action]) -> Option<String> {
    let lines: Vec<&str> = actions.iter().flat_map(|a| [a.label.as_str(), a.click.as_str()]).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn actions(column: Option<&str>) -> Vec<Action> {
    let lines: Vec<&str> = column.map(|text| text.split('\n').collect()).unwrap_or_default();
    let pairs = lines.chunks_exact(2);
    pairs.map(|pair| Action { label: pair[0].to_owned(), click: pair[1].to_owned() }).collect()
}

/// A notification, with the source it stands in and the number of its category.
pub(super) struct Stored {
    pub(super) notification: Notification,
    pub(super) source: SourceKey,
    pub(super) category: i64,
}

/// The notification at a position, where there is one.
pub(super) fn load(connection: &Connection, seq: Seq) -> Result<Option<Stored>, rusqlite::Error> {
    connection.prepare_cached(SELECT_NOTIFICATION)?.query_row([seq], stored).optional()
}

fn stored(row: &Row<'_>) -> Result<Stored, rusqlite::Error> {
    let content = Content {
        category: row.get(3)?,
        priority: Priority::new(row.get(4)?).unwrap_or_default(),
        title: row.get(5)?,
        body: row.get(6)?,
        data: row.get(7)?,
        icon: row.get(8)?,
        click: row.get(9)?,
        actions: actions(row.get_ref(10)?.as_str_or_null()?),
        sender: row.get(11)?,
    };
    let notification = Notification {
        seq: row.get(0)?,
        id: row.get(1)?,
        topic: row.get(2)?,
        content: Arc::new(content),
        created_at: row.get(12)?,
    };
    let category = row.get(14)?;
    Ok(Stored { notification, source: source(row.get(13)?, category), category })
}

/// Where the notification with this id stands: position, source, number of its category.
pub(super) fn locate(
    connection: &Connection,
    id: NotificationId,
) -> Result<Option<(Seq, SourceKey, i64)>, rusqlite::Error> {
    connection
        .prepare_cached(SELECT_SEQ)?
        .query_row([id], |row| {
            let category = row.get(2)?;
            Ok((row.get(0)?, source(row.get(1)?, category), category))
        })
        .optional()
}

const fn source(topic: Option<TopicKey>, category: i64) -> SourceKey {
    match topic {
        Some(key) => SourceKey::topic(key),
        None => SourceKey::direct(category),
    }
}

/// Whether this user got the notification directly.
pub(super) fn has_entry(
    connection: &Connection,
    user: UserKey,
    source: SourceKey,
    seq: Seq,
) -> Result<bool, rusqlite::Error> {
    connection.prepare_cached(ENTRY_EXISTS)?.exists(params![user, source, seq])
}
