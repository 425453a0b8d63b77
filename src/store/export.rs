//! Reading out everything that is stored about one user.

use rusqlite::{OptionalExtension, params};

use super::StoreError;
use super::notifications;
use super::reader::Reader;
use super::replay;
use super::schedule::{self, ScheduledRow};
use super::sight::Sight;
use super::states::{ALL_CATEGORIES, States};
use super::wordings::Listener;
use crate::model::{
    Audience, Category, EntryState, MarkKind, Notification, NotificationId, Principal, Seq, Timestamp, UserId, UserKey,
};

const SELECT_USER: &str = "SELECT appeared_at FROM users WHERE id = ?1";
const SELECT_WATERMARKS: &str = "
    SELECT w.category, c.name, w.kind, w.upto, w.at FROM watermarks w LEFT JOIN categories c ON c.id = w.category
    WHERE w.user = ?1";
const SELECT_TICKETS: &str = "SELECT created_at, used_at, expires_at FROM tickets WHERE user = ?1";
const SELECT_PUBLISHED: &str = "
    SELECT seq FROM notifications INDEXED BY notifications_by_publisher
    WHERE publisher_kind = 1 AND publisher = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
const SELECT_SCHEDULED: &str = "
    SELECT id, due, failed, topic, users, category, category_named, priority, title, body, data, icon, click, actions,
           sender, collapse, expires_at, publisher_kind, publisher, created_at, via, template,
           template_version
    FROM scheduled
    WHERE id > ?2 AND ((publisher_kind = 1 AND publisher = ?1)
                       OR instr(char(10) || users || char(10), char(10) || ?1 || char(10)) > 0)
    ORDER BY id LIMIT ?3";
const IS_NAMED: &str = "
    SELECT EXISTS (SELECT 1 FROM notifications INDEXED BY notifications_by_publisher
                   WHERE publisher_kind = 1 AND publisher = ?1)
        OR EXISTS (SELECT 1 FROM notifications INDEXED BY notifications_by_sender WHERE sender = ?1)
        OR EXISTS (SELECT 1 FROM tickets WHERE user = ?1)
        OR EXISTS (SELECT 1 FROM scheduled
                   WHERE (publisher_kind = 1 AND publisher = ?1)
                      OR instr(char(10) || users || char(10), char(10) || ?1 || char(10)) > 0)";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[SELECT_USER, SELECT_WATERMARKS, SELECT_TICKETS, SELECT_PUBLISHED, SELECT_SCHEDULED, IS_NAMED];

/// Entries that one page of an export holds.
pub(super) const A_PAGE: usize = 200;

/// A user as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// `None` for one who has no inbox.
    pub appeared_at: Option<Timestamp>,
    /// Category (`None` is all), kind, position and time of each.
    pub watermarks: Vec<(Option<Category>, MarkKind, Seq, Timestamp)>,
    /// Made, first used, run out.
    pub tickets: Vec<(Timestamp, Option<Timestamp>, Timestamp)>,
}

impl Reader<'_> {
    /// Who the user is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn user_row(&self, user: Option<UserKey>, name: &UserId) -> Result<UserRow, StoreError> {
        let appeared_at = self.sql(SELECT_USER)?.query_row([user], |row| row.get(0)).optional()?;
        let watermarks = self
            .sql(SELECT_WATERMARKS)?
            .query_map([user], |row| {
                let scope: i64 = row.get(0)?;
                let category = if scope == ALL_CATEGORIES { None } else { row.get(1)? };
                Ok((category, row.get(2)?, row.get(3)?, row.get(4)?))
            })?
            .collect::<Result<_, _>>()?;
        let tickets = self
            .sql(SELECT_TICKETS)?
            .query_map([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        Ok(UserRow { appeared_at, watermarks, tickets })
    }

    /// A page of the living entries of the user's inbox after a position, oldest first, archived ones too.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn entries_after(&self, sight: &Sight, after: Seq) -> Result<Vec<(Notification, EntryState)>, StoreError> {
        let mut seqs = Vec::new();
        for span in &sight.spans {
            let of_span = replay::entries_between(self.connection(), sight.user, span, after, self.head(), A_PAGE)?;
            seqs.extend(of_span);
        }
        seqs.sort_unstable();
        seqs.truncate(A_PAGE);
        let states = States::load(self.connection(), sight.user, after)?;
        let mut listener = Listener::new(self.connection(), sight.user);
        let mut entries = Vec::with_capacity(seqs.len());
        for seq in seqs {
            if let Some(stored) = notifications::load(self.connection(), seq)? {
                let state = states.of(stored.source, stored.category, seq)?;
                entries.push((listener.told(stored)?, state));
            }
        }
        Ok(entries)
    }

    /// A page of what the user published, after a position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn published_by(&self, name: &UserId, after: Seq) -> Result<Vec<Notification>, StoreError> {
        let seqs: Vec<Seq> = self
            .sql(SELECT_PUBLISHED)?
            .query_map(params![name, after, A_PAGE], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut published = Vec::with_capacity(seqs.len());
        for seq in seqs {
            published.extend(notifications::load(self.connection(), seq)?.map(|stored| stored.notification));
        }
        Ok(published)
    }

    /// A page of what waits by this user, or for this user, after an id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn scheduled_about(
        &self,
        name: &UserId,
        after: Option<NotificationId>,
    ) -> Result<Vec<ScheduledRow>, StoreError> {
        let after = after.unwrap_or(NotificationId(uuid::Uuid::nil()));
        let mut statement = self.sql(SELECT_SCHEDULED)?;
        let rows = statement.query_map(params![name, after, A_PAGE], schedule::row)?;
        let mut rows: Vec<ScheduledRow> = rows.collect::<Result<_, _>>()?;
        for row in &mut rows {
            // The others are nothing of this user's, unless the user named them.
            let own = row.publisher == Principal::User(name.clone());
            if let Audience::Users(users) = &mut row.scheduled.to
                && !own
            {
                users.retain(|user| user == name);
            }
        }
        Ok(rows)
    }

    /// Whether anything outside an inbox bears the name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_named(&self, name: &UserId) -> Result<bool, StoreError> {
        Ok(self.sql(IS_NAMED)?.query_row([name], |row| row.get(0))?)
    }
}
