//! API keys: `tk_<id>_<secret>`. All of them fit in memory, so a request costs no read; the secret's hash is compared
//! in constant time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;

use super::{AuthError, Broker, BrokerError};
use crate::model::{Identity, KeyId, KeyIdentity, Scope, Timestamp};
use crate::store::{AddKey, KeyRow, RevokeKey, RotateKey, Store, StoreError, TouchKeys};
use crate::wire::manage::{KeyBody, KeyInfo};

/// What API keys begin with.
pub(super) const KEY_PREFIX: &str = "tk";
/// Keys at most, revoked ones included; they are held in memory.
const MAX_KEYS: usize = 10_000;

/// All keys.
pub(super) struct Keyring {
    keys: RwLock<HashMap<String, Held>>,
    /// Held while a key is changed, in the store and then here, so that both end alike.
    changing: tokio::sync::Mutex<()>,
}

struct Held {
    row: KeyRow,
    identity: KeyIdentity,
    /// Milliseconds since the Unix epoch; 0 is never. Written down by the janitor.
    used_at: AtomicI64,
}

impl Held {
    fn new(row: KeyRow) -> Self {
        let scopes = row.scopes.split(' ').filter_map(Scope::parse).collect();
        let identity = KeyIdentity { id: KeyId(row.id.as_str().into()), name: row.name.as_str().into(), scopes };
        let used_at = AtomicI64::new(row.last_used_at.map_or(0, Timestamp::as_millis));
        Self { row, identity, used_at }
    }
}

impl Keyring {
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let rows = store.read(|session| session.snapshot(|reader| reader.keys())).await?;
        let keys = rows.into_iter().map(|row| (row.id.clone(), Held::new(row))).collect();
        Ok(Self { keys: RwLock::new(keys), changing: tokio::sync::Mutex::default() })
    }

    /// Who holds this key.
    pub(super) fn identify(&self, id: &str, secret: &str, now: Timestamp) -> Result<KeyIdentity, AuthError> {
        let keys = self.keys.read();
        let held = keys.get(id).ok_or(AuthError::Invalid)?;
        let (hash, row) = (sha256(secret.as_bytes()), &held.row);
        let is = |stored: &[u8; 32]| verify_slices_are_equal(&hash, stored).is_ok();
        match &row.old {
            _ if is(&row.hash) => {}
            Some((old, until)) if is(old) && now < *until => {}
            Some((old, _)) if is(old) => return Err(AuthError::Expired),
            _ => return Err(AuthError::Invalid),
        }
        if row.revoked_at.is_some() {
            return Err(AuthError::Revoked);
        }
        held.used_at.store(now.as_millis(), Ordering::Relaxed);
        Ok(held.identity.clone())
    }

    pub(super) fn is_live(&self, id: &KeyId) -> bool {
        self.keys.read().get(&*id.0).is_some_and(|held| held.row.revoked_at.is_none())
    }

    /// Keys that were used since this was last asked.
    pub(super) fn used(&self) -> Vec<(String, Timestamp)> {
        let mut keys = self.keys.write();
        let mut used = Vec::new();
        for (id, held) in keys.iter_mut() {
            let at = Some(Timestamp::from_millis(held.used_at.load(Ordering::Relaxed)));
            if at > Some(Timestamp::from_millis(0)) && at > held.row.last_used_at {
                held.row.last_used_at = at;
                used.extend(at.map(|at| (id.clone(), at)));
            }
        }
        used
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
            last_used_at: None,
            old: None,
        };
        let _changing = self.inner.keys.changing.lock().await;
        // Whoever was revoked meanwhile makes no key that outlives it.
        self.still_good(by).map_err(|_| BrokerError::Forbidden("the key that asks was revoked"))?;
        self.inner.store.write(AddKey(row.clone())).await?;
        let info = info(&row);
        tracing::info!(key = %info.id, by = %by.principal(), scopes = row.scopes, "An API key was made");
        self.inner.keys.keys.write().insert(row.id.clone(), Held::new(row));
        Ok((info, text))
    }

    /// All keys, oldest first, revoked ones included.
    ///
    /// # Errors
    /// [`BrokerError::Forbidden`].
    pub async fn keys(&self, by: &Identity) -> Result<Vec<KeyInfo>, BrokerError> {
        admin(by)?;
        self.note_used_keys().await?;
        let rows = self.inner.store.read(|session| session.snapshot(|reader| reader.keys())).await?;
        Ok(rows.iter().map(info).collect())
    }

    /// Gives a key another secret, told here and never again. The one before is taken for `grace` more.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn rotate_key(&self, by: &Identity, id: &str, grace: Duration) -> Result<(KeyInfo, String), BrokerError> {
        admin(by)?;
        let Secret { text, hash, .. } = secret_of(KEY_PREFIX, id.to_owned());
        let old_until = self.inner.clock.now().after(grace);
        let _changing = self.inner.keys.changing.lock().await;
        self.inner.store.write(RotateKey { id: id.to_owned(), hash, old_until }).await?;
        let mut keys = self.inner.keys.keys.write();
        let held = keys.get_mut(id).ok_or(BrokerError::NotFound("key"))?;
        held.row.old = Some((held.row.hash, old_until));
        held.row.hash = hash;
        tracing::info!(key = id, by = %by.principal(), "An API key was rotated");
        Ok((info(&held.row), text))
    }

    /// Ends a key; requests with it are refused from here on.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn revoke_key(&self, by: &Identity, id: &str) -> Result<(), BrokerError> {
        admin(by)?;
        let now = self.inner.clock.now();
        let _changing = self.inner.keys.changing.lock().await;
        self.inner.store.write(RevokeKey { id: id.to_owned(), now }).await?;
        if let Some(held) = self.inner.keys.keys.write().get_mut(id) {
            held.row.revoked_at.get_or_insert(now);
        }
        tracing::info!(key = id, by = %by.principal(), "An API key was revoked");
        Ok(())
    }
}

impl Broker {
    /// Writes down when keys were last used.
    pub(super) async fn note_used_keys(&self) -> Result<(), StoreError> {
        let used = self.inner.keys.used();
        if used.is_empty() { Ok(()) } else { self.inner.store.write(TouchKeys(used)).await }
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
        last_used_at: row.last_used_at,
        old_until: row.old.map(|(_, until)| until),
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
    // The id has no `_`, so the text splits in one way; the secret may.
    secret_of(prefix, format!("{:016x}", u64::from_be_bytes(random())))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system's random source works, or nothing here may go on");
    bytes
}

/// Another secret for the same id.
fn secret_of(prefix: &str, id: String) -> Secret {
    let secret = URL_SAFE_NO_PAD.encode(random::<32>());
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
