//! A disk that fails (T3): the n-th write, or fsync, of the log fails with EIO or ENOSPC, once or from then on. Nothing
//! acknowledged is lost, nothing refused is there, and the server does what the error policy (`store/fault.rs`) says.
//!
//! The quick form takes some n of each kind; `TIDINGS_FAULTS=200` takes every n from 1 to 200.

use std::collections::HashSet;
use std::path::Path;

use serde_json::json;

use crate::shim::failing;
use crate::stored::{Acknowledged, judge};
use crate::support::http::Ask;
use crate::support::server::{Server, Setup};
use crate::support::wait_for;

/// What may follow of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consequence {
    /// The process ends with this exit code.
    Ends(i32),
    /// Publishes are refused, the process goes on, and publishes are taken again.
    GoesOn,
    /// Publishes are refused for as long as it lasts.
    Refuses,
}

/// Kinds of failures, what they must lead to, and the n of the quick form.
const KINDS: &[(&str, &str, &str, Consequence, &[usize])] = &[
    ("write", "EIO", "once", Consequence::Ends(74), &[1, 7, 30, 120, 200]),
    ("sync", "EIO", "once", Consequence::Ends(74), &[1, 2, 9, 60]),
    ("sync", "ENOSPC", "once", Consequence::Ends(74), &[3]),
    ("write", "ENOSPC", "once", Consequence::GoesOn, &[1, 2, 13, 40, 150]),
    ("write", "ENOSPC", "on", Consequence::Refuses, &[1, 20, 90]),
];
/// Publishes that are tried until a failure has come; each writes several times and flushes once.
const MAX_PUBLISHES: usize = 600;
/// And after it.
const AFTERWARDS: usize = 5;
/// The exit code of a server that meets a failure while it starts: the disk is full, or it fails.
fn at_start(operation: &str, error: &str) -> i32 {
    if (operation, error) == ("write", "ENOSPC") { 75 } else { 74 }
}

#[derive(Default)]
struct Told {
    acknowledged: Vec<Acknowledged>,
    /// Not known to be stored, nor not to be.
    unknown: HashSet<String>,
    refused: usize,
    /// Told that it may come again: its outcome is unknown.
    later: usize,
}

impl Told {
    /// Publishes a title once, and keeps what was said.
    fn publish(&mut self, server: &Server, credential: &str, title: &str) {
        let body = json!({ "to": "user:alice", "title": title, "body": "x".repeat(1_000) });
        let ask = Ask::post("/v1/notifications").bearer(credential).header("idempotency-key", title).json(&body);
        match ask.attempt(server.place()) {
            Ok(answer) if answer.status() == 201 => {
                let seq = answer.json()["seq"].as_u64().expect("a seq");
                self.acknowledged.push(Acknowledged { title: title.to_owned(), seq, told: 0 });
            }
            Ok(answer) if answer.status() == 507 => self.refused += 1,
            Ok(answer) => {
                assert_eq!(answer.status(), 503, "a publish is taken, refused, or its outcome is unknown");
                self.later += 1;
                self.unknown.insert(title.to_owned());
            }
            Err(_) => {
                self.unknown.insert(title.to_owned());
            }
        }
    }
}

fn has_failed(log: &Path) -> bool {
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// A directory that was used before, and a key.
fn used() -> (tempfile::TempDir, String) {
    let mut server = Server::start();
    let key = server.key(&["publish"]);
    server.notify("alice", "before");
    assert!(server.terminate().0.success());
    (server.stop(), key)
}

fn fail(operation: &str, error: &str, when: &str, n: usize, expected: Consequence) {
    let what = format!("{operation} {n} fails with {error}, {when}");
    let ((data, key), aside) = (used(), tempfile::tempdir().expect("a directory"));
    let log = aside.path().join("failed");
    let mut told = Told::default();
    let data = match failing(data, &log, &format!("{operation}:{n}:{error}:{when}")).attempt() {
        Err(refused) => {
            let code = refused.code.unwrap_or_else(|| panic!("{what}: it hung: {}", refused.log));
            assert_eq!(code, at_start(operation, error), "{what}: {}", refused.log);
            assert!(refused.log.contains("error: "), "{what}: {}", refused.log);
            refused.dir
        }
        Ok(mut server) => {
            let mut number = 0;
            while !has_failed(&log) && number < MAX_PUBLISHES {
                told.publish(&server, &key, &format!("n{number}"));
                number += 1;
            }
            assert!(has_failed(&log), "{what}: it never came to that");
            if let Consequence::Ends(code) = expected {
                let status = server.exit();
                assert_eq!(status.code(), Some(code), "{what}: {}", server.log());
                wait_for("the reason", || server.log().contains("can't be written any more").then_some(()));
            } else {
                if expected == Consequence::GoesOn {
                    wait_for("publishes to be taken again", || {
                        number += 1;
                        let had = told.acknowledged.len();
                        told.publish(&server, &key, &format!("n{number}"));
                        (told.acknowledged.len() > had).then_some(())
                    });
                    wait_for("readiness", || (server.send(&Ask::get("/readyz")).status() == 200).then_some(()));
                }
                for i in 0..AFTERWARDS {
                    told.publish(&server, &key, &format!("after-{i}"));
                }
                let refused = told.refused > 0;
                assert!(refused || expected == Consequence::GoesOn, "{what}: nothing was refused");
                assert_eq!(told.later, 0, "{what}: a full disk is told as one");
                // Reading goes on.
                assert_eq!(server.inbox("alice")["counts"]["unread"].is_u64(), true, "{what}");
                server.kill();
            }
            server.stop()
        }
    };
    let mut possible: HashSet<String> = told.acknowledged.iter().map(|one| one.title.clone()).collect();
    possible.extend(told.unknown.iter().cloned());
    possible.insert("before".to_owned());
    // A healthy disk again: it starts, and what the harness recounts when it is dropped is right.
    let server = Setup::serve().on(data).start();
    let verdict = judge(server.data(), told.acknowledged.iter(), &possible);
    assert!(verdict.is_clean(), "{what}: {verdict:?}");
    server.notify("alice", "healthy again");
}

#[test]
fn a_first_start_or_an_upgrade_on_a_failing_disk_ends_as_any_write_there_would() {
    for (operation, error, n) in
        [("write", "EIO", 2), ("write", "EIO", 12), ("sync", "EIO", 2), ("write", "ENOSPC", 12)]
    {
        let aside = tempfile::tempdir().expect("a directory");
        let failure = format!("{operation}:{n}:{error}:on");
        let data = tempfile::tempdir().expect("a directory");
        let refused = failing(data, &aside.path().join("failed"), &failure).attempt().err().expect("it can't start");
        assert_eq!(refused.code, Some(at_start(operation, error)), "{failure}: {}", refused.log);
        // Once the disk is well again, what is there is gone on with.
        Setup::serve().on(refused.dir).start().notify("alice", "well");
    }
}

#[test]
fn a_failing_disk_loses_nothing_acknowledged_and_shows_nothing_refused() {
    let all: Option<usize> = std::env::var("TIDINGS_FAULTS").ok().and_then(|text| text.parse().ok());
    let mut failures = 0;
    for (operation, error, when, expected, some) in KINDS {
        let every: Vec<usize> = all.map_or_else(|| some.to_vec(), |all| (1..=all).collect());
        for n in every {
            fail(operation, error, when, n, *expected);
            failures += 1;
        }
    }
    println!("{failures} failures: nothing acknowledged lost, nothing refused stored");
}
