//! What notifications say in other languages, and what a reader gets of it.
//!
//! Rows hang on the notification's id and go with it by triggers of the schema, whoever takes it.

use rusqlite::{Connection, OptionalExtension, params};

use super::writer::Tx;
use crate::model::{Locale, Notification, NotificationId, UserKey, Wording, Wordings};

const INSERT_WORDING: &str = "
    INSERT INTO wordings (notification, locale, title, body, click) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT DO UPDATE SET title = excluded.title, body = excluded.body, click = excluded.click";
const SELECT_WORDINGS: &str = "SELECT locale, title, body, click FROM wordings WHERE notification = ?1";
const SELECT_WORDING: &str = "SELECT title, body, click FROM wordings WHERE notification = ?1 AND locale = ?2";
const SELECT_READER: &str = "SELECT locale FROM profiles WHERE user = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT_WORDING, SELECT_WORDINGS, SELECT_WORDING, SELECT_READER];

/// Writes them, where there are any.
pub(super) fn keep(tx: &Tx<'_>, id: NotificationId, wordings: &Wordings) -> Result<(), rusqlite::Error> {
    if wordings.is_empty() {
        return Ok(());
    }
    let mut insert = tx.sql(INSERT_WORDING)?;
    for (locale, Wording { title, body, click }) in wordings.iter() {
        insert.execute(params![id, locale, title, body, click])?;
    }
    Ok(())
}

/// All that a notification has.
pub(super) fn load(connection: &Connection, id: NotificationId) -> Result<Wordings, rusqlite::Error> {
    let mut statement = connection.prepare_cached(SELECT_WORDINGS)?;
    let rows = statement.query_map([id], |row| {
        Ok((row.get(0)?, Wording { title: row.get(1)?, body: row.get(2)?, click: row.get(3)? }))
    })?;
    rows.collect()
}

/// One reader of several notifications: their language is looked up once, and only where something has wordings.
pub(super) struct Listener<'c> {
    connection: &'c Connection,
    user: UserKey,
    /// The tags under which a text for them is looked for; `None` is not looked up yet.
    chain: Option<Vec<Locale>>,
}

impl<'c> Listener<'c> {
    pub(super) const fn new(connection: &'c Connection, user: UserKey) -> Self {
        Self { connection, user, chain: None }
    }

    /// The notification as it is told to this reader.
    pub(super) fn told(&mut self, stored: super::notifications::Stored) -> Result<Notification, rusqlite::Error> {
        if !stored.worded {
            return Ok(stored.notification);
        }
        if self.chain.is_none() {
            let locale: Option<Option<Locale>> =
                self.connection.prepare_cached(SELECT_READER)?.query_row([self.user], |row| row.get(0)).optional()?;
            self.chain = Some(locale.flatten().map(|locale| locale.chain()).unwrap_or_default());
        }
        let notification = stored.notification;
        let mut statement = self.connection.prepare_cached(SELECT_WORDING)?;
        for locale in self.chain.iter().flatten() {
            let found = statement
                .query_row(params![notification.id, locale], |row| {
                    Ok(Wording { title: row.get(0)?, body: row.get(1)?, click: row.get(2)? })
                })
                .optional()?;
            if let Some(wording) = found {
                return Ok(notification.worded(&wording));
            }
        }
        Ok(notification)
    }
}
