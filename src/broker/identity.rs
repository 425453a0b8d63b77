//! Turning a credential into an identity.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::keys::{KEY_PREFIX, sha256, split_secret};
use super::{AuthError, Broker, token};
use crate::model::{Credential, Identity, Timestamp, UserId, UserIdentity};

/// A credential as an edge found it.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// A JWT, an API key or the operator's credential.
    Bearer(&'a str),
    /// The session cookie: a JWT.
    Cookie(&'a str),
    /// The password of Basic credentials: an API key.
    BasicPassword(&'a str),
    /// A ticket in the URL.
    Ticket(&'a str),
    /// A user whom a trusted proxy has signed in.
    Proxy(&'a UserId),
}

impl Broker {
    /// Who this is.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Identity, AuthError> {
        match credentials {
            Credentials::Bearer(text) => self.bearer(text),
            Credentials::BasicPassword(text) => self.key(text),
            Credentials::Cookie(text) => {
                let identity = self.check_user_token(text)?;
                Ok(Identity::User(UserIdentity { credential: Credential::Cookie, ..identity }))
            }
            Credentials::Ticket(text) => self.check_ticket(text).await.map(Identity::User),
            Credentials::Proxy(user) => Ok(Identity::User(self.vouched(user))),
        }
    }

    /// Checks a user's JWT.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn check_user_token(&self, token: &str) -> Result<UserIdentity, AuthError> {
        self.check_revoked(token::verify(&self.inner.config().jwt, token, self.inner.clock.now())?)
    }

    /// A user by a proxy's word, which is as new as the request, and is asked for again after a while.
    fn vouched(&self, user: &UserId) -> UserIdentity {
        let now = self.inner.clock.now();
        UserIdentity {
            user: user.clone(),
            credential: Credential::Proxy,
            topics: None,
            publishes: false,
            expires: Some(now.after(self.inner.config().proxy_recheck)),
            // Revoked or not is the proxy's to say.
            issued: Some(Timestamp::MAX),
        }
    }

    fn bearer(&self, text: &str) -> Result<Identity, AuthError> {
        if text.starts_with(KEY_PREFIX) && split_secret(KEY_PREFIX, text).is_some() {
            return self.key(text);
        }
        if self.is_operator(text) {
            return Ok(Identity::Operator);
        }
        self.check_user_token(text).map(Identity::User)
    }

    fn key(&self, text: &str) -> Result<Identity, AuthError> {
        let (id, secret) = split_secret(KEY_PREFIX, text).ok_or(AuthError::Invalid)?;
        self.inner.keys.identify(id, secret, self.inner.clock.now()).map(Identity::Key)
    }

    fn is_operator(&self, text: &str) -> bool {
        let config = self.inner.config();
        let secret = config.operator_secret.as_ref();
        secret.is_some_and(|s| verify_slices_are_equal(&sha256(s.0.as_bytes()), &sha256(text.as_bytes())).is_ok())
    }
}
