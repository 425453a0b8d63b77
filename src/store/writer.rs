//! The one writer: an async task that takes what waits, commits it as one group, tells the commit feed, then answers.
//!
//! There is no timer: a group is whatever arrived while the previous one was being written, so one publish alone is
//! committed at once and a thousand share an fsync.
//!
//! **Invariant**: an operation checks everything before it writes, so a refused one leaves nothing in the group.
//! **Invariant**: nobody is answered, and nothing enters the commit feed, before the commit is durable.
//! **Invariant**: after a failed commit or fsync nothing more is written; the process ends and starts anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use deadpool_sync::SyncWrapper;
use rusqlite::{CachedStatement, Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::commit::{Change, Commit};
use super::log::{HeadFile, UPDATE_HEAD};
use super::{Refusal, StoreError};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::{Category, Epoch, Seq};

/// Operations that share one transaction at most.
const MAX_GROUP: usize = 1_024;

/// One change to the database. May be applied more than once, each time in a fresh transaction.
pub trait Operation: Send + 'static {
    type Output: Send + 'static;

    /// Checks, then writes.
    ///
    /// # Errors
    /// [`OpError::Refused`] before anything is written, [`OpError::Sql`] at any time.
    #[doc(hidden)]
    fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Output, OpError>;
}

/// Why an operation did not happen.
#[derive(Debug)]
pub enum OpError {
    Refused(Refusal),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for OpError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Refusal> for OpError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The open transaction of a group, as operations see it.
pub struct Tx<'a> {
    connection: &'a Connection,
    epoch: &'a Epoch,
    head: Seq,
    changes: Vec<Change>,
    categories: &'a mut HashMap<Category, i64>,
}

impl Tx<'_> {
    /// A prepared statement, kept for the next use.
    pub(super) fn sql(&self, sql: &str) -> Result<CachedStatement<'_>, rusqlite::Error> {
        self.connection.prepare_cached(sql)
    }

    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    pub(super) fn epoch(&self) -> &Epoch {
        self.epoch
    }

    /// The newest position given out.
    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// Gives out the next position.
    pub(super) fn next_seq(&mut self) -> Seq {
        self.head = self.head.next();
        self.head
    }

    /// Tells the commit feed.
    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(super) fn categories(&mut self) -> &mut HashMap<Category, i64> {
        self.categories
    }
}

/// What the writer keeps between groups.
pub(super) struct State {
    pub(super) epoch: Epoch,
    head: Seq,
    head_file: HeadFile,
    categories: HashMap<Category, i64>,
}

impl State {
    pub(super) fn new(epoch: Epoch, head: Seq, head_file: HeadFile) -> Self {
        Self { epoch, head, head_file, categories: HashMap::new() }
    }
}

/// An operation on its way, with the way back.
trait Job: Send {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), rusqlite::Error>;
    fn settle(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Waiting<O: Operation> {
    operation: O,
    result: Option<Result<O::Output, Refusal>>,
    reply: oneshot::Sender<Result<O::Output, StoreError>>,
}

impl<O: Operation> Job for Waiting<O> {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), rusqlite::Error> {
        self.result = Some(match self.operation.apply(tx) {
            Ok(output) => Ok(output),
            Err(OpError::Refused(refusal)) => Err(refusal),
            Err(OpError::Sql(error)) => return Err(error),
        });
        Ok(())
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let answer = outcome.and_then(|()| match result {
            Some(Ok(output)) => Ok(output),
            Some(Err(refusal)) => Err(StoreError::Refused(refusal)),
            None => Err(StoreError::Stopped),
        });
        // Whoever asked may have gone; what is committed stays committed.
        let _ = reply.send(answer);
    }
}

type Group = Vec<Box<dyn Job>>;

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
        let job = Box::new(Waiting { operation, result: None, reply });
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

/// What became of a group.
struct Outcome {
    parts: Vec<Part>,
    fatal: Option<String>,
}

/// Operations that shared one transaction.
struct Part {
    jobs: Group,
    result: Result<(), StoreError>,
    commit: Option<(Commit, std::time::Duration)>,
}

/// Rewrites the file without what was deleted, then empties the log of writes, which holds copies too.
fn compact(connection: &Connection) -> Result<(u64, u64), StoreError> {
    let size = || -> Result<u64, rusqlite::Error> {
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        Ok(pragma("page_count")? * pragma("page_size")?)
    };
    let before = size()?;
    connection.execute_batch("VACUUM")?;
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        // The old pages are still in the file, and in the log of writes, for whoever reads them.
        return Err(StoreError::Refused(Refusal::BeingRead));
    }
    Ok((before, size()?))
}

fn commit_group(connection: &mut Connection, state: &mut State, mut group: Group) -> Outcome {
    match try_commit(connection, state, &mut group) {
        Ok(commit) => Outcome { parts: vec![Part { jobs: group, result: Ok(()), commit: Some(commit) }], fatal: None },
        // One operation that SQLite refuses must not cost the others theirs: each gets a transaction of its own.
        Err(error) if group.len() > 1 && is_of_one_operation(&error) => {
            let mut parts = Vec::with_capacity(group.len());
            let mut fatal = None;
            for job in group {
                if let Some(reason) = &fatal {
                    parts.push(Part {
                        jobs: vec![job],
                        result: Err(StoreError::Failed(String::clone(reason))),
                        commit: None,
                    });
                    continue;
                }
                let outcome = commit_group(connection, state, vec![job]);
                parts.extend(outcome.parts);
                fatal = outcome.fatal;
            }
            Outcome { parts, fatal }
        }
        Err(error) => {
            let fatal = is_fatal(&error).then(|| error.to_string());
            if !is_full(&error) {
                tracing::error!(%error, operations = group.len(), "a commit failed; nothing of it is stored");
            }
            Outcome { parts: vec![Part { jobs: group, result: Err(error.into()), commit: None }], fatal }
        }
    }
}

fn try_commit(
    connection: &mut Connection,
    state: &mut State,
    group: &mut Group,
) -> Result<(Commit, std::time::Duration), rusqlite::Error> {
    let started = Instant::now();
    let State { epoch, head, head_file, categories } = state;
    let result = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut tx = Tx { connection: &transaction, epoch, head: *head, changes: Vec::new(), categories };
        for job in group.iter_mut() {
            job.apply(&mut tx)?;
        }
        let Tx { head: reached, changes, .. } = tx;
        if reached != *head {
            transaction.prepare_cached(UPDATE_HEAD)?.execute([i64::try_from(reached.0).unwrap_or(i64::MAX)])?;
        }
        transaction.commit()?;
        Ok((reached, changes))
    })();
    match result {
        Ok((reached, changes)) => {
            *head = reached;
            if let Err(error) = head_file.write(epoch, reached) {
                tracing::warn!(%error, "the file beside the database could not be written");
            }
            let at = Instant::now();
            Ok((Commit { head: reached, at, changes }, at - started))
        }
        Err(error) => {
            // It may name categories that were rolled back.
            categories.clear();
            Err(error)
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull))
}

/// Whether trying the others alone may help.
fn is_of_one_operation(error: &rusqlite::Error) -> bool {
    !is_fatal(error) && !matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy))
}

/// After a failed write or fsync the file's state is unknown to this process; an fsync is never tried twice.
fn is_fatal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
