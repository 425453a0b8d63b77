//! The log of deliveries, as those ask who look for what became of one: newest first, each with its attempts; and what an
//! operator does with those that are dead, or too old to be asked about.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::StoreError;
use super::commit::OutboxEvent;
use super::deliveries::{Noted, wait_in_lane};
use super::reader::Reader;
use super::sql::used_template;
use super::writer::{Need, OpError, Operation, Tx};
use crate::model::{Category, DeliveryId, DeliveryState, Media, Medium, NotificationId, Timestamp, UserId, UserKey};
use crate::wire::delivery::{Asked, Attempt, Delivery, Tallied};

const SELECT_OF_NOTIFICATION: &str = "
    SELECT d.id, d.notification, u.name, d.medium, d.address, d.category, d.template, d.state, d.attempts, d.next_at,
           d.reason, d.created_at, d.settled_at, d.template_version
    FROM deliveries d INDEXED BY deliveries_by_notification JOIN users u ON u.id = d.user
    WHERE d.notification = ?1 AND d.id < ?2 ORDER BY d.id DESC LIMIT ?3";
const SELECT_OF_USER: &str = "
    SELECT d.id, d.notification, u.name, d.medium, d.address, d.category, d.template, d.state, d.attempts, d.next_at,
           d.reason, d.created_at, d.settled_at, d.template_version
    FROM deliveries d INDEXED BY deliveries_by_user JOIN users u ON u.id = d.user
    WHERE d.user = ?1 AND d.id < ?2 ORDER BY d.id DESC LIMIT ?3";
/// Between which numbers all deliveries of one notification lie.
const SELECT_STRETCH: &str = "
    SELECT (SELECT min(id) FROM deliveries INDEXED BY deliveries_by_notification WHERE notification = ?1),
           (SELECT max(id) FROM deliveries INDEXED BY deliveries_by_notification WHERE notification = ?1)";
const SELECT_IN_STRETCH: &str = "
    SELECT d.id, d.notification, u.name, d.medium, d.address, d.category, d.template, d.state, d.attempts, d.next_at,
           d.reason, d.created_at, d.settled_at, d.template_version
    FROM deliveries d INDEXED BY deliveries_by_user JOIN users u ON u.id = d.user
    WHERE d.user = ?1 AND d.id >= ?2 AND d.id <= ?3 ORDER BY d.id LIMIT ?4";
const SELECT_DEAD: &str = "
    SELECT d.id, d.notification, u.name, d.medium, d.address, d.category, d.template, d.state, d.attempts, d.next_at,
           d.reason, d.created_at, d.settled_at, d.template_version
    FROM deliveries d INDEXED BY deliveries_dead JOIN users u ON u.id = d.user
    WHERE d.state = 4 AND d.id < ?1 ORDER BY d.id DESC LIMIT ?2";
const SELECT_NEWEST: &str = "
    SELECT d.id, d.notification, u.name, d.medium, d.address, d.category, d.template, d.state, d.attempts, d.next_at,
           d.reason, d.created_at, d.settled_at, d.template_version
    FROM deliveries d JOIN users u ON u.id = d.user WHERE d.id < ?1 ORDER BY d.id DESC LIMIT ?2";
const SELECT_ONE: &str = "
    SELECT d.id, d.notification, u.name, d.medium, d.address, d.category, d.template, d.state, d.attempts, d.next_at,
           d.reason, d.created_at, d.settled_at, d.template_version
    FROM deliveries d JOIN users u ON u.id = d.user WHERE d.id = ?1";
const SELECT_ATTEMPTS: &str = "
    SELECT number, at, outcome, answer, next_at FROM attempts WHERE delivery = ?1 ORDER BY number DESC LIMIT ?2";
const TALLY: &str = "
    SELECT coalesce(sum(state = 1), 0), coalesce(sum(state = 2), 0), coalesce(sum(state = 3), 0),
           coalesce(sum(state = 4), 0), coalesce(sum(state = 5), 0), coalesce(sum(state = 6), 0)
    FROM deliveries INDEXED BY deliveries_by_notification WHERE notification = ?1";
const COUNT_PENDING: &str = "
    SELECT count(*), min(next_at) FROM deliveries INDEXED BY deliveries_due WHERE state = 1 AND medium = ?1";
