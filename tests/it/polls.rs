//! `GET /v1/poll`: what it refuses, how its pages hold together, who wins where two wait as one client, and that nothing
//! is left of a poll that nobody waits for. And gzip, which it is the largest user of.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::{Ask, Connection};
use crate::support::poll::{Poll, figure};
use crate::support::server::{Server, Setup};
use crate::support::sse::Event;
use crate::support::ws::{TEXT, Ws, handshake};
use crate::support::{token, wait_for};

/// Polls that are parked, as the server counts them.
const PARKED: &str = "tidings_connections{transport=\"poll\"}";

fn parked(server: &Server, count: u64) {
    wait_for(&format!("{count} parked polls"), || (figure(server, PARKED) == Some(count)).then_some(()));
}

fn ask(server: &Server, user: &str, query: &str) -> Ask {
    Ask::get(&format!("/v1/poll?{query}")).bearer(&server.token(user))
}

/// Polls that went on from their cursor, as the server counts them: one that is counted holds its place.
const BEGUN: &str = "tidings_recoveries_total{recovery=\"recovered\"}";

/// Sends polls, and waits until each holds its place.
fn settle<const N: usize>(server: &Server, polls: [(&str, &str); N]) -> [Connection; N] {
    let begun = || figure(server, BEGUN).unwrap_or_default();
    let all = begun() + N as u64;
    let waiting = polls.map(|(user, query)| park(server, user, query));
    wait_for("polls that hold their places", || (begun() == all).then_some(()));
    waiting
}

/// Sends a poll and does not wait for its answer.
fn park(server: &Server, user: &str, query: &str) -> Connection {
    let mut connection = Connection::open(server.place()).expect("the server accepts");
    connection.send(&ask(server, user, query).to_bytes()).expect("the server reads");
    connection
}

fn answer(connection: &mut Connection) -> Value {
    connection.answer().expect("the server answers").expect(200).json()
}

/// Answers at once, with what there is.
fn at_once(server: &Server, user: &str, query: &str) -> Value {
    server.send(&ask(server, user, &format!("wait=0&{query}"))).expect(200).json()
}

fn head(server: &Server, user: &str) -> String {
    at_once(server, user, "cursor=now")["cursor"].as_str().expect("a cursor").to_owned()
}

fn titles(answer: &Value) -> Vec<&str> {
    let events = answer["events"].as_array().expect("events").iter();
    events
        .filter(|event| event["event"] == "notification")
        .filter_map(|event| event["data"]["title"].as_str())
        .collect()
}

/// The one event of an answer.
fn only<'a>(answer: &'a Value, kind: &str) -> &'a Value {
    let events = answer["events"].as_array().expect("events");
    assert!(events.len() == 1 && events[0]["event"] == kind, "{answer}");
    &events[0]["data"]
}

#[test]
fn parameters_out_of_bounds_are_refused_by_name_and_cursors_never() {
    let server = Server::start();
    server.notify("alice", "t");
    let long = format!("client={}", "x".repeat(65));
    let patterns = format!("topics={}", vec!["a"; 33].join(","));
    for query in [
        "wait=1e9",
        "wait=1000000000",
        "wait=-1",
        "wait=61",
        "wait=0x10",
        "wait=2.5",
        "wait=99999999999999999999999",
        "wait=%ff",
        "limit=-1",
        "limit=0",
        "limit=501",
        "limit=1e2",
        "limit=all",
        "client=a%20b",
        "client=a%0Ab",
        "client=%C3%A9",
        "client=%00",
        &long,
        "snapshot=101",
        "snapshot=-1",
        "events=everything",
        "category=a+b",
        "topics=a,,b",
        &patterns,
        "heartbeat=loud",
    ] {
        let problem = server.send(&ask(&server, "alice", &format!("{query}&cursor=now"))).problem(400, "bad-query");
        let name = query.split('=').next().expect("a name");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(name)), "{query}: {problem}");
    }
    for cursor in ["%ff", "nonsense", "k.", ".1", "-1", "k7x2m.99999999999999999999999", &"9".repeat(5_000)] {
        let answer = at_once(&server, "alice", &format!("cursor={cursor}"));
        assert_eq!((&answer["recovered"], &answer["reason"]), (&json!(false), &json!("malformed")), "{cursor:.50}");
        assert_eq!(titles(&answer), ["t"], "{cursor:.50}");
    }
    let edge = format!("wait=60&limit=500&client={}", "x".repeat(64));
    assert_eq!(titles(&answer(&mut park(&server, "alice", &edge))), ["t"]);
}

