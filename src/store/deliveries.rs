//! Deliveries as they are made, and as they are cancelled: a row for each person and medium that a publish asks for, also
//! where nothing will go, so that it can be told why.
//!
//! Rows to a few named users are written in the transaction of their publish; what is for many is written behind it, from a row
//! that is (`expansions`). **Invariant**: where it goes is read once, here, and does not follow the person's profile.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::commit::{Change, OutboxEvent};
use super::writer::Tx;
use super::{expansions, profiles};
use crate::model::{
    Bulk, Category, Death, DeliveryState, DingTalkId, Email, Hearing, Media, Medium, NotificationId, Timestamp,
    UsedTemplate, UserKey, Wish,
};

const SELECT_ADDRESSES: &str = "SELECT email, dingtalk FROM profiles WHERE user = ?1";
const INSERT_DELIVERY: &str = "
    INSERT INTO deliveries (notification, user, medium, address, lane, category, template, bulk, state, next_at, reason,
                            created_at, settled_at, template_version)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
/// Something waits in a lane from this moment on.
const WAIT_IN_LANE: &str = "
    INSERT INTO lanes (medium, lane, next_at) VALUES (?1, ?2, ?3)
    ON CONFLICT DO UPDATE SET next_at = min(next_at, excluded.next_at)";
const SELECT_PENDING: &str = "
    SELECT id, user, medium FROM deliveries INDEXED BY deliveries_by_notification
    WHERE notification = ?1 AND id > ?2 AND state = 1 ORDER BY id LIMIT ?3";
const CANCEL: &str = "
    UPDATE deliveries SET state = 5, next_at = NULL, reason = ?2, settled_at = ?3 WHERE id = ?1 AND state = 1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_ADDRESSES, INSERT_DELIVERY, WAIT_IN_LANE, SELECT_PENDING, CANCEL];

/// Named users whose deliveries are written in the publish's own transaction; those to more are written behind it.
pub(super) const MAX_AT_ONCE: usize = 256;
/// Deliveries that one transaction cancels at most.
pub(super) const MAX_CANCELLED: usize = 500;

/// Why a delivery is cancelled, for people.
pub(super) const NOT_KEPT: &str = "the notification is not kept any more";
pub(super) const TOPIC_DELETED: &str = "the notification's topic was deleted";

/// Why a death cancels deliveries, for people.
pub(super) const fn why(death: Death) -> &'static str {
    match death {
        Death::Retracted => "the notification was retracted",
        Death::Expired => "the notification has expired",
        Death::Replaced { .. } => "a newer notification took its place",
    }
}

/// What happened to deliveries in one operation, told to the commit feed in one go.
#[derive(Debug, Default)]
pub(super) struct Noted(BTreeMap<(Medium, OutboxEvent), u64>);

impl Noted {
    pub(super) fn add(&mut self, medium: Medium, event: OutboxEvent) {
        *self.0.entry((medium, event)).or_default() += 1;
    }

    pub(super) fn tell(self, tx: &mut Tx<'_>) {
        for ((medium, event), count) in self.0 {
            tx.change(Change::Outbox { medium, event, count });
        }
    }
}

/// A notification whose deliveries are being made.
pub(super) struct Carrying<'c> {
    pub(super) id: NotificationId,
    pub(super) via: &'c [Medium],
    pub(super) template: Option<&'c UsedTemplate>,
    pub(super) category: &'c Category,
    pub(super) bulk: Bulk,
    pub(super) media: &'c Media,
    pub(super) now: Timestamp,
}

