//! Reads: a few tasks, each with a connection of the pool, that run what waits in one hop to a blocking thread.
//!
//! deadpool's own round trip costs two hops a read; a storm of reconnects asks for thousands at once, so each task
//! takes what is queued and runs it in one go, as the writer does with commits.
//!
//! **Invariant**: connections here are `query_only`; a snapshot is one read transaction and ends with its closure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use deadpool_sqlite::{Hook, HookError, Pool, PoolError, Runtime};
use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, TransactionBehavior};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::fault::{Failure, Trouble};
use super::open::{OpenError, configure_any};
use super::{Config, StoreError, hop};
use crate::interleave;
use crate::lifecycle::Lifecycle;
use crate::model::{Epoch, Seq};

const SELECT_HEAD: &str = "SELECT head FROM log WHERE id = 1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_HEAD];

/// Reads that share one hop at most; more would keep the last of them waiting for the first.
const MAX_READS: usize = 16;
/// Reads that may wait; beyond it callers wait to hand theirs in.
const QUEUE: usize = 1_024;

/// A read, with a connection, or with why there is none.
type Job = Box<dyn FnOnce(Result<&mut Connection, StoreError>) + Send>;

/// The way to the readers.
pub(super) struct Readers {
    queue: mpsc::Sender<Job>,
    trouble: Arc<Trouble>,
}

impl Readers {
    pub(super) fn new(
        path: &Path,
        config: &Config,
        trouble: Arc<Trouble>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, OpenError> {
        let cache_kib = config.cache_kib;
        let mut settings = deadpool_sqlite::Config::new(path);
        settings.pool = Some(deadpool_sqlite::PoolConfig::new(config.readers.max(1)));
        let hook = Hook::async_fn(move |connection: &mut deadpool_sync::SyncWrapper<Connection>, _| {
            Box::pin(async move {
                let configured = connection.interact(move |c| {
                    configure_any(c, cache_kib)?;
                    // Only the writer knows whether the log of writes may still be taken in.
                    c.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                    c.execute_batch("PRAGMA query_only = ON")
                });
                match configured.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(e)) => Err(HookError::Backend(e)),
                    Err(e) => Err(HookError::message(e.to_string())),
                }
            })
        });
        let pool = settings
            .builder(Runtime::Tokio1)
            .map_err(|e| OpenError::Io(std::io::Error::other(e)))?
            .post_create(hook)
            .build()
            .map_err(|e| OpenError::Io(std::io::Error::other(e)))?;
        let (queue, receiver) = mpsc::channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..config.readers.max(1) {
            lifecycle.spawn_core(run(pool.clone(), receiver.clone()));
        }
        Ok(Self { queue, trouble })
    }

    pub(super) async fn run<R, F>(&self, epoch: Epoch, work: F) -> Result<R, StoreError>
    where
        F: FnOnce(&mut Session<'_>) -> Result<R, StoreError> + Send + 'static,
        R: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| {
                let mut session = Session { connection, epoch };
                // A panic in one read must not take the reads that share its hop with it.
                catch_unwind(AssertUnwindSafe(|| work(&mut session)))
                    .unwrap_or_else(|_| Err(StoreError::Failed("a read panicked".to_owned())))
            });
            let _ = reply.send(result);
        });
        self.queue.send(job).await.map_err(|_| StoreError::Stopped)?;
        let result = answer.await.map_err(|_| StoreError::Stopped)?;
        match &result {
            Err(StoreError::Unreadable(cause)) => self.trouble.tell_unreadable(cause),
            // What is written into a damaged file may be lost with it.
            Err(StoreError::Damaged(cause)) => self.trouble.fail(Failure::Damaged(cause.clone())),
            // Without connections, or shared memory, nothing can be read, and a new start may have them.
            Err(StoreError::Broken(cause)) => self.trouble.fail(Failure::Broken(cause.clone())),
            _ => {}
        }
        result
    }
}

async fn run(pool: Pool, queue: Arc<Mutex<mpsc::Receiver<Job>>>) {
    loop {
        let mut jobs = Vec::new();
        if queue.lock().await.recv_many(&mut jobs, MAX_READS).await == 0 {
            return;
        }
        let connection = match hop::wait(pool.get()).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, "no connection for reading; those who wait are told");
                let told = unopened(error);
                for job in jobs {
                    job(Err(told.clone()));
                }
                continue;
            }
        };
        let mut rest = jobs;
        loop {
            let batch = rest;
            let ran = hop::interact(&connection, move |c| batch.into_iter().for_each(|job| job(Ok(&mut *c))));
            if ran.await.is_err() {
                break; // poisoned: the pool makes a new one
            }
            // Keep the connection while there is work: giving it back costs a hop of its own.
            rest = Vec::new();
            if queue.lock().await.recv_many(&mut rest, MAX_READS).await == 0 {
                return;
            }
        }
    }
}

/// What an error of opening a connection means: the same as one of reading.
fn unopened(error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => error.into(),
        // It was not asked for in vain by what this reader reads.
        error => {
            tracing::warn!(%error, "a connection for reading could not be had");
            StoreError::Busy
        }
    }
}

/// A reading connection for the length of one closure.
pub struct Session<'c> {
    connection: &'c mut Connection,
    epoch: Epoch,
}

impl Session<'_> {
    /// Reads at one head: everything inside sees the same state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn snapshot<R>(&mut self, work: impl FnOnce(&Reader<'_>) -> Result<R, StoreError>) -> Result<R, StoreError> {
        interleave::point("a snapshot begins");
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let head: i64 = transaction.prepare_cached(SELECT_HEAD)?.query_row([], |row| row.get(0))?;
        interleave::point("the head is taken");
        let reader =
            Reader { connection: &transaction, head: Seq(u64::try_from(head).unwrap_or_default()), epoch: &self.epoch };
        work(&reader)
    }
}

/// One read transaction.
pub struct Reader<'t> {
    connection: &'t Connection,
    head: Seq,
    epoch: &'t Epoch,
}

impl<'t> Reader<'t> {
    /// Reads on a connection that nobody writes to meanwhile.
    pub(super) fn on(connection: &'t Connection, head: Seq, epoch: &'t Epoch) -> Self {
        Self { connection, head, epoch }
    }
}

impl Reader<'_> {
    /// The head this transaction sees.
    pub fn head(&self) -> Seq {
        self.head
    }

    pub fn epoch(&self) -> &Epoch {
        self.epoch
    }

    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    pub(super) fn sql(&self, sql: &str) -> Result<CachedStatement<'_>, rusqlite::Error> {
        self.connection.prepare_cached(sql)
    }
}
