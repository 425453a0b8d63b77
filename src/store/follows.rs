//! Who follows a topic, and who has muted one. A follow is an interval of the log: entries after `joined`, up to
//! `parted`, are the user's. Following takes a seq of its own, so that it has its place in the one order, and so does
//! muting, since both change counts.

use std::time::Duration;

use rusqlite::params;

use super::commit::{Change, Standing};
use super::reader::Reader;
use super::sight::{Sight, Span};
use super::states::Watermarks;
use super::topics::{self, TopicRow};
use super::writer::{OpError, Operation, Tx};
use super::{Refusal, StoreError, Unknown, users};
use crate::model::{Category, FollowRule, MarkKind, Seq, SourceKey, Timestamp, TopicKey, TopicName, UserId, UserKey};

const SELECT_FOLLOW: &str = "SELECT joined FROM standings WHERE user = ?1 AND source = ?2 AND parted IS NULL";
const SELECT_LAST_PARTED: &str = "SELECT max(parted) FROM standings WHERE user = ?1 AND source = ?2";
const COUNT_FOLLOWED: &str = "SELECT count(*) FROM standings WHERE user = ?1 AND source > 0 AND parted IS NULL";
const SELECT_NEWEST: &str = "
    SELECT seq FROM notifications WHERE topic = ?1 AND died IS NULL AND seq > ?2 ORDER BY seq DESC LIMIT ?3";
const INSERT_NEW: &str = "INSERT INTO marks (user, source, seq, kind, at, changed) VALUES (?1, ?2, ?3, ?4, NULL, 0)";
const INSERT_FOLLOW: &str = "
    INSERT INTO standings (user, source, joined, unread_gone, unseen_gone, settled, began)
    VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?5)";
const CLOSE_FOLLOW: &str = "
    UPDATE standings SET parted = ?4, published = ?5, unread_gone = ?6, unseen_gone = ?7, settled = ?4
    WHERE user = ?1 AND source = ?2 AND joined = ?3";
const COUNT_FOLLOWER: &str = "UPDATE topics SET followers = followers + ?2 WHERE id = ?1";
const INSERT_MUTE: &str = "INSERT INTO mutes (user, source, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const DELETE_MUTE: &str = "DELETE FROM mutes WHERE user = ?1 AND source = ?2";
const SELECT_FOLLOWERS: &str = "
    SELECT u.name, EXISTS (SELECT 1 FROM mutes m WHERE m.user = u.id AND m.source = ?1)
    FROM users u
    WHERE u.name > ?2
      AND EXISTS (SELECT 1 FROM standings s WHERE s.user = u.id AND s.source = ?1 AND s.parted IS NULL)
    ORDER BY u.name LIMIT ?3";
const SELECT_FOLLOWED: &str = "
    SELECT t.name, c.name, t.follow,
           EXISTS (SELECT 1 FROM standings s WHERE s.user = ?1 AND s.source = t.id AND s.parted IS NULL),
           EXISTS (SELECT 1 FROM mutes m WHERE m.user = ?1 AND m.source = t.id)
    FROM (SELECT source FROM standings WHERE user = ?1 AND source > 0 AND parted IS NULL
          UNION SELECT source FROM mutes WHERE user = ?1) taken
    JOIN topics t ON t.id = taken.source JOIN categories c ON c.id = t.category
    WHERE t.deleted IS NULL AND t.name <> 'everyone'";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_FOLLOW,
    SELECT_LAST_PARTED,
    COUNT_FOLLOWED,
    SELECT_NEWEST,
    INSERT_NEW,
    INSERT_FOLLOW,
    CLOSE_FOLLOW,
    COUNT_FOLLOWER,
    INSERT_MUTE,
    DELETE_MUTE,
    SELECT_FOLLOWERS,
    SELECT_FOLLOWED,
];

/// Topics that one user may follow at once; counts and replay look at each.
pub const MAX_FOLLOWED: u64 = 1_000;

/// Who asks for a follow, or for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// A backend.
    Manager,
    /// The user, which needs an open topic.
    User,
}

