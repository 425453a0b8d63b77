//! The error policy: what an error of SQLite means for whoever asked, for the others, and for the process.
//!
//! | fault | whoever asked | the others | `/readyz` | the process |
//! |---|---|---|---|---|
//! | `Operation` | is told that it failed | go on | ready | goes on |
//! | `Busy` | is told to come again | go on | ready | goes on |
//! | `Full` | is refused, nothing stored | read and stream on; what makes room is done | degraded | goes on; no restart is needed |
//! | `Unreadable` | is told that it failed | go on | degraded until a restart | goes on |
//! | `Broken`, `ReadOnly` | must take the outcome as unknown | end with the process | degraded | ends, exit code 74 |
//! | `Damaged` | must take the outcome as unknown | end with the process | degraded | ends, exit code 65 |
//!
//! Why a failed write or fsync is the end: the kernel tells of a failed fsync once and then takes the pages for clean, so a
//! second one that succeeds says nothing. A new start reads the log of writes again and writes all of it anew.
//!
//! **Invariant**: every error of SQLite goes through [`Fault::of`]; nobody else reads its codes.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::ffi;
use tokio::sync::watch;

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is this operation's own; others may be tried without it.
    Operation,
    /// Another program holds the file, or the process is short of memory or files. Nothing was written.
    Busy,
    /// There is no room.
    Full,
    /// A file could not be opened: [`Fault::Full`] where the disk is, else [`Fault::Busy`].
    FullOrBusy,
    /// A write failed for a reason that SQLite keeps to itself: [`Fault::Full`] where the disk, or the owner's quota, is
    /// full, else [`Fault::Broken`].
    FullOrBroken,
    /// A part of the file can't be read.
    Unreadable,
    /// A write or an fsync failed, or what SQLite must know of the file could not be had (its size, its shared memory): what
    /// the file holds is unknown to this process. A lock that fails is [`Fault::Busy`]: SQLite does not tell the two apart.
    Broken,
    /// The file, or the file system, lets nobody write: it went so after an error of its own, or the file was moved away
    /// from under us. [`Fault::Broken`] in a server that runs.
    ReadOnly,
    /// The file is not what SQLite wrote, or a read of it failed with `EIO`, which SQLite takes for a file system that has
    /// found a checksum wrong.
    Damaged,
}

impl Fault {
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        error.sqlite_error().map_or(Self::Operation, |error| Self::of_code(error.extended_code))
    }

    /// By SQLite's extended result code.
    fn of_code(code: i32) -> Self {
        match code {
            ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ => Self::Unreadable,
            // The log of writes or its index could not be made longer. A quota that is reached is told as a failed write.
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMOPEN => Self::FullOrBroken,
            ffi::SQLITE_IOERR_NOMEM => Self::Busy,
            ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS => Self::Damaged,
            _ => match code & 0xff {
                ffi::SQLITE_FULL => Self::Full,
                ffi::SQLITE_CANTOPEN => Self::FullOrBusy,
                ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL | ffi::SQLITE_NOMEM => Self::Busy,
                ffi::SQLITE_IOERR | ffi::SQLITE_NOLFS => Self::Broken,
                ffi::SQLITE_READONLY => Self::ReadOnly,
                ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => Self::Damaged,
                _ => Self::Operation,
            },
        }
    }
}

/// Why the process must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The disk failed a write. A new start reads what is durable.
    #[error("{0}")]
    Broken(String),
    /// The file is damaged. A new start does not mend it.
    #[error("{0}")]
    Damaged(String),
}

/// What is wrong with the store, for readiness and for whoever ends the process.
#[derive(Debug)]
pub(super) struct Trouble {
    full: AtomicBool,
    unreadable: Mutex<Option<String>>,
    failure: watch::Sender<Option<Failure>>,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { full: AtomicBool::default(), unreadable: Mutex::default(), failure: watch::Sender::new(None) }
    }
}

impl Trouble {
    /// Told once when the disk fills and once when there is room again, not for each publish.
    pub(super) fn tell_full(&self, full: Space) {
        let is_full = full == Space::Short;
        if self.full.swap(is_full, Ordering::Relaxed) == is_full {
            return;
        }
        if is_full {
            tracing::error!(
                "the disk is full: publishes are refused and reading goes on; free some space, no restart is needed"
            );
        } else {
            tracing::info!("there is room on the disk again; publishes are taken");
        }
    }

    /// A part of the file could not be read. Told once: whoever reads that part again is told by the answer.
    pub(super) fn tell_unreadable(&self, error: &str) {
        let mut unreadable = self.unreadable.lock();
        if unreadable.is_none() {
            tracing::error!(
                error,
                "a part of the database can't be read; the rest goes on. Look at the disk, then restore a backup"
            );
            *unreadable = Some(error.to_owned());
        }
    }

