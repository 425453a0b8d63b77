//! API keys: `tk_<id>_<secret>`. All of them fit in memory, so a request costs no read; the secret's hash is compared
//! in constant time.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;

use super::{AuthError, Broker, BrokerError};
use crate::model::{Identity, KeyId, KeyIdentity, Scope};
use crate::store::{AddKey, KeyRow, RevokeKey, Store, StoreError};
use crate::wire::manage::{KeyBody, KeyInfo};

/// What API keys begin with.
pub(super) const KEY_PREFIX: &str = "tk";
/// Keys at most, revoked ones included; they are held in memory.
const MAX_KEYS: usize = 10_000;

/// All keys.
pub(super) struct Keyring {
    keys: RwLock<HashMap<String, Held>>,
}

struct Held {
    row: KeyRow,
    identity: KeyIdentity,
}

impl Held {
    fn new(row: KeyRow) -> Self {
        let scopes = row.scopes.split(' ').filter_map(Scope::parse).collect();
        let identity = KeyIdentity { id: KeyId(row.id.as_str().into()), name: row.name.as_str().into(), scopes };
        Self { row, identity }
    }
}

impl Keyring {
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let rows = store.read(|session| session.snapshot(|reader| reader.keys())).await?;
        let keys = rows.into_iter().map(|row| (row.id.clone(), Held::new(row))).collect();
        Ok(Self { keys: RwLock::new(keys) })
    }

    /// Who holds this key.
    pub(super) fn identify(&self, id: &str, secret: &str) -> Result<KeyIdentity, AuthError> {
        let keys = self.keys.read();
        let held = keys.get(id).filter(|held| held.row.revoked_at.is_none()).ok_or(AuthError::Invalid)?;
        verify_slices_are_equal(&sha256(secret.as_bytes()), &held.row.hash).map_err(|_| AuthError::Invalid)?;
        Ok(held.identity.clone())
    }
}

impl Broker {
    /// Makes a key. Its text is told here and never again.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn create_key(&self, by: &Identity, body: KeyBody) -> Result<(KeyInfo, String), BrokerError> {
        admin(by)?;
        if self.inner.keys.keys.read().len() >= MAX_KEYS {
            return Err(BrokerError::TooMany("API keys"));
        }
        let Secret { id, text, hash } = fresh_secret(KEY_PREFIX);
        let scopes: Vec<String> = body.scopes.iter().map(Scope::to_string).collect();
        let row = KeyRow {
            id,
            hash,
            name: body.name,
            scopes: scopes.join(" "),
            created_at: self.inner.clock.now(),
            revoked_at: None,
        };
        self.inner.store.write(AddKey(row.clone())).await?;
        let info = info(&row);
        self.inner.keys.keys.write().insert(row.id.clone(), Held::new(row));
        Ok((info, text))
    }

    /// All keys, oldest first, revoked ones included.
    ///
    /// # Errors
    /// [`BrokerError::Forbidden`].
    pub async fn keys(&self, by: &Identity) -> Result<Vec<KeyInfo>, BrokerError> {
        admin(by)?;
        let rows = self.inner.store.read(|session| session.snapshot(|reader| reader.keys())).await?;
        Ok(rows.iter().map(info).collect())
    }

    /// Ends a key; requests with it are refused from here on.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn revoke_key(&self, by: &Identity, id: &str) -> Result<(), BrokerError> {
        admin(by)?;
        let now = self.inner.clock.now();
        self.inner.store.write(RevokeKey { id: id.to_owned(), now }).await?;
        if let Some(held) = self.inner.keys.keys.write().get_mut(id) {
            held.row.revoked_at.get_or_insert(now);
        }
        Ok(())
    }
}

fn admin(by: &Identity) -> Result<(), BrokerError> {
    if by.has(&Scope::Admin) { Ok(()) } else { Err(BrokerError::Forbidden("managing keys needs the scope `admin`")) }
}

fn info(row: &KeyRow) -> KeyInfo {
    KeyInfo {
        id: KeyId(Arc::from(row.id.as_str())),
        name: row.name.clone(),
        scopes: row.scopes.split(' ').filter_map(Scope::parse).collect(),
        created_at: row.created_at,
        revoked_at: row.revoked_at,
    }
}

/// A credential of ours: a public id to find it by, and 256 random bits to prove it.
pub(super) struct Secret {
    pub(super) id: String,
    /// `<prefix>_<id>_<secret>`.
    pub(super) text: String,
    /// SHA-256 of the secret.
    pub(super) hash: [u8; 32],
}

pub(super) fn fresh_secret(prefix: &str) -> Secret {
    let (mut id, mut secret) = ([0u8; 8], [0u8; 32]);
    for bytes in [&mut id[..], &mut secret[..]] {
        rand::fill(bytes).expect("the system's random source works, or nothing here may go on");
    }
    // The id has no `_`, so the text splits in one way; the secret may.
    let id = format!("{:016x}", u64::from_be_bytes(id));
    let secret = URL_SAFE_NO_PAD.encode(secret);
    Secret { text: format!("{prefix}_{id}_{secret}"), hash: sha256(secret.as_bytes()), id }
}

/// Splits what [`fresh_secret`] made into id and secret.
pub(super) fn split_secret<'a>(prefix: &str, text: &'a str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(prefix)?.strip_prefix('_')?.split_once('_')
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
