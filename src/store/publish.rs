//! Publishing: the rows of a notification for those it reaches, now or when its time has come.
//!
//! **Invariant**: what may be refused is checked before anything is written, so that several publishes can share a
//! transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::commit::{Change, Reach};
use super::deaths::{self, Owner};
use super::deliveries::{Carrying, MAX_AT_ONCE, Noted};
use super::expansions::Crowd;
use super::notifications::{self, Record};
use super::writer::{OpError, Operation, Tx};
use super::{IdempotencyKey, Refusal, expansions, letters, schedule, topics, users};
use crate::model::{
    Audience, Bulk, Category, CollapseKey, Content, ContentError, Cursor, Death, Draft, Hearing, Media, Notification,
    NotificationId, Principal, Seq, SourceKey, Tally, Timestamp, TopicKey, TopicName, UserId, UserKey, Via,
};

const INSERT_ENTRY: &str = "INSERT INTO entries (user, source, seq) VALUES (?1, ?2, ?3)";
const COUNT_ENTRY: &str = "
    INSERT INTO standings (user, source, joined, published, newest, unread_gone, unseen_gone, kept)
    VALUES (?1, ?2, 0, 1, ?3, 0, 0, 1)
    ON CONFLICT DO UPDATE SET published = published + 1, newest = excluded.newest, kept = kept + 1
    RETURNING published, unread_gone, unseen_gone";
const COUNT_PUBLISHED: &str = "
    UPDATE topics SET published = published + 1, newest = ?2 WHERE id = ?1 RETURNING published, followers";
const SELECT_COLLAPSED: &str = "SELECT seq FROM collapses WHERE owner = ?1 AND key = ?2";
const COLLAPSE: &str = "
    INSERT INTO collapses (owner, key, seq) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET seq = excluded.seq";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT_ENTRY, COUNT_ENTRY, COUNT_PUBLISHED, SELECT_COLLAPSED, COLLAPSE];

/// What to do with a name nobody has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Make it: a script need not know whether it is the first.
    Create,
    /// Refuse, so that a misspelt name does not vanish into a topic without followers, or an inbox nobody opens, and so that
    /// whoever was erased stays erased.
    Refuse,
}

/// The operator's rules that a publish meets.
#[derive(Clone, Debug)]
pub struct Policy {
    pub topics: Unknown,
    pub users: Unknown,
    /// How far back `everyone` reaches for someone new.
    pub everyone_horizon: Duration,
    /// What carries notifications besides the inbox.
    pub media: Arc<Media>,
}

/// When a notification comes and goes, as moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// `None` is now.
    pub due: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

/// One publish.
#[derive(Clone, Debug)]
pub struct Publish {
    pub id: NotificationId,
    pub draft: Draft,
    /// When it comes and goes, or what is wrong with that. Judged by whoever has the clock, told only where the key has not
    /// been used: what was in time once is answered as it was then.
    pub when: Result<When, Vec<ContentError>>,
    pub publisher: Principal,
    pub idempotency: Option<IdempotencyKey>,
    pub now: Timestamp,
    pub policy: Policy,
}

/// What a publish did, now or when its key was first used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishOutcome {
    pub id: NotificationId,
    pub place: Place,
    /// `None` for everyone, and for one that is scheduled.
    pub recipients: Option<u64>,
    /// Whether this is a stored answer.
    pub replayed: bool,
}

/// Where a publish went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Log(Cursor),
    /// It waits for its time.
    Schedule(Timestamp),
}

impl Operation for Publish {
    type Output = PublishOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<PublishOutcome, OpError> {
        if let Some(key) = &self.idempotency
            && let Some(answer) = key.find(tx)?
        {
            return Ok(answer);
        }
        let when = self.when.clone().map_err(Refusal::Untimely)?;
        let (place, recipients) = match when.due {
            Some(due) => {
                self.outgoing(when).check(tx)?;
                schedule::add(tx, self, due, when.expires_at)?;
                (Place::Schedule(due), None)
            }
            None => {
                let Sent { seq, recipients } = self.outgoing(when).send(tx)?;
                (Place::Log(Cursor { epoch: tx.epoch().clone(), seq }), recipients)
            }
        };
        let outcome = PublishOutcome { id: self.id, place, recipients, replayed: false };
        if let Some(key) = &self.idempotency {
            key.keep(tx, &outcome, self.now)?;
        }
        Ok(outcome)
    }
}

impl Publish {
    pub(super) const fn outgoing(&self, when: When) -> Outgoing<'_> {
        Outgoing {
            id: self.id,
            to: &self.draft.to,
            content: &self.draft.content,
            category_named: self.draft.category_named,
            collapse: self.draft.life.collapse.as_ref(),
            expires_at: when.expires_at,
            publisher: &self.publisher,
            now: self.now,
            policy: &self.policy,
            via: &self.draft.via,
        }
    }
}

