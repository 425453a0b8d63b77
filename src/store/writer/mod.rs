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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use deadpool_sync::SyncWrapper;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

pub(super) use group::State;
use group::{Outcome, Part, commit_group, compact};
use operation::{Group, Job, Waiting};
pub use operation::{OpError, Operation};
pub(super) use operation::Tx;

use super::StoreError;
use super::commit::Commit;
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
    /// Asks for a sign of life: an empty commit on the feed.
    Pulse,
}

/// The way to the writer.
pub(super) struct Handle {
    queue: mpsc::Sender<Waiter>,
    head: Arc<AtomicU64>,
    full: Arc<AtomicBool>,
    compacting: Arc<AtomicBool>,
    failure: watch::Receiver<Option<String>>,
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

    pub(super) fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    /// Why nothing can be written just now, or any more.
    pub(super) fn failure(&self) -> Option<String> {
        let full = self.full.load(Ordering::Relaxed).then(|| "the disk is full".to_owned());
        self.failure.borrow().clone().or(full)
    }

    pub(super) async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        let reason = failure.wait_for(Option::is_some).await.ok().map(|reason| reason.clone().unwrap_or_default());
        match reason {
            Some(reason) => reason,
            // The writer ended with its last caller, as it should.
            None => std::future::pending().await,
        }
    }
}

/// Starts the writer.
pub(super) fn start(
    connection: SyncWrapper<Connection>,
    state: State,
    capacity: usize,
    feed: mpsc::Sender<Commit>,
    metrics: Arc<Metrics>,
    lifecycle: &Lifecycle,
) -> Handle {
    let (queue, receiver) = mpsc::channel::<Waiter>(capacity);
    let head = Arc::new(AtomicU64::new(state.head.0));
    let (failure, failed) = watch::channel(None);
    let full = Arc::new(AtomicBool::new(false));
    let compacting = Arc::new(AtomicBool::new(false));
    let writer = Writer {
        connection,
        feed,
        metrics,
        head: head.clone(),
        full: full.clone(),
        compacting: compacting.clone(),
        failure,
    };
    lifecycle.spawn_core(writer.run(receiver, state));
    Handle { queue, head, full, compacting, failure: failed }
}

struct Writer {
    connection: SyncWrapper<Connection>,
    feed: mpsc::Sender<Commit>,
    metrics: Arc<Metrics>,
    head: Arc<AtomicU64>,
    /// The newest commit failed because the disk is full.
    full: Arc<AtomicBool>,
    compacting: Arc<AtomicBool>,
    failure: watch::Sender<Option<String>>,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Waiter>, mut state: State) {
        let mut waiting = Vec::with_capacity(MAX_GROUP);
        while queue.recv_many(&mut waiting, MAX_GROUP).await > 0 {
            let (mut group, mut compactions) = (Group::with_capacity(waiting.len()), Vec::new());
            let mut pulse = false;
            for waiter in waiting.drain(..) {
                match waiter {
                    Waiter::Job(job) => group.push(job),
                    Waiter::Compact(reply) => compactions.push(reply),
                    Waiter::Pulse => pulse = true,
                }
            }
            if pulse {
                let nothing = Commit { head: self.head(), at: Instant::now(), changes: Vec::new() };
                // As below.
                let _ = self.feed.send(nothing).await;
                if group.is_empty() && compactions.is_empty() {
                    continue;
                }
            }
            let work = move |connection: &mut Connection| {
                let committed = commit_group(connection, &mut state, group);
                (committed, state)
            };
            let Ok((outcome, kept)) = self.connection.interact(work).await else {
                self.fail("the writer panicked");
                return;
            };
            state = kept;
            let Outcome { parts, fatal } = outcome;
            self.publish(parts).await;
            if let Some(reason) = fatal {
                self.fail(&reason);
                return;
            }
            for reply in compactions {
                self.compacting.store(true, Ordering::Relaxed);
                let compacted = self.connection.interact(|connection| compact(connection)).await;
                self.compacting.store(false, Ordering::Relaxed);
                // Whoever asked may have gone.
                let _ = reply.send(compacted.map_err(|_| StoreError::Stopped).flatten());
            }
        }
        self.close().await;
    }

    fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    /// Tells the feed, then those who wait. Sequential: one task drains the feed, so its order is commit order.
    async fn publish(&self, parts: Vec<Part>) {
        for Part { jobs, result, commit } in parts {
            self.metrics.batch.observe(u32::try_from(jobs.len()).unwrap_or(u32::MAX).into());
            if let Some((commit, took)) = commit {
                self.metrics.commit.observe(took.as_secs_f64());
                self.head.store(commit.head.0, Ordering::Release);
                self.tell_full(false);
                // The fan-out outlives the writer; should it be gone, the process is ending.
                let _ = self.feed.send(commit).await;
            }
            if matches!(result, Err(StoreError::Full)) {
                self.tell_full(true);
            }
            for job in jobs {
                job.settle(result.clone());
            }
        }
    }

    /// Told once when the disk fills and once when there is room again, not for each publish.
    fn tell_full(&self, full: bool) {
        if self.full.swap(full, Ordering::Relaxed) == full {
            return;
        }
        if full {
            tracing::error!(
                "the disk is full: publishes are refused and reading goes on; free some space, no restart is needed"
            );
        } else {
            tracing::info!("there is room on the disk again; publishes are taken");
        }
    }

    /// Leaves everything in the one database file, so that a stopped server's file can be copied alone.
    async fn close(self) {
        let checkpoint = |connection: &mut Connection| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        match self.connection.interact(checkpoint).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the write-ahead log stays beside the database; the next start takes it in");
            }
            Err(error) => tracing::warn!(%error, "the database was not closed in an orderly way"),
        }
    }

    fn fail(&self, reason: &str) {
        tracing::error!(
            reason,
            "the database can't be written any more; the process ends so that it starts from what is durable"
        );
        let _ = self.failure.send(Some(reason.to_owned()));
    }
}
