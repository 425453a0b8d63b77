//! Cursors that make no sense (T8): the exact reason in `hello` on all three transports, never an error to an EventSource.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidings::broker::{self, Broker, Retention};
use tidings::clock::Clock;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;

use crate::support::http::Ask;
use crate::support::poll::Poll;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::ws::{Ws, handshake};

/// Kilobytes of memory that the server holds.
fn resident_kb(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// What a long poll and a WebSocket say of themselves that begin at a cursor.
fn elsewhere(server: &Server, token: &str, cursor: &str) -> [(&'static str, Value); 2] {
    let poll = Poll::new(server.place(), &format!("?cursor={cursor}"), token).ask(0).expect("the server answers");
    let mut ws = Ws::open(server.place(), &handshake(&format!("/v1/ws?cursor={cursor}")).bearer(token));
    [("long poll", poll.expect(200).json()), ("WebSocket", ws.expect("hello").data)]
}

/// Lets retention take all but the newest direct entries of each user, while no server runs.
fn retain(directory: &std::path::Path, per_user: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let retention = Retention { per_user: Some(per_user), ..Retention::default() };
        let (config, lifecycle) = (broker::Config { retention, ..broker::Config::default() }, Lifecycle::default());
        let metrics = Arc::new(Metrics::default());
        let opened = Broker::open(directory, config, Clock::system(), metrics, &lifecycle).await;
        let broker = opened.expect("a directory of ours opens");
        assert_eq!(broker.retain().await, Ok(2), "as many as are too many");
        lifecycle.drain();
        drop(broker);
        assert!(lifecycle.core_ended(Duration::from_mins(5)).await, "the writer ends");
    });
}

#[test]
fn a_cursor_below_the_floor_is_told_pruned_and_one_at_the_floor_goes_on() {
    const KEPT: u64 = 3;
    let server = Server::start();
    let made: Vec<Value> = (0..5).map(|i| server.notify("alice", &format!("t{i}"))).collect();
    let directory = server.stop();
    retain(directory.path(), KEPT);
    let server = Setup::serve().on(directory).start();
    let token = server.token("alice");
    let floor = made[1]["cursor"].as_str().expect("a cursor");
    let (epoch, seq) = floor.split_once('.').expect("a cursor");
    let seq: u64 = seq.parse().expect("a number");
    for (seq, reason) in [(0, Some("pruned")), (seq - 1, Some("pruned")), (seq, None), (seq + 1, None)] {
        let cursor = format!("{epoch}.{seq}");
        let mut stream = server.resume("alice", &cursor);
        let hello = stream.expect("hello");
        assert_eq!(
            (hello.data["recovered"].as_bool(), hello.data["reason"].as_str()),
            (Some(reason.is_none()), reason)
        );
        // What is kept comes either way: as a snapshot, or as what follows the cursor.
        let first = if seq <= made[1]["seq"].as_u64().expect("a seq") { 2 } else { 3 };
        let expected: Vec<String> = (first..5).map(|i| format!("t{i}")).collect();
        assert_eq!(stream.titles_to("t4"), expected, "after {cursor}");
        for (transport, hello) in elsewhere(&server, &token, &cursor) {
            assert_eq!(hello["reason"].as_str(), reason, "{cursor} over {transport}");
        }
    }
}

