//! Clocks (T15): the wall clock jumps two days forward and backward, while the server runs and while it does not. The log
//! keeps its order, nothing scheduled comes early and nothing expires early by the clock that there is, tokens are
//! judged by it, what is not old is kept, and nothing stalls: order comes from positions, waiting from a clock that
//! nobody sets.
//!
//! First with an injected clock in this process, then with the real binary under libfaketime (Debian's `faketime`),
//! whose file of the time moves while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tidings::broker::{
    self, Broker, Feed, FeedItem, FeedRequest, Filter, Idempotency, Meanwhile, Retention, hash_body,
};
use tidings::clock::Clock;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{
    Audience, Content, Credential, Deliver, Draft, Expiry, Identity, Life, Timestamp, UserId, UserIdentity,
};
use tidings::wire::cursor::{self, Resume};
use tidings::wire::publish::Published;

use crate::support::http::Ask;
use crate::support::server::{Server, Setup};
use crate::support::{token, wait_for};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const BEGIN: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// The rules with a clock that is moved by hand. Waiting is tokio's, whose clock is paused and moves while nothing is at
/// work.
struct Bench {
    broker: Broker,
    lifecycle: Lifecycle,
}

impl Bench {
    async fn open(directory: &Path, clock: &Clock) -> Self {
        let retention = Retention { age: Some(DAY * 3), ..Retention::default() };
        let config = broker::Config { retention, ..broker::Config::default() };
        let lifecycle = Lifecycle::default();
        let opened = Broker::open(directory, config, clock.clone(), Arc::new(Metrics::default()), &lifecycle).await;
        Self { broker: opened.expect("a directory of ours opens"), lifecycle }
    }

    async fn close(self) {
        self.lifecycle.drain();
        drop(self.broker);
        assert!(self.lifecycle.core_ended(Duration::from_mins(5)).await, "the writer and the fan-out end");
    }

    async fn publish(&self, title: &str, life: Life, key: Option<&str>) -> Published {
        let content = Content { title: title.to_owned(), ..Content::default() };
        let draft = Draft {
            to: Audience::Users(vec![ann()]),
            content,
            category_named: false,
            life,
            via: tidings::model::Via::default(),
        };
        let key = key.map(|key| Idempotency {
            key: key.to_owned(),
            route: "notifications",
            body_hash: hash_body(title.as_bytes()),
            meanwhile: Meanwhile::Refuse,
        });
        self.broker.publish(&Identity::Operator, draft, key).await.expect("nothing is wrong with it")
    }

    async fn now(&self, title: &str) -> u64 {
        seq(&self.publish(title, Life::default(), None).await)
    }

    fn stream(&self, resume: Resume, expires: Option<Timestamp>) -> Feed {
        let request = FeedRequest { resume, snapshot: 15, filter: Filter::default() };
        let who = UserIdentity { expires, ..who() };
        self.broker.open_feed(who, request).unwrap_or_else(|reason| panic!("refused: {reason:?}"))
    }

    /// What is in the inbox, by title, oldest first.
    async fn titles(&self) -> Vec<String> {
        let mut feed = self.stream(cursor::parse(b"start"), None);
        let last = self.publish("last", Life::default(), None).await;
        let mut titles = Vec::new();
        while titles.last().is_none_or(|title| title != "last") {
            titles.extend(titles_of(&next(&mut feed).await));
        }
        titles.pop();
        self.broker.retract(&Identity::Operator, last.id).await.expect("it was just published");
        titles
    }
}

fn ann() -> UserId {
    UserId::new("ann").expect("a user id")
}

fn who() -> UserIdentity {
    UserIdentity {
        user: ann(),
        credential: Credential::Bearer,
        topics: None,
        publishes: false,
        expires: None,
        issued: Some(Timestamp::MAX),
    }
}

fn seq(published: &Published) -> u64 {
    published.cursor.as_ref().expect("it is in the log").seq.0
}

/// The next events of a stream, as objects. The clock is paused, so a minute passes only where nothing more comes.
async fn next(feed: &mut Feed) -> Vec<Value> {
    let item = tokio::time::timeout(Duration::from_mins(1), feed.next()).await.expect("something comes");
    let frames = match item.expect("the stream goes on") {
        FeedItem::Frames(frames) => frames,
        FeedItem::Bye(_, frame) => vec![frame],
    };
    frames.iter().map(|frame| serde_json::from_slice(frame.object()).expect("JSON")).collect()
}

fn titles_of(events: &[Value]) -> Vec<String> {
    let titles = events.iter().filter_map(|event| event["data"]["title"].as_str());
    titles.map(str::to_owned).collect()
}

fn delayed(span: Duration) -> Life {
    Life { deliver: Deliver::After(span), ..Life::default() }
}

