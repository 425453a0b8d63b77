//! Notifications that wait for their time, and the operation that does what is due: deliveries and expiries, in the
//! order of their moments.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::deaths::kill;
use super::notifications::{self, actions, actions_column};
use super::publish::{Outgoing, Policy, Publish, When};
use super::reader::Reader;
use super::sql::{AsMedia, AsPublisher, used_template};
use super::writer::{Need, OpError, Operation, Tx};
use super::{Refusal, StoreError, letters, wordings};
use crate::model::{
    Audience, CollapseKey, Content, Death, Deliver, Draft, Expiry, Life, NotificationId, Principal, Priority, Seq,
    Timestamp, TopicName, UserId, Via,
};
use crate::wire::status::{FailedDelivery, Scheduled};

const INSERT_SCHEDULED: &str = "
    INSERT INTO scheduled
        (id, due, topic, users, category, category_named, priority, title, body, data, icon, click, actions, sender,
         collapse, expires_at, publisher_kind, publisher, created_at, via, template, template_version)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)";
const DELETE_SCHEDULED: &str = "DELETE FROM scheduled WHERE id = ?1";
const COUNT_SCHEDULED: &str = "UPDATE log SET scheduled = scheduled + ?1 WHERE id = 1 RETURNING scheduled";
const SELECT_WAITING: &str = "SELECT scheduled FROM log WHERE id = 1";
const SELECT_SCHEDULED: &str = "
    SELECT id, due, failed, topic, users, category, category_named, priority, title, body, data, icon, click, actions,
           sender, collapse, expires_at, publisher_kind, publisher, created_at, via, template,
           template_version
    FROM scheduled WHERE id = ?1";
const SELECT_PAGE: &str = "
    SELECT id, due, failed, topic, users, category, category_named, priority, title, body, data, icon, click, actions,
           sender, collapse, expires_at, publisher_kind, publisher, created_at, via, template,
           template_version
    FROM scheduled WHERE (due, id) > (?1, ?2) ORDER BY due, id LIMIT ?3";
const NEXT_DELIVERY: &str = "SELECT id, due FROM scheduled WHERE failed IS NULL ORDER BY due, id LIMIT 1";
const NEXT_EXPIRY: &str = "
    SELECT seq, expires_at FROM notifications
    WHERE expires_at IS NOT NULL AND died IS NULL ORDER BY expires_at, seq LIMIT 1";
const PRUNE_FAILED: &str = "
    DELETE FROM scheduled WHERE id IN
        (SELECT id FROM scheduled INDEXED BY scheduled_in_order WHERE due < ?1 AND failed IS NOT NULL ORDER BY due LIMIT ?2)";
const FORGET_EXPIRY: &str = "UPDATE notifications SET expires_at = NULL WHERE seq = ?1";
const FAIL: &str = "UPDATE scheduled SET failed = ?2 WHERE id = ?1";
const POSTPONE: &str = "UPDATE scheduled SET due = ?2 WHERE id = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    INSERT_SCHEDULED,
    DELETE_SCHEDULED,
    COUNT_SCHEDULED,
    SELECT_WAITING,
    SELECT_SCHEDULED,
    SELECT_PAGE,
    NEXT_DELIVERY,
    NEXT_EXPIRY,
    PRUNE_FAILED,
    FORGET_EXPIRY,
    FAIL,
    POSTPONE,
];

/// Notifications that may wait at once, those that failed included.
pub const MAX_SCHEDULED: u64 = 100_000;

/// Inboxes after which one transaction of what is due ends: as many as one publish may reach.
const MAX_TOUCHED: u64 = 10_000;

/// How much later one is tried again whose deliveries to many can't be noted yet: their number falls by itself, and slowly.
const POSTPONED: Duration = Duration::from_secs(30);

/// Puts a publish aside until its time.
pub(super) fn add(
    tx: &mut Tx<'_>,
    publish: &Publish,
    due: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), OpError> {
    check_room(tx)?;
    let (topic, users) = match &publish.draft.to {
        Audience::Users(names) => (None, Some(join(names))),
        Audience::Topic(name) => (Some(name.clone()), None),
        Audience::Everyone => (Some(TopicName::everyone()), None),
    };
    let AsPublisher(publisher_kind, publisher) = AsPublisher::of(&publish.publisher);
    let Draft { content, category_named, life, via, .. } = &publish.draft;
    tx.sql(INSERT_SCHEDULED)?.execute(params![
        publish.id,
        due,
        topic,
        users,
        content.category,
        category_named,
        content.priority.as_u8(),
        content.title,
        content.body,
        content.data,
        content.icon,
        content.click,
        actions_column(&content.actions),
        content.sender,
        life.collapse.as_ref().map(CollapseKey::as_str),
        expires_at,
        publisher_kind,
        publisher,
        publish.now,
        AsMedia(&via.media),
        via.template.as_ref().map(|used| &used.name),
        via.template.as_ref().and_then(|used| used.version),
    ])?;
    wordings::keep(tx, publish.id, &content.wordings)?;
    letters::keep(tx, publish.id, via)?;
    count(tx, 1)
}

