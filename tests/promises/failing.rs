//! A disk that fails (T3): the n-th write, or fsync, of the log fails with EIO, ENOSPC or EDQUOT, once or from then on. Nothing
//! acknowledged is lost, nothing refused is there, a stream that is open meanwhile shows nothing that is not, and the server
//! does what the error policy (`store/fault.rs`) says. So it does where reads, locks or the files beside the log fail.
//!
//! The quick form takes some n of each kind; `TIDINGS_FAULTS=200` takes every n from 1 to 200.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tempfile::TempDir;

use crate::crowd::address;
use crate::crowd::line::{Line, Transport};
use crate::shim::{failing, failing_while};
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
    ("write", "EDQUOT", "on", Consequence::Refuses, &[40, 100]),
    // A quota that has room again at once is not told from a disk that fails.
    ("write", "EDQUOT", "once", Consequence::Ends(74), &[50]),
];
/// Publishes that are tried until a failure has come; each writes several times and flushes once.
const MAX_PUBLISHES: usize = 600;
/// And after it.
const AFTERWARDS: usize = 5;
/// Starts on a disk that does not say how large the database is, that time.
const STARTS: usize = 16;
/// The exit codes of a server that meets a failure while it starts: the disk is full, or it fails. A quota is told as either.
fn at_start(operation: &str, error: &str) -> &'static [i32] {
    match (operation, error) {
        ("write", "ENOSPC") => &[75],
        ("write", "EDQUOT") => &[74, 75],
        _ => &[74],
    }
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

/// Somebody who streams all the while.
struct Witness(Arc<Mutex<Shown>>);

/// What a stream has shown.
#[derive(Debug, Default)]
struct Shown {
    greeted: usize,
    notifications: Vec<Acknowledged>,
    is_over: bool,
}

impl Witness {
    /// Opens alice's stream at a server that may end meanwhile.
    fn of(server: &Server) -> Self {
        let (address, token) = (address(server), server.token("alice"));
        let shown = Arc::new(Mutex::new(Shown::default()));
        let this = Self(shown.clone());
        let tell = move |tell: &dyn Fn(&mut Shown)| tell(&mut shown.lock().expect("nobody panics with it"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let Ok(mut line) = Line::open(address, Transport::Sse, &token, "now").await else { return };
                while let Ok(event) = line.next().await {
                    match event.kind.as_str() {
                        "hello" => tell(&|shown| shown.greeted += 1),
                        "notification" => tell(&|shown| {
                            let (title, seq) = (event.title().to_owned(), event.seq());
                            shown.notifications.push(Acknowledged { title, seq, told: 0 });
                        }),
                        _ => {}
                    }
                }
            });
            tell(&|shown| shown.is_over = true);
        });
        wait_for("the witness", || this.ask(|shown| shown.is_over || shown.greeted > 0).then_some(()));
        this
    }

    fn ask<T>(&self, what: impl FnOnce(&Shown) -> T) -> T {
        what(&self.0.lock().expect("nobody panics with it"))
    }

    /// Waits until it has been shown this, on a stream that goes on.
    fn has_seen(&self, title: &str) {
        let seen = |shown: &Shown| shown.notifications.iter().any(|one| one.title == title);
        wait_for(title, || self.ask(seen).then_some(()));
        assert!(!self.ask(|shown| shown.is_over), "the stream goes on");
    }

    fn is_over(&self) {
        wait_for("the stream's end", || self.ask(|shown| shown.is_over).then_some(()));
    }

    fn shown(&self) -> Vec<Acknowledged> {
        self.ask(|shown| shown.notifications.clone())
    }
}

