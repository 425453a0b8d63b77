//! Limits: the newest is refused, in the form that its client understands; whoever was there before goes on.

use std::net::{IpAddr, UdpSocket};

use serde_json::{Value, json};

use crate::support::http::{Ask, Connection, Place};
use crate::support::poll::{Poll, figure};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::ws::{Ws, handshake};
use crate::support::{token, wait_for};

/// What one is allowed at once of what is limited to one a second.
const BURST: usize = 10;

fn limited(server: &Server, limit: &str) -> u64 {
    figure(server, &format!("tidings_limited_total{{limit=\"{limit}\"}}")).unwrap_or_default()
}

fn stream_of(token: &str) -> Ask {
    Ask::get("/v1/stream?cursor=now").bearer(token)
}

/// An EventSource that is let in.
fn let_in(place: &Place, ask: Ask) -> Sse {
    let mut stream = Sse::open(place, ask);
    stream.expect("hello");
    stream
}

#[test]
fn the_ninth_stream_is_refused_softly_and_the_eight_before_go_on() {
    let server = Setup::serve().env("TIDINGS_LIMITS_STREAMS_PER_USER", "8").start();
    let token = server.token("alice");
    let open = || let_in(server.place(), stream_of(&token));
    let mut streams: Vec<Sse> = (0..8).map(|_| open()).collect();
    // A browser's EventSource stops for ever at an error status.
    let bye = Sse::open(server.place(), stream_of(&token)).bye("overloaded");
    assert_eq!(bye.data["reconnect"], true);
    let refused = server.send(&stream_of(&token).header("accept", "*/*"));
    let problem = refused.problem(429, "too-many");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("streams_per_user")), "{problem}");
    assert_eq!(refused.header("retry-after"), Some("5"));
    let poll = server.send(&Ask::get("/v1/poll?cursor=now&wait=60").bearer(&token));
    poll.problem(429, "too-many");
    assert_eq!(poll.header("retry-after"), Some("5"));
    Ws::open(server.place(), &handshake("/v1/ws").bearer(&token)).bye("overloaded", 4029);
    let mut late = Ws::open(server.place(), &handshake("/v1/ws"));
    assert_eq!(late.ask(json!({ "op": "auth", "token": token }))["ok"], true);
    late.bye("overloaded", 4029);
    assert_eq!(limited(&server, "streams_per_user"), 5);
    assert_eq!(figure(&server, "tidings_byes_total{reason=\"overloaded\"}"), Some(3));
    // What holds no stream is not meant, nor is anybody else.
    server.send(&Ask::get("/v1/poll?wait=0").bearer(&token)).expect(200);
    let mut other = let_in(server.place(), stream_of(&server.token("bob")));
    server.notify("alice", "to all eight");
    for stream in &mut streams {
        assert_eq!(stream.until("notification").title(), "to all eight");
    }
    server.notify("bob", "to bob");
    assert_eq!(other.until("notification").title(), "to bob");
    drop(streams.pop());
    streams.push(wait_for("room for one more", || {
        let mut stream = Sse::open(server.place(), stream_of(&token));
        (stream.next().kind == "hello").then_some(stream)
    }));
    Sse::open(server.place(), stream_of(&token)).bye("overloaded");
}

#[test]
fn streams_count_alike_on_every_transport() {
    let server = Setup::serve().env("TIDINGS_LIMITS_STREAMS_PER_USER", "3").start();
    let token = server.token("alice");
    let sse = let_in(server.place(), stream_of(&token));
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&token));
    socket.expect("hello");
    // From a position of its own: it is counted before it attaches, so what comes in between must not be missed.
    let begun = Poll::new(server.place(), "?cursor=now", &token).ask(0).expect("it answers").expect(200).json();
    let from = format!("?cursor={}", begun["cursor"].as_str().expect("a cursor"));
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| Poll::new(server.place(), &from, &token).ask(60).expect("it answers"));
        let parked = "tidings_connections{transport=\"poll\"}";
        wait_for("the poll to wait", || figure(&server, parked).filter(|parked| *parked == 1));
        Sse::open(server.place(), stream_of(&token)).bye("overloaded");
        // A poll gives its place back with its answer.
        server.notify("alice", "t");
        assert_eq!(poll.join().expect("it only waits").expect(200).json()["events"][0]["event"], "notification");
    });
    let third = wait_for("the poll's place", || {
        let mut stream = Sse::open(server.place(), stream_of(&token));
        (stream.next().kind == "hello").then_some(stream)
    });
    Ws::open(server.place(), &handshake("/v1/ws").bearer(&token)).bye("overloaded", 4029);
    drop((sse, third));
    socket.until("notification");
}

