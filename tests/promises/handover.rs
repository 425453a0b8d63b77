//! The hand-over from replay to live: subscribers attach at random cursors while publishes are in flight on several
//! threads. Each must get exactly what it may see after its cursor, ascending, nothing twice and nothing left out,
//! whether it keeps up, lags behind a small queue, or is cut and comes back.
//!
//! Threads are free to interleave, so a seed repeats what is done but not when; a race that is there shows in most
//! runs, since every subscriber comes back dozens of times.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use tempfile::TempDir;
use tidings::broker::{self, Broker, Feed, FeedItem, FeedRequest, Filter};
use tidings::clock::Clock;
use tidings::hub;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{
    Audience, Content, Credential, Cursor, Draft, Identity, Life, Seq, Timestamp, TopicName, UserId, UserIdentity,
};
use tidings::wire::cursor::Resume;
use tidings::wire::event::EventKind;
use tidings::wire::upkeep::Repair;
use tokio::sync::watch;

const PUBLISHERS: u64 = 8;
const PUBLISHES_EACH: u64 = 400;
const SUBSCRIBERS: u64 = 48;
const PEOPLE: [&str; 3] = ["ann", "bob", "cy"];
const TOPICS: [&str; 2] = ["ops", "orders"];
/// Who follows what, from before the first publish.
const FOLLOWS: [(&str, &str); 3] = [("ann", "ops"), ("ann", "orders"), ("bob", "orders")];
/// Far more than a loaded machine needs; reached only where something is never sent.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscribers_that_keep_up_get_exactly_what_follows_their_cursor() {
    hand_over(256, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscribers_that_lag_get_exactly_what_follows_their_cursor() {
    let lags = hand_over(2, 2).await;
    assert!(lags > 0, "nobody lagged, so this held nothing");
}

/// Plays it, and returns how often someone lagged.
async fn hand_over(queue_frames: usize, seed: u64) -> u64 {
    let bench = Bench::open(queue_frames).await;
    let (progress, published) = watch::channel(0);
    let progress = Arc::new(progress);
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        let (broker, progress) = (bench.broker.clone(), progress.clone());
        publishers.push(bench.lifecycle.spawn_edge(publish(broker, Dice::new(seed, number), progress)));
    }
    // The last event is sent once all others are committed; whoever has it has everything.
    let (last, end) = watch::channel(None);
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            let dice = Dice::new(seed, PUBLISHERS + number);
            let user = PEOPLE[usize::try_from(number).unwrap_or_default() % PEOPLE.len()];
            let subscriber = Subscriber { broker: bench.broker.clone(), user, dice, end: end.clone() };
            bench.lifecycle.spawn_edge(tokio::time::timeout(PATIENCE, subscriber.watch(published.clone())))
        })
        .collect();

    let mut log: BTreeMap<u64, Audience> = BTreeMap::new();
    for sent in try_join_all(publishers).await.expect("no publisher panics") {
        log.extend(sent);
    }
    let (seq, to) = send(&bench.broker, Audience::Everyone).await;
    log.insert(seq, to);
    last.send(Some(seq)).expect("subscribers wait for it");

    for (number, subscriber) in subscribers.into_iter().enumerate() {
        let watched = subscriber.await.expect("no subscriber panics");
        let Watched { user, runs } = watched.unwrap_or_else(|_| panic!("subscriber {number} still waits"));
        for Run { after, upto, got } in runs {
            let expected: Vec<u64> = log
                .range((Excluded(after), Included(upto)))
                .filter(|(_, to)| reaches(to, user))
                .map(|(seq, _)| *seq)
                .collect();
            assert_eq!(
                got, expected,
                "subscriber {number} ({user}) in ({after}, {upto}], queue of {queue_frames}, seed {seed}"
            );
        }
    }
    let lags = bench.broker.metrics().lags.get();
    bench.close().await;
    lags
}

/// What one connection brought.
struct Run {
    after: u64,
    /// The last event that was read.
    upto: u64,
    got: Vec<u64>,
}

struct Watched {
    user: &'static str,
    runs: Vec<Run>,
}

struct Subscriber {
    broker: Broker,
    user: &'static str,
    dice: Dice,
    end: watch::Receiver<Option<u64>>,
}

impl Subscriber {
    /// Comes when so much was published as the dice say, and stays, cut now and then, until the end.
    async fn watch(mut self, mut published: watch::Receiver<u64>) -> Watched {
        let arrival = self.dice.below(PUBLISHERS * PUBLISHES_EACH);
        published.wait_for(|count| *count >= arrival).await.expect("publishers outlive this");
        let mut resume = match self.dice.below(3) {
            0 => Resume::Start,
            1 => Resume::Now,
            _ => self.after(self.dice.clone().below(arrival + 1)),
        };
        let mut runs = Vec::new();
        loop {
            // A cut comes after a few events or after many, so that it falls into replay as well as into live.
            let patience = 1 + self.dice.below([5, 50, 2_000][runs.len() % 3]);
            let run = self.connect(resume, patience).await;
            resume = self.after(run.upto);
            runs.push(run);
            let end = *self.end.borrow();
            if end.is_some_and(|end| runs.last().is_some_and(|run| run.upto >= end)) {
                return Watched { user: self.user, runs };
            }
        }
    }

