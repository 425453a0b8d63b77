//! Access that is taken back: by user, at once, on every stream and for every credential made until then.
//!
//! The moments are held in memory, so that a token costs no read. **Invariant**: the moment counts from the first line on,
//! streams end after it counts, and the answer comes when it is durable; a stream that attached in between looks at it
//! again. Where it can't be made durable the answer says so, and it counts until the next start.
//!
//! A credential that does not say when it was made counts as made before. A proxy's word (`Credential::Proxy`) is as new
//! as the request that bears it: there the proxy must be told as well.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::keys::sha256;
use super::presence::manager;
use super::{AuthError, Broker, BrokerError};
use crate::model::{Identity, Timestamp, UserId, UserIdentity};
use crate::store::{Restore, Revoke, Store, StoreError};
use crate::wire::event::ByeReason;

/// Whose access is taken back, and up to when.
pub(super) struct Revocations {
    /// By the SHA-256 of the name: an erased user must not come back by an old token, and leaves no name here.
    moments: RwLock<HashMap<[u8; 32], Timestamp>>,
    /// Held while one is changed, in the store and then here, so that both end alike.
    changing: tokio::sync::Mutex<()>,
}

impl Revocations {
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let rows = store.read(|session| session.snapshot(|reader| reader.revocations())).await?;
        Ok(Self { moments: RwLock::new(rows.into_iter().collect()), changing: tokio::sync::Mutex::default() })
    }

    /// Whether a credential made at this moment is refused.
    fn covers(&self, user: &UserId, issued: Option<Timestamp>) -> bool {
        // Tokens tell whole seconds, rounded down: one of the same second counts as made before.
        let moments = self.moments.read();
        if moments.is_empty() {
            return false;
        }
        moments.get(&sha256(user.as_str().as_bytes())).is_some_and(|at| issued.is_none_or(|issued| issued <= *at))
    }

    pub(super) fn len(&self) -> usize {
        self.moments.read().len()
    }
}

impl Broker {
    /// Takes a user's access back: every token, cookie and ticket made until now. How many streams it ends.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn revoke(&self, by: &Identity, user: &UserId) -> Result<usize, BrokerError> {
        manager(by)?;
        let ended = self.take_back(user).await?;
        tracing::info!(%user, by = %by.principal(), streams = ended, "Access taken back");
        Ok(ended)
    }

    /// What [`Broker::revoke`] does, and erasing a user as well.
    pub(super) async fn take_back(&self, user: &UserId) -> Result<usize, StoreError> {
        let hash = sha256(user.as_str().as_bytes());
        let now = self.inner.clock.now();
        let changing = self.inner.revocations.changing.lock().await;
        // At once, also where the disk is full or hangs. The clock may have been stepped back since an earlier one.
        self.inner.revocations.moments.write().entry(hash).and_modify(|at| *at = now.max(*at)).or_insert(now);
        let ended = self.end_streams_of(user).await?;
        self.inner.store.write(Revoke { user: hash, now }).await?;
        drop(changing);
        // Who appeared and attached just before the moment counted has a number by now.
        Ok(ended + self.end_streams_of(user).await?)
    }

    async fn end_streams_of(&self, user: &UserId) -> Result<usize, StoreError> {
        let name = user.clone();
        let key = self.inner.store.read(move |session| session.snapshot(|reader| reader.user(&name))).await?;
        Ok(key.map_or(0, |key| self.end_streams(key, ByeReason::Revoked)))
    }

    /// Gives it back: credentials that have not run out are good again. Whether it was taken back.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn restore(&self, by: &Identity, user: &UserId) -> Result<bool, BrokerError> {
        manager(by)?;
        let hash = sha256(user.as_str().as_bytes());
        let _changing = self.inner.revocations.changing.lock().await;
        let restored = self.inner.store.write(Restore { user: hash }).await?;
        self.inner.revocations.moments.write().remove(&hash);
        if restored {
            tracing::info!(%user, by = %by.principal(), "Access given back");
        }
        Ok(restored)
    }

    /// Whether a caller who was let in is still to be: asked again where time has passed since, such as by a slow body.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn still_good(&self, by: &Identity) -> Result<(), AuthError> {
        match by {
            Identity::User(user) if self.inner.is_revoked(user) => Err(AuthError::Revoked),
            Identity::User(user) if user.expires.is_some_and(|end| end <= self.inner.clock.now()) => {
                Err(AuthError::Expired)
            }
            Identity::Key(key) if !self.inner.keys.is_live(&key.id) => Err(AuthError::Revoked),
            Identity::User(_) | Identity::Key(_) | Identity::Operator => Ok(()),
        }
    }

    /// Refuses who was revoked.
    pub(super) fn check_revoked(&self, who: UserIdentity) -> Result<UserIdentity, AuthError> {
        if self.inner.is_revoked(&who) { Err(AuthError::Revoked) } else { Ok(who) }
    }
}

impl super::Inner {
    pub(super) fn is_revoked(&self, who: &UserIdentity) -> bool {
        self.revocations.covers(&who.user, who.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_until_then_is_refused_and_what_comes_later_is_not() {
        let alice = UserId::new("alice").expect("a user");
        let moments = RwLock::new([(sha256(b"alice"), Timestamp::from_millis(10_500))].into_iter().collect());
        let revocations = Revocations { moments, changing: tokio::sync::Mutex::default() };
        let covers = |issued: Option<i64>| revocations.covers(&alice, issued.map(Timestamp::from_millis));
        assert!(covers(None) && covers(Some(9_000)) && covers(Some(10_000)));
        assert!(!covers(Some(10_501)));
        assert!(!revocations.covers(&UserId::new("bob").expect("a user"), None));
    }
}
