//! Why the broker did not do what it was asked, in the caller's words.

use crate::model::{Category, ContentError};
use crate::store::{Refusal, StoreError};

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// What the caller would need.
    #[error("not allowed: {0}")]
    Forbidden(&'static str),
    /// What was not found.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("fields break rules")]
    Invalid(Vec<ContentError>),
    #[error("the topic bears the category `{0}`")]
    CategoryConflict(Category),
    #[error("`everyone` is followed by all and managed by none")]
    TopicReserved,
    #[error("nobody has made this topic")]
    UnknownTopic,
    #[error("a request with this idempotency key is still running")]
    IdempotencyRunning,
    #[error("this idempotency key was used with another body")]
    IdempotencyMismatch,
    #[error("the position is of another log")]
    UnknownEpoch,
    #[error("the position lies ahead of the log's head")]
    Ahead,
    /// The limit, by name.
    #[error("too many: {0}")]
    TooMany(&'static str),
    #[error("the disk is full; reading goes on")]
    StorageFull,
    /// The private cause, for the log only.
    #[error("the storage failed")]
    Storage(String),
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => match refusal {
                Refusal::CategoryConflict(category) => Self::CategoryConflict(category),
                Refusal::UnknownTopic => Self::UnknownTopic,
                Refusal::TooManyCategories => Self::TooMany("categories"),
                Refusal::IdempotencyMismatch => Self::IdempotencyMismatch,
                Refusal::Ahead => Self::Ahead,
                Refusal::NotFound => Self::NotFound("key"),
            },
            StoreError::Full => Self::StorageFull,
            StoreError::Stopped => Self::Storage("the store has stopped".to_owned()),
            StoreError::Failed(cause) => Self::Storage(cause),
        }
    }
}

/// Why a credential was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It never was good, or was revoked.
    #[error("the credential is not valid")]
    Invalid,
    /// It was good and has run out.
    #[error("the credential has run out")]
    Expired,
    /// It could not be looked up; the private cause, for the log only.
    #[error("the storage failed")]
    Storage(String),
}
