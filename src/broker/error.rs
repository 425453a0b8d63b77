//! Why the broker did not do what it was asked, in the caller's words.

use crate::model::{Category, ContentError, UserId};
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
    /// Users who have not appeared, where only known ones are published to; some of them, in words.
    #[error("unknown users: {0}")]
    UnknownUsers(String),
    /// The topic is not open to be followed by users themselves.
    #[error("this topic's followers are managed by the application")]
    TopicManaged,
    /// It was scheduled, and has been delivered or cancelled meanwhile.
    #[error("it does not wait any more")]
    NotScheduled,
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
    /// Of publishes to many by media other than the inbox, as many as may wait have deliveries that are still to be made. It
    /// passes by itself: a client comes back, a message of the queue waits, and what is scheduled is tried again.
    #[error("too many deliveries to many are still being made")]
    TooManyExpansions,
    /// Another program reads the database file.
    #[error("another program reads the database file")]
    BeingRead,
    /// A copy of the log is being made, or handed out.
    #[error("a copy of the log is being made")]
    CopyRunning,
    /// Bytes that a copy needs on the log's disk, and that are free there.
    #[error("there is no room for a copy")]
    NoRoom { needed: u64, free: u64 },
    /// What was copied is not whole; the private cause.
    #[error("the log is damaged")]
    Damaged(String),
    #[error("the disk is full; reading goes on")]
    StorageFull,
    /// Nothing was stored.
    #[error("the storage is busy")]
    StorageBusy,
    /// It has failed, or the process ends anyway; whichever it is, the log has it already.
    #[error("the storage has stopped")]
    StorageStopped,
    /// The private cause, for the log only.
    #[error("the storage failed")]
    Storage(String),
    /// The storage goes on and failed at this alone, which may be why: asked again, it may fail for ever. The private cause.
    #[error("the storage failed at this")]
    Operation(String),
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
                Refusal::NotFound(what) => Self::NotFound(what),
                Refusal::UnknownUsers(users) => Self::UnknownUsers(some_of(&users)),
                Refusal::TopicManaged => Self::TopicManaged,
                Refusal::TooManyFollowed => Self::TooMany("topics that one user follows"),
                Refusal::TooManyScheduled => Self::TooMany("scheduled notifications"),
                Refusal::TooManyCarried => Self::TooMany("people for media other than the inbox"),
                Refusal::TooManyExpansions => Self::TooManyExpansions,
                Refusal::TooManyTemplates => Self::TooMany("templates"),
                Refusal::TooManyPreferences => Self::TooMany("categories that one user's preferences name"),
                Refusal::TooManyRevocations => Self::TooMany("users whose access is taken back"),
                Refusal::NotScheduled => Self::NotScheduled,
                Refusal::BeingRead => Self::BeingRead,
                Refusal::CopyRunning => Self::CopyRunning,
                Refusal::NoRoom { needed, free } => Self::NoRoom { needed, free },
                Refusal::Untimely(errors) => Self::Invalid(errors),
                Refusal::ExpiresBeforeDue => Self::Invalid(vec![ContentError {
                    pointer: "/expires_at".to_owned(),
                    detail: "lies before the notification is delivered".to_owned(),
                }]),
            },
            StoreError::Full => Self::StorageFull,
            StoreError::Stopped => Self::StorageStopped,
            StoreError::Busy => Self::StorageBusy,
            StoreError::Damaged(cause) => Self::Damaged(cause),
            StoreError::Broken(cause) | StoreError::Unreadable(cause) | StoreError::Unwritable(cause) => {
                Self::Storage(cause)
            }
            StoreError::Failed(cause) => Self::Operation(cause),
        }
    }
}

/// Users that a message names at most.
const MAX_NAMED: usize = 5;

fn some_of(users: &[UserId]) -> String {
    let mut named: Vec<&str> = users.iter().take(MAX_NAMED).map(UserId::as_str).collect();
    if users.len() > MAX_NAMED {
        named.push("…");
    }
    named.join(", ")
}

/// Why a credential was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It never was good.
    #[error("the credential is not valid")]
    Invalid,
    /// It was good and was taken back.
    #[error("the credential was revoked")]
    Revoked,
    /// It was good and has run out.
    #[error("the credential has run out")]
    Expired,
    /// It could not be looked up; the private cause, for the log only.
    #[error("the storage failed")]
    Storage(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_alone_is_told_apart_from_a_storage_that_fails() {
        let cause = || "a cause".to_owned();
        assert_eq!(BrokerError::from(StoreError::Failed(cause())), BrokerError::Operation(cause()));
        for storage in [StoreError::Broken, StoreError::Unreadable, StoreError::Unwritable] {
            assert_eq!(BrokerError::from(storage(cause())), BrokerError::Storage(cause()));
        }
    }
}
