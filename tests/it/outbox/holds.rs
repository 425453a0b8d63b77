//! What is no try: a turn that has not come, a set-up that is wrong, a robot that is gone. Nobody's delivery pays for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tidings::broker;
use tidings::deliver::{self, Adapter};
use tidings::model::{DeliveryState, Identity, Media, Medium, Parcel};
use tidings::wire::delivery::{Asked, Carried, Timeline};

use super::{START, STEPS, Say, Script, Stage, clock, config, config_with, reason, until};

#[tokio::test]
async fn what_has_no_turn_yet_waits_without_a_try() {
    const AFTER: Duration = Duration::from_millis(50);
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    // More often than the schedule has tries.
    let turns = AtomicUsize::new(STEPS.len() + 3);
    let not_yet = move |_: &Parcel| match turns.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
        Ok(_) => Say::NotTried(AFTER),
        Err(_) => Say::Sent,
    };
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    let id = stage.publish(&json!({ "to": "user:alice", "title": "x", "via": ["email"] })).await;
    let script = stage.carry(Script::new(not_yet));
    assert_eq!(stage.finished(id).await.sent, 1);
    let handed = script.handed.lock().clone();
    assert_eq!(handed.len(), STEPS.len() + 4);
    assert!(handed.windows(2).all(|pair| pair[1].0 - pair[0].0 >= AFTER), "the lane is left alone");
    assert!(handed.iter().all(|(_, parcel)| parcel.attempt == 1), "none of them was an attempt");
    let delivery = stage.of(id).await.remove("alice").expect("is there");
    assert_eq!((delivery.attempts, stage.timeline(delivery.id).await.attempts.len()), (1, 1));
    assert_eq!((stage.counted("email", "retried"), stage.broker.holds()), (0, Vec::new()));
    stage.close().await;
}

#[tokio::test]
async fn a_set_up_that_is_wrong_costs_nobody_a_try_and_is_looked_at_by_one_at_a_time() {
    const PEOPLE: usize = 5;
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::open(directory.path(), &clock()).await;
    let is_wrong = Arc::new(AtomicBool::new(true));
    let seen = is_wrong.clone();
    let mail = Arc::new(Script::new(move |_| if seen.load(Ordering::SeqCst) { Say::Held } else { Say::Sent }));
    let robot = Arc::new(Script { medium: Medium::DingTalk, ..Script::new(|_| Say::Sent) });
    let mut names = Vec::new();
    for i in 0..PEOPLE {
        let name = format!("u{i}");
        stage.know(&name, Some(&format!("{name}@d{i}.example")), Vec::new()).await;
        names.push(name);
    }
    let id = stage.publish(&json!({ "to": { "users": names }, "title": "x", "via": ["email"] })).await;
    let adapters: Vec<Arc<dyn Adapter>> = vec![mail.clone(), robot];
    deliver::start(stage.broker.clone(), adapters, deliver::Workers::default(), &stage.lifecycle);
    // All of them at first, and then one after the other.
    until("it was looked at again and again", || mail.parcels().len() == PEOPLE + 2).await;
    let handed = mail.handed.lock().clone();
    let after = |at: usize, before: usize| handed[at].0 - handed[before].0;
    assert!(after(PEOPLE, 0) >= Duration::from_secs(1) && after(PEOPLE + 1, PEOPLE) >= Duration::from_secs(2));
    let of = stage.until("all of them wait", id, |tallied| tallied.pending == PEOPLE as u64).await;
    assert_eq!((of.leased, of.dead), (0, 0));
    for delivery in stage.of(id).await.into_values() {
        assert_eq!((delivery.attempts, delivery.next_at, reason(&delivery)), (0, Some(START), "535 who are you"));
        let Timeline { told, attempts } = stage.timeline(delivery.id).await;
        assert_eq!((told.carried, attempts), (Carried::Held("535 who are you".to_owned()), Vec::new()));
    }
    let holds: Vec<_> = stage.broker.holds().into_iter().map(|hold| (hold.medium, hold.lane, hold.since)).collect();
    assert_eq!(holds, [(Medium::Email, None, START)]);
    // Another medium goes on.
    stage.know_at_dingtalk("u0").await;
    let body = json!({ "to": "user:u0", "title": "x", "category": "loans", "via": ["dingtalk"] });
    let by_robot = stage.publish(&body).await;
    assert_eq!(stage.finished(by_robot).await.sent, 1);

    is_wrong.store(false, Ordering::SeqCst);
    assert_eq!(stage.finished(id).await.sent, PEOPLE as u64);
    assert!(stage.of(id).await.into_values().all(|delivery| delivery.attempts == 1));
    assert_eq!((stage.counted("email", "retried"), stage.broker.holds()), (0, Vec::new()));
    stage.close().await;
}

