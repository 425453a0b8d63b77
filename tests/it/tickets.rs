//! Tickets: credentials for a stream's address, because EventSource has no headers.

use serde_json::json;

use crate::support::http::Ask;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::token;

fn open(server: &Server, ticket: &str, more: &str) -> Sse {
    Sse::open(server.place(), Ask::get(&format!("/v1/stream?ticket={ticket}{more}")))
}

fn seconds_from_now(at: &serde_json::Value) -> i64 {
    let at: jiff::Timestamp = at.as_str().and_then(|at| at.parse().ok()).expect("RFC 3339");
    at.as_second() - token::now()
}

#[test]
fn a_user_gets_a_ticket_for_the_own_inbox_no_longer_than_the_token() {
    let server = Server::start();
    let mint = |ask: Ask| server.send(&ask);
    for body in ["", "{}"] {
        let kind = if body.is_empty() { "" } else { "application/json" };
        let made = mint(Ask::post("/v1/tickets").bearer(&server.token("alice")).body(kind, body)).expect(201).json();
        assert_eq!(made["user"], "alice");
        assert!((55..=60).contains(&seconds_from_now(&made["use_by"])), "{made}");
        assert!((3_590..=3_600).contains(&seconds_from_now(&made["expires"])), "{made}");
        let hello = open(&server, made["ticket"].as_str().expect("a ticket"), "").expect("hello").data;
        assert_eq!(
            (&hello["user"], seconds_from_now(&hello["expires"])),
            (&json!("alice"), seconds_from_now(&made["expires"]))
        );
    }
    let own = Ask::post("/v1/tickets").bearer(&server.token("alice"));
    mint(own.clone().json(&json!({ "user": "alice" }))).expect(201);
    mint(own.json(&json!({ "user": "bob" }))).problem(403, "forbidden");
}

#[test]
fn a_backend_gets_a_ticket_for_any_user_with_its_key() {
    let server = Server::start();
    let key = server.key(&["tickets"]);
    let mint = |body| server.send(&Ask::post("/v1/tickets").bearer(&key).json(&body));
    let made = mint(json!({ "user": "alice" })).expect(201).json();
    assert!((43_190..=43_200).contains(&seconds_from_now(&made["expires"])), "{made}");
    assert_eq!(open(&server, made["ticket"].as_str().expect("a ticket"), "").expect("hello").data["user"], "alice");
    assert_eq!(mint(json!({})).problem(422, "invalid")["errors"][0]["pointer"], "/user");
    mint(json!({ "user": "" })).problem(422, "invalid");
    let publisher = server.key(&["publish"]);
    server.send(&Ask::post("/v1/tickets").bearer(&publisher).json(&json!({ "user": "a" }))).problem(403, "forbidden");
}

#[test]
fn a_ticket_opens_its_stream_again_also_after_a_restart() {
    let mut server = Server::start();
    let ticket = server.ticket("alice");
    let mut first = open(&server, &ticket, "&cursor=now");
    first.expect("hello");
    server.notify("alice", "one");
    assert_eq!(first.until("notification").title(), "one");
    let cursor = first.last_id().to_owned();
    drop(first);
    let mut again = open(&server, &ticket, &format!("&lastEventId={cursor}"));
    assert_eq!(again.expect("hello").data["recovered"], true);
    server.kill();
    again.gone();
    server.restart();
    server.notify("alice", "two");
    let mut back = open(&server, &ticket, &format!("&lastEventId={cursor}"));
    assert_eq!(back.expect("hello").data["missed"], 1);
    assert_eq!(back.expect("notification").title(), "two");
}

