//! Deaths: an entry is retracted, expires or is replaced, and leaves lists and counts for good.
//!
//! A topic's entry dies once, however many follow: its row is marked, four counters of dead entries go up, and the topic
//! notes that it shrank, so that standings settled before are counted anew when they are read. A direct entry dies for
//! one user at a time: it moves from `entries` to `graves`, and the user's own counters change with it.
//!
//! **Invariant**: a death takes from the count only of those who had the entry unread, and writes no row per follower.

use rusqlite::{Connection, params};

use super::commit::{Change, Reach, Standing};
use super::notifications::{self, Located};
use super::states::States;
use super::writer::{Need, OpError, Operation, Tx};
use super::{Refusal, deliveries, schedule};
use crate::model::{
    Became, Category, Death, MarkTarget, NotificationId, Seq, StateChange, Tally, Timestamp, TopicKey, UserKey,
};

const MARK_DEAD: &str = "
    UPDATE notifications SET died = ?2, death = ?3, replaced_by = ?4 WHERE seq = ?1 AND died IS NULL
    RETURNING ordinal";
/// What was taken back is taken out of the file too; what is over may still be asked about by its publisher.
const EMPTY: &str = "
    UPDATE notifications SET title = '', body = '', data = NULL, icon = NULL, click = NULL, actions = NULL
    WHERE seq = ?1";
const COUNT_DEAD: &str = "
    INSERT INTO dead_blocks (topic, level, block, dead) VALUES (?1, ?2, ?3, 1) ON CONFLICT DO UPDATE SET dead = dead + 1";
const SHRINK: &str = "UPDATE topics SET shrunk = ?2 WHERE id = ?1";
/// The dead with an ordinal below `?2`, from the widest blocks to the narrowest.
const SELECT_DEAD_BELOW: &str = "
    SELECT coalesce((SELECT sum(dead) FROM dead_blocks WHERE topic = ?1 AND level = 3 AND block < ?2 >> 24), 0)
         + coalesce((SELECT sum(dead) FROM dead_blocks
                     WHERE topic = ?1 AND level = 2 AND block >= (?2 >> 24) << 8 AND block < ?2 >> 16), 0)
         + coalesce((SELECT sum(dead) FROM dead_blocks
                     WHERE topic = ?1 AND level = 1 AND block >= (?2 >> 16) << 8 AND block < ?2 >> 8), 0)
         + coalesce((SELECT sum(dead) FROM dead_blocks
                     WHERE topic = ?1 AND level = 0 AND block >= (?2 >> 8) << 8 AND block < ?2), 0)";
const SELECT_HOLDERS: &str = "SELECT user FROM entries WHERE seq = ?1 ORDER BY user";
const IS_HELD: &str = "SELECT 1 FROM entries WHERE seq = ?1 LIMIT 1";
const DELETE_ENTRY: &str = "DELETE FROM entries WHERE user = ?1 AND source = ?2 AND seq = ?3";
const INSERT_GRAVE: &str = "
    INSERT INTO graves (user, died, source, seq, death, replaced_by, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const UNCOUNT_ENTRY: &str = "
    UPDATE standings SET kept = kept - 1, unread_gone = unread_gone + ?3, unseen_gone = unseen_gone + ?4
    WHERE user = ?1 AND source = ?2 AND joined = 0
    RETURNING published, unread_gone, unseen_gone";
const FORGET_COLLAPSE: &str = "DELETE FROM collapses WHERE owner = ?1 AND key = ?2 AND seq = ?3";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    MARK_DEAD,
    EMPTY,
    COUNT_DEAD,
    SHRINK,
    SELECT_DEAD_BELOW,
    SELECT_HOLDERS,
    IS_HELD,
    DELETE_ENTRY,
    INSERT_GRAVE,
    UNCOUNT_ENTRY,
    FORGET_COLLAPSE,
];

/// Levels of `dead_blocks`; each sums 256 blocks of the one below.
pub(super) const LEVELS: std::ops::Range<u32> = 0..4;
/// Bits that one level takes.
pub(super) const LEVEL_BITS: u32 = 8;

/// How a death stands in the database: a number, and the newer notification where there is one.
pub(super) const fn columns(death: Death) -> (u8, Option<NotificationId>) {
    match death {
        Death::Retracted => (1, None),
        Death::Expired => (2, None),
        Death::Replaced { by } => (3, Some(by)),
    }
}

