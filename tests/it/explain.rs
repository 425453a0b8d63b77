//! What a publish would do (`dry_run`): the checks of a publish, what is decided for whom, and that asking does nothing.

use serde_json::{Value, json};

use crate::support::http::Ask;
use crate::support::server::{Server, Setup};

/// Tries a publish as the operator; the answer.
fn tried(server: &Server, body: &Value) -> Value {
    server.operate(Ask::post("/v1/notifications").json(&with_dry_run(body))).expect(200).json()
}

fn with_dry_run(body: &Value) -> Value {
    let mut body = body.clone();
    body["dry_run"] = json!(true);
    body
}

/// The decisions for the n-th person, as `step: decision`.
fn decisions(tried: &Value, person: usize) -> Vec<String> {
    let all = tried["people"][person]["decisions"].as_array().expect("a list").iter();
    all.map(|one| format!("{}: {}", one["step"].as_str().unwrap_or("?"), one["decision"].as_str().unwrap_or("?")))
        .collect()
}

#[test]
fn a_tried_publish_tells_what_would_happen_and_does_nothing() {
    let server = Server::start();
    let first = server.publish(&json!({ "to": "user:alice", "title": "Old", "collapse": "disk" }));
    let body = json!({ "to": { "users": ["alice", "bob"] }, "title": "New", "collapse": "disk", "category": "alerts" });
    let told = tried(&server, &body);
    assert_eq!((told["recipients"].as_u64(), told["category"].as_str()), (Some(2), Some("alerts")));
    assert_eq!(
        decisions(&told, 0),
        ["audience: named", "template: none", "preference: none", "dedupe: replaces", "medium: inbox"]
    );
    let replaced = told["people"][0]["decisions"][3]["reason"].as_str().expect("a reason");
    assert!(replaced.contains(first["id"].as_str().expect("an id")), "{replaced}");
    assert_eq!(decisions(&told, 1)[..4], ["audience: new", "template: none", "preference: none", "dedupe: first"]);

    // Nothing was stored: the next publish has the next position, and bob's inbox is not there yet.
    let next = server.publish(&json!({ "to": "user:alice", "title": "After" }));
    assert_eq!(next["seq"].as_u64(), first["seq"].as_u64().map(|seq| seq + 1));
    assert_eq!(decisions(&tried(&server, &body), 1)[0], "audience: new");
    assert_eq!(server.inbox("alice")["entries"].as_array().map(Vec::len), Some(2), "{}", server.inbox("alice"));
}

#[test]
fn a_tried_publish_uses_no_idempotency_key() {
    let server = Server::start();
    let ask = |body: &Value| Ask::post("/v1/notifications").header("idempotency-key", "k").json(body);
    let body = json!({ "to": "user:alice", "title": "x" });
    server.operate(ask(&with_dry_run(&body))).expect(200);
    let published = server.operate(ask(&body)).expect(201).json();
    let told = server.operate(ask(&with_dry_run(&json!({ "to": "user:bob", "title": "y" })))).expect(200).json();
    assert_eq!(told["title"], "y");
    assert_eq!(server.operate(ask(&body)).expect(201).json()["id"], published["id"]);
}

#[test]
fn what_a_publish_would_be_refused_for_is_refused_in_the_same_words() {
    let server = Setup::serve().env("TIDINGS_USERS_UNKNOWN", "refuse").start();
    server.operate(Ask::put("/v1/topics/news").json(&json!({ "category": "news" }))).expect(201);
    for body in [
        json!({ "to": "user:nobody", "title": "x" }),
        json!({ "to": "topic:news", "title": "x", "category": "alerts" }),
        json!({ "to": "topic:news", "title": "x", "delay": "900d" }),
        json!({ "to": "topic:news", "title": "x", "expires_at": "2001-01-01T00:00:00Z" }),
        json!({ "to": "topic:news", "title": "x", "priority": 9 }),
        json!({ "to": "topic:news", "template": "missing" }),
    ] {
        let meant = server.operate(Ask::post("/v1/notifications").json(&body));
        let asked = server.operate(Ask::post("/v1/notifications").json(&with_dry_run(&body)));
        assert_eq!(asked.status(), meant.status(), "{body}");
        assert!(meant.status() >= 400, "{body}");
        assert_eq!(asked.json()["code"], meant.json()["code"], "{body}");
    }
    let key = server.key(&["tickets"]);
    let body = with_dry_run(&json!({ "to": "topic:news", "title": "x" }));
    server.send(&Ask::post("/v1/notifications").bearer(&key).json(&body)).expect(403);
}

#[test]
fn who_may_not_read_people_is_told_of_none() {
    let server = Server::start();
    server.notify("alice", "x");
    let body = with_dry_run(&json!({ "to": "user:alice", "title": "x" }));
    for (scopes, told) in [(&["publish"][..], false), (&["publish", "users"], true)] {
        let ask = Ask::post("/v1/notifications").bearer(&server.key(scopes)).json(&body);
        assert_eq!(server.send(&ask).expect(200).json()["people"].is_array(), told, "{scopes:?}");
    }
}

