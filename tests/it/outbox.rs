//! The outbox: what is published by other media than the inbox is carried once, tried again, given up, cancelled, and told.
//!
//! The rules, the store and the worker are the real ones, in this process; the other side is a script, so that it can refuse,
//! hang and panic when it is to. What crosses HTTP is asked of the real binary.

mod holds;
mod robots;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tidings::broker::{self, Broker, Outbox, Wanted};
use tidings::clock::Clock;
use tidings::deliver::{self, Adapter, Outcome, Progress, SetUp};
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{
    Bulk, Category, DeliveryId, DeliveryState, Edit, Email, Form, Identity, Locale, Mail, Media, Medium,
    NotificationId, Parcel, PreferenceEdit, ProfileEdit, RobotName, Robots, Timestamp, TopicName, UserId, UserIdentity,
    Wish,
};
use tidings::wire::delivery::{Asked, Delivery, Tallied, Timeline};
use tidings::wire::publish::{Place, parse};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::DEADLINE;
use crate::support::cli::{arg, run};
use crate::support::http::Ask;
use crate::support::server::Server;

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STEPS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// What the other side does with a parcel.
#[derive(Clone, Copy, Debug)]
enum Say {
    Sent,
    Later(Option<Duration>),
    Never,
    /// It has no turn for so long.
    NotTried(Duration),
    /// The set-up is wrong.
    Held,
    Panics,
    /// Answers when it is let go.
    Hangs,
}

/// The other side of one medium.
struct Script {
    medium: Medium,
    most: usize,
    at_once: usize,
    pause: Duration,
    say: Box<dyn Fn(&Parcel) -> Say + Send + Sync>,
    /// Every parcel that was handed over, and when.
    handed: parking_lot::Mutex<Vec<(Instant, Parcel)>>,
    /// How many each call held.
    calls: parking_lot::Mutex<Vec<usize>>,
    /// Until when lanes are to be left alone.
    resting: parking_lot::Mutex<HashMap<String, Instant>>,
    /// Parcels that are held now, and were at most.
    held: AtomicUsize,
    most_held: AtomicUsize,
    /// Lets those go that hang.
    gate: Semaphore,
}

impl Script {
    fn new(say: impl Fn(&Parcel) -> Say + Send + Sync + 'static) -> Self {
        Self {
            medium: Medium::Email,
            most: 1,
            at_once: 1,
            pause: Duration::ZERO,
            say: Box::new(say),
            handed: parking_lot::Mutex::default(),
            calls: parking_lot::Mutex::default(),
            resting: parking_lot::Mutex::default(),
            held: AtomicUsize::new(0),
            most_held: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        }
    }

    fn parcels(&self) -> Vec<Parcel> {
        self.handed.lock().iter().map(|(_, parcel)| parcel.clone()).collect()
    }

    fn users(&self) -> Vec<String> {
        self.parcels().iter().map(|parcel| parcel.user.to_string()).collect()
    }
}

impl Adapter for Script {
    fn medium(&self) -> Medium {
        self.medium
    }

    fn most_together(&self, _: &str) -> usize {
        self.most
    }

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn set_up(&self) -> SetUp {
        SetUp::OfMedium
    }

    fn pause(&self, lane: &str) -> Duration {
        let until = self.resting.lock().get(lane).copied();
        until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    fn send<'a>(&'a self, lane: &'a str, parcels: Vec<Parcel>, _: &'a Progress) -> BoxFuture<'a, Vec<Outcome>> {
        async move {
            self.calls.lock().push(parcels.len());
            let held = self.held.fetch_add(parcels.len(), Ordering::SeqCst) + parcels.len();
            self.most_held.fetch_max(held, Ordering::SeqCst);
            let mut outcomes = Vec::new();
            for parcel in parcels {
                assert_eq!(parcel.lane, lane);
                self.handed.lock().push((Instant::now(), parcel.clone()));
                let say = (self.say)(&parcel);
                outcomes.push(match say {
                    Say::Sent => Outcome::Sent { answer: format!("250 took {}", parcel.delivery) },
                    Say::Later(after) => Outcome::Later { reason: "451 come back".to_owned(), after },
                    Say::Never => Outcome::Never { reason: "550 unknown\r\nuser".to_owned() },
                    Say::NotTried(after) => Outcome::NotTried { why: "not its turn".to_owned(), after },
                    Say::Held => Outcome::Held { why: "535 who are you".to_owned(), remedy: "Mend it." },
                    Say::Panics => panic!("the script says so"),
                    Say::Hangs => {
                        self.gate.acquire().await.expect("it is never closed").forget();
                        Outcome::Sent { answer: "250 at last".to_owned() }
                    }
                });
                self.held.fetch_sub(1, Ordering::SeqCst);
            }
            self.resting.lock().insert(lane.to_owned(), Instant::now() + self.pause);
            outcomes
        }
        .boxed()
    }
}

/// A log with its rules, and whoever carries.
struct Stage {
    broker: Broker,
    lifecycle: Lifecycle,
    clock: Clock,
}

fn config() -> broker::Config {
    config_with("desk")
}

/// With a robot of this name, for loans.
fn config_with(robot: &str) -> broker::Config {
    let category = |name: &str| Category::new(name).expect("a category");
    let mut robots = Robots::default();
    let robot = RobotName::new(robot).expect("a name");
    robots.add(&robot, &[category("loans")]).expect("the first of its category");
    let media = Media { email: Some(Mail { domain: "library.example".to_owned() }), dingtalk: Some(robots) };
    let outbox = Outbox { schedule: STEPS.to_vec(), ..Outbox::default() };
    broker::Config { media, outbox, ..broker::Config::default() }
}

