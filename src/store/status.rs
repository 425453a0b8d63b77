//! What became of a notification: whom it reached, and how many of them saw and read it.
//!
//! A topic's entry keeps no count of its readers, since one mark covers thousands of entries. Who asks pays: followers
//! are looked at page by page, each page a short read of its own.

use rusqlite::{OptionalExtension, Row, params};

use super::StoreError;
use super::notifications::{self, Located};
use super::reader::Reader;
use super::sql::AsPublisher;
use super::states;
use crate::model::{EntryState, NotificationId, Principal, Seq, Timestamp, UserKey};
use crate::wire::status::{Engagement, Recipient};

const SELECT_ABOUT: &str = "
    SELECT title, created_at, expires_at, publisher_kind, publisher FROM notifications WHERE seq = ?1";
/// One page of those who follow the topic, or did, and whose follow holds the entry. Who came after the entry
/// had died never had it, and what was marked after that says nothing of it. The plus keeps SQLite from walking through all
/// that a follower ever marked.
const COUNT_FOLLOWERS: &str = "
    SELECT count(*), coalesce(sum(seen), 0), coalesce(sum(read), 0), coalesce(sum(archived), 0), max(user) FROM (
        SELECT s.user AS user,
               coalesce((SELECT m.at IS NOT NULL AND m.changed < ?6 FROM marks m
                         WHERE m.user = s.user AND m.source = ?1 AND m.seq = ?2 AND m.kind = 1),
                        EXISTS (SELECT 1 FROM watermarks w WHERE w.user = s.user AND w.category IN (0, ?3)
                                AND w.kind = 1 AND w.upto >= ?2 AND +w.changed < ?6)) AS seen,
               coalesce((SELECT m.at IS NOT NULL AND m.changed < ?6 FROM marks m
                         WHERE m.user = s.user AND m.source = ?1 AND m.seq = ?2 AND m.kind = 2),
                        EXISTS (SELECT 1 FROM watermarks w WHERE w.user = s.user AND w.category IN (0, ?3)
                                AND w.kind = 2 AND w.upto >= ?2 AND +w.changed < ?6)) AS read,
               coalesce((SELECT m.at IS NOT NULL AND m.changed < ?6 FROM marks m
                         WHERE m.user = s.user AND m.source = ?1 AND m.seq = ?2 AND m.kind = 3),
                        EXISTS (SELECT 1 FROM watermarks w WHERE w.user = s.user AND w.category IN (0, ?3)
                                AND w.kind = 3 AND w.upto >= ?2 AND +w.changed < ?6)) AS archived
        FROM standings s INDEXED BY standings_by_topic
        WHERE s.source = ?1 AND s.source > 0 AND s.user > ?4 AND s.joined < ?2
          AND (s.parted IS NULL OR s.parted >= ?2) AND s.began < ?6
        ORDER BY s.user LIMIT ?5)";
/// One page of those who have appeared, and how many of them `everyone` reached with this entry.
const COUNT_APPEARED: &str = "
    SELECT coalesce(sum(everyone_from < ?1), 0), max(id) FROM
        (SELECT id, everyone_from FROM users WHERE id > ?2 ORDER BY id LIMIT ?3)";
/// Those whose inbox it is in, or was in until it died there.
const SELECT_RECIPIENTS: &str = "
    SELECT u.id, u.name, taken.died
    FROM (SELECT user, ?2 AS died FROM entries WHERE seq = ?1
          UNION ALL SELECT user, died FROM graves WHERE seq = ?1) taken
    JOIN users u ON u.id = taken.user AND u.name >= ' '";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_ABOUT, COUNT_FOLLOWERS, COUNT_APPEARED, SELECT_RECIPIENTS];

/// Users looked at in one read.
const USERS_A_PAGE: u64 = 1_000;

/// A notification, as far as its publisher asks.
#[derive(Clone, Debug)]
pub struct About {
    pub(super) located: Located,
    pub title: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// `None` where it was not kept, or was erased.
    pub publisher: Option<Principal>,
}

impl About {
    pub fn seq(&self) -> Seq {
        self.located.seq
    }

    pub fn topic(&self) -> Option<&crate::model::TopicName> {
        self.located.topic.as_ref()
    }

