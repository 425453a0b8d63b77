//! Access that is taken back: every credential made until then, and every stream it had opened, within a second.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cli::{arg, run};
use crate::support::http::{Ask, Connection, Head};
use crate::support::poll::{Poll, figure};
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::ws::{Ws, handshake};
use crate::support::{DEADLINE, token, wait_for};

/// How soon an open stream must have ended: five times what is promised, since the machine may do much else.
const AT_ONCE: Duration = Duration::from_secs(5);

fn revoke(server: &Server, user: &str) -> Value {
    server.operate(Ask::put(&format!("/v1/users/{user}/revocation"))).expect(200).json()
}

fn restore(server: &Server, user: &str) {
    let told = server.operate(Ask::delete(&format!("/v1/users/{user}/revocation"))).expect(200).json();
    assert_eq!(told, json!({ "user": user, "revoked": false, "ended": 0 }));
}

/// A token made so many seconds from now.
fn made(server: &Server, user: &str, from_now: i64) -> String {
    let now = token::now();
    server.token_for(&json!({ "sub": user, "exp": now + 3600, "iat": now + from_now, "scope": "publish" }))
}

fn stream(query: &str) -> Ask {
    Ask::get(&format!("/v1/stream{query}")).header("accept", "text/event-stream")
}

/// Asks for a stream, and reads no more than the head of the answer.
fn head_of(server: &Server, ask: &Ask) -> Head {
    ask.glance(server.place()).head
}

#[test]
fn open_streams_end_at_once_and_say_why() {
    let server = Server::start();
    let ticket = server.ticket("alice");
    let mut sse = server.stream("alice", "?cursor=now");
    let mut by_ticket = Sse::open(server.place(), Ask::get(&format!("/v1/stream?ticket={ticket}&cursor=now")));
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&server.token("alice")));
    let mut other = server.stream("bob", "?cursor=now");
    for stream in [&mut sse, &mut by_ticket, &mut other] {
        stream.expect("hello");
    }
    socket.expect("hello");
    let (ended, answer, waited) = std::thread::scope(|scope| {
        let poll = scope.spawn(|| {
            let answer = Poll::new(server.place(), "?cursor=now", &server.token("alice")).ask(60);
            (answer.expect("the server answers"), Instant::now())
        });
        let parked = "tidings_connections{transport=\"poll\"}";
        wait_for("the poll to wait", || figure(&server, parked).filter(|parked| *parked == 1));
        let started = Instant::now();
        let told = revoke(&server, "alice");
        sse.bye("revoked");
        by_ticket.bye("revoked");
        socket.bye("revoked", 4103);
        let ended = started.elapsed();
        let (answer, at) = poll.join().expect("it only waits");
        (ended, (answer, told), at.duration_since(started))
    });
    let (answer, told) = answer;
    println!("streams had ended after {ended:?}, the poll after {waited:?}");
    assert!(ended < AT_ONCE && waited < AT_ONCE, "{ended:?}, {waited:?}");
    assert_eq!(told, json!({ "user": "alice", "revoked": true, "ended": 4 }));
    let answer = answer.expect(200).json();
    assert_eq!(answer["events"][0]["event"], "bye", "{answer}");
    assert_eq!(answer["events"][0]["data"]["reason"], "revoked", "{answer}");
    assert_eq!(answer["events"][0]["data"]["reconnect"], false, "{answer}");
    server.notify("bob", "nobody else is meant");
    assert_eq!(other.until("notification").title(), "nobody else is meant");
    assert!(figure(&server, "tidings_byes_total{reason=\"revoked\"}") >= Some(4));
    assert_eq!(figure(&server, "tidings_revocations"), Some(1));
}

#[test]
fn every_credential_made_until_then_is_refused_and_a_later_one_is_good() {
    let mut server = Server::start();
    let (before, dateless) = (made(&server, "alice", -60), server.token("alice"));
    let (ticket, used) = (server.ticket("alice"), server.ticket("alice"));
    Sse::open(server.place(), Ask::get(&format!("/v1/stream?ticket={used}"))).expect("hello");
    let entry = server.notify("alice", "t");
    revoke(&server, "alice");
    for run in ["this one", "the next"] {
        for token in [&before, &dateless] {
            let cookie = || format!("tidings_session={token}");
            let same_origin = |ask: Ask| ask.header("cookie", cookie()).header("sec-fetch-site", "same-origin");
            let mark = json!({ "as": "read", "upto": entry["cursor"] });
            let publish = json!({ "to": "user:bob", "title": "t" });
            for ask in [
                Ask::get("/v1/inbox").bearer(token),
                Ask::get("/v1/inbox").header("cookie", cookie()),
                Ask::post("/v1/session").bearer(token),
                Ask::post("/v1/tickets").bearer(token),
                same_origin(Ask::post("/v1/inbox/mark").json(&mark)),
                Ask::post("/v1/notifications").bearer(token).json(&publish),
                same_origin(Ask::post("/v1/notifications").json(&publish)),
                Ask::get("/v1/poll").bearer(token),
                // An EventSource must not come back, so it sees the status.
                stream("").bearer(token),
                stream("").header("cookie", cookie()),
            ] {
                server.send(&ask).problem(401, "revoked");
            }
            Ws::open(server.place(), &handshake("/v1/ws").bearer(token)).bye("revoked", 4103);
            Ws::open(server.place(), &handshake("/v1/ws").header("cookie", cookie())).bye("revoked", 4103);
            let mut bare = Ws::open(server.place(), &handshake("/v1/ws"));
            let reply = bare.ask(json!({ "op": "auth", "token": token }));
            assert_eq!(reply["problem"]["code"], "revoked", "{reply}");
            bare.closes(4103);
        }
        for ticket in [&ticket, &used] {
            server.send(&stream(&format!("?ticket={ticket}"))).problem(401, "revoked");
            Ws::open(server.place(), &handshake(&format!("/v1/ws?ticket={ticket}"))).bye("revoked", 4103);
        }
        assert_eq!(head_of(&server, &stream("").bearer(&server.token("bob"))).status, 200);
        // Tokens tell whole seconds: one of the same second counts as made before.
        let later = made(&server, "alice", 2);
        server.send(&Ask::get("/v1/inbox").bearer(&later)).expect(200);
        Sse::open(server.place(), Ask::get("/v1/stream").bearer(&later)).expect("hello");
        if run == "this one" {
            server.restart();
        }
    }
}