impl Stage {
    async fn open(directory: &Path, clock: &Clock) -> Self {
        Self::open_with(directory, clock, config()).await
    }

    async fn open_with(directory: &Path, clock: &Clock, config: broker::Config) -> Self {
        let (metrics, lifecycle) = (Arc::new(Metrics::default()), Lifecycle::default());
        let broker = Broker::open(directory, config, clock.clone(), metrics, &lifecycle).await;
        Self { broker: broker.expect("the directory opens"), lifecycle, clock: clock.clone() }
    }

    fn carry(&self, script: Script) -> Arc<Script> {
        self.carry_with(script, deliver::Workers::default())
    }

    fn carry_with(&self, script: Script, config: deliver::Workers) -> Arc<Script> {
        let script = Arc::new(script);
        deliver::start(self.broker.clone(), vec![script.clone()], config, &self.lifecycle);
        script
    }

    async fn close(self) {
        let Self { broker, lifecycle, .. } = self;
        lifecycle.drain();
        drop(broker);
        assert!(lifecycle.edges_ended(DEADLINE).await, "the worker ends with the drain");
        assert!(lifecycle.core_ended(DEADLINE).await, "the core ends with its last user");
    }

    async fn know(&self, name: &str, email: Option<&str>, preferences: Vec<PreferenceEdit>) {
        let email = email.map_or(Edit::Keep, |email| Edit::Set(Email::new(email).expect("an address")));
        let edit = ProfileEdit { email, preferences, ..ProfileEdit::default() };
        self.broker.put_profile(&Identity::Operator, &user(name), edit).await.expect("is known");
    }

    async fn publish(&self, body: &Value) -> NotificationId {
        self.publish_with(body, None).await
    }

    async fn publish_with(&self, body: &Value, idempotency: Option<broker::Idempotency>) -> NotificationId {
        let parsed = parse(body.to_string().as_bytes(), Place::Request).unwrap_or_else(|e| panic!("{body}: {e}"));
        let published = self.broker.publish_body(&Identity::Operator, parsed, idempotency).await;
        published.unwrap_or_else(|e| panic!("{body}: {e:?}")).id
    }

    async fn deliveries(&self, asked: Asked) -> (Vec<Delivery>, Option<Tallied>) {
        let page = self.broker.deliveries(&Identity::Operator, asked, None, 10_000).await.expect("is read");
        (page.items.into_iter().map(|told| told.delivery).collect(), page.tallied)
    }

    async fn of(&self, notification: NotificationId) -> BTreeMap<String, Delivery> {
        let (items, _) = self.deliveries(Asked { notification: Some(notification), ..Asked::default() }).await;
        items.into_iter().map(|item| (item.user.clone().expect("is there").to_string(), item)).collect()
    }

    async fn timeline(&self, id: DeliveryId) -> Timeline {
        self.broker.delivery(&Identity::Operator, id).await.expect("is there")
    }