#[test]
fn an_address_is_what_a_trusted_proxy_says() {
    let setup = Setup::serve().env("TIDINGS_LIMITS_STREAMS_PER_ADDRESS", "2");
    let server = setup.env("TIDINGS_HTTP_TRUSTED_PROXIES", "unix, 127.0.0.1").start();
    let mut users = 0;
    let mut ask = |forwarded: &str| {
        users += 1;
        stream_of(&server.token(&format!("user{users}"))).header("x-forwarded-for", forwarded)
    };
    for (place, mine, same, other) in [
        (server.unix(), "198.51.100.7", "203.0.113.1, 198.51.100.7", "198.51.100.8"),
        (server.place().clone(), "192.0.2.9", "::ffff:192.0.2.9", "192.0.2.10"),
        // One household, as networks give it out.
        (server.unix(), "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::1", "2001:db8:1:3::1"),
    ] {
        let mut held = vec![let_in(&place, ask(mine)), let_in(&place, ask(same))];
        Sse::open(&place, ask(mine)).bye("overloaded");
        Sse::open(&place, ask(same)).bye("overloaded");
        // What the client made up stands before what the proxy has seen.
        Sse::open(&place, ask(&format!("{other}, {mine}"))).bye("overloaded");
        held.push(let_in(&place, ask(other)));
        // Nobody can say where these come from: they are one address together, or rubbish would be a way round.
        let unknown = ["unknown", "_hidden"].map(|rubbish| let_in(&place, ask(rubbish)));
        Sse::open(&place, ask("nobody")).bye("overloaded");
        drop(unknown);
        drop(held.remove(0));
        wait_for("room for one more", || {
            let mut stream = Sse::open(&place, ask(mine));
            (stream.next().kind == "hello").then_some(())
        });
    }
    assert!(limited(&server, "streams_per_address") >= 9);
}

#[test]
fn an_address_that_a_stranger_makes_up_counts_for_nothing() {
    let setup = Setup::serve().env("TIDINGS_LIMITS_STREAMS_PER_ADDRESS", "2");
    let server = setup.env("TIDINGS_HTTP_TRUSTED_PROXIES", "unix").everywhere().start();
    let mut users = 0;
    let mut ask = |forwarded: &str| {
        users += 1;
        stream_of(&server.token(&format!("user{users}"))).header("x-forwarded-for", forwarded)
    };
    // Nobody's places are used up by who takes their name in vain.
    let forged: Vec<Sse> = (0..4).map(|_| let_in(server.place(), ask("198.51.100.7"))).collect();
    let real = [(); 2].map(|()| let_in(&server.unix(), ask("198.51.100.7")));
    Sse::open(&server.unix(), ask("198.51.100.7")).bye("overloaded");
    drop((forged, real));
    let Some(place) = beyond_loopback(&server) else { return };
    // And nobody has more places than their own address has.
    let _held = ["203.0.113.1", "203.0.113.2"].map(|forged| let_in(&place, ask(forged)));
    Sse::open(&place, ask("203.0.113.3")).bye("overloaded");
    place_of(&ask("203.0.113.4").header("accept", "*/*"), &place);
}

/// 429, as everybody but an EventSource is told.
fn place_of(ask: &Ask, place: &Place) {
    let refused = ask.send(place);
    refused.problem(429, "too-many");
}

/// The server at an address of this machine that is not loopback; `None` where there is none, which is told.
fn beyond_loopback(server: &Server) -> Option<Place> {
    // Nothing is sent: the kernel only says by which of its addresses it would be.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    let address = socket.connect("203.0.113.1:9").and_then(|()| socket.local_addr()).ok().map(|own| own.ip());
    let address = address.filter(|address| !address.is_loopback() && *address != IpAddr::from([0, 0, 0, 0]));
    if address.is_none() {
        println!("this machine has no address but loopback: limits by the peer's own address were not tried");
    }
    let port = server.url().rsplit(':').next()?.parse::<u16>().ok()?;
    Some(Place::Tcp((address?, port).into()))
}

#[test]
fn who_connects_too_often_is_not_even_read_from_and_loopback_is_free() {
    let server = Setup::serve().env("TIDINGS_LIMITS_CONNECTS_PER_ADDRESS", "1").everywhere().start();
    let healthy = |place: &Place| Ask::get("/healthz").attempt(place).is_ok_and(|answer| answer.status() == 200);
    for place in [server.place().clone(), server.unix()] {
        assert!((0..4 * BURST).all(|_| healthy(&place)), "who may speak for everybody is not limited");
    }
    let Some(place) = beyond_loopback(&server) else { return };
    let taken = (0..4 * BURST).filter(|_| healthy(&place)).count();
    assert!((BURST..4 * BURST).contains(&taken), "{taken}");
    assert_eq!(limited(&server, "connects_per_address"), (4 * BURST - taken) as u64);
    let mut closed = Connection::open(&place).expect("the kernel accepts");
    assert!(closed.is_closed(), "beyond its limit a connection is closed without a word");
    wait_for("the next second", || healthy(&place).then_some(()));
}

fn publish(server: &Server, credential: &str) -> crate::support::http::Answer {
    let body = json!({ "to": "user:bob", "title": "t" });
    server.send(&Ask::post("/v1/notifications").bearer(credential).json(&body))
}