fn expiring(span: Duration) -> Life {
    Life { expiry: Some(Expiry::After(span)), ..Life::default() }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_two_days_brings_nothing_early_and_reorders_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(BEGIN);
    let bench = Bench::open(directory.path(), &clock).await;
    let first = bench.now("first").await;
    let mut live = bench.stream(cursor::parse(b"now"), Some(BEGIN.after(DAY * 7)));
    assert_eq!(next(&mut live).await[0]["event"], "hello");
    bench.publish("in an hour", delayed(HOUR), None).await;
    bench.publish("for an hour", expiring(HOUR), None).await;
    let keyed = bench.publish("once", Life::default(), Some("order-42")).await;

    // Backward: both moments are further away than before. Ten minutes of waiting bring neither.
    clock.set_back(DAY * 2);
    let second = bench.now("second").await;
    assert!(second > seq(&keyed), "a position is given at commit, whatever the clock says");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(bench.titles().await, ["first", "for an hour", "once", "second"]);
    let again = bench.publish("once", Life::default(), Some("order-42")).await;
    assert!(again.replayed && again.id == keyed.id, "an answer is remembered across a clock that was set back");
    // Entries of the future are not old, and what is two days old is younger than three.
    bench.broker.retain().await.expect("retention runs");
    assert_eq!(bench.titles().await, ["first", "for an hour", "once", "second"]);

    // Back to where it was, less a moment: still not due.
    clock.advance(DAY * 2 + HOUR - Duration::from_millis(1));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(bench.titles().await, ["first", "for an hour", "once", "second"]);
    clock.advance(Duration::from_millis(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.titles().await, ["first", "once", "second", "in an hour"]);

    // Forward: what lies within the jump is due, what lies behind it is not, and what is younger than three days stays.
    bench.publish("in a day", delayed(DAY), None).await;
    bench.publish("in three days", delayed(DAY * 3), None).await;
    clock.advance(DAY * 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.broker.retain().await.expect("retention runs");
    // `second` bears a time of four days ago, from when the clock was behind.
    assert_eq!(bench.titles().await, ["first", "once", "in an hour", "in a day"]);

    // The stream that was open all the while got each once, in order.
    let mut came = Vec::new();
    bench.now("end").await;
    let mut positions = vec![first];
    while came.last().is_none_or(|title| title != "end") {
        for event in next(&mut live).await {
            if event["event"] == "notification" {
                positions.push(event["data"]["seq"].as_u64().expect("a seq"));
                came.extend(titles_of(&[event]));
            }
        }
    }
    came.retain(|title| title != "last");
    assert_eq!(came, ["for an hour", "once", "second", "in an hour", "in a day", "end"]);
    assert!(positions.is_sorted(), "{positions:?}");
    drop(live);
    bench.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_token_by_the_clock_that_there_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(BEGIN);
    let bench = Bench::open(directory.path(), &clock).await;
    bench.now("first").await;
    let mut feed = bench.stream(cursor::parse(b"now"), Some(BEGIN.after(HOUR)));
    assert_eq!(next(&mut feed).await[0]["event"], "hello");
    clock.set_back(DAY * 2);
    tokio::time::sleep(HOUR * 2).await;
    bench.now("still here").await;
    let came = loop {
        let titles = titles_of(&next(&mut feed).await);
        if !titles.is_empty() {
            break titles;
        }
    };
    assert_eq!(came, ["still here"], "a token is good until its end, however long that is put off");
    clock.advance(DAY * 4);
    // The wall clock is looked at every few minutes while nothing comes, and with all that comes.
    tokio::time::sleep(Duration::from_mins(6)).await;
    let bye = loop {
        if let Some(bye) = next(&mut feed).await.into_iter().find(|event| event["event"] == "bye") {
            break bye;
        }
    };
    assert_eq!(bye["data"]["reason"], "expired");
    drop(feed);
    bench.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_starts_two_days_earlier_than_it_ended_goes_on_with_its_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(BEGIN);
    let bench = Bench::open(directory.path(), &clock).await;
    let epoch = bench.broker.epoch().clone();
    let first = bench.publish("first", Life::default(), Some("order-42")).await;
    bench.publish("in an hour", delayed(HOUR), None).await;
    bench.publish("for an hour", expiring(HOUR), None).await;
    bench.close().await;

    clock.set_back(DAY * 2);
    let bench = Bench::open(directory.path(), &clock).await;
    assert_eq!(*bench.broker.epoch(), epoch, "it is the same log");
    let mut feed = bench.stream(Resume::After(first.cursor.clone().expect("it is in the log")), None);
    let hello = next(&mut feed).await.remove(0);
    assert_eq!((&hello["event"], &hello["data"]["recovered"]), (&json!("hello"), &json!(true)));
    drop(feed);
    assert!(bench.publish("first", Life::default(), Some("order-42")).await.replayed);
    assert!(bench.now("second").await > seq(&first));
    bench.broker.retain().await.expect("retention runs");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(bench.titles().await, ["first", "for an hour", "second"]);
    clock.advance(DAY * 2 + HOUR);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.titles().await, ["first", "second", "in an hour"]);
    bench.close().await;
}

/// The wall clock of a process under libfaketime: a file that says how far it is off.
struct WallClock(PathBuf);

impl WallClock {
    /// Sets it so many days forward or back from the machine's.
    fn set(&self, days: i32) {
        // Put in place whole: it is read at every look at the clock.
        let fresh = self.0.with_extension("fresh");
        std::fs::write(&fresh, format!("{days:+}d\n")).expect("a file of ours");
        std::fs::rename(&fresh, &self.0).expect("a file of ours");
    }
}

/// Debian's `faketime`, wherever the machine's kind has it.
fn library() -> String {
    let kinds = std::fs::read_dir("/usr/lib").expect("a Linux").flatten();
    let found = kinds.map(|kind| kind.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let found = found.expect("libfaketime is installed: apt-get install faketime");
    found.to_str().expect("system paths are UTF-8").to_owned()
}

fn delayed_by(server: &Server, title: &str, delay: &str) -> Value {
    server.publish(&json!({ "to": "user:alice", "title": title, "delay": delay }))
}

fn token_until(server: &Server, days: i64) -> String {
    server.token_for(&json!({ "sub": "alice", "exp": token::now() + days * 24 * 3600 + 3600 }))
}

fn inbox(server: &Server, token: &str) -> Vec<String> {
    let inbox = server.send(&Ask::get("/v1/inbox?limit=100").bearer(token)).expect(200).json();
    let entries = inbox["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["title"].as_str().expect("a title").to_owned()).collect()
}

#[test]
fn the_binary_goes_on_while_its_wall_clock_jumps_and_across_a_restart() {
    let place = tempfile::tempdir().expect("a directory");
    let clock = WallClock(place.path().join("now"));
    clock.set(0);
    let file = clock.0.to_str().expect("temporary paths are UTF-8").to_owned();
    let mut server = Setup::serve()
        .env("LD_PRELOAD", &library())
        .env("FAKETIME_TIMESTAMP_FILE", &file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("TIDINGS_STREAMS_HEARTBEAT", "1s")
        .start();
    let (long, short) = (token_until(&server, 9), token_until(&server, 0));
    let stream = |server: &Server, token: &str, query: &str| {
        crate::support::sse::Sse::open(server.place(), Ask::get(&format!("/v1/stream{query}")).bearer(token))
    };
    let (mut witness, mut short_lived) =
        (stream(&server, &long, "?cursor=now"), stream(&server, &short, "?cursor=now"));
    let epoch = witness.expect("hello").data["head"].as_str().expect("a cursor").split('.').next().map(str::to_owned);
    short_lived.expect("hello");
    let first = server.notify("alice", "first");
    assert_eq!(witness.until("notification").title(), "first");
    delayed_by(&server, "in a day", "24h");
    server.publish(&json!({ "to": "user:alice", "title": "for a day", "expires_in": "24h" }));
    assert_eq!(witness.until("notification").title(), "for a day");
    witness.until_unread(2);

    clock.set(-2);
    // A heartbeat comes by the clock that nobody sets; nothing else does, so nothing came early.
    witness.comment();
    witness.comment();
    let second = server.notify("alice", "second");
    assert!(second["seq"].as_u64() > first["seq"].as_u64());
    assert_eq!(witness.until("notification").title(), "second");
    witness.until_unread(3);
    assert_eq!(inbox(&server, &short), ["second", "for a day", "first"], "a token that has not run out is good");

    clock.set(2);
    // What the jump passed is due, once; the order of the two is that of their moments.
    let (mut came, mut died) = (Vec::new(), Vec::new());
    while came.is_empty() || died.is_empty() {
        let event = witness.next();
        match event.kind.as_str() {
            "notification" => came.push(event.title().to_owned()),
            "state" => died.push(event.data["state"].as_str().expect("a state").to_owned()),
            _ => {}
        }
    }
    assert_eq!((came, died), (vec!["in a day".to_owned()], vec!["expired".to_owned()]));
    witness.until_unread(3);
    witness.comment();
    server.send(&Ask::get("/v1/inbox").bearer(&short)).problem(401, "expired");
    // Its end is looked at with whatever comes, too.
    server.notify("alice", "third");
    short_lived.bye("expired");
    assert_eq!(witness.until("notification").title(), "third");
    drop(witness);

    delayed_by(&server, "in a week", "168h");
    clock.set(0);
    server.restart();
    let mut resumed = stream(&server, &long, &format!("?cursor={}", first["cursor"].as_str().expect("a cursor")));
    let hello = resumed.expect("hello");
    assert_eq!(hello.data["recovered"], true, "{hello:?}");
    assert_eq!(hello.data["head"].as_str().and_then(|head| head.split('.').next()), epoch.as_deref());
    let fourth = server.notify("alice", "fourth");
    assert!(fourth["seq"].as_u64() > second["seq"].as_u64());
    assert_eq!(resumed.titles_to("fourth"), ["second", "in a day", "third", "fourth"]);
    let waits = server.operate(Ask::get("/v1/scheduled")).expect(200).json();
    assert_eq!(waits["scheduled"].as_array().map(Vec::len), Some(1), "{waits}");
    // Nobody has to wait for two days until the server is itself again.
    wait_for("readiness", || (server.send(&Ask::get("/readyz")).status() == 200).then_some(()));
}