#[test]
fn topics_are_counted_what_waits_says_until_when_and_texts_are_in_each_reader_s_language() {
    let server = Server::start();
    server.follow("ops", "alice");
    let told = tried(&server, &json!({ "to": "topic:ops", "title": "x" }));
    assert_eq!((told["recipients"].as_u64(), told["people"].clone()), (Some(1), json!([])));
    let told = tried(&server, &json!({ "to": "user:alice", "title": "x", "delay": "2h" }));
    assert!(told["due"].is_string() && told["recipients"].is_null(), "{told}");
    assert_eq!(decisions(&told, 0)[4], "medium: waits");

    let texts = |title: &str| json!({ "in_app": { "title": title, "body": "{{ name }}" } });
    let template = json!({
        "default_locale": "en", "variables": { "name": { "type": "string" } },
        "texts": { "en": texts("Due"), "zh-Hans": texts("到期") },
    });
    server.operate(Ask::put("/v1/templates/due").json(&template)).expect(201);
    server.operate(Ask::post("/v1/templates/due/publish")).expect(200);
    server.operate(Ask::put("/v1/users/alice").json(&json!({ "locale": "zh-CN" })));
    let body = |params: Value| json!({ "to": { "users": ["alice", "bob"] }, "template": "due", "params": params });
    let told = tried(&server, &body(json!({ "name": "Faust" })));
    assert_eq!((told["title"].as_str(), told["body"].as_str()), (Some("Due"), Some("Faust")));
    assert_eq!(
        (decisions(&told, 0)[1].as_str(), decisions(&told, 1)[1].as_str()),
        ("template: worded", "template: default")
    );
    let wrong = with_dry_run(&body(json!({})));
    let refused = server.operate(Ask::post("/v1/notifications").json(&wrong)).expect(422).json();
    assert_eq!(refused["errors"][0]["pointer"], "/params/name");
}

#[test]
fn only_one_publish_can_be_tried() {
    let server = Server::start();
    let line = with_dry_run(&json!({ "to": "user:alice", "title": "x" })).to_string();
    let ask = Ask::post("/v1/notifications").body("application/x-ndjson", line.as_bytes());
    let answered = server.operate(ask).expect(200);
    assert!(answered.text().contains("/dry_run"), "{}", answered.text());
    let waiting = server.publish(&json!({ "to": "user:alice", "title": "x", "delay": "2h" }));
    let path = format!("/v1/scheduled/{}", waiting["id"].as_str().expect("an id"));
    let change = with_dry_run(&json!({ "to": "user:alice", "title": "y" }));
    let refused = server.operate(Ask::put(&path).json(&change)).expect(422).json();
    assert_eq!(refused["errors"][0]["pointer"], "/dry_run");
}

#[test]
fn each_medium_is_judged_for_each_person_as_it_would_be_in_earnest() {
    let mail = Setup::serve().env("TIDINGS_EMAIL_FROM", "library@example.org");
    let server = mail.env("TIDINGS_EMAIL_URL", "smtp://127.0.0.1:9?tls=none").start();
    let know = |user: &str, profile: Value| server.operate(Ask::put(&format!("/v1/users/{user}")).json(&profile));
    know("alice", json!({ "email": "alice@mail.example" }));
    know("carol", json!({ "email": "carol@mail.example", "preferences": { "loans": { "email": false } } }));
    know("dave", json!({ "preferences": { "*": { "email": true } } }));
    let to = json!({ "users": ["alice", "bob", "carol", "dave"] });
    let body = json!({ "to": to, "title": "x", "category": "loans", "via": ["email"] });
    let told = tried(&server, &body);
    let judged = |person: usize| [decisions(&told, person)[2].clone(), decisions(&told, person)[5].clone()];
    assert_eq!(decisions(&told, 0)[4], "medium: inbox");
    assert_eq!(judged(0), ["preference: unsaid", "medium: tried"]);
    assert_eq!(judged(1), ["preference: unsaid", "medium: skipped"]);
    assert_eq!(judged(2), ["preference: unwanted", "medium: skipped"]);
    assert_eq!(judged(3), ["preference: wanted", "medium: skipped"]);
    let reason =
        |person: usize| told["people"][person]["decisions"][5]["reason"].as_str().expect("a reason").to_owned();
    assert!(reason(0).contains("alice@mail.example"), "{}", reason(0));

    // The same words stand in the log when it is meant.
    let id = server.publish(&body)["id"].as_str().expect("an id").to_owned();
    let log = server.operate(Ask::get(&format!("/v1/deliveries?notification={id}"))).expect(200).json();
    for line in log["deliveries"].as_array().expect("a list") {
        let user = line["user"].as_str().expect("a user");
        let person = ["alice", "bob", "carol", "dave"].iter().position(|name| *name == user).expect("one of them");
        assert_eq!(line["state"] == "skipped", person > 0, "{line}");
        if person > 0 {
            assert_eq!(line["reason"].as_str(), Some(reason(person).as_str()));
        }
    }
    // What is not set up is refused, as it would be.
    let refused = json!({ "to": to, "title": "x", "via": ["dingtalk"] });
    let meant = server.operate(Ask::post("/v1/notifications").json(&refused)).problem(422, "invalid");
    let asked = server.operate(Ask::post("/v1/notifications").json(&with_dry_run(&refused))).problem(422, "invalid");
    assert_eq!(asked["errors"], meant["errors"]);
}
