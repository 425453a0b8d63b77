//! The life of a notification over HTTP: replaced, delivered later, over, taken back; and what its publisher is told.

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, Setup};
use crate::support::{token, wait_for};

/// A moment so many seconds from now.
fn from_now(seconds: i64) -> String {
    jiff::Timestamp::from_second(token::now() + seconds).expect("a moment").to_string()
}

fn moment(value: &Value) -> jiff::Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

/// Asserts that this moment is over, and was not long ago.
fn has_just_come(due: &Value) {
    let late = jiff::Timestamp::now().duration_since(moment(due));
    assert!(!late.is_negative(), "it came {late:?} before {due}");
}

fn publish(server: &Server, body: &Value) -> Answer {
    server.operate(Ask::post("/v1/notifications").json(body))
}

fn id(body: &Value) -> String {
    body["id"].as_str().expect("an id").to_owned()
}

fn status(server: &Server, id: &str) -> Value {
    server.operate(Ask::get(&format!("/v1/notifications/{id}"))).expect(200).json()
}

fn retract(server: &Server, id: &str) -> Answer {
    server.operate(Ask::delete(&format!("/v1/notifications/{id}")))
}

fn scheduled(server: &Server) -> Vec<Value> {
    server.operate(Ask::get("/v1/scheduled")).expect(200).json()["scheduled"].as_array().expect("a list").clone()
}