    /// Waits until a notification's deliveries are as they should be.
    async fn until(&self, what: &str, notification: NotificationId, is: impl Fn(&Tallied) -> bool) -> Tallied {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (_, tallied) = self.deliveries(Asked { notification: Some(notification), ..Asked::default() }).await;
            let tallied = tallied.expect("one notification is asked for");
            if is(&tallied) {
                return tallied;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}: {tallied:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn finished(&self, notification: NotificationId) -> Tallied {
        self.until("all is settled", notification, Tallied::is_finished).await
    }

    /// Lets somebody have an id at DingTalk.
    async fn know_at_dingtalk(&self, name: &str) {
        let dingtalk = Edit::Set(tidings::model::DingTalkId::new(&format!("manager-{name}")).expect("an id"));
        let edit = ProfileEdit { dingtalk, ..ProfileEdit::default() };
        self.broker.put_profile(&Identity::Operator, &user(name), edit).await.expect("is known");
    }

    fn counted(&self, medium: &'static str, outcome: &'static str) -> u64 {
        let labels = [("medium", medium), ("outcome", outcome)];
        self.broker.metrics().outbox_deliveries.get_or_create(&labels).get()
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user")
}

fn clock() -> Clock {
    Clock::manual(START)
}

/// Waits for a condition that nobody announces.
async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn unwanted(category: &str) -> Vec<PreferenceEdit> {
    let about = tidings::model::About::parse(category).expect("a category");
    vec![PreferenceEdit::Say(about, Medium::Email, Some(Wish::Unwanted))]
}

fn reason(delivery: &Delivery) -> &str {
    delivery.reason.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn everybody_has_a_delivery_and_the_log_says_what_became_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let script = stage.carry(Script::new(|_| Say::Sent));
    stage.know("alice", Some("alice@Mail.Example"), Vec::new()).await;
    stage.know("bob", None, Vec::new()).await;
    stage.know("carol", Some("carol@mail.example"), unwanted("loans")).await;
    let body = json!({ "to": { "users": ["alice", "bob", "carol", "dave"] }, "title": "Due", "body": "On Friday",
                       "category": "loans", "click": "https://l.example/1", "via": ["email"] });
    let id = stage.publish(&body).await;
    let tallied = stage.finished(id).await;
    assert_eq!((tallied.sent, tallied.skipped), (1, 3));

    let of = stage.of(id).await;
    let told = |name: &str| (of[name].state, reason(&of[name]), of[name].attempts);
    assert_eq!(told("alice"), (DeliveryState::Sent, "", 1));
    assert_eq!(told("bob"), (DeliveryState::Skipped, "no email address is known", 0));
    assert_eq!(told("carol"), (DeliveryState::Skipped, "does not want email about loans", 0));
    assert_eq!(told("dave"), (DeliveryState::Skipped, "no email address is known", 0));
    assert_eq!(of["alice"].settled_at, Some(START));

    let [parcel] = &script.parcels()[..] else { panic!("one was carried") };
    assert_eq!((parcel.lane.as_str(), parcel.bulk, parcel.attempt), ("mail.example", Bulk::Bulk, 1));
    assert_eq!((parcel.letter.subject.as_str(), parcel.letter.text.as_str()), ("Due", "On Friday"));
    assert_eq!((parcel.letter.click.as_deref(), parcel.letter.form), (Some("https://l.example/1"), Form::Plain));
    let message_id = format!("{}.{}@library.example", parcel.delivery, stage.broker.epoch());
    assert_eq!(parcel.message_id, message_id);

    let timeline = stage.timeline(of["alice"].id).await;
    assert_eq!(timeline.told.message_id, message_id);
    let attempts: Vec<_> = timeline.attempts.iter().map(|a| (a.number, a.outcome.as_str(), a.answer.clone())).collect();
    assert_eq!(attempts, [(1, "sent", format!("250 took {}", parcel.delivery))]);
    until("it is counted", || (stage.counted("email", "sent"), stage.counted("email", "skipped")) == (1, 3)).await;

    let alone = stage.publish(&json!({ "to": "user:alice", "body": "\nOne line\nand more", "via": ["email"] })).await;
    stage.finished(alone).await;
    let parcel = script.parcels().pop().expect("it was carried");
    assert_eq!((parcel.bulk, parcel.letter.subject.as_str()), (Bulk::Personal, "One line"));
    stage.close().await;
}

#[tokio::test]
async fn what_fails_is_tried_by_the_schedule_then_dead_then_tried_again_on_request() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = refuses.clone();
    let script =
        stage.carry(Script::new(move |_| if seen.load(Ordering::SeqCst) { Say::Later(None) } else { Say::Sent }));
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    let id = stage.publish(&json!({ "to": "user:alice", "title": "Due", "via": ["email"] })).await;
    for (attempt, step) in (1..).zip(STEPS) {
        until("it was tried", || script.parcels().len() == attempt).await;
        stage.until("it waits", id, |tallied| tallied.pending == 1).await;
        let waits = stage.of(id).await.remove("alice").expect("is there");
        let next_at = waits.next_at.expect("it is pending");
        assert!(next_at > stage.clock.now() && next_at <= stage.clock.now().after(step), "{next_at} after {attempt}");
        assert_eq!(reason(&waits), "451 come back");
        clock.advance(step);
    }
    let tallied = stage.finished(id).await;
    assert_eq!(tallied.dead, 1);
    let dead = stage.of(id).await.remove("alice").expect("is there");
    assert_eq!((dead.attempts, reason(&dead)), (3, "given up after 3 attempts: 451 come back"));
    let ids: HashSet<String> = script.parcels().into_iter().map(|parcel| parcel.message_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");

    refuses.store(false, Ordering::SeqCst);
    let by_sms = Asked { medium: Some(Medium::DingTalk), ..Asked::default() };
    let retry = |asked: Asked| stage.broker.retry_deliveries(&Identity::Operator, asked);
    assert_eq!(retry(by_sms).await, Ok(0));
    assert_eq!(retry(Asked { user: Some(user("alice")), ..Asked::default() }).await, Ok(1));
    assert_eq!(stage.finished(id).await.sent, 1);
    assert_eq!(retry(Asked::default()).await, Ok(0));
    let timeline = stage.timeline(dead.id).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|a| (a.number, a.outcome.as_str())).collect();
    assert_eq!(outcomes, [(1, "later"), (2, "later"), (3, "later"), (4, "sent")]);
    until("it is counted", || (stage.counted("email", "retried"), stage.counted("email", "dead")) == (2, 1)).await;
    stage.close().await;
}

#[tokio::test]
async fn a_final_no_is_not_asked_twice_and_a_wish_to_be_left_alone_is_heeded() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    let hour = Duration::from_secs(3_600);
    let script = stage.carry(Script::new(move |parcel| match parcel.user.as_str() {
        "nobody" => Say::Never,
        _ => Say::Later(Some(hour)),
    }));
    for name in ["nobody", "busy"] {
        stage.know(name, Some(&format!("{name}@mail.example")), Vec::new()).await;
    }
    let body = json!({ "to": { "users": ["nobody", "busy"] }, "title": "x", "via": ["email"] });
    let id = stage.publish(&body).await;
    stage.until("both were tried", id, |tallied| tallied.dead == 1 && tallied.pending == 1).await;
    let of = stage.of(id).await;
    assert_eq!(reason(&of["nobody"]), "550 unknown  user");
    assert_eq!(of["busy"].next_at, Some(START.after(hour)));
    assert_eq!(script.parcels().len(), 2);
    stage.close().await;
}

#[tokio::test]
async fn an_adapter_that_panics_or_hangs_has_not_sent_anything() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let script = Script::new(|parcel| if parcel.user.as_str() == "p" { Say::Panics } else { Say::Hangs });
    stage.carry_with(
        script,
        deliver::Workers { workers: 4, patience: Duration::from_millis(50), ..deliver::Workers::default() },
    );
    stage.know("p", Some("p@a.example"), Vec::new()).await;
    stage.know("h", Some("h@b.example"), Vec::new()).await;
    let id = stage.publish(&json!({ "to": { "users": ["p", "h"] }, "title": "x", "via": ["email"] })).await;
    stage.until("both wait again", id, |tallied| tallied.pending == 2 && tallied.leased == 0).await;
    until("both were tried", || stage.counted("email", "retried") == 2).await;
    let of = stage.of(id).await;
    assert_eq!(reason(&of["p"]), "the adapter panicked");
    assert_eq!(reason(&of["h"]), "no answer came in time");
    assert_eq!(stage.broker.metrics().panics.get(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_destination_that_hangs_holds_up_no_other_and_all_of_them_stay_within_the_workers() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let slow = |parcel: &Parcel| if parcel.lane == "slow.example" { Say::Hangs } else { Say::Sent };
    let script = stage.carry_with(Script::new(slow), deliver::Workers { workers: 3, ..deliver::Workers::default() });
    let mut names = Vec::new();
    for i in 0..30 {
        let (name, lane) = (format!("u{i}"), if i < 10 { "slow".to_owned() } else { format!("d{}", i % 5) });
        stage.know(&name, Some(&format!("{name}@{lane}.example")), Vec::new()).await;
        names.push(name);
    }
    let id = stage.publish(&json!({ "to": { "users": names }, "title": "x", "via": ["email"] })).await;
    let tallied = stage.until("the others have theirs", id, |tallied| tallied.sent == 20).await;
    assert_eq!((tallied.leased, tallied.pending), (1, 9));
    let slow = script.parcels().iter().filter(|parcel| parcel.lane == "slow.example").count();
    assert_eq!(slow, 1, "one at a time");
    script.gate.add_permits(10);
    assert_eq!(stage.finished(id).await.sent, 30);
    assert!(script.most_held.load(Ordering::SeqCst) <= 3, "{:?}", script.most_held);
    let users: HashSet<String> = script.users().into_iter().collect();
    assert_eq!((script.parcels().len(), users.len()), (30, 30));
    stage.close().await;
}

#[tokio::test]
async fn a_lane_has_as_many_attempts_at_once_as_it_may_and_each_lane_one_before_any_has_two() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let script = Script { at_once: 3, ..Script::new(|_| Say::Hangs) };
    let mut names = Vec::new();
    for i in 0..12 {
        let name = format!("u{i}");
        stage.know(&name, Some(&format!("{name}@d{}.example", i % 2)), Vec::new()).await;
        names.push(name);
    }
    let id = stage.publish(&json!({ "to": { "users": names }, "title": "x", "via": ["email"] })).await;
    let script = stage.carry_with(script, deliver::Workers { workers: 5, ..deliver::Workers::default() });
    stage.until("all workers are at it", id, |tallied| tallied.leased == 5).await;
    until("they are on their way", || script.parcels().len() == 5).await;
    let mut of_lane: BTreeMap<String, usize> = BTreeMap::new();
    for parcel in script.parcels() {
        *of_lane.entry(parcel.lane).or_default() += 1;
    }
    let mut attempts: Vec<usize> = of_lane.into_values().collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [2, 3]);
    script.gate.add_permits(names.len());
    assert_eq!(stage.finished(id).await.sent, 12);
    assert_eq!(script.most_held.load(Ordering::SeqCst), 5);
    stage.close().await;
}

