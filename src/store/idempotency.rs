//! Stored answers: a publish that is sent again with its key gets the answer it got before, for as long as answers
//! are kept.

use rusqlite::{OptionalExtension, params};

use super::writer::{Need, OpError, Operation, Tx};
use super::{Place, PublishOutcome, Refusal};
use crate::model::{Cursor, Epoch, Principal, Seq, Timestamp};

const SELECT_ANSWER: &str = "
    SELECT body_hash, epoch, seq, notification, recipients, due FROM idempotency
    WHERE principal_kind = ?1 AND principal = ?2 AND route = ?3 AND key = ?4 AND created_at > ?5";
/// `OR REPLACE`: one that has outlived its time may still wait for the janitor.
const INSERT_ANSWER: &str = "
    INSERT OR REPLACE INTO idempotency
        (principal_kind, principal, route, key, body_hash, epoch, seq, notification, recipients, created_at,
         due)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const PRUNE_ANSWERS: &str = "
    DELETE FROM idempotency WHERE (principal_kind, principal, route, key) IN
        (SELECT principal_kind, principal, route, key FROM idempotency WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_ANSWER, INSERT_ANSWER, PRUNE_ANSWERS];

/// What makes two publishes the same one. A tuple, never a joined string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    pub principal: Principal,
    pub route: &'static str,
    pub key: String,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
    /// Answers older than this are forgotten.
    pub valid_after: Timestamp,
}

impl IdempotencyKey {
    fn principal(&self) -> (u8, &str) {
        match &self.principal {
            Principal::User(user) => (1, user.as_str()),
            Principal::Key(key) => (2, &key.0),
            Principal::Operator => (3, ""),
        }
    }

    /// The stored answer, where there is one.
    pub(super) fn find(&self, tx: &Tx<'_>) -> Result<Option<PublishOutcome>, OpError> {
        let (kind, principal) = self.principal();
        let found = tx
            .sql(SELECT_ANSWER)?
            .query_row(params![kind, principal, self.route, self.key, self.valid_after], |row| {
                let hash: [u8; 32] = row.get(0)?;
                let epoch: String = row.get(1)?;
                Ok((hash, epoch, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            })
            .optional()?;
        let Some((hash, epoch, seq, id, recipients, due)) = found else { return Ok(None) };
        if hash != self.body_hash {
            return Err(Refusal::IdempotencyMismatch.into());
        }
        let epoch = Epoch::new(&epoch).unwrap_or_else(|| tx.epoch().clone());
        let due: Option<Timestamp> = due;
        let place = due.map_or(Place::Log(Cursor { epoch, seq }), Place::Schedule);
        Ok(Some(PublishOutcome { id, place, recipients, replayed: true }))
    }

    /// Keeps an answer, in the transaction of what it answers.
    pub(super) fn keep(&self, tx: &Tx<'_>, answer: &PublishOutcome, now: Timestamp) -> Result<(), rusqlite::Error> {
        let (kind, principal) = self.principal();
        let (epoch, seq, due) = match &answer.place {
            Place::Log(cursor) => (&cursor.epoch, cursor.seq, None),
            Place::Schedule(due) => (tx.epoch(), Seq::ZERO, Some(due)),
        };
        tx.sql(INSERT_ANSWER)?.execute(params![
            kind,
            principal,
            self.route,
            self.key,
            self.body_hash,
            epoch.as_str(),
            seq,
            answer.id,
            answer.recipients,
            now,
            due,
        ])?;
        Ok(())
    }
}

/// Looks for a stored answer, and does nothing besides.
#[derive(Clone, Debug)]
pub struct Recall(pub IdempotencyKey);

impl Operation for Recall {
    type Output = Option<PublishOutcome>;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Option<PublishOutcome>, OpError> {
        self.0.find(tx)
    }
}

/// Forgets stored answers, a bounded number at a time.
#[derive(Clone, Copy, Debug)]
pub struct PruneIdempotency {
    pub before: Timestamp,
    pub limit: u32,
}

impl Operation for PruneIdempotency {
    /// How many were forgotten.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        Ok(tx.sql(PRUNE_ANSWERS)?.execute(params![self.before, self.limit])?)
    }
}