#[tokio::test]
async fn what_has_waited_for_too_long_for_a_wrong_set_up_is_given_up_and_the_rest_waits_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    let is_wrong = Arc::new(AtomicBool::new(true));
    let seen = is_wrong.clone();
    for name in ["alice", "bob"] {
        stage.know(name, Some(&format!("{name}@{name}.example")), Vec::new()).await;
    }
    let old = stage.publish(&json!({ "to": "user:alice", "title": "old", "via": ["email"] })).await;
    stage.carry(Script::new(move |_| if seen.load(Ordering::SeqCst) { Say::Held } else { Say::Sent }));
    until("it is held", || !stage.broker.holds().is_empty()).await;
    clock.advance(config().outbox.expire_after + Duration::from_secs(1));
    let new = stage.publish(&json!({ "to": "user:bob", "title": "new", "via": ["email"] })).await;
    assert_eq!(stage.finished(old).await.dead, 1);
    let dead = stage.of(old).await.remove("alice").expect("is there");
    assert_eq!(reason(&dead), "expired: due for 72 h, and nothing went out: 535 who are you");
    assert_eq!((dead.attempts, stage.timeline(dead.id).await.attempts.len()), (0, 0));
    assert_ne!(stage.of(new).await["bob"].state, DeliveryState::Dead);
    // Tried again it has as long as anybody.
    let all = Asked::default();
    assert_eq!(stage.broker.retry_deliveries(&Identity::Operator, all).await, Ok(1));
    is_wrong.store(false, Ordering::SeqCst);
    assert_eq!((stage.finished(old).await.sent, stage.finished(new).await.sent), (1, 1));
    stage.close().await;
}

#[tokio::test]
async fn what_a_robot_that_is_gone_was_to_say_is_given_up_until_somebody_hands_it_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let stage = Stage::open(directory.path(), &clock).await;
    stage.know("alice", Some("alice@mail.example"), Vec::new()).await;
    stage.know_at_dingtalk("alice").await;
    let body = json!({ "to": "user:alice", "title": "x", "category": "loans", "via": ["dingtalk", "email"] });
    let id = stage.publish(&body).await;
    stage.close().await;

    // No robot at all: it waits until there is one.
    let none = broker::Config { media: Media { dingtalk: None, ..config().media }, ..config() };
    let stage = Stage::open_with(directory.path(), &clock, none).await;
    stage.carry(Script::new(|_| Say::Sent));
    let tallied = stage.until("the mail is sent", id, |tallied| tallied.sent == 1).await;
    assert_eq!((tallied.pending, tallied.dead), (1, 0));
    stage.close().await;

    // It was given another name.
    let stage = Stage::open_with(directory.path(), &clock, config_with("front")).await;
    let script = stage.carry(Script { medium: Medium::DingTalk, ..Script::new(|_| Say::Sent) });
    assert_eq!(stage.finished(id).await.dead, 1);
    let (items, _) = stage.deliveries(Asked { state: Some(DeliveryState::Dead), ..Asked::default() }).await;
    let told =
        "dingtalk has no `desk` in the settings any more; tried again, it goes to whoever speaks of its category now";
    assert_eq!((items.len(), reason(&items[0]), items[0].attempts), (1, told, 0));
    assert_eq!(stage.broker.retry_deliveries(&Identity::Operator, Asked::default()).await, Ok(1));
    assert_eq!(stage.finished(id).await.sent, 2);
    assert_eq!(script.parcels()[0].lane, "front");
    stage.close().await;
}