fn titles(server: &Server, user: &str) -> Vec<String> {
    let inbox = server.inbox(user);
    let entries = inbox["entries"].as_array().expect("a list").iter();
    entries.map(|entry| entry["title"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_collapsed_notification_takes_the_place_of_the_earlier_one() {
    let server = Server::start();
    for (to, user) in [(json!("user:alice"), "alice"), (json!("topic:ops"), "bob"), (json!("everyone"), "carol")] {
        server.follow("ops", "bob");
        let mut stream = server.stream(user, "?cursor=now");
        stream.expect("hello");
        let body = |title: &str| json!({ "to": to, "title": title, "collapse": "磁盘 1" });
        let first = server.publish(&body("80 %"));
        assert_eq!(stream.until("notification").title(), "80 %");
        let unread = stream.until("unread").data["unread"].clone();
        let second = server.publish(&body("90 %"));
        let newer = stream.until("notification");
        assert_eq!((newer.title(), &newer.data["id"]), ("90 %", &second["id"]));
        let death = stream.expect("state");
        assert_eq!(death.seq(), newer.seq() + 1, "the same commit");
        assert_eq!(death.data, json!({ "ids": [first["id"]], "state": "replaced", "by": second["id"] }));
        assert_eq!(stream.until("unread").data["unread"], unread, "it counts once");
        assert_eq!(titles(&server, user)[0], "90 %");
        assert!(!titles(&server, user).contains(&"80 %".to_owned()));
        let older = status(&server, &id(&first));
        assert_eq!((&older["state"], &older["by"]), (&json!("replaced"), &second["id"]));
        // A client that slept through it all gets the newer one and the death.
        let mut late = server.resume(user, first["cursor"].as_str().expect("a cursor"));
        assert_eq!(late.expect("hello").data["missed"], 2);
        assert_eq!(late.expect("notification").data["id"], second["id"]);
        assert_eq!(late.expect("state").data, death.data);
        // Another key, or none, replaces nothing.
        server.publish(&json!({ "to": to, "title": "else", "collapse": "磁盘 2" }));
        server.publish(&json!({ "to": to, "title": "none" }));
        assert_eq!(titles(&server, user)[..3], ["none", "else", "90 %"]);
        // A mark on the dead one marks nothing.
        let marked = server.mark(user, &json!({ "as": "read", "ids": [first["id"]] }));
        assert_eq!((&marked["changed"], &marked["unknown"]), (&json!(0), &json!([first["id"]])));
    }
}

#[test]
fn a_key_counts_for_each_recipient_and_within_each_topic() {
    let server = Server::start();
    let collapsed = |to: Value, title: &str| server.publish(&json!({ "to": to, "title": title, "collapse": "k" }));
    server.follow("a", "alice");
    server.follow("b", "alice");
    collapsed(json!({ "users": ["alice", "bob"] }), "both");
    collapsed(json!("topic:a"), "a");
    collapsed(json!("topic:b"), "b");
    collapsed(json!("user:alice"), "hers");
    assert_eq!(titles(&server, "alice"), ["hers", "b", "a"]);
    assert_eq!(titles(&server, "bob"), ["both"], "he keeps what only she had replaced");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 3);
    collapsed(json!({ "users": ["bob", "alice"] }), "again");
    assert_eq!(titles(&server, "alice"), ["again", "b", "a"]);
    assert_eq!(titles(&server, "bob"), ["again"]);
}

#[test]
fn a_delayed_notification_comes_when_it_is_due_and_not_before() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?cursor=now&events=notification");
    stream.expect("hello");
    let times = [|| json!({ "delay": 1 }), || json!({ "delay": "1s" }), || json!({ "deliver_at": from_now(2) })];
    for when in times.map(|when| when as fn() -> Value) {
        let when = when();
        let mut body = json!({ "to": "user:alice", "title": "later" });
        body.as_object_mut().expect("an object").extend(when.as_object().expect("an object").clone());
        let made = publish(&server, &body).expect(201).json();
        let due = made["due"].clone();
        assert_eq!(made, json!({ "id": made["id"], "seq": null, "cursor": null, "due": due, "recipients": null }));
        let waits = status(&server, &id(&made));
        assert_eq!((&waits["state"], &waits["due"], &waits["seq"]), (&json!("scheduled"), &due, &Value::Null));
        assert_eq!((&waits["recipients"], &waits["seen"], &waits["to"]), (&Value::Null, &Value::Null, &json!("users")));
        let live = stream.expect("notification");
        has_just_come(&due);
        assert_eq!((live.title(), &live.data["id"]), ("later", &made["id"]));
        let delivered = status(&server, &id(&made));
        assert_eq!((&delivered["state"], &delivered["seq"]), (&json!("delivered"), &json!(live.seq())));
        assert_eq!(delivered["recipients"], 1);
        server.operate(Ask::put(&format!("/v1/scheduled/{}", id(&made))).json(&body)).problem(409, "not-scheduled");
    }
    assert!(scheduled(&server).is_empty());
    // A moment that has only just gone by is now.
    let made = publish(&server, &json!({ "to": "user:alice", "title": "now", "deliver_at": from_now(-30) }));
    assert!(made.expect(201).json()["seq"].is_number());
}

#[test]
fn what_fell_due_while_the_server_was_down_is_there_when_it_is_back_in_order() {
    let mut server = Server::start();
    let later = |title: &str, delay: u32| {
        publish(&server, &json!({ "to": "user:alice", "title": title, "delay": delay })).expect(201).json()
    };
    let (second, first) = (later("second", 2), later("first", 1));
    let tomorrow = later("tomorrow", 86_400);
    server.kill();
    wait_for("both to be due", || (jiff::Timestamp::now() > moment(&second["due"])).then_some(()));
    server.restart();
    let inbox = server.inbox("alice");
    let there: Vec<_> = inbox["entries"].as_array().expect("a list").iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(there, [second["id"].clone(), first["id"].clone()]);
    assert_eq!(inbox["counts"]["unread"], 2);
    let waits = scheduled(&server);
    assert_eq!((waits.len(), &waits[0]["id"]), (1, &tomorrow["id"]));
}

#[test]
fn what_waits_is_listed_changed_and_cancelled() {
    let server = Server::start();
    let tuesday = json!({
        "to": { "users": ["alice", "bob"] }, "title": "Tuesday", "body": "b", "category": "loans", "priority": 4,
        "icon": "/i.png", "click": "/loans", "actions": [{ "label": "Renew", "click": "/renew" }], "sender": "Shop",
        "data": { "n": 1 }, "collapse": "due", "deliver_at": from_now(7_200), "expires_in": "2h",
    });
    let made = publish(&server, &tuesday).expect(201).json();
    let soon = publish(&server, &json!({ "to": "topic:ops", "title": "soon", "delay": "1h" })).expect(201).json();
    let all =
        publish(&server, &json!({ "to": "everyone", "title": "all", "delay": "3h", "expires_at": from_now(20_000) }));
    let all = all.expect(201).json();
    let listed = scheduled(&server);
    let ids: Vec<_> = listed.iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&soon["id"], &made["id"], &all["id"]], "the next due first");
    let mut expected = tuesday.clone();
    let told = expected.as_object_mut().expect("an object");
    told.remove("deliver_at");
    told.insert("id".into(), made["id"].clone());
    told.insert("due".into(), made["due"].clone());
    told.insert("created_at".into(), listed[1]["created_at"].clone());
    // The end is a moment from here on, however it was named.
    let end = told.remove("expires_in").and(moment(&made["due"]).checked_add(jiff::SignedDuration::from_hours(2)).ok());
    told.insert("expires_at".into(), json!(end.map(|end| format!("{end:.3}"))));
    assert_eq!(listed[1], expected);
    assert_eq!((&listed[0]["to"], &listed[0]["category"]), (&json!({ "topic": "ops" }), &Value::Null));
    assert_eq!(listed[2]["to"], json!({ "everyone": true }));
    assert!(listed[2]["expires_at"].is_string() && listed[2].get("expires_in").is_none(), "{}", listed[2]);

    // Page by page.
    let (mut after, mut walked) = (String::new(), Vec::new());
    for _ in 0..3 {
        let page = server.operate(Ask::get(&format!("/v1/scheduled?limit=1{after}"))).expect(200).json();
        walked.push(page["scheduled"][0]["id"].clone());
        after = page["next"].as_str().map_or(String::new(), |next| format!("&after={next}"));
    }
    assert_eq!((walked, after.as_str()), (ids.into_iter().cloned().collect(), ""));
    for bad in ["limit=0", "limit=101", "after=x", "after=1.x", "befor=1"] {
        server.operate(Ask::get(&format!("/v1/scheduled?{bad}"))).problem(400, "bad-query");
    }

    // What is sent back without a time keeps the time.
    let place = |id: &Value| format!("/v1/scheduled/{}", id.as_str().expect("an id"));
    let change = |id: &Value, body: &Value| server.operate(Ask::put(&place(id)).json(body));
    let changed = change(&made["id"], &json!({ "to": "user:alice", "title": "Wednesday" })).expect(200).json();
    assert_eq!((&changed["id"], &changed["due"], &changed["title"]), (&made["id"], &made["due"], &json!("Wednesday")));
    assert_eq!((&changed["to"], &changed["collapse"]), (&json!({ "user": "alice" }), &Value::Null));
    let later = change(&soon["id"], &json!({ "to": "topic:ops", "title": "later", "delay": "5h" })).expect(200).json();
    assert!(moment(&later["due"]) > moment(&all["due"]), "{later}");
    let order: Vec<_> = scheduled(&server).into_iter().map(|one| one["title"].clone()).collect();
    assert_eq!(order, ["Wednesday", "all", "later"]);
    change(&made["id"], &json!({ "to": "user:alice" })).problem(422, "invalid");
    change(&json!("00000000-0000-0000-0000-000000000000"), &tuesday).problem(409, "not-scheduled");
    change(&json!("x"), &tuesday).problem(404, "not-found");

    let cancelled = retract(&server, &id(&made)).expect(200).json();
    assert_eq!(cancelled, json!({ "id": made["id"], "state": "cancelled", "changed": true }));
    assert_eq!(scheduled(&server).len(), 2);
    assert!(titles(&server, "alice").is_empty());
}

