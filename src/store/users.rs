//! Users, as far as the log needs them: a number, and where `everyone` begins for them. A user is made by being named.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::reader::Reader;
use super::writer::{Need, OpError, Operation, Tx};
use crate::model::{Seq, Timestamp, TopicName, UserId, UserKey};

pub(super) const SELECT_USER: &str = "SELECT id FROM users WHERE name = ?1";
const SELECT_EVERYONE_FROM: &str = "SELECT everyone_from, floor FROM users WHERE id = ?1";
const SELECT_NAME: &str = "SELECT name FROM users WHERE id = ?1 AND name >= ' '";
const NEXT_KEY: &str = "UPDATE log SET last_user = last_user + 1 WHERE id = 1 RETURNING last_user";
const INSERT_USER: &str = "INSERT INTO users (id, name, everyone_from, appeared_at) VALUES (?1, ?2, ?3, ?4)";
const COUNT_ALL: &str = "SELECT last_user FROM log WHERE id = 1";
const ANY_EVERYONE: &str = "SELECT EXISTS (SELECT 1 FROM topics WHERE name = ?1)";
/// The first notification at or after a position: one step of the search for a moment.
const NEXT_AT: &str = "SELECT seq, created_at FROM notifications WHERE seq >= ?1 ORDER BY seq LIMIT 1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[SELECT_USER, SELECT_NAME, SELECT_EVERYONE_FROM, NEXT_KEY, INSERT_USER, COUNT_ALL, ANY_EVERYONE, NEXT_AT];

/// A user connects, or is named for the first time: from here on, what reaches `everyone` reaches them.
#[derive(Clone, Debug)]
pub struct Appear {
    pub user: UserId,
    pub now: Timestamp,
    /// How far back `everyone` reaches for someone new.
    pub everyone_horizon: Duration,
}

impl Operation for Appear {
    type Output = UserKey;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<UserKey, OpError> {
        Ok(find_or_add(tx, &self.user, self.now, self.everyone_horizon)?)
    }
}

/// The user's number; a new user is added.
pub(super) fn find_or_add(
    tx: &Tx<'_>,
    user: &UserId,
    now: Timestamp,
    everyone_horizon: Duration,
) -> Result<UserKey, rusqlite::Error> {
    if let Some(key) = find(tx, user)? {
        return Ok(key);
    }
    let from = everyone_from(tx.connection(), tx.head(), now.before(everyone_horizon))?;
    let key: UserKey = tx.sql(NEXT_KEY)?.query_row([], |row| row.get(0))?;
    tx.sql(INSERT_USER)?.execute(params![key, user, from, now])?;
    Ok(key)
}

/// How many users there have ever been.
pub(super) fn count_all(tx: &Tx<'_>) -> Result<u64, rusqlite::Error> {
    tx.sql(COUNT_ALL)?.query_row([], |row| row.get(0))
}

/// The user's number, where there is one.
pub(super) fn find(tx: &Tx<'_>, user: &UserId) -> Result<Option<UserKey>, rusqlite::Error> {
    tx.sql(SELECT_USER)?.query_row([user], |row| row.get(0)).optional()
}

/// The newest position that is older than `moment`, found by halving: positions and times rise together, and an index
/// over times would cost every publish a write. A stepped clock moves the answer by as much as it was stepped.
pub(super) fn everyone_from(connection: &Connection, head: Seq, moment: Timestamp) -> Result<Seq, rusqlite::Error> {
    let any: bool = connection.prepare_cached(ANY_EVERYONE)?.query_row([TopicName::EVERYONE], |row| row.get(0))?;
    if !any {
        return Ok(Seq::ZERO);
    }
    let mut next_at = connection.prepare_cached(NEXT_AT)?;
    // Invariant: everything at or below `older` is older than the moment; the first notification after `newer` is not.
    let (mut older, mut newer) = (0, head.0);
    while older < newer {
        let middle = older + (newer - older).div_ceil(2);
        let found: Option<(Seq, Timestamp)> =
            next_at.query_row([Seq(middle)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            Some((seq, at)) if at < moment => older = seq.0.min(newer),
            _ => newer = middle - 1,
        }
    }
    Ok(Seq(older))
}

impl Reader<'_> {
    /// The users' names, in the same order; `None` for one who was erased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn user_names(&self, users: &[UserKey]) -> Result<Vec<Option<UserId>>, StoreError> {
        let mut statement = self.sql(SELECT_NAME)?;
        let name = |user: &UserKey| statement.query_row([user], |row| row.get(0)).optional();
        Ok(users.iter().map(name).collect::<Result<_, _>>()?)
    }

    /// The user's number, where the user has appeared.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn user(&self, user: &UserId) -> Result<Option<UserKey>, StoreError> {
        Ok(self.sql(SELECT_USER)?.query_row([user], |row| row.get(0)).optional()?)
    }
}

/// Where `everyone` begins for the user, and the floor of the direct entries.
pub(super) fn everyone_and_floor(connection: &Connection, user: UserKey) -> Result<(Seq, Seq), rusqlite::Error> {
    let found = connection
        .prepare_cached(SELECT_EVERYONE_FROM)?
        .query_row([user], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    // Erased since the number was looked up: nothing is theirs.
    Ok(found.unwrap_or((Seq::MAX, Seq::ZERO)))
}