    pub fn category(&self) -> &crate::model::Category {
        &self.located.category
    }

    pub fn death(&self) -> Option<(Seq, crate::model::Death)> {
        self.located.death
    }
}

/// Whom a count of readers goes through, page by page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readership {
    /// Those whose inbox it is or was in.
    Named,
    /// Those who follow its topic.
    Followers { after: UserKey },
    /// Those who have appeared, for what was sent to everyone.
    Appeared { after: UserKey },
}

impl Reader<'_> {
    /// The notification with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn about(&self, id: NotificationId) -> Result<Option<About>, StoreError> {
        let Some(located) = notifications::locate(self.connection(), id)? else { return Ok(None) };
        let about = |row: &Row<'_>| {
            let publisher = match (row.get(3)?, row.get(4)?) {
                (Some(kind), Some(name)) => Some(AsPublisher(kind, name).principal()),
                _ => None,
            };
            Ok(About {
                located: located.clone(),
                title: row.get(0)?,
                created_at: row.get(1)?,
                expires_at: row.get(2)?,
                publisher,
            })
        };
        Ok(self.sql(SELECT_ABOUT)?.query_row([located.seq], about).optional()?)
    }

    /// Adds one page of readers to what was counted; where the next begins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn engagement(
        &self,
        about: &About,
        page: Readership,
        counted: &mut Engagement,
    ) -> Result<Option<Readership>, StoreError> {
        match page {
            Readership::Named => {
                for Recipient { seen_at, read_at, archived_at, .. } in self.recipients(about)? {
                    counted.recipients += 1;
                    counted.seen += u64::from(seen_at.is_some());
                    counted.read += u64::from(read_at.is_some());
                    counted.archived += u64::from(archived_at.is_some());
                }
                Ok(None)
            }
            Readership::Followers { after } => {
                let next = self.engaged_followers(about, after, counted)?;
                Ok(next.map(|after| Readership::Followers { after }))
            }
            Readership::Appeared { after } => {
                let page = params![about.located.seq, after, USERS_A_PAGE];
                let (reached, last): (u64, Option<UserKey>) =
                    self.sql(COUNT_APPEARED)?.query_row(page, |row| Ok((row.get(0)?, row.get(1)?)))?;
                counted.recipients += reached;
                Ok(last.map(|after| Readership::Appeared { after }))
            }
        }
    }

    fn engaged_followers(
        &self,
        about: &About,
        after: UserKey,
        counted: &mut Engagement,
    ) -> Result<Option<UserKey>, StoreError> {
        let Located { seq, source, category_key, topic, death, .. } = &about.located;
        let died = death.map_or(Seq::MAX, |(died, _)| died);
        let page = params![source, seq, category_key, after, USERS_A_PAGE, died];
        let (users, seen, read, archived, last): (u64, u64, u64, u64, Option<UserKey>) = self
            .sql(COUNT_FOLLOWERS)?
            .query_row(page, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
        // Of everyone only those have a standing who have marked something; all who appeared are counted otherwise.
        if topic.as_ref().is_none_or(|topic| !topic.is_everyone()) {
            counted.recipients += users;
        }
        counted.seen += seen;
        counted.read += read;
        counted.archived += archived;
        Ok(last.filter(|_| users == USERS_A_PAGE))
    }

    /// Who the recipients of a notification to named users are, by name, and what each did with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recipients(&self, about: &About) -> Result<Vec<Recipient>, StoreError> {
        let Located { seq, source, category_key, .. } = about.located;
        let mut statement = self.sql(SELECT_RECIPIENTS)?;
        let mut rows = statement.query(params![seq, Seq::MAX])?;
        let mut recipients = Vec::new();
        while let Some(row) = rows.next()? {
            let (user, died): (UserKey, Seq) = (row.get(0)?, row.get(2)?);
            let state = states::as_of(self.connection(), user, source, category_key, seq, died)?;
            let EntryState { seen_at, read_at, archived_at } = state;
            recipients.push(Recipient { user: row.get(1)?, seen_at, read_at, archived_at });
        }
        recipients.sort_unstable_by(|a, b| a.user.cmp(&b.user));
        Ok(recipients)
    }
}