#[test]
fn what_is_due_now_is_delivered_after_all() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?cursor=now&events=notification");
    stream.expect("hello");
    let made = publish(&server, &json!({ "to": "user:alice", "title": "tomorrow", "delay": "1d" })).expect(201).json();
    let sooner = json!({ "to": "user:alice", "title": "today", "delay": 1 });
    let changed = server.operate(Ask::put(&format!("/v1/scheduled/{}", id(&made))).json(&sooner)).expect(200).json();
    let live = stream.expect("notification");
    has_just_come(&changed["due"]);
    assert_eq!((live.title(), &live.data["id"]), ("today", &made["id"]));
}

#[test]
fn an_expired_notification_leaves_lists_and_counts_and_says_so() {
    let server = Server::start();
    server.follow("ops", "bob");
    for (to, user) in [(json!("user:alice"), "alice"), (json!("topic:ops"), "bob"), (json!("everyone"), "carol")] {
        let mut stream = server.stream(user, "?cursor=now");
        stream.expect("hello");
        let made = server.publish(&json!({ "to": to, "title": "brief", "expires_in": "2s" }));
        let unread = stream.until("unread").data["unread"].as_u64().expect("a number");
        let over = status(&server, &id(&made))["expires_at"].clone();
        let death = stream.until("state");
        has_just_come(&over);
        assert_eq!(death.data, json!({ "ids": [made["id"]], "state": "expired" }));
        assert_eq!(stream.until("unread").data["unread"], unread - 1);
        assert!(!titles(&server, user).contains(&"brief".to_owned()));
        assert_eq!(status(&server, &id(&made))["state"], "expired");
        let again = retract(&server, &id(&made)).expect(200).json();
        assert_eq!(again, json!({ "id": made["id"], "state": "expired", "changed": false }));
    }
    // It counts from the delivery.
    let made = publish(&server, &json!({ "to": "user:alice", "title": "later", "delay": 1, "expires_in": 1 }))
        .expect(201)
        .json();
    let over = wait_for("its end", || {
        let now = status(&server, &id(&made));
        (now["state"] == "expired").then_some(now)
    });
    let lived = moment(&over["expires_at"]).duration_since(moment(&made["due"]));
    assert!((1_000..2_000).contains(&lived.as_millis()), "{over}");
}