#[tokio::test]
async fn who_wants_it_no_more_or_has_no_address_any_more_gets_nothing_that_still_waits() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let operator = Identity::Operator;
    let topic = TopicName::new("ops").expect("a topic");
    for name in ["alice", "bob", "carol", "dave"] {
        stage.know(name, Some(&format!("{name}@mail.example")), Vec::new()).await;
        stage.broker.follow(&operator, &topic, &user(name), 0).await.expect("follows");
    }
    let id = stage.publish(&json!({ "to": "topic:ops", "title": "x", "via": ["email"] })).await;
    stage.until("all are made", id, |tallied| tallied.pending == 4 && !tallied.expanding).await;
    stage.know("alice", None, unwanted("general")).await;
    let without = ProfileEdit { email: Edit::Clear, ..ProfileEdit::default() };
    stage.broker.put_profile(&operator, &user("bob"), without).await.expect("is known");
    stage.broker.mute(&identity("carol"), &topic, broker::Mute::On).await.expect("mutes");

    let script = stage.carry(Script::new(|_| Say::Sent));
    let tallied = stage.finished(id).await;
    assert_eq!((tallied.sent, tallied.cancelled), (1, 3));
    assert_eq!(script.users(), ["dave"]);
    let of = stage.of(id).await;
    for (name, why) in [
        ("alice", "unsubscribed: does not want email about general any more"),
        ("bob", "no email address is known any more"),
        ("carol", "has muted the topic"),
    ] {
        assert_eq!((of[name].state, reason(&of[name])), (DeliveryState::Cancelled, why), "{name}");
    }
    stage.close().await;
}

