//! `Idempotency-Key` (T10): one entry a key, whatever is repeated, at once, and across a crash.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::shim::failing;
use crate::support::http::{Answer, Ask};
use crate::support::publisher::{Tally, Whereabouts, publish};
use crate::support::server::{Server, Setup};
use crate::support::{Dice, token};

fn keyed(server: &Server, credential: &str, key: &str, body: &Value) -> Answer {
    server.send(&Ask::post("/v1/notifications").bearer(credential).header("idempotency-key", key).json(body))
}

#[test]
fn a_repetition_is_answered_from_the_store_and_takes_no_position() {
    let mut server = Server::start();
    let key = server.key(&["publish"]);
    let body = json!({ "to": "user:alice", "title": "once" });
    let first = keyed(&server, &key, "order-42", &body).expect(201);
    assert_eq!(first.header("idempotent-replayed"), None);
    for _ in 0..2 {
        let again = keyed(&server, &key, "order-42", &body).expect(201);
        assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
        server.restart();
    }
    let next = server.notify("alice", "next");
    assert_eq!(next["seq"], first.json()["seq"].as_u64().expect("a seq") + 1, "duplicates take no seq");
}

#[test]
fn another_body_with_the_same_key_is_refused() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    keyed(&server, &key, "k", &json!({ "to": "user:alice", "title": "one" })).expect(201);
    keyed(&server, &key, "k", &json!({ "to": "user:alice", "title": "two" })).problem(422, "idempotency-mismatch");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
}

#[test]
fn a_key_is_its_owners_and_its_routes_own() {
    let server = Server::start();
    let (one, other) = (server.key(&["publish"]), server.key(&["publish"]));
    let user = server.token_for(&json!({ "sub": "bob", "exp": token::now() + 60, "scope": "publish" }));
    let body = json!({ "to": "user:alice", "title": "t" });
    for credential in [&one, &other, &user, &server.operator()] {
        assert_eq!(keyed(&server, credential, "k", &body).expect(201).header("idempotent-replayed"), None);
    }
    let plain = Ask::post("/v1/publish").bearer(&one).header("to", "user:alice").header("idempotency-key", "k");
    assert_eq!(server.send(&plain.body("text/plain", "t")).expect(201).header("idempotent-replayed"), None);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 5);
}

#[test]
fn only_what_was_done_is_remembered() {
    let server = Server::start();
    let narrow = server.key(&["publish:topic/ops"]);
    let broken = json!({ "to": "topic:ops", "title": "\u{7}" });
    keyed(&server, &narrow, "k", &broken).problem(422, "invalid");
    keyed(&server, &narrow, "k", &json!({ "to": "user:alice", "title": "t" })).problem(403, "forbidden");
    let good = json!({ "to": "topic:ops", "title": "t" });
    assert_eq!(keyed(&server, &narrow, "k", &good).expect(201).header("idempotent-replayed"), None);
}

#[test]
fn a_key_that_is_none_is_refused() {
    let server = Server::start();
    let body = json!({ "to": "user:alice", "title": "t" });
    for bad in ["", "two words", "ключ", &"k".repeat(129)] {
        keyed(&server, &server.operator(), bad, &body).problem(422, "invalid");
    }
    let twice = Ask::post("/v1/notifications").bearer(&server.operator()).json(&body);
    server.send(&twice.header("idempotency-key", "a").header("idempotency-key", "b")).problem(422, "invalid");
    keyed(&server, &server.operator(), &"k".repeat(128), &body).expect(201);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
}

#[test]
fn a_key_is_forgotten_after_its_time() {
    let mut server = Setup::serve().env("TIDINGS_IDEMPOTENCY_TTL", "1m").start();
    let key = server.key(&["publish"]);
    let body = json!({ "to": "user:alice", "title": "t" });
    keyed(&server, &key, "k", &body).expect(201);
    server.kill();
    let log = rusqlite::Connection::open(server.data().join("tidings.db")).expect("the log");
    // As if two minutes had passed.
    log.execute("UPDATE idempotency SET created_at = created_at - 120000", []).expect("it is free");
    drop(log);
    server.restart();
    assert_eq!(keyed(&server, &key, "k", &body).expect(201).header("idempotent-replayed"), None);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 2);
}