#[test]
fn who_may_not_poll_is_told_by_a_problem() {
    let server = Setup::serve().env("TIDINGS_STREAMS_MAX", "1").start();
    let refuse = |ask: Ask, status, code| server.send(&ask).problem(status, code);
    let past = server.token_for(&json!({ "sub": "alice", "exp": token::now() - 1 }));
    refuse(Ask::get("/v1/poll"), 401, "unauthenticated");
    refuse(Ask::get("/v1/poll").bearer(&past), 401, "expired");
    refuse(Ask::get("/v1/poll").bearer("nonsense"), 401, "bad-credential");
    refuse(Ask::get("/v1/poll?ticket=tt_0_0"), 401, "bad-credential");
    refuse(Ask::get("/v1/poll").bearer(&server.operator()), 403, "forbidden");
    let _waits = settle(&server, [("alice", "cursor=now")]);
    let full = server.send(&ask(&server, "bob", "cursor=now"));
    full.problem(503, "overloaded");
    assert!(full.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|it| it > 0)));
}

#[test]
fn other_methods_are_refused_on_what_is_only_read() {
    let server = Server::start();
    let token = server.token("alice");
    for path in ["/v1/poll", "/v1/ws", "/v1/stream"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "HEAD"] {
            let mut connection = Connection::open(server.place()).expect("the server accepts");
            connection.send(&Ask::new(method, path).bearer(&token).to_bytes()).expect("the server reads");
            let refused = connection.head().expect("the server answers");
            assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, OPTIONS")), "{method} {path}");
        }
    }
}

#[test]
fn a_client_whose_timer_runs_wild_is_held_back_and_nobody_else() {
    let server = Server::start();
    let mut wild = Poll::new(server.place(), "client=hidden-tab", &server.token("alice"));
    let refused = (0..2_000).find_map(|_| {
        let answer = wild.ask(0).expect("the server answers");
        (answer.status() != 200).then_some(answer)
    });
    let refused = refused.expect("nobody may poll for ever without a pause");
    refused.problem(429, "too-many");
    let pause = refused.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok()).expect("seconds");
    assert!((1..60).contains(&pause), "{pause}");
    for (user, query) in [("alice", "client=other-tab"), ("alice", ""), ("bob", "client=hidden-tab")] {
        at_once(&server, user, query);
    }
    wait_for("the client to be let in again", || {
        (wild.ask(0).expect("the server answers").status() == 200).then_some(())
    });
    parked(&server, 0);
}

#[test]
fn a_storm_of_polls_that_wait_leaves_the_newest_alone() {
    let server = Setup::serve().env("TIDINGS_LIMITS_STREAMS_PER_USER", "0").start();
    let [mut others] = settle(&server, [("bob", "cursor=now&client=tab")]);
    let mut storm: Vec<Connection> = (0..150).map(|_| park(&server, "alice", "cursor=now&client=tab")).collect();
    // Which one is the newest is for the server to say: requests overtake each other.
    let byes = "tidings_byes_total{reason=\"replaced\"}";
    wait_for("every older one's end", || (figure(&server, byes) == Some(149)).then_some(()));
    parked(&server, 2);
    server.notify("alice", "here");
    let answers: Vec<Value> = storm.iter_mut().map(answer).collect();
    let (got, replaced): (Vec<&Value>, Vec<&Value>) = answers.iter().partition(|answer| titles(answer) == ["here"]);
    assert_eq!((got.len(), replaced.len()), (1, 149));
    for answer in replaced {
        assert_eq!(only(answer, "bye")["reason"], "replaced");
    }
    parked(&server, 1);
    server.notify("bob", "for bob");
    assert_eq!(titles(&answer(&mut others)), ["for bob"]);
    parked(&server, 0);
}