#[tokio::test]
async fn a_lane_is_left_alone_for_as_long_as_its_rate_says_and_what_waits_goes_together() {
    const PAUSE: Duration = Duration::from_millis(300);
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let script = Script { medium: Medium::DingTalk, most: 4, pause: PAUSE, ..Script::new(|_| Say::Sent) };
    let mut names = Vec::new();
    for i in 0..10 {
        let name = format!("u{i}");
        let dingtalk = Edit::Set(tidings::model::DingTalkId::new(&format!("manager{i}")).expect("an id"));
        let edit = ProfileEdit { dingtalk, ..ProfileEdit::default() };
        stage.broker.put_profile(&Identity::Operator, &user(&name), edit).await.expect("is known");
        names.push(name);
    }
    let to =
        |category: &str| json!({ "to": { "users": names }, "title": "x", "category": category, "via": ["dingtalk"] });
    // Nobody tells this category.
    let nowhere = stage.publish(&to("ops")).await;
    assert_eq!(stage.finished(nowhere).await.skipped, 10);
    let id = stage.publish(&to("loans")).await;
    let script = stage.carry(script);
    assert_eq!(stage.finished(id).await.sent, 10);
    assert_eq!(*script.calls.lock(), [4, 4, 2]);
    let handed = script.handed.lock().clone();
    for pair in [(3, 4), (7, 8)] {
        let span = handed[pair.1].0 - handed[pair.0].0;
        assert!(span >= PAUSE, "{span:?}");
    }
    assert!(handed.iter().all(|(_, parcel)| parcel.lane == "desk"));
    stage.close().await;
}

#[tokio::test]
async fn what_a_killed_process_had_begun_is_begun_again_and_its_late_answer_counts_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    let id = stage.publish(&json!({ "to": "user:alice", "title": "x", "via": ["email"] })).await;
    let wanted = || vec![Wanted { medium: Medium::Email, lane: "mail.example".to_owned(), most: 5 }];
    let leased = stage.broker.turn(Vec::new(), wanted()).await.expect("is leased");
    let [(lease, parcel)] = &leased[..] else { panic!("{leased:?}") };
    let first = parcel.message_id.clone();
    assert!(stage.broker.turn(Vec::new(), wanted()).await.expect("works").is_empty(), "it is leased once");
    // The process ends here; nobody gives the lease back.
    let late = *lease;
    stage.close().await;

    let stage = Stage::open(directory.path(), &clock).await;
    assert_eq!(stage.of(id).await["alice"].state, DeliveryState::Leased);
    let script = stage.carry(Script::new(|_| Say::Sent));
    assert_eq!(stage.finished(id).await.sent, 1);
    let parcels = script.parcels();
    assert_eq!(parcels.len(), 1);
    assert_eq!((parcels[0].attempt, &parcels[0].message_id), (2, &first));
    let never = vec![(late, Outcome::Never { reason: "late".to_owned() })];
    stage.broker.turn(never, Vec::new()).await.expect("works");
    assert_eq!(stage.of(id).await["alice"].state, DeliveryState::Sent);
    let timeline = stage.timeline(parcels[0].delivery).await;
    let outcomes: Vec<_> = timeline.attempts.iter().map(|a| (a.number, a.outcome.as_str())).collect();
    assert_eq!(outcomes, [(1, "unknown"), (2, "sent")]);
    stage.close().await;
}

#[tokio::test]
async fn a_drain_waits_for_what_is_on_its_way_and_begins_nothing_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    let script = stage.carry(Script::new(|_| Say::Hangs));
    for name in ["alice", "bob"] {
        stage.know(name, Some(&format!("{name}@mail.example")), Vec::new()).await;
    }
    let id = stage.publish(&json!({ "to": { "users": ["alice", "bob"] }, "title": "x", "via": ["email"] })).await;
    until("the first is on its way", || script.parcels().len() == 1).await;
    stage.lifecycle.drain();
    script.gate.add_permits(2);
    stage.close().await;
    assert_eq!(script.parcels().len(), 1);

    let stage = Stage::open(directory.path(), &clock).await;
    let states: Vec<_> = stage.of(id).await.into_values().map(|delivery| delivery.state).collect();
    assert_eq!(states, [DeliveryState::Sent, DeliveryState::Pending]);
    stage.close().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever_and_what_it_left_is_begun_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    let impatient = deliver::Workers { grace: Duration::from_millis(50), ..deliver::Workers::default() };
    let script = stage.carry_with(Script::new(|_| Say::Hangs), impatient);
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    let id = stage.publish(&json!({ "to": "user:alice", "title": "x", "via": ["email"] })).await;
    until("it is on its way", || script.parcels().len() == 1).await;
    stage.close().await;

    let stage = Stage::open(directory.path(), &clock).await;
    let again = stage.carry(Script::new(|_| Say::Sent));
    assert_eq!(stage.finished(id).await.sent, 1);
    assert_eq!((again.parcels()[0].attempt, &again.parcels()[0].message_id), (2, &script.parcels()[0].message_id));
    stage.close().await;
}

