//! The log and the inboxes in one SQLite file.
//!
//! Writes go to one writer, which commits what arrived meanwhile as one group ([`writer`]); reads run in short read
//! transactions on connections of a pool ([`reader`]). What a group changed leaves through the commit feed
//! ([`commit`]), in seq order and only once it is durable. Each table family has a file of its own, with its SQL
//! beside the mapping of its rows.
//!
//! **Invariant**: `synchronous=FULL`; there is no setting for it. **Invariant**: no rusqlite type leaves this module.
//!
//! It does not know who may do what, and never talks to subscribers.
//!
//! Rank 2: imports `model`, `clock`, `metrics`, `lifecycle`, `interleave`.

mod backup;
mod ballast;
mod check;
pub mod commit;
mod copying;
mod deaths;
mod deliveries;
mod dispatches;
mod erase;
mod expansions;
mod export;
mod fault;
mod follows;
mod hop;
mod idempotency;
mod inbox;
mod keys;
mod leases;
mod letters;
mod log;
mod marks;
mod notifications;
mod open;
mod placed;
mod profiles;
mod publish;
mod reader;
mod recount;
mod rehearsal;
mod remains;
mod replay;
mod restore;
mod retention;
mod revocations;
mod schedule;
#[cfg(test)]
mod scratch;
mod sight;
mod sql;
#[cfg(test)]
mod statements;
mod states;
mod status;
mod strays;
mod templates;
mod tickets;
mod topics;
mod users;
mod wordings;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

pub use backup::Backup;
pub use ballast::{BALLAST_BYTES, Ballast, Laid};
pub use check::{Check, Mend, check_stopped};
pub use commit::{Change, Commit, OutboxEvent, Reach, Standing};
pub use deaths::{Retract, RetractOutcome};
pub use dispatches::{Completeness, DeliveryRows, MAX_LOOKED_AT, PruneDeliveries, Retry};
pub use erase::{EraseRows, ErasedPart, ForgetUser, Forgotten};
pub use expansions::{Expand, Expanded, MAX_CARRIED, MAX_EXPANSIONS};
pub use export::UserRow;
pub use fault::Failure;
pub use follows::{AskedBy, Follow, FollowOutcome, FollowedRow, MAX_FOLLOWED, Mute, Muting, Unfollow};
pub use idempotency::{IdempotencyKey, PruneIdempotency, Recall};
pub use inbox::{InboxState, PageQuery, StatedEntry};
pub use keys::{AddKey, KeyRow, RevokeKey, RotateKey, TouchKeys};
pub use leases::{Ending, FindLanes, FreeLeases, LaneRow, Leased, Turn, Verdict, Wanted};
pub use marks::{MarkEntries, MarkOutcome};
pub use open::OpenError;
pub use placed::{Belonging, PlacedRows, Standpoint};
pub use profiles::{Acquaintance, PutProfile};
pub use publish::{Place, Policy, Publish, PublishOutcome, Unknown, When};
pub use reader::{Reader, Session};
pub use recount::{Drift, RepairTopics, RepairUser};
pub use rehearsal::{Rehearse, Rehearsed};
pub use replay::{Kinds, Position, Replayed, Shared};
pub use restore::{Aside, RestoreError, Restored, Stage, restore, verify};
pub use retention::{ClearTopic, MAX_TAKEN, OldTopic, PruneTopic, PruneUser, Retention, Shrink, Surplus};
pub use revocations::{MAX_REVOCATIONS, Restore, Revoke};
pub use schedule::{MAX_SCHEDULED, PruneFailed, Reschedule, ScheduledRow, SettleDue, Settled};
pub use sight::{Sight, Span};
pub use status::{About, Readership};
pub use strays::{GiveUp, GiveUpLanes};
pub use templates::{
    DeleteTemplate, MAX_TEMPLATE_VERSIONS, MAX_TEMPLATES, PublishTemplate, PutTemplate, Registered, TemplateRow,
    TemplateVersion, Which,
};
pub use tickets::{AddTicket, PruneTickets, TicketRow, UseTicket};
pub use topics::{DeleteTopic, PutTopic, TopicRow};
pub use users::Appear;

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::{Category, ContentError, Epoch, Seq, Timestamp, UserId};
use fault::{Fault, Trouble};
use writer::Operation;

/// Categories a database may hold; counts are kept by category, so their number is bounded.
pub const MAX_CATEGORIES: usize = 1_000;

/// How the store is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connections that read.
    pub readers: usize,
    /// Operations that may wait for the writer; beyond it callers wait to hand theirs in.
    pub queue: usize,
    /// Commits that may wait for the fan-out; beyond it the writer waits.
    pub feed: usize,
    /// Page cache of each connection, in KiB.
    pub cache_kib: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { readers: 4, queue: 1_024, feed: 64, cache_kib: 4 * 1024 }
    }
}

