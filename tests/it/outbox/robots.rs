//! A robot says one message after another: what becomes of those it has said, and of those it has not, when the server ends in the
//! middle; and how many deliveries are leased for the messages that it may still say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tidings::clock::Clock;
use tidings::deliver::dingtalk::{Address, DingTalk, Robot};
use tidings::deliver::{self, Adapter, Outcome, Progress, SetUp, Workers};
use tidings::model::{DeliveryState, Medium, Parcel, RobotName};
use tidings::tls;

use super::{Stage, clock, until};
use crate::dingtalk::with_robots;
use crate::support::http::Ask;
use crate::support::robot::Group;
use crate::support::server::Server;
use crate::support::{DEADLINE, wait_for};

/// The robot of [`super::config`], which speaks into this group.
fn robot(group: &Group, per_minute: usize) -> DingTalk {
    let robot = Robot {
        name: RobotName::new("desk").expect("a name"),
        address: Address::parse(&group.url).expect("an address"),
        secret: None,
        per_minute,
    };
    let trusted = Arc::new(tls::client(None).expect("no file is named"));
    DingTalk::new(vec![robot], Duration::from_secs(600), trusted, Clock::system())
}

fn body(n: usize) -> Value {
    json!({ "to": "user:alice", "title": format!("message {n}"), "category": "loans", "via": ["dingtalk"] })
}

/// How often each title came.
fn counted(group: &Group) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for title in group.titles() {
        *counted.entry(title).or_default() += 1;
    }
    counted
}

#[tokio::test]
async fn a_drain_lets_a_robot_finish_its_message_and_what_it_has_not_begun_waits_untried() {
    const MESSAGES: usize = 8;
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    stage.know_at_dingtalk("alice").await;
    let group = Group::open(Duration::ZERO);
    let mut published = Vec::new();
    for n in 0..MESSAGES {
        published.push(stage.publish(&body(n)).await);
    }
    // As patient as a test can be: what has not begun is not begun for want of time, but because of the drain.
    let patient = Workers { grace: DEADLINE, ..Workers::default() };
    deliver::start(stage.broker.clone(), vec![Arc::new(robot(&group, 20))], patient, &stage.lifecycle);
    group.let_through(2);
    until("the third is on its way", || group.titles().len() == 3).await;
    stage.lifecycle.drain();
    group.let_through(usize::MAX);
    stage.close().await;
    assert_eq!(group.titles(), ["message 0", "message 1", "message 2"]);

    let stage = Stage::open(directory.path(), &clock).await;
    for (n, id) in published.iter().enumerate() {
        let delivery = stage.of(*id).await.remove("alice").expect("is there");
        let expected = if n < 3 { (DeliveryState::Sent, 1) } else { (DeliveryState::Pending, 0) };
        assert_eq!((delivery.state, delivery.attempts), expected, "message {n}");
    }
    stage.close().await;
}

/// A server whose robot speaks into this group, with so many messages published while the first is on its way, so that all others
/// wait together.
fn in_a_burst(group: &Group, messages: usize, folder: &std::path::Path) -> Server {
    let server = with_robots(&group.url, "SEC123", &[("desk", "'loans'")], folder).start();
    server.operate(Ask::put("/v1/users/alice").json(&json!({ "dingtalk": "manager4220" }))).expect(201);
    for n in 0..messages {
        server.publish(&body(n));
    }
    wait_for("the first message", || (group.titles().len() == 1).then_some(()));
    server
}

fn until_all_are_sent(server: &Server, messages: usize) {
    wait_for("all to be sent", || {
        let told = server.operate(Ask::get("/v1/deliveries?state=sent&limit=100")).expect(200).json();
        (told["deliveries"].as_array().map(Vec::len) == Some(messages)).then_some(())
    });
}

#[test]
fn a_restart_in_a_burst_says_every_message_once() {
    // More than the drain waits for.
    const MESSAGES: usize = 18;
    const TAKES: Duration = Duration::from_millis(400);
    let group = Group::open(TAKES);
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = in_a_burst(&group, MESSAGES, folder.path());
    group.let_through(usize::MAX);
    wait_for("some to be said", || (group.titles().len() >= 4).then_some(()));
    let (status, _) = server.terminate();
    assert!(status.success(), "{status}");
    assert!(group.titles().len() < MESSAGES, "it ended in the middle");
    server.restart();
    until_all_are_sent(&server, MESSAGES);
    assert_eq!((group.titles().len(), counted(&group).len()), (MESSAGES, MESSAGES), "{:?}", group.titles());
}

#[test]
fn a_kill_in_a_burst_doubles_no_message_but_the_one_that_was_on_its_way() {
    const MESSAGES: usize = 10;
    const SAID: usize = 5;
    let group = Group::open(Duration::ZERO);
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = in_a_burst(&group, MESSAGES, folder.path());
    group.let_through(SAID);
    wait_for("one more to be on its way", || (group.titles().len() == SAID + 1).then_some(()));
    server.kill();
    group.let_through(usize::MAX);
    server.restart();
    until_all_are_sent(&server, MESSAGES);
    let on_its_way = group.titles()[SAID].clone();
    let counted = counted(&group);
    assert_eq!(counted.len(), MESSAGES, "each was said");
    let doubled: Vec<&String> = counted.iter().filter(|(_, times)| **times > 1).map(|(title, _)| title).collect();
    assert_eq!((doubled, group.titles().len()), (vec![&on_its_way], MESSAGES + 1), "{:?}", group.titles());
}

/// A robot, and how many parcels each of its calls was handed, and how many of them it put back.
struct Watched {
    robot: DingTalk,
    calls: parking_lot::Mutex<Vec<(usize, usize)>>,
}

impl Adapter for Watched {
    fn medium(&self) -> Medium {
        self.robot.medium()
    }

    fn most_together(&self, lane: &str) -> usize {
        self.robot.most_together(lane)
    }

    fn at_once(&self) -> usize {
        self.robot.at_once()
    }

    fn set_up(&self) -> SetUp {
        self.robot.set_up()
    }

    fn pause(&self, lane: &str) -> Duration {
        self.robot.pause(lane)
    }

    fn send<'a>(&'a self, lane: &'a str, parcels: Vec<Parcel>, progress: &'a Progress) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let handed = parcels.len();
            let outcomes = self.robot.send(lane, parcels, progress).await;
            let put_back = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::NotTried { .. })).count();
            self.calls.lock().push((handed, put_back));
            outcomes
        })
    }
}

#[tokio::test]
async fn where_one_message_may_be_said_no_more_is_leased_than_it_holds() {
    const WAITING: usize = 150;
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    stage.know_at_dingtalk("alice").await;
    for n in 0..WAITING {
        stage.publish(&body(n)).await;
    }
    let group = Group::open(Duration::ZERO);
    group.let_through(usize::MAX);
    let watched = Arc::new(Watched { robot: robot(&group, 1), calls: parking_lot::Mutex::default() });
    deliver::start(stage.broker.clone(), vec![watched.clone()], Workers::default(), &stage.lifecycle);
    until("the robot has said what it may", || !watched.calls.lock().is_empty()).await;
    let [(handed, put_back)] = watched.calls.lock()[..] else { panic!("one message a minute") };
    assert!(handed < WAITING && handed > WAITING / 2, "{handed} of {WAITING}");
    assert_eq!((put_back, group.titles()), (0, vec![format!("{handed} notifications")]));
    stage.close().await;
}
