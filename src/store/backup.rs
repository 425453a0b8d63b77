//! A copy of the log while it is in use: whole, checked, and without what was deleted.
//!
//! The writer copies its file into a draft ([`super::copying`]); another thread rewrites the draft into a second one
//! without free pages (`VACUUM INTO`), checks that, and takes its name away, so that it lasts as long as somebody reads it.
//!
//! **Invariant**: one copy at a time ([`super::Refusal::CopyRunning`]), and none without room for both drafts.
//! **Invariant**: drafts are readable by their owner only; those that a crash left are removed at the next start.
//! **Invariant**: whoever stops waiting for a copy stops it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::check;
use super::open::configure_any;
use super::{Refusal, Store, StoreError};
use crate::wire::check::Report;

/// The drafts in the state directory.
const COPY: &str = "tidings.copy";
const PACKED: &str = "tidings.copy-packed";
/// What SQLite may put beside a file.
const BESIDE: [&str; 3] = ["-journal", "-wal", "-shm"];
/// Bytes that a copy leaves free beyond what it needs itself: the log must go on meanwhile.
const KEPT_FREE: u64 = 16 * 1024 * 1024;
/// Page cache of the connections that rewrite and check a copy, in KiB.
const CACHE_KIB: u32 = 16 * 1024;

/// Copies that are made at once.
pub(super) const MAX_COPIES: usize = 1;

/// A checked copy of the log. It takes room on the disk, and the place of another copy, until it is dropped.
#[derive(Debug)]
pub struct Backup {
    /// At its beginning; the file has no name any more.
    pub file: File,
    pub bytes: u64,
    _permit: OwnedSemaphorePermit,
}

/// A file that is removed with this value, and what SQLite put beside it.
struct Draft {
    path: PathBuf,
}

impl Draft {
    /// An empty file that only its owner reads.
    fn make(path: PathBuf) -> Result<Self, StoreError> {
        let draft = Self { path };
        draft.remove();
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.path);
        made.map_err(|error| StoreError::Failed(format!("{} can't be made: {error}", draft.path.display())))?;
        Ok(draft)
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        for suffix in BESIDE {
            let _ = fs::remove_file(beside(&self.path, suffix));
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.remove();
    }
}

/// `<file><suffix>`, as SQLite names what belongs to a file.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.to_path_buf().into_os_string();
    path.push(suffix);
    path.into()
}

/// Removes drafts that a crash left.
pub(super) fn clean(directory: &Path) {
    for name in [COPY, PACKED] {
        drop(Draft { path: directory.join(name) });
    }
}

/// Stops what a connection does when whoever waits for it is gone.
struct Stop(InterruptHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl Store {
    /// Copies the log as it is while this runs; everything that was durable before is in it.
    ///
    /// # Errors
    /// [`Refusal::CopyRunning`], [`Refusal::NoRoom`], [`StoreError::Damaged`] where the copy is not whole, or another
    /// [`StoreError`].
    pub async fn back_up(&self) -> Result<Backup, StoreError> {
        let (copy, draft, permit) = self.copy().await?;
        let packed = self.beside(PACKED);
        let stop = Stop(copy.get_interrupt_handle());
        let backup = tokio::task::spawn_blocking(move || {
            let packed = Draft::make(packed)?;
            copy.execute("VACUUM INTO ?1", [packed.path.to_string_lossy()])?;
            drop((copy, draft));
            let looked = Connection::open(&packed.path)?;
            configure_any(&looked, CACHE_KIB)?;
            check::is_whole(&looked)?;
            drop(looked);
            let file = File::open(&packed.path).map_err(|error| StoreError::Failed(error.to_string()))?;
            let bytes = file.metadata().map_err(|error| StoreError::Failed(error.to_string()))?.len();
            // Its name goes with the draft; the file stays for as long as it is open.
            Ok(Backup { file, bytes, _permit: permit })
        });
        let backup = backup.await.map_err(|_| StoreError::Stopped)?;
        drop(stop);
        backup
    }

    /// Checks a copy of the log, so that no snapshot of the log itself is held for as long as it takes.
    ///
    /// # Errors
    /// As [`Store::back_up`].
    pub async fn check(&self) -> Result<Report, StoreError> {
        let (copy, draft, permit) = self.copy().await?;
        let log = self.path().to_path_buf();
        let stop = Stop(copy.get_interrupt_handle());
        let report = tokio::task::spawn_blocking(move || {
            let report = check::look(&copy, &log, &mut |_| {});
            drop((copy, draft, permit));
            report
        });
        let report = report.await.map_err(|_| StoreError::Stopped)?;
        drop(stop);
        Ok(report)
    }

    /// The log as one file of its own, with its free pages.
    async fn copy(&self) -> Result<(Connection, Draft, OwnedSemaphorePermit), StoreError> {
        let permit = self.inner.copies.clone().try_acquire_owned();
        let permit = permit.map_err(|_| StoreError::Refused(Refusal::CopyRunning))?;
        self.check_room()?;
        let draft = Draft::make(self.beside(COPY))?;
        let into = Connection::open(&draft.path)?;
        // It is thrown away after a crash: nothing of it needs to be undone or to last. Nobody else opens it.
        into.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;",
        )?;
        let copy = self.inner.writer.copy(into).await?;
        Ok((copy, draft, permit))
    }

    /// Both drafts must fit beside the log.
    fn check_room(&self) -> Result<(), StoreError> {
        let (database, log) = self.sizes();
        let needed = 2 * (database + log) + KEPT_FREE;
        // What can't be told is tried.
        let free = rustix::fs::statvfs(self.path()).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if free < needed { Err(StoreError::Refused(Refusal::NoRoom { needed, free })) } else { Ok(()) }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path().with_file_name(name)
    }
}

/// The place of the one copy.
pub(super) fn places() -> std::sync::Arc<Semaphore> {
    std::sync::Arc::new(Semaphore::new(MAX_COPIES))
}