/// A user follows a topic, from here on.
#[derive(Clone, Debug)]
pub struct Follow {
    pub topic: TopicName,
    pub user: UserId,
    pub by: AskedBy,
    /// How many of the topic's newest living entries the user begins with.
    pub last: u32,
    pub now: Timestamp,
    pub everyone_horizon: Duration,
    pub unknown: Unknown,
}

/// Whether a follow, its end, or a mute changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowOutcome {
    Changed,
    Unchanged,
}

impl Operation for Follow {
    type Output = FollowOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<FollowOutcome, OpError> {
        let known = topics::find(tx, &self.topic)?;
        match (&known, self.by) {
            (Some(topic), AskedBy::User) if topic.follow == FollowRule::Managed => {
                return Err(Refusal::TopicManaged.into());
            }
            (None, AskedBy::User) => return Err(Refusal::NotFound("topic").into()),
            (None, AskedBy::Manager) if self.unknown == Unknown::Refuse => return Err(Refusal::UnknownTopic.into()),
            _ => {}
        }
        if let (Some(topic), Some(user)) = (&known, users::find(tx, &self.user)?) {
            if tx.sql(SELECT_FOLLOW)?.exists(params![user, topic.key])? {
                return Ok(FollowOutcome::Unchanged);
            }
            let followed: u64 = tx.sql(COUNT_FOLLOWED)?.query_row([user], |row| row.get(0))?;
            if followed >= MAX_FOLLOWED {
                return Err(Refusal::TooManyFollowed.into());
            }
        }
        let topic = match known {
            Some(topic) => topic,
            None => topics::add(tx, &self.topic, Category::default(), self.now)?,
        };
        let user = users::find_or_add(tx, &self.user, self.now, self.everyone_horizon)?;
        self.begin(tx, user, topic)?;
        Ok(FollowOutcome::Changed)
    }
}

impl Follow {
    fn begin(&self, tx: &mut Tx<'_>, user: UserKey, topic: TopicRow) -> Result<(), OpError> {
        let source = SourceKey::topic(topic.key);
        let first = self.first(tx, user, &topic)?;
        let seq = tx.next_seq();
        let joined = first.first().map_or(seq, |oldest| oldest.previous());
        let gone = topic.published - u64::try_from(first.len()).unwrap_or_default();
        tx.sql(INSERT_FOLLOW)?.execute(params![user, topic.key, joined, gone, seq])?;
        tx.sql(COUNT_FOLLOWER)?.execute(params![topic.key, 1])?;
        renew(tx, user, &topic, &first)?;
        tx.change(Change::Followed { user, topic: topic.key, name: topic.name.clone(), seq });
        restate(tx, user, source, seq)?;
        // Behind the standing: totals are kept of topics that somebody online stands in.
        tx.change(Change::Total {
            topic: topic.key,
            name: topic.name,
            category: topic.category,
            total: topic.published,
            seq,
        });
        Ok(())
    }

    /// The entries that the user begins with, oldest first: the newest living ones, none of an interval of before.
    fn first(&self, tx: &Tx<'_>, user: UserKey, topic: &TopicRow) -> Result<Vec<Seq>, rusqlite::Error> {
        let wanted = params![user, SourceKey::topic(topic.key)];
        let parted: Option<Seq> = tx.sql(SELECT_LAST_PARTED)?.query_row(wanted, |row| row.get(0))?;
        let newest = params![topic.key, parted.unwrap_or_default(), self.last];
        let mut first: Vec<Seq> =
            tx.sql(SELECT_NEWEST)?.query_map(newest, |row| row.get(0))?.collect::<Result<_, _>>()?;
        first.reverse();
        Ok(first)
    }
}

/// What the user begins with is new to them, also where "everything up to here" was marked further on: rows of their
/// own say so, which no replay tells, since nobody has been told otherwise.
fn renew(tx: &Tx<'_>, user: UserKey, topic: &TopicRow, first: &[Seq]) -> Result<(), rusqlite::Error> {
    if first.is_empty() {
        return Ok(());
    }
    let watermarks = Watermarks::load(tx.connection(), user)?;
    let source = SourceKey::topic(topic.key);
    for kind in MarkKind::ALL {
        let reach = watermarks.reach(topic.category_key, kind);
        for seq in first.iter().filter(|seq| **seq <= reach) {
            tx.sql(INSERT_NEW)?.execute(params![user, source, seq, kind])?;
        }
    }
    Ok(())
}