/// Whether one more may wait.
pub(super) fn check_room(tx: &Tx<'_>) -> Result<(), OpError> {
    let waiting: u64 = tx.sql(SELECT_WAITING)?.query_row([], |row| row.get(0))?;
    if waiting >= MAX_SCHEDULED { Err(Refusal::TooManyScheduled.into()) } else { Ok(()) }
}

/// A name can't hold a line break, so lines keep them apart.
pub(super) fn join(names: &[UserId]) -> String {
    names.iter().map(UserId::as_str).collect::<Vec<_>>().join("\n")
}

fn count(tx: &Tx<'_>, by: i64) -> Result<(), OpError> {
    tx.sql(COUNT_SCHEDULED)?.query_row([by], |_| Ok(()))?;
    Ok(())
}

/// Takes one out of the schedule. Whether it was there.
pub(super) fn remove(tx: &Tx<'_>, id: NotificationId) -> Result<bool, OpError> {
    let removed = tx.sql(DELETE_SCHEDULED)?.execute([id])? > 0;
    if removed {
        count(tx, -1)?;
    }
    Ok(removed)
}

/// Forgets notifications that could not be delivered, a bounded number at a time.
#[derive(Clone, Copy, Debug)]
pub struct PruneFailed {
    /// Those that were due before this moment.
    pub before: Timestamp,
    pub limit: u32,
}

impl Operation for PruneFailed {
    /// How many were forgotten.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        let forgotten = tx.sql(PRUNE_FAILED)?.execute(params![self.before, self.limit])?;
        count(tx, -i64::try_from(forgotten).unwrap_or_default())?;
        Ok(forgotten)
    }
}

/// A row of the schedule, with who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledRow {
    pub scheduled: Scheduled,
    pub publisher: Principal,
    pub expires_at: Option<Timestamp>,
}

pub(super) fn row(row: &Row<'_>) -> Result<ScheduledRow, rusqlite::Error> {
    let (topic, users): (Option<TopicName>, Option<String>) = (row.get(3)?, row.get(4)?);
    let to = match (topic, users) {
        (Some(topic), _) if topic.is_everyone() => Audience::Everyone,
        (Some(topic), _) => Audience::Topic(topic),
        (None, users) => Audience::Users(names(users.as_deref().unwrap_or_default())),
    };
    let content = Content {
        category: row.get(5)?,
        priority: Priority::new(row.get(7)?).unwrap_or_default(),
        title: row.get(8)?,
        body: row.get(9)?,
        data: row.get(10)?,
        icon: row.get(11)?,
        click: row.get(12)?,
        actions: actions(row.get_ref(13)?.as_str_or_null()?),
        sender: row.get(14)?,
        ..Content::default()
    };
    let (due, expires_at): (Timestamp, Option<Timestamp>) = (row.get(1)?, row.get(16)?);
    let collapse: Option<String> = row.get(15)?;
    let failed: Option<String> = row.get(2)?;
    let life = Life {
        collapse: collapse.as_deref().and_then(CollapseKey::new),
        deliver: Deliver::At(due),
        expiry: expires_at.map(Expiry::At),
    };
    let scheduled = Scheduled {
        id: row.get(0)?,
        due,
        failed: failed.and_then(|text| FailedDelivery::ALL.into_iter().find(|why| why.as_str() == text)),
        to,
        content,
        category_named: row.get(6)?,
        life,
        // The letters are in their table already, by its id.
        via: Via { media: AsMedia::read(row.get(20)?), template: used_template(row, 21, 22)?, ..Via::default() },
        created_at: row.get(19)?,
    };
    Ok(ScheduledRow { scheduled, publisher: AsPublisher(row.get(17)?, row.get(18)?).principal(), expires_at })
}

/// Reads what [`join`] wrote.
pub(super) fn names(lines: &str) -> Vec<UserId> {
    lines.split('\n').filter_map(|name| UserId::new(name).ok()).collect()
}

fn find(connection: &Connection, id: NotificationId) -> Result<Option<ScheduledRow>, rusqlite::Error> {
    let mut found = connection.prepare_cached(SELECT_SCHEDULED)?.query_row([id], row).optional()?;
    if let Some(row) = &mut found {
        row.scheduled.content.wordings = wordings::load(connection, id)?;
    }
    Ok(found)
}

/// Changes one that waits; it keeps its id, who asked for it and when.
#[derive(Clone, Debug)]
pub struct Reschedule {
    pub id: NotificationId,
    pub draft: Draft,
    /// `None` keeps the moment.
    pub due: Option<Timestamp>,
    pub policy: Policy,
}

