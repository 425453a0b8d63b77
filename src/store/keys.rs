//! API keys: stored hashed, looked up by their public id.

use rusqlite::params;

use super::reader::Reader;
use super::writer::{Need, OpError, Operation, Tx};
use super::{Refusal, StoreError};
use crate::model::Timestamp;

const INSERT_KEY: &str = "INSERT INTO api_keys (id, hash, name, scopes, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const REVOKE_KEY: &str = "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
const ROTATE_KEY: &str = "
    UPDATE api_keys SET old_hash = hash, old_until = ?3, hash = ?2 WHERE id = ?1 AND revoked_at IS NULL";
const TOUCH_KEY: &str = "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), ?2) WHERE id = ?1";
const KEY_EXISTS: &str = "SELECT 1 FROM api_keys WHERE id = ?1";
const SELECT_KEYS: &str = "
    SELECT id, hash, name, scopes, created_at, revoked_at, last_used_at, old_hash, old_until FROM api_keys
    ORDER BY created_at, id";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT_KEY, REVOKE_KEY, ROTATE_KEY, TOUCH_KEY, KEY_EXISTS, SELECT_KEYS];

/// A key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub id: String,
    /// SHA-256 of the secret half.
    pub hash: [u8; 32],
    pub name: String,
    /// Scopes, separated by spaces.
    pub scopes: String,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// The secret before the last rotation, hashed, and until when it is taken too.
    pub old: Option<([u8; 32], Timestamp)>,
}

/// Adds a key.
#[derive(Clone, Debug)]
pub struct AddKey(pub KeyRow);

impl Operation for AddKey {
    type Output = ();

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        let KeyRow { id, hash, name, scopes, created_at, .. } = &self.0;
        tx.sql(INSERT_KEY)?.execute(params![id, hash, name, scopes, created_at])?;
        Ok(())
    }
}

/// Ends a key for ever.
#[derive(Clone, Debug)]
pub struct RevokeKey {
    pub id: String,
    pub now: Timestamp,
}

impl Operation for RevokeKey {
    type Output = ();

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        if !tx.sql(KEY_EXISTS)?.exists([&self.id])? {
            return Err(Refusal::NotFound("key").into());
        }
        tx.sql(REVOKE_KEY)?.execute(params![self.id, self.now])?;
        Ok(())
    }
}

/// Gives a key another secret; the one before is taken until `old_until`.
#[derive(Clone, Debug)]
pub struct RotateKey {
    pub id: String,
    /// SHA-256 of the new secret half.
    pub hash: [u8; 32],
    pub old_until: Timestamp,
}

impl Operation for RotateKey {
    type Output = ();

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        if tx.sql(ROTATE_KEY)?.execute(params![self.id, self.hash, self.old_until])? == 0 {
            return Err(Refusal::NotFound("key that is in use").into());
        }
        Ok(())
    }
}

/// Notes when keys were last used.
#[derive(Clone, Debug)]
pub struct TouchKeys(pub Vec<(String, Timestamp)>);

impl Operation for TouchKeys {
    type Output = ();

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        for (id, at) in &self.0 {
            tx.sql(TOUCH_KEY)?.execute(params![id, at])?;
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// All keys, revoked ones included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        let mut statement = self.sql(SELECT_KEYS)?;
        let rows = statement.query_map([], |row| {
            Ok(KeyRow {
                id: row.get(0)?,
                hash: row.get(1)?,
                name: row.get(2)?,
                scopes: row.get(3)?,
                created_at: row.get(4)?,
                revoked_at: row.get(5)?,
                last_used_at: row.get(6)?,
                old: row.get::<_, Option<_>>(7)?.zip(row.get(8)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
