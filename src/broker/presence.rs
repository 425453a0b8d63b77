//! Who is online now, for those who keep the server: users with at least one live subscriber.

use super::{Broker, BrokerError};
use crate::hub::Ended;
use crate::model::{Identity, Scope, UserId, UserKey};
use crate::wire::event::ByeReason;
use crate::wire::ops::OnlineUser;

impl Broker {
    /// A page of the users who are online, by name, and how many there are in all.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn online(
        &self,
        by: &Identity,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<OnlineUser>, usize), BrokerError> {
        manager(by)?;
        let live = self.inner.hub.online();
        let online = live.len();
        let keys: Vec<UserKey> = live.iter().map(|(user, _)| *user).collect();
        let names = self.inner.store.read(move |session| session.snapshot(|reader| reader.user_names(&keys))).await?;
        // Who was erased meanwhile has no name any more.
        let named =
            live.into_iter().zip(names).filter_map(|((_, streams), user)| Some(OnlineUser { user: user?, streams }));
        let mut users: Vec<_> = named.filter(|online| after.is_none_or(|after| online.user.as_str() > after)).collect();
        users.sort_by(|a, b| a.user.as_str().cmp(b.user.as_str()));
        users.truncate(limit);
        Ok((users, online))
    }

    /// Ends a user's streams. Whoever is still let in comes back at once. How many there were.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a user who never appeared.
    pub async fn disconnect(&self, by: &Identity, user: &UserId) -> Result<usize, BrokerError> {
        manager(by)?;
        let name = user.clone();
        let key = self.inner.store.read(move |session| session.snapshot(|reader| reader.user(&name))).await?;
        let key = key.ok_or(BrokerError::NotFound("user"))?;
        Ok(self.end_streams(key, ByeReason::Rotate))
    }

    /// How many there were that nothing had ended yet.
    pub(super) fn end_streams(&self, user: UserKey, reason: ByeReason) -> usize {
        let mut ended = 0;
        self.inner.hub.of_user(user, |subscriber| {
            ended += usize::from(subscriber.ending().is_none());
            subscriber.end(Ended::alone(reason));
        });
        ended
    }
}

/// Users are looked after with the scope `users`.
pub(super) fn manager(by: &Identity) -> Result<(), BrokerError> {
    if by.has(&Scope::Users) { Ok(()) } else { Err(BrokerError::Forbidden("this needs the scope `users`")) }
}
