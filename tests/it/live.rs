//! A stream while it lives: counts, marks on every device, heartbeats, filters, envelopes.

use serde_json::{Value, json};

use crate::support::http::Ask;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;

#[test]
fn counts_follow_every_change_with_the_position_they_are_as_of() {
    let server = Server::start();
    let mut stream = server.stream("alice", "");
    stream.expect("hello");
    assert_eq!(stream.expect("unread").data["unread"], 0);
    for (i, category) in ["loans", "general", "loans"].into_iter().enumerate() {
        let made = server.publish(&json!({ "to": "user:alice", "title": "t", "category": category }));
        assert_eq!(stream.expect("notification").id, made["cursor"].as_str().map(str::to_owned));
        let counts = stream.expect("unread");
        assert_eq!((&counts.data["unread"], &counts.data["as_of"]), (&json!(i + 1), &made["cursor"]));
    }
    let marked = server.mark("alice", &json!({ "as": "seen", "upto": stream.last_id() }));
    let state = stream.expect("state");
    assert_eq!(marked["cursor"], state.id.expect("durable"));
    let counts = stream.expect("unread").data;
    assert_eq!(counts["as_of"], marked["cursor"]);
    let by_category = json!({ "general": { "unread": 1, "unseen": 0 }, "loans": { "unread": 2, "unseen": 0 } });
    assert_eq!([&counts["unread"], &counts["unseen"], &counts["by_category"]], [&json!(3), &json!(0), &by_category]);
    assert_eq!([&marked["changed"], &marked["counts"]["by_category"]], [&json!(3), &by_category]);
}

#[test]
fn a_burst_of_changes_is_told_in_few_counts_and_the_last_is_right() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?events=unread");
    stream.expect("hello");
    stream.expect("unread");
    let lines = vec![json!({ "to": "user:alice", "title": "t" }); 2_000];
    server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200);
    let (mut told, mut last) = (0, 0);
    while last < 2_000 {
        let unread = stream.expect("unread").data["unread"].as_u64().expect("a number");
        assert!(unread > last, "counts are absolute and newer each time: {unread} after {last}");
        (told, last) = (told + 1, unread);
    }
    assert!((1..=400).contains(&told), "{told} events for 2000 changes");
}

#[test]
fn a_mark_reaches_every_device_of_the_user_and_nobody_else() {
    let server = Server::start();
    let ids: Vec<Value> = (0..3).map(|_| server.notify("alice", "t")["id"].clone()).collect();
    let [mut phone, mut desk, mut other] = ["alice", "alice", "bob"].map(|user| server.stream(user, "?cursor=now"));
    let upto = phone.expect("hello").id.expect("an id");
    desk.expect("hello");
    other.expect("hello");
    for (mark, state, unread) in [
        (json!({ "as": "read", "ids": [ids[1]] }), json!({ "ids": [ids[1]], "state": "read" }), 2),
        (json!({ "as": "unread", "ids": [ids[1]] }), json!({ "ids": [ids[1]], "state": "unread" }), 3),
        (json!({ "as": "archived", "ids": [ids[0]] }), json!({ "ids": [ids[0]], "state": "archived" }), 2),
        (json!({ "as": "unarchived", "ids": [ids[0]] }), json!({ "ids": [ids[0]], "state": "unarchived" }), 3),
        (json!({ "as": "read", "upto": upto }), json!({ "upto": upto, "state": "read" }), 0),
    ] {
        let told = server.mark("alice", &mark);
        assert_eq!(told["counts"]["unread"], unread, "{mark}");
        for device in [&mut phone, &mut desk] {
            let event = device.expect("state");
            assert_eq!((event.data, event.id.map(Value::from)), (state.clone(), Some(told["cursor"].clone())));
            assert_eq!(device.expect("unread").data["unread"], unread, "{mark}");
        }
    }
    server.notify("bob", "end");
    assert_eq!(other.expect("notification").title(), "end", "nothing of alice's came to bob");
}

#[test]
fn read_is_seen_and_upto_only_moves_forward() {
    let server = Server::start();
    let cursors: Vec<Value> = (0..4).map(|_| server.notify("alice", "t")["cursor"].clone()).collect();
    let mark = |mark: &str, at: usize| server.mark("alice", &json!({ "as": mark, "upto": cursors[at] }));
    assert_eq!(mark("read", 2)["counts"], counts(1, 1));
    assert_eq!(mark("read", 0)["changed"], 0, "backwards");
    assert_eq!(mark("read", 2)["changed"], 0, "again");
    assert_eq!(mark("seen", 3)["counts"], counts(1, 0));
    let entries = server.inbox("alice")["entries"].clone();
    assert!(entries[0]["state"]["seen_at"].is_string() && entries[0]["state"]["read_at"].is_null());
    assert!(entries[1]["state"]["seen_at"].is_string() && entries[1]["state"]["read_at"].is_string());
    let back = server.mark("alice", &json!({ "as": "unread", "ids": [entries[3]["id"]] }));
    assert_eq!(back["counts"], counts(2, 0), "unread clears read only");
}

