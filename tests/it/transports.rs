//! One body, three transports: whatever a client may rely on holds on server-sent events, long poll and WebSocket alike,
//! and across them with one cursor.

use serde_json::{Value, json};

use crate::support::http::{Ask, Place};
use crate::support::poll::Poll;
use crate::support::server::Server;
use crate::support::sse::{Event, Sse};
use crate::support::token;
use crate::support::ws::{Ws, handshake};
use crate::support::{Dice, wait_for};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Sse,
    Poll,
    Ws,
}

const ALL: [Transport; 3] = [Transport::Sse, Transport::Poll, Transport::Ws];

/// One subscriber over any of them.
enum Reader {
    Sse(Sse),
    Poll(Poll),
    Ws(Ws),
}

impl Transport {
    /// A user for each, so that what one reads is not what another left.
    const fn user(self) -> &'static str {
        match self {
            Self::Sse => "sally",
            Self::Poll => "paul",
            Self::Ws => "wendy",
        }
    }

    /// Opens a subscriber that gets whatever is published from here on.
    fn at_head(self, server: &Server, user: &str) -> Reader {
        let cursor = server.notify(user, "before")["cursor"].as_str().expect("a cursor").to_owned();
        self.resume(server, user, &cursor)
    }

    /// Opens a subscriber. `query` begins with `?` or is empty.
    fn open(self, place: &Place, query: &str, token: &str) -> Reader {
        match self {
            Self::Sse => Reader::Sse(Sse::open(place, Ask::get(&format!("/v1/stream{query}")).bearer(token))),
            Self::Poll => Reader::Poll(Poll::new(place, query, token)),
            Self::Ws => Reader::Ws(Ws::open(place, &handshake(&format!("/v1/ws{query}")).bearer(token))),
        }
    }

    fn of(self, server: &Server, user: &str, query: &str) -> Reader {
        self.open(server.place(), query, &server.token(user))
    }

    /// Goes on from a cursor.
    fn resume(self, server: &Server, user: &str, cursor: &str) -> Reader {
        self.of(server, user, &format!("?cursor={cursor}"))
    }
}

impl Reader {
    fn next(&mut self) -> Event {
        match self {
            Self::Sse(sse) => sse.next(),
            Self::Poll(poll) => poll.next(),
            Self::Ws(ws) => ws.next().expect("an event comes before the close"),
        }
    }

    fn expect(&mut self, kind: &str) -> Event {
        let event = self.next();
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    fn until(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next();
            if event.kind == kind {
                return event;
            }
        }
    }

    /// The next durable event.
    fn durable(&mut self) -> Event {
        loop {
            let event = self.next();
            if matches!(event.kind.as_str(), "notification" | "state") {
                return event;
            }
        }
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("n{i}")).collect()
}

fn publish_many(server: &Server, user: &str, range: std::ops::Range<usize>) {
    let lines: Vec<Value> =
        numbered(range).iter().map(|title| json!({ "to": { "user": user }, "title": title })).collect();
    server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200);
}

#[test]
fn a_first_visit_gets_the_counts_and_the_newest_entries_oldest_first() {
    let server = Server::start();
    for transport in ALL {
        let user = transport.user();
        publish_many(&server, user, 0..20);
        let mut reader = transport.of(&server, user, "");
        let hello = reader.expect("hello").data;
        assert_eq!([&hello["recovered"], &hello["reason"]], [&json!(false), &json!("none")], "{transport:?}");
        assert_eq!((&hello["user"], &hello["counts"]["unread"]), (&json!(user), &json!(20)), "{transport:?}");
        assert_eq!(reader.expect("unread").data["unread"], 20, "{transport:?}");
        for title in numbered(5..20) {
            let entry = reader.expect("notification");
            assert_eq!((entry.title(), &entry.data["replayed"]), (title.as_str(), &json!(true)), "{transport:?}");
            assert!(entry.data["state"].is_object(), "{transport:?}");
        }
        server.notify(user, "live");
        let live = reader.durable();
        assert_eq!(live.title(), "live", "{transport:?}");
        // What comes between two polls is read from the log.
        assert!(live.data["replayed"] == false || transport == Transport::Poll, "{transport:?}");
        assert_eq!(reader.until("unread").data["unread"], 21, "{transport:?}");
    }
}