const SELECT_WAY: &str = "
    SELECT medium, lane, category, address FROM deliveries WHERE id = ?1 AND state = 4 AND address IS NOT NULL";
const RETRY: &str = "
    UPDATE deliveries SET state = 1, next_at = ?2, lane = ?3, forgiven = attempts, settled_at = NULL
    WHERE id = ?1 AND state = 4";
const PRUNE: &str = "
    DELETE FROM deliveries WHERE id IN
        (SELECT id FROM deliveries INDEXED BY deliveries_settled WHERE settled_at < ?1 ORDER BY settled_at LIMIT ?2)";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_OF_NOTIFICATION,
    SELECT_OF_USER,
    SELECT_STRETCH,
    SELECT_IN_STRETCH,
    SELECT_DEAD,
    SELECT_NEWEST,
    SELECT_ONE,
    SELECT_ATTEMPTS,
    TALLY,
    COUNT_PENDING,
    SELECT_WAY,
    RETRY,
    PRUNE,
];

/// Rows that one page looks through for those that were asked for.
pub const MAX_LOOKED_AT: usize = 5_000;
/// Rows that are looked through for those of one notification to one person: what that person got while it went out.
const MAX_OF_ONE: usize = 20_000;
/// Attempts of one delivery that are told, the newest.
const MAX_ATTEMPTS: u32 = 100;

/// Whether what was found is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    All,
    /// There were too many rows to look through.
    Unknown,
}

/// A page of deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryRows {
    pub items: Vec<Delivery>,
    /// Before which the next page begins; `None` at the end.
    pub next: Option<DeliveryId>,
    /// Where the page ended because it had looked through so many: when the last of them was made.
    pub cut: Option<Timestamp>,
}

/// How far times of rows may be out of the order in which they were written: those who ask at the same time are not
/// served in the order of their clocks.
const DISORDER: Duration = Duration::from_mins(1);

/// Whether everything that is asked for was written before what was made then, so that a walk from the newest back may end.
pub(super) fn is_behind(asked: &Asked, made: Timestamp) -> bool {
    asked.since.is_some_and(|since| made < since.before(DISORDER))
}

fn delivery(row: &Row<'_>) -> Result<Delivery, rusqlite::Error> {
    Ok(Delivery {
        id: row.get(0)?,
        notification: row.get(1)?,
        // The name of one who is being erased is none.
        user: row.get::<_, String>(2).map(|name| UserId::new(&name).ok())?,
        medium: row.get(3)?,
        address: row.get(4)?,
        category: row.get(5)?,
        template: used_template(row, 6, 13)?,
        state: row.get(7)?,
        attempts: row.get(8)?,
        next_at: row.get(9)?,
        reason: row.get(10)?,
        created_at: row.get(11)?,
        settled_at: row.get(12)?,
    })
}