/// A notification on its way into the log.
pub(super) struct Outgoing<'o> {
    pub(super) id: NotificationId,
    pub(super) to: &'o Audience,
    pub(super) content: &'o Content,
    pub(super) category_named: bool,
    pub(super) collapse: Option<&'o CollapseKey>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) publisher: &'o Principal,
    pub(super) now: Timestamp,
    pub(super) policy: &'o Policy,
    pub(super) via: &'o Via,
}

/// What was sent, and whom it reached.
pub(super) struct Sent {
    pub(super) seq: Seq,
    pub(super) recipients: Option<u64>,
}

impl Outgoing<'_> {
    /// Whether it could be sent now, as far as its names are concerned.
    pub(super) fn check(&self, tx: &Tx<'_>) -> Result<(), OpError> {
        self.check_carrying(tx)?;
        match self.to {
            Audience::Users(names) => self.check_users(tx, names),
            Audience::Topic(name) => match topics::find(tx, name)? {
                Some(topic) if self.category_named && self.content.category != topic.category => {
                    Err(Refusal::CategoryConflict(topic.category).into())
                }
                None if self.policy.topics == Unknown::Refuse => Err(Refusal::UnknownTopic.into()),
                _ => Ok(()),
            },
            Audience::Everyone => Ok(()),
        }
    }

    /// Whether it is not too much for the media that it is to go by.
    fn check_carrying(&self, tx: &Tx<'_>) -> Result<(), OpError> {
        if self.via.media.is_empty() {
            return Ok(());
        }
        let people = match self.to {
            Audience::Users(names) if names.len() <= MAX_AT_ONCE => return Ok(()),
            Audience::Users(names) => u64::try_from(names.len()).unwrap_or(u64::MAX),
            Audience::Topic(name) => topics::find(tx, name)?.map_or(0, |topic| topic.followers),
            Audience::Everyone => users::count_all(tx)?,
        };
        expansions::check(tx, people)
    }

    fn check_users(&self, tx: &Tx<'_>, names: &[UserId]) -> Result<(), OpError> {
        if self.policy.users == Unknown::Create {
            return Ok(());
        }
        let mut unknown = Vec::new();
        for name in names {
            if users::find(tx, name)?.is_none() {
                unknown.push(name.clone());
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(Refusal::UnknownUsers(unknown).into()) }
    }

    /// Writes it, and ends what it replaces.
    pub(super) fn send(&self, tx: &mut Tx<'_>) -> Result<Sent, OpError> {
        self.check(tx)?;
        match self.to {
            Audience::Users(names) => self.to_users(tx, names),
            Audience::Topic(name) => self.to_topic(tx, name),
            Audience::Everyone => self.to_everyone(tx),
        }
    }

    fn to_users(&self, tx: &mut Tx<'_>, names: &[UserId]) -> Result<Sent, OpError> {
        let category = &self.content.category;
        let category_key = topics::category_key(tx, category)?;
        let seq = tx.next_seq();
        let notification = self.notification(seq, None, category.clone());
        self.insert(tx, &notification, category_key, None)?;
        let source = SourceKey::direct(category_key);
        let mut keys = Vec::with_capacity(names.len());
        let mut replaced: BTreeMap<Seq, Vec<UserKey>> = BTreeMap::new();
        for name in names {
            let user = users::find_or_add(tx, name, self.now, self.policy.everyone_horizon)?;
            tx.sql(INSERT_ENTRY)?.execute(params![user, source, seq])?;
            let tally = tx.sql(COUNT_ENTRY)?.query_row(params![user, source, seq], |row| {
                Ok(Tally {
                    source,
                    own_total: Some(row.get(0)?),
                    unread_gone: row.get(1)?,
                    unseen_gone: row.get(2)?,
                    muted: false,
                })
            })?;
            deaths::stand(tx, user, tally, category.clone(), seq);
            if let Some(older) = self.collapse(tx, Owner::User(user), seq)? {
                replaced.entry(older).or_default().push(user);
            }
            keys.push(user);
        }
        self.carry_to_users(tx, category, &keys, seq)?;
        let recipients = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        tx.change(Change::Published { notification, reach: Reach::Users(keys) });
        if !replaced.is_empty() {
            let died = tx.next_seq();
            for (older, users) in replaced {
                if let Some(dead) = notifications::locate_at(tx.connection(), older)? {
                    deaths::replace_direct(tx, &dead, users, self.id, died, self.now)?;
                }
            }
        }
        Ok(Sent { seq, recipients: Some(recipients) })
    }

    fn to_topic(&self, tx: &mut Tx<'_>, name: &TopicName) -> Result<Sent, OpError> {
        let topic = match topics::find(tx, name)? {
            Some(topic) => topic,
            None => {
                let category = if self.category_named { self.content.category.clone() } else { Category::default() };
                topics::add(tx, name, category, self.now)?
            }
        };
        let (seq, followers) = self.append(tx, topic.key, name.clone(), topic.category.clone())?;
        self.carry_to_crowd(tx, &topic.category, Crowd::Followers(topic.key), seq)?;
        self.replace(tx, Owner::Topic(topic.key), seq)?;
        Ok(Sent { seq, recipients: Some(followers) })
    }

    fn to_everyone(&self, tx: &mut Tx<'_>) -> Result<Sent, OpError> {
        let category = self.content.category.clone();
        let key = topics::everyone(tx, &category, self.now)?;
        let (seq, _) = self.append(tx, key, TopicName::everyone(), category.clone())?;
        self.carry_to_crowd(tx, &category, Crowd::Everyone(key), seq)?;
        self.replace(tx, Owner::Everyone, seq)?;
        Ok(Sent { seq, recipients: None })
    }

    /// Deliveries to users who were named: at once where they are few.
    fn carry_to_users(
        &self,
        tx: &mut Tx<'_>,
        category: &Category,
        users: &[UserKey],
        seq: Seq,
    ) -> Result<(), rusqlite::Error> {
        if users.len() > MAX_AT_ONCE {
            return self.carry_to_crowd(tx, category, Crowd::Named, seq);
        }
        if self.via.media.is_empty() {
            return Ok(());
        }
        letters::keep(tx, self.id, self.via)?;
        let bulk = if users.len() > 1 { Bulk::Bulk } else { Bulk::Personal };
        let carrying = self.carrying(category, bulk);
        let mut noted = Noted::default();
        for user in users {
            carrying.carry(tx, *user, Hearing::Listens, &mut noted)?;
        }
        noted.tell(tx);
        Ok(())
    }

    /// Deliveries to many are made behind this transaction.
    fn carry_to_crowd(
        &self,
        tx: &mut Tx<'_>,
        category: &Category,
        crowd: Crowd,
        seq: Seq,
    ) -> Result<(), rusqlite::Error> {
        if self.via.media.is_empty() {
            return Ok(());
        }
        letters::keep(tx, self.id, self.via)?;
        expansions::begin(tx, &self.carrying(category, Bulk::Bulk), crowd, seq)
    }

    fn carrying<'c>(&'c self, category: &'c Category, bulk: Bulk) -> Carrying<'c> {
        Carrying {
            id: self.id,
            via: &self.via.media,
            template: self.via.template.as_ref(),
            category,
            bulk,
            media: &self.policy.media,
            now: self.now,
        }
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
        let reach = if name.is_everyone() { Reach::Everyone(key) } else { Reach::Topic(key) };
        let notification = self.notification(seq, Some(name.clone()), category.clone());
        self.insert(tx, &notification, category_key, Some((key, total)))?;
        tx.change(Change::Total { topic: key, name, category, total, seq });
        tx.change(Change::Published { notification, reach });
        Ok((seq, followers))
    }

    /// Ends the older entry of the same key. The newer one comes first, so that nobody sees neither.
    fn replace(&self, tx: &mut Tx<'_>, owner: Owner, seq: Seq) -> Result<(), OpError> {
        let Some(older) = self.collapse(tx, owner, seq)? else { return Ok(()) };
        match notifications::locate_at(tx.connection(), older)? {
            Some(dead) if dead.death.is_none() => {
                deaths::kill(tx, &dead, Death::Replaced { by: self.id }, self.now)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes the newest entry of its key; the older one that it replaces, where there is one.
    fn collapse(&self, tx: &Tx<'_>, owner: Owner, seq: Seq) -> Result<Option<Seq>, rusqlite::Error> {
        let Some(key) = self.collapse else { return Ok(None) };
        let wanted = params![owner.column(), key.as_str()];
        let older = tx.sql(SELECT_COLLAPSED)?.query_row(wanted, |row| row.get(0)).optional()?;
        tx.sql(COLLAPSE)?.execute(params![owner.column(), key.as_str(), seq])?;
        Ok(older)
    }

    fn insert(
        &self,
        tx: &Tx<'_>,
        notification: &Notification,
        category: i64,
        topic: Option<(TopicKey, u64)>,
    ) -> Result<(), rusqlite::Error> {
        let Self { collapse, expires_at, publisher, .. } = *self;
        let carried = !self.via.media.is_empty();
        let template = self.via.template.as_ref();
        let record = Record { notification, category, topic, collapse, expires_at, publisher, carried, template };
        notifications::insert(tx, &record)
    }

    fn notification(&self, seq: Seq, topic: Option<TopicName>, category: Category) -> Notification {
        let content = Content { category, ..self.content.clone() };
        Notification { seq, id: self.id, topic, content: Arc::new(content), created_at: self.now }
    }
}
