//! Erasing a user: everything about them, nothing about others, a bounded number of rows in one transaction.
//!
//! First goes what bears the name. Then, in one transaction, the name itself, with everything that is counted: from there on
//! nobody finds the user, and one of the same name is someone new. What is left hangs on the number alone, and goes bit by
//! bit; the janitor takes it up where an end of the process cut it short.
//!
//! What was deleted is overwritten as it goes (`secure_delete`), but copies that SQLite made while it moved rows about
//! may stay in free pages until the file is compacted.

use rusqlite::{OptionalExtension, params};

use super::commit::Change;
use super::profiles::{DELETE_PREFERENCES, DELETE_PROFILE};
use super::reader::Reader;
use super::writer::{Need, OpError, Operation, Tx};
use super::{StoreError, schedule, users};
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
const UNSIGN_SENDER: &str = "
    UPDATE notifications SET sender = NULL WHERE seq IN
        (SELECT seq FROM notifications INDEXED BY notifications_by_sender WHERE sender = ?1 LIMIT ?2)";
const UNSIGN_SCHEDULED: &str = "UPDATE scheduled SET sender = NULL WHERE sender = ?1";
/// A name that none can have, and that sorts before all that can.
const FORGET_NAME: &str = "UPDATE users SET name = char(10) || id WHERE id = ?1";
const SELECT_FORGOTTEN: &str = "SELECT id FROM users WHERE name < ' ' LIMIT 1";
/// With their attempts.
const DELETE_DELIVERIES: &str = "
    DELETE FROM deliveries WHERE id IN
        (SELECT id FROM deliveries INDEXED BY deliveries_by_user WHERE user = ?1 ORDER BY id LIMIT ?2)";
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
    UNSIGN_SENDER,
    UNSIGN_SCHEDULED,
    FORGET_NAME,
    SELECT_FORGOTTEN,
    DELETE_DELIVERIES,
    DELETE_USER,
];

/// Rows that one transaction takes at most.
const MAX_TAKEN: usize = 500;

/// Takes a user's name out of everything that bears it, a part at a time; with the last part the user is gone for everybody.
#[derive(Clone, Debug)]
pub struct ForgetUser {
    pub user: UserId,
}

/// How far forgetting a name has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// There is more; so many notifications to others lost the name, or other things did.
    Part { unsigned: u64, others: u64 },
    /// The user is gone; what is left hangs on this number. `None` where none had the name.
    All(Option<UserKey>),
}

impl Operation for ForgetUser {
    type Output = Forgotten;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Forgotten, OpError> {
        let forgotten = overwriting(tx, |tx| self.forget(tx))?;
        if let Forgotten::All(Some(user)) = forgotten {
            tx.change(Change::Erased { user });
        }
        Ok(forgotten)
    }
}

impl ForgetUser {
    fn forget(&self, tx: &Tx<'_>) -> Result<Forgotten, OpError> {
        let name = self.user.as_str();
        for sql in [UNSIGN, UNSIGN_SENDER] {
            let unsigned = tx.sql(sql)?.execute(params![name, MAX_TAKEN])?;
            if unsigned > 0 {
                return Ok(Forgotten::Part { unsigned: u64::try_from(unsigned).unwrap_or(u64::MAX), others: 0 });
            }
        }
        let mut others = self.forget_scheduled(tx)?;
        for sql in [DELETE_TICKETS, DELETE_ANSWERS, UNSIGN_SCHEDULED] {
            others += u64::try_from(tx.sql(sql)?.execute([name])?).unwrap_or_default();
        }
        if others > 0 {
            return Ok(Forgotten::Part { unsigned: 0, others });
        }
        let Some(user) = users::find(tx, &self.user)? else { return Ok(Forgotten::All(None)) };
        tx.sql(UNFOLLOW)?.execute([user])?;
        for sql in [DELETE_PROFILE, DELETE_PREFERENCES, DELETE_STANDINGS, DELETE_MUTES, FORGET_NAME] {
            tx.sql(sql)?.execute([user])?;
        }
        Ok(Forgotten::All(Some(user)))
    }

