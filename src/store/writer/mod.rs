//! The one writer: an async task that takes what waits, commits it as one group, tells the commit feed, then answers.
//!
//! There is no timer: a group is whatever arrived while the previous one was being written, so one publish alone is
//! committed at once and a thousand share an fsync.
//!
//! [`operation`] says what a change is, [`group`] what a transaction around many of them does.
//!
//! **Invariant**: nobody is answered, and nothing enters the commit feed, before the commit is durable.
//! **Invariant**: after a failed commit or fsync nothing more is written; the process ends and starts anew.

mod group;
mod operation;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use deadpool_sync::SyncWrapper;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use group::{Outcome, Part, commit_group, compact};
pub(super) use group::{State, apply_alone};
pub(super) use operation::Tx;
use operation::{Group, Job, Waiting};
pub use operation::{Need, OpError, Operation};

use super::ballast::LOOK;
use super::commit::Commit;
use super::copying::{Copying, Gone, Wanted};
use super::fault::{Failure, Space, Trouble};
use super::{StoreError, hop};
use crate::interleave;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::Seq;

/// Operations that share one transaction at most.
const MAX_GROUP: usize = 1_024;

/// What waits for the writer.
enum Waiter {
    Job(Box<dyn Job>),
    /// Rewrites the file, which no transaction may be open for; answers with its pages before and after, in bytes.
    Compact(oneshot::Sender<Result<(u64, u64), StoreError>>),
    /// Copies the file, a step between two groups.
    Copy(Wanted),
    /// Asks for a sign of life: an empty commit on the feed.
    Pulse,
}

/// The way to the writer.
pub(super) struct Handle {
    queue: mpsc::Sender<Waiter>,
    head: Arc<AtomicU64>,
    compacting: Arc<AtomicBool>,
}

impl Handle {
    pub(super) async fn submit<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Waiting::new(operation, reply));
        // Unconstrained: with tokio's budget spent, a send gives way before it stands in the queue, and what was handed
        // in later would be committed earlier.
        tokio::task::unconstrained(self.queue.send(Waiter::Job(job))).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Asks for an empty commit on the feed, unless the file is being rewritten, which takes as long as it takes. Whether
    /// one will come.
    pub(super) async fn pulse(&self) -> bool {
        !self.compacting.load(Ordering::Relaxed) && self.queue.send(Waiter::Pulse).await.is_ok()
    }

    pub(super) async fn compact(&self) -> Result<(u64, u64), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Waiter::Compact(reply)).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Copies the file into another, which is given back when it is whole. Dropping the future gives the copy up.
    pub(super) async fn copy(&self, into: Connection) -> Result<Connection, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Waiter::Copy(Wanted { into, reply })).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    pub(super) fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }
}

/// Starts the writer.
pub(super) fn start(
    connection: SyncWrapper<Connection>,
    state: State,
    capacity: usize,
    feed: mpsc::Sender<Commit>,
    trouble: Arc<Trouble>,
    metrics: Arc<Metrics>,
    lifecycle: &Lifecycle,
) -> Handle {
    let (queue, receiver) = mpsc::channel::<Waiter>(capacity);
    let head = Arc::new(AtomicU64::new(state.head.0));
    let compacting = Arc::new(AtomicBool::new(false));
    trouble.tell_full(state.hold.space());
    let writer = Writer { connection, feed, trouble, metrics, head: head.clone(), compacting: compacting.clone() };
    lifecycle.spawn_core(writer.run(receiver, state));
    Handle { queue, head, compacting }
}

/// What the writer goes on with.
enum Turn {
    /// Somebody waits.
    Came,
    /// Nobody came for a while, and the disk was full: is there room by now? Nobody needs to publish for it to be noticed.
    Look,
    /// A copy is done.
    Copied(Result<(), Gone>),
    /// Nobody will come any more.
    Ended,
}

/// Waits for whatever comes first.
async fn next(
    queue: &mut mpsc::Receiver<Waiter>,
    waiting: &mut Vec<Waiter>,
    space: Space,
    copying: Option<&mut Copying<'_>>,
) -> Turn {
    let came = async {
        let came = queue.recv_many(waiting, MAX_GROUP);
        let came = match space {
            Space::Enough => Ok(came.await),
            Space::Short => timeout(LOOK, came).await,
        };
        match came {
            Ok(0) => Turn::Ended,
            Ok(_) => Turn::Came,
            Err(_) => Turn::Look,
        }
    };
    match copying {
        None => came.await,
        Some(copying) => tokio::select! {
            biased;
            done = copying.done() => Turn::Copied(done),
            turn = came => turn,
        },
    }
}