#[test]
fn the_newest_poll_of_a_client_wins_and_other_clients_wait_on() {
    let server = Server::start();
    let [mut older] = settle(&server, [("alice", "cursor=now&client=tab-1")]);
    let mut waiting = settle(
        &server,
        [
            ("bob", "cursor=now&client=tab-1"),
            ("alice", "cursor=now&client=tab-2"),
            ("alice", "cursor=now&client=TAB-1"),
            ("alice", "cursor=now"),
        ],
    );
    let [mut newer] = settle(&server, [("alice", "cursor=now&client=tab-1")]);
    let bye = answer(&mut older);
    let data = only(&bye, "bye");
    assert_eq!((&data["reason"], &data["reconnect"]), (&json!("replaced"), &json!(false)), "{bye}");
    assert_eq!(bye["cursor"], json!(head(&server, "alice")), "also the last answer says where it stood");
    parked(&server, 5);
    server.publish(&json!({ "to": { "users": ["alice", "bob"] }, "title": "to all of them" }));
    for connection in waiting.iter_mut().chain([&mut newer]) {
        assert_eq!(titles(&answer(connection)), ["to all of them"]);
    }
    parked(&server, 0);
    // Its place is free again: the next one ends nobody and waits as ever.
    let [mut next] = settle(&server, [("alice", "cursor=now&client=tab-1")]);
    server.notify("alice", "next");
    assert_eq!(titles(&answer(&mut next)), ["next"]);
}

#[test]
fn a_client_that_hangs_up_takes_its_poll_with_it() {
    let server = Server::start();
    let before = figure(&server, "tidings_sockets");
    for place in [server.place().clone(), server.unix()] {
        let parking = |_| {
            let mut connection = Connection::open(&place).expect("the server accepts");
            connection.send(&ask(&server, "alice", "cursor=now&wait=60").to_bytes()).expect("the server reads");
            connection
        };
        let connections: Vec<Connection> = (0..50).map(parking).collect();
        parked(&server, 50);
        let hung_up = Instant::now();
        drop(connections);
        parked(&server, 0);
        assert!(hung_up.elapsed() < Duration::from_secs(20), "not only when the wait is over");
        wait_for("the sockets' end", || (figure(&server, "tidings_sockets") == before).then_some(()));
    }
}

fn publish_many(server: &Server, user: &str, count: usize, body: &str) {
    let lines: Vec<Value> =
        (0..count).map(|i| json!({ "to": { "user": user }, "title": format!("n{i}"), "body": body })).collect();
    server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200);
}

/// Reads page by page until there is no more; each page with the bytes of its answer.
fn pages(server: &Server, user: &str, query: &str, from: &str) -> Vec<(Value, usize)> {
    let (mut pages, mut cursor): (Vec<(Value, usize)>, _) = (Vec::new(), from.to_owned());
    loop {
        let answer = server.send(&ask(server, user, &format!("{query}&cursor={cursor}"))).expect(200);
        let page = answer.json();
        assert_eq!(page["recovered"], true, "{}", page["reason"]);
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        let is_last = page["more"] == false;
        pages.push((page, answer.body.len()));
        if is_last {
            return pages;
        }
    }
}

fn all_titles(pages: &[(Value, usize)]) -> Vec<&str> {
    pages.iter().flat_map(|(page, _)| titles(page)).collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("n{i}")).collect()
}

#[test]
fn pages_of_any_limit_hold_everything_once_and_in_order() {
    let server = Server::start();
    let from = head(&server, "alice");
    publish_many(&server, "alice", 250, "");
    // With the default wait: what is there is not waited for.
    for (query, limit) in [("", 100), ("limit=1", 1), ("limit=40", 40), ("limit=250", 250), ("limit=500", 500)] {
        let pages = pages(&server, "alice", query, &from);
        assert_eq!(all_titles(&pages), numbered(250), "{query}");
        assert!(pages.len() <= 250_usize.div_ceil(limit) + 1, "{query}: {} pages", pages.len());
        for (page, _) in &pages {
            let events = page["events"].as_array().expect("events");
            let durable: Vec<&Value> = events.iter().filter(|event| event["id"].is_string()).collect();
            assert!(durable.len() <= limit, "{query}");
            if page["more"] == true {
                assert_eq!(durable.last().expect("a page that is not the last holds something")["id"], page["cursor"]);
            }
            assert_eq!(page["counts"]["unread"], 250, "counts are as of now on every page");
        }
    }
}

