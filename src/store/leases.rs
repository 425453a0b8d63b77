//! Leases: who makes an attempt at a delivery, and what came of it.
//!
//! Whoever carries looks at lanes first, which only reads ([`Reader::lanes`]); then one operation settles what has ended and
//! leases what goes next ([`Turn`]), in one commit for all of it. A lease is the number of its attempt: what is settled
//! under another number changes nothing. Where nothing was tried the number is given back with the lease, and the delivery is due
//! since when it was.
//!
//! **Invariant**: a lane's row is never later than the earliest delivery that waits there, so none is overlooked; it may be
//! earlier, which costs one look. **Invariant**: nothing is leased whose notification is dead, nor what the person wants no more.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::commit::OutboxEvent;
use super::deliveries::{MAX_CANCELLED, NOT_KEPT, Noted, TOPIC_DELETED, cancel_one, wait_in_lane, why};
use super::reader::Reader;
use super::writer::{Need, OpError, Operation, Tx};
use super::{StoreError, deaths, letters, profiles};
use crate::model::{
    AttemptOutcome, Bulk, Category, DeliveryId, DeliveryState, Letter, Locale, MUTED, Medium, NotificationId,
    Timestamp, UserId, UserKey, Wish,
};

const SELECT_LANES: &str = "SELECT lane, next_at FROM lanes WHERE medium = ?1 ORDER BY next_at, lane LIMIT ?2";
const SELECT_DUE: &str = "
    SELECT id, next_at FROM deliveries INDEXED BY deliveries_in_lane
    WHERE state = 1 AND medium = ?1 AND lane = ?2 AND next_at <= ?3 ORDER BY next_at LIMIT ?4";
const SELECT_NEXT_IN_LANE: &str = "
    SELECT min(next_at) FROM deliveries INDEXED BY deliveries_in_lane WHERE state = 1 AND medium = ?1 AND lane = ?2";
const SET_LANE: &str = "UPDATE lanes SET next_at = ?3 WHERE medium = ?1 AND lane = ?2";
const DELETE_LANE: &str = "DELETE FROM lanes WHERE medium = ?1 AND lane = ?2";
const SELECT_PARCEL: &str = "
    SELECT d.notification, d.user, u.name, d.address, d.category, d.bulk, d.attempts, d.forgiven, p.locale,
           CASE d.medium WHEN 1 THEN p.email WHEN 2 THEN p.dingtalk END
    FROM deliveries d JOIN users u ON u.id = d.user LEFT JOIN profiles p ON p.user = d.user
    WHERE d.id = ?1 AND u.name >= ' '";
const SELECT_ABOUT: &str = "
    SELECT n.created_at, n.title, n.body, n.click, n.worded, n.death, n.replaced_by, t.deleted,
           EXISTS (SELECT 1 FROM graves g INDEXED BY graves_by_notification WHERE g.seq = n.seq AND g.user = ?2),
           EXISTS (SELECT 1 FROM mutes m WHERE m.user = ?2 AND m.source = n.topic)
    FROM notifications n LEFT JOIN topics t ON t.id = n.topic WHERE n.id = ?1";
const SELECT_WORDING: &str = "SELECT title, body, click FROM wordings WHERE notification = ?1 AND locale = ?2";
const LEASE: &str = "UPDATE deliveries SET state = 2, attempts = attempts + 1, next_at = NULL WHERE id = ?1";
const SELECT_LEASED: &str = "
    SELECT notification, user, medium, lane FROM deliveries WHERE id = ?1 AND state = 2 AND attempts = ?2";
const SETTLE: &str = "
    UPDATE deliveries SET state = ?2, next_at = ?3, reason = ?4, settled_at = ?5 WHERE id = ?1";
const PUT_BACK: &str = "
    UPDATE deliveries SET state = 1, next_at = ?2, reason = ?3, attempts = attempts - 1 WHERE id = ?1";