#[test]
fn what_was_taken_back_is_in_no_inbox_and_every_device_learns_it() {
    let server = Server::start();
    server.follow("ops", "alice");
    server.follow("ops", "bob");
    let made = server.publish(&json!({ "to": "topic:ops", "title": "wrong" }));
    // Who has left meanwhile still has it.
    server.operate(Ask::delete("/v1/topics/ops/followers/bob")).expect(200);
    let mut streams: Vec<_> = ["alice", "bob"].map(|user| server.stream(user, "?cursor=now")).into();
    for stream in &mut streams {
        assert_eq!(stream.expect("hello").data["counts"]["unread"], 1);
    }
    let told = retract(&server, &id(&made)).expect(200).json();
    assert_eq!(told, json!({ "id": made["id"], "state": "retracted", "changed": true }));
    for stream in &mut streams {
        assert_eq!(stream.expect("state").data, json!({ "ids": [made["id"]], "state": "retracted" }));
        assert_eq!(stream.expect("unread").data["unread"], 0);
    }
    assert!(titles(&server, "alice").is_empty() && titles(&server, "bob").is_empty());
    let path = format!("/v1/inbox/{}", id(&made));
    server.send(&Ask::get(&path).bearer(&server.token("alice"))).problem(404, "not-found");
    let again = retract(&server, &id(&made)).expect(200).json();
    assert_eq!(again, json!({ "id": made["id"], "state": "retracted", "changed": false }));
    for nothing in ["00000000-0000-0000-0000-000000000000", "nothing"] {
        retract(&server, nothing).problem(404, "not-found");
        server.operate(Ask::get(&format!("/v1/notifications/{nothing}"))).problem(404, "not-found");
        server.operate(Ask::get(&format!("/v1/notifications/{nothing}/recipients"))).problem(404, "not-found");
    }
}

