//! Erasing a user: everything about them, nothing about others, a bounded number of rows in one transaction.
//!
//! What was deleted is overwritten as it goes (`secure_delete`), but copies that SQLite made while it moved rows about
//! may stay in free pages until the file is compacted.

use rusqlite::params;

use super::Refusal;
use super::commit::Change;
use super::schedule;
use super::users;
use super::writer::{OpError, Operation, Tx};
use crate::model::{NotificationId, Seq, UserId, UserKey};

const SELECT_ENTRIES: &str = "SELECT seq FROM entries WHERE user = ?1 LIMIT ?2";
const DELETE_ENTRY: &str = "DELETE FROM entries WHERE user = ?1 AND seq = ?2";
const SELECT_GRAVES: &str = "SELECT seq FROM graves WHERE user = ?1 LIMIT ?2";
const DELETE_GRAVE: &str = "DELETE FROM graves WHERE user = ?1 AND seq = ?2";
const DELETE_UNHELD: &str = "
    DELETE FROM notifications WHERE seq = ?1 AND topic IS NULL
      AND NOT EXISTS (SELECT 1 FROM entries WHERE seq = ?1) AND NOT EXISTS (SELECT 1 FROM graves WHERE seq = ?1)";
const DELETE_MARKS: &str = "
    DELETE FROM marks WHERE (user, source, seq, kind) IN
        (SELECT user, source, seq, kind FROM marks WHERE user = ?1 LIMIT ?2)";
const DELETE_WATERMARKS: &str = "
    DELETE FROM watermarks WHERE (user, category, kind, upto) IN
        (SELECT user, category, kind, upto FROM watermarks WHERE user = ?1 LIMIT ?2)";
/// All follow `everyone`, which counts none.
const UNFOLLOW: &str = "
    UPDATE topics SET followers = followers - 1
    WHERE name <> 'everyone' AND id IN (SELECT source FROM standings WHERE user = ?1 AND source > 0 AND parted IS NULL)";
const DELETE_STANDINGS: &str = "DELETE FROM standings WHERE user = ?1";
const DELETE_MUTES: &str = "DELETE FROM mutes WHERE user = ?1";
const DELETE_COLLAPSES: &str = "DELETE FROM collapses WHERE owner = -?1";
const DELETE_TICKETS: &str = "DELETE FROM tickets WHERE user = ?1";
const DELETE_ANSWERS: &str = "DELETE FROM idempotency WHERE principal_kind = 1 AND principal = ?1";
const SELECT_SCHEDULED: &str = "
    SELECT id, users FROM scheduled WHERE users IS NOT NULL AND instr(users, ?1) > 0";
const SET_SCHEDULED_USERS: &str = "UPDATE scheduled SET users = ?2 WHERE id = ?1";
const SELECT_OWN_SCHEDULED: &str = "SELECT id FROM scheduled WHERE publisher_kind = 1 AND publisher = ?1";
const UNSIGN: &str = "
    UPDATE notifications SET sender = NULL, publisher = NULL, publisher_kind = NULL WHERE seq IN
        (SELECT seq FROM notifications INDEXED BY notifications_by_publisher
         WHERE publisher_kind = 1 AND publisher = ?1 LIMIT ?2)";
const DELETE_USER: &str = "DELETE FROM users WHERE id = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_ENTRIES,
    DELETE_ENTRY,
    SELECT_GRAVES,
    DELETE_GRAVE,
    DELETE_UNHELD,
    DELETE_MARKS,
    DELETE_WATERMARKS,
    UNFOLLOW,
    DELETE_STANDINGS,
    DELETE_MUTES,
    DELETE_COLLAPSES,
    DELETE_TICKETS,
    DELETE_ANSWERS,
    SELECT_SCHEDULED,
    SET_SCHEDULED_USERS,
    SELECT_OWN_SCHEDULED,
    UNSIGN,
    DELETE_USER,
];

/// Rows that one transaction takes at most.
const MAX_TAKEN: usize = 500;

/// Erases a part of what is stored about a user; to be asked again until nothing is left.
#[derive(Clone, Debug)]
pub struct EraseUser {
    pub user: UserId,
}

/// What one part took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedPart {
    pub entries: u64,
    pub notifications: u64,
    pub unsigned: u64,
    /// Whether there is more.
    pub more: bool,
}

impl Operation for EraseUser {
    type Output = ErasedPart;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<ErasedPart, OpError> {
        let key = users::find(tx, &self.user)?.ok_or(Refusal::NotFound("user"))?;
        tx.connection().pragma_update(None, "secure_delete", "ON")?;
        let taken = self.take(tx, key);
        tx.connection().pragma_update(None, "secure_delete", "OFF")?;
        let taken = taken?;
        if !taken.more {
            tx.change(Change::Erased { user: key });
        }
        Ok(taken)
    }
}

impl EraseUser {
    fn take(&self, tx: &Tx<'_>, user: UserKey) -> Result<ErasedPart, OpError> {
        let mut part = ErasedPart { more: true, ..ErasedPart::default() };
        let name = self.user.as_str();
        for (select, delete) in [(SELECT_ENTRIES, DELETE_ENTRY), (SELECT_GRAVES, DELETE_GRAVE)] {
            let held: Vec<Seq> =
                tx.sql(select)?.query_map(params![user, MAX_TAKEN], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for seq in &held {
                tx.sql(delete)?.execute(params![user, seq])?;
                part.notifications += u64::try_from(tx.sql(DELETE_UNHELD)?.execute([seq])?).unwrap_or_default();
            }
            if !held.is_empty() {
                let of_inbox = if select == SELECT_ENTRIES { held.len() } else { 0 };
                part.entries = u64::try_from(of_inbox).unwrap_or_default();
                return Ok(part);
            }
        }
        for sql in [DELETE_MARKS, DELETE_WATERMARKS] {
            if tx.sql(sql)?.execute(params![user, MAX_TAKEN])? > 0 {
                return Ok(part);
            }
        }
        let unsigned = tx.sql(UNSIGN)?.execute(params![name, MAX_TAKEN])?;
        if unsigned > 0 {
            part.unsigned = u64::try_from(unsigned).unwrap_or_default();
            return Ok(part);
        }
        self.forget_scheduled(tx)?;
        tx.sql(UNFOLLOW)?.execute([user])?;
        for sql in [DELETE_STANDINGS, DELETE_MUTES, DELETE_COLLAPSES] {
            tx.sql(sql)?.execute([user])?;
        }
        for sql in [DELETE_TICKETS, DELETE_ANSWERS] {
            tx.sql(sql)?.execute([name])?;
        }
        tx.sql(DELETE_USER)?.execute([user])?;
        part.more = false;
        Ok(part)
    }

    /// Takes the user out of what waits: their own, those to them alone, and their name in others.
    fn forget_scheduled(&self, tx: &Tx<'_>) -> Result<(), OpError> {
        let name = self.user.as_str();
        let own: Vec<NotificationId> =
            tx.sql(SELECT_OWN_SCHEDULED)?.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for id in own {
            schedule::remove(tx, id)?;
        }
        let naming: Vec<(NotificationId, String)> = tx
            .sql(SELECT_SCHEDULED)?
            .query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (id, lines) in naming {
            let others: Vec<UserId> = schedule::names(&lines).into_iter().filter(|user| *user != self.user).collect();
            if others.is_empty() {
                schedule::remove(tx, id)?;
            } else {
                tx.sql(SET_SCHEDULED_USERS)?.execute(params![id, schedule::join(&others)])?;
            }
        }
        Ok(())
    }
}
