//! How the way in by a queue is, for those who ask how the server is, and what came by it that could not be taken.
//!
//! The edge that consumes (`intake`) tells; `/readyz`, `/v1/status` and `/metrics` show. It makes the server neither ready nor
//! not: what comes over HTTP is taken all the same, and what waits in the queue is safe there.
//!
//! **Invariant**: what is remembered is bounded by [`MAX_UNTAKEN`], and is never what a message says.

use std::collections::VecDeque;
use std::fmt;

use super::Broker;
use crate::model::Timestamp;

/// Messages that could not be taken, of which it is remembered why: the newest.
const MAX_UNTAKEN: usize = 20;

/// How the way in is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeState {
    /// The first connection is being made.
    Connecting,
    Consuming,
    /// Nothing comes in until there is a connection again. The reason may name hosts and queues: it is the operator's.
    Reconnecting {
        since: Timestamp,
        why: String,
    },
    /// Connected, but some messages can't be taken for now; they stay in the queue and are tried again.
    Waiting {
        since: Timestamp,
        why: String,
    },
    /// The server shuts down.
    Stopped,
}

/// As everybody may see it.
impl fmt::Display for IntakeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Consuming => f.write_str("consuming"),
            Self::Reconnecting { since, why: _ } => write!(f, "reconnecting since {since}"),
            Self::Waiting { since, why } => write!(f, "waiting since {since}: {why}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// A message that never could be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untaken {
    pub at: Timestamp,
    /// Out of a closed set: `x-tidings-reason` of its dead letter.
    pub reason: &'static str,
    /// What is wrong with it, in a few words.
    pub detail: String,
    /// The property `message_id`, where it has one.
    pub id: Option<String>,
    pub bytes: u64,
    pub went: Went,
}

/// Where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    DeadLettered,
    /// To the queue's own dead-lettering, if it has any.
    Rejected,
}

impl Went {
    /// As `/metrics` and `/v1/status` name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeadLettered => "dead_lettered",
            Self::Rejected => "rejected",
        }
    }
}

/// What is known of the way in.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// `None` where there is none.
    state: Option<IntakeState>,
    /// The newest last.
    untaken: VecDeque<Untaken>,
}

impl Broker {
    /// Tells how the way in is now.
    pub fn tell_intake(&self, state: IntakeState) {
        let connected = matches!(state, IntakeState::Consuming | IntakeState::Waiting { .. });
        self.inner.metrics.intake_connected.get_or_create(&[("source", "amqp")]).set(i64::from(connected));
        self.inner.intake.lock().state = Some(state);
    }

    /// Tells of a message that never could be taken; the oldest that is remembered gives way.
    pub fn tell_untaken(&self, untaken: Untaken) {
        let mut intake = self.inner.intake.lock();
        if intake.untaken.len() >= MAX_UNTAKEN {
            intake.untaken.pop_front();
        }
        intake.untaken.push_back(untaken);
    }

    /// How the way in is; `None` where there is none.
    pub fn intake(&self) -> Option<IntakeState> {
        self.inner.intake.lock().state.clone()
    }

    /// The last messages that could not be taken since the start, the newest first.
    pub fn untaken(&self) -> Vec<Untaken> {
        self.inner.intake.lock().untaken.iter().rev().cloned().collect()
    }
}
