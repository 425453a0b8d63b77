//! Commit before ack (T1): the server is killed with `kill -9` under load, again and again, and no publish, no mark and no
//! other change ([`verbs`](crate::verbs)) that was acknowledged is lost, nothing doubled, nothing miscounted.
//!
//! The quick form kills 8 times, at moments drawn from a fixed seed; `TIDINGS_KILL_CYCLES=200` is the full one, whose seed is
//! random unless `TIDINGS_KILL_SEED` names one.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stored::{Marked, unmarked};
use crate::support::http::Ask;
use crate::support::publisher::{Tally, Whereabouts, publish};
use crate::support::server::Server;
use crate::support::{Dice, token, wait_for};
use crate::verbs::{self, MAX_ROUNDS, Verbs};

const PUBLISHERS: usize = 8;
/// Whose inbox is marked all the while.
const READER: &str = "reader";
const CYCLES: usize = 8;
const SEED: u64 = 20_260_401;

/// What a publisher was told.
struct Acknowledged {
    title: String,
    seq: u64,
    id: String,
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what a full run is kept for")]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cycles = number("TIDINGS_KILL_CYCLES").map_or(CYCLES, |cycles| cycles as usize);
    let drawn = || if cycles == CYCLES { SEED } else { u64::try_from(token::now()).unwrap_or(SEED) };
    let seed = number("TIDINGS_KILL_SEED").unwrap_or_else(drawn);
    let mut server = Server::start();
    let users: Vec<String> = (0..PUBLISHERS).map(|i| format!("u{i}")).collect();
    for user in &users {
        server.follow("all", user);
    }
    let credential = server.key(&["publish"]);
    let (place, tally, stop) = (Whereabouts::new(server.place()), Tally::default(), AtomicBool::new(false));
    let (told, acknowledged) = channel();
    let reader = server.token(READER);
    let nothing = || 0;
    let mut verbs = Verbs::new(&place, server.data().to_owned(), server.key(&["admin"]), &nothing);
    let (all, marks, verbs) = std::thread::scope(|scope| {
        let marking = scope.spawn(|| mark(&place, &credential, &reader, &tally, &stop));
        let stop = &stop;
        let changing = scope.spawn(move || {
            for n in (0..MAX_ROUNDS).take_while(|_| !stop.load(Ordering::Relaxed)) {
                verbs.round(n);
            }
            verbs
        });
        for (i, user) in users.iter().enumerate() {
            let (told, place, tally, credential) = (told.clone(), &place, &tally, &credential);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let title = format!("{i}/{n}");
                    let to = if n % 4 == 3 { json!("topic:all") } else { json!({ "user": user }) };
                    let answer = publish(place, credential, &title, &json!({ "to": to, "title": title }), tally).json();
                    let (seq, id) = (answer["seq"].as_u64().expect("a seq"), answer["id"].to_string());
                    let _ = told.send(Acknowledged { title, seq, id });
                }
            });
        }
        drop(told);
        let mut dice = Dice::new(seed);
        let mut all = Vec::new();
        for _ in 0..cycles {
            collect_until(&acknowledged, Duration::from_millis(10 + dice.below(291)), &mut all);
            server.kill();
            server.restart();
            place.moved(server.place());
        }
        stop.store(true, Ordering::Relaxed);
        all.extend(acknowledged.iter());
        let marks = marking.join().expect("every mark was acknowledged");
        (all, marks, changing.join().expect("every change was acknowledged"))
    });
    println!(
        "seed {seed}: {} publishes, {} marks and {} other changes acknowledged over {cycles} kills, {tally:?}",
        all.len(),
        marks.len(),
        verbs.changes.len()
    );
    assert!(all.len() >= cycles && marks.len() >= cycles, "hardly anything was published, or marked");
    assert!(!verbs.changes.is_empty(), "nothing else was changed");
    assert_eq!(verbs::missing(verbs.changes.iter(), server.place()), Vec::<String>::new());
    hold_against_the_log(&server, &users, &all);
    server.kill();
    check_integrity(server.data());
    assert_eq!(unmarked(server.data(), marks.iter()), Vec::<String>::new());
    // The harness recounts what runs when it is dropped.
    server.restart();
}