/// Tells the commit feed how a user now stands in a topic.
fn restate(tx: &mut Tx<'_>, user: UserKey, source: SourceKey, seq: Seq) -> Result<(), OpError> {
    let sight = Sight::load(tx.connection(), user)?;
    for span in sight.spans.iter().filter(|span| span.source == source) {
        tx.change(Change::Standing { user, seq, standing: Standing::of(span) });
    }
    Ok(())
}

/// A user stops following; what came until now stays in the inbox.
#[derive(Clone, Debug)]
pub struct Unfollow {
    pub topic: TopicName,
    pub user: UserId,
    pub by: AskedBy,
}

impl Operation for Unfollow {
    type Output = FollowOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<FollowOutcome, OpError> {
        let topic = topics::find(tx, &self.topic)?;
        let topic = match self.by {
            AskedBy::Manager => topic.ok_or(Refusal::UnknownTopic)?,
            AskedBy::User => topic.ok_or(Refusal::NotFound("topic"))?,
        };
        if self.by == AskedBy::User && topic.follow == FollowRule::Managed {
            return Err(Refusal::TopicManaged.into());
        }
        let Some(user) = users::find(tx, &self.user)? else { return Ok(FollowOutcome::Unchanged) };
        let source = SourceKey::topic(topic.key);
        let sight = Sight::load(tx.connection(), user)?;
        let open = sight.spans.into_iter().find(|span| span.source == source && span.parted.is_none());
        let Some(Span { joined, tally, .. }) = open else { return Ok(FollowOutcome::Unchanged) };
        let seq = tx.next_seq();
        let row = params![user, topic.key, joined, seq, topic.published, tally.unread_gone, tally.unseen_gone];
        tx.sql(CLOSE_FOLLOW)?.execute(row)?;
        tx.sql(COUNT_FOLLOWER)?.execute(params![topic.key, -1])?;
        tx.change(Change::Left { user, topic: topic.key, seq });
        restate(tx, user, source, seq)?;
        Ok(FollowOutcome::Changed)
    }
}

/// A user takes a topic out of their counts, or back into them.
#[derive(Clone, Debug)]
pub struct Mute {
    pub topic: TopicName,
    pub user: UserId,
    pub mute: Muting,
    pub now: Timestamp,
    pub everyone_horizon: Duration,
}

/// Whether a topic counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muting {
    On,
    Off,
}

impl Operation for Mute {
    type Output = FollowOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<FollowOutcome, OpError> {
        let topic = topics::find(tx, &self.topic)?.ok_or(Refusal::NotFound("topic"))?;
        let user = users::find_or_add(tx, &self.user, self.now, self.everyone_horizon)?;
        let changed = match self.mute {
            Muting::On => tx.sql(INSERT_MUTE)?.execute(params![user, topic.key, self.now])?,
            Muting::Off => tx.sql(DELETE_MUTE)?.execute(params![user, topic.key])?,
        };
        if changed == 0 {
            return Ok(FollowOutcome::Unchanged);
        }
        let seq = tx.next_seq();
        restate(tx, user, SourceKey::topic(topic.key), seq)?;
        Ok(FollowOutcome::Changed)
    }
}

/// A topic as one user stands to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedRow {
    pub topic: TopicName,
    pub category: Category,
    pub follow: FollowRule,
    pub following: bool,
    pub muted: bool,
}

impl Reader<'_> {
    /// Followers of a topic after a name, in order of their names, and whether each has muted it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn followers(&self, topic: TopicKey, after: &str, limit: usize) -> Result<Vec<(UserId, bool)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.sql(SELECT_FOLLOWERS)?;
        let rows = statement.query_map(params![topic, after, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The topics that a user follows or has muted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn followed(&self, user: UserKey) -> Result<Vec<FollowedRow>, StoreError> {
        let mut statement = self.sql(SELECT_FOLLOWED)?;
        let rows = statement.query_map([user], |row| {
            Ok(FollowedRow {
                topic: row.get(0)?,
                category: row.get(1)?,
                follow: row.get(2)?,
                following: row.get(3)?,
                muted: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