#[test]
fn a_second_stream_on_a_ticket_ends_the_first() {
    let server = Server::start();
    let ticket = server.ticket("alice");
    let mut first = open(&server, &ticket, "&cursor=now");
    first.expect("hello");
    let mut second = open(&server, &ticket, "&cursor=now");
    second.expect("hello");
    assert_eq!(first.bye("replaced").data["reconnect"], false);
    server.notify("alice", "here");
    assert_eq!(second.expect("notification").title(), "here");
    // Streams by the token itself are not counted: a person has several devices.
    let mut other = server.stream("alice", "?cursor=now");
    other.expect("hello");
    server.notify("alice", "both");
    assert_eq!([second.until("notification").title(), other.expect("notification").title()], ["both"; 2]);
}

#[test]
fn a_ticket_reads_its_stream_and_does_nothing_else() {
    let server = Server::start();
    let cursor = server.notify("alice", "t")["cursor"].clone();
    let ticket = server.ticket("alice");
    open(&server, &ticket, "").expect("hello");
    let mark = json!({ "as": "read", "upto": cursor });
    let publish = json!({ "to": "user:alice", "title": "t" });
    for (method, path, body) in [
        ("POST", "/v1/inbox/mark", &mark),
        ("POST", "/v1/notifications", &publish),
        ("POST", "/v1/publish/ops", &publish),
        ("POST", "/v1/tickets", &json!({})),
        ("POST", "/v1/session", &json!({})),
        ("GET", "/v1/keys", &json!({})),
    ] {
        let in_query = Ask::new(method, &format!("{path}?ticket={ticket}")).json(body);
        server.send(&in_query).problem(401, "unauthenticated");
        let as_bearer = Ask::new(method, path).bearer(&ticket).json(body);
        server.send(&as_bearer).problem(401, "bad-credential");
    }
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
}

#[test]
fn a_ticket_that_waited_too_long_for_its_first_use_has_run_out() {
    let mut server = Server::start();
    let (late, used) = (server.ticket("alice"), server.ticket("alice"));
    open(&server, &used, "").expect("hello");
    server.kill();
    // As if a minute had passed.
    let log = rusqlite::Connection::open(server.data().join("tidings.db")).expect("the log");
    assert_eq!(log.execute("UPDATE tickets SET use_by = use_by - 60000", []).expect("it is free"), 2);
    drop(log);
    server.restart();
    open(&server, &late, "").bye("expired");
    server.send(&Ask::get(&format!("/v1/stream?ticket={late}"))).problem(401, "expired");
    open(&server, &used, "").expect("hello");
}

#[test]
fn a_ticket_that_was_never_given_is_refused() {
    let server = Server::start();
    let ticket = server.ticket("alice");
    let other = server.ticket("bob");
    let (id, secret) = (ticket.rsplit_once('_').expect("an id").0, other.splitn(3, '_').nth(2).expect("a secret"));
    for bad in [format!("{id}_{secret}"), format!("{ticket}x"), "tt_0000000000000000_x".to_owned(), "%ff".to_owned()] {
        let ask = Ask::get(&format!("/v1/stream?ticket={bad}")).header("accept", "text/event-stream");
        server.send(&ask).problem(401, "bad-credential");
    }
    assert!(
        !std::fs::read(server.data().join("tidings.db"))
            .expect("the log")
            .windows(20)
            .any(|part| { part == &other.as_bytes()[other.len() - 20..] }),
        "only a hash is kept"
    );
}

#[test]
fn a_ticket_sees_no_more_topics_than_the_token_it_was_made_with() {
    let server = Server::start();
    server.follow("ops", "alice");
    server.follow("orders", "alice");
    let narrow = server.token_for(&json!({ "sub": "alice", "exp": token::now() + 60, "topics": ["orders"] }));
    let made = server.send(&Ask::post("/v1/tickets").bearer(&narrow)).expect(201).json();
    let mut stream = open(&server, made["ticket"].as_str().expect("a ticket"), "&cursor=now");
    stream.expect("hello");
    for topic in ["ops", "orders"] {
        server.publish(&json!({ "to": { "topic": topic }, "title": topic }));
    }
    assert_eq!(stream.until("notification").title(), "orders");
    stream.until_unread(1);
}
