//! Cursors that make no sense (T8): the exact reason in `hello`, never an error to an EventSource.

use serde_json::json;

use crate::support::http::Ask;
use crate::support::server::Server;
use crate::support::sse::Sse;

/// Kilobytes of memory that the server holds.
fn resident_kb(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
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
    };
    try_both();
    let before = resident_kb(&server);
    (0..50).for_each(|_| try_both());
    let grown = resident_kb(&server).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more after 100 requests of 400 KiB");
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