const INSERT_ATTEMPT: &str = "
    INSERT INTO attempts (delivery, number, at, outcome, answer, next_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const SELECT_ABANDONED: &str = "
    SELECT id, attempts FROM deliveries INDEXED BY deliveries_leased WHERE state = 2 ORDER BY id LIMIT ?1";
const FREE: &str = "
    UPDATE deliveries SET state = 1, next_at = ?2, forgiven = forgiven + 1 WHERE id = ?1";
const IS_OPEN: &str = "
    SELECT EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_leased WHERE state = 2)
        OR EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE state = 1)";
/// Each lane is one step from the one before, however much waits in it.
pub(super) const NEXT_LANE: &str = "
    SELECT lane FROM deliveries INDEXED BY deliveries_in_lane
    WHERE state = 1 AND medium = ?1 AND lane > ?2 ORDER BY lane LIMIT 1";
const PUT_LANE: &str = "
    INSERT INTO lanes (medium, lane, next_at) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET next_at = excluded.next_at";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_LANES,
    SELECT_DUE,
    SELECT_NEXT_IN_LANE,
    SET_LANE,
    DELETE_LANE,
    SELECT_PARCEL,
    SELECT_ABOUT,
    SELECT_WORDING,
    LEASE,
    SELECT_LEASED,
    SETTLE,
    PUT_BACK,
    INSERT_ATTEMPT,
    SELECT_ABANDONED,
    FREE,
    IS_OPEN,
    NEXT_LANE,
    PUT_LANE,
];

/// Leases of an ended process that one transaction frees, and lanes that one finds.
const MAX_FREED: usize = 1_000;
/// What the timeline says of an attempt that nobody knows the end of.
const ABANDONED: &str = "the server ended before an answer came";

/// A lane in which something may wait, and from when on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRow {
    pub lane: String,
    pub next_at: Timestamp,
}

impl Reader<'_> {
    /// Lanes of a medium, those first that wait longest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lanes(&self, medium: Medium, limit: usize) -> Result<Vec<LaneRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let lane = |row: &Row<'_>| Ok(LaneRow { lane: row.get(0)?, next_at: row.get(1)? });
        Ok(self.sql(SELECT_LANES)?.query_map(params![medium, limit], lane)?.collect::<Result<_, _>>()?)
    }

    /// Whether any delivery is not settled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_open_deliveries(&self) -> Result<bool, StoreError> {
        Ok(self.sql(IS_OPEN)?.query_row([], |row| row.get(0))?)
    }
}

/// A lane to lease from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub medium: Medium,
    pub lane: String,
    /// Deliveries at most.
    pub most: usize,
}

/// How an attempt ended, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Sent {
        answer: String,
    },
    Again {
        reason: String,
        next_at: Timestamp,
    },
    /// After an answer that is final, or the last of many that were not.
    Dead {
        reason: String,
        outcome: AttemptOutcome,
    },
    /// Nothing was tried; it is due since this moment, as it was.
    PutBack {
        reason: String,
        due: Timestamp,
    },
}

/// A lease that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub delivery: DeliveryId,
    pub attempt: u32,
    pub verdict: Verdict,
}

/// Settles what has ended and leases what goes next.
#[derive(Clone, Debug)]
pub struct Turn {
    pub endings: Vec<Ending>,
    pub wanted: Vec<Wanted>,
    pub now: Timestamp,
}

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    pub delivery: DeliveryId,
    pub medium: Medium,
    pub lane: String,
    pub address: String,
    pub attempt: u32,
    /// Attempts that the schedule counts, this one included.
    pub tries: u32,
    /// Since when it was due.
    pub due: Timestamp,
    pub notification: NotificationId,
    pub user: UserId,
    pub category: Category,
    pub locale: Option<Locale>,
    /// The language of `letter`, where it is known.
    pub written_in: Option<Locale>,
    pub published_at: Timestamp,
    pub bulk: Bulk,
    pub letter: Letter,
}

impl Operation for Turn {
    type Output = Vec<Leased>;

