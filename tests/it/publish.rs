//! Publishing one notification as JSON: audiences, what is kept, who may.

use serde_json::{Value, json};

use crate::support::http::Ask;
use crate::support::server::{Server, Setup};
use crate::support::token;

fn publish(server: &Server, credential: &str, body: &Value) -> crate::support::http::Answer {
    server.send(&Ask::post("/v1/notifications").bearer(credential).json(body))
}

#[test]
fn a_publish_answers_with_its_id_and_position_and_stands_in_the_inbox() {
    let server = Server::start();
    let mut stream = server.stream("alice", "");
    stream.expect("hello");
    let made = server.publish(&json!({ "to": { "user": "alice" }, "title": "Due soon", "body": "On\nFriday" }));
    let live = stream.until("notification");
    assert_eq!(made["recipients"], 1);
    assert_eq!(made["cursor"], live.id.clone().expect("durable"));
    assert_eq!(made["seq"], live.seq());
    assert_eq!(made["id"], live.data["id"]);
    assert_eq!((live.title(), &live.data["body"]), ("Due soon", &json!("On\nFriday")));
    let inbox = server.inbox("alice");
    assert_eq!(inbox["entries"][0]["id"], made["id"]);
    assert_eq!(inbox["counts"]["unread"], 1);
    let path = format!("/v1/inbox/{}", made["id"].as_str().expect("an id"));
    let one = server.send(&Ask::get(&path).bearer(&server.token("alice"))).expect(200).json();
    assert_eq!(one, inbox["entries"][0]);
    server.send(&Ask::get(&path).bearer(&server.token("bob"))).problem(404, "not-found");
}

#[test]
fn everything_a_publisher_says_reaches_the_reader_as_it_was_sent() {
    let server = Server::start();
    let mut stream = server.stream("alice", "");
    stream.expect("hello");
    let body = r#"{"to":"user:alice","title":"磁盘 \u2028 full","body":"b","category":"loans","priority":5,"sender":"Shop",
        "icon":"https://a.example/i.png","click":"/loans/7","actions":[{"label":"Renew","click":"https://a.example/r"}],
        "data":{"b": 1.50, "a": [ 12345678901234567890 , "x  y"], "e":"\u00e9"}}"#;
    let ask = Ask::post("/v1/notifications").bearer(&server.operator()).body("application/json; charset=utf-8", body);
    server.send(&ask).expect(201);
    let live = stream.until("notification").data;
    for (field, value) in [
        ("title", json!("磁盘 \u{2028} full")),
        ("category", json!("loans")),
        ("priority", json!(5)),
        ("sender", json!("Shop")),
        ("icon", json!("https://a.example/i.png")),
        ("click", json!("/loans/7")),
        ("actions", json!([{ "label": "Renew", "click": "https://a.example/r" }])),
        ("replayed", json!(false)),
        ("topic", Value::Null),
    ] {
        assert_eq!(live[field], value, "{field}");
    }
    let at = live["created_at"].as_str().expect("a time");
    assert!(at.parse::<jiff::Timestamp>().is_ok() && at.ends_with('Z'), "{at}");
    assert!(live.get("state").is_none(), "a live frame is shared, so it says nothing about one reader");
    // Numbers, order and escapes as sent; only white space outside strings goes.
    let page = server.send(&Ask::get("/v1/inbox").bearer(&server.token("alice")));
    assert!(
        page.text().contains(r#""data":{"b":1.50,"a":[12345678901234567890,"x  y"],"e":"\u00e9"}"#),
        "{}",
        page.text()
    );
}