fn has_failed(log: &Path) -> bool {
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// A directory that was used before, and a key.
fn used() -> (TempDir, String) {
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
    let (mut told, mut shown) = (Told::default(), Vec::new());
    let data = match failing(data, &log, &format!("{operation}:{n}:{error}:{when}")).attempt() {
        Err(refused) => {
            let code = refused.code.unwrap_or_else(|| panic!("{what}: it hung: {}", refused.log));
            assert!(at_start(operation, error).contains(&code), "{what}: {code}: {}", refused.log);
            assert!(refused.log.contains("error: "), "{what}: {}", refused.log);
            refused.dir
        }
        Ok(mut server) => {
            let (mut number, witness) = (0, Witness::of(&server));
            while !has_failed(&log) && number < MAX_PUBLISHES {
                told.publish(&server, &key, &format!("n{number}"));
                number += 1;
            }
            assert!(has_failed(&log), "{what}: it never came to that");
            if let Consequence::Ends(code) = expected {
                let status = server.exit();
                assert_eq!(status.code(), Some(code), "{what}: {}", server.log());
                wait_for("the reason", || server.log().contains("can't be written any more").then_some(()));
                witness.is_over();
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
                // Reading goes on, and so do streams.
                assert_eq!(server.inbox("alice")["counts"]["unread"].is_u64(), true, "{what}");
                told.acknowledged.last().inspect(|last| witness.has_seen(&last.title));
                server.kill();
            }
            shown = witness.shown();
            server.stop()
        }
    };
    let mut possible: HashSet<String> = told.acknowledged.iter().map(|one| one.title.clone()).collect();
    possible.extend(told.unknown.iter().cloned());
    possible.insert("before".to_owned());
    hold(data, &what, told.acknowledged.iter().chain(&shown), &possible);
}

/// Starts on a healthy disk again, where all of this must be and nothing that is impossible; what the harness recounts when it
/// is dropped is right.
fn hold<'a>(
    data: TempDir,
    what: &str,
    acknowledged: impl Iterator<Item = &'a Acknowledged>,
    possible: &HashSet<String>,
) {
    let server = Setup::serve().on(data).start();
    let verdict = judge(server.data(), acknowledged, possible);
    assert!(verdict.is_clean(), "{what}: {verdict:?}");
    server.notify("alice", "healthy again");
}

/// A server that was used before and fails as long as a file is there; what it is asked before is not meant to fail.
struct Failing {
    server: Server,
    witness: Witness,
    key: String,
    told: Told,
    aside: TempDir,
}

impl Failing {
    fn start(failure: &str) -> Self {
        let ((data, key), aside) = (used(), tempfile::tempdir().expect("a directory"));
        let setup = failing_while(data, &aside.path().join("failed"), failure, &aside.path().join("when"));
        let server = setup.start();
        let (witness, told) = (Witness::of(&server), Told::default());
        let mut this = Self { server, witness, key, told, aside };
        this.publishes("before-it");
        this
    }

    fn begin(&self) {
        std::fs::write(self.aside.path().join("when"), "").expect("there is room for an empty file");
    }

    fn end(&self) {
        std::fs::remove_file(self.aside.path().join("when")).expect("it was made");
        assert!(has_failed(&self.aside.path().join("failed")), "nothing has failed");
    }

    /// Publishes, which is acknowledged and shown.
    fn publishes(&mut self, title: &str) {
        self.told.publish(&self.server, &self.key, title);
        assert!(
            self.told.acknowledged.last().is_some_and(|last| last.title == title),
            "{title}: {}",
            self.server.log()
        );
        self.witness.has_seen(title);
    }

    fn ask_inbox(&self) -> std::io::Result<u16> {
        let ask = Ask::get("/v1/inbox").bearer(&self.server.token("alice"));
        ask.attempt(self.server.place()).map(|answer| answer.status())
    }

    fn readiness(&self) -> (u16, String) {
        let answer = self.server.send(&Ask::get("/readyz"));
        (answer.status(), answer.json()["why"].as_str().unwrap_or_default().to_owned())
    }

    /// Holds what was acknowledged and shown against the log.
    fn hold(self) {
        let Self { server, witness, told, .. } = self;
        let shown = witness.shown();
        let mut possible: HashSet<String> = told.acknowledged.iter().map(|one| one.title.clone()).collect();
        possible.insert("before".to_owned());
        hold(server.stop(), "afterwards", told.acknowledged.iter().chain(&shown), &possible);
    }
}