    // What was sent must be noted, or it is sent twice; where the disk is full, whoever asks wants nothing more.
    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<Leased>, OpError> {
        let mut noted = Noted::default();
        for ending in &self.endings {
            self.settle(tx, ending, &mut noted)?;
        }
        let mut leased = Vec::new();
        for wanted in &self.wanted {
            self.lease(tx, wanted, &mut leased, &mut noted)?;
        }
        noted.tell(tx);
        Ok(leased)
    }
}

impl Turn {
    fn settle(&self, tx: &Tx<'_>, ending: &Ending, noted: &mut Noted) -> Result<(), rusqlite::Error> {
        let Ending { delivery, attempt, verdict } = ending;
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let found: Option<(NotificationId, UserKey, Medium, String)> =
            tx.sql(SELECT_LEASED)?.query_row(params![delivery, attempt], row).optional()?;
        // Erased meanwhile, or leased anew.
        let Some((notification, user, medium, lane)) = found else { return Ok(()) };
        let now = self.now;
        let (outcome, answer, next_at) = match verdict {
            Verdict::Sent { answer } => {
                tx.sql(SETTLE)?.execute(params![delivery, DeliveryState::Sent, None::<i64>, None::<&str>, now])?;
                noted.add(medium, OutboxEvent::Sent);
                (AttemptOutcome::Sent, answer, None)
            }
            Verdict::Dead { reason, outcome } => {
                tx.sql(SETTLE)?.execute(params![delivery, DeliveryState::Dead, None::<i64>, reason, now])?;
                noted.add(medium, OutboxEvent::Dead);
                (*outcome, reason, None)
            }
            Verdict::PutBack { reason, due } => {
                tx.sql(PUT_BACK)?.execute(params![delivery, due, reason])?;
                // Behind the lanes that wait already, as one that was served.
                wait_in_lane(tx, medium, &lane, now.max(*due))?;
                noted.add(medium, OutboxEvent::PutBack);
                return Ok(());
            }
            Verdict::Again { reason, next_at } => match gone(tx.connection(), notification, user)? {
                Some(gone) => {
                    tx.sql(SETTLE)?.execute(params![delivery, DeliveryState::Cancelled, None::<i64>, gone, now])?;
                    noted.add(medium, OutboxEvent::Cancelled);
                    (AttemptOutcome::Later, reason, None)
                }
                None => {
                    tx.sql(SETTLE)?.execute(params![delivery, DeliveryState::Pending, next_at, reason, None::<i64>])?;
                    wait_in_lane(tx, medium, &lane, *next_at)?;
                    noted.add(medium, OutboxEvent::Retried);
                    (AttemptOutcome::Later, reason, Some(*next_at))
                }
            },
        };
        tx.sql(INSERT_ATTEMPT)?.execute(params![delivery, attempt, now, outcome, answer, next_at])?;
        Ok(())
    }

