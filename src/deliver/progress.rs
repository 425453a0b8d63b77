//! What an adapter notes while it is still at it: what became of some of the parcels it was handed, before it begins another
//! message with the others.
//!
//! **Invariant**: where a note comes back with [`Onward::Go`], what was noted is stored. So a process that is killed says
//! at most that message of a call again which it was at.
//!
//! Deliberately not here: what follows of an outcome (`worker`, and `broker` behind it).

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Outcome;
use crate::lifecycle::Lifecycle;

/// How long an adapter waits until what it noted is stored; it begins nothing more behind that.
const STORED_WITHIN: Duration = Duration::from_secs(5);
/// Notes that wait for the worker at most; whoever makes one more waits for a place.
pub(super) const MAX_NOTES: usize = 64;

/// Whether an adapter may begin another message of those that it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    Go,
    /// The server drains, or can't store what was noted. What has not begun is put back.
    Stop,
}

/// Where the adapter of one call notes how far it came.
#[derive(Debug)]
pub struct Progress {
    /// `None` where nobody listens.
    desk: Option<Desk>,
}

#[derive(Debug)]
struct Desk {
    attempt: u64,
    notes: mpsc::Sender<Note>,
    lifecycle: Lifecycle,
}

/// What became of the parcels at these places of an attempt.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) attempt: u64,
    pub(super) places: Vec<usize>,
    pub(super) outcome: Outcome,
    /// Is told when it is stored.
    pub(super) stored: oneshot::Sender<()>,
}

impl Progress {
    /// For whoever takes all outcomes from what [`super::Adapter::send`] returns: nothing is stored, and nothing drains.
    pub const fn unheard() -> Self {
        Self { desk: None }
    }

    pub(super) const fn of(attempt: u64, notes: mpsc::Sender<Note>, lifecycle: Lifecycle) -> Self {
        Self { desk: Some(Desk { attempt, notes, lifecycle }) }
    }

    /// Notes what became of the parcels at these places of those that were handed over, and waits until it is stored, for a few
    /// seconds at most. What is noted counts; what the call returns for the same places does not any more.
    pub async fn note(&self, places: &[usize], outcome: &Outcome) -> Onward {
        let Some(Desk { attempt, notes, .. }) = &self.desk else { return Onward::Go };
        let (stored, is_stored) = oneshot::channel();
        let note = Note { attempt: *attempt, places: places.to_vec(), outcome: outcome.clone(), stored };
        let storing = async { notes.send(note).await.is_ok() && is_stored.await.is_ok() };
        match timeout(STORED_WITHIN, storing).await {
            Ok(true) => self.onward(),
            _ => Onward::Stop,
        }
    }

    /// Resolves when the drain begins, for whoever waits before it begins.
    pub(super) async fn draining(&self) {
        match &self.desk {
            Some(desk) => desk.lifecycle.draining().await,
            None => std::future::pending().await,
        }
    }

    /// Whether another message may begin.
    pub fn onward(&self) -> Onward {
        match &self.desk {
            Some(desk) if desk.lifecycle.is_draining() => Onward::Stop,
            _ => Onward::Go,
        }
    }
}
