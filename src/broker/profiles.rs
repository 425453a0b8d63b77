//! Who people are: what their application knows of them, and what they say themselves.

use super::inbox::may_see;
use super::{Broker, BrokerError};
use crate::model::{Category, Credential, Identity, Profile, ProfileEdit, Scope, UserId, UserIdentity};
use crate::store::{Acquaintance, PutProfile, Unknown};
use crate::wire::profile::OwnProfile;

impl Broker {
    /// Changes a user's profile, by their application. Returns it, and whether the user is new with it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn put_profile(
        &self,
        by: &Identity,
        user: &UserId,
        edit: ProfileEdit,
    ) -> Result<(Profile, Acquaintance), BrokerError> {
        may_know(by)?;
        self.edit_profile(user, edit, Unknown::Create).await
    }

    /// A user's profile, for their application.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a user who never appeared.
    pub async fn profile_of(&self, by: &Identity, user: &UserId) -> Result<Profile, BrokerError> {
        may_know(by)?;
        let user = user.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| reader.user(&user)?.map(|key| reader.profile(key)).transpose())
        });
        read.await?.ok_or(BrokerError::NotFound("user"))
    }

    /// The caller's own profile, and the categories that there are for them.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn own_profile(&self, who: &UserIdentity) -> Result<OwnProfile, BrokerError> {
        let who = who.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let Some(key) = reader.user(&who.user)? else { return Ok((Profile::default(), Vec::new())) };
                let spans = reader.sight(key)?.spans.into_iter().filter(|span| may_see(&who, span));
                Ok((reader.profile(key)?, spans.map(|span| span.category).collect()))
            })
        });
        let (profile, mut categories): (Profile, Vec<Category>) = read.await?;
        categories.extend(profile.preferences.categories().cloned());
        categories.sort_unstable();
        categories.dedup();
        Ok(OwnProfile { profile, categories })
    }

    /// Changes what is the caller's own to say.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn put_own_profile(&self, who: &UserIdentity, edit: ProfileEdit) -> Result<OwnProfile, BrokerError> {
        if matches!(who.credential, Credential::Ticket(_)) {
            return Err(BrokerError::Forbidden("a ticket reads only; this needs the session or a token"));
        }
        self.edit_profile(&who.user, edit, Unknown::Create).await?;
        self.own_profile(who).await
    }

    pub(super) async fn edit_profile(
        &self,
        user: &UserId,
        edit: ProfileEdit,
        unknown: Unknown,
    ) -> Result<(Profile, Acquaintance), BrokerError> {
        let operation = PutProfile {
            user: user.clone(),
            edit,
            unknown,
            now: self.inner.clock.now(),
            everyone_horizon: self.inner.config().everyone_horizon,
        };
        Ok(self.inner.store.write(operation).await?)
    }
}

fn may_know(by: &Identity) -> Result<(), BrokerError> {
    if by.has(&Scope::Users) { Ok(()) } else { Err(BrokerError::Forbidden("users' profiles need the scope `users`")) }
}