#[test]
fn replay_runs_into_live_in_order_without_gap_or_double() {
    let server = Server::start();
    for transport in ALL {
        let user = transport.user();
        let start = server.notify(user, "before")["cursor"].as_str().expect("a cursor").to_owned();
        publish_many(&server, user, 0..300);
        let mut reader = transport.resume(&server, user, &start);
        assert_eq!(reader.expect("hello").data["recovered"], true, "{transport:?}");
        std::thread::scope(|scope| {
            scope.spawn(|| publish_many(&server, user, 300..600));
            let events: Vec<Event> = (0..600).map(|_| reader.durable()).collect();
            assert!(events.is_sorted_by_key(Event::seq), "{transport:?}");
            let titles: Vec<&str> = events.iter().map(Event::title).collect();
            assert_eq!(titles, numbered(0..600), "{transport:?}");
        });
    }
}

#[test]
fn direct_ones_topics_and_everyone_come_in_one_order() {
    let server = Server::start();
    for transport in ALL {
        let user = transport.user();
        server.follow("ops", user);
        let mut reader = transport.at_head(&server, user);
        for to in [json!({ "topic": "ops" }), json!({ "user": user }), json!("everyone"), json!({ "topic": "ops" })] {
            server.publish(&json!({ "to": to, "title": to.to_string() }));
            assert_eq!(reader.durable().title(), to.to_string(), "{transport:?}");
        }
    }
}

#[test]
fn a_mark_comes_as_state_with_the_counts_behind_it() {
    let server = Server::start();
    for transport in ALL {
        let user = transport.user();
        let mut reader = transport.at_head(&server, user);
        let made = server.notify(user, "t");
        assert_eq!(reader.durable().title(), "t");
        let marked = server.mark(user, &json!({ "as": "read", "ids": [made["id"]] }));
        let state = reader.durable();
        assert_eq!(state.data, json!({ "ids": [made["id"]], "state": "read" }), "{transport:?}");
        assert_eq!(json!(state.id), marked["cursor"], "{transport:?}");
        let counts = reader.until("unread").data;
        assert_eq!(counts["unread"], marked["counts"]["unread"], "{transport:?}");
        assert_eq!(counts["as_of"], marked["cursor"], "{transport:?}");
    }
}

#[test]
fn filters_narrow_the_same_way() {
    let server = Server::start();
    for transport in ALL {
        let user = transport.user();
        server.follow("ops/disk", user);
        let start = server.notify(user, "before")["cursor"].as_str().expect("a cursor").to_owned();
        let publish = |to: Value, title: &str, category: &str| {
            server.publish(&json!({ "to": to, "title": title, "category": category }));
        };
        publish(json!({ "user": user }), "loan", "loans");
        publish(json!({ "user": user }), "news", "news");
        server.publish(&json!({ "to": { "topic": "ops/disk" }, "title": "disk" }));
        for (filter, expected) in
            [("category=loans", "loan"), ("topics=ops/*", "disk"), ("events=notification&category=news", "news")]
        {
            let mut reader = transport.of(&server, user, &format!("?{filter}&cursor={start}"));
            assert_eq!(reader.until("notification").title(), expected, "{transport:?} {filter}");
        }
        let mut counts = transport.of(&server, user, "?events=unread&cursor=now");
        // Two, since a long poll that waits learns of the first only when it comes.
        let told = std::thread::scope(|scope| {
            scope.spawn(|| server.notify(user, "one more"));
            counts.until("unread").data["unread"].clone()
        });
        assert_eq!(told, 5, "{transport:?}");
    }
}