    fn lease(
        &self,
        tx: &Tx<'_>,
        wanted: &Wanted,
        leased: &mut Vec<Leased>,
        noted: &mut Noted,
    ) -> Result<(), rusqlite::Error> {
        let Wanted { medium, lane, most } = wanted;
        // What is gone takes nobody's place.
        let (mut left, mut gone) = (*most, 0);
        while left > 0 && gone < MAX_CANCELLED {
            let due: Vec<(DeliveryId, Timestamp)> = tx
                .sql(SELECT_DUE)?
                .query_map(params![medium, lane, self.now, left], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            if due.is_empty() {
                break;
            }
            for (delivery, due) in due {
                match parcel(tx.connection(), delivery, due, wanted)? {
                    Found::Parcel(parcel) => {
                        tx.sql(LEASE)?.execute([delivery])?;
                        leased.push(*parcel);
                        left -= 1;
                    }
                    Found::Gone(why) => {
                        let id = i64::try_from(delivery.0).unwrap_or(i64::MAX);
                        cancel_one(tx, id, *medium, &why, self.now, noted)?;
                        gone += 1;
                    }
                }
            }
        }
        let next: Option<Timestamp> =
            tx.sql(SELECT_NEXT_IN_LANE)?.query_row(params![medium, lane], |row| row.get(0))?;
        match next {
            // Behind the lanes that wait already, however long something has waited in this one.
            Some(next) => tx.sql(SET_LANE)?.execute(params![medium, lane, next.max(self.now)])?,
            None => tx.sql(DELETE_LANE)?.execute(params![medium, lane])?,
        };
        Ok(())
    }
}

enum Found {
    Parcel(Box<Leased>),
    /// Nothing is to be carried any more, and why.
    Gone(Cow<'static, str>),
}

/// A notification that is alive, in its own words.
struct About {
    published_at: Timestamp,
    title: String,
    body: String,
    click: Option<String>,
    worded: bool,
}

/// The notification, or why nothing of it is to be carried to this user any more.
fn about(
    connection: &Connection,
    id: NotificationId,
    user: UserKey,
) -> Result<Result<About, &'static str>, rusqlite::Error> {
    let row = |row: &Row<'_>| {
        let death: Option<u8> = row.get(5)?;
        let (deleted, buried, muted): (Option<i64>, bool, bool) = (row.get(7)?, row.get(8)?, row.get(9)?);
        if deleted.is_some() {
            return Ok(Err(TOPIC_DELETED));
        }
        if let Some(kind) = death {
            return Ok(Err(why(deaths::from_columns(kind, row.get(6)?))));
        }
        if buried {
            return Ok(Err(why(crate::model::Death::Replaced { by: id })));
        }
        if muted {
            return Ok(Err(MUTED));
        }
        Ok(Ok(About {
            published_at: row.get(0)?,
            title: row.get(1)?,
            body: row.get(2)?,
            click: row.get(3)?,
            worded: row.get(4)?,
        }))
    };
    let found = connection.prepare_cached(SELECT_ABOUT)?.query_row(params![id, user], row).optional()?;
    Ok(found.unwrap_or(Err(NOT_KEPT)))
}

/// Why nothing of a notification is to be carried to a user any more, where that is so.
fn gone(connection: &Connection, id: NotificationId, user: UserKey) -> Result<Option<&'static str>, rusqlite::Error> {
    Ok(about(connection, id, user)?.err())
}

/// What goes to whom, read when it goes: what they have said meanwhile counts, and that they have no address any more; where it
/// goes stays as it was.
fn parcel(
    connection: &Connection,
    delivery: DeliveryId,
    due: Timestamp,
    wanted: &Wanted,
) -> Result<Found, rusqlite::Error> {
    let row = |row: &Row<'_>| {
        let attempts: u32 = row.get(6)?;
        let forgiven: u32 = row.get(7)?;
        let (user_key, locale): (UserKey, Option<Locale>) = (row.get(1)?, row.get(8)?);
        let leased = Leased {
            delivery,
            medium: wanted.medium,
            lane: wanted.lane.clone(),
            address: row.get(3)?,
            attempt: attempts + 1,
            tries: (attempts + 1).saturating_sub(forgiven),
            due,
            notification: row.get(0)?,
            user: row.get(2)?,
            category: row.get(4)?,
            locale,
            written_in: None,
            published_at: Timestamp::MAX,
            bulk: row.get(5)?,
            letter: Letter::default(),
        };
        let address_now: Option<String> = row.get(9)?;
        Ok((leased, user_key, address_now))
    };
    let found = connection.prepare_cached(SELECT_PARCEL)?.query_row([delivery], row).optional()?;
    let Some((mut leased, user, address_now)) = found else { return Ok(Found::Gone("the user was erased".into())) };
    let about = match about(connection, leased.notification, user)? {
        Ok(about) => about,
        Err(why) => return Ok(Found::Gone(why.into())),
    };
    let (name, category) = (leased.medium.as_str(), &leased.category);
    if profiles::wants(connection, user, category.as_str(), leased.medium, Wish::Wanted)? == Wish::Unwanted {
        return Ok(Found::Gone(format!("unsubscribed: does not want {name} about {category} any more").into()));
    }
    if address_now.is_none() {
        return Ok(Found::Gone(format!("no {name} address is known any more").into()));
    }
    leased.published_at = about.published_at;
    (leased.letter, leased.written_in) = letter(connection, &leased, about)?;
    Ok(Found::Parcel(Box::new(leased)))
}