/// Why an operation was refused before it wrote anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The topic bears another category.
    CategoryConflict(Category),
    UnknownTopic,
    /// [`MAX_CATEGORIES`] is reached.
    TooManyCategories,
    /// The key was used with another body.
    IdempotencyMismatch,
    /// The position lies ahead of the head.
    Ahead,
    /// What was not found.
    NotFound(&'static str),
    UnknownUsers(Vec<UserId>),
    /// Followers of this topic are managed by backends.
    TopicManaged,
    /// [`MAX_FOLLOWED`] is reached.
    TooManyFollowed,
    /// [`MAX_SCHEDULED`] is reached.
    TooManyScheduled,
    /// More people than [`MAX_CARRIED`] would be reached by media other than the inbox.
    TooManyCarried,
    /// [`MAX_EXPANSIONS`] is reached.
    TooManyExpansions,
    /// [`MAX_REVOCATIONS`] is reached.
    TooManyRevocations,
    /// A user's preferences name more categories than are kept.
    TooManyPreferences,
    /// [`MAX_TEMPLATES`] is reached.
    TooManyTemplates,
    /// It does not wait any more.
    NotScheduled,
    /// One copy of the log is made at a time.
    CopyRunning,
    /// A copy needs more bytes than are free.
    NoRoom {
        needed: u64,
        free: u64,
    },
    /// Another program reads the file, and what it reads can't be cleared away.
    BeingRead,
    /// What is wrong with when it comes and goes.
    Untimely(Vec<ContentError>),
    /// Its end lies before its beginning.
    ExpiresBeforeDue,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The disk is full: writes fail until there is room, reads go on.
    #[error("the disk is full")]
    Full,
    /// Another program holds the file, or the process is short of memory or files; nothing was stored.
    #[error("the database is busy")]
    Busy,
    /// A part of the file can't be read.
    #[error("a part of the database can't be read: {0}")]
    Unreadable(String),
    /// A file that SQLite needs for a read can't be written: the disk is full, or fails. Nothing was stored.
    #[error("a file of the database can't be written: {0}")]
    Unwritable(String),
    /// The file, or a copy of it, is not what SQLite wrote. Where a read of the log finds it so, the process is about to end.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A write or an fsync failed, or a connection can't be had. Where a read of the log finds it so, the process is about to end.
    #[error("the disk failed: {0}")]
    Broken(String),
    /// The writer has ended; the process is about to.
    #[error("the store has stopped")]
    Stopped,
    /// This operation failed; nothing of it is stored, and others go on.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match Fault::of(&error) {
            Fault::Full => Self::Full,
            Fault::Busy | Fault::FullOrBusy => Self::Busy,
            Fault::Unreadable => Self::Unreadable(error.to_string()),
            Fault::Damaged => Self::Damaged(error.to_string()),
            Fault::Broken | Fault::ReadOnly => Self::Broken(error.to_string()),
            // Whether the disk is full is not looked at here: the writer meets it too, and does.
            Fault::FullOrBroken => Self::Unwritable(error.to_string()),
            Fault::Operation => Self::Failed(error.to_string()),
        }
    }
}

/// The database of one state directory. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    epoch: Epoch,
    path: PathBuf,
    readers: reader::Readers,
    trouble: Arc<Trouble>,
    writer: writer::Handle,
    copies: Arc<Semaphore>,
}

impl Store {
    /// Opens (or creates) the database in `directory`, brings its schema up to date and starts the writer.
    ///
    /// Returns the commit feed too: whoever drains it sees every commit, once, in order.
    ///
    /// # Errors
    /// [`OpenError`], whose text says what to do.
    pub async fn open(
        directory: &Path,
        now: Timestamp,
        config: &Config,
        metrics: Arc<Metrics>,
        lifecycle: &Lifecycle,
    ) -> Result<(Self, mpsc::Receiver<Commit>), OpenError> {
        backup::clean(directory);
        let opened = open::open(directory, now, config).await?;
        let (sender, feed) = mpsc::channel(config.feed);
        let epoch = opened.state.epoch.clone();
        let trouble = Arc::new(Trouble::default());
        let readers = reader::Readers::new(&opened.path, config, trouble.clone(), lifecycle)?;
        let writer =
            writer::start(opened.connection, opened.state, config.queue, sender, trouble.clone(), metrics, lifecycle);
        let copies = backup::places();
        Ok((Self { inner: Arc::new(Inner { epoch, path: opened.path, readers, trouble, writer, copies }) }, feed))
    }

    /// The identity of this log.
    pub fn epoch(&self) -> &Epoch {
        &self.inner.epoch
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Hands an operation to the writer and waits until it is durable.
    ///
    /// It enters the queue when this future is first polled. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.inner.writer.submit(operation).await
    }

    /// Rewrites the database file without what was deleted; nothing else is written meanwhile. Its size in bytes before
    /// and after.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn compact(&self) -> Result<(u64, u64), StoreError> {
        self.inner.writer.compact().await
    }

    /// Runs `work` on a reading connection. It may take several snapshots, one after the other; keep each short, since
    /// an open one keeps the write-ahead log from being reused.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        F: FnOnce(&mut Session<'_>) -> Result<R, StoreError> + Send + 'static,
        R: Send + 'static,
    {
        self.inner.readers.run(self.inner.epoch.clone(), work).await
    }

    /// Asks the writer for a sign of life, which comes on the commit feed as an empty commit. `false` where none will come:
    /// it rewrites the file, or has ended.
    pub async fn pulse(&self) -> bool {
        self.inner.writer.pulse().await
    }

    /// Bytes of the database file, and of the write-ahead log beside it.
    pub fn sizes(&self) -> (u64, u64) {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut log = self.inner.path.clone().into_os_string();
        log.push("-wal");
        (size(&self.inner.path), size(Path::new(&log)))
    }

    /// The newest durable position, without a read.
    pub fn head(&self) -> Seq {
        self.inner.writer.head()
    }

    /// Why not everything works just now, where that is so.
    pub fn failure(&self) -> Option<String> {
        self.inner.trouble.reason()
    }

    /// Resolves when nothing can be written any more; the process must end then.
    pub async fn failed(&self) -> Failure {
        self.inner.trouble.failed().await
    }
}

/// How long a connection waits for a lock. Only the writer writes, so this is reached by foreign tools alone.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
