//! `GET /v1/ws` against those who open it by halves, send what they may not, do not answer, or do not read. Each is told
//! why in a form that its library shows, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask, Connection, Socket, check_problem};
use crate::support::poll::figure;
use crate::support::server::{Server, Setup};
use crate::support::ws::{BINARY, CLOSE, CONTINUATION, Frame, Frames, PING, PONG, TEXT, Ws, handshake};
use crate::support::{DEADLINE, token, wait_for};

/// Bytes of a message at most.
const LIMIT: usize = 64 * 1024;

fn open(server: &Server, user: &str, query: &str) -> Ws {
    Ws::open(server.place(), &handshake(&format!("/v1/ws{query}")).bearer(&server.token(user)))
}

/// A WebSocket that has said `hello` and nothing else.
fn live(server: &Server, user: &str) -> Ws {
    let mut ws = open(server, user, "?cursor=now");
    ws.expect("hello");
    ws
}

/// Asserts that a connection which was opened before still gets what comes.
fn goes_on(server: &Server, user: &str, ws: &mut Ws, after: &str) {
    server.notify(user, after);
    assert_eq!(ws.until("notification").title(), after);
}

/// Asserts that a reply refuses what it answers.
fn refused(reply: &Value, status: u16, code: &str) {
    assert_eq!(reply["ok"], false, "{reply}");
    check_problem(&reply["problem"], status, code);
}