#[tokio::test]
async fn what_is_gone_is_not_carried_any_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    let operator = Identity::Operator;
    let topic = TopicName::new("ops").expect("a topic");
    stage.broker.follow(&operator, &topic, &user("alice"), 0).await.expect("follows");
    let body = |more: Value| {
        let mut body = json!({ "to": "user:alice", "title": "x", "via": ["email"] });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let retracted = stage.publish(&body(json!({}))).await;
    let replaced = stage.publish(&body(json!({ "collapse": "disk" }))).await;
    let expired = stage.publish(&body(json!({ "expires_in": "10s" }))).await;
    let of_topic = stage.publish(&body(json!({ "to": "topic:ops" }))).await;
    let kept = stage.publish(&body(json!({ "collapse": "disk" }))).await;
    stage.until("the topic's is made", of_topic, |tallied| tallied.pending == 1).await;
    stage.broker.retract(&operator, retracted).await.expect("is retracted");
    stage.broker.delete_topic(&operator, &topic).await.expect("is deleted");
    clock.advance(Duration::from_secs(11));
    for (id, why) in [
        (retracted, "the notification was retracted"),
        (replaced, "a newer notification took its place"),
        (expired, "the notification has expired"),
    ] {
        stage.until(why, id, |tallied| tallied.cancelled == 1).await;
        assert_eq!(reason(&stage.of(id).await["alice"]), why);
    }
    // The rows of a topic go later; what is left of them is found when it is to be carried.
    let script = stage.carry(Script::new(|_| Say::Sent));
    assert_eq!(stage.finished(of_topic).await.cancelled, 1);
    assert_eq!(reason(&stage.of(of_topic).await["alice"]), "the notification's topic was deleted");
    assert_eq!(stage.finished(kept).await.sent, 1);
    assert_eq!(script.parcels().iter().map(|parcel| parcel.notification).collect::<Vec<_>>(), [kept]);
    stage.close().await;
}

#[tokio::test]
async fn what_fails_while_its_notification_is_taken_back_is_not_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    let id = stage.publish(&json!({ "to": "user:alice", "title": "x", "via": ["email"] })).await;
    let wanted = vec![Wanted { medium: Medium::Email, lane: "mail.example".to_owned(), most: 1 }];
    let leased = stage.broker.turn(Vec::new(), wanted).await.expect("is leased");
    stage.broker.retract(&Identity::Operator, id).await.expect("is retracted");
    let later = Outcome::Later { reason: "451".to_owned(), after: None };
    stage.broker.turn(vec![(leased[0].0, later)], Vec::new()).await.expect("is settled");
    assert_eq!(stage.of(id).await["alice"].state, DeliveryState::Cancelled);
    stage.close().await;
}

#[tokio::test]
async fn an_erased_user_has_no_deliveries_and_the_others_keep_theirs() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    for name in ["alice", "bob"] {
        stage.know(name, Some(&format!("{name}@mail.example")), Vec::new()).await;
    }
    let body = json!({ "to": { "users": ["alice", "bob"] }, "title": "x", "via": ["email"] });
    let id = stage.publish(&body).await;
    let wanted = vec![Wanted { medium: Medium::Email, lane: "mail.example".to_owned(), most: 1 }];
    let leased = stage.broker.turn(Vec::new(), wanted).await.expect("is leased");
    assert_eq!(leased[0].1.user, user("alice"));
    stage.broker.erase(&Identity::Operator, &user("alice")).await.expect("is erased");
    let sent = Outcome::Sent { answer: "250".to_owned() };
    stage.broker.turn(vec![(leased[0].0, sent)], Vec::new()).await.expect("changes nothing");
    assert_eq!(stage.of(id).await.into_keys().collect::<Vec<_>>(), ["bob"]);
    let script = stage.carry(Script::new(|_| Say::Sent));
    stage.finished(id).await;
    assert_eq!(script.users(), ["bob"]);
    stage.close().await;
}

#[tokio::test]
async fn a_topics_followers_each_get_one_however_often_the_making_is_cut_short() {
    const FOLLOWERS: usize = 2_000;
    const MOST_CUTS: usize = 20;
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let mut stage = Stage::open(directory.path(), &clock).await;
    let topic = TopicName::new("ops").expect("a topic");
    let mut following = JoinSet::new();
    for i in 0..FOLLOWERS {
        let (broker, topic) = (stage.broker.clone(), topic.clone());
        following.spawn(async move {
            let name = user(&format!("u{i}"));
            let edit = ProfileEdit {
                email: Edit::Set(Email::new(&format!("u{i}@d{}.example", i % 50)).expect("an address")),
                ..ProfileEdit::default()
            };
            broker.put_profile(&Identity::Operator, &name, edit).await.expect("is known");
            broker.follow(&Identity::Operator, &topic, &name, 0).await.expect("follows");
        });
    }
    while let Some(followed) = following.join_next().await {
        followed.expect("works");
    }
    stage.broker.mute(&identity("u7"), &topic, broker::Mute::On).await.expect("mutes");
    let id = stage.publish(&json!({ "to": "topic:ops", "title": "x", "via": ["email"] })).await;
    let mut cuts = 0;
    loop {
        let (_, tallied) = stage.deliveries(Asked { notification: Some(id), ..Asked::default() }).await;
        let tallied = tallied.expect("one notification is asked for");
        if !tallied.expanding {
            assert_eq!((tallied.pending, tallied.skipped), (FOLLOWERS as u64 - 1, 1));
            break;
        }
        if cuts < MOST_CUTS {
            stage.close().await;
            stage = Stage::open(directory.path(), &clock).await;
            cuts += 1;
        }
    }
    println!("cut short {cuts} times");
    // Who follows later is not meant.
    stage.know("late", Some("late@mail.example"), Vec::new()).await;
    stage.broker.follow(&Identity::Operator, &topic, &user("late"), 5).await.expect("follows");
    let of = stage.of(id).await;
    assert_eq!(of.len(), FOLLOWERS);
    assert_eq!((of["u7"].state, reason(&of["u7"])), (DeliveryState::Skipped, "has muted the topic"));

    let script = stage.carry(Script::new(|_| Say::Sent));
    let tallied = stage.finished(id).await;
    assert_eq!(tallied.sent, FOLLOWERS as u64 - 1);
    let users: HashSet<String> = script.users().into_iter().collect();
    assert_eq!((script.parcels().len(), users.len()), (FOLLOWERS - 1, FOLLOWERS - 1));
    stage.close().await;
}