#[test]
fn every_absurd_cursor_is_answered_in_band_with_its_exact_reason() {
    let server = Server::start();
    let made: Vec<_> = (0..3).map(|i| server.notify("alice", &format!("t{i}"))).collect();
    let head = made[2]["cursor"].as_str().expect("a cursor").to_owned();
    let (epoch, seq) = head.split_once('.').expect("a cursor");
    let seq: u64 = seq.parse().expect("a number");
    let long = |length: usize| "7".repeat(length);
    let malformed = Some("malformed");
    let cases: Vec<(String, Option<&str>)> = vec![
        (format!("{epoch}.0"), None),
        (format!("{epoch}.{}", seq - 1), None),
        (head.clone(), None),
        (format!("{epoch}.{}", seq + 1), Some("ahead")),
        (format!("{epoch}.{}", i64::MAX), Some("ahead")),
        (format!("{epoch}.{}", u64::MAX), Some("ahead")),
        (format!("{epoch}.18446744073709551616"), malformed),
        (format!("zzzzz.{seq}"), Some("epoch")),
        ("zzzzz.18446744073709551615".to_owned(), Some("epoch")),
        (format!("{epoch}.-1"), malformed),
        (format!("{epoch}.+1"), malformed),
        (format!("{epoch}.01"), malformed),
        (format!("{epoch}."), malformed),
        (format!("{epoch}.1.1"), malformed),
        (epoch.to_owned(), malformed),
        (format!(".{seq}"), malformed),
        ("0".to_owned(), malformed),
        ("-1".to_owned(), malformed),
        ("NOW".to_owned(), malformed),
        ("null".to_owned(), malformed),
        ("undefined".to_owned(), malformed),
        (format!("zzzzz.{}", "0".repeat(58)), malformed),
        (long(64), malformed),
        (long(65), malformed),
        (long(4_000), malformed),
        (format!("{epoch}.1%00"), malformed),
        ("%00".to_owned(), malformed),
        ("%ff%fe".to_owned(), malformed),
        ("%F0%9F%94%94.1".to_owned(), malformed),
        ("1'%20OR%201=1--".to_owned(), malformed),
        ("a%0Aid:%20b.1".to_owned(), malformed),
    ];
    let token = server.token("alice");
    for (cursor, reason) in cases {
        for (transport, hello) in elsewhere(&server, &token, &cursor) {
            assert_eq!(hello["recovered"], reason.is_none(), "{cursor} over {transport}");
            assert_eq!(hello["reason"].as_str(), reason, "{cursor} over {transport}");
        }
        let mut asks = vec![Ask::get(&format!("/v1/stream?cursor={cursor}"))];
        if !cursor.contains('%') {
            asks.push(Ask::get("/v1/stream").header("last-event-id", &cursor));
        }
        for ask in asks {
            let mut stream = Sse::open(server.place(), ask.bearer(&token));
            let hello = stream.expect("hello");
            assert_eq!(hello.data["recovered"], reason.is_none(), "{cursor}");
            assert_eq!(hello.data["reason"].as_str(), reason, "{cursor}");
            match reason {
                // Neither silence nor a replay of everything: a snapshot, with its counts first.
                Some(_) => {
                    assert_eq!(stream.expect("unread").data["unread"], 3, "{cursor}");
                    assert_eq!(stream.titles_to("t2"), ["t0", "t1", "t2"], "{cursor}");
                    assert_eq!(hello.data["head"], head);
                }
                None => assert_eq!(hello.data["cursor"], cursor),
            }
        }
    }
    // A header may hold what no text does.
    let bytes = Ask::get("/v1/stream").bearer(&token).header("last-event-id", b"\xff\x80.1");
    assert_eq!(Sse::open(server.place(), bytes).expect("hello").reason(), "malformed");
}

#[test]
fn a_cursor_beyond_the_limits_of_a_request_is_refused_and_costs_no_memory() {
    let server = Server::start();
    let mut witness = server.stream("alice", "?cursor=now");
    witness.expect("hello");
    let huge = "7".repeat(400 * 1024);
    let try_both = || {
        let in_query = Ask::get(&format!("/v1/stream?cursor={huge}")).bearer(&server.token("alice"));
        let status = server.send(&in_query).status();
        assert!(matches!(status, 414 | 431), "{status}");
        let in_header = Ask::get("/v1/stream").bearer(&server.token("alice")).header("last-event-id", &huge);
        server.send(&in_header).problem(431, "headers-too-large");
        for target in [format!("/v1/poll?wait=0&cursor={huge}"), format!("/v1/ws?cursor={huge}")] {
            let status = server.send(&handshake(&target).bearer(&server.token("alice"))).status();
            assert!(matches!(status, 414 | 431), "{status}");
        }
    };
    try_both();
    let before = resident_kb(&server);
    (0..50).for_each(|_| try_both());
    let grown = resident_kb(&server).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more after 200 requests of 400 KiB");
    server.notify("alice", "still here");
    assert_eq!(witness.expect("notification").title(), "still here");
}

#[test]
fn a_cursor_of_another_log_is_told_so_and_never_taken_for_ours() {
    let (one, other) = (Server::start(), Server::start());
    let foreign = one.notify("alice", "elsewhere")["cursor"].as_str().expect("a cursor").to_owned();
    other.notify("alice", "here");
    let mut stream = other.resume("alice", &foreign);
    let hello = stream.expect("hello");
    assert_eq!(hello.reason(), "epoch");
    // The client's last id is ours from now on, so that it is not muted for ever.
    assert_ne!(hello.id.expect("an id").split('.').next(), foreign.split('.').next());
    let id = stream.until("notification").id.expect("durable");
    assert_eq!(other.resume("alice", &id).expect("hello").data["recovered"], json!(true));
}