#[test]
fn cursors_that_can_not_be_honoured_are_told_by_name_and_followed_by_a_snapshot() {
    let server = Server::start();
    let head = server.notify("alice", "t")["cursor"].as_str().expect("a cursor").to_owned();
    let (epoch, seq) = head.split_once('.').expect("a cursor");
    let ahead = format!("{epoch}.{}", seq.parse::<u64>().expect("a number") + 1);
    for transport in ALL {
        for (cursor, reason) in [
            ("zzzzz.1", "epoch"),
            (ahead.as_str(), "ahead"),
            ("nonsense", "malformed"),
            ("%00", "malformed"),
            ("", "none"),
        ] {
            let mut reader = transport.resume(&server, "alice", cursor);
            let hello = reader.expect("hello").data;
            assert_eq!(
                [&hello["recovered"], &hello["reason"]],
                [&json!(false), &json!(reason)],
                "{transport:?} {cursor}"
            );
            assert_eq!(reader.expect("unread").data["unread"], 1, "{transport:?} {cursor}");
            assert_eq!(reader.expect("notification").title(), "t", "{transport:?} {cursor}");
        }
        let mut whole = transport.resume(&server, "alice", "start");
        assert_eq!(whole.expect("hello").data["recovered"], true, "{transport:?}");
        assert_eq!(whole.durable().title(), "t", "{transport:?}");
    }
}

#[test]
fn a_new_log_is_told_to_those_who_knew_the_old_one() {
    let mut server = Server::start();
    let old = server.notify("alice", "old")["cursor"].as_str().expect("a cursor").to_owned();
    server.kill();
    for name in ["tidings.db", "tidings.db-wal", "tidings.db-shm", "tidings.head"] {
        let _ = std::fs::remove_file(server.data().join(name));
    }
    server.restart();
    server.notify("alice", "new");
    for transport in ALL {
        let mut reader = transport.resume(&server, "alice", &old);
        assert_eq!(reader.expect("hello").data["reason"], "epoch", "{transport:?}");
        assert_eq!(reader.durable().title(), "new", "{transport:?}");
    }
}

#[test]
fn one_who_does_not_read_for_a_while_is_sent_back_to_the_log_and_misses_nothing() {
    let server = Server::start();
    let mut lags = 0;
    for (before, transport) in (0..).zip(ALL) {
        let user = transport.user();
        let mut reader = transport.at_head(&server, user);
        // More than a queue and the kernel's buffers take. A long poll that is parked overruns its queue at one commit.
        let body = "x".repeat(4_000);
        let lines: Vec<Value> = numbered(0..2_500)
            .iter()
            .map(|title| json!({ "to": { "user": user }, "title": title, "body": body }))
            .collect();
        let publish = || server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200);
        let read = |reader: &mut Reader| (0..2_500).map(|_| reader.durable()).collect::<Vec<Event>>();
        let events = if transport == Transport::Poll {
            std::thread::scope(|scope| {
                let reading = scope.spawn(|| read(&mut reader));
                wait_for_recovered(&server, before + 1);
                publish();
                reading.join().expect("it only reads")
            })
        } else {
            publish();
            read(&mut reader)
        };
        let titles: Vec<&str> = events.iter().map(Event::title).collect();
        assert_eq!(titles, numbered(0..2_500), "{transport:?}");
        assert!(events.is_sorted_by_key(Event::seq), "{transport:?}");
        while reader.until("unread").data["unread"] != 2_501 {}
        let lagged = std::mem::replace(&mut lags, metric(&server, "tidings_lags_total"));
        assert!(lags > lagged, "{transport:?} did not lag, so this held nothing");
    }
}

/// A figure of `/metrics`.
fn metric(server: &Server, name: &str) -> u64 {
    let text = server.send(&Ask::get("/metrics")).expect(200).text().to_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    // What never happened has no line yet.
    value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number in {text}")))
}

#[test]
fn a_drain_is_told_and_the_cursor_is_good_after_it() {
    for transport in ALL {
        let mut server = Server::start();
        let mut reader = transport.at_head(&server, "alice");
        let cursor = server.notify("alice", "before")["cursor"].as_str().expect("a cursor").to_owned();
        assert_eq!(reader.durable().title(), "before");
        let bye = std::thread::scope(|scope| {
            let bye = scope.spawn(|| reader.until("bye").data);
            // A poll is answered once and asks again.
            wait_for_recovered(&server, if transport == Transport::Poll { 2 } else { 1 });
            assert_eq!(server.terminate().0.code(), Some(0), "{transport:?}");
            bye.join().expect("it only reads")
        });
        assert_eq!([&bye["reason"], &bye["reconnect"]], [&json!("shutdown"), &json!(true)], "{transport:?}");
        server.restart();
        server.notify("alice", "after");
        let mut again = transport.resume(&server, "alice", &cursor);
        assert_eq!(again.expect("hello").data["recovered"], true, "{transport:?}");
        assert_eq!(again.durable().title(), "after", "{transport:?}");
    }
}

