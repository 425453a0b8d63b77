//! Lines to the relay that are kept open from one mail to the next, and how many there may be.
//!
//! A mail takes a place first, and on it a line that is open already, or it opens one. Since one is only opened where none is
//! idle, there are never more lines than places were taken at once. **Invariant**: a line that nothing was sent on for
//! [`MAX_IDLE`] is left, within as long again.
//!
//! Deliberately not here: how many places there are (`allowance`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::allowance::{self, Allowance, Lines, Lowered};
use super::line::Line;

/// How long a line that nothing is sent on is kept: well below the minutes after which relays hang up.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// Mails on one line at most: relays count them too, and spread their load by new lines.
const MAX_MAILS: u32 = 100;

pub(super) struct Pool {
    shared: Arc<Shared>,
    /// Leaves lines that have grown old; one task at most. Nobody waits for it: what it did not leave ends with the process.
    sweeper: Mutex<JoinSet<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Whoever waits for a place looks again.
    changed: Notify,
}

struct State {
    allowance: Allowance,
    /// The one that was used last is taken first, so that those that are not needed grow old.
    idle: Vec<Line>,
    taken: usize,
    working: usize,
    sweeping: Sweeping,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sweeping {
    On,
    Off,
}

impl State {
    fn lines(&self) -> Lines {
        Lines { taken: self.taken, working: self.working, idle: self.idle.len() }
    }

    /// Takes those out that nothing was sent on for too long; they stand at the beginning.
    fn old(&mut self, now: Instant) -> Vec<Line> {
        let young = self.idle.iter().position(|line| now.saturating_duration_since(line.used) < MAX_IDLE);
        let old = young.unwrap_or(self.idle.len());
        self.idle.drain(..old).collect()
    }
}

/// The right of one mail to have a line.
pub(super) struct Place<'p> {
    shared: &'p Shared,
    is_working: bool,
    /// What it has done with, and is to be left when the mail is settled.
    pub(super) done_with: Option<Line>,
}

impl Pool {
    /// For so many lines at most.
    pub(super) fn new(most: usize) -> Self {
        let state =
            State { allowance: Allowance::new(most), idle: Vec::new(), taken: 0, working: 0, sweeping: Sweeping::Off };
        let shared = Shared { state: Mutex::new(state), changed: Notify::new() };
        Self { shared: Arc::new(shared), sweeper: Mutex::default() }
    }

    /// Waits for a place for one more mail.
    pub(super) async fn place(&self) -> Place<'_> {
        loop {
            // Before it is looked, so that no change after the look is missed.
            let changed = self.shared.changed.notified();
            let span = {
                let mut state = self.shared.state.lock();
                let lines = state.lines();
                match state.allowance.place(lines, Instant::now()) {
                    allowance::Place::Free => {
                        state.taken += 1;
                        return Place { shared: &self.shared, is_working: false, done_with: None };
                    }
                    allowance::Place::Taken(span) => span,
                }
            };
            match span {
                Some(span) => {
                    // Either way it is looked again.
                    let _ = timeout(span, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Keeps a place's line for the next mail, or leaves it to the place to be done with.
    pub(super) fn keep(&self, line: Line, place: &mut Place<'_>) {
        let mut state = self.shared.state.lock();
        if line.mails >= MAX_MAILS || state.idle.len() >= state.allowance.most() {
            place.done_with = Some(line);
            return;
        }
        state.idle.push(line);
        // It is one line still.
        if std::mem::replace(&mut place.is_working, false) {
            state.working -= 1;
        }
        if state.sweeping == Sweeping::Off {
            state.sweeping = Sweeping::On;
            let mut sweeper = self.sweeper.lock();
            while sweeper.try_join_next().is_some() {}
            sweeper.spawn(sweep(self.shared.clone()));
        }
    }
}

/// Leaves lines that have grown old, until there are none.
async fn sweep(shared: Arc<Shared>) {
    loop {
        sleep(MAX_IDLE).await;
        let old = {
            let mut state = shared.state.lock();
            if state.idle.is_empty() {
                state.sweeping = Sweeping::Off;
                return;
            }
            state.old(Instant::now())
        };
        for line in old {
            line.leave().await;
        }
    }
}

impl Place<'_> {
    /// A line that is open already.
    pub(super) fn take(&mut self) -> Option<Line> {
        let line = self.shared.state.lock().idle.pop()?;
        self.set_working(true);
        Some(line)
    }

    /// The place has a line that was opened for it.
    pub(super) fn opened(&mut self) {
        self.set_working(true);
        let mut state = self.shared.state.lock();
        let lines = state.lines();
        state.allowance.opened(lines.working + lines.idle);
    }

    /// The line that it had was dead.
    pub(super) fn lost(&mut self) {
        self.set_working(false);
    }

    /// The relay listened on the line that it has.
    pub(super) fn worked(&self) {
        self.shared.state.lock().allowance.worked(Instant::now());
    }

    /// It was not let in. Whether others of ours are, so that there are fewer from now on.
    pub(super) fn refused(&mut self) -> Lowered {
        self.set_working(false);
        let mut state = self.shared.state.lock();
        let Lines { working, idle, .. } = state.lines();
        state.allowance.lower(working + idle, Instant::now())
    }

    fn set_working(&mut self, is_working: bool) {
        if std::mem::replace(&mut self.is_working, is_working) == is_working {
            return;
        }
        let mut state = self.shared.state.lock();
        if is_working {
            state.working += 1;
        } else {
            state.working -= 1;
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.set_working(false);
        self.shared.state.lock().taken -= 1;
        self.shared.changed.notify_waiters();
    }
}