#[test]
fn a_stream_is_not_prolonged_by_a_token_from_before() {
    let server = Server::start();
    let (before, later) = (made(&server, "alice", -60), made(&server, "alice", 30));
    revoke(&server, "alice");
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&later));
    let stream = socket.expect("hello").data["stream"].as_str().expect("its id").to_owned();
    let reply = socket.ask(json!({ "op": "refresh", "token": before }));
    assert_eq!(reply["problem"]["code"], "revoked", "{reply}");
    let refresh = Ask::post(&format!("/v1/streams/{stream}/refresh"));
    server.send(&refresh.clone().bearer(&before).json(&json!({}))).problem(401, "revoked");
    server.send(&refresh.bearer(&later).json(&json!({}))).expect(200);
    assert_eq!(socket.ask(json!({ "op": "ping" }))["ok"], true);
}

#[test]
fn access_that_is_given_back_is_as_it_was() {
    let mut server = Server::start();
    let (token, ticket) = (server.token("alice"), server.ticket("alice"));
    revoke(&server, "alice");
    restore(&server, "alice");
    for _ in 0..2 {
        server.send(&Ask::get("/v1/inbox").bearer(&token)).expect(200);
        Sse::open(server.place(), Ask::get(&format!("/v1/stream?ticket={ticket}"))).expect("hello");
        server.restart();
    }
    restore(&server, "nobody-was-revoked");
}

#[test]
fn the_command_line_takes_access_back_and_gives_it_back() {
    let server = Server::start();
    let token = made(&server, "alice", -60);
    let mut open = Sse::open(server.place(), Ask::get("/v1/stream").bearer(&token));
    open.expect("hello");
    let tidings =
        |more: &[&str]| run(&[&["revoke", "--user", "alice", "--data", arg(server.data())], more].concat(), "");
    let said = tidings(&[]).well();
    assert!(said.out.contains("alice") && said.out.contains("1 stream"), "{said:?}");
    open.bye("revoked");
    server.send(&Ask::get("/v1/inbox").bearer(&token)).problem(401, "revoked");
    assert_eq!(tidings(&["--lift", "--json"]).well().json(), json!({ "user": "alice", "revoked": false, "ended": 0 }));
    server.send(&Ask::get("/v1/inbox").bearer(&token)).expect(200);
    // Without a server on the directory it is the same.
    let dir = server.stop();
    run(&["revoke", "--user", "alice", "--data", arg(dir.path())], "").well();
    let server = crate::support::server::Setup::serve().on(dir).start();
    server.send(&Ask::get("/v1/inbox").bearer(&token)).problem(401, "revoked");
}

#[test]
fn a_body_that_was_under_way_does_nothing_after_it() {
    let server = Server::start();
    let key = server.key(&["admin"]);
    let alice = made(&server, "alice", -60);
    let late = [
        Ask::post("/v1/keys").bearer(&key).json(&json!({ "name": "late", "scopes": ["admin"] })),
        Ask::post("/v1/tickets").bearer(&alice).json(&json!({ "user": "alice" })),
        Ask::post("/v1/notifications").bearer(&alice).json(&json!({ "to": "user:bob", "title": "late" })),
    ];
    let held = late.map(|ask| {
        let bytes = ask.header("expect", "100-continue").to_bytes();
        let (begun, last) = bytes.split_at(bytes.len() - 1);
        let mut connection = Connection::open(server.place()).expect("it listens");
        connection.send(begun).expect("the server reads");
        // It says so when the caller was let in.
        assert_eq!(connection.head().expect("it answers").status, 100);
        (connection, last.to_vec())
    });
    let id = key.split('_').nth(1).expect("a key has an id");
    server.operate(Ask::delete(&format!("/v1/keys/{id}"))).expect(204);
    revoke(&server, "alice");
    for (mut connection, last) in held {
        connection.send(&last).expect("the server reads");
        connection.answer().expect("it answers").problem(401, "revoked");
    }
    assert_eq!(server.inbox("bob")["counts"]["unread"], 0);
}

