//! Faults that a review proved, each told by a test so that it stays mended.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidings::broker::{self, Broker, FeedItem, FeedRequest, Filter};
use tidings::clock::Clock;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{Audience, Content, Credential, Draft, Epoch, Identity, Life, UserId, UserIdentity};
use tidings::wire::cursor::Resume;
use tokio_stream::StreamExt as _;

async fn open(directory: &Path) -> (Broker, Lifecycle) {
    let lifecycle = Lifecycle::default();
    let metrics = Arc::new(Metrics::default());
    let opened = Broker::open(directory, broker::Config::default(), Clock::system(), metrics, &lifecycle).await;
    (opened.expect("the directory opens"), lifecycle)
}

async fn close(broker: Broker, lifecycle: Lifecycle) {
    lifecycle.drain();
    drop(broker);
    assert!(lifecycle.core_ended(Duration::from_secs(10)).await, "the core ends with its last user");
}

fn alice() -> UserId {
    UserId::new("alice").expect("a user")
}

async fn publish(broker: &Broker, body: String) {
    let content = Content { body, ..Content::default() }.check().expect("within the limits");
    let draft = Draft {
        to: Audience::Users(vec![alice()]),
        content,
        category_named: false,
        life: Life::default(),
        via: tidings::model::Via::default(),
    };
    broker.publish(&Identity::Operator, draft, None).await.expect("is published");
}

/// Publishes once and stops; the epoch it ran under.
async fn run_once(directory: &Path) -> Epoch {
    let (broker, lifecycle) = open(directory).await;
    publish(&broker, "x".to_owned()).await;
    let epoch = broker.epoch().clone();
    close(broker, lifecycle).await;
    epoch
}

#[tokio::test]
async fn a_copy_that_is_put_back_twice_is_another_log_each_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let (database, copy) = (directory.path().join("tidings.db"), directory.path().join("copy"));
    let first = run_once(directory.path()).await;
    std::fs::copy(&database, &copy).expect("is copied");
    run_once(directory.path()).await;

    let mut epochs = vec![first];
    for _ in 0..2 {
        std::fs::copy(&copy, &database).expect("is put back");
        epochs.push(run_once(directory.path()).await);
    }
    epochs.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    epochs.dedup();
    assert_eq!(epochs.len(), 3, "{epochs:?}");
}

#[tokio::test]
async fn a_stopped_server_leaves_everything_in_one_file() {
    let directory = tempfile::tempdir().expect("a directory");
    run_once(directory.path()).await;
    let log = std::fs::metadata(directory.path().join("tidings.db-wal"));
    assert!(log.is_err() || log.is_ok_and(|log| log.len() == 0), "something is left in the write-ahead log");
}

#[tokio::test]
async fn a_reader_that_stalls_holds_one_page_however_large_the_entries_are() {
    /// One page, and the entry that filled it.
    const LARGEST: usize = 32 * 1024 + 64 * 1024;
    const ENTRIES: usize = 20;
    let directory = tempfile::tempdir().expect("a directory");
    let (broker, lifecycle) = open(directory.path()).await;
    for _ in 0..ENTRIES {
        publish(&broker, "库".repeat(10_000)).await;
    }
    for resume in [Resume::Start, Resume::FirstVisit] {
        let who = UserIdentity {
            user: alice(),
            credential: Credential::Bearer,
            topics: None,
            publishes: false,
            expires: None,
            issued: None,
        };
        let request = FeedRequest { resume: resume.clone(), snapshot: ENTRIES, filter: Filter::default() };
        let mut feed = broker.open_feed(who, request).expect("has room");
        let mut entries = 0;
        while entries < ENTRIES {
            let Some(FeedItem::Frames(frames)) = feed.next().await else { panic!("the feed goes on") };
            let bytes: usize = frames.iter().map(|frame| frame.weight()).sum();
            assert!(bytes <= LARGEST, "{resume:?}: {bytes} bytes in one item");
            entries += frames.iter().filter(|frame| frame.seq.is_some()).count();
        }
        assert_eq!(entries, ENTRIES, "{resume:?}");
    }
    close(broker, lifecycle).await;
}
