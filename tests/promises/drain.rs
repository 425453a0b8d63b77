//! A drain loses nothing acknowledged, tells every stream, and sends them away spread (T12).
//!
//! The quick form drains 200 streams; `TIDINGS_DRAIN_STREAMS=1000` is the full one, which judges the time too.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Barrier, mpsc};
use tokio::time::timeout;

use crate::crowd::line::{Asker, Line, TRANSPORTS};
use crate::crowd::{address, long_token, runtime, setting, user};
use crate::shim::failing;
use crate::support::http::Ask;
use crate::support::poll::figure;
use crate::support::server::Server;
use crate::support::{DEADLINE, wait_for};

/// Publishes that are in flight.
const PUBLISHERS: usize = 200;
/// What the drain may take, and five times that where it is not what is measured.
const STATED: Duration = Duration::from_secs(5);
const LOOSE: Duration = Duration::from_secs(25);

#[test]
fn a_drain_under_load_ends_well_and_everyone_is_told_when_to_come_back() {
    let full = setting("TIDINGS_DRAIN_STREAMS", 0);
    let streams = if full == 0 { 200 } else { full as usize };
    let mut server = Server::start();
    let (address, credential) = (address(&server), server.key(&["publish"]));
    let tokens: Vec<String> = (0..streams).map(|number| long_token(&server, &user(number))).collect();
    let runtime = runtime();
    let (tell, mut told) = mpsc::unbounded_channel();
    let ready = std::sync::Arc::new(Barrier::new(streams + PUBLISHERS + 1));
    let readers: Vec<_> = tokens
        .into_iter()
        .enumerate()
        .map(|(number, token)| {
            let ready = ready.clone();
            runtime.spawn(async move {
                let transport = TRANSPORTS[number % 3];
                let mut line = Line::open(address, transport, &token, "now").await.expect("it is accepted");
                if number % 3 != 1 {
                    assert_eq!(line.next().await.expect("an event").kind, "hello");
                }
                // A poll says nothing until there is something to say.
                ready.wait().await;
                loop {
                    let event = line
                        .next()
                        .await
                        .unwrap_or_else(|e| panic!("{transport:?} {number}: the end came before bye: {e}"));
                    if event.kind == "bye" {
                        return event.data;
                    }
                }
            })
        })
        .collect();
    for publisher in 0..PUBLISHERS {
        let (ready, tell, credential) = (ready.clone(), tell.clone(), credential.clone());
        runtime.spawn(async move {
            let mut asker = Asker::connect(address).await.expect("the server accepts");
            for n in 0.. {
                let title = format!("{publisher}/{n}");
                let ask = Ask::post("/v1/notifications").bearer(&credential);
                let ask = ask.json(&json!({ "to": "user:reader", "title": title }));
                // What has no answer is unknown, and may stand in the log or not.
                let Ok((201, _)) = asker.ask(&ask).await else { return };
                let _ = tell.send(title);
                if n == 0 {
                    ready.wait().await;
                }
            }
        });
    }
    drop(tell);
    runtime.block_on(async { timeout(DEADLINE, ready.wait()).await }).expect("all are there");
    // A poll is a connection before it is a subscriber: the hub counts who is there, and each here is somebody else.
    wait_for("all to be attached", || {
        figure(&server, "tidings_users_online").filter(|online| *online >= streams as u64)
    });
    let (status, took) = server.terminate();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < if full == 0 { LOOSE } else { STATED }, "{took:?}");
    let byes: Vec<Value> = runtime.block_on(async {
        let mut byes = Vec::new();
        for reader in readers {
            byes.push(timeout(DEADLINE, reader).await.expect("it ends").expect("a reader panicked"));
        }
        byes
    });
    assert!(byes.iter().all(|bye| bye["reason"] == "shutdown" && bye["reconnect"] == true), "{byes:?}");
    let mut retries: Vec<u64> = byes.iter().map(|bye| bye["retry_ms"].as_u64().expect("a pause")).collect();
    retries.sort_unstable();
    let (first, last) = (retries[0], retries[retries.len() - 1]);
    assert!((2_000..=6_000).contains(&first) && (2_000..=6_000).contains(&last), "{retries:?}");
    assert!(last - first > 2_000, "they are spread over the window: {retries:?}");
    // No tenth of the window takes a third of them.
    let crowded = (0..10).map(|tenth| retries.iter().filter(|ms| (*ms - 2_000) / 401 == tenth).count()).max();
    assert!(crowded < Some(streams / 3), "{retries:?}");
    let mut acknowledged = HashSet::new();
    runtime.block_on(async {
        while let Some(title) = told.recv().await {
            acknowledged.insert(title);
        }
    });
    println!("{streams} streams drained in {took:?}, retry {first} to {last} ms, {} acknowledged", acknowledged.len());
    assert!(acknowledged.len() >= PUBLISHERS);
    server.restart();
    let kept = kept(&server);
    assert!(acknowledged.is_subset(&kept), "lost: {:?}", acknowledged.difference(&kept).collect::<Vec<_>>());
}

/// A disk that never answers again is not waited for.
#[test]
fn on_a_disk_that_hangs_the_server_leaves_at_its_hard_deadline_and_says_so() {
    let mut server = Server::start();
    let credential = server.key(&["publish"]);
    assert!(server.terminate().0.success());
    let aside = tempfile::tempdir().expect("a directory");
    let hung = aside.path().join("hung");
    let mut server = failing(server.stop(), &hung, "sync:20:HANG:on")
        .env("TIDINGS_SERVER_DRAIN_DEADLINE", "1s")
        .env("TIDINGS_SERVER_HARD_DEADLINE", "3s")
        .start();
    let ask = Ask::post("/v1/notifications").bearer(&credential).json(&json!({ "to": "user:alice", "title": "t" }));
    let place = server.place().clone();
    // The last of them is answered by nobody.
    let publisher = std::thread::spawn(move || while ask.attempt(&place).is_ok_and(|answer| answer.status() == 201) {});
    wait_for("the disk to hang", || std::fs::metadata(&hung).is_ok_and(|log| log.len() > 0).then_some(()));
    let asked = Instant::now();
    server.signal(Signal::TERM);
    let status = server.exit();
    assert_eq!(status.code(), Some(1), "{}", server.log());
    assert!(server.log().contains("did not end within the hard deadline"), "{}", server.log());
    assert!(asked.elapsed() >= Duration::from_secs(3), "{:?}", asked.elapsed());
    publisher.join().expect("it only publishes");
}

/// Titles of all that is in the log.
fn kept(server: &Server) -> HashSet<String> {
    let (mut titles, mut cursor, token) = (HashSet::new(), "start".to_owned(), server.token("reader"));
    loop {
        let ask = Ask::get(&format!("/v1/poll?wait=0&limit=500&cursor={cursor}")).bearer(&token);
        let page = server.send(&ask).expect(200).json();
        let events = page["events"].as_array().expect("events");
        titles.extend(events.iter().filter_map(|event| event["data"]["title"].as_str().map(str::to_owned)));
        if page["more"] != true {
            return titles;
        }
        page["cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
    }
}
