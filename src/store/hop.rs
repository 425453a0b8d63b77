//! Blocking work with a connection, on a thread for such work. In unit tests `interleave` may have it done in place, where
//! its scheduler decides what happens meanwhile.

use deadpool_sync::{InteractError, SyncWrapper};
use rusqlite::Connection;

/// Runs `work` with the connection.
///
/// # Errors
/// Where it panicked, now or before.
pub(super) async fn interact<R, F>(connection: &SyncWrapper<Connection>, work: F) -> Result<R, InteractError>
where
    F: FnOnce(&mut Connection) -> R + Send + 'static,
    R: Send + 'static,
{
    #[cfg(test)]
    if crate::interleave::is_scheduled() {
        let mut connection = connection.lock().expect("a scheduled run ends with its first panic");
        return Ok(work(&mut connection));
    }
    connection.interact(work).await
}

/// Waits for what such a thread does by itself: a connection that is opened.
pub(super) async fn wait<F: Future>(work: F) -> F::Output {
    #[cfg(test)]
    if crate::interleave::is_scheduled() {
        return crate::interleave::in_place(work);
    }
    work.await
}