impl Reader<'_> {
    /// Deliveries before one, the newest first. It looks through at most [`MAX_LOOKED_AT`] of them, so a page may hold few,
    /// or none, and yet not be the last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deliveries(
        &self,
        asked: &Asked,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<DeliveryRows, StoreError> {
        let before = before.map_or(i64::MAX, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
        let most = i64::try_from(MAX_LOOKED_AT).unwrap_or(i64::MAX);
        let user = match &asked.user {
            None => None,
            Some(name) => match self.user(name)? {
                None => return Ok(DeliveryRows { items: Vec::new(), next: None, cut: None }),
                found => found,
            },
        };
        let mut statement;
        let mut rows = match (&asked.notification, user, asked.state) {
            (_, Some(user), _) => {
                statement = self.sql(SELECT_OF_USER)?;
                statement.query(params![user, before, most])?
            }
            (Some(notification), None, _) => {
                statement = self.sql(SELECT_OF_NOTIFICATION)?;
                statement.query(params![notification, before, most])?
            }
            (None, None, Some(DeliveryState::Dead)) => {
                statement = self.sql(SELECT_DEAD)?;
                statement.query(params![before, most])?
            }
            (None, None, _) => {
                statement = self.sql(SELECT_NEWEST)?;
                statement.query(params![before, most])?
            }
        };
        let (mut items, mut looked_at, mut last, mut made) = (Vec::new(), 0, None, None);
        while let Some(row) = rows.next()? {
            let row = delivery(row)?;
            if is_behind(asked, row.created_at) {
                return Ok(DeliveryRows { items, next: None, cut: None });
            }
            made = Some(row.created_at);
            if asked.is_met(&row) && row.user.is_some() {
                if items.len() == limit {
                    return Ok(DeliveryRows { items, next: last, cut: None });
                }
                last = Some(row.id);
                items.push(row);
            } else {
                last = Some(row.id);
            }
            looked_at += 1;
        }
        let is_cut = looked_at == MAX_LOOKED_AT;
        Ok(DeliveryRows { items, next: last.filter(|_| is_cut), cut: made.filter(|_| is_cut) })
    }

    /// One delivery with its attempts, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError> {
        let found = self.sql(SELECT_ONE)?.query_row([id], delivery).optional()?;
        let Some(found) = found.filter(|found| found.user.is_some()) else { return Ok(None) };
        Ok(Some((found, self.attempts(id)?)))
    }

    /// The newest attempts at a delivery, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn attempts(&self, id: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        let attempt = |row: &Row<'_>| {
            Ok(Attempt {
                number: row.get(0)?,
                at: row.get(1)?,
                outcome: row.get(2)?,
                answer: row.get(3)?,
                next_at: row.get(4)?,
            })
        };
        let mut attempts: Vec<Attempt> =
            self.sql(SELECT_ATTEMPTS)?.query_map(params![id, MAX_ATTEMPTS], attempt)?.collect::<Result<_, _>>()?;
        attempts.reverse();
        Ok(attempts)
    }

    /// The deliveries of one notification to one person, in the order of the media, and whether these are all; `None` where
    /// it has none to anybody. They lie among what the person got while it went out, however much has come since, and of
    /// that a bounded number is looked through.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deliveries_to(
        &self,
        user: Option<UserKey>,
        notification: NotificationId,
    ) -> Result<Option<(Vec<Delivery>, Completeness)>, StoreError> {
        let stretch = self.sql(SELECT_STRETCH)?.query_row([notification], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(first), Some(last)): (Option<DeliveryId>, Option<DeliveryId>) = stretch else { return Ok(None) };
        let Some(user) = user else { return Ok(Some((Vec::new(), Completeness::All))) };
        let most = i64::try_from(MAX_OF_ONE).unwrap_or(i64::MAX);
        let mut statement = self.sql(SELECT_IN_STRETCH)?;
        let mut rows = statement.query(params![user, first, last, most])?;
        let (mut found, mut looked_at) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            looked_at += 1;
            if row.get::<_, NotificationId>(1)? == notification {
                found.push(delivery(row)?);
            }
        }
        found.sort_unstable_by_key(|delivery| delivery.medium);
        let completeness = if looked_at == MAX_OF_ONE { Completeness::Unknown } else { Completeness::All };
        Ok(Some((found, completeness)))
    }

    /// How many deliveries of a notification are in which state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tally_deliveries(&self, notification: NotificationId) -> Result<Tallied, StoreError> {
        let tallied = self.sql(TALLY)?.query_row([notification], |row| {
            Ok(Tallied {
                pending: row.get(0)?,
                leased: row.get(1)?,
                sent: row.get(2)?,
                dead: row.get(3)?,
                cancelled: row.get(4)?,
                skipped: row.get(5)?,
                expanding: false,
            })
        })?;
        Ok(Tallied { expanding: self.is_expanding(notification)?, ..tallied })
    }

    /// How many deliveries wait to be carried by a medium, and from when on the first of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pending(&self, medium: Medium) -> Result<(u64, Option<Timestamp>), StoreError> {
        Ok(self.sql(COUNT_PENDING)?.query_row([medium], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }
}

/// Has dead deliveries tried again, by the whole schedule and by the lane that serves them now. What no lane serves stays dead;
/// what a medium is to carry that is not set up waits until it is.
#[derive(Clone, Debug)]
pub struct Retry {
    pub deliveries: Vec<DeliveryId>,
    pub media: Arc<Media>,
    pub now: Timestamp,
}