/// Publishes to one reader and marks all of it as read, each until it is acknowledged; the marks.
fn mark(place: &Whereabouts, credential: &str, reader: &str, tally: &Tally, stop: &AtomicBool) -> Vec<Marked> {
    let mut marks = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let title = format!("{READER}/{n}");
        let body = json!({ "to": { "user": READER }, "title": title });
        let answer = publish(place, credential, &title, &body, tally).json();
        let ask = Ask::post("/v1/inbox/mark").bearer(reader).json(&json!({ "as": "read", "upto": answer["cursor"] }));
        let is_acknowledged = || ask.attempt(&place.place()).is_ok_and(|answer| answer.status() == 200);
        wait_for("the mark to be acknowledged", || is_acknowledged().then_some(()));
        let upto = answer["seq"].as_u64().expect("a seq");
        marks.push(Marked { user: READER.to_owned(), upto, told: 0 });
    }
    marks
}

/// Takes what comes until it is time.
fn collect_until(acknowledged: &Receiver<Acknowledged>, span: Duration, all: &mut Vec<Acknowledged>) {
    let until = Instant::now() + span;
    loop {
        match acknowledged.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(one) => all.push(one),
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => panic!("every publisher has given up"),
        }
    }
}

/// Every inbox is read from its start: what was acknowledged is there, once, where it was said to be.
fn hold_against_the_log(server: &Server, users: &[String], all: &[Acknowledged]) {
    let mut found: HashMap<String, (u64, String)> = HashMap::new();
    for user in users {
        let mut stream = server.stream(user, "?cursor=start&events=notification");
        let hello = stream.expect("hello").data;
        let unread = hello["counts"]["unread"].as_u64().expect("a number");
        let (mut last, mut own) = (0, HashSet::new());
        // The counts say how many there must be; the marker proves that there are no more.
        server.notify(user, "end");
        for _ in 0..unread {
            let entry = stream.expect("notification");
            assert!(entry.seq() > last, "{user}: {} after {last}", entry.seq());
            last = entry.seq();
            assert!(own.insert(entry.title().to_owned()), "{user} has {} twice", entry.title());
            let here = (entry.seq(), entry.data["id"].to_string());
            if let Some(elsewhere) = found.insert(entry.title().to_owned(), here.clone()) {
                assert_eq!(elsewhere, here, "one topic's entry has one position");
            }
        }
        assert_eq!(stream.expect("notification").title(), "end", "the counts of {user} are the number of entries");
    }
    for Acknowledged { title, seq, id } in all {
        assert_eq!(found.get(title), Some(&(*seq, id.clone())), "{title} was acknowledged");
    }
    let seqs: HashSet<u64> = found.values().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs.len(), found.len(), "no position is given twice");
}

fn check_integrity(data: &Path) {
    let log = rusqlite::Connection::open(data.join("tidings.db")).expect("the log opens");
    let told: String = log.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("SQLite tells");
    assert_eq!(told, "ok");
    let mut statement = log.prepare("PRAGMA foreign_key_check").expect("SQLite knows it");
    let broken: Vec<String> = statement.query_map([], |row| row.get(0)).expect("rows").flatten().collect();
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn a_stream_that_was_cut_by_kill_9_goes_on_where_it_was() {
    let mut server = Server::start();
    let mut got: Vec<String> = Vec::new();
    let mut cursor = "start".to_owned();
    for cycle in 0..3 {
        let mut stream = server.resume("alice", &cursor);
        stream.expect("hello");
        let title = format!("live {cycle}");
        server.notify("alice", &title);
        got.extend(stream.titles_to(&title));
        stream.last_id().clone_into(&mut cursor);
        server.kill();
        stream.gone();
        server.restart();
        server.notify("alice", &format!("missed {cycle}"));
    }
    let mut stream = server.resume("alice", &cursor);
    let hello = stream.expect("hello").data;
    assert_eq!((&hello["recovered"], &hello["missed"]), (&Value::Bool(true), &json!(1)));
    got.extend(stream.titles_to("missed 2"));
    assert_eq!(got, ["live 0", "missed 0", "live 1", "missed 1", "live 2", "missed 2"]);
}
