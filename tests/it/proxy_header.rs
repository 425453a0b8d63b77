//! Signing in without a token: a proxy in front that has signed the user in says whom, and is believed where settings
//! name it, and from nobody else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cli::{arg, run_with};
use crate::support::http::Ask;
use crate::support::poll::Poll;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::token;
use crate::support::ws::{Ws, handshake};

fn trusting(from: &str) -> Setup {
    let setup = Setup::serve().env("TIDINGS_AUTH_TRUSTED_HEADER", "X-Remote-User");
    setup.env("TIDINGS_AUTH_TRUSTED_HEADER_FROM", from)
}

fn named(ask: Ask, user: &str) -> Ask {
    ask.header("x-remote-user", user)
}

fn same_origin(ask: Ask) -> Ask {
    ask.header("sec-fetch-site", "same-origin")
}

#[test]
fn the_proxys_word_signs_a_user_in_on_every_transport() {
    let server = trusting("unix, 127.0.0.1").start();
    let entry = server.notify("alice", "t");
    for place in [server.unix(), server.place().clone()] {
        let inbox = named(Ask::get("/v1/inbox"), "alice").send(&place).expect(200).json();
        let oldest = inbox["entries"].as_array().and_then(|entries| entries.last()).expect("an entry");
        assert_eq!(oldest["title"], "t");
        let mut sse = Sse::open(&place, named(Ask::get("/v1/stream?cursor=now"), "alice"));
        let hello = sse.expect("hello").data;
        // A browser has nothing to refresh, so it is told of no end.
        assert_eq!([&hello["user"], &hello["expires"]], [&json!("alice"), &Value::Null]);
        let mut socket = Ws::open(&place, &named(handshake("/v1/ws?cursor=now"), "alice"));
        assert_eq!(socket.expect("hello").data["user"], "alice");
        let poll = named(Ask::get("/v1/poll"), "alice").send(&place).expect(200).json();
        assert_eq!(poll["events"].as_array().map(Vec::is_empty), Some(false), "{poll}");
        server.notify("alice", "now");
        assert_eq!(sse.until("notification").title(), "now");
        assert_eq!(socket.until("notification").title(), "now");
        assert_eq!(socket.ask(json!({ "op": "mark", "as": "seen", "upto": entry["cursor"] }))["ok"], true);
        // Names of any language, as a proxy passes them on.
        let inbox = named(Ask::get("/v1/stream"), "李雷");
        assert_eq!(Sse::open(&place, inbox).expect("hello").data["user"], "李雷");
    }
}

#[test]
fn a_change_by_the_proxys_word_needs_proof_that_no_other_site_made_it() {
    let server = trusting("unix").start();
    let cursor = server.notify("alice", "t")["cursor"].clone();
    let changes = [
        Ask::post("/v1/inbox/mark").json(&json!({ "as": "seen", "upto": cursor })),
        Ask::post("/v1/tickets").json(&json!({})),
        Ask::put("/v1/topics/everyone-else/mute").json(&json!({})),
    ];
    for change in changes {
        let change = named(change, "alice");
        for bare in [change.clone(), change.clone().header("sec-fetch-site", "cross-site")] {
            bare.send(&server.unix()).problem(403, "cross-site");
        }
        change.clone().header("origin", "https://evil.example").send(&server.unix()).problem(403, "cross-site");
        let done = same_origin(change).send(&server.unix());
        assert!(matches!(done.status(), 200 | 201 | 404), "{}", done.text());
    }
    assert_eq!(server.inbox("alice")["counts"]["unseen"], 0);
    // A page of another origin opens no socket either.
    let foreign = named(handshake("/v1/ws"), "alice").header("origin", "https://evil.example");
    foreign.send(&server.unix()).problem(403, "cross-site");
}

#[test]
fn from_anybody_else_the_header_is_not_read() {
    let server = trusting("unix, 198.51.100.0/24").env("TIDINGS_OPS_LISTEN", "127.0.0.1:0").start();
    let strangers = [server.place().clone(), server.operators()];
    for place in &strangers {
        for ask in [Ask::get("/v1/inbox"), Ask::get("/v1/poll"), Ask::get("/v1/stream")] {
            // What a client says of its way changes nothing of who it is.
            let forged =
                named(ask, "alice").header("x-forwarded-for", "198.51.100.1").header("x-real-ip", "198.51.100.1");
            forged.send(place).problem(401, "unauthenticated");
        }
        let forged = same_origin(named(Ask::post("/v1/inbox/mark"), "alice"));
        forged.json(&json!({ "as": "seen", "ids": [] })).send(place).problem(401, "unauthenticated");
    }
    named(Ask::get("/v1/inbox"), "alice").send(&server.watchers()).problem(404, "not-found");
    // It does no harm to who is somebody else.
    let mut stream = Sse::open(server.place(), named(Ask::get("/v1/stream"), "alice").bearer(&server.token("bob")));
    assert_eq!(stream.expect("hello").data["user"], "bob");
    let plain = Server::start();
    named(Ask::get("/v1/inbox"), "alice").send(&plain.unix()).problem(401, "unauthenticated");
}

