//! An operation: what it checks and writes inside the group's transaction, and the way its answer takes back.
//!
//! **Invariant**: an operation checks everything before it writes, so a refused one leaves nothing in the group.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection};
use tokio::sync::oneshot;

#[cfg(test)]
use crate::interleave;
use crate::model::{Category, Epoch, Seq};
use crate::store::commit::Change;
use crate::store::{Refusal, StoreError};

/// One change to the database. May be applied more than once, each time in a fresh transaction.
pub trait Operation: Send + 'static {
    type Output: Send + 'static;

    /// What it needs of a disk that is full.
    #[doc(hidden)]
    const NEED: Need = Need::Room;

    /// Checks, then writes.
    ///
    /// # Errors
    /// [`OpError::Refused`] before anything is written, [`OpError::Sql`] at any time.
    #[doc(hidden)]
    fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Output, OpError>;
}

/// What an operation needs of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Room; where there is none it is refused.
    Room,
    /// Next to nothing: it makes room, takes access back, or keeps reading going. It may use what the ballast has left.
    Little,
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
    pub(super) connection: &'a Connection,
    pub(super) epoch: &'a Epoch,
    pub(super) head: Seq,
    pub(super) changes: Vec<Change>,
    pub(super) categories: &'a mut HashMap<Category, i64>,
}

impl Tx<'_> {
    /// A prepared statement, kept for the next use.
    pub(in crate::store) fn sql(&self, sql: &str) -> Result<CachedStatement<'_>, rusqlite::Error> {
        self.connection.prepare_cached(sql)
    }

    pub(in crate::store) fn connection(&self) -> &Connection {
        self.connection
    }

    pub(in crate::store) fn epoch(&self) -> &Epoch {
        self.epoch
    }

    /// The newest position given out.
    pub(in crate::store) fn head(&self) -> Seq {
        self.head
    }

    /// Gives out the next position.
    pub(in crate::store) fn next_seq(&mut self) -> Seq {
        self.head = self.head.next();
        self.head
    }

    /// Tells the commit feed.
    pub(in crate::store) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(in crate::store) fn categories(&mut self) -> &mut HashMap<Category, i64> {
        self.categories
    }
}

/// An operation on its way, with the way back.
pub(super) trait Job: Send {
    fn need(&self) -> Need;
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), rusqlite::Error>;
    fn settle(self: Box<Self>, outcome: Result<(), StoreError>);
    /// Notes that it is committed.
    #[cfg(test)]
    fn journal(&self);
}

pub(super) struct Waiting<O: Operation> {
    operation: O,
    result: Option<Result<O::Output, Refusal>>,
    /// Which coroutine asked for it.
    #[cfg(test)]
    by: Option<interleave::TaskId>,
    reply: oneshot::Sender<Result<O::Output, StoreError>>,
}

impl<O: Operation> Waiting<O> {
    pub(super) fn new(operation: O, reply: oneshot::Sender<Result<O::Output, StoreError>>) -> Self {
        Self {
            operation,
            result: None,
            #[cfg(test)]
            by: interleave::current(),
            reply,
        }
    }
}

impl<O: Operation> Job for Waiting<O> {
    fn need(&self) -> Need {
        O::NEED
    }

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

    #[cfg(test)]
    fn journal(&self) {
        interleave::journal(self.by, std::any::type_name::<O>());
    }
}

pub(super) type Group = Vec<Box<dyn Job>>;