/// Waits until so many subscribers have attached and gone on from their cursor, over any transport.
fn wait_for_recovered(server: &Server, count: u64) {
    let name = "tidings_recoveries_total{recovery=\"recovered\"}";
    wait_for("a subscriber", || (metric(server, name) == count).then_some(()));
}

#[test]
fn the_end_of_a_token_ends_what_it_opened() {
    let server = Server::start();
    let start = server.notify("alice", "before")["cursor"].as_str().expect("a cursor").to_owned();
    for transport in ALL {
        let exp = token::now() + 2;
        let token = server.token_for(&json!({ "sub": "alice", "exp": exp }));
        let mut reader = transport.open(server.place(), &format!("?cursor={start}"), &token);
        let bye = reader.until("bye").data;
        assert_eq!([&bye["reason"], &bye["reconnect"]], [&json!("expired"), &json!(false)], "{transport:?}");
        assert!(token::now() >= exp, "{transport:?}: not before its time");
    }
}

#[test]
fn a_ticket_opens_any_transport_and_its_newest_wins() {
    let server = Server::start();
    server.notify("alice", "t");
    let head = server.inbox("alice")["cursor"].as_str().expect("a cursor").to_owned();
    let pairs = [(Transport::Sse, Transport::Poll), (Transport::Poll, Transport::Ws), (Transport::Ws, Transport::Sse)];
    for (before, (older, newer)) in (0..).zip(pairs) {
        let ticket = server.ticket("alice");
        let open = |transport: Transport, cursor: &str| {
            let query = format!("?ticket={ticket}&cursor={cursor}");
            match transport {
                Transport::Sse => Reader::Sse(Sse::open(server.place(), Ask::get(&format!("/v1/stream{query}")))),
                Transport::Poll => Reader::Poll(Poll::anonymous(server.place(), &query)),
                Transport::Ws => Reader::Ws(Ws::open(server.place(), &handshake(&format!("/v1/ws{query}")))),
            }
        };
        let mut first = open(older, &head);
        std::thread::scope(|scope| {
            let replaced = scope.spawn(|| first.until("bye").data["reason"].clone());
            wait_for_recovered(&server, before + 1);
            let mut second = open(newer, "");
            assert_eq!(second.durable().title(), "t", "{newer:?}");
            assert_eq!(replaced.join().expect("it only reads"), "replaced", "{older:?} by {newer:?}");
        });
    }
}

#[test]
fn a_client_that_changes_its_transport_all_the_time_gets_everything_once() {
    const EVENTS: usize = 3_000;
    let server = Server::start();
    let mut cursor = server.notify("alice", "before")["cursor"].as_str().expect("a cursor").to_owned();
    let seed = u64::from(server.pid());
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for from in (0..EVENTS).step_by(50) {
                publish_many(&server, "alice", from..from + 50);
            }
        });
        let (mut titles, mut changes) = (Vec::new(), 0);
        while titles.len() < EVENTS {
            let transport = ALL[dice.below(3) as usize];
            let mut reader = transport.resume(&server, "alice", &cursor);
            for _ in 0..dice.below(120).min((EVENTS - titles.len()) as u64) {
                let event = reader.durable();
                cursor = event.id.clone().expect("durable events have an id");
                titles.push(event.title().to_owned());
            }
            changes += 1;
        }
        assert_eq!(titles, numbered(0..EVENTS), "after {changes} changes");
        assert!(changes > 20, "{changes}");
    });
}

#[test]
fn a_plain_catch_up_ends_nobody() {
    let server = Server::start();
    server.notify("alice", "t");
    let ticket = server.ticket("alice");
    let ask = Ask::get(&format!("/v1/stream?ticket={ticket}&cursor=now"));
    let mut stream = Sse::open(server.place(), ask);
    stream.expect("hello");
    let glance = server.send(&Ask::get(&format!("/v1/poll?wait=0&client=c&ticket={ticket}"))).expect(200).json();
    assert_eq!(glance["events"][1]["data"]["title"], "t");
    server.notify("alice", "still there");
    assert_eq!(stream.until("notification").title(), "still there");
}
