//! Links by which somebody says, without signing in, that they want no more of a category by a medium.
//!
//! A link bears a token that only this server can have made: who, which category, which medium, and an HMAC over them. It
//! can do this one thing, so it needs no end and is kept nowhere. **Invariant**: a token that was changed is no token.
//! **Invariant**: a link brings nobody back who was erased: whether they are there is looked at in the operation that changes them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Broker, BrokerError};
use crate::model::{About, Category, Medium, PreferenceEdit, ProfileEdit, UserId, Wish};
use crate::store::Unknown;

/// What the HMAC is over besides, so that the same secret could sign something else.
const LABEL: &str = "tidings unsubscribe 1\n";
/// Bytes of the HMAC that are kept: forging one takes 2^128 tries.
const TAG_BYTES: usize = 16;
/// Bytes of a token at most; a longer one is not looked at.
const MAX_TOKEN_BYTES: usize = 512;

/// Of what somebody wants no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscription {
    pub user: UserId,
    pub category: Category,
    pub medium: Medium,
}

/// Makes and reads tokens. Its `Debug` tells nothing.
#[derive(Clone)]
pub struct UnsubscribeKey(Arc<hmac::Key>);

impl fmt::Debug for UnsubscribeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnsubscribeKey(…)")
    }
}

impl UnsubscribeKey {
    pub fn new(secret: &[u8]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The token of a link, for one segment of a path.
    pub fn token(&self, of: &Unsubscription) -> String {
        let Unsubscription { user, category, medium } = of;
        // None of them holds a line break.
        let said = format!("{}\n{category}\n{user}", medium.as_str());
        let mut bytes = self.tag(said.as_bytes()).to_vec();
        bytes.extend_from_slice(said.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token says; `None` where it is none of ours.
    pub fn read(&self, token: &str) -> Option<Unsubscription> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, said) = bytes.split_at_checked(TAG_BYTES)?;
        verify_slices_are_equal(tag, &self.tag(said)).ok()?;
        let mut parts = std::str::from_utf8(said).ok()?.splitn(3, '\n');
        let medium = Medium::parse(parts.next()?)?;
        let category = Category::new(parts.next()?).ok()?;
        Some(Unsubscription { user: UserId::new(parts.next()?).ok()?, category, medium })
    }

    fn tag(&self, said: &[u8]) -> [u8; TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(LABEL.as_bytes());
        context.update(said);
        let tag = context.sign();
        tag.as_ref()[..TAG_BYTES].try_into().expect("SHA-256 has more bytes")
    }
}

impl Broker {
    /// What a link is about.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a token that this server did not make.
    pub fn unsubscription(&self, token: &str) -> Result<Unsubscription, BrokerError> {
        let config = self.inner.config();
        let read = config.unsubscribe.as_ref().and_then(|key| key.read(token));
        read.ok_or(BrokerError::NotFound("link"))
    }

    /// Does what a link is for. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn unsubscribe(&self, of: &Unsubscription) -> Result<(), BrokerError> {
        let say = async |about| {
            let preferences = vec![PreferenceEdit::Say(about, of.medium, Some(Wish::Unwanted))];
            let edit = ProfileEdit { preferences, ..ProfileEdit::default() };
            self.edit_profile(&of.user, edit, Unknown::Refuse).await.map(drop)
        };
        let ended = match say(About::Category(of.category.clone())).await {
            // Who wants less is not refused for a limit: nothing was said about this category, so what is said about all counts.
            Err(BrokerError::TooMany(_)) => say(About::Every).await,
            ended => ended,
        };
        match ended {
            // Erased: nothing goes to them.
            Err(BrokerError::NotFound(_)) => Ok(()),
            ended => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loans(user: &str) -> Unsubscription {
        Unsubscription {
            user: UserId::new(user).expect("a user"),
            category: Category::new("loans").expect("a category"),
            medium: Medium::Email,
        }
    }

    #[test]
    fn a_token_says_what_it_was_made_for_and_fits_into_a_path() {
        let key = UnsubscribeKey::new(&[7; 32]);
        for user in ["alice", "读者", "a b@c/d", &"x".repeat(128)] {
            let token = key.token(&loans(user));
            assert!(
                token.len() <= MAX_TOKEN_BYTES
                    && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            );
            assert_eq!(key.read(&token), Some(loans(user)));
        }
    }

    #[test]
    fn a_token_that_was_changed_is_none() {
        let key = UnsubscribeKey::new(&[7; 32]);
        let token = key.token(&loans("alice"));
        assert_eq!(UnsubscribeKey::new(&[8; 32]).read(&token), None);
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64");
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(key.read(&URL_SAFE_NO_PAD.encode(&bytes)), None, "byte {at}");
            bytes[at] ^= 1;
        }
        let longer = [&bytes[..], b"x"].concat();
        for bad in ["", "x", "=", &token[..20], &URL_SAFE_NO_PAD.encode(longer), &"x".repeat(10_000)] {
            assert_eq!(key.read(bad), None, "{bad}");
        }
    }
}
