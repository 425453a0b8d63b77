//! How a stream begins: its head, `hello`, and what is replayed from where.

use serde_json::json;

use crate::support::http::Ask;
use crate::support::server::Server;
use crate::support::sse::{Event, Sse};

fn titles(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::title).collect()
}

/// A server on which alice has entries `t1` to `t{count}`, and their cursors.
fn with_entries(count: usize) -> (Server, Vec<String>) {
    let server = Server::start();
    let cursor = |i| server.notify("alice", &format!("t{i}"))["cursor"].as_str().expect("a cursor").to_owned();
    let cursors = (1..=count).map(cursor).collect();
    (server, cursors)
}

#[test]
fn the_head_of_a_stream_keeps_proxies_from_holding_it_back() {
    let server = Server::start();
    let mut stream = server.stream("alice", "");
    let head = &stream.head;
    assert_eq!(head.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    for absent in ["content-encoding", "content-length", "connection", "set-cookie"] {
        assert_eq!(head.header(absent), None, "{absent}");
    }
    let named = head.header("tidings-stream").expect("the stream's name").to_owned();
    assert_eq!(stream.expect("hello").data["stream"], named);
    let gzip = Ask::get("/v1/stream").bearer(&server.token("alice")).header("accept-encoding", "gzip, br");
    assert_eq!(Sse::open(server.place(), gzip).head.header("content-encoding"), None);
}

#[test]
fn hello_is_one_block_by_itself_and_flushed_before_the_rest() {
    let (server, _) = with_entries(3);
    let mut retries = Vec::new();
    for cursor in ["", "?cursor=start", "?cursor=now", "?cursor=nonsense"] {
        let mut stream = server.stream("alice", cursor);
        let hello = stream.expect("hello");
        assert_eq!(hello.order, ["retry", "id", "event", "data"]);
        assert_eq!(hello.chunk, 0);
        assert_eq!(hello.data["cursor"], hello.id.clone().expect("hello has an id"));
        let retry = hello.retry.expect("hello has one");
        assert!((2_000..=6_000).contains(&retry), "{retry}");
        retries.push(retry);
        if cursor != "?cursor=now" {
            assert!(stream.next().chunk > 0, "what follows is a write of its own");
        }
    }
    retries.dedup();
    assert!(retries.len() > 1, "`retry` is drawn for each connection: {retries:?}");
}

#[test]
fn hello_tells_who_and_where_and_how_long() {
    let (server, cursors) = with_entries(2);
    let hello = server.resume("alice", &cursors[0]).expect("hello").data;
    assert_eq!(hello["user"], "alice");
    assert_eq!(hello["cursor"], cursors[0]);
    assert_eq!(hello["head"], cursors[1]);
    assert_eq!(hello["recovered"], true);
    assert_eq!(hello.get("reason"), None);
    assert_eq!(hello["missed"], 1);
    assert_eq!(
        hello["counts"],
        json!({ "unread": 2, "unseen": 2, "by_category": { "general": { "unread": 2, "unseen": 2 } } })
    );
    assert_eq!(hello["heartbeat"], 15);
    let expires: jiff::Timestamp = hello["expires"].as_str().and_then(|at| at.parse().ok()).expect("RFC 3339");
    let left = expires.as_second() - crate::support::token::now();
    assert!((3_500..=3_600).contains(&left), "{left}");
}

#[test]
fn a_first_visit_gets_a_snapshot_of_the_newest_fifteen() {
    let (server, cursors) = with_entries(20);
    let mut stream = server.stream("alice", "");
    let hello = stream.expect("hello");
    assert_eq!((&hello.data["recovered"], hello.reason()), (&json!(false), "none"));
    assert_eq!(hello.id.as_deref(), Some(cursors[4].as_str()), "just before the oldest that follows");
    assert_eq!((&hello.data["head"], &hello.data["missed"]), (&json!(cursors[19]), &json!(15)));
    let counts = stream.expect("unread").data;
    assert_eq!((&counts["unread"], &counts["as_of"]), (&json!(20), &json!(cursors[19])));
    for (i, cursor) in cursors.iter().enumerate().skip(5) {
        let entry = stream.expect("notification");
        assert_eq!(entry.id.as_ref(), Some(cursor));
        assert_eq!(entry.title(), format!("t{}", i + 1));
        assert_eq!(entry.data["replayed"], true);
        assert_eq!(entry.data["state"], json!({ "seen_at": null, "read_at": null, "archived_at": null }));
    }
    server.notify("alice", "live");
    let live = stream.expect("notification");
    assert_eq!((live.title(), &live.data["replayed"]), ("live", &json!(false)));
}

#[test]
fn an_empty_inbox_begins_at_the_head() {
    let server = Server::start();
    let head = server.notify("somebody-else", "t")["cursor"].clone();
    let mut stream = server.stream("alice", "");
    let hello = stream.expect("hello");
    assert_eq!((&hello.data["cursor"], &hello.data["head"]), (&head, &head));
    assert_eq!(hello.data["missed"], 0);
    let counts = stream.expect("unread").data;
    assert_eq!((&counts["unread"], &counts["by_category"]), (&json!(0), &json!({})));
    server.notify("alice", "first");
    assert_eq!(stream.expect("notification").title(), "first");
}

#[test]
fn a_snapshot_is_as_large_as_asked_and_leaves_out_what_is_archived() {
    let (server, cursors) = with_entries(6);
    let newest = server.inbox("alice")["entries"][0]["id"].clone();
    server.mark("alice", &json!({ "as": "archived", "ids": [newest] }));
    let mut stream = server.stream("alice", "?snapshot=3");
    let hello = stream.expect("hello");
    assert_eq!(hello.id.as_deref(), Some(cursors[1].as_str()));
    assert_eq!(stream.expect("unread").data["unread"], 5);
    assert_eq!(titles(&stream.take("notification", 3)), ["t3", "t4", "t5"]);
    server.notify("alice", "live");
    assert_eq!(stream.expect("notification").title(), "live", "the archiving itself is part of the snapshot");
    let mut none = server.stream("alice", "?snapshot=0");
    assert_eq!(none.expect("hello").data["missed"], 0);
    none.expect("unread");
    server.notify("alice", "live too");
    assert_eq!(none.expect("notification").title(), "live too");
    server.send(&Ask::get("/v1/stream?snapshot=101").bearer(&server.token("alice"))).problem(400, "bad-query");
}

#[test]
fn a_cut_inside_a_snapshot_resumes_as_replay() {
    let (server, _) = with_entries(5);
    let mut first = server.stream("alice", "");
    first.take("notification", 2);
    let cut = first.last_id().to_owned();
    drop(first);
    let mut again = server.resume("alice", &cut);
    assert_eq!(again.expect("hello").data["recovered"], true);
    assert_eq!(titles(&again.take("notification", 3)), ["t3", "t4", "t5"]);
    // One cut right after hello gets the same entries again.
    let mut greeted = server.stream("alice", "");
    let id = greeted.expect("hello").id.expect("an id");
    assert_eq!(titles(&server.resume("alice", &id).take("notification", 5)), ["t1", "t2", "t3", "t4", "t5"]);
}

#[test]
fn now_shows_only_what_comes_and_start_everything() {
    let (server, cursors) = with_entries(20);
    let mut now = server.stream("alice", "?cursor=now");
    let hello = now.expect("hello");
    assert_eq!((&hello.data["recovered"], &hello.data["missed"]), (&json!(true), &json!(0)));
    assert_eq!(hello.id.as_deref(), Some(cursors[19].as_str()));
    let mut start = server.stream("alice", "?cursor=start");
    let hello = start.expect("hello");
    assert_eq!((&hello.data["recovered"], &hello.data["missed"]), (&json!(true), &json!(20)));
    let all = start.take("notification", 20);
    assert_eq!(all.iter().map(|event| event.id.clone().expect("durable")).collect::<Vec<_>>(), cursors);
    server.notify("alice", "live");
    assert_eq!(now.expect("notification").title(), "live");
    assert_eq!(start.until("notification").title(), "live");
}

#[test]
fn a_cursor_is_read_in_every_spelling_and_the_header_wins() {
    let (server, cursors) = with_entries(4);
    let first_after = |ask: Ask| {
        let mut stream = Sse::open(server.place(), ask.bearer(&server.token("alice")));
        assert_eq!(stream.expect("hello").data["recovered"], true);
        stream.expect("notification").title().to_owned()
    };
    let [one, two, three, _] = &cursors[..] else { panic!("four cursors") };
    for name in ["cursor", "last_event_id", "lastEventId"] {
        assert_eq!(first_after(Ask::get(&format!("/v1/stream?{name}={two}"))), "t3", "{name}");
    }
    let query = format!("/v1/stream?cursor={one}&lastEventId={two}");
    assert_eq!(first_after(Ask::get(&query)), "t3", "what a library appended is newer than the page's own");
    assert_eq!(first_after(Ask::get(&query).header("Last-Event-ID", three)), "t4");
    assert_eq!(first_after(Ask::get(&query).header("Last-Event-ID", "")), "t3", "an empty one says nothing");
    let appended = format!("/v1/stream?lastEventId={one}&lastEventId={three}");
    assert_eq!(first_after(Ask::get(&appended)), "t4", "the last one was appended");
}

#[test]
fn replay_goes_over_into_live_without_gap_or_duplicate() {
    let server = Server::start();
    let expected: Vec<String> = (0..400).map(|i| format!("t{i}")).collect();
    server.follow("ops", "alice");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (i, title) in expected.iter().enumerate() {
                let to = if i % 3 == 0 { "topic:ops" } else { "user:alice" };
                server.publish(&json!({ "to": to, "title": title }));
            }
        });
        for _ in 0..4 {
            scope.spawn(|| {
                let mut got = Vec::new();
                let mut cursor = "start".to_owned();
                // Reads some, is cut, comes back from where it was.
                while got.last() != expected.last() {
                    let mut stream = server.resume("alice", &cursor);
                    stream.expect("hello");
                    for _ in 0..37 {
                        let event = stream.until("notification");
                        cursor = stream.last_id().to_owned();
                        got.push(event.title().to_owned());
                        if got.last() == expected.last() {
                            break;
                        }
                    }
                }
                assert_eq!(got, expected);
            });
        }
    });
}

#[test]
fn missed_is_exact_to_a_thousand() {
    let server = Server::start();
    let lines: Vec<_> = (0..1_001).map(|i| json!({ "to": "user:alice", "title": format!("t{i}") })).collect();
    let results = server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200).lines();
    let mut whole = server.stream("alice", "?cursor=start");
    assert_eq!(whole.expect("hello").data["missed"], "1000+");
    assert_eq!(titles(&whole.take("notification", 1_001)).last(), Some(&"t1000"));
    let cursor = results[0]["cursor"].as_str().expect("a cursor");
    assert_eq!(server.resume("alice", cursor).expect("hello").data["missed"], 1_000);
}
