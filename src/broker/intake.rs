//! How the way in by a queue is, for those who ask how the server is.
//!
//! The edge that consumes (`intake`) tells; `/readyz` and `/metrics` show. It makes the server neither ready nor not: what
//! comes over HTTP is taken all the same, and what waits in the queue is safe there.

use std::fmt;

use super::Broker;
use crate::model::Timestamp;

/// How the way in is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeState {
    /// The first connection is being made.
    Connecting,
    Consuming,
    /// Nothing comes in until there is a connection again.
    Reconnecting {
        since: Timestamp,
    },
    /// Connected, but some messages can't be taken for now; they stay in the queue and are tried again.
    Waiting {
        since: Timestamp,
        why: String,
    },
    /// The server shuts down.
    Stopped,
}

impl fmt::Display for IntakeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Consuming => f.write_str("consuming"),
            Self::Reconnecting { since } => write!(f, "reconnecting since {since}"),
            Self::Waiting { since, why } => write!(f, "waiting since {since}: {why}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl Broker {
    /// Tells how the way in is now.
    pub fn tell_intake(&self, state: IntakeState) {
        let connected = matches!(state, IntakeState::Consuming | IntakeState::Waiting { .. });
        self.inner.metrics.intake_connected.get_or_create(&[("source", "amqp")]).set(i64::from(connected));
        *self.inner.intake.lock() = Some(state);
    }

    /// How the way in is; `None` where there is none.
    pub fn intake(&self) -> Option<IntakeState> {
        self.inner.intake.lock().clone()
    }
}
