//! A log of a unit test's own, with nobody who listens to its commits.

use std::sync::Arc;

use tempfile::TempDir;

use super::{Config, Store};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::Timestamp;

/// A new log in a directory that goes with the guard.
pub(super) async fn open(now: Timestamp) -> (Store, Lifecycle, TempDir) {
    let directory = tempfile::tempdir().expect("a directory for the database");
    let lifecycle = Lifecycle::default();
    let opened = Store::open(directory.path(), now, &Config::default(), Arc::new(Metrics::default()), &lifecycle).await;
    let (store, mut feed) = opened.expect("a new database opens");
    // Nobody looks at the commit feed here, but it must be drained or the writer waits.
    lifecycle.spawn_core(async move { while feed.recv().await.is_some() {} });
    (store, lifecycle, directory)
}
