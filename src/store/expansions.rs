//! Deliveries to many, which would hold the writer: a publish to a topic, to everyone or to many users writes one row here,
//! and what it stands for is done behind it, some hundred people a transaction. So is cancelling many.
//!
//! **Invariant**: the row and the rows made of it agree in every commit, so that whoever goes on after a crash leaves nobody
//! out and makes nothing twice.

use rusqlite::{OptionalExtension, Row, params};

use super::commit::Change;
use super::deliveries::{Carrying, Noted, cancel_some};
use super::reader::Reader;
use super::sql::{AsMedia, used_template};
use super::writer::{OpError, Operation, Tx};
use super::{Refusal, StoreError};
use crate::model::{
    Bulk, Category, Hearing, Media, Medium, NotificationId, Seq, Timestamp, TopicKey, UsedTemplate, UserKey,
};

const INSERT_EXPANSION: &str = "
    INSERT INTO expansions
        (notification, kind, seq, topic, media, category, template, upto, created_at, template_version)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, (SELECT last_user FROM log WHERE id = 1), ?8, ?9)";
const INSERT_CANCELLATION: &str = "
    INSERT INTO expansions (notification, kind, seq, media, category, after, upto, reason, created_at)
    VALUES (?1, 4, 0, 0, '', ?2, 0, ?3, ?4) ON CONFLICT DO NOTHING";
const END: &str = "
    UPDATE expansions SET kind = 4, after = 0, reason = ?2 WHERE notification = ?1 AND kind <> 4";
const IS_EXPANDING: &str = "SELECT 1 FROM expansions WHERE notification = ?1 AND kind <> 4";
/// At most: numbers of those that are done may lie between them.
const COUNT_EXPANSIONS: &str = "
    SELECT coalesce((SELECT max(id) FROM expansions) - (SELECT min(id) FROM expansions) + 1, 0)";
const SELECT_FIRST: &str = "
    SELECT id, notification, kind, seq, topic, media, category, template, after, upto, reason, template_version
    FROM expansions ORDER BY id LIMIT 1";
const SELECT_ANY: &str = "SELECT 1 FROM expansions LIMIT 1";
const SELECT_FOLLOWERS: &str = "
    SELECT s.user, EXISTS (SELECT 1 FROM mutes m WHERE m.user = s.user AND m.source = s.source)
    FROM standings s INDEXED BY standings_by_topic
    WHERE s.source = ?1 AND s.source > 0 AND s.user > ?2 AND s.began < ?3 AND s.joined < ?3
      AND (s.parted IS NULL OR s.parted >= ?3)
    ORDER BY s.user LIMIT ?4";
const SELECT_USERS: &str = "
    SELECT u.id, EXISTS (SELECT 1 FROM mutes m WHERE m.user = u.id AND m.source = ?1)
    FROM users u WHERE u.id > ?2 AND u.id <= ?3 AND u.name >= ' ' ORDER BY u.id LIMIT ?4";
const SELECT_NAMED: &str = "
    SELECT user, 0 FROM entries INDEXED BY entries_by_notification WHERE seq = ?1 AND user > ?2 ORDER BY user LIMIT ?3";
const GO_ON: &str = "UPDATE expansions SET after = ?2 WHERE id = ?1";
const DELETE_EXPANSION: &str = "DELETE FROM expansions WHERE id = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    INSERT_EXPANSION,
    INSERT_CANCELLATION,
    END,
    IS_EXPANDING,
    COUNT_EXPANSIONS,
    SELECT_FIRST,
    SELECT_ANY,
    SELECT_FOLLOWERS,
    SELECT_USERS,
    SELECT_NAMED,
    GO_ON,
    DELETE_EXPANSION,
];

/// People whom one publish may reach by media other than the inbox.
pub const MAX_CARRIED: u64 = 200_000;
/// Publishes to many whose deliveries may still have to be made.
pub const MAX_EXPANSIONS: u64 = 100_000;
/// People that one transaction makes deliveries for.
const A_PART: usize = 250;

/// How the kinds of work stand in the database.
const TO_FOLLOWERS: i64 = 1;
const TO_EVERYONE: i64 = 2;
const TO_NAMED: i64 = 3;
const CANCELS: i64 = 4;

/// Whom an expansion reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowd {
    Followers(TopicKey),
    /// With the part of `everyone` that bears the category.
    Everyone(TopicKey),
    Named,
}

/// Whether one more may begin, for so many people.
pub(super) fn check(tx: &Tx<'_>, people: u64) -> Result<(), OpError> {
    if people > MAX_CARRIED {
        return Err(Refusal::TooManyCarried.into());
    }
    let expanding: u64 = tx.sql(COUNT_EXPANSIONS)?.query_row([], |row| row.get(0))?;
    if expanding >= MAX_EXPANSIONS { Err(Refusal::TooManyExpansions.into()) } else { Ok(()) }
}