#[test]
fn messages_that_are_no_operation_are_refused_by_name_and_the_stream_goes_on() {
    let server = Server::start();
    let mut ws = live(&server, "alice");
    let nested = |levels: usize| format!(r#"{{"op":"ping","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let long = "x".repeat(10_000);
    let cases = [
        ("", 400, "bad-json"),
        ("ping", 400, "bad-json"),
        ("null", 400, "bad-json"),
        ("[1]", 400, "bad-json"),
        ("{} {}", 400, "bad-json"),
        (r#"{"op":"ping""#, 400, "bad-json"),
        (&nested(33), 400, "bad-json"),
        (&nested(30_000), 400, "bad-json"),
        (&"[".repeat(60_000), 400, "bad-json"),
        (r#"{"op":"fly"}"#, 422, "bad-operation"),
        (r#"{"op":""}"#, 422, "bad-operation"),
        (r#"{"op":"PING"}"#, 422, "bad-operation"),
        (r#"{"op":"send","topic":"ops"}"#, 422, "bad-operation"),
        (r#"{"op":"a\u0000\n\u202e"}"#, 422, "bad-operation"),
        (&format!(r#"{{"op":"{long}"}}"#), 422, "bad-operation"),
        ("{}", 422, "invalid"),
        (r#"{"op":null}"#, 422, "invalid"),
        (r#"{"op":7}"#, 422, "invalid"),
        (r#"{"op":["ping"]}"#, 422, "invalid"),
        (r#"{"op":"\ud800"}"#, 422, "invalid"),
        (r#"{"op":"ping","op":"ping"}"#, 422, "invalid"),
        (r#"{"op":"ping","extra":1}"#, 422, "invalid"),
        (r#"{"op":"ping","ref":{}}"#, 422, "invalid"),
        (r#"{"op":"ping","ref":true}"#, 422, "invalid"),
        (&format!(r#"{{"op":"ping","ref":"{long}"}}"#), 422, "invalid"),
        (r#"{"op":"refresh"}"#, 422, "invalid"),
        (r#"{"op":"refresh","token":7}"#, 422, "invalid"),
        (r#"{"op":"follow"}"#, 422, "invalid"),
        (r#"{"op":"follow","topic":"a b"}"#, 422, "invalid"),
        (r#"{"op":"follow","topic":"ops","last":101}"#, 422, "invalid"),
        (r#"{"op":"follow","topic":"nothing"}"#, 404, "not-found"),
        (r#"{"op":"unfollow","topic":"everyone"}"#, 422, "topic-reserved"),
        (r#"{"op":"mute","topic":["ops"]}"#, 422, "invalid"),
        (r#"{"op":"mute","topic":"ops","user":"bob"}"#, 422, "invalid"),
        (r#"{"op":"unmute","topic":"everyone"}"#, 422, "topic-reserved"),
        (r#"{"op":"mark"}"#, 422, "invalid"),
        (r#"{"op":"mark","as":"eaten","ids":[]}"#, 422, "invalid"),
        (r#"{"op":"mark","as":"read","ids":["nothing"]}"#, 422, "invalid"),
        (r#"{"op":"mark","as":"read","ids":"all"}"#, 422, "invalid"),
        (r#"{"op":"mark","as":"read","upto":"zzzzz.1"}"#, 422, "unknown-epoch"),
    ];
    for (message, status, code) in cases {
        ws.frames.send(&Frame::new(TEXT, message));
        let reply = ws.message().expect("a reply");
        assert_eq!(reply.get("reply"), Some(&Value::Null), "{message:.60}: {reply}");
        refused(&reply, status, code);
        assert!(reply.to_string().len() < 4_096, "an answer stays small: {reply}");
    }
    // A name is kept as it was sent, also where the rest was refused.
    ws.say(&json!({ "op": "fly", "ref": 1.5 }));
    refused(&ws.reply(&json!(1.5)), 422, "bad-operation");
    assert_eq!(ws.ask(json!({ "op": "ping" })), json!({ "reply": "ask-\"ping\"", "ok": true }));
    goes_on(&server, "alice", &mut ws, "after all of it");
}

#[test]
fn before_the_credential_nothing_is_done_and_nothing_is_told() {
    let server = Server::start();
    let made = server.notify("alice", "secret");
    let token = server.token("alice");
    let mut ws = Ws::open(server.place(), &handshake("/v1/ws"));
    for (message, status, code) in [
        (json!({ "op": "ping" }), 401, "unauthenticated"),
        (json!({ "op": "mark", "as": "read", "ids": [made["id"]] }), 401, "unauthenticated"),
        (json!({ "op": "refresh", "token": token }), 401, "unauthenticated"),
        (json!({ "op": "follow", "topic": "ops" }), 401, "unauthenticated"),
        (json!({ "op": "mute", "topic": "ops" }), 401, "unauthenticated"),
        (json!({ "op": "auth" }), 422, "invalid"),
        (json!({ "op": "auth", "token": 7 }), 422, "invalid"),
        (json!({ "op": "fly" }), 422, "bad-operation"),
        (json!("auth"), 400, "bad-json"),
    ] {
        ws.say(&message);
        refused(&ws.message().expect("a reply"), status, code);
    }
    ws.say(&json!({ "op": "auth", "ref": 1, "token": token }));
    assert_eq!(ws.message(), Some(json!({ "reply": 1, "ok": true, "user": "alice" })));
    assert_eq!(ws.expect("hello").data["counts"]["unread"], 1, "the mark was not done");
    assert_eq!(ws.until("notification").title(), "secret");
    ws.say(&json!({ "op": "auth", "ref": 2, "token": server.token("bob") }));
    refused(&ws.reply(&json!(2)), 422, "bad-operation");
    server.notify("bob", "not for alice");
    goes_on(&server, "alice", &mut ws, "still hers");
}

#[test]
fn a_bad_token_in_a_frame_is_told_why_and_closed_for_good() {
    let (server, other) = (Server::start(), Server::start());
    let past = server.token_for(&json!({ "sub": "alice", "exp": token::now() - 1 }));
    for (token, code) in [
        (past, "expired"),
        ("nonsense".to_owned(), "bad-credential"),
        (String::new(), "bad-credential"),
        (other.token("alice"), "bad-credential"),
        (server.token_for(&json!({ "sub": "alice" })), "bad-credential"),
        (server.key(&["admin"]), "bad-credential"),
        (server.operator(), "bad-credential"),
        (server.ticket("alice"), "bad-credential"),
        ("x".repeat(60_000), "bad-credential"),
    ] {
        let mut ws = Ws::open(server.place(), &handshake("/v1/ws"));
        ws.say(&json!({ "op": "auth", "ref": 1, "token": token }));
        refused(&ws.message().expect("a reply"), 401, code);
        ws.closes(4101);
    }
}

#[test]
fn who_was_not_let_in_learns_it_by_a_status_or_by_bye_as_it_helps() {
    let server = Server::start();
    let exp = token::now() + 1;
    let (spent, past) = (
        server.token_for(&json!({ "sub": "alice", "exp": exp })),
        server.token_for(&json!({ "sub": "alice", "exp": exp - 2 })),
    );
    let ticket = server.send(&Ask::post("/v1/tickets").bearer(&spent)).expect(201).json()["ticket"].clone();
    let ticket = ticket.as_str().expect("a ticket");
    Ws::open(server.place(), &handshake("/v1/ws").bearer(&past)).bye("expired", 4101);
    Ws::open(server.place(), &handshake("/v1/ws").header("cookie", format!("tidings_session={past}")))
        .bye("expired", 4101);
    wait_for("the token's end", || (token::now() > exp).then_some(()));
    Ws::open(server.place(), &handshake(&format!("/v1/ws?ticket={ticket}"))).bye("expired", 4101);

    let refuse = |ask: Ask, status, code| server.send(&ask).problem(status, code);
    refuse(handshake("/v1/ws").bearer(&server.key(&["admin"])), 403, "forbidden");
    refuse(handshake("/v1/ws").bearer(&server.operator()), 403, "forbidden");
    refuse(handshake("/v1/ws").bearer("nonsense"), 401, "bad-credential");
    refuse(handshake("/v1/ws").header("authorization", "Digest x"), 401, "bad-credential");
    refuse(handshake(&format!("/v1/ws?ticket={ticket}x")), 401, "bad-credential");
    refuse(handshake("/v1/ws?snapshot=-1"), 400, "bad-query");
    refuse(handshake("/v1/ws?events=everything").bearer(&server.token("alice")), 400, "bad-query");
}

#[test]
fn pages_of_other_origins_open_no_socket() {
    let server = Setup::serve().env("TIDINGS_HTTP_ORIGINS", "https://library.example").start();
    let ask = |origin: &str| {
        handshake("/v1/ws").bearer(&server.token("alice")).header("host", "bell.example:81").header("origin", origin)
    };
    for foreign in [
        "https://evil.example",
        "null",
        "",
        "https://library.example.evil.example",
        "http://library.example",
        "https://library.example:444",
        "http://bell.example",
        "https://library.example, https://evil.example",
    ] {
        server.send(&ask(foreign)).problem(403, "cross-site");
    }
    for known in ["https://library.example", "http://bell.example:81", "https://bell.example:81"] {
        Ws::open(server.place(), &ask(known)).expect("hello");
    }
}

/// What a request for a WebSocket must bear.
const NEEDED: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn half_an_upgrade_is_told_what_it_lacks() {
    let server = Server::start();
    let token = server.token("alice");
    let ask = |method: &str, headers: &[(&str, &str)]| {
        headers.iter().fold(Ask::new(method, "/v1/ws").bearer(&token), |ask, (name, value)| ask.header(name, value))
    };
    let answer = |ask: &Ask| {
        let mut connection = Connection::open(server.place()).expect("the server accepts");
        connection.send(&ask.to_bytes()).expect("the server reads");
        connection.answer().expect("the server answers")
    };
    let is_426 = |answer: &Answer| {
        answer.problem(426, "upgrade-required");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
    };
    for missing in NEEDED {
        let rest: Vec<_> = NEEDED.into_iter().filter(|header| *header != missing).collect();
        let answer = answer(&ask("GET", &rest));
        if missing.0 == "sec-websocket-key" {
            answer.problem(400, "bad-handshake");
        } else {
            is_426(&answer);
        }
    }
    is_426(&answer(&ask("GET", &[])));
    for (name, value, status) in [
        ("upgrade", "h2c", 426),
        ("connection", "close", 426),
        ("sec-websocket-version", "12", 426),
        ("sec-websocket-version", "13, 8", 426),
        ("sec-websocket-key", "c2hvcnQ=", 400),
        ("sec-websocket-key", "", 400),
    ] {
        let headers: Vec<_> = NEEDED.into_iter().filter(|known| known.0 != name).chain([(name, value)]).collect();
        assert_eq!(answer(&ask("GET", &headers)).status(), status, "{name}: {value}");
    }
    answer(&ask("GET", &[&NEEDED[..], &NEEDED[3..]].concat())).problem(400, "bad-handshake");
    answer(&ask("GET", &[&NEEDED[..], &[("content-length", "3")]].concat())).problem(400, "bad-handshake");
    for method in ["POST", "PUT", "HEAD", "DELETE"] {
        let mut connection = Connection::open(server.place()).expect("the server accepts");
        connection.send(&ask(method, &NEEDED).to_bytes()).expect("the server reads");
        let refused = connection.head().expect("the server answers");
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, OPTIONS")), "{method}");
    }
    let old = ask("GET", &NEEDED).to_bytes();
    let old = String::from_utf8(old).expect("a head is text").replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut connection = Connection::open(server.place()).expect("the server accepts");
    connection.send(old.as_bytes()).expect("the server reads");
    is_426(&connection.answer().expect("the server answers"));
}

#[test]
fn variants_of_the_handshake_that_the_standard_allows_are_taken() {
    let server = Server::start();
    let ask = || Ask::get("/v1/ws?cursor=now").bearer(&server.token("alice"));
    let with = |headers: [(&str, &str); 3]| {
        headers.iter().fold(ask(), |ask, (name, value)| ask.header(name, value)).header(NEEDED[3].0, NEEDED[3].1)
    };
    let version = ("Sec-WebSocket-Version", "13");
    for ask in [
        with([("CONNECTION", "keep-alive, Upgrade"), ("UPGRADE", "WebSocket"), version]),
        with([("connection", "upgrade"), ("upgrade", "WEBSOCKET"), version]),
        with([("connection", "Upgrade ,keep-alive"), ("upgrade", "h2c, websocket"), version]),
    ] {
        let mut ws = Ws::open(server.place(), &ask);
        assert_eq!(ws.frames.head.header("sec-websocket-protocol"), None);
        ws.expect("hello");
    }
    for (offered, taken) in [
        (&["tidings.v1"][..], Some("tidings.v1")),
        (&["chat, tidings.v1"], Some("tidings.v1")),
        (&["chat", "tidings.v1"], Some("tidings.v1")),
        (&["tidings.v2"], None),
    ] {
        let ask = handshake("/v1/ws?cursor=now").bearer(&server.token("alice"));
        let ask = offered.iter().fold(ask, |ask, name| ask.header("sec-websocket-protocol", name));
        let mut ws = Ws::open(server.place(), &ask);
        assert_eq!(ws.frames.head.header("sec-websocket-protocol"), taken, "{offered:?}");
        ws.expect("hello");
    }
    // Compression is offered by every browser and taken by nobody here: opening it asserts that none was agreed on.
    let offer = handshake("/v1/ws?cursor=now").bearer(&server.token("alice"));
    let offer = offer.header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    let mut plain = Ws::open(server.place(), &offer.header("accept-encoding", "gzip"));
    assert_eq!(plain.frames.head.header("content-encoding"), None);
    plain.expect("hello");
    goes_on(&server, "alice", &mut plain, &"compressible ".repeat(15));
}

#[test]
fn what_follows_an_upgrade_is_frames_and_what_precedes_it_is_http() {
    let server = Server::start();
    let upgrade = handshake("/v1/ws?cursor=now").bearer(&server.token("alice"));
    for behind in [&upgrade, &Ask::get("/healthz")] {
        let mut frames = Frames::open_with(server.place(), &upgrade, &behind.to_bytes());
        assert_eq!(frames.closed().code(), Some(1002), "a second request is no frame");
    }
    let mut connection = Connection::open(server.place()).expect("the server accepts");
    let both = [Ask::get("/healthz").to_bytes(), upgrade.to_bytes()].concat();
    connection.send(&both).expect("the server reads");
    assert_eq!(connection.answer().expect("an answer").status(), 200);
    assert_eq!(connection.head().expect("an answer").status, 101);
    assert_eq!(connection.exactly(1).expect("a frame"), [0x80 | TEXT]);
    let auth = json!({ "op": "auth", "ref": 1, "token": server.token("alice") }).to_string();
    let mut early = Frames::open_with(server.place(), &handshake("/v1/ws"), &Frame::new(TEXT, auth).masked());
    let reply = early.next().expect("a reply");
    assert_eq!(serde_json::from_slice::<Value>(&reply.payload).expect("JSON")["user"], "alice");
}

#[test]
fn an_upgrade_that_breaks_off_leaves_nothing_behind() {
    let server = Setup::serve().env("TIDINGS_HTTP_HEADER_TIMEOUT", "1s").start();
    let whole = handshake("/v1/ws").bearer(&server.token("alice")).to_bytes();
    let sockets = || figure(&server, "tidings_sockets").expect("it is always there");
    let mut waits = Connection::open(server.place()).expect("the server accepts");
    waits.send(&whole[..whole.len() - 2]).expect("the server reads");
    waits.answer().expect("the server says why").problem(408, "timeout");
    for at in [1, 20, whole.len() / 2, whole.len() - 1] {
        let mut leaves = Connection::open(server.place()).expect("the server accepts");
        leaves.send(&whole[..at]).expect("the server reads");
        leaves.socket().shutdown();
    }
    for _ in 0..20 {
        Frames::open(server.place(), &handshake("/v1/ws").bearer(&server.token("alice"))).shutdown();
    }
    drop(waits);
    // The one that asks.
    wait_for("every socket's end", || (sockets() == 1).then_some(()));
    let gauge = "tidings_connections{transport=\"ws\"}";
    wait_for("every subscriber's end", || (figure(&server, gauge) == Some(0)).then_some(()));
}

#[test]
fn a_mark_reaches_the_own_entries_only_and_a_ticket_marks_nothing() {
    let server = Server::start();
    let (own, bobs) = (server.notify("alice", "own")["id"].clone(), server.notify("bob", "bob's")["id"].clone());
    let absent = "0190b9f0-7b1a-7000-8000-000000000001";
    let mark = |ids: &[&Value]| json!({ "op": "mark", "as": "read", "ids": ids });
    let mut reads = Ws::open(server.place(), &handshake(&format!("/v1/ws?ticket={}", server.ticket("alice"))));
    refused(&reads.ask(mark(&[&own])), 403, "forbidden");
    let upto = server.inbox("alice")["cursor"].clone();
    refused(&reads.ask(json!({ "op": "mark", "as": "seen", "upto": upto })), 403, "forbidden");
    assert_eq!(reads.ask(json!({ "op": "ping" }))["ok"], true);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);

    let mut ws = live(&server, "alice");
    for ids in [vec![&bobs], vec![&json!(absent)]] {
        let over_http = server.mark("alice", &json!({ "as": "read", "ids": ids }));
        let mut reply = ws.ask(mark(&ids));
        assert_eq!(reply["changed"], 0, "{reply}");
        for field in ["reply", "ok"] {
            reply.as_object_mut().expect("an object").remove(field);
        }
        assert_eq!(reply, over_http, "a frame answers as the request does");
    }
    assert_eq!(server.inbox("bob")["counts"]["unread"], 1);
    let reply = ws.ask(mark(&[&own, &bobs]));
    assert_eq!((&reply["ok"], &reply["changed"], &reply["counts"]["unread"]), (&json!(true), &json!(1), &json!(0)));
    assert_eq!(json!(ws.until("state").id), reply["cursor"]);
    assert_eq!(server.inbox("bob")["counts"]["unread"], 1);
}

#[test]
fn a_refresh_takes_a_token_of_the_same_user_and_sight_and_no_other() {
    let server = Server::start();
    let exp = token::now() + 4;
    let claims = |sub: &str, exp: i64| json!({ "sub": sub, "exp": exp });
    let short = server.token_for(&claims("alice", exp));
    let mut ws = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&short));
    let stream = ws.expect("hello").data["stream"].clone();
    let refresh = |token: String| json!({ "op": "refresh", "token": token });
    let narrow = json!({ "sub": "alice", "exp": exp + 60, "topics": ["ops/*"] });
    for (token, status, code) in [
        (server.token("bob"), 404, "not-found"),
        (server.token("nobody-yet"), 404, "not-found"),
        (server.token_for(&narrow), 403, "forbidden"),
        (server.token_for(&claims("alice", exp - 10)), 401, "expired"),
        ("nonsense".to_owned(), 401, "bad-credential"),
        (server.ticket("alice"), 401, "bad-credential"),
    ] {
        refused(&ws.ask(refresh(token)), status, code);
    }
    let over_http = |stream: &str| server.send(&Ask::post(&format!("/v1/streams/{stream}/refresh")).bearer(&short));
    over_http("nothing").problem(404, "not-found");
    over_http(stream.as_str().expect("an id")).expect(200);
    let reply = ws.ask(refresh(server.token_for(&claims("alice", exp + 3_600))));
    let until: jiff::Timestamp = reply["expires"].as_str().expect("an end").parse().expect("RFC 3339");
    assert_eq!((reply["ok"].clone(), until.as_second()), (json!(true), exp + 3_600));
    wait_for("the first token's end", || (token::now() > exp + 1).then_some(()));
    assert_eq!(ws.ask(json!({ "op": "ping" }))["ok"], true);
    goes_on(&server, "alice", &mut ws, "past the first token");
}

#[test]
fn a_message_is_text_of_64_kib_at_most() {
    let server = Server::start();
    let padded = |bytes: usize| {
        let ping = json!({ "op": "ping", "ref": "long" }).to_string();
        ping.clone() + &" ".repeat(bytes - ping.len())
    };
    let mut ws = live(&server, "alice");
    ws.frames.send(&Frame::new(TEXT, padded(LIMIT)));
    assert_eq!(ws.reply(&json!("long"))["ok"], true);
    ws.frames.send(&Frame::new(TEXT, padded(LIMIT + 1)));
    ws.closes(1009);
    for payload in [&b"{\"op\":\"ping\"}"[..], b""] {
        let mut ws = live(&server, "alice");
        ws.frames.send(&Frame::new(BINARY, payload));
        ws.closes(1003);
    }
}

#[test]
fn a_client_that_floods_is_sent_away_for_a_while_and_nobody_else() {
    let server = Server::start();
    let mut witness = live(&server, "bob");
    let operation = Frame::new(TEXT, json!({ "op": "ping", "ref": 1 }).to_string()).masked();
    for (flood, answer) in [(operation, TEXT), (Frame::new(PING, "p").masked(), PONG)] {
        let mut ws = live(&server, "alice").frames;
        // 200 at once, and no more than fit into the time this takes at 50 a second.
        let _ = ws.try_send(&flood.repeat(2_000));
        let deadline = Instant::now() + DEADLINE;
        let mut said: Vec<Frame> = std::iter::from_fn(|| ws.read().filter(|_| Instant::now() < deadline)).collect();
        assert!(ws.ends());
        assert_eq!(said.pop().expect("a close").code(), Some(4029));
        // The pong to the last ping may still come between.
        let bye = said.iter().rposition(|frame| frame.opcode == TEXT).expect("a bye");
        let bye = said.remove(bye);
        let bye: Value = serde_json::from_slice(&bye.payload).expect("an event");
        assert_eq!((&bye["event"], &bye["data"]["reason"]), (&json!("bye"), &json!("overloaded")));
        assert_eq!(bye["data"]["reconnect"], true);
        assert!((200..1_000).contains(&said.len()), "{} answers", said.len());
        assert!(said.iter().all(|frame| frame.opcode == answer), "{:?}", said.last());
    }
    assert_eq!(figure(&server, "tidings_byes_total{reason=\"overloaded\"}"), Some(2));
    goes_on(&server, "bob", &mut witness, "after the floods");
    // It may come back at once; that is for its library to pace.
    live(&server, "alice");
}

#[test]
fn pings_come_with_the_heartbeat_and_a_visible_one_where_it_was_asked_for() {
    let server = Setup::serve().env("TIDINGS_STREAMS_HEARTBEAT", "1s").start();
    let asked = Instant::now();
    let mut visible = open(&server, "alice", "?cursor=now&heartbeat=event");
    assert_eq!(visible.expect("hello").data["heartbeat"], 1);
    let mut plain = live(&server, "alice");
    for _ in 0..2 {
        assert_eq!(visible.expect("heartbeat").data, json!({}));
        let ping = plain.frames.read().expect("a ping");
        assert_eq!(ping.opcode, PING, "nothing but pings in silence: {ping:?}");
        plain.frames.send(&Frame::new(PONG, &ping.payload));
    }
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    goes_on(&server, "alice", &mut plain, "after the pings");
}

/// Bytes that the server holds in memory.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Takes about half a minute, which is what a client may take to read a byte.
#[test]
fn who_never_reads_and_who_never_answers_is_cut_and_nobody_waits_for_it() {
    let server = Setup::serve().env("TIDINGS_STREAMS_HEARTBEAT", "1s").start();
    // One over server-sent events, which needs no answers.
    let mut witness = server.stream("alice", "?cursor=now&events=notification");
    witness.expect("hello");
    let mut is_well = |when: &str| {
        server.notify("alice", when);
        assert_eq!(witness.until("notification").title(), when);
    };
    let fields: serde_json::Map<_, _> = (0..3_000).map(|i| (format!("field{i}"), json!(0))).collect();
    let question = Frame::new(TEXT, Value::Object(fields).to_string()).masked();
    assert!(question.len() < LIMIT);

    // The unix socket's buffers are small.
    let mut deaf = Connection::open(&server.unix()).expect("the server accepts");
    deaf.send(&handshake("/v1/ws?cursor=now").bearer(&server.token("alice")).to_bytes()).expect("the server reads");
    assert_eq!(deaf.head().expect("an answer").status, 101);
    let Socket::Unix(socket) = deaf.socket() else { unreachable!("it is one") };
    socket.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let before = resident(&server);
    let asked = (0..199).take_while(|_| deaf.send(&question).is_ok()).count();
    assert!(asked < 199, "the server reads on though nobody reads its answers");
    is_well("while one does not read");
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes for {asked} questions");

    let mut mute = Frames::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&server.token("bob")));
    let (mut pings, opened) = (0, Instant::now());
    let close = loop {
        assert!(opened.elapsed() < DEADLINE, "it is kept though it answers nothing");
        match mute.read().expect("a close comes before the end") {
            frame if frame.opcode == CLOSE => break frame,
            frame => pings += usize::from(frame.opcode == PING),
        }
    };
    assert_eq!((close.code(), pings), (Some(4008), 1), "one ping, and no answer to it");
    assert!(opened.elapsed() >= Duration::from_secs(10), "{:?}", opened.elapsed());
    assert!(mute.ends());

    let gauge = "tidings_connections{transport=\"ws\"}";
    wait_for("the end of the one who does not read", || (figure(&server, gauge) == Some(0)).then_some(()));
    assert!(figure(&server, "tidings_byes_total{reason=\"slow\"}") >= Some(1));
    is_well("after both were cut");
}

#[test]
fn the_newest_socket_of_a_ticket_wins() {
    let server = Server::start();
    let ask = handshake(&format!("/v1/ws?cursor=now&ticket={}", server.ticket("alice")));
    let mut older = Ws::open(server.place(), &ask);
    older.expect("hello");
    let mut newer = Ws::open(server.place(), &ask);
    newer.expect("hello");
    older.bye("replaced", 4109);
    goes_on(&server, "alice", &mut newer, "here");
}

#[test]
fn a_drain_sends_everyone_away_to_come_back_also_who_has_not_said_who_it_is() {
    let mut server = Server::start();
    let mut known = live(&server, "alice");
    let mut unknown = Ws::open(server.place(), &handshake("/v1/ws"));
    let ended = std::thread::scope(|scope| {
        let byes = [scope.spawn(|| known.bye("shutdown", 4001)), scope.spawn(|| unknown.bye("shutdown", 4001))];
        let ended = server.terminate();
        for bye in byes {
            let bye = bye.join().expect("it only reads").data;
            assert!((2_000..=6_000).contains(&bye["retry_ms"].as_u64().expect("a pause")), "{bye}");
        }
        ended
    });
    assert_eq!(ended.0.code(), Some(0), "{}", server.log());
    assert!(ended.1 < Duration::from_secs(5), "{ended:?}");
}

#[test]
fn the_cookie_opens_a_socket_that_may_do_all() {
    let server = Server::start();
    let made = server.notify("alice", "t");
    let cookie = format!("tidings_session={}", server.token("alice"));
    let mut ws = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").header("cookie", cookie));
    ws.expect("hello");
    let reply = ws.ask(json!({ "op": "mark", "as": "read", "ids": [made["id"]] }));
    assert_eq!((&reply["ok"], &reply["counts"]["unread"]), (&json!(true), &json!(0)), "{reply}");
}

#[test]
fn a_token_that_is_to_come_counts_and_not_the_cookie_that_browsers_send_along() {
    let server = Server::start();
    let bobs = server.token("bob");
    for cookie in [server.token("alice"), "junk".to_owned(), server.token_for(&json!({ "sub": "alice", "exp": 1 }))] {
        let ask =
            |query: &str| handshake(&format!("/v1/ws{query}")).header("cookie", format!("tidings_session={cookie}"));
        let mut ws = Ws::open(server.place(), &ask("?auth=message"));
        assert_eq!(ws.ask(json!({ "op": "auth", "token": bobs }))["user"], "bob", "{cookie}");
        assert_eq!(ws.expect("hello").data["user"], "bob", "{cookie}");
    }
}

#[test]
fn frames_that_never_become_a_message_are_read_no_faster_than_there_is_reason_to_send() {
    let server = Server::start();
    let mut ws = live(&server, "alice");
    let mut neighbour = live(&server, "bob");
    ws.frames.send(&Frame::new(TEXT, "").unfinished());
    let empty = Frame::new(CONTINUATION, "").unfinished().masked();
    // Half a MiB more than may come at once, at a quarter of a MiB a second.
    let flood = empty.repeat(1024 * 1024 * 3 / 2 / empty.len());
    let began = Instant::now();
    ws.frames.send_raw(&flood);
    ws.frames.send(&Frame::new(PING, "are you there"));
    let answer = ws.frames.next().expect("it is only read later");
    assert_eq!((answer.opcode, answer.payload.as_slice()), (PONG, &b"are you there"[..]));
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    goes_on(&server, "bob", &mut neighbour, "undisturbed");
}

#[test]
fn what_one_follows_and_mutes_is_changed_by_frames_too() {
    let server = Server::start();
    server.operate(Ask::put("/v1/topics/ops").json(&json!({ "follow": "open" }))).expect(201);
    server.operate(Ask::put("/v1/topics/closed")).expect(201);
    for title in ["one", "two"] {
        server.publish(&json!({ "to": "topic:ops", "title": title }));
    }
    let mut ws = live(&server, "alice");
    let mut other = live(&server, "alice");
    let says = |ws: &mut Ws, op: &str, field: &str, value: bool, changed: bool| {
        let reply = ws.ask(json!({ "op": op, "topic": "ops" }));
        let name = format!("ask-\"{op}\"");
        assert_eq!(reply, json!({ "reply": name, "ok": true, "topic": "ops", field: value, "changed": changed }));
    };
    let begun = ws.ask(json!({ "op": "follow", "topic": "ops", "last": 1 }));
    assert_eq!((&begun["ok"], &begun["following"], &begun["changed"]), (&json!(true), &json!(true), &json!(true)));
    // Every device learns the counts, and what comes from then on.
    for device in [&mut ws, &mut other] {
        assert_eq!(device.expect("unread").data["unread"], 1);
    }
    says(&mut ws, "follow", "following", true, false);
    server.publish(&json!({ "to": "topic:ops", "title": "three" }));
    for device in [&mut ws, &mut other] {
        assert_eq!(device.until("notification").title(), "three");
        assert_eq!(device.until("unread").data["unread"], 2);
    }
    says(&mut ws, "mute", "muted", true, true);
    says(&mut other, "mute", "muted", true, false);
    for device in [&mut ws, &mut other] {
        assert_eq!(device.until("unread").data["unread"], 0);
    }
    says(&mut ws, "unmute", "muted", false, true);
    says(&mut ws, "unfollow", "following", false, true);
    says(&mut ws, "unfollow", "following", false, false);
    refused(&ws.ask(json!({ "op": "follow", "topic": "closed" })), 403, "topic-managed");
    let narrow = server.token_for(&json!({ "sub": "bob", "exp": token::now() + 60, "topics": ["else"] }));
    let mut bob = Ws::open(server.place(), &handshake("/v1/ws?cursor=now").bearer(&narrow));
    bob.expect("hello");
    refused(&bob.ask(json!({ "op": "follow", "topic": "ops" })), 404, "not-found");
    goes_on(&server, "alice", &mut ws, "still there");
}

#[test]
fn a_ticket_neither_follows_nor_mutes() {
    let server = Server::start();
    server.operate(Ask::put("/v1/topics/ops").json(&json!({ "follow": "open" }))).expect(201);
    server.follow("ops", "alice");
    let ticket = server.ticket("alice");
    let mut ws = Ws::open(server.place(), &handshake(&format!("/v1/ws?cursor=now&ticket={ticket}")));
    ws.expect("hello");
    for op in ["follow", "unfollow", "mute", "unmute"] {
        refused(&ws.ask(json!({ "op": op, "topic": "ops" })), 403, "forbidden");
    }
    server.publish(&json!({ "to": "topic:ops", "title": "still followed" }));
    assert_eq!(ws.until("notification").title(), "still followed");
    assert_eq!(ws.until("unread").data["unread"], 1, "and not muted");
}