/// Reads what [`columns`] wrote.
pub(super) fn from_columns(kind: u8, by: Option<NotificationId>) -> Death {
    match (kind, by) {
        (3, Some(by)) => Death::Replaced { by },
        (2, _) => Death::Expired,
        _ => Death::Retracted,
    }
}

/// How many entries of a topic with ordinals in (after, upto] are dead.
pub(super) fn dead_between(
    connection: &Connection,
    topic: TopicKey,
    after: u64,
    upto: u64,
) -> Result<u64, rusqlite::Error> {
    let mut below = connection.prepare_cached(SELECT_DEAD_BELOW)?;
    let mut below = |ordinal: u64| below.query_row(params![topic, ordinal + 1], |row| row.get::<_, u64>(0));
    Ok(below(upto)?.saturating_sub(below(after)?))
}

/// Whose key of collapsing entries it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Topic(TopicKey),
    Everyone,
    User(UserKey),
}

impl Owner {
    pub(super) const fn column(self) -> i64 {
        match self {
            Self::Topic(topic) => topic.0,
            Self::Everyone => 0,
            Self::User(user) => -user.0,
        }
    }
}

/// Ends a notification for all who have it. It must be alive. Returns how many inboxes were touched.
pub(super) fn kill(tx: &mut Tx<'_>, dead: &Located, death: Death, now: Timestamp) -> Result<u64, OpError> {
    if dead.carried {
        deliveries::cancel(tx, dead.id, deliveries::why(death), now)?;
    }
    match dead.source.as_topic() {
        Some(topic) => kill_of_topic(tx, dead, topic, death),
        None => kill_direct(tx, dead, death, now),
    }
}

fn kill_of_topic(tx: &mut Tx<'_>, dead: &Located, topic: TopicKey, death: Death) -> Result<u64, OpError> {
    let died = tx.next_seq();
    let ordinal: Option<u64> = mark_dead(tx, dead.seq, death, died)?;
    let ordinal = ordinal.unwrap_or_default();
    for level in LEVELS {
        tx.sql(COUNT_DEAD)?.execute(params![topic, level, ordinal >> (level * LEVEL_BITS)])?;
    }
    let everyone = dead.topic.as_ref().is_some_and(crate::model::TopicName::is_everyone);
    let owner = if everyone { Owner::Everyone } else { Owner::Topic(topic) };
    forget_collapse(tx, owner, dead)?;
    shrink(tx, topic, died)?;
    let reach = if everyone { Reach::Everyone(topic) } else { Reach::Topic(topic) };
    announce(tx, dead, reach, death, died);
    Ok(1)
}

/// Notes that counters of the topic's followers that were settled before are to be counted anew.
pub(super) fn shrink(tx: &mut Tx<'_>, topic: TopicKey, at: Seq) -> Result<(), rusqlite::Error> {
    tx.sql(SHRINK)?.execute(params![topic, at])?;
    tx.change(Change::Shrunk { topic, seq: at });
    Ok(())
}