fn counts(unread: u64, unseen: u64) -> Value {
    json!({ "unread": unread, "unseen": unseen, "by_category": { "general": { "unread": unread, "unseen": unseen } } })
}

#[test]
fn a_mark_by_category_leaves_the_others() {
    let server = Server::start();
    for category in ["loans", "news", "loans"] {
        server.publish(&json!({ "to": "user:alice", "title": "t", "category": category }));
    }
    let mut stream = server.stream("alice", "?cursor=now");
    let head = stream.expect("hello").id;
    let told = server.mark("alice", &json!({ "as": "read", "upto": head, "category": "loans" }));
    assert_eq!([&told["changed"], &told["counts"]["unread"]], [2, 1]);
    assert_eq!(stream.expect("state").data, json!({ "upto": head, "category": "loans", "state": "read" }));
}

#[test]
fn a_mark_that_cannot_be_meant_is_refused_and_changes_nothing() {
    let server = Server::start();
    let made = server.notify("alice", "t");
    let foreign = server.notify("bob", "t")["id"].clone();
    let refused = |body: Value, code: &str| {
        let ask = Ask::post("/v1/inbox/mark").bearer(&server.token("alice")).json(&body);
        server.send(&ask).problem(422, code)
    };
    let (epoch, _) = made["cursor"].as_str().and_then(|cursor| cursor.split_once('.')).expect("a cursor");
    refused(json!({ "as": "read", "upto": format!("{epoch}.3") }), "ahead");
    refused(json!({ "as": "read", "upto": "zzzzz.1" }), "unknown-epoch");
    for (body, pointer) in [
        (json!({ "as": "read", "upto": "now" }), "/upto"),
        (json!({ "as": "unread", "upto": made["cursor"] }), "/upto"),
        (json!({ "as": "read" }), "/upto"),
        (json!({ "as": "read", "upto": made["cursor"], "ids": [made["id"]] }), "/upto"),
        (json!({ "as": "eaten", "ids": [made["id"]] }), "/as"),
        (json!({ "as": "read", "ids": [] }), "/ids"),
        (json!({ "as": "read", "ids": ["7"] }), "/ids/0"),
        (json!({ "as": "read", "ids": [made["id"]], "when": 1 }), "/when"),
    ] {
        let problem = refused(body.clone(), "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let told = server.mark("alice", &json!({ "as": "read", "ids": [foreign] }));
    assert_eq!(told, json!({ "changed": 0, "counts": counts(1, 1), "cursor": told["cursor"], "unknown": [foreign] }));
    assert_eq!(server.inbox("bob")["counts"]["unread"], 1);
}

#[test]
fn an_envelope_holds_the_whole_event_for_clients_that_know_only_onmessage() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?envelope=1&heartbeat=event");
    let hello = stream.next();
    assert_eq!((hello.kind.as_str(), hello.order.join(" ").as_str()), ("message", "retry id data"));
    assert_eq!(hello.data["event"], "hello");
    assert_eq!(hello.data["id"], hello.id.expect("hello has an id"));
    let unread = stream.next();
    assert_eq!((unread.order.join(" ").as_str(), &unread.data["event"]), ("data", &json!("unread")));
    assert_eq!(unread.data.get("id"), None);
    let made = server.notify("alice", "t");
    let live = stream.next();
    assert_eq!(live.order, ["id", "data"]);
    assert_eq!((&live.data["id"], &live.data["event"]), (&made["cursor"], &json!("notification")));
    assert_eq!(live.data["data"]["title"], "t");
}

#[test]
fn silence_is_filled_with_comments_or_where_asked_with_events() {
    let server = Setup::serve().env("TIDINGS_STREAMS_HEARTBEAT", "1s").start();
    let mut plain = server.stream("alice", "?cursor=now");
    let mut asked = server.stream("alice", "?cursor=now&heartbeat=event&events=notification");
    assert_eq!(plain.expect("hello").data["heartbeat"], 1);
    asked.expect("hello");
    for _ in 0..2 {
        assert_eq!(plain.comment().trim(), "heartbeat");
        let beat = asked.expect("heartbeat");
        assert_eq!((beat.order.join(" ").as_str(), &beat.data), ("event data", &json!({})));
    }
    server.send(&Ask::get("/v1/stream?heartbeat=drum").bearer(&server.token("alice"))).problem(400, "bad-query");
}

#[test]
fn filters_let_through_only_what_was_asked_for() {
    let server = Server::start();
    server.follow("orders/1", "alice");
    server.follow("ops", "alice");
    let mut streams: Vec<Sse> =
        ["?events=unread", "?events=notification,state", "?category=loans", "?topics=orders/*", "?topics=ops,orders/1"]
            .iter()
            .map(|query| server.stream("alice", &format!("{query}&cursor=now")))
            .collect();
    for stream in &mut streams {
        stream.expect("hello");
    }
    let publish = |to: &str, title: &str, category: Value| {
        server.publish(&json!({ "to": to, "title": title, "category": category }))
    };
    publish("user:alice", "direct loan", json!("loans"));
    publish("topic:orders/1", "order", Value::Null);
    publish("topic:ops", "ops", Value::Null);
    let read =
        server.mark("alice", &json!({ "as": "read", "upto": publish("user:alice", "direct", Value::Null)["cursor"] }));
    publish("topic:orders/1", "end", Value::Null);
    publish("user:alice", "end", json!("loans"));
    let [counts, durable, loans, orders, both] = &mut streams[..] else { panic!("five streams") };
    assert_eq!(counts.until_unread(2).order, ["event", "data"]);
    for title in ["direct loan", "order", "ops", "direct"] {
        assert_eq!(durable.expect("notification").title(), title);
    }
    assert_eq!(durable.expect("state").id, read["cursor"].as_str().map(str::to_owned));
    assert_eq!(durable.expect("notification").title(), "end");
    assert_eq!(loans.titles_to("end"), ["direct loan", "end"]);
    assert_eq!(orders.titles_to("end"), ["order", "end"]);
    assert_eq!(both.titles_to("end"), ["order", "ops", "end"]);
    // The same holds for what is replayed, and `missed` counts after the filter.
    let mut replayed = server.stream("alice", "?cursor=start&topics=ops&events=notification");
    assert_eq!(replayed.expect("hello").data["missed"], 1);
    assert_eq!(replayed.expect("notification").title(), "ops");
    for query in ["?events=unread,telegram", "?category=a%20b", "?topics=a%20b"] {
        let ask = Ask::get(&format!("/v1/stream{query}")).bearer(&server.token("alice"));
        server.send(&ask).problem(400, "bad-query");
    }
}

#[test]
fn a_token_sees_only_the_topics_it_names() {
    let server = Server::start();
    server.follow("orders/1", "alice");
    server.follow("ops", "alice");
    let claims = json!({ "sub": "alice", "exp": crate::support::token::now() + 60, "topics": ["orders/*"] });
    let token = server.token_for(&claims);
    let open = |query: &str| Sse::open(server.place(), Ask::get(&format!("/v1/stream{query}")).bearer(&token));
    let mut live = open("?cursor=now");
    live.expect("hello");
    for (to, title) in
        [("topic:ops", "ops"), ("topic:orders/1", "order"), ("user:alice", "direct"), ("everyone", "all")]
    {
        server.publish(&json!({ "to": to, "title": title }));
    }
    assert_eq!(live.titles_to("all"), ["order", "direct", "all"]);
    assert_eq!(live.until_unread(3).data["unread"], 3);
    let mut replayed = open("?cursor=start");
    assert_eq!(replayed.expect("hello").data["counts"]["unread"], 3);
    assert_eq!(replayed.titles_to("all"), ["order", "direct", "all"]);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 4);
}

#[test]
fn a_follow_or_its_end_takes_effect_on_a_stream_that_is_open() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?cursor=now&events=notification");
    stream.expect("hello");
    let publish = |title: &str| server.publish(&json!({ "to": "topic:ops", "title": title }));
    publish("before");
    server.follow("ops", "alice");
    publish("while");
    server.operate(Ask::delete("/v1/topics/ops/followers/alice")).expect(200);
    publish("after");
    server.follow("ops", "alice");
    publish("again");
    assert_eq!(stream.titles_to("again"), ["while", "again"]);
    let mut replayed = server.stream("alice", "?cursor=start&events=notification");
    assert_eq!(replayed.titles_to("again"), ["while", "again"]);
}