#[test]
fn a_publisher_is_told_how_many_saw_and_read_it_and_who() {
    let server = Server::start();
    let made =
        server.publish(&json!({ "to": { "users": ["alice", "bob", "carol"] }, "title": "t", "category": "loans" }));
    server.mark("alice", &json!({ "as": "seen", "upto": made["cursor"] }));
    server.mark("bob", &json!({ "as": "read", "ids": [made["id"]] }));
    server.mark("bob", &json!({ "as": "archived", "ids": [made["id"]] }));
    let told = status(&server, &id(&made));
    let expected = json!({
        "id": made["id"], "seq": made["seq"], "cursor": made["cursor"], "state": "delivered", "to": "users",
        "category": "loans", "title": "t", "created_at": told["created_at"], "expires_at": null,
        "recipients": 3, "seen": 2, "read": 1, "archived": 1,
    });
    assert_eq!(told, expected);
    let path = format!("/v1/notifications/{}/recipients", id(&made));
    let page = server.operate(Ask::get(&path)).expect(200).json();
    let did = |i: usize| ["seen_at", "read_at", "archived_at"].map(|what| page["recipients"][i][what].is_string());
    let users: Vec<_> = (0..3).map(|i| page["recipients"][i]["user"].clone()).collect();
    assert_eq!(users, ["alice", "bob", "carol"]);
    assert_eq!([did(0), did(1), did(2)], [[true, false, false], [true, true, true], [false; 3]]);
    assert_eq!(page["next"], Value::Null);
    let short = server.operate(Ask::get(&format!("{path}?limit=2"))).expect(200).json();
    assert_eq!((&short["next"], &short["recipients"][1]), (&json!("bob"), &page["recipients"][1]));
    let rest = server.operate(Ask::get(&format!("{path}?limit=2&after=bob"))).expect(200).json();
    assert_eq!(rest, json!({ "recipients": [page["recipients"][2]], "next": null }));

    server.follow("ops", "alice");
    server.follow("ops", "dave");
    let ops = server.publish(&json!({ "to": "topic:ops", "title": "t" }));
    server.mark("dave", &json!({ "as": "read", "upto": ops["cursor"] }));
    let told = status(&server, &id(&ops));
    assert_eq!(
        (&told["to"], &told["recipients"], &told["seen"], &told["read"]),
        (&json!("topic:ops"), &json!(2), &json!(1), &json!(1))
    );
    assert_eq!(status(&server, &id(&server.publish(&json!({ "to": "everyone", "title": "t" }))))["to"], "everyone");
}

#[test]
fn only_who_may_publish_there_is_told_and_may_take_it_back() {
    let server = Server::start();
    let ops = id(&server.publish(&json!({ "to": "topic:ops", "title": "t" })));
    let direct = id(&server.notify("alice", "t"));
    let waits = id(&publish(&server, &json!({ "to": "topic:ops", "title": "t", "delay": "1h" })).expect(201).json());
    let publisher = server.token_for(&json!({ "sub": "bob", "exp": token::now() + 60, "scope": "publish" }));
    let his = Ask::post("/v1/notifications").bearer(&publisher).json(&json!({ "to": "user:alice", "title": "hi" }));
    let his = id(&server.send(&his).expect(201).json());
    let all = server.key(&["publish"]);
    let of_ops = server.key(&["publish:topic/ops"]);
    let of_others = server.key(&["publish:topic/orders/*"]);
    let sees = |credential: &str, id: &str| {
        let answer = server.send(&Ask::get(&format!("/v1/notifications/{id}")).bearer(credential));
        match answer.status() {
            200 => true,
            _ => {
                answer.problem(404, "not-found");
                false
            }
        }
    };
    let seen_by = |credential: &str| [&ops, &waits, &direct, &his].map(|id| sees(credential, id));
    assert_eq!(seen_by(&all), [true; 4]);
    assert_eq!(seen_by(&of_ops), [true, true, false, false]);
    assert_eq!(seen_by(&of_others), [false; 4]);
    assert_eq!(seen_by(&publisher), [false, false, false, true]);
    let listed = |credential: &str| {
        let page = server.send(&Ask::get("/v1/scheduled").bearer(credential)).expect(200).json();
        page["scheduled"].as_array().expect("a list").len()
    };
    assert_eq!([listed(&all), listed(&of_ops), listed(&of_others), listed(&publisher)], [1, 1, 0, 0]);
    for (credential, id) in [(&of_ops, &direct), (&of_others, &ops), (&of_others, &waits), (&publisher, &direct)] {
        server.send(&Ask::delete(&format!("/v1/notifications/{id}")).bearer(credential)).problem(404, "not-found");
    }
    // A change may not send it where the caller may not publish.
    let change = Ask::put(&format!("/v1/scheduled/{waits}")).bearer(&of_ops);
    server.send(&change.json(&json!({ "to": "user:alice", "title": "t" }))).problem(403, "forbidden");
    server.send(&Ask::delete(&format!("/v1/notifications/{his}")).bearer(&publisher)).expect(200);
    server.send(&Ask::delete(&format!("/v1/notifications/{ops}")).bearer(&of_ops)).expect(200);
    assert_eq!(titles(&server, "alice"), ["t"]);
}