impl Operation for Retry {
    /// How many of them were dead and are tried again.
    type Output = u64;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<u64, OpError> {
        let mut noted = Noted::default();
        let mut revived = 0;
        for delivery in &self.deliveries {
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            let found: Option<(Medium, String, Category, String)> =
                tx.sql(SELECT_WAY)?.query_row([delivery], row).optional()?;
            let Some((medium, lane, category, address)) = found else { continue };
            let lane = if self.media.has(medium) { self.media.lane(medium, &category, &address) } else { Some(lane) };
            let Some(lane) = lane else { continue };
            tx.sql(RETRY)?.execute(params![delivery, self.now, lane])?;
            wait_in_lane(tx, medium, &lane, self.now)?;
            noted.add(medium, OutboxEvent::Pending);
            revived += 1;
        }
        noted.tell(tx);
        Ok(revived)
    }
}

/// Forgets deliveries that were settled long ago, a bounded number at a time.
#[derive(Clone, Copy, Debug)]
pub struct PruneDeliveries {
    /// Those that were settled before this moment.
    pub before: Timestamp,
    pub limit: u32,
}

impl Operation for PruneDeliveries {
    /// How many were forgotten.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        Ok(tx.sql(PRUNE)?.execute(params![self.before, self.limit])?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Audience, Content, Draft, Edit, Email, Life, Mail, Principal, ProfileEdit, Via};
    use crate::store::{Ending, Policy, Publish, PutProfile, Turn, Unknown, Verdict, Wanted, When, scratch};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test]
    async fn what_was_settled_long_ago_is_forgotten_with_its_attempts_and_what_waits_is_kept() {
        let (store, lifecycle, _directory) = scratch::open(NOW).await;
        let users: Vec<UserId> = ["alice", "bob"].map(|name| UserId::new(name).expect("a user")).into();
        for user in &users {
            let email = Edit::Set(Email::new(&format!("{user}@a.example")).expect("an address"));
            let edit = ProfileEdit { email, ..ProfileEdit::default() };
            let (unknown, now) = (Unknown::Create, NOW);
            let put = PutProfile { user: user.clone(), edit, unknown, now, everyone_horizon: DAY };
            store.write(put).await.expect("is known");
        }
        let media = Media { email: Some(Mail { domain: "a.example".to_owned() }), dingtalk: None };
        let publish = Publish {
            id: NotificationId(uuid::Uuid::now_v7()),
            draft: Draft {
                to: Audience::Users(users),
                content: Content { title: "x".to_owned(), ..Content::default() },
                category_named: false,
                life: Life::default(),
                via: Via { media: vec![Medium::Email], ..Via::default() },
            },
            when: Ok(When::default()),
            publisher: Principal::Operator,
            idempotency: None,
            now: NOW,
            policy: Policy {
                topics: Unknown::Create,
                users: Unknown::Create,
                everyone_horizon: DAY,
                media: Arc::new(media),
            },
        };
        store.write(publish).await.expect("is published");
        let wanted = vec![Wanted { medium: Medium::Email, lane: "a.example".to_owned(), most: 1 }];
        let turn = |endings, wanted| store.write(Turn { endings, wanted, now: NOW });
        let leased = turn(Vec::new(), wanted).await.expect("is leased");
        let [leased] = &leased[..] else { panic!("{leased:?}") };
        let (delivery, verdict) = (leased.delivery, Verdict::Sent { answer: "250".to_owned() });
        turn(vec![Ending { delivery, attempt: 1, verdict }], Vec::new()).await.expect("is settled");

        let prune = |before| store.write(PruneDeliveries { before, limit: 10 });
        assert_eq!(prune(NOW).await.expect("is done"), 0);
        let told = |id| store.read(move |session| session.snapshot(|reader| reader.delivery(id)));
        assert_eq!(told(delivery).await.expect("is read").map(|(_, attempts)| attempts.len()), Some(1));
        assert_eq!(prune(NOW.after(DAY)).await.expect("is done"), 1);
        assert_eq!(told(delivery).await.expect("is read"), None);
        let (pending, _) =
            store.read(|session| session.snapshot(|reader| reader.pending(Medium::Email))).await.expect("is read");
        assert_eq!(pending, 1);
        drop(store);
        assert!(lifecycle.core_ended(Duration::from_secs(5)).await, "the writer ends with its last user");
    }
}