    /// Nothing is written after this.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                tracing::error!(
                    reason = %failure,
                    "the database can't be written any more; the process ends so that it starts from what is durable"
                );
                *told = Some(failure);
            }
            first
        });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Why not everything works, in a few words.
    pub(super) fn reason(&self) -> Option<String> {
        if let Some(failure) = &*self.failure.borrow() {
            return Some(failure.to_string());
        }
        if self.full.load(Ordering::Relaxed) {
            return Some("the disk is full".to_owned());
        }
        self.unreadable.lock().as_ref().map(|error| format!("a part of the database can't be read: {error}"))
    }

    /// Resolves when the process must end.
    pub(super) async fn failed(&self) -> Failure {
        let mut failure = self.failure.subscribe();
        let told = failure.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        match told {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }
}

/// Whether there is room to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Enough,
    Short,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy, code by code.
    const POLICY: &[(i32, Fault)] = &[
        (ffi::SQLITE_ERROR, Fault::Operation),
        (ffi::SQLITE_INTERNAL, Fault::Operation),
        (ffi::SQLITE_INTERRUPT, Fault::Operation),
        (ffi::SQLITE_TOOBIG, Fault::Operation),
        (ffi::SQLITE_CONSTRAINT_UNIQUE, Fault::Operation),
        (ffi::SQLITE_CONSTRAINT_FOREIGNKEY, Fault::Operation),
        (ffi::SQLITE_MISMATCH, Fault::Operation),
        (ffi::SQLITE_SCHEMA, Fault::Operation),
        (ffi::SQLITE_BUSY, Fault::Busy),
        (ffi::SQLITE_BUSY_SNAPSHOT, Fault::Busy),
        (ffi::SQLITE_BUSY_RECOVERY, Fault::Busy),
        (ffi::SQLITE_LOCKED, Fault::Busy),
        (ffi::SQLITE_PROTOCOL, Fault::Busy),
        (ffi::SQLITE_NOMEM, Fault::Busy),
        (ffi::SQLITE_IOERR_NOMEM, Fault::Busy),
        (ffi::SQLITE_FULL, Fault::Full),
        (ffi::SQLITE_CANTOPEN, Fault::FullOrBusy),
        (ffi::SQLITE_CANTOPEN_FULLPATH, Fault::FullOrBusy),
        (ffi::SQLITE_IOERR_SHMSIZE, Fault::FullOrBroken),
        (ffi::SQLITE_IOERR_SHMOPEN, Fault::FullOrBroken),
        (ffi::SQLITE_IOERR_WRITE, Fault::FullOrBroken),
        (ffi::SQLITE_IOERR_READ, Fault::Unreadable),
        (ffi::SQLITE_IOERR_SHORT_READ, Fault::Unreadable),
        (ffi::SQLITE_IOERR, Fault::Broken),
        (ffi::SQLITE_IOERR_FSYNC, Fault::Broken),
        (ffi::SQLITE_IOERR_DIR_FSYNC, Fault::Broken),
        (ffi::SQLITE_IOERR_TRUNCATE, Fault::Broken),
        (ffi::SQLITE_IOERR_FSTAT, Fault::Broken),
        (ffi::SQLITE_IOERR_LOCK, Fault::Broken),
        (ffi::SQLITE_IOERR_UNLOCK, Fault::Broken),
        (ffi::SQLITE_IOERR_SHMMAP, Fault::Broken),
        (ffi::SQLITE_IOERR_SHMLOCK, Fault::Broken),
        (ffi::SQLITE_IOERR_CLOSE, Fault::Broken),
        (ffi::SQLITE_IOERR_DELETE, Fault::Broken),
        (ffi::SQLITE_READONLY, Fault::ReadOnly),
        (ffi::SQLITE_READONLY_DBMOVED, Fault::ReadOnly),
        (ffi::SQLITE_CORRUPT, Fault::Damaged),
        (ffi::SQLITE_CORRUPT_INDEX, Fault::Damaged),
        (ffi::SQLITE_NOTADB, Fault::Damaged),
        (ffi::SQLITE_IOERR_DATA, Fault::Damaged),
        (ffi::SQLITE_IOERR_CORRUPTFS, Fault::Damaged),
    ];

    #[test]
    fn every_error_of_sqlite_has_the_consequence_that_the_policy_gives_it() {
        for &(code, fault) in POLICY {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(Fault::of(&error), fault, "{code}: {error}");
        }
    }

    #[test]
    fn an_error_that_is_not_sqlite_s_is_the_operation_s_own() {
        assert_eq!(Fault::of(&rusqlite::Error::QueryReturnedNoRows), Fault::Operation);
    }

    #[test]
    fn what_is_worst_is_told() {
        let trouble = Trouble::default();
        assert_eq!(trouble.reason(), None);
        trouble.tell_unreadable("disk I/O error");
        assert_eq!(trouble.reason().as_deref(), Some("a part of the database can't be read: disk I/O error"));
        trouble.tell_full(Space::Short);
        assert_eq!(trouble.reason().as_deref(), Some("the disk is full"));
        trouble.tell_full(Space::Enough);
        trouble.fail(Failure::Broken("no fsync".to_owned()));
        trouble.fail(Failure::Damaged("too late".to_owned()));
        assert_eq!(trouble.reason().as_deref(), Some("no fsync"), "the first failure is the reason");
    }
}