#[tokio::test]
async fn what_is_pending_for_many_is_cancelled_for_all_of_them() {
    const USERS: usize = 1_200;
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let mut knowing = JoinSet::new();
    for i in 0..USERS {
        let broker = stage.broker.clone();
        knowing.spawn(async move {
            let email = Edit::Set(Email::new(&format!("u{i}@mail.example")).expect("an address"));
            let edit = ProfileEdit { email, ..ProfileEdit::default() };
            broker.put_profile(&Identity::Operator, &user(&format!("u{i}")), edit).await.expect("is known");
        });
    }
    while let Some(known) = knowing.join_next().await {
        known.expect("works");
    }
    let names: Vec<String> = (0..USERS).map(|i| format!("u{i}")).collect();
    for to in [json!({ "users": names }), json!("everyone")] {
        let id = stage.publish(&json!({ "to": to, "title": "x", "via": ["email"] })).await;
        stage.until("all are made", id, |tallied| !tallied.expanding && tallied.pending == USERS as u64).await;
        stage.broker.retract(&Identity::Operator, id).await.expect("is retracted");
        assert_eq!(stage.finished(id).await.cancelled, USERS as u64, "{to}");
    }
    stage.close().await;
}

#[tokio::test]
async fn what_is_scheduled_has_deliveries_when_its_time_has_come_and_a_repetition_has_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    let script = stage.carry(Script::new(|_| Say::Sent));
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    let hour = Duration::from_secs(3_600);
    let body = json!({ "to": "user:alice", "title": "later", "delay": "1h", "via": ["email"] });
    let id = stage.publish(&body).await;
    assert_eq!(stage.finished(id).await, Tallied::default());
    clock.advance(hour);
    stage.until("it is sent", id, |tallied| tallied.sent == 1).await;
    assert_eq!(script.parcels()[0].published_at, START.after(hour));

    let key = || {
        Some(broker::Idempotency {
            key: "k".to_owned(),
            route: "notifications",
            body_hash: [7; 32],
            meanwhile: broker::Meanwhile::Refuse,
        })
    };
    let body = json!({ "to": "user:alice", "title": "once", "via": ["email"] });
    let first = stage.publish_with(&body, key()).await;
    assert_eq!(stage.publish_with(&body, key()).await, first);
    stage.finished(first).await;
    assert_eq!(stage.of(first).await.len(), 1);
    assert_eq!(script.parcels().len(), 2);
    stage.close().await;
}

#[tokio::test]
async fn a_template_speaks_to_each_medium_in_the_readers_language() {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let mails = stage.carry(Script::new(|_| Say::Sent));
    let definition = json!({
        "category": "loans",
        "variables": { "book": { "type": "string" } },
        "texts": {
            "en": { "in_app": { "title": "Due: {{ book }}", "body": "b", "click": "/loans" },
                    "email": { "subject": "Due {{ book }}", "text": "Dear reader", "html": "<p>{{ book }}</p>" } },
            "zh": { "in_app": { "title": "到期：{{ book }}", "body": "b", "click": "/zh" },
                    "email": { "subject": "到期 {{ book }}", "text": "您好" } },
            "fr": { "in_app": { "title": "Rendre {{ book }}", "body": "b" } },
        },
    });
    let operator = Identity::Operator;
    let name = tidings::model::TemplateName::new("due").expect("a name");
    let template = tidings::wire::template::parse_template(definition.to_string().as_bytes()).expect("a template");
    stage.broker.put_template(&operator, &name, template).await.expect("is registered");
    stage.broker.publish_template(&operator, &name, None).await.expect("is published");
    for (name, locale) in [("en", None), ("zh", Some("zh-CN")), ("fr", Some("fr"))] {
        stage.know(name, Some(&format!("{name}@mail.example")), Vec::new()).await;
        let locale = locale.map_or(Edit::Keep, |tag| Edit::Set(Locale::new(tag).expect("a tag")));
        let edit = ProfileEdit { locale, ..ProfileEdit::default() };
        stage.broker.put_profile(&operator, &user(name), edit).await.expect("is known");
    }
    let body = json!({ "to": { "users": ["en", "zh", "fr"] }, "template": "due",
                       "params": { "book": "<Dune>\r\nBcc: x@y.example" }, "via": ["email"] });
    let id = stage.publish(&body).await;
    assert_eq!(stage.finished(id).await.sent, 3);
    let written: BTreeMap<String, _> = mails
        .parcels()
        .into_iter()
        .map(|parcel| (parcel.user.to_string(), parcel.written_in.map(|locale| locale.to_string())))
        .collect();
    let letters: BTreeMap<String, _> =
        mails.parcels().into_iter().map(|parcel| (parcel.user.to_string(), parcel.letter)).collect();
    assert_eq!(letters["en"].subject, "Due <Dune>  Bcc: x@y.example");
    assert_eq!(letters["en"].html.as_deref(), Some("<p>&lt;Dune&gt;\nBcc: x@y.example</p>"));
    assert_eq!((letters["zh"].text.as_str(), letters["zh"].html.as_ref()), ("您好", None));
    assert_eq!((letters["zh"].click.as_deref(), letters["en"].click.as_deref()), (Some("/zh"), Some("/loans")));
    assert_eq!(letters["fr"].text, "Dear reader", "the default language has the mail");
    let in_language = |name: &str| written[name].as_deref();
    assert_eq!((in_language("en"), in_language("zh"), in_language("fr")), (Some("en"), Some("zh"), Some("en")));
    let of = stage.of(id).await;
    let used = of["zh"].template.as_ref().expect("it was published by one");
    assert_eq!((&used.name, used.version), (&name, Some(1)));
    // What somebody wrote for everybody is in no language that anybody said.
    let plain = stage.publish(&json!({ "to": "user:fr", "title": "x", "via": ["email"] })).await;
    assert_eq!(stage.finished(plain).await.sent, 1);
    assert_eq!(mails.parcels().pop().expect("it was carried").written_in, None);
    stage.close().await;
}

