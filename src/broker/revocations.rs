//! Access that is taken back: by user, at once, on every stream and for every credential made until then.
//!
//! The moments are held in memory, so that a token costs no read. **Invariant**: the moment is durable before it counts,
//! and it counts before streams are ended; a stream that attached in between looks at it again.
//!
//! A credential that does not say when it was made counts as made before. A proxy's word (`Credential::Proxy`) is as new
//! as the request that bears it: there the proxy must be told as well.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::presence::manager;
use super::{AuthError, Broker, BrokerError};
use crate::model::{Identity, Timestamp, UserId, UserIdentity};
use crate::store::{Restore, Revoke, Store, StoreError};
use crate::wire::event::ByeReason;

/// Whose access is taken back, and up to when.
pub(super) struct Revocations {
    moments: RwLock<HashMap<UserId, Timestamp>>,
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
        self.moments.read().get(user).is_some_and(|at| issued.is_none_or(|issued| issued <= *at))
    }

    pub(super) fn len(&self) -> usize {
        self.moments.read().len()
    }

    pub(super) fn forget(&self, user: &UserId) {
        self.moments.write().remove(user);
    }
}

impl Broker {
    /// Takes a user's access back: every token, cookie and ticket made until now. How many streams it ends.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn revoke(&self, by: &Identity, user: &UserId) -> Result<usize, BrokerError> {
        manager(by)?;
        let now = self.inner.clock.now();
        let changing = self.inner.revocations.changing.lock().await;
        let key = self.inner.store.write(Revoke { user: user.clone(), now }).await?;
        // The clock may have been stepped back since an earlier one.
        self.inner.revocations.moments.write().entry(user.clone()).and_modify(|at| *at = now.max(*at)).or_insert(now);
        drop(changing);
        let ended = key.map_or(0, |key| self.end_streams(key, ByeReason::Revoked));
        tracing::info!(%user, streams = ended, "Access taken back");
        Ok(ended)
    }

    /// Gives it back: credentials that have not run out are good again. Whether it was taken back.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn restore(&self, by: &Identity, user: &UserId) -> Result<bool, BrokerError> {
        manager(by)?;
        let _changing = self.inner.revocations.changing.lock().await;
        let restored = self.inner.store.write(Restore { user: user.clone() }).await?;
        self.inner.revocations.forget(user);
        if restored {
            tracing::info!(%user, "Access given back");
        }
        Ok(restored)
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
        let moments = RwLock::new([(alice.clone(), Timestamp::from_millis(10_500))].into_iter().collect());
        let revocations = Revocations { moments, changing: tokio::sync::Mutex::default() };
        let covers = |issued: Option<i64>| revocations.covers(&alice, issued.map(Timestamp::from_millis));
        assert!(covers(None) && covers(Some(9_000)) && covers(Some(10_000)));
        assert!(!covers(Some(10_501)));
        assert!(!revocations.covers(&UserId::new("bob").expect("a user"), None));
    }
}
