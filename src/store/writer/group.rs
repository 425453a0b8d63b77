//! One group: a transaction around its operations, committed or not at all, and what follows of the errors of SQLite
//! ([`Fault`]). The log of writes is taken into the database here too: SQLite's own automatic checkpoint keeps its errors to
//! itself, and a failed fsync of the database must be the end as much as one of the log of writes.
//!
//! **Invariant**: after a failure nothing more is written, not even when the connection closes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};
#[cfg(test)]
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::operation::{Group, Need, Operation, Tx, Waiting};
use crate::interleave;
use crate::model::{Category, Epoch, Seq};
use crate::store::ballast::Hold;
use crate::store::commit::Commit;
use crate::store::fault::{Failure, Fault, Space};
use crate::store::log::{HeadFile, UPDATE_HEAD};
use crate::store::{BUSY_TIMEOUT, Refusal, StoreError};

/// Pages in the log of writes from which on they are taken into the database: some 4 MiB.
const CHECKPOINT_PAGES: i64 = 1_000;
/// How long readers are waited for when room has to be made at once.
const ROOM_PATIENCE: Duration = Duration::from_millis(100);

const COUNT_PAGES: &str = "PRAGMA wal_checkpoint(NOOP)";
const TAKE_IN: &str = "PRAGMA wal_checkpoint(PASSIVE)";
/// And gives the log's own room back.
const TAKE_IN_ALL: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// What the writer keeps between groups.
pub(in crate::store) struct State {
    pub(in crate::store) epoch: Epoch,
    pub(super) head: Seq,
    pub(super) hold: Hold,
    head_file: HeadFile,
    categories: HashMap<Category, i64>,
    /// The way to the feed for the control that tells before it commits.
    #[cfg(test)]
    pub(super) early: Option<mpsc::Sender<Commit>>,
}

impl State {
    pub(in crate::store) fn new(epoch: Epoch, head: Seq, head_file: HeadFile, hold: Hold) -> Self {
        Self {
            epoch,
            head,
            hold,
            head_file,
            categories: HashMap::new(),
            #[cfg(test)]
            early: None,
        }
    }

    pub(in crate::store) fn head(&self) -> Seq {
        self.head
    }
}

/// What became of a group.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) parts: Vec<Part>,
    /// Nothing may be written any more.
    pub(super) failure: Option<Failure>,
    /// Something could not be read; what SQLite says of it.
    pub(super) unreadable: Option<String>,
}

/// Operations that shared one transaction.
pub(super) struct Part {
    pub(super) jobs: Group,
    pub(super) result: Result<(), StoreError>,
    pub(super) commit: Option<(Commit, Duration)>,
}

/// The open file with what is known of it.
struct Log<'a> {
    connection: &'a Connection,
    state: &'a mut State,
    outcome: Outcome,
}

/// Commits a group, then takes the log of writes in where that is due.
pub(super) fn commit_group(connection: &Connection, state: &mut State, group: Group) -> Outcome {
    let mut log = Log { connection, state, outcome: Outcome::default() };
    let group = match log.state.hold.look() {
        Space::Enough => group,
        Space::Short => log.refuse_for_room(group),
    };
    log.commit(group);
    log.take_in();
    log.outcome
}

/// Commits one operation on a log that no writer runs on.
///
/// # Errors
/// [`StoreError`].
pub(in crate::store) fn apply_alone<O: Operation>(
    connection: &Connection,
    state: &mut State,
    operation: O,
) -> Result<O::Output, StoreError> {
    let (reply, mut answer) = oneshot::channel();
    let group: Group = vec![Box::new(Waiting::new(operation, reply))];
    for Part { jobs, result, .. } in commit_group(connection, state, group).parts {
        for job in jobs {
            job.settle(result.clone());
        }
    }
    answer.try_recv().map_err(|_| StoreError::Stopped)?
}

/// Rewrites the file without what was deleted, then empties the log of writes, which holds copies too.
pub(super) fn compact(connection: &Connection, state: &mut State) -> (Result<(u64, u64), StoreError>, Outcome) {
    let mut log = Log { connection, state, outcome: Outcome::default() };
    let compacted = match rewrite(log.connection) {
        Ok(Some(sizes)) => Ok(sizes),
        // The old pages are still in the file, and in the log of writes, for whoever reads them.
        Ok(None) => Err(StoreError::Refused(Refusal::BeingRead)),
        Err(error) => Err(log.consequence(&error)),
    };
    (compacted, log.outcome)
}

/// The sizes before and after; `None` where somebody reads the old pages.
fn rewrite(connection: &Connection) -> Result<Option<(u64, u64)>, rusqlite::Error> {
    let size = || -> Result<u64, rusqlite::Error> {
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        Ok(pragma("page_count")? * pragma("page_size")?)
    };
    let before = size()?;
    connection.execute_batch("VACUUM")?;
    let busy: bool = connection.query_row(TAKE_IN_ALL, [], |row| row.get(0))?;
    Ok(if busy { None } else { Some((before, size()?)) })
}

