//! The write-ahead log (T16): under publishes, marks, replays, retention and backups it stays small, and nobody waits long.
//!
//! The quick form runs 8 s and holds the size alone; `TIDINGS_WAL_S=600` is the full one, which also judges the longest
//! wait of a publish.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection as Database;
use serde_json::{Value, json};

use crate::support::cli::{arg, run};
use crate::support::http::Ask;
use crate::support::publisher::{Tally, Whereabouts, publish};
use crate::support::server::{Server, Setup};

/// Bytes of the write-ahead log that are never reached.
const LIMIT: u64 = 64 << 20;
/// The longest that a publish may take in the full form.
const LONGEST: Duration = Duration::from_millis(250);
const QUICK: Duration = Duration::from_secs(8);
/// Between two looks at the size.
const LOOK: Duration = Duration::from_millis(5);
const USERS: usize = 20;

fn wal_bytes(server: &Server) -> u64 {
    fs::metadata(server.data().join("tidings.db-wal")).map_or(0, |log| log.len())
}

/// Lines of a batch, some kilobytes each.
fn bulk(lines: usize) -> Vec<Value> {
    let body = "x".repeat(2_000);
    (0..lines).map(|n| json!({ "to": "topic:bulk", "title": format!("{n}"), "body": body })).collect()
}

fn assert_whole(file: &Path) {
    let copy = Database::open(file).expect("it opens");
    let told: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("SQLite tells");
    assert_eq!(told, "ok");
}

#[test]
fn the_log_of_writes_stays_small_under_everything_at_once() {
    let full = std::env::var("TIDINGS_WAL_S").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let span = full.unwrap_or(QUICK);
    let retention = Setup::serve().env("TIDINGS_RETENTION_PER_USER", "200").env("TIDINGS_RETENTION_PER_TOPIC", "20000");
    // Without a limit of streams: a busy server may notice late that a reader has gone, and would refuse the next one.
    let server = retention.env("TIDINGS_LIMITS_STREAMS_PER_USER", "0").start();
    let folder = tempfile::tempdir().expect("a folder");
    for user in 0..USERS {
        server.follow("all", &format!("u{user}"));
    }
    let place = Whereabouts::new(server.place());
    let (credential, operator, tally) = (server.key(&["publish"]), server.operator(), Tally::default());
    let tokens: Vec<String> = (0..USERS).map(|user| server.token(&format!("u{user}"))).collect();
    let (stop, most, backups, replays, marks) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let waits = Mutex::new(Vec::new());
    let running = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for i in 0..4_usize {
            let (place, credential, tally, waits) = (&place, &credential, &tally, &waits);
            scope.spawn(move || {
                let body = "x".repeat(1_000);
                for n in 0_usize.. {
                    if !running() {
                        return;
                    }
                    let to = if i % 2 == 0 { json!("topic:all") } else { json!({ "user": format!("u{}", n % USERS) }) };
                    let key = format!("{i}/{n}");
                    let begun = Instant::now();
                    publish(place, credential, &key, &json!({ "to": to, "title": key, "body": body }), tally);
                    waits.lock().expect("nobody panics with it").push(begun.elapsed());
                }
            });
        }
        scope.spawn(|| {
            for n in 0.. {
                if !running() {
                    return;
                }
                let upto = json!({ "as": "read", "upto": server.inbox(&format!("u{}", n % USERS))["cursor"] });
                let ask = Ask::post("/v1/inbox/mark").bearer(&tokens[n % USERS]).json(&upto);
                server.send(&ask).expect(200);
                marks.fetch_add(1, Ordering::Relaxed);
            }
        });
        for reader in 0..2_usize {
            let (server, replays) = (&server, &replays);
            scope.spawn(move || {
                while running() {
                    let mut stream = server.stream(&format!("u{reader}"), "?cursor=start&events=notification");
                    stream.expect("hello");
                    for _ in 0..100 {
                        if !running() {
                            return;
                        }
                        let event = stream.next();
                        if event.kind == "bye" {
                            // Retention overtook what it had not read: it comes back.
                            assert_eq!(event.reason(), "rotate");
                            break;
                        }
                        assert_eq!(event.kind, "notification", "{event:?}");
                    }
                    replays.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let lines = bulk(100);
            while running() {
                Ask::post("/v1/notifications").bearer(&operator).ndjson(&lines).send(server.place()).expect(200);
            }
        });
        scope.spawn(|| {
            let file = folder.path().join("copy.db");
            while running() {
                run(&["backup", arg(&file), "--force", "--data", arg(server.data())], "").well();
                assert_whole(&file);
                backups.fetch_add(1, Ordering::Relaxed);
            }
        });
        let until = Instant::now() + span;
        while Instant::now() < until
            || (backups.load(Ordering::Relaxed) == 0 && Instant::now() < until + Duration::from_secs(60))
        {
            most.fetch_max(wal_bytes(&server), Ordering::Relaxed);
            std::thread::park_timeout(LOOK);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut waits = waits.into_inner().expect("nobody panicked with it");
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    let (most, backups, longest) = (most.into_inner(), backups.into_inner(), at(100));
    println!(
        "{} s: {} publishes, wait p50 {:?}, p99 {:?}, longest {longest:?}; {} marks, {} replays, {backups} backups; log of writes at most {:.1} MiB, database {:.1} MiB",
        span.as_secs(),
        waits.len(),
        at(50),
        at(99),
        marks.into_inner(),
        replays.into_inner(),
        most as f64 / f64::from(1 << 20),
        fs::metadata(server.data().join("tidings.db")).map_or(0, |log| log.len()) as f64 / f64::from(1 << 20),
    );
    assert!(backups > 0, "no backup came to its end");
    assert!(most < LIMIT, "the log of writes had {most} bytes");
    assert!(full.is_none() || longest < LONGEST, "a publish took {longest:?}");
    let report = run(&["check", "--json", "--data", arg(server.data())], "").well().json();
    assert_eq!(report["findings"], json!([]));
}

#[test]
fn a_reader_that_holds_its_snapshot_makes_the_log_of_writes_grow() {
    let server = Server::start();
    let write = |batches: usize| {
        for _ in 0..batches {
            server.operate(Ask::post("/v1/notifications").ndjson(&bulk(500))).expect(200);
        }
    };
    write(8);
    let usual = wal_bytes(&server);
    let holder = Database::open(server.data().join("tidings.db")).expect("a second reader");
    holder.execute_batch("BEGIN").expect("a transaction");
    let _: i64 = holder.query_row("SELECT head FROM log", [], |row| row.get(0)).expect("it has a snapshot");
    write(16);
    let held = wal_bytes(&server);
    println!("log of writes: {usual} bytes, {held} while a snapshot was held");
    assert!(held > usual + (8 << 20), "the control: {usual} bytes, {held} while a snapshot was held");
}
