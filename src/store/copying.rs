//! The writer's connection copies its own file, a few pages between two groups.
//!
//! SQLite takes what is written through the same connection into the copy as well, so the copy never begins anew, and
//! no snapshot is held: a reader's would keep the write-ahead log from being reused for as long as the copy takes.
//!
//! **Invariant**: while a copy is made, everything else that needs the connection goes through [`Copying::between`], and
//! waits for one step ([`STEP`]) at most.
//! **Invariant**: each group is followed by a step, so a busy writer does not outrun the copy.
//!
//! It knows nothing of files and of whether there is room for one; that is `backup`'s.

use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use deadpool_sync::{InteractError, SyncWrapper};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use tokio::sync::oneshot;

use super::StoreError;

/// How long the copying holds the connection at a time.
const STEP: Duration = Duration::from_millis(5);
/// Pages between two looks at the clock: at 4 KiB each a fraction of a millisecond, unless the disk has to be asked.
const PAGES: i32 = 16;
/// The connection is idle as long as it copied, so that half of a core and of the disk is left where nothing is written.
const PAUSE: Duration = STEP;

type Work = Box<dyn FnOnce(&Connection) + Send>;

/// What is to be copied into, and who waits for it. Whoever stops waiting stops the copying.
pub(super) struct Wanted {
    pub(super) into: Connection,
    pub(super) reply: oneshot::Sender<Result<Connection, StoreError>>,
}

/// The connection is gone: what used it panicked.
#[derive(Debug)]
pub(super) struct Gone;

/// A copy in the making. Dropping it gives the copy up.
pub(super) struct Copying<'w> {
    work: Sender<Work>,
    done: oneshot::Receiver<()>,
    thread: Pin<Box<dyn Future<Output = Result<(), InteractError>> + Send + 'w>>,
}

impl<'w> Copying<'w> {
    pub(super) fn start(connection: &'w SyncWrapper<Connection>, wanted: Wanted) -> Self {
        let (work, queue) = mpsc::channel::<Work>();
        let (tell, done) = oneshot::channel();
        let thread = connection.interact(move |connection| {
            let Wanted { mut into, reply } = wanted;
            let copied = copy(connection, &mut into, &queue, &reply);
            // Whoever asked may have gone.
            let _ = reply.send(copied.map(|()| into));
            drop(tell);
            // What the writer hands over before it has heard that the copy is done.
            for work in queue {
                work(connection);
            }
        });
        Self { work, done, thread: Box::pin(thread) }
    }

    /// Resolves when the copy is done, for better or worse; [`Copying::end`] must follow. It must be polled once before
    /// anything is handed over.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn done(&mut self) -> Result<(), Gone> {
        tokio::select! {
            biased;
            // It waits for us to let go, unless it panicked.
            _ = &mut self.thread => Err(Gone),
            _ = &mut self.done => Ok(()),
        }
    }

    /// Lets go of the connection.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn end(self) -> Result<(), Gone> {
        drop(self.work);
        self.thread.await.map_err(|_| Gone)
    }

    /// Does some work on the connection between two steps.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn between<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |connection: &Connection| {
            let _ = reply.send(work(connection));
        });
        self.work.send(work).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}

/// Copies to the end, doing what comes between two steps.
fn copy(
    connection: &Connection,
    into: &mut Connection,
    queue: &Receiver<Work>,
    reply: &oneshot::Sender<Result<Connection, StoreError>>,
) -> Result<(), StoreError> {
    let backup = Backup::new(connection, into)?;
    loop {
        if step(&backup)? == StepResult::Done {
            return Ok(());
        }
        if reply.is_closed() {
            return Err(StoreError::Stopped);
        }
        match queue.recv_timeout(PAUSE) {
            Ok(work) => work(connection),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(StoreError::Stopped),
        }
    }
}

fn step(backup: &Backup<'_, '_>) -> Result<StepResult, rusqlite::Error> {
    let begun = Instant::now();
    loop {
        match backup.step(PAGES)? {
            StepResult::More if begun.elapsed() < STEP => {}
            stepped => return Ok(stepped),
        }
    }
}