impl Operation for Reschedule {
    type Output = ScheduledRow;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<ScheduledRow, OpError> {
        let known = find(tx.connection(), self.id)?.ok_or(Refusal::NotScheduled)?;
        let due = self.due.unwrap_or(known.scheduled.due);
        let expires_at = self.draft.life.expiry.map(|expiry| match expiry {
            Expiry::After(span) => due.after(span),
            Expiry::At(at) => at,
        });
        if expires_at.is_some_and(|end| end <= due) {
            return Err(Refusal::ExpiresBeforeDue.into());
        }
        let when = When { due: Some(due), expires_at };
        let publish = Publish {
            id: self.id,
            draft: self.draft.clone(),
            when: Ok(when),
            publisher: known.publisher,
            idempotency: None,
            now: known.scheduled.created_at,
            policy: self.policy.clone(),
        };
        publish.outgoing(when).check(tx)?;
        remove(tx, self.id)?;
        add(tx, &publish, due, expires_at)?;
        Ok(find(tx.connection(), self.id)?.ok_or(Refusal::NotScheduled)?)
    }
}

/// Does what is due, the earliest first.
#[derive(Clone, Debug)]
pub struct SettleDue {
    pub now: Timestamp,
    /// Deliveries and expiries at most, so that the writer is not held.
    pub limit: usize,
    pub policy: Policy,
}

/// What was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub delivered: usize,
    /// Deliveries that were refused.
    pub failed: usize,
    /// Deliveries that are tried again later.
    pub postponed: usize,
    pub expired: usize,
    /// The moment of the next; at or before `now` where the limit was reached.
    pub next: Option<Timestamp>,
}

enum Due {
    Delivery(NotificationId),
    Expiry(Seq),
}

/// What became of a delivery.
enum Came {
    /// It is in the log; how many inboxes it touched.
    Delivered(u64),
    Failed,
    Postponed,
}

impl Operation for SettleDue {
    type Output = Settled;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Settled, OpError> {
        let (mut settled, mut touched) = (Settled::default(), 0);
        while let Some((at, due)) = next(tx.connection())? {
            if at > self.now
                || settled.delivered + settled.failed + settled.postponed + settled.expired >= self.limit
                || touched >= MAX_TOUCHED
            {
                settled.next = Some(at);
                break;
            }
            match due {
                Due::Delivery(id) => match self.deliver(tx, id)? {
                    Came::Delivered(inboxes) => {
                        touched += inboxes;
                        settled.delivered += 1;
                    }
                    Came::Failed => settled.failed += 1,
                    Came::Postponed => settled.postponed += 1,
                },
                Due::Expiry(seq) => {
                    match notifications::locate_at(tx.connection(), seq)? {
                        Some(dead) => {
                            touched += kill(tx, &dead, Death::Expired, self.now)?;
                            settled.expired += 1;
                        }
                        // Its topic was deleted; the row is about to go.
                        None => {
                            tx.sql(FORGET_EXPIRY)?.execute([seq])?;
                        }
                    }
                }
            }
        }
        Ok(settled)
    }
}

impl SettleDue {
    /// Delivers one.
    fn deliver(&self, tx: &mut Tx<'_>, id: NotificationId) -> Result<Came, OpError> {
        let Some(ScheduledRow { scheduled, publisher, expires_at }) = find(tx.connection(), id)? else {
            return Ok(Came::Failed);
        };
        let outgoing = Outgoing {
            id,
            to: &scheduled.to,
            content: &scheduled.content,
            category_named: scheduled.category_named,
            collapse: scheduled.life.collapse.as_ref(),
            expires_at,
            publisher: &publisher,
            now: self.now,
            policy: &self.policy,
            via: &scheduled.via,
        };
        // A refusal here has written nothing; it is kept for whoever asks what became of it.
        match outgoing.send(tx) {
            Ok(_) => {
                remove(tx, id)?;
                Ok(Came::Delivered(match &scheduled.to {
                    Audience::Users(users) => u64::try_from(users.len()).unwrap_or(u64::MAX),
                    Audience::Topic(_) | Audience::Everyone => 1,
                }))
            }
            // Others that are due need not wait for it.
            Err(OpError::Refused(Refusal::TooManyExpansions)) => {
                let later = self.now.after(POSTPONED);
                tracing::warn!(notification = %id, %later, "a scheduled notification waits: too many deliveries to many are being made");
                tx.sql(POSTPONE)?.execute(params![id, later])?;
                Ok(Came::Postponed)
            }
            Err(OpError::Refused(refusal)) => {
                let why = failure(&refusal);
                tracing::warn!(notification = %id, why = why.as_str(), "a scheduled notification could not be delivered");
                tx.sql(FAIL)?.execute(params![id, why.as_str()])?;
                Ok(Came::Failed)
            }
            Err(error) => Err(error),
        }
    }
}