/// What is said to the reader, and in which language where that is known: what the template says by the medium, else what the inbox
/// shows.
fn letter(connection: &Connection, leased: &Leased, about: About) -> Result<(Letter, Option<Locale>), rusqlite::Error> {
    let chain = leased.locale.as_ref().map(Locale::chain).unwrap_or_default();
    if let Some((letter, locale)) = letters::find(connection, leased.notification, leased.medium, &chain)? {
        return Ok((Letter { click: letter.click.or(about.click), ..letter }, Some(locale)));
    }
    let mut said = Letter { subject: about.title, text: about.body, click: about.click, ..Letter::default() };
    let mut written_in = None;
    if about.worded {
        let mut statement = connection.prepare_cached(SELECT_WORDING)?;
        for locale in chain {
            let wording = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let found: Option<(String, String, Option<String>)> =
                statement.query_row(params![leased.notification, locale], wording).optional()?;
            if let Some((subject, text, click)) = found {
                said = Letter { subject, text, click: click.or(said.click), ..Letter::default() };
                written_in = Some(locale);
                break;
            }
        }
    }
    if said.subject.trim().is_empty() {
        said.subject = first_line(&said.text);
    }
    Ok((said, written_in))
}

/// Characters of a subject that is taken from the text.
const MAX_SUBJECT_CHARS: usize = 100;

/// What stands for a title where there is none.
fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut subject: String = line.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT_CHARS + 1).collect();
    if subject.chars().count() > MAX_SUBJECT_CHARS {
        subject = subject.chars().take(MAX_SUBJECT_CHARS - 1).chain(['…']).collect();
    }
    subject
}

/// Frees what an ended process had leased, a bounded number at a time.
#[derive(Clone, Copy, Debug)]
pub struct FreeLeases {
    pub now: Timestamp,
}

impl Operation for FreeLeases {
    /// How many leases were freed; none where there are no more.
    type Output = usize;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let abandoned: Vec<(DeliveryId, u32)> =
            tx.sql(SELECT_ABANDONED)?.query_map([MAX_FREED], row)?.collect::<Result<_, _>>()?;
        for (delivery, attempt) in &abandoned {
            let (now, outcome) = (self.now, AttemptOutcome::Unknown);
            tx.sql(INSERT_ATTEMPT)?.execute(params![delivery, attempt, now, outcome, ABANDONED, now])?;
            tx.sql(FREE)?.execute(params![delivery, now])?;
        }
        Ok(abandoned.len())
    }
}

/// Finds lanes of a medium in which something waits, a bounded number at a time.
#[derive(Clone, Debug)]
pub struct FindLanes {
    pub medium: Medium,
    /// Behind this one; empty begins.
    pub after: String,
    pub now: Timestamp,
}

impl Operation for FindLanes {
    /// The last that was found, where there may be more.
    type Output = Option<String>;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Option<String>, OpError> {
        let mut last = self.after.clone();
        for _ in 0..MAX_FREED {
            let next: Option<String> =
                tx.sql(NEXT_LANE)?.query_row(params![self.medium, last], |row| row.get(0)).optional()?;
            let Some(lane) = next else { return Ok(None) };
            tx.sql(PUT_LANE)?.execute(params![self.medium, lane, self.now])?;
            last = lane;
        }
        Ok(Some(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_title_has_its_first_line_as_one() {
        assert_eq!(first_line("\n  Disk full \n/dev/sda1"), "Disk full");
        assert_eq!(first_line(""), "");
        let long = first_line(&"x".repeat(300));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_SUBJECT_CHARS, true));
        assert_eq!(first_line("a\tb"), "ab");
    }
}