#[test]
fn publishes_are_limited_by_key_and_by_user() {
    let setup = Setup::serve().env("TIDINGS_LIMITS_PUBLISHES_PER_KEY", "1");
    let server = setup.env("TIDINGS_LIMITS_PUBLISHES_PER_USER", "1").start();
    let user = |name: &str| server.token_for(&json!({ "sub": name, "exp": token::now() + 600, "scope": "publish" }));
    let mut taken_in_all = 0;
    for (busy, quiet, limit) in [
        (server.key(&["publish"]), server.key(&["publish"]), "publishes_per_key"),
        (user("alice"), user("carol"), "publishes_per_user"),
    ] {
        let answers: Vec<_> = (0..3 * BURST).map(|_| publish(&server, &busy)).collect();
        let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 201);
        assert!(taken.len() >= BURST && !refused.is_empty(), "{} of {}", taken.len(), 3 * BURST);
        for answer in &refused {
            let problem = answer.problem(429, "too-many");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(limit)), "{problem}");
            let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u32>().ok());
            assert!(wait.is_some_and(|wait| (1..=BURST as u32).contains(&wait)), "{wait:?}");
        }
        assert_eq!(limited(&server, limit), refused.len() as u64);
        publish(&server, &quiet).expect(201);
        publish(&server, &server.operator()).expect(201);
        taken_in_all += taken.len() + 2;
    }
    // What was refused has left no trace.
    assert_eq!(server.inbox("bob")["counts"]["unread"], taken_in_all);
}

#[test]
fn lines_of_a_batch_fail_alone() {
    let server = Setup::serve().env("TIDINGS_LIMITS_PUBLISHES_PER_KEY", "1").start();
    let key = server.key(&["publish"]);
    let line = |i: usize| json!({ "to": "user:bob", "title": "t", "idempotency_key": i.to_string() });
    let mut lines: Vec<Value> = (0..3 * BURST).map(line).collect();
    let send = |lines: &[Value]| {
        let answers = server.send(&Ask::post("/v1/notifications").bearer(&key).ndjson(lines)).expect(200).lines();
        assert_eq!(answers.len(), lines.len());
        answers
    };
    let answers = send(&lines);
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|line| line["id"].is_string());
    assert!(taken.len() >= BURST && !refused.is_empty(), "{answers:?}");
    for line in &refused {
        assert!(line["status"] == 429 && line.to_string().contains("too-many"), "{line}");
    }
    assert_eq!(server.inbox("bob")["counts"]["unread"], taken.len());
    // Plain publishes draw on the same.
    let plain = Ask::post("/v1/publish/ops").bearer(&key).body("text/plain", "t");
    wait_for("the limit", || (server.send(&plain).status() == 429).then_some(()));
    // Whoever sends again what was refused gets all of it in, once each.
    let mut left = answers;
    wait_for("all of the batch to be in", || {
        let mut answer = left.iter();
        lines.retain(|_| answer.next().is_some_and(|line| !line["id"].is_string()));
        left = send(&lines);
        lines.is_empty().then_some(())
    });
    assert_eq!(server.inbox("bob")["counts"]["unread"], 3 * BURST);
}

#[test]
fn marks_are_limited_by_user_on_http_and_websocket_together() {
    let server = Setup::serve().env("TIDINGS_LIMITS_MARKS_PER_USER", "1").start();
    let token = server.token("alice");
    let cursor = server.notify("alice", "t")["cursor"].clone();
    let mark = json!({ "as": "read", "upto": cursor });
    let ask = || server.send(&Ask::post("/v1/inbox/mark").bearer(&token).json(&mark));
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&token));
    socket.expect("hello");
    for _ in 0..BURST / 2 {
        ask().expect(200);
        assert_eq!(socket.ask(json!({ "op": "mark", "as": "read", "upto": cursor }))["ok"], true);
    }
    let refused = wait_for("the limit over HTTP", || Some(ask()).filter(|answer| answer.status() != 200));
    refused.problem(429, "too-many");
    assert!(refused.header("retry-after").is_some());
    let reply = wait_for("the limit over a WebSocket", || {
        Some(socket.ask(json!({ "op": "mark", "as": "read", "upto": cursor }))).filter(|reply| reply["ok"] == false)
    });
    assert_eq!([&reply["problem"]["code"], &reply["problem"]["status"]], [&json!("too-many"), &json!(429)], "{reply}");
    assert!(limited(&server, "marks_per_user") >= 2);
    // The socket is not ended for it, and nobody else is held back.
    assert_eq!(socket.ask(json!({ "op": "ping" }))["ok"], true);
    server.notify("bob", "t");
    let bob = json!({ "as": "read", "upto": server.notify("bob", "t")["cursor"] });
    server.mark("bob", &bob);
    wait_for("the next second", || (ask().status() == 200).then_some(()));
}
