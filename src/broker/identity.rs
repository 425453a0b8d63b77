//! Turning a credential into an identity.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::keys::{KEY_PREFIX, sha256, split_secret};
use super::{AuthError, Broker, token};
use crate::model::{Credential, Identity, UserIdentity};

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
        }
    }

    /// Checks a user's JWT.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn check_user_token(&self, token: &str) -> Result<UserIdentity, AuthError> {
        token::verify(&self.inner.config.jwt, token, self.inner.clock.now())
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
        self.inner.keys.identify(id, secret).map(Identity::Key)
    }

    fn is_operator(&self, text: &str) -> bool {
        let secret = self.inner.config.operator_secret.as_ref();
        secret.is_some_and(|s| verify_slices_are_equal(&sha256(s.0.as_bytes()), &sha256(text.as_bytes())).is_ok())
    }
}