#[test]
fn who_was_erased_does_not_come_back_by_an_old_token() {
    let mut server = Server::start();
    let before = made(&server, "alice", -60);
    server.notify("alice", "t");
    server.send(&Ask::get("/v1/inbox").bearer(&before)).expect(200);
    server.operate(Ask::delete("/v1/users/alice")).expect(200);
    for _ in 0..2 {
        assert_eq!(figure(&server, "tidings_revocations"), Some(1));
        server.send(&Ask::get("/v1/inbox").bearer(&before)).problem(401, "revoked");
        server.restart();
    }
    server.operate(Ask::get("/v1/users/alice/export")).problem(404, "not-found");
}

#[test]
fn disconnecting_a_user_ends_streams_that_may_come_back() {
    let server = Server::start();
    let mut sse = server.stream("alice", "?cursor=now");
    sse.expect("hello");
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&server.token("alice")));
    socket.expect("hello");
    let online = server.operate(Ask::get("/v1/online")).expect(200).json();
    assert_eq!(online, json!({ "users": [{ "user": "alice", "streams": 2 }], "online": 1, "next": null }));
    let key = server.key(&["users"]);
    let told = server.send(&Ask::delete("/v1/users/alice/streams").bearer(&key)).expect(200).json();
    assert_eq!(told, json!({ "ended": 2 }));
    sse.bye("rotate");
    socket.bye("rotate", 4001);
    server.operate(Ask::delete("/v1/users/nobody/streams")).problem(404, "not-found");
    wait_for("nobody to be online", || {
        let online = server.operate(Ask::get("/v1/online")).expect(200).json();
        (online == json!({ "users": [], "online": 0, "next": null })).then_some(())
    });
    let mut back = server.stream("alice", "?cursor=now");
    back.expect("hello");
    let said = run(&["user", "online", "--data", arg(server.data())], "").well();
    assert!(said.out.contains("alice  1 stream"), "{said:?}");
    run(&["user", "disconnect", "alice", "--data", arg(server.data())], "").well();
    back.bye("rotate");
}

#[test]
fn who_is_online_is_told_by_pages() {
    let server = Server::start();
    let users: Vec<String> = (0..25).map(|i| format!("user{i:02}")).collect();
    let mut streams: Vec<Sse> = users.iter().map(|user| server.stream(user, "?cursor=now")).collect();
    streams.iter_mut().for_each(|stream| drop(stream.expect("hello")));
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.operate(Ask::get(&format!("/v1/online?limit=10&after={after}"))).expect(200).json();
        assert_eq!(page["online"], 25);
        let names = page["users"].as_array().expect("a list").iter().map(|user| user["user"].clone());
        seen.extend(names.map(|name| name.as_str().expect("a name").to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(seen, users);
}

/// How often a revocation races with streams that are just being opened.
const RACES: usize = 200;

#[test]
fn a_stream_that_is_opened_meanwhile_does_not_survive() {
    let server = Server::start();
    let known = server.token("known");
    server.notify("known", "t");
    for round in 0..RACES {
        // One that has appeared before, and one that appears with this very stream.
        let fresh = format!("fresh{round}");
        let (user, token) =
            if round % 2 == 0 { ("known", known.clone()) } else { (fresh.as_str(), server.token(&fresh)) };
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                sse_ends(&server, &token);
            });
            scope.spawn(|| {
                start.wait();
                // Refused or ended, it is told in the same way.
                Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&token)).bye("revoked", 4103);
            });
            scope.spawn(|| {
                start.wait();
                let answer = Poll::new(server.place(), "?cursor=now", &token).ask(60).expect("the server answers");
                match answer.status() {
                    200 => assert_eq!(answer.json()["events"][0]["data"]["reason"], "revoked", "{}", answer.text()),
                    _ => drop(answer.problem(401, "revoked")),
                }
            });
            start.wait();
            revoke(&server, user);
        });
        if user == "known" {
            restore(&server, user);
        }
    }
}

/// A stream must be refused as revoked, or end so.
fn sse_ends(server: &Server, token: &str) {
    let mut connection = Connection::open(server.place()).expect("the server accepts");
    let ask = stream("?cursor=now").bearer(token).header("connection", "close");
    connection.send(&ask.to_bytes()).expect("the server reads");
    let head = connection.head().expect("the server answers");
    if head.status == 401 {
        return;
    }
    assert_eq!(head.status, 200, "{head:?}");
    let (mut last, started) = (Vec::new(), Instant::now());
    while let Some(chunk) = connection.chunk().expect("the stream ends by itself") {
        assert!(started.elapsed() < DEADLINE, "the stream has survived");
        last = chunk;
    }
    let last = String::from_utf8(last).expect("UTF-8");
    assert!(last.contains("event: bye") && last.contains("\"reason\":\"revoked\""), "{last}");
}