    /// Takes the user out of what waits: their own, those to them alone, and their name in others. How many those were.
    fn forget_scheduled(&self, tx: &Tx<'_>) -> Result<u64, OpError> {
        let name = self.user.as_str();
        let mut forgotten = 0;
        let own: Vec<NotificationId> =
            tx.sql(SELECT_OWN_SCHEDULED)?.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for id in own {
            schedule::remove(tx, id)?;
            forgotten += 1;
        }
        let naming: Vec<(NotificationId, String)> = tx
            .sql(SELECT_SCHEDULED)?
            .query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (id, lines) in naming {
            let all = schedule::names(&lines);
            let others: Vec<UserId> = all.iter().filter(|user| **user != self.user).cloned().collect();
            if others.len() == all.len() {
                continue;
            }
            forgotten += 1;
            if others.is_empty() {
                schedule::remove(tx, id)?;
            } else {
                tx.sql(SET_SCHEDULED_USERS)?.execute(params![id, schedule::join(&others)])?;
            }
        }
        Ok(forgotten)
    }
}

/// Takes rows that hang on the number of a user who is forgotten, a part at a time.
#[derive(Clone, Copy, Debug)]
pub struct EraseRows {
    pub user: UserKey,
}

/// What one part took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedPart {
    pub entries: u64,
    pub notifications: u64,
    /// Whether there is more.
    pub more: bool,
}

impl Operation for EraseRows {
    type Output = ErasedPart;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<ErasedPart, OpError> {
        overwriting(tx, |tx| self.take(tx))
    }
}

impl EraseRows {
    fn take(self, tx: &Tx<'_>) -> Result<ErasedPart, OpError> {
        let mut part = ErasedPart { more: true, ..ErasedPart::default() };
        for (select, delete) in [(SELECT_ENTRIES, DELETE_ENTRY), (SELECT_GRAVES, DELETE_GRAVE)] {
            let held: Vec<Seq> = tx
                .sql(select)?
                .query_map(params![self.user, MAX_TAKEN], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for seq in &held {
                tx.sql(delete)?.execute(params![self.user, seq])?;
                part.notifications += u64::try_from(tx.sql(DELETE_UNHELD)?.execute([seq])?).unwrap_or_default();
            }
            if !held.is_empty() {
                let of_inbox = if select == SELECT_ENTRIES { held.len() } else { 0 };
                part.entries = u64::try_from(of_inbox).unwrap_or_default();
                return Ok(part);
            }
        }
        for sql in [DELETE_MARKS, DELETE_WATERMARKS, DELETE_DELIVERIES] {
            if tx.sql(sql)?.execute(params![self.user, MAX_TAKEN])? > 0 {
                return Ok(part);
            }
        }
        // A mark or a mute that was on its way may have left a standing behind the name.
        for sql in [DELETE_COLLAPSES, DELETE_STANDINGS, DELETE_MUTES, DELETE_USER] {
            tx.sql(sql)?.execute([self.user])?;
        }
        part.more = false;
        Ok(part)
    }
}

/// Works with what it deletes being overwritten.
fn overwriting<T>(tx: &Tx<'_>, work: impl FnOnce(&Tx<'_>) -> Result<T, OpError>) -> Result<T, OpError> {
    tx.connection().pragma_update(None, "secure_delete", "ON")?;
    let done = work(tx);
    tx.connection().pragma_update(None, "secure_delete", "OFF")?;
    done
}

impl Reader<'_> {
    /// A user who is forgotten, and whose rows are still there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forgotten_user(&self) -> Result<Option<UserKey>, StoreError> {
        Ok(self.sql(SELECT_FORGOTTEN)?.query_row([], |row| row.get(0)).optional()?)
    }
}