/// The moment itself: the commit is flushed, and the server is gone before anybody hears of it.
#[test]
fn a_key_whose_answer_was_lost_between_commit_and_answer_is_answered_from_the_store() {
    const KEYS: usize = 20;
    let mut replayed = 0;
    for flush in [5, 8, 12, 20, 21, 22] {
        let mut server = Server::start();
        let key = server.key(&["publish"]);
        assert!(server.terminate().0.success());
        let aside = tempfile::tempdir().expect("a directory");
        let failure = format!("sync:{flush}:KILL:once");
        let started = failing(server.stop(), &aside.path().join("killed"), &failure).attempt();
        let Ok(mut server) = started else { continue }; // killed before it was there
        let ask = |i: usize| {
            let body = json!({ "to": "user:alice", "title": format!("t{i}") });
            Ask::post("/v1/notifications").bearer(&key).header("idempotency-key", format!("k{i}")).json(&body)
        };
        let lost = (0..KEYS).find(|i| ask(*i).attempt(server.place()).is_err()).expect("it is killed at some flush");
        assert!(server.exit().code().is_none(), "killed by a signal");
        let server = Setup::serve().on(server.stop()).start();
        let answer = server.send(&ask(lost)).expect(201);
        replayed += usize::from(answer.header("idempotent-replayed") == Some("true"));
        assert_eq!(server.inbox("alice")["counts"]["unread"], lost + 1, "flush {flush}");
    }
    assert!(replayed > 0, "no kill fell between commit and answer");
}

#[test]
#[expect(clippy::print_stdout, reason = "how often it was killed is what a run is kept for")]
fn each_key_is_one_entry_though_sent_at_once_and_killed_between_commit_and_answer() {
    const KEYS: usize = 150;
    const SEED: u64 = 10;
    let mut server = Server::start();
    let credential = server.key(&["publish"]);
    let place = Whereabouts::new(server.place());
    let tally = Tally::default();
    let mut dice = Dice::new(SEED);
    let crowds: Vec<u64> = (0..KEYS).map(|_| 1 + dice.below(5)).collect();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let ids: Vec<HashSet<String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (crowds, place, tally, credential, done) = (&crowds, &place, &tally, &credential, done.clone());
                scope.spawn(move || {
                    let keys = (worker..KEYS).step_by(4);
                    let answered = keys.map(|i| at_once(crowds[i], i, place, tally, credential)).collect::<Vec<_>>();
                    drop(done);
                    answered
                })
            })
            .collect();
        drop(done);
        // Killed again and again until all is acknowledged; the channel closes then.
        let mut kills = 0;
        loop {
            let until = Instant::now() + Duration::from_millis(5 + dice.below(60));
            let over = ended.recv_timeout(until.saturating_duration_since(Instant::now()));
            if over == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) && kills >= 3 {
                break;
            }
            server.restart();
            place.moved(server.place());
            kills += 1;
        }
        println!("seed {SEED}: {kills} kills, {tally:?}");
        workers.into_iter().flat_map(|worker| worker.join().expect("acknowledged")).collect()
    });
    assert!(ids.iter().all(|ids| ids.len() == 1), "one id a key: {ids:?}");
    let mut stream = server.stream("alice", "?cursor=start&events=notification");
    assert_eq!(stream.expect("hello").data["missed"], KEYS);
    let mut titles: Vec<String> = stream.take("notification", KEYS).iter().map(|e| e.title().to_owned()).collect();
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), KEYS);
    assert_eq!(server.inbox("alice")["counts"]["unread"], KEYS);
}

/// Sends one publish from a crowd of clients at once, each until it is acknowledged; the ids they were told.
fn at_once(crowd: u64, i: usize, place: &Whereabouts, tally: &Tally, credential: &str) -> HashSet<String> {
    let (key, body) = (format!("k{i}"), json!({ "to": "user:alice", "title": format!("t{i}") }));
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..crowd).map(|_| scope.spawn(|| publish(place, credential, &key, &body, tally).json())).collect();
        let answers = clients.into_iter().map(|client| client.join().expect("acknowledged"));
        answers.map(|answer| answer["id"].to_string()).collect()
    })
}