/// Notes that deliveries are to be made for a crowd.
pub(super) fn begin(tx: &mut Tx<'_>, carrying: &Carrying<'_>, crowd: Crowd, seq: Seq) -> Result<(), rusqlite::Error> {
    let (kind, topic) = match crowd {
        Crowd::Followers(topic) => (TO_FOLLOWERS, Some(topic)),
        Crowd::Everyone(topic) => (TO_EVERYONE, Some(topic)),
        Crowd::Named => (TO_NAMED, None),
    };
    let Carrying { id, via, template, category, now, .. } = carrying;
    tx.sql(INSERT_EXPANSION)?.execute(params![
        id,
        kind,
        seq,
        topic,
        AsMedia(via),
        category,
        template.map(|used| &used.name),
        now,
        template.and_then(|used| used.version),
    ])?;
    tx.change(Change::Expands);
    Ok(())
}

/// Turns an expansion into the cancelling of what it made. Whether there was one.
pub(super) fn end(tx: &mut Tx<'_>, notification: NotificationId, why: &str) -> Result<bool, rusqlite::Error> {
    let ended = tx.sql(END)?.execute(params![notification, why])? > 0;
    if ended {
        tx.change(Change::Expands);
    }
    Ok(ended)
}

/// Notes that more is to be cancelled than one transaction does.
pub(super) fn cancel_rest(
    tx: &mut Tx<'_>,
    notification: NotificationId,
    after: i64,
    why: &str,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    tx.sql(INSERT_CANCELLATION)?.execute(params![notification, after, why, now])?;
    tx.change(Change::Expands);
    Ok(())
}

/// Does a part of the first expansion.
#[derive(Clone, Debug)]
pub struct Expand {
    pub media: std::sync::Arc<Media>,
    pub now: Timestamp,
}

/// Whether there is more to expand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expanded {
    More,
    All,
}

struct ExpansionRow {
    id: i64,
    notification: NotificationId,
    kind: i64,
    seq: Seq,
    topic: Option<TopicKey>,
    via: Vec<Medium>,
    category: String,
    template: Option<UsedTemplate>,
    after: i64,
    upto: i64,
    reason: Option<String>,
}

fn expansion(row: &Row<'_>) -> Result<ExpansionRow, rusqlite::Error> {
    Ok(ExpansionRow {
        id: row.get(0)?,
        notification: row.get(1)?,
        kind: row.get(2)?,
        seq: row.get(3)?,
        topic: row.get(4)?,
        via: AsMedia::read(row.get(5)?),
        category: row.get(6)?,
        template: used_template(row, 7, 11)?,
        after: row.get(8)?,
        upto: row.get(9)?,
        reason: row.get(10)?,
    })
}

impl Operation for Expand {
    type Output = Expanded;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Expanded, OpError> {
        let Some(row) = tx.sql(SELECT_FIRST)?.query_row([], expansion).optional()? else { return Ok(Expanded::All) };
        let done = match row.kind {
            CANCELS => {
                let why = row.reason.as_deref().unwrap_or_default();
                cancel_some(tx, row.notification, row.after, why, self.now)?
            }
            _ => self.make(tx, &row)?,
        };
        match done {
            Some(after) => tx.sql(GO_ON)?.execute(params![row.id, after])?,
            None => tx.sql(DELETE_EXPANSION)?.execute([row.id])?,
        };
        Ok(Expanded::More)
    }
}

impl Expand {
    /// Makes deliveries for some people; the last of them, where there may be more.
    fn make(&self, tx: &mut Tx<'_>, row: &ExpansionRow) -> Result<Option<i64>, rusqlite::Error> {
        let people = people(tx, row)?;
        let category = Category::new(&row.category).unwrap_or_default();
        let carrying = Carrying {
            id: row.notification,
            via: &row.via,
            template: row.template.as_ref(),
            category: &category,
            bulk: Bulk::Bulk,
            media: &self.media,
            now: self.now,
        };
        let mut noted = Noted::default();
        for (user, hearing) in &people {
            carrying.carry(tx, *user, *hearing, &mut noted)?;
        }
        noted.tell(tx);
        Ok(people.last().map(|(user, _)| user.0).filter(|_| people.len() == A_PART))
    }
}

/// The next people whom an expansion reaches, in order of their numbers.
fn people(tx: &Tx<'_>, row: &ExpansionRow) -> Result<Vec<(UserKey, Hearing)>, rusqlite::Error> {
    let person = |row: &Row<'_>| {
        let hearing = if row.get(1)? { Hearing::HasMuted } else { Hearing::Listens };
        Ok((row.get(0)?, hearing))
    };
    let ExpansionRow { kind, seq, topic, after, upto, .. } = row;
    match *kind {
        TO_FOLLOWERS => tx.sql(SELECT_FOLLOWERS)?.query_map(params![topic, after, seq, A_PART], person)?.collect(),
        TO_EVERYONE => tx.sql(SELECT_USERS)?.query_map(params![topic, after, upto, A_PART], person)?.collect(),
        _ => tx.sql(SELECT_NAMED)?.query_map(params![seq, after, A_PART], person)?.collect(),
    }
}

impl Reader<'_> {
    /// Whether anything is to be expanded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expands(&self) -> Result<Expanded, StoreError> {
        Ok(if self.sql(SELECT_ANY)?.exists([])? { Expanded::More } else { Expanded::All })
    }

    /// Whether deliveries of a notification are still being made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_expanding(&self, notification: NotificationId) -> Result<bool, StoreError> {
        Ok(self.sql(IS_EXPANDING)?.exists([notification])?)
    }
}