#[test]
fn a_part_that_can_not_be_read_is_told_and_the_rest_goes_on() {
    // As a network's file system says it.
    let mut failing = Failing::start("read:1:ESTALE:on");
    failing.begin();
    assert_eq!(failing.ask_inbox().expect("it goes on"), 503);
    let (status, why) = failing.readiness();
    assert!(status == 503 && why.starts_with("a part of the database can't be read: "), "{status} {why}");
    failing.publishes("meanwhile");
    // Who comes is told to come again.
    failing.server.stream("alice", "").bye("overloaded");
    failing.end();
    assert_eq!(failing.ask_inbox().expect("it goes on"), 200);
    failing.server.stream("alice", "").expect("hello");
    assert_eq!(failing.readiness().0, 503, "until somebody has looked at the disk");
    failing.publishes("afterwards");
    assert!(failing.server.terminate().0.success(), "{}", failing.server.log());
    failing.hold();
}

/// SQLite takes a read that fails with EIO for damage, since that is how file systems tell of a checksum that is wrong.
#[test]
fn a_read_that_fails_with_eio_ends_the_server_as_damage_does() {
    let mut failing = Failing::start("read:1:EIO:on");
    failing.begin();
    // The answer may be cut off by the end of the process.
    let told = failing.ask_inbox().unwrap_or(500);
    assert_eq!(told, 500, "{}", failing.server.log());
    assert_eq!(failing.server.exit().code(), Some(65), "{}", failing.server.log());
    wait_for("the reason", || failing.server.log().contains("can't be written any more").then_some(()));
    failing.witness.is_over();
    failing.end();
    failing.hold();
}

/// SQLite tells a lock that fails as it tells one that another program holds, when it has tried for ten seconds.
#[test]
fn locks_that_fail_are_as_if_another_program_held_them() {
    let mut failing = Failing::start("lock:1:EIO:on");
    failing.begin();
    assert_eq!(failing.ask_inbox().expect("it goes on"), 503, "{}", failing.server.log());
    failing.end();
    assert_eq!(failing.ask_inbox().expect("it goes on"), 200);
    failing.publishes("afterwards");
    assert!(failing.server.terminate().0.success(), "{}", failing.server.log());
    failing.hold();
}

#[test]
fn a_connection_that_can_not_be_opened_for_reading_is_the_disk_s_fault_and_no_damage() {
    let ((mut data, _), aside) = (used(), tempfile::tempdir().expect("a directory"));
    let mut readers = 0;
    for n in 1..=STARTS {
        let failure = format!("stat:{n}:EIO:once");
        data = match failing(data, &aside.path().join(n.to_string()), &failure).attempt() {
            Ok(server) => server.stop(),
            Err(refused) => {
                assert_eq!(refused.code, Some(74), "{failure}: {}", refused.log);
                if refused.log.contains("no connection for reading") {
                    assert!(refused.log.contains("can't be written any more"), "{failure}: {}", refused.log);
                    readers += 1;
                }
                refused.dir
            }
        };
    }
    assert!(readers > 0, "no connection for reading was opened within {STARTS} looks at the database");
    hold(data, "afterwards", [].iter(), &HashSet::from(["before".to_owned()]));
}

#[test]
fn files_beside_the_log_that_fail_cost_no_publish() {
    let mut failing = Failing::start("head:1:EIO:on");
    failing.begin();
    failing.publishes("without-a-head-file");
    wait_for("a word of it", || {
        failing.server.log().contains("beside the database could not be written").then_some(())
    });
    failing.end();
    let cursor = failing.server.inbox("alice")["cursor"].as_str().expect("a cursor").to_owned();
    failing.server.restart();
    // It lies behind the log, which is no sign of an older copy.
    let mut stream = failing.server.resume("alice", &cursor);
    assert_eq!(stream.expect("hello").data["recovered"], true);
    drop(stream);
    failing.hold();

    let ((data, key), aside) = (used(), tempfile::tempdir().expect("a directory"));
    let log = aside.path().join("failed");
    let server = crate::shim::failing(data, &log, "ballast:1:EIO:on").start();
    assert!(has_failed(&log) && server.log().contains("no ballast can be kept here"), "{}", server.log());
    let mut told = Told::default();
    told.publish(&server, &key, "without-a-ballast");
    assert_eq!(told.acknowledged.len(), 1);
    let possible = ["before", "without-a-ballast"].map(str::to_owned).into();
    hold(server.stop(), "afterwards", told.acknowledged.iter(), &possible);
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
        let expected = at_start(operation, error);
        assert!(
            refused.code.is_some_and(|code| expected.contains(&code)),
            "{failure}: {:?} {}",
            refused.code,
            refused.log
        );
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