#[test]
fn the_proxys_word_counts_more_than_a_cookie_and_less_than_what_was_put_there_on_purpose() {
    let server = trusting("unix").start();
    let who = |ask: Ask| Sse::open(&server.unix(), ask).expect("hello").data["user"].clone();
    let cookie = format!("tidings_session={}", server.token("carol"));
    let stream = || Ask::get("/v1/stream");
    assert_eq!(who(named(stream(), "alice").header("cookie", &cookie)), "alice");
    assert_eq!(who(named(stream(), "alice").bearer(&server.token("bob"))), "bob");
    assert_eq!(who(named(Ask::get(&format!("/v1/stream?ticket={}", server.ticket("bob"))), "alice")), "bob");
    let sent = |ask: Ask| ask.send(&server.unix());
    // An empty one, or none, is how a proxy says that nobody is signed in; a cookie may be left over from before.
    sent(named(stream(), "").header("cookie", &cookie)).problem(401, "unauthenticated");
    sent(stream().header("cookie", &cookie)).problem(401, "unauthenticated");
    sent(named(Ask::get("/v1/inbox"), "")).problem(401, "unauthenticated");
    sent(named(named(Ask::get("/v1/inbox"), "alice"), "bob")).problem(401, "bad-credential");
    for doubtful in [&b"a\tb"[..], b"\xff", &[b'x'; 4096]] {
        sent(Ask::get("/v1/inbox").header("x-remote-user", doubtful)).problem(401, "bad-credential");
    }
    sent(named(Ask::get("/v1/inbox"), "alice").bearer("rubbish")).problem(401, "bad-credential");
}

#[test]
fn the_proxy_names_users_and_nobody_who_manages() {
    let server = trusting("unix").start();
    for operator in ["alice", "operator", "admin", &server.operator(), &server.key(&["admin"])] {
        let sent = |ask: Ask| same_origin(named(ask, operator)).send(&server.unix());
        sent(Ask::get("/v1/keys")).problem(401, "unauthenticated");
        sent(Ask::get("/v1/status")).problem(401, "unauthenticated");
        sent(Ask::put("/v1/users/bob/revocation")).problem(401, "unauthenticated");
        sent(Ask::get("/v1/users/bob/export")).problem(401, "unauthenticated");
        sent(Ask::post("/v1/publish/ops").body("text/plain", "t")).problem(401, "unauthenticated");
        sent(Ask::post("/v1/session")).problem(401, "unauthenticated");
        let publish = json!({ "to": "user:bob", "title": "t" });
        sent(Ask::post("/v1/notifications").json(&publish)).problem(403, "forbidden");
    }
    assert_eq!(server.inbox("bob")["counts"]["unread"], 0);
}

#[test]
fn taking_access_back_ends_streams_that_the_proxy_let_in() {
    let server = trusting("unix").start();
    let mut stream = Sse::open(&server.unix(), named(Ask::get("/v1/stream?cursor=now"), "alice"));
    stream.expect("hello");
    server.operate(Ask::put("/v1/users/alice/revocation")).expect(200);
    stream.bye("revoked");
    server.send(&Ask::get("/v1/inbox").bearer(&server.token("alice"))).problem(401, "revoked");
    // The proxy's word is as new as the request: whom it still lets in is its own to say.
    named(Ask::get("/v1/inbox"), "alice").send(&server.unix()).expect(200);
}

#[test]
fn after_a_while_the_proxy_is_asked_again() {
    const RECHECK: Duration = Duration::from_secs(10);
    let server = trusting("unix").env("TIDINGS_AUTH_TRUSTED_HEADER_RECHECK", "10s").start();
    let place = server.unix();
    let made = same_origin(named(Ask::post("/v1/tickets"), "alice")).json(&json!({})).send(&place).expect(201).json();
    let expires: jiff::Timestamp = made["expires"].as_str().and_then(|at| at.parse().ok()).expect("RFC 3339");
    assert!(expires.as_second() - token::now() <= 10, "a ticket lasts no longer than the word it was made by: {made}");
    let started = Instant::now();
    let mut sse = Sse::open(&place, named(Ask::get("/v1/stream?cursor=now"), "alice"));
    sse.expect("hello");
    let mut socket = Ws::open(&place, &named(handshake("/v1/ws?cursor=now"), "alice"));
    socket.expect("hello");
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| named(Ask::get("/v1/poll?cursor=now&wait=60"), "alice").send(&place));
        // Nothing warns before: there is no token that a page could refresh.
        let bye = sse.next();
        assert_eq!([&bye.data["reason"], &bye.data["reconnect"]], [&json!("rotate"), &json!(true)], "{bye:?}");
        socket.bye("rotate", 4001);
        assert!(started.elapsed() >= RECHECK, "{:?}", started.elapsed());
        let answer = poll.join().expect("it only waits").expect(200).json();
        assert_eq!(answer["events"][0]["data"]["reason"], "rotate", "{answer}");
    });
    assert!(started.elapsed() < 3 * RECHECK, "{:?}", started.elapsed());
    // Asked again, the proxy lets the browser in as before.
    Sse::open(&place, named(Ask::get("/v1/stream"), "alice")).expect("hello");
    assert_eq!(Poll::anonymous(&place, "").ask(0).expect("it answers").status(), 401);
}

#[test]
fn a_trusted_header_without_a_trusted_peer_is_a_fault_of_the_settings() {
    let dir = tempfile::tempdir().expect("a folder");
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("TIDINGS_AUTH_TRUSTED_HEADER", "X-Remote-User")], "auth.trusted_header_from"),
        (&[("TIDINGS_AUTH_TRUSTED_HEADER", "Cookie"), ("TIDINGS_AUTH_TRUSTED_HEADER_FROM", "unix")], "TRUSTED_HEADER"),
        (&[("TIDINGS_AUTH_TRUSTED_HEADER", "X-A"), ("TIDINGS_AUTH_TRUSTED_HEADER_FROM", "localhost")], "10.0.0.0/8"),
        (&[("TIDINGS_AUTH_TRUSTED_HEADER_RECHECK", "9s")], "10s"),
    ];
    for (env, told) in cases {
        let said = run_with(&["serve", "--listen", "none", "--data", arg(dir.path())], "", env);
        assert!(said.code == 64 && said.err.contains(told), "{env:?}: no {told:?} in {said:?}");
    }
}