    fn after(&self, seq: u64) -> Resume {
        Resume::After(Cursor { epoch: self.broker.epoch().clone(), seq: Seq(seq) })
    }

    /// Reads so many events, or until the last one.
    async fn connect(&self, resume: Resume, events: u64) -> Run {
        let who = UserIdentity {
            user: user(self.user),
            credential: Credential::Bearer,
            topics: None,
            publishes: false,
            expires: None,
            issued: None,
        };
        let request = FeedRequest { resume, snapshot: 0, filter: Filter::default() };
        let mut feed = self.broker.open_feed(who, request).unwrap_or_else(|reason| panic!("refused: {reason:?}"));
        let after = hello(&mut feed).await;
        let mut run = Run { after, upto: after, got: Vec::new() };
        let mut end = self.end.clone();
        loop {
            // Whoever came back after the last event has nothing to wait for.
            let item = tokio::select! {
                biased;
                item = feed.next() => item,
                _ = end.wait_for(|end| end.is_some_and(|end| run.upto >= end)) => return run,
            };
            let Some(FeedItem::Frames(frames)) = item else { panic!("the stream ended: {item:?}") };
            for frame in frames {
                if frame.kind == EventKind::Notification {
                    let seq = frame.seq.expect("a notification has a position").0;
                    run.got.push(seq);
                    run.upto = seq;
                    if run.got.len() as u64 >= events {
                        return run;
                    }
                }
            }
        }
    }
}

/// The position that `hello` goes on from.
async fn hello(feed: &mut Feed) -> u64 {
    let item = feed.next().await;
    let Some(FeedItem::Frames(frames)) = &item else { panic!("no `hello` but {item:?}") };
    let text = frames[0].object();
    let event: serde_json::Value = serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let cursor = event["id"].as_str().and_then(|id| tidings::wire::cursor::exact(id.as_bytes()));
    cursor.unwrap_or_else(|| panic!("no cursor in {text:?}")).seq.0
}

async fn publish(broker: Broker, mut dice: Dice, progress: Arc<watch::Sender<u64>>) -> Vec<(u64, Audience)> {
    let mut sent = Vec::new();
    for _ in 0..PUBLISHES_EACH {
        let to = match dice.below(6) {
            0 => Audience::Everyone,
            1 => Audience::Users(PEOPLE.map(user).to_vec()),
            2 => Audience::Users(vec![user(dice.pick(&PEOPLE))]),
            _ => Audience::Topic(topic(dice.pick(&TOPICS))),
        };
        sent.push(send(&broker, to).await);
        progress.send_modify(|count| *count += 1);
    }
    sent
}

async fn send(broker: &Broker, to: Audience) -> (u64, Audience) {
    let content = Content { title: "n".to_owned(), ..Content::default() };
    let draft = Draft {
        to: to.clone(),
        content,
        category_named: false,
        life: Life::default(),
        via: tidings::model::Via::default(),
    };
    let published = broker.publish(&Identity::Operator, draft, None).await;
    (
        published
            .unwrap_or_else(|error| panic!("a publish was refused: {error}"))
            .cursor
            .expect("it is not scheduled")
            .seq
            .0,
        to,
    )
}

fn reaches(to: &Audience, name: &str) -> bool {
    match to {
        Audience::Everyone => true,
        Audience::Users(users) => users.iter().any(|user| user.as_str() == name),
        Audience::Topic(topic) => FOLLOWS.iter().any(|(user, followed)| *user == name && *followed == topic.as_str()),
    }
}

struct Bench {
    broker: Broker,
    lifecycle: Lifecycle,
    _directory: TempDir,
}

impl Bench {
    async fn open(queue_frames: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the database");
        let config =
            broker::Config { hub: hub::Config { queue_frames, ..hub::Config::default() }, ..broker::Config::default() };
        let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
        let lifecycle = Lifecycle::default();
        let opened = Broker::open(directory.path(), config, clock, Arc::new(Metrics::default()), &lifecycle).await;
        let broker = opened.expect("a new directory opens");
        for (name, followed) in FOLLOWS {
            let follow = broker.follow(&Identity::Operator, &topic(followed), &user(name), 0).await;
            assert_eq!(follow, Ok(true), "{name} follows {followed}");
        }
        Self { broker, lifecycle, _directory: directory }
    }

    async fn close(self) {
        let recounted = self.broker.recount(&Identity::Operator, 0, Repair::Report).await;
        let drifted = recounted.map(|page| (page.drifted, page.next));
        assert_eq!(drifted, Ok((Vec::new(), None)), "counts are what a recount gives");
        self.lifecycle.drain();
        drop(self.broker);
        assert!(self.lifecycle.core_ended(PATIENCE).await, "the writer and the fan-out end with the broker");
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user id")
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a topic name")
}

/// `SplitMix64`: small, seeded, and good enough to choose with.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or_default()]
    }
}