#[test]
fn a_page_is_bounded_in_bytes_too() {
    const BODY: usize = 20_000;
    let server = Server::start();
    let from = head(&server, "alice");
    publish_many(&server, "alice", 60, &"ä".repeat(BODY / 2));
    let pages = pages(&server, "alice", "limit=500", &from);
    assert_eq!(all_titles(&pages), numbered(60));
    for (page, bytes) in &pages {
        // One event may go over it, and the rest of the answer is small.
        assert!(*bytes <= 256 * 1024 + BODY + 4_096, "{bytes}");
        assert!(page["more"] == false || *bytes > 200 * 1024, "{bytes}: pages are filled");
    }
}

#[test]
fn a_plain_catch_up_answers_at_once_with_nothing_and_the_cursor() {
    let server = Server::start();
    server.notify("alice", "t");
    let from = head(&server, "alice");
    let asked = Instant::now();
    let answer = server.send(&ask(&server, "alice", &format!("wait=0&cursor={from}"))).expect(200);
    assert!(asked.elapsed() < Duration::from_secs(10), "the default wait is longer: {:?}", asked.elapsed());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = answer.json();
    assert_eq!((&answer["events"], &answer["more"], &answer["cursor"]), (&json!([]), &json!(false), &json!(from)));
    assert_eq!((&answer["recovered"], answer.get("reason")), (&json!(true), None));
    assert_eq!((&answer["user"], &answer["counts"]["unread"]), (&json!("alice"), &json!(1)));
    // A wait that ends without news is the same, a little later.
    let waited = server.send(&ask(&server, "alice", &format!("wait=1&cursor={from}"))).expect(200).json();
    assert_eq!((&waited["events"], &waited["cursor"]), (&json!([]), &json!(from)));
    assert!(asked.elapsed() >= Duration::from_secs(1));
}

#[test]
fn the_cursor_moves_over_what_is_not_for_this_client() {
    let server = Server::start();
    let from = head(&server, "alice");
    publish_many(&server, "bob", 300, "");
    let moved = at_once(&server, "alice", &format!("cursor={from}"));
    assert_eq!((&moved["events"], &moved["more"]), (&json!([]), &json!(false)));
    assert_eq!(moved["cursor"], json!(head(&server, "bob")), "nobody looks at these again");
    let published =
        |category: &str| server.publish(&json!({ "to": "user:alice", "title": category, "category": category }));
    let (loan, news) = (published("loans"), published("news"));
    let filtered = at_once(&server, "alice", &format!("cursor={from}&category=loans&limit=1"));
    assert_eq!(titles(&filtered), ["loans"]);
    assert_eq!((&filtered["cursor"], &filtered["more"]), (&news["cursor"], &json!(false)), "behind {}", loan["cursor"]);
}

#[test]
fn a_filtered_poll_wakes_for_the_counts_and_for_what_it_asked_for() {
    let server = Server::start();
    let from = head(&server, "alice");
    let publish =
        |category: &str| server.publish(&json!({ "to": "user:alice", "title": category, "category": category }));
    let (all, some) =
        (format!("cursor={from}&category=loans"), format!("cursor={from}&category=loans&events=notification"));
    let [mut counting, mut choosy] = settle(&server, [("alice", &all), ("alice", &some)]);
    let news = publish("news");
    let woken = answer(&mut counting);
    let unread = only(&woken, "unread");
    assert_eq!((&unread["unread"], &unread["as_of"]), (&json!(1), &news["cursor"]));
    assert_eq!((&woken["counts"]["unread"], &woken["cursor"]), (&json!(1), &news["cursor"]));
    parked(&server, 1);
    let loan = publish("loans");
    let chosen = answer(&mut choosy);
    assert_eq!(only(&chosen, "notification")["title"], "loans");
    assert_eq!((&chosen["cursor"], &chosen["counts"]["unread"]), (&loan["cursor"], &json!(2)));
}

