//! Access that was taken back: by the SHA-256 of the user's name, with the moment up to which credentials are refused.

use rusqlite::params;

use super::reader::Reader;
use super::writer::{Need, OpError, Operation, Tx};
use super::{Refusal, StoreError};
use crate::model::Timestamp;

const UPSERT: &str = "
    INSERT INTO revocations (user, at) VALUES (?1, ?2) ON CONFLICT (user) DO UPDATE SET at = max(at, excluded.at)";
const DELETE_REVOCATION: &str = "DELETE FROM revocations WHERE user = ?1";
const COUNT_OTHERS: &str = "SELECT count(*) FROM revocations WHERE user <> ?1";
const SELECT: &str = "SELECT user, at FROM revocations";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[UPSERT, DELETE_REVOCATION, COUNT_OTHERS, SELECT];

/// Users whose access is taken back at most: all of them are held in memory, and looked at for each token.
pub const MAX_REVOCATIONS: usize = 100_000;

/// Takes a user's access back: credentials made up to now are refused.
#[derive(Clone, Debug)]
pub struct Revoke {
    pub user: [u8; 32],
    pub now: Timestamp,
}

impl Operation for Revoke {
    type Output = ();

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        let held: usize = tx.sql(COUNT_OTHERS)?.query_row([self.user], |row| row.get(0))?;
        if held >= MAX_REVOCATIONS {
            return Err(Refusal::TooManyRevocations.into());
        }
        tx.sql(UPSERT)?.execute(params![self.user, self.now])?;
        Ok(())
    }
}

/// Gives access back: what was refused is good again, as far as they have not run out.
#[derive(Clone, Debug)]
pub struct Restore {
    pub user: [u8; 32],
}

impl Operation for Restore {
    /// Whether it was taken back before.
    type Output = bool;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, OpError> {
        Ok(tx.sql(DELETE_REVOCATION)?.execute([self.user])? > 0)
    }
}

impl Reader<'_> {
    /// All revocations.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revocations(&self) -> Result<Vec<([u8; 32], Timestamp)>, StoreError> {
        let mut statement = self.sql(SELECT)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
