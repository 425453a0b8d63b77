//! Tickets: credentials for a stream's URL. Stored, so that a stream reconnects with its ticket across a restart.

use rusqlite::{OptionalExtension, params};

use super::StoreError;
use super::reader::Reader;
use super::writer::{Need, OpError, Operation, Tx};
use crate::model::{Timestamp, UserId};

const INSERT_TICKET: &str = "
    INSERT INTO tickets (id, hash, user, topics, created_at, use_by, expires_at, issued_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const SELECT_TICKET: &str = "SELECT hash, user, topics, use_by, used_at, expires_at, created_at, coalesce(issued_at, created_at) FROM tickets WHERE id = ?1";
const USE_TICKET: &str = "UPDATE tickets SET used_at = ?2 WHERE id = ?1 AND used_at IS NULL AND use_by >= ?2";
const SELECT_USED: &str = "SELECT used_at IS NOT NULL FROM tickets WHERE id = ?1";
const PRUNE_TICKETS: &str = "
    DELETE FROM tickets WHERE id IN (SELECT id FROM tickets WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT_TICKET, SELECT_TICKET, USE_TICKET, SELECT_USED, PRUNE_TICKETS];

/// A ticket as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketRow {
    /// SHA-256 of the secret half.
    pub hash: [u8; 32],
    pub user: UserId,
    /// Patterns of the token it was minted for, separated by spaces; `None` restricts nothing.
    pub topics: Option<String>,
    pub created_at: Timestamp,
    /// When the credential was made that it was had for.
    pub issued_at: Timestamp,
    /// Until when it must be used first.
    pub use_by: Timestamp,
    pub used_at: Option<Timestamp>,
    pub expires_at: Timestamp,
}

/// Adds a ticket.
#[derive(Clone, Debug)]
pub struct AddTicket {
    pub id: String,
    pub ticket: TicketRow,
}

impl Operation for AddTicket {
    type Output = ();

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        let TicketRow { hash, user, topics, created_at, issued_at, use_by, expires_at, .. } = &self.ticket;
        tx.sql(INSERT_TICKET)?
            .execute(params![self.id, hash, user, topics, created_at, use_by, expires_at, issued_at])?;
        Ok(())
    }
}

/// Uses a ticket for the first time, unless it is too late.
#[derive(Clone, Debug)]
pub struct UseTicket {
    pub id: String,
    pub now: Timestamp,
}

impl Operation for UseTicket {
    /// Whether it is in use now, by this call or by an earlier one.
    type Output = bool;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, OpError> {
        tx.sql(USE_TICKET)?.execute(params![self.id, self.now])?;
        Ok(tx.sql(SELECT_USED)?.query_row([&self.id], |row| row.get(0)).optional()?.unwrap_or(false))
    }
}

/// Forgets tickets that have run out, a bounded number at a time.
#[derive(Clone, Copy, Debug)]
pub struct PruneTickets {
    pub before: Timestamp,
    pub limit: u32,
}

impl Operation for PruneTickets {
    /// How many were forgotten.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        Ok(tx.sql(PRUNE_TICKETS)?.execute(params![self.before, self.limit])?)
    }
}

impl Reader<'_> {
    /// The ticket with this public id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn ticket(&self, id: &str) -> Result<Option<TicketRow>, StoreError> {
        let found = self.sql(SELECT_TICKET)?.query_row([id], |row| {
            Ok(TicketRow {
                hash: row.get(0)?,
                user: row.get(1)?,
                topics: row.get(2)?,
                use_by: row.get(3)?,
                used_at: row.get(4)?,
                expires_at: row.get(5)?,
                created_at: row.get(6)?,
                issued_at: row.get(7)?,
            })
        });
        Ok(found.optional()?)
    }
}