/// Those that a check of names can meet; what else is refused is refused before anything is scheduled.
const fn failure(refusal: &Refusal) -> FailedDelivery {
    match refusal {
        Refusal::CategoryConflict(_) => FailedDelivery::CategoryConflict,
        Refusal::UnknownUsers(_) => FailedDelivery::UnknownUser,
        Refusal::TooManyCategories | Refusal::TooManyCarried => FailedDelivery::TooManyCategories,
        _ => FailedDelivery::UnknownTopic,
    }
}

/// The earliest of what waits; at the same moment what comes goes before what ends.
fn next(connection: &Connection) -> Result<Option<(Timestamp, Due)>, rusqlite::Error> {
    let delivery: Option<(NotificationId, Timestamp)> =
        connection.prepare_cached(NEXT_DELIVERY)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let expiry: Option<(Seq, Timestamp)> =
        connection.prepare_cached(NEXT_EXPIRY)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(match (delivery, expiry) {
        (Some((_, due)), Some((seq, at))) if at < due => Some((at, Due::Expiry(seq))),
        (Some((id, due)), _) => Some((due, Due::Delivery(id))),
        (None, Some((seq, at))) => Some((at, Due::Expiry(seq))),
        (None, None) => None,
    })
}

impl Reader<'_> {
    /// One that waits, or failed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn scheduled(&self, id: NotificationId) -> Result<Option<ScheduledRow>, StoreError> {
        Ok(find(self.connection(), id)?)
    }

    /// Those that wait after a place in the order of their moments.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn scheduled_page(
        &self,
        after: Option<(Timestamp, NotificationId)>,
        limit: usize,
    ) -> Result<Vec<ScheduledRow>, StoreError> {
        let (due, id) = after.unwrap_or((Timestamp::from_millis(i64::MIN), NotificationId(uuid::Uuid::nil())));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.sql(SELECT_PAGE)?;
        Ok(statement.query_map(params![due, id, limit], row)?.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Mail, Media, Medium};
    use crate::store::{Unknown, scratch};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn what_falls_due_while_too_many_deliveries_are_made_is_tried_again_and_holds_up_nothing() {
        let (store, lifecycle, _directory) = scratch::open(NOW).await;
        let media = Media { email: Some(Mail { domain: "a.example".to_owned() }), dingtalk: None };
        let policy =
            Policy { topics: Unknown::Create, users: Unknown::Create, everyone_horizon: HOUR, media: Arc::new(media) };
        let due = NOW.after(HOUR);
        let schedule = |title: &str, media: Vec<Medium>| Publish {
            id: NotificationId(uuid::Uuid::now_v7()),
            draft: Draft {
                to: Audience::Everyone,
                content: Content { title: title.to_owned(), ..Content::default() },
                category_named: false,
                life: Life::default(),
                via: Via { media, ..Via::default() },
            },
            when: Ok(When { due: Some(due), expires_at: None }),
            publisher: Principal::Operator,
            idempotency: None,
            now: NOW,
            policy: policy.clone(),
        };
        let carried = schedule("by mail too", vec![Medium::Email]);
        let id = carried.id;
        store.write(carried).await.expect("is scheduled");
        store.write(schedule("for the inbox", Vec::new())).await.expect("is scheduled");

        // The first and the last of as many as there may be.
        let log = Connection::open(store.path()).expect("the log opens");
        let held = "INSERT INTO expansions (id, notification, kind, seq, media, category, upto, created_at)
                    VALUES (?1, randomblob(16), 4, 0, 0, '', 0, 0)";
        for at in [1, super::super::expansions::MAX_EXPANSIONS] {
            log.execute(held, [at]).expect("is noted");
        }
        let settle = |now| store.write(SettleDue { now, limit: 10, policy: policy.clone() });
        let later = due.after(POSTPONED);
        let settled = settle(due).await.expect("is done");
        assert_eq!(settled, Settled { delivered: 1, postponed: 1, next: Some(later), ..Settled::default() });
        let told = |id| store.read(move |session| session.snapshot(|reader| reader.scheduled(id)));
        let waits = told(id).await.expect("is read").expect("it waits").scheduled;
        assert_eq!((waits.due, waits.failed), (later, None));

        log.execute("DELETE FROM expansions", []).expect("is worked off");
        let settled = settle(later).await.expect("is done");
        assert_eq!(settled, Settled { delivered: 1, ..Settled::default() });
        assert_eq!(told(id).await.expect("is read"), None);
        drop((store, log));
        assert!(lifecycle.core_ended(Duration::from_secs(5)).await, "the writer ends with its last user");
    }
}