#[test]
fn each_audience_reaches_those_it_names() {
    let server = Server::start();
    let mut streams: Vec<_> = ["alice", "bob", "carol"].map(|user| server.stream(user, "?events=notification")).into();
    for stream in &mut streams {
        stream.expect("hello");
    }
    server.follow("ops/eu", "bob");
    server.follow("ops/eu", "carol");
    for (to, recipients) in [
        (json!({ "user": "alice" }), json!(1)),
        (json!("user:bob"), json!(1)),
        (json!({ "users": ["alice", "carol", "alice", "nobody-yet"] }), json!(3)),
        (json!({ "topic": "ops/eu" }), json!(2)),
        (json!("topic:ops/eu"), json!(2)),
        (json!("topic:nobody-follows"), json!(0)),
        (json!({ "everyone": true }), Value::Null),
        (json!("everyone"), Value::Null),
    ] {
        let made = server.publish(&json!({ "to": to, "title": to.to_string() }));
        assert_eq!(made["recipients"], recipients, "{to}");
    }
    server.publish(&json!({ "to": { "users": ["alice", "bob", "carol"] }, "title": "end" }));
    let everyone = [r#"{"everyone":true}"#, r#""everyone""#, "end"];
    let topic = [r#"{"topic":"ops/eu"}"#, r#""topic:ops/eu""#];
    let users = r#"{"users":["alice","carol","alice","nobody-yet"]}"#;
    assert_eq!(streams[0].titles_to("end"), [&[r#"{"user":"alice"}"#, users][..], &everyone].concat());
    assert_eq!(streams[1].titles_to("end"), [&[r#""user:bob""#][..], &topic, &everyone].concat());
    assert_eq!(streams[2].titles_to("end"), [&[users][..], &topic, &everyone].concat());
    // Who first appears later gets what was sent to everyone, and what was sent to them before they came.
    let titles = |user| -> Vec<String> {
        let inbox = server.inbox(user);
        let entries = inbox["entries"].as_array().expect("a list").iter();
        entries.map(|entry| entry["title"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(titles("newcomer"), [everyone[1], everyone[0]]);
    assert_eq!(titles("nobody-yet"), [everyone[1], everyone[0], users]);
}

#[test]
fn how_far_back_everyone_reaches_is_a_setting() {
    let server = Setup::serve().env("TIDINGS_TOPICS_EVERYONE_HORIZON", "0s").start();
    server.publish(&json!({ "to": "everyone", "title": "before" }));
    let mut stream = server.stream("newcomer", "?cursor=start&events=notification");
    assert_eq!(stream.expect("hello").data["missed"], 0);
    server.publish(&json!({ "to": "everyone", "title": "after" }));
    assert_eq!(stream.expect("notification").title(), "after");
}

#[test]
fn a_topic_keeps_one_category_and_refuses_another() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?events=notification");
    stream.expect("hello");
    let put = |body: Value| server.operate(Ask::put("/v1/topics/ops").json(&body));
    let made = put(json!({ "category": "alerts" })).expect(201).json();
    assert_eq!((&made["topic"], &made["category"]), (&json!("ops"), &json!("alerts")));
    put(json!({})).expect(200);
    put(json!({ "category": "news" })).problem(409, "category-conflict");
    server.follow("ops", "alice");
    server.publish(&json!({ "to": "topic:ops", "title": "named", "category": "alerts" }));
    server.publish(&json!({ "to": "topic:ops", "title": "unnamed" }));
    publish(&server, &server.operator(), &json!({ "to": "topic:ops", "title": "other", "category": "general" }))
        .problem(409, "category-conflict");
    server.notify("alice", "end");
    let got: Vec<_> = stream.take("notification", 3);
    assert_eq!(got.iter().map(|event| event.title()).collect::<Vec<_>>(), ["named", "unnamed", "end"]);
    assert_eq!(got[1].data["category"], "alerts");
    assert_eq!(got[1].data["topic"], "ops");
    assert_eq!(put(json!({})).expect(200).json()["published"], 2);
}

#[test]
fn a_key_publishes_only_where_its_scopes_reach() {
    let server = Server::start();
    let orders = server.key(&["publish:topic/orders/*"]);
    let all_topics = server.key(&["publish:topic/*"]);
    let everyone = server.key(&["publish:topic/everyone"]);
    let tickets = server.key(&["tickets"]);
    let publisher = server.key(&["publish"]);
    let cases: [(&str, Value, [u16; 5]); 5] = [
        ("a topic of the pattern", json!("topic:orders/42"), [201, 201, 403, 403, 201]),
        ("a topic beside it", json!("topic:ops"), [403, 201, 403, 403, 201]),
        ("a user", json!("user:alice"), [403, 403, 403, 403, 201]),
        ("users", json!({ "users": ["alice"] }), [403, 403, 403, 403, 201]),
        ("everyone", json!("everyone"), [403, 403, 201, 403, 201]),
    ];
    for (what, to, expected) in cases {
        for (key, status) in [&orders, &all_topics, &everyone, &tickets, &publisher].into_iter().zip(expected) {
            let answer = publish(&server, key, &json!({ "to": to, "title": "t" }));
            match status {
                403 => drop(answer.problem(403, "forbidden")),
                _ => assert_eq!(answer.status(), status, "{what}: {}", answer.text()),
            }
        }
    }
}

#[test]
fn a_user_with_the_scope_publishes_in_no_name_but_its_own() {
    let server = Server::start();
    let claims = |scope: &str| json!({ "sub": "bob", "exp": token::now() + 60, "scope": scope });
    let body = json!({ "to": "user:alice", "title": "hi", "sender": "The Director" });
    publish(&server, &server.token("bob"), &body).problem(403, "forbidden");
    publish(&server, &server.token_for(&claims("read publisher")), &body).problem(403, "forbidden");
    publish(&server, &server.token_for(&claims("read publish")), &body).expect(201);
    assert_eq!(server.inbox("alice")["entries"][0]["sender"], "bob");
}

#[test]
fn a_revoked_key_is_refused_at_once() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    let body = json!({ "to": "user:alice", "title": "hi" });
    publish(&server, &key, &body).expect(201);
    let id = key.split('_').nth(1).expect("tk_<id>_<secret>");
    server.operate(Ask::delete(&format!("/v1/keys/{id}"))).expect(204);
    publish(&server, &key, &body).problem(401, "revoked");
    let listed = server.operate(Ask::get("/v1/keys")).expect(200);
    assert!(!listed.text().contains(&key) && listed.json()["keys"][0]["revoked_at"].is_string(), "{}", listed.text());
}

#[test]
fn a_backend_reads_a_users_counts_with_its_key() {
    let server = Server::start();
    server.publish(&json!({ "to": "user:alice", "title": "t", "category": "loans" }));
    let newest = server.notify("alice", "t");
    let key = server.key(&["users"]);
    let counts = server.send(&Ask::get("/v1/users/alice/counts").bearer(&key)).expect(200).json();
    let expected = json!({
        "unread": 2, "unseen": 2, "as_of": newest["cursor"],
        "by_category": { "loans": { "unread": 1, "unseen": 1 }, "general": { "unread": 1, "unseen": 1 } },
    });
    assert_eq!(counts, expected);
    let own = server.send(&Ask::get("/v1/inbox/counts").bearer(&server.token("alice"))).expect(200).json();
    assert_eq!(own, expected);
}