#[test]
fn a_life_that_can_not_be_is_refused_and_pointed_at() {
    let server = Setup::serve().env("TIDINGS_SCHEDULE_HORIZON", "2d").start();
    for (life, pointer) in [
        (json!({ "deliver_at": from_now(-120) }), "/deliver_at"),
        (json!({ "deliver_at": from_now(3 * 86_400) }), "/deliver_at"),
        (json!({ "delay": "3d" }), "/delay"),
        (json!({ "delay": u64::MAX }), "/delay"),
        (json!({ "expires_at": from_now(-1) }), "/expires_at"),
        (json!({ "expires_at": from_now(60), "delay": "2m" }), "/expires_at"),
        (json!({ "expires_at": from_now(60), "deliver_at": from_now(60) }), "/expires_at"),
        (json!({ "expires_in": 0 }), "/expires_in"),
        (json!({ "expires_in": "3651d" }), "/expires_in"),
        (json!({ "delay": 1, "deliver_at": from_now(60) }), "/delay"),
        (json!({ "collapse": "" }), "/collapse"),
        (json!({ "collapse": "a\u{0}b" }), "/collapse"),
        (json!({ "collapse": "x".repeat(129) }), "/collapse"),
    ] {
        let mut body = json!({ "to": "user:alice", "title": "t" });
        body.as_object_mut().expect("an object").extend(life.as_object().expect("an object").clone());
        let problem = publish(&server, &body).problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{life}: {problem}");
        let line = server.operate(Ask::post("/v1/notifications").ndjson(&[body])).expect(200).lines();
        assert_eq!((&line[0]["status"], &line[0]["problem"]["errors"][0]["pointer"]), (&json!(422), &json!(pointer)));
    }
    assert!(titles(&server, "alice").is_empty() && scheduled(&server).is_empty());
    // Odd keys that are keys.
    for key in ["\u{202e}", "a\"b", "'; DROP TABLE notifications; --", "{}", " ", &"库".repeat(128)] {
        for title in ["older", "newer"] {
            server.publish(&json!({ "to": "user:alice", "title": title, "collapse": key }));
        }
    }
    assert_eq!(titles(&server, "alice"), ["newer"; 6]);
}