impl Log<'_> {
    fn commit(&mut self, mut group: Group) {
        if group.is_empty() {
            return;
        }
        if let Some(failure) = &self.outcome.failure {
            let failed = StoreError::Broken(failure.to_string());
            return self.settle(group, failed);
        }
        let error = match try_commit(self.connection, self.state, &mut group) {
            Ok(commit) => {
                self.state.hold.found_room();
                self.outcome.parts.push(Part { jobs: group, result: Ok(()), commit: Some(commit) });
                return;
            }
            Err(error) => error,
        };
        let had = self.state.hold.space();
        let told = self.consequence(&error);
        match told {
            // One operation that SQLite refuses must not cost the others theirs: each gets a transaction of its own.
            StoreError::Failed(_) | StoreError::Unreadable(_) if group.len() > 1 && self.outcome.failure.is_none() => {
                for job in group {
                    self.commit(vec![job]);
                }
            }
            // What makes room was refused with the rest; the ballast is off now.
            StoreError::Full if had == Space::Enough => {
                let cleaning = self.refuse_for_room(group);
                self.commit(cleaning);
            }
            told => self.settle(group, told),
        }
    }

    /// Refuses what takes room; the others.
    fn refuse_for_room(&mut self, group: Group) -> Group {
        let (room, little): (Group, Group) = group.into_iter().partition(|job| job.need() == Need::Room);
        if !room.is_empty() {
            self.settle(room, StoreError::Full);
        }
        little
    }

    fn settle(&mut self, jobs: Group, told: StoreError) {
        self.outcome.parts.push(Part { jobs, result: Err(told), commit: None });
    }

    /// Does what the policy wants after an error; what those who asked are told.
    fn consequence(&mut self, error: &rusqlite::Error) -> StoreError {
        let cause = error.to_string();
        match self.state.hold.settle(Fault::of(error)) {
            Fault::Full => {
                self.make_room();
                StoreError::Full
            }
            Fault::Busy | Fault::FullOrBusy => {
                tracing::warn!(%error, "the database is held by another program, or memory or files are short");
                StoreError::Busy
            }
            Fault::Unreadable => {
                self.outcome.unreadable = Some(cause.clone());
                StoreError::Unreadable(cause)
            }
            Fault::Operation => {
                tracing::error!(%error, "an operation failed; nothing of it is stored");
                StoreError::Failed(cause)
            }
            Fault::Broken | Fault::ReadOnly | Fault::FullOrBroken => self.fail(Failure::Broken(cause)),
            Fault::Damaged => self.fail(Failure::Damaged(cause)),
        }
    }

    fn fail(&mut self, failure: Failure) -> StoreError {
        leave_alone(self.connection);
        let told = StoreError::Broken(failure.to_string());
        self.outcome.failure.get_or_insert(failure);
        told
    }

    /// Throws the ballast off, and lets the database have what the log of writes holds.
    fn make_room(&mut self) {
        self.state.hold.throw_off();
        if let Err(error) = self.take_in_all() {
            match self.state.hold.settle(Fault::of(&error)) {
                Fault::Full | Fault::Busy => {}
                _ => {
                    self.consequence(&error);
                }
            }
        }
    }

    fn take_in_all(&self) -> Result<(), rusqlite::Error> {
        self.connection.busy_timeout(ROOM_PATIENCE)?;
        let taken = self.connection.query_row(TAKE_IN_ALL, [], |_| Ok(()));
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        taken
    }

    /// Takes the log of writes into the database where it has grown. What was committed is durable in it, whatever
    /// becomes of this.
    fn take_in(&mut self) {
        if self.outcome.failure.is_some() {
            return;
        }
        let run = |sql: &str| -> Result<i64, rusqlite::Error> {
            self.connection.prepare_cached(sql)?.query_row([], |row| row.get(1))
        };
        let taken = run(COUNT_PAGES).and_then(|pages| if pages < CHECKPOINT_PAGES { Ok(0) } else { run(TAKE_IN) });
        if let Err(error) = taken {
            tracing::warn!(%error, "the log of writes could not be taken into the database");
            self.consequence(&error);
        }
    }
}

/// Lets closing write nothing: it would fsync what this process can't know the state of.
pub(super) fn leave_alone(connection: &Connection) {
    if let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::warn!(%error, "SQLite may write once more as it closes the database");
    }
}

fn try_commit(
    connection: &Connection,
    state: &mut State,
    group: &mut Group,
) -> Result<(Commit, Duration), rusqlite::Error> {
    let started = Instant::now();
    let State { epoch, head, head_file, categories, .. } = state;
    let result = (|| {
        // A copy may hold the connection too. Nothing else here begins a transaction, so none is inside another.
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let mut tx = Tx { connection: &transaction, epoch, head: *head, changes: Vec::new(), categories };
        for job in group.iter_mut() {
            job.apply(&mut tx)?;
        }
        let Tx { head: reached, changes, .. } = tx;
        if reached != *head {
            transaction.prepare_cached(UPDATE_HEAD)?.execute([i64::try_from(reached.0).unwrap_or(i64::MAX)])?;
        }
        #[cfg(test)]
        if let Some(early) = &state.early {
            let commit = Commit { head: reached, at: Instant::now(), changes: changes.clone() };
            let _ = early.try_send(commit);
        }
        interleave::point("about to commit");
        transaction.commit()?;
        #[cfg(test)]
        for job in group.iter() {
            job.journal();
        }
        interleave::point("committed");
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