#[test]
fn a_burst_comes_in_one_answer_and_what_comes_between_two_polls_is_not_lost() {
    let server = Server::start();
    let mut cursor = head(&server, "alice");
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_many(&server, "alice", 400, ""));
        while got.len() < 400 {
            let page = answer(&mut park(&server, "alice", &format!("cursor={cursor}&limit=30")));
            cursor = page["cursor"].as_str().expect("a cursor").to_owned();
            got.extend(titles(&page).into_iter().map(str::to_owned));
        }
        publisher.join().expect("it only publishes");
    });
    assert_eq!(got, numbered(400));
}

#[test]
fn the_first_of_a_burst_waits_a_little_for_the_others() {
    let server = Server::start();
    for _ in 0..10 {
        let [mut waits] = settle(&server, [("alice", "cursor=now&wait=60")]);
        let published = Instant::now();
        server.notify("alice", "t");
        assert_eq!(titles(&answer(&mut waits)), ["t"]);
        let took = published.elapsed();
        assert!(took >= Duration::from_millis(20), "{took:?}: who comes 20 ms later would wait for the next poll");
    }
}

#[test]
fn a_parked_poll_is_answered_when_the_server_drains() {
    let mut server = Server::start();
    let [mut waits] = settle(&server, [("alice", "cursor=now&wait=60")]);
    let (status, took) = server.terminate();
    assert_eq!((status.code(), took < Duration::from_secs(5)), (Some(0), true), "{took:?}");
    let bye = answer(&mut waits);
    let data = only(&bye, "bye");
    assert_eq!((&data["reason"], &data["reconnect"]), (&json!("shutdown"), &json!(true)));
    assert!((2_000..=6_000).contains(&data["retry_ms"].as_u64().expect("a pause")), "{bye}");
}

#[test]
fn whole_answers_are_compressed_where_it_pays_and_streams_never() {
    let server = Server::start();
    publish_many(&server, "alice", 30, &"All work and no play. ".repeat(20));
    let token = server.token("alice");
    let get = |path: &str, accepted: &str| {
        server.send(&Ask::get(path).bearer(&token).header("accept-encoding", accepted)).expect(200)
    };
    for path in ["/v1/poll?wait=0&cursor=start", "/v1/poll", "/v1/inbox?limit=100", "/static/tidings.css"] {
        let plain = server.send(&Ask::get(path).bearer(&token)).expect(200);
        assert_eq!(plain.header("content-encoding"), None, "{path}: nobody asked");
        for refused in ["", "identity", "br", "gzip;q=0"] {
            assert_eq!(get(path, refused).header("content-encoding"), None, "{path} for {refused:?}");
        }
        let packed = get(path, "br, gzip");
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
        assert!(packed.header("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("accept-encoding")));
        assert!(packed.body.len() * 2 < plain.body.len(), "{path}: {} of {}", packed.body.len(), plain.body.len());
        assert_eq!(packed.body[..3], [0x1f, 0x8b, 8], "{path}: RFC 1952");
        let length = packed.body.last_chunk().map(|length| u32::from_le_bytes(*length));
        assert_eq!(length, Some(plain.body.len() as u32), "{path}: the length that gzip names at its end");
    }
    for small in ["/v1/inbox/counts", "/v1/poll?wait=0&cursor=now"] {
        assert_eq!(get(small, "gzip").header("content-encoding"), None, "{small}");
    }
    let stream = Ask::get("/v1/stream").bearer(&token).header("accept-encoding", "gzip").glance(server.place());
    assert_eq!((stream.status(), stream.header("content-encoding")), (200, None));
    let ask = handshake("/v1/ws").bearer(&token).header("accept-encoding", "gzip");
    let mut ws = Ws::open(server.place(), &ask);
    assert_eq!(ws.frames.head.header("content-encoding"), None);
    assert_eq!(ws.frames.next().map(|frame| frame.opcode), Some(TEXT));
    let entries: Vec<Event> = (0..15).map(|_| ws.until("notification")).collect();
    assert_eq!(entries.last().map(Event::title), Some("n29"));
}