struct Writer {
    connection: SyncWrapper<Connection>,
    feed: mpsc::Sender<Commit>,
    trouble: Arc<Trouble>,
    metrics: Arc<Metrics>,
    head: Arc<AtomicU64>,
    compacting: Arc<AtomicBool>,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Waiter>, mut state: State) {
        #[cfg(test)]
        if interleave::has_fault(interleave::Fault::PublishBeforeCommit) {
            state.early = Some(self.feed.clone());
        }
        let mut waiting = Vec::with_capacity(MAX_GROUP);
        let mut copying: Option<Copying<'_>> = None;
        // Those that wait until a copy is done.
        let (mut compactions, mut copies) = (Vec::new(), Vec::new());
        loop {
            match next(&mut queue, &mut waiting, state.hold.space(), copying.as_mut()).await {
                Turn::Ended => break,
                Turn::Came => {}
                Turn::Look => {
                    let look = |_: &Connection, state: &mut State| state.hold.look();
                    let Some((_, looked)) = self.work(copying.as_mut(), state, look).await else { return };
                    state = looked;
                    self.trouble.tell_full(state.hold.space());
                    continue;
                }
                // Nothing came; what waited for the end of the copy goes on below.
                Turn::Copied(done) => {
                    let ended = match (done, copying.take()) {
                        (Ok(()), Some(copy)) => copy.end().await,
                        (done, _) => done,
                    };
                    if ended.is_err() {
                        self.panicked();
                        return;
                    }
                }
            }
            let mut group = Group::with_capacity(waiting.len());
            let mut pulse = false;
            for waiter in waiting.drain(..) {
                match waiter {
                    Waiter::Job(job) => group.push(job),
                    Waiter::Compact(reply) => compactions.push(reply),
                    Waiter::Copy(wanted) => copies.push(wanted),
                    Waiter::Pulse => pulse = true,
                }
            }
            if pulse {
                let nothing = Commit { head: self.head(), at: Instant::now(), changes: Vec::new() };
                // As below.
                let _ = self.feed.send(nothing).await;
            }
            if self.trouble.has_failed() {
                // A reader has found the file damaged, or the disk failing: whoever waits hears that the store has stopped.
                self.leave().await;
                return;
            }
            if !group.is_empty() {
                let commit = |connection: &Connection, state: &mut State| commit_group(connection, state, group);
                let Some((outcome, kept)) = self.work(copying.as_mut(), state, commit).await else { return };
                state = kept;
                if self.publish(outcome, &state).await.is_break() {
                    return;
                }
            }
            if copying.is_some() {
                continue;
            }
            for reply in compactions.drain(..) {
                self.compacting.store(true, Ordering::Relaxed);
                let compacted = self.work(None, state, compact).await;
                self.compacting.store(false, Ordering::Relaxed);
                let Some(((sizes, outcome), kept)) = compacted else { return };
                state = kept;
                // Whoever asked may have gone.
                let _ = reply.send(sizes);
                if self.publish(outcome, &state).await.is_break() {
                    return;
                }
            }
            copying = copies.pop().map(|wanted| Copying::start(&self.connection, wanted));
        }
        drop(copying);
        self.close().await;
    }

    /// Works on the connection, on a thread that may block: at once, or between two steps of a copy. `None` where the work
    /// panicked, which is the end.
    async fn work<R: Send + 'static>(
        &self,
        copying: Option<&mut Copying<'_>>,
        mut state: State,
        work: impl FnOnce(&Connection, &mut State) -> R + Send + 'static,
    ) -> Option<(R, State)> {
        let work = move |connection: &Connection| {
            let result = work(connection, &mut state);
            (result, state)
        };
        let worked = match copying {
            Some(copying) => copying.between(work).await.ok(),
            None => hop::interact(&self.connection, |connection| work(connection)).await.ok(),
        };
        if worked.is_none() {
            self.panicked();
        }
        worked
    }

    fn panicked(&self) {
        self.trouble.fail(Failure::Broken("the writer panicked".to_owned()));
    }

    fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    /// Tells the feed, then those who wait; breaks where nothing may be written any more. Sequential: one task drains the
    /// feed, so its order is commit order.
    async fn publish(&self, outcome: Outcome, state: &State) -> ControlFlow<()> {
        let Outcome { parts, failure, unreadable } = outcome;
        // Before anybody is answered: who is refused and then looks must find the reason.
        self.trouble.tell_full(state.hold.space());
        if let Some(failure) = &failure {
            self.trouble.fail(failure.clone());
        }
        if let Some(cause) = &unreadable {
            self.trouble.tell_unreadable(cause);
        }
        for Part { jobs, result, commit } in parts {
            self.metrics.batch.observe(u32::try_from(jobs.len()).unwrap_or(u32::MAX).into());
            if let Some((commit, took)) = commit {
                self.metrics.commit.observe(took.as_secs_f64());
                self.head.store(commit.head.0, Ordering::Release);
                interleave::point("committed, not told");
                #[cfg(test)]
                if interleave::has_fault(interleave::Fault::PublishBeforeCommit) {
                    for job in jobs {
                        job.settle(result.clone());
                    }
                    continue;
                }
                // The fan-out outlives the writer; should it be gone, the process is ending.
                let _ = self.feed.send(commit).await;
            }
            for job in jobs {
                interleave::point("told, not answered");
                job.settle(result.clone());
            }
        }
        if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Leaves everything in the one database file, so that a stopped server's file can be copied alone.
    async fn close(self) {
        if self.trouble.has_failed() {
            return self.leave().await;
        }
        let checkpoint = |connection: &mut Connection| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        match hop::interact(&self.connection, checkpoint).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the write-ahead log stays beside the database; the next start takes it in");
            }
            Err(error) => tracing::warn!(%error, "the database was not closed in an orderly way"),
        }
    }

    /// Ends after a failure that somebody else has met: nothing more is written, not even as the connection closes.
    async fn leave(&self) {
        let left = hop::interact(&self.connection, |connection| group::leave_alone(connection)).await;
        if let Err(error) = left {
            tracing::warn!(%error, "SQLite may write once more as it closes the database");
        }
    }
}