fn identity(name: &str) -> UserIdentity {
    UserIdentity {
        user: user(name),
        credential: tidings::model::Credential::Bearer,
        topics: None,
        publishes: false,
        expires: None,
        issued: None,
    }
}

#[test]
fn a_medium_that_is_not_set_up_is_refused_by_the_name_of_its_setting() {
    let server = Server::start();
    let body = json!({ "to": "user:alice", "title": "x", "via": ["email"] });
    let refused = server.operate(Ask::post("/v1/notifications").json(&body)).problem(422, "invalid");
    assert_eq!(refused["errors"][0]["pointer"], "/via/0");
    let detail = refused["errors"][0]["detail"].as_str().expect("a text");
    assert!(detail.contains("[email] url"), "{detail}");
    let key = server.key(&["publish"]);
    let plain = Ask::post("/v1/publish/ops").bearer(&key).header("deliver-via", "dingtalk").body("text/plain", "x");
    let refused = server.send(&plain).problem(422, "invalid");
    assert!(refused["errors"][0]["detail"].as_str().is_some_and(|text| text.contains("[dingtalk.robots.NAME] url")));
    let lines = server
        .send(&Ask::post("/v1/notifications").bearer(&key).ndjson(std::slice::from_ref(&body)))
        .expect(200)
        .lines();
    assert_eq!(lines[0]["problem"]["errors"][0]["pointer"], "/via/0", "{lines:?}");
    let fax = json!({ "to": "user:alice", "title": "x", "via": ["fax"] });
    let refused = server.operate(Ask::post("/v1/notifications").json(&fax)).problem(422, "invalid");
    assert!(refused["errors"][0]["detail"].as_str().is_some_and(|text| text.contains("email, dingtalk")));
    let later = json!({ "to": "user:alice", "title": "x", "delay": "1h" });
    let waits = server.operate(Ask::post("/v1/notifications").json(&later)).expect(201).json();
    let change = Ask::put(&format!("/v1/scheduled/{}", waits["id"].as_str().expect("an id"))).json(&body);
    assert_eq!(server.operate(change).problem(422, "invalid")["errors"][0]["pointer"], "/via/0");
    assert!(server.inbox("alice")["entries"].as_array().is_some_and(Vec::is_empty), "nothing was stored");
    let said =
        run(&["publish", "--data", arg(server.data()), "--to", "user:alice", "--title", "x", "--via", "email"], "");
    assert!(said.err.contains("[email] url"), "{}", said.err);
}

#[test]
fn the_log_is_asked_by_those_who_look_after_users_and_tells_what_is_wrong_with_a_question() {
    let server = Server::start();
    let page = server.operate(Ask::get("/v1/deliveries")).expect(200).json();
    assert_eq!(page, json!({ "deliveries": [], "next": null }));
    let id = server.notify("alice", "x")["id"].as_str().expect("an id").to_owned();
    let page = server.operate(Ask::get(&format!("/v1/deliveries?notification={id}&state=sent"))).expect(200).json();
    assert_eq!(page["summary"]["finished"], true, "{page}");
    for bad in ["state=lost", "medium=fax", "before=-1", "limit=0", "since=soon", "page=2", "notification=7"] {
        server.operate(Ask::get(&format!("/v1/deliveries?{bad}"))).problem(400, "bad-query");
    }
    server.operate(Ask::get("/v1/deliveries?user=nobody")).expect(200);
    server.operate(Ask::get("/v1/deliveries/1")).problem(404, "not-found");
    server.operate(Ask::post("/v1/deliveries/1/retry")).problem(404, "not-found");
    let retried = server.operate(Ask::post("/v1/deliveries/retry").json(&json!({ "medium": "email" }))).expect(200);
    assert_eq!(retried.json(), json!({ "retried": 0 }));
    server.operate(Ask::post("/v1/deliveries/retry").json(&json!({ "medum": "email" }))).problem(422, "invalid");
    server.send(&Ask::get("/v1/deliveries").bearer(&server.key(&["publish"]))).problem(403, "forbidden");
    let data = server.stop();
    for server_is_gone in [["delivery", "list"], ["delivery", "retry"]] {
        let more: &[&str] = if server_is_gone[1] == "retry" { &["--dead"] } else { &[] };
        let said = run(&[&server_is_gone[..], &["--data", arg(data.path())], more].concat(), "");
        said.well();
    }
}