#[test]
fn a_plain_publish_has_a_life_too() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    let plain = |target: &str, text: &str| Ask::post(target).bearer(&key).body("text/plain", text);
    server.send(&plain("/v1/publish?to=user:alice&collapse=disk", "80 %")).expect(201);
    let second = plain("/v1/publish", "90 %").header("To", "user:alice").header("Collapse", "disk");
    server.send(&second.header("Expires-In", "2h")).expect(201);
    let inbox = server.inbox("alice");
    assert_eq!((inbox["entries"].as_array().map(Vec::len), &inbox["entries"][0]["body"]), (Some(1), &json!("90 %")));
    let later =
        server.send(&plain("/v1/publish/ops?deliver_at=x", "x").header("Deliver-At", from_now(600))).expect(201);
    assert!(later.json()["seq"].is_null(), "a header wins: {}", later.text());
    let end = from_now(86_400);
    server.send(&plain(&format!("/v1/publish/ops?delay=1h&expires_at={end}"), "x")).expect(201);
    let waits = scheduled(&server);
    assert_eq!((waits.len(), moment(&waits[1]["expires_at"]).to_string()), (2, end));
    for (ask, pointer) in [
        (plain("/v1/publish/ops?expires_in=soon", "x"), "/expires_in"),
        (plain("/v1/publish/ops", "x").header("Delay", "-1"), "/delay"),
        (plain("/v1/publish/ops?expires-in=1h", "x"), "/expires-in"),
        (plain("/v1/publish/ops", "x").header("Collapse", b"\xff"), "/collapse"),
    ] {
        assert_eq!(server.send(&ask).problem(422, "invalid")["errors"][0]["pointer"], pointer);
    }
}

#[test]
fn a_repeated_scheduled_publish_is_one_with_one_answer() {
    let server = Server::start();
    let ask = |delay: &str| {
        let body = json!({ "to": "user:alice", "title": "t", "delay": delay });
        server.operate(Ask::post("/v1/notifications").header("idempotency-key", "k1").json(&body))
    };
    let first = ask("1h").expect(201);
    let again = ask("1h").expect(201);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.json(), again.json());
    ask("2h").problem(422, "idempotency-mismatch");
    assert_eq!(scheduled(&server).len(), 1);
}

#[test]
fn more_recipients_than_one_publish_may_name_are_refused_by_their_number() {
    let server = Server::start();
    let users = |many: usize| (0..many).map(|i| format!("u{i}")).collect::<Vec<_>>();
    let body = |users: Vec<String>| json!({ "to": { "users": users }, "title": "t" });
    let problem = publish(&server, &body(users(10_001))).problem(413, "too-many-recipients");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("10001")), "{problem}");
    // Told before a name is looked at, and in a batch of its line alone.
    publish(&server, &body(vec![" ".to_owned(); 10_001])).problem(413, "too-many-recipients");
    let lines = [body(vec!["u0".into()]), body(users(10_001)), body(vec!["u1".into()])];
    let results = server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200).lines();
    assert_eq!(results.iter().map(|line| line["status"].clone()).collect::<Vec<_>>(), [201, 413, 201]);
    assert_eq!(results[1]["problem"]["code"], "too-many-recipients");
    assert_eq!(titles(&server, "u0"), ["t"]);
    // What is too long to be read is refused by its length.
    let long = body((0..30_000).map(|i| format!("user-{i}")).collect());
    publish(&server, &long).problem(413, "body-too-large");
    assert_eq!(publish(&server, &body(users(10_000))).expect(201).json()["recipients"], 10_000);
}

#[test]
fn a_server_may_know_only_those_who_have_appeared() {
    let server = Setup::serve().env("TIDINGS_USERS_UNKNOWN", "refuse").start();
    let to = |users: &[&str]| json!({ "to": { "users": users }, "title": "t" });
    let problem = publish(&server, &to(&["alice"])).problem(422, "unknown-user");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("alice")), "{problem}");
    server.inbox("alice");
    publish(&server, &to(&["alice"])).expect(201);
    publish(&server, &to(&["alice", "bob"])).problem(422, "unknown-user");
    assert_eq!(titles(&server, "alice").len(), 1, "nobody got what was refused");
    // One that waits is judged when it is published and again when its time comes.
    publish(&server, &json!({ "to": "user:bob", "title": "t", "delay": "1h" })).problem(422, "unknown-user");
}

#[test]
fn what_stays_until_its_time_takes_no_position() {
    let server = Server::start();
    let before = server.notify("alice", "before");
    publish(&server, &json!({ "to": "user:alice", "title": "later", "delay": "1h" })).expect(201);
    let after = server.notify("alice", "after");
    assert_eq!(after["seq"].as_u64(), before["seq"].as_u64().map(|seq| seq + 1));
}