impl Carrying<'_> {
    /// Writes what is to go to one person.
    pub(super) fn carry(
        &self,
        tx: &Tx<'_>,
        user: UserKey,
        hearing: Hearing,
        noted: &mut Noted,
    ) -> Result<(), rusqlite::Error> {
        let row = tx.sql(SELECT_ADDRESSES)?.query_row([user], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (email, dingtalk): (Option<Email>, Option<DingTalkId>) = row.unwrap_or_default();
        for medium in self.via {
            let address = match medium {
                Medium::Email => email.as_ref().map(Email::as_str),
                Medium::DingTalk => dingtalk.as_ref().map(DingTalkId::as_str),
                Medium::Webhook => None,
            };
            let about = self.category.as_str();
            let wish = profiles::wants(tx.connection(), user, about, *medium, Wish::Wanted)?;
            let lane = self.media.judge(*medium, self.category, hearing, wish, address);
            let lane = lane.map_err(|skip| skip.reason(*medium, self.category));
            let (state, event) = match lane {
                Ok(_) => (DeliveryState::Pending, OutboxEvent::Pending),
                Err(_) => (DeliveryState::Skipped, OutboxEvent::Skipped),
            };
            tx.sql(INSERT_DELIVERY)?.execute(params![
                self.id,
                user,
                medium,
                address,
                lane.as_deref().unwrap_or_default(),
                self.category,
                self.template.map(|used| &used.name),
                self.bulk,
                state,
                lane.is_ok().then_some(self.now),
                lane.as_ref().err(),
                self.now,
                lane.is_err().then_some(self.now),
                self.template.and_then(|used| used.version),
            ])?;
            noted.add(*medium, event);
            if let Ok(lane) = lane {
                wait_in_lane(tx, *medium, &lane, self.now)?;
            }
        }
        Ok(())
    }
}

/// Notes that something waits in a lane from this moment on.
pub(super) fn wait_in_lane(tx: &Tx<'_>, medium: Medium, lane: &str, from: Timestamp) -> Result<(), rusqlite::Error> {
    tx.sql(WAIT_IN_LANE)?.execute(params![medium, lane, from])?;
    Ok(())
}

/// Cancels what is pending of a notification. Where that is much, the rest goes behind this transaction.
pub(super) fn cancel(
    tx: &mut Tx<'_>,
    notification: NotificationId,
    why: &str,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    // What is still being made ends, and what was made is cancelled behind it.
    if expansions::end(tx, notification, why)? {
        return Ok(());
    }
    if let Some(last) = cancel_some(tx, notification, 0, why, now)? {
        expansions::cancel_rest(tx, notification, last, why, now)?;
    }
    Ok(())
}

/// Cancels some of what is pending behind a delivery; the last of them, where there may be more.
pub(super) fn cancel_some(
    tx: &mut Tx<'_>,
    notification: NotificationId,
    after: i64,
    why: &str,
    now: Timestamp,
) -> Result<Option<i64>, rusqlite::Error> {
    let pending = pending(tx, notification, after, MAX_CANCELLED)?;
    let last = pending.last().map(|(id, ..)| *id).filter(|_| pending.len() == MAX_CANCELLED);
    let mut noted = Noted::default();
    for (id, _, medium) in pending {
        cancel_one(tx, id, medium, why, now, &mut noted)?;
    }
    noted.tell(tx);
    Ok(last)
}

/// Cancels what is pending of a notification to these users, who are no more than one publish names.
pub(super) fn cancel_to(
    tx: &mut Tx<'_>,
    notification: NotificationId,
    users: &[UserKey],
    why: &str,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    let users: HashSet<UserKey> = users.iter().copied().collect();
    let all = crate::model::MAX_RECIPIENTS * Media::KNOWN.len();
    let mut noted = Noted::default();
    for (id, user, medium) in pending(tx, notification, 0, all)? {
        if users.contains(&user) {
            cancel_one(tx, id, medium, why, now, &mut noted)?;
        }
    }
    noted.tell(tx);
    Ok(())
}

fn pending(
    tx: &Tx<'_>,
    notification: NotificationId,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, UserKey, Medium)>, rusqlite::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = tx.sql(SELECT_PENDING)?;
    let rows =
        statement.query_map(params![notification, after, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

/// Cancels one that is pending. Its lane finds out when it is looked at.
pub(super) fn cancel_one(
    tx: &Tx<'_>,
    id: i64,
    medium: Medium,
    why: &str,
    now: Timestamp,
    noted: &mut Noted,
) -> Result<(), rusqlite::Error> {
    if tx.sql(CANCEL)?.execute(params![id, why, now])? > 0 {
        noted.add(medium, OutboxEvent::Cancelled);
    }
    Ok(())
}