fn kill_direct(tx: &mut Tx<'_>, dead: &Located, death: Death, now: Timestamp) -> Result<u64, OpError> {
    let holders: Vec<UserKey> =
        tx.sql(SELECT_HOLDERS)?.query_map([dead.seq], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let died = tx.next_seq();
    for user in &holders {
        bury(tx, *user, dead, death, died, now)?;
    }
    mark_dead(tx, dead.seq, death, died)?;
    let touched = u64::try_from(holders.len()).unwrap_or(u64::MAX);
    announce(tx, dead, Reach::Users(holders), death, died);
    Ok(touched)
}

fn mark_dead(tx: &Tx<'_>, seq: Seq, death: Death, died: Seq) -> Result<Option<u64>, rusqlite::Error> {
    let (kind, by) = columns(death);
    let ordinal = tx.sql(MARK_DEAD)?.query_row(params![seq, died, kind, by], |row| row.get(0))?;
    if death == Death::Retracted {
        tx.sql(EMPTY)?.execute([seq])?;
    }
    Ok(ordinal)
}

/// A newer entry takes the place of an older one in some users' inboxes.
pub(super) fn replace_direct(
    tx: &mut Tx<'_>,
    dead: &Located,
    users: Vec<UserKey>,
    by: NotificationId,
    died: Seq,
    now: Timestamp,
) -> Result<(), OpError> {
    let death = Death::Replaced { by };
    let mut held = Vec::with_capacity(users.len());
    for user in users {
        if notifications::has_entry(tx.connection(), user, dead.source, dead.seq)? {
            held.push(user);
        }
    }
    for user in &held {
        bury(tx, *user, dead, death, died, now)?;
    }
    if dead.carried {
        deliveries::cancel_to(tx, dead.id, &held, deliveries::why(death), now)?;
    }
    if !tx.sql(IS_HELD)?.exists([dead.seq])? {
        mark_dead(tx, dead.seq, death, died)?;
    }
    announce(tx, dead, Reach::Users(held), death, died);
    Ok(())
}

/// Takes an entry out of one user's inbox.
fn bury(
    tx: &mut Tx<'_>,
    user: UserKey,
    dead: &Located,
    death: Death,
    died: Seq,
    now: Timestamp,
) -> Result<(), OpError> {
    let (kind, by) = columns(death);
    tx.sql(INSERT_GRAVE)?.execute(params![user, died, dead.source, dead.seq, kind, by, now])?;
    let tally = take_out(tx, user, dead)?;
    stand(tx, user, tally, dead.category.clone(), died);
    Ok(())
}

/// Takes a direct entry out of lists and counts; returns the user's tally of its source after it.
pub(super) fn take_out(tx: &Tx<'_>, user: UserKey, entry: &Located) -> Result<Tally, rusqlite::Error> {
    let state = States::load(tx.connection(), user, entry.seq)?.of(entry.source, entry.category_key, entry.seq)?;
    tx.sql(DELETE_ENTRY)?.execute(params![user, entry.source, entry.seq])?;
    forget_collapse(tx, Owner::User(user), entry)?;
    let counted = params![user, entry.source, state.is_unread(), state.is_unseen()];
    tx.sql(UNCOUNT_ENTRY)?.query_row(counted, |row| {
        Ok(Tally {
            source: entry.source,
            own_total: Some(row.get(0)?),
            unread_gone: row.get(1)?,
            unseen_gone: row.get(2)?,
            muted: false,
        })
    })
}

/// Tells the commit feed a user's tally of direct entries.
pub(super) fn stand(tx: &mut Tx<'_>, user: UserKey, tally: Tally, category: Category, seq: Seq) {
    let standing = Standing { tally, joined: Seq::ZERO, parted: None, category, topic: None };
    tx.change(Change::Standing { user, seq, standing });
}

fn forget_collapse(tx: &Tx<'_>, owner: Owner, entry: &Located) -> Result<(), rusqlite::Error> {
    if let Some(key) = &entry.collapse {
        tx.sql(FORGET_COLLAPSE)?.execute(params![owner.column(), key, entry.seq])?;
    }
    Ok(())
}

fn announce(tx: &mut Tx<'_>, dead: &Located, reach: Reach, death: Death, died: Seq) {
    let change =
        StateChange { seq: died, became: Became::Dead(death), target: MarkTarget::Ids(vec![dead.id]), category: None };
    tx.change(Change::Died {
        change,
        entry: dead.seq,
        topic: dead.topic.clone(),
        category: dead.category.clone(),
        reach,
    });
}

/// Takes a notification back.
#[derive(Clone, Copy, Debug)]
pub struct Retract {
    pub id: NotificationId,
    pub now: Timestamp,
}

/// What taking it back did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetractOutcome {
    Retracted,
    /// It was scheduled, and will not be delivered.
    Cancelled,
    DeadBefore(Death),
}

impl Operation for Retract {
    type Output = RetractOutcome;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<RetractOutcome, OpError> {
        if schedule::remove(tx, self.id)? {
            return Ok(RetractOutcome::Cancelled);
        }
        let found = notifications::locate(tx.connection(), self.id)?.ok_or(Refusal::NotFound("notification"))?;
        if let Some((_, death)) = found.death {
            return Ok(RetractOutcome::DeadBefore(death));
        }
        kill(tx, &found, Death::Retracted, self.now)?;
        Ok(RetractOutcome::Retracted)
    }
}
