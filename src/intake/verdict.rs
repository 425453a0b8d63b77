//! What becomes of a message: taken, never to be taken, or not now.
//!
//! The one place where a reason is named that stands in a dead letter's headers; the names are those of the problems that a
//! publish over HTTP is told, where there is such a problem.

use crate::broker::BrokerError;
use crate::model::ContentError;
use crate::wire::json::BodyError;

/// Faults of one message that its dead letter names, and characters of them.
const MAX_FAULTS: usize = 5;
const MAX_DETAIL_CHARS: usize = 400;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is durable.
    Published,
    /// It was durable before.
    Duplicate,
    /// It never can be taken.
    Poison(Poison),
    /// It can't be taken now; why.
    Later(String),
    /// The server failed at it, which may be the message's own doing: it is tried a few times more.
    Failed,
}

/// Why a message never can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Poison {
    /// Out of a closed set.
    pub reason: &'static str,
    /// For people; at most [`MAX_DETAIL_CHARS`] characters.
    pub detail: String,
}

impl Poison {
    fn new(reason: &'static str, detail: &str) -> Self {
        let detail = match detail.char_indices().nth(MAX_DETAIL_CHARS) {
            Some((end, _)) => format!("{}…", &detail[..end]),
            None => detail.to_owned(),
        };
        // It may repeat the name of a field, and is shown on terminals.
        Self { reason, detail: detail.replace(char::is_control, "\u{fffd}") }
    }

    /// A fault of ours, so many times.
    pub fn internal(tries: u32) -> Self {
        Self::new("internal", &format!("the server failed {tries} times at it; its log has where"))
    }

    pub fn too_large(bytes: usize, most: usize) -> Self {
        Self::new("body-too-large", &format!("it has {bytes} bytes; amqp.max_message is {most}"))
    }
}

impl From<BodyError> for Poison {
    fn from(error: BodyError) -> Self {
        let reason = match error {
            BodyError::Encoding(_) | BodyError::Syntax(_) | BodyError::Depth => "bad-json",
            BodyError::TooManyRecipients(_) => "too-many-recipients",
            BodyError::Fields(errors) => return invalid(&errors),
        };
        Self::new(reason, &error.to_string())
    }
}

fn invalid(errors: &[ContentError]) -> Poison {
    let mut told: Vec<_> =
        errors.iter().take(MAX_FAULTS).map(|error| format!("{}: {}", error.pointer, error.detail)).collect();
    if errors.len() > MAX_FAULTS {
        told.push(format!("and {} more", errors.len() - MAX_FAULTS));
    }
    Poison::new("invalid", &told.join("; "))
}

impl From<BrokerError> for Verdict {
    fn from(error: BrokerError) -> Self {
        let detail = error.to_string();
        let reason = match error {
            BrokerError::Invalid(errors) => return Self::Poison(invalid(&errors)),
            BrokerError::CategoryConflict(_) => "category-conflict",
            BrokerError::TopicReserved => "topic-reserved",
            BrokerError::TopicManaged => "topic-managed",
            BrokerError::UnknownTopic => "unknown-topic",
            BrokerError::UnknownUsers(_) => "unknown-user",
            BrokerError::IdempotencyMismatch => "idempotency-mismatch",
            BrokerError::Forbidden(_) => "forbidden",
            BrokerError::NotFound(_) => "not-found",
            BrokerError::NotScheduled => "not-scheduled",
            BrokerError::UnknownEpoch => "unknown-epoch",
            BrokerError::Ahead => "ahead",
            // It may pass, but a message that waits for it would hold up all others.
            BrokerError::TooMany(_) => "too-many",
            BrokerError::Operation(cause) => {
                tracing::error!(cause, "the store failed at a message of the queue; it is tried a few times");
                return Self::Failed;
            }
            BrokerError::Storage(cause) | BrokerError::Damaged(cause) => {
                tracing::error!(cause, "the store failed a message of the queue; it is tried again");
                return Self::Later(detail_of_storage());
            }
            BrokerError::IdempotencyRunning
            | BrokerError::TooManyExpansions
            | BrokerError::BeingRead
            | BrokerError::CopyRunning
            | BrokerError::NoRoom { .. }
            | BrokerError::StorageFull
            | BrokerError::StorageBusy
            | BrokerError::StorageStopped => return Self::Later(detail),
        };
        Self::Poison(Poison::new(reason, &detail))
    }
}

/// The cause stands in the log, and nowhere else.
fn detail_of_storage() -> String {
    "the storage failed; the log says why".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(verdict: &Verdict) -> Option<&'static str> {
        match verdict {
            Verdict::Poison(poison) => Some(poison.reason),
            _ => None,
        }
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_poison() {
        for passes in [
            BrokerError::StorageFull,
            BrokerError::StorageStopped,
            BrokerError::TooManyExpansions,
            BrokerError::Storage("secret".to_owned()),
        ] {
            let verdict = Verdict::from(passes);
            assert!(matches!(&verdict, Verdict::Later(why) if !why.contains("secret")), "{verdict:?}");
        }
        for (stays, expected) in [
            (BrokerError::UnknownUsers("alice".to_owned()), "unknown-user"),
            (BrokerError::IdempotencyMismatch, "idempotency-mismatch"),
            (BrokerError::Invalid(Vec::new()), "invalid"),
        ] {
            assert_eq!(reason(&stays.into()), Some(expected));
        }
        // On a store that is well it may be the message's own doing, so it is not tried for ever.
        assert_eq!(Verdict::from(BrokerError::Operation("secret".to_owned())), Verdict::Failed);
    }

    #[test]
    fn a_dead_letter_says_what_is_wrong_in_few_words() {
        let fault = |n: usize| ContentError { pointer: format!("/{n}"), detail: "库".repeat(100) };
        let poison = Poison::from(BodyError::Fields((0..50).map(fault).collect()));
        assert_eq!(poison.reason, "invalid");
        assert!(
            poison.detail.starts_with("/0: ") && poison.detail.chars().count() == MAX_DETAIL_CHARS + 1,
            "{poison:?}"
        );
        assert!(Poison::from(BodyError::Syntax("x".to_owned())).detail.contains('x'));
        let field = ContentError { pointer: "/\u{1b}[2J\n".to_owned(), detail: "is not known".to_owned() };
        assert_eq!(Poison::from(BodyError::Fields(vec![field])).detail, "/\u{fffd}[2J\u{fffd}: is not known");
    }
}
