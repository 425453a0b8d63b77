//! Lines to the relay that are kept open from one mail to the next, and how many there may be.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::line::Line;

/// Lines at once at most, to whichever domains: relays count them.
const MAX_LINES: usize = 16;
/// Lines that nothing is sent on and that are kept all the same, at most.
const MAX_IDLE_LINES: usize = 4;
/// How long such a line is kept: well below the minutes after which relays hang up.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// Mails on one line at most: relays count them too, and spread their load by new lines.
const MAX_MAILS: u32 = 100;

pub(super) struct Pool {
    /// The one that was used last is taken first, so that those that are not needed grow old.
    idle: Mutex<Vec<Line>>,
    places: Semaphore,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { idle: Mutex::default(), places: Semaphore::new(MAX_LINES) }
    }

    /// Waits for a place for one more line.
    pub(super) async fn place(&self) -> SemaphorePermit<'_> {
        self.places.acquire().await.expect("nobody closes it")
    }

    /// A line that is open already.
    pub(super) fn take(&self, now: Instant) -> Option<Line> {
        let mut idle = self.idle.lock();
        idle.retain(|line| now.saturating_duration_since(line.used) < MAX_IDLE);
        idle.pop()
    }

    /// Keeps a line for the next mail; gives it back where it is to be left.
    pub(super) fn keep(&self, line: Line) -> Option<Line> {
        let mut idle = self.idle.lock();
        if line.mails >= MAX_MAILS || idle.len() >= MAX_IDLE_LINES {
            return Some(line);
        }
        idle.push(line);
        None
    }
}
