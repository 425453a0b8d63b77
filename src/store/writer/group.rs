//! One group: a transaction around its operations, committed or not at all; and the rewriting of the whole file, which no
//! transaction may be open for.

use std::collections::HashMap;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::operation::{Group, Tx};
use crate::model::{Category, Epoch, Seq};
use crate::store::commit::Commit;
use crate::store::log::{HeadFile, UPDATE_HEAD};
use crate::store::{Refusal, StoreError};

/// What the writer keeps between groups.
pub(in crate::store) struct State {
    pub(in crate::store) epoch: Epoch,
    pub(super) head: Seq,
    head_file: HeadFile,
    categories: HashMap<Category, i64>,
}

impl State {
    pub(in crate::store) fn new(epoch: Epoch, head: Seq, head_file: HeadFile) -> Self {
        Self { epoch, head, head_file, categories: HashMap::new() }
    }
}
/// What became of a group.
pub(super) struct Outcome {
    pub(super) parts: Vec<Part>,
    pub(super) fatal: Option<String>,
}

/// Operations that shared one transaction.
pub(super) struct Part {
    pub(super) jobs: Group,
    pub(super) result: Result<(), StoreError>,
    pub(super) commit: Option<(Commit, std::time::Duration)>,
}

/// Rewrites the file without what was deleted, then empties the log of writes, which holds copies too.
pub(super) fn compact(connection: &Connection) -> Result<(u64, u64), StoreError> {
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

pub(super) fn commit_group(connection: &mut Connection, state: &mut State, mut group: Group) -> Outcome {
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
