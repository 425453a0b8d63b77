//! Everything about one user handed out and erased, and what operators do with the store while it is in use.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask, Connection};
use crate::support::server::Server;
use crate::support::{token, wait_for};

fn export(server: &Server, user: &str) -> Answer {
    server.operate(Ask::get(&format!("/v1/users/{user}/export")))
}

fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

fn titles(records: &[Value], kind: &str) -> Vec<String> {
    of_kind(records, kind).iter().map(|record| record["title"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Publishes as a user whose token allows it.
fn publish_as(server: &Server, user: &str, body: &Value) -> Value {
    let token = server.token_for(&json!({ "sub": user, "exp": token::now() + 60, "scope": "publish" }));
    server.send(&Ask::post("/v1/notifications").bearer(&token).json(body)).expect(201).json()
}

/// Something of everything that is stored about a user, for `alice` and for `bob`.
fn two_people() -> Server {
    let server = Server::start();
    for user in ["alice", "bob"] {
        let other = if user == "alice" { "bob" } else { "alice" };
        server.follow("ops", user);
        server.follow(&format!("only-{user}"), user);
        server.send(&Ask::put("/v1/topics/ops/mute").bearer(&server.token(user))).expect(200);
        let first = server.notify(user, &format!("direct to {user}"));
        server.mark(user, &json!({ "as": "read", "upto": first["cursor"] }));
        server.ticket(user);
        publish_as(&server, user, &json!({ "to": format!("user:{other}"), "title": format!("from {user}") }));
        publish_as(
            &server,
            user,
            &json!({ "to": "topic:later", "title": format!("later from {user}"), "delay": "1h" }),
        );
    }
    server.publish(&json!({ "to": "topic:ops", "title": "ops" }));
    server.publish(&json!({ "to": { "users": ["alice", "bob"] }, "title": "both" }));
    server
}

#[test]
fn an_export_has_everything_about_a_user_and_nothing_about_others() {
    let server = two_people();
    let answer = export(&server, "alice").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let records = answer.lines();
    let user = of_kind(&records, "user");
    assert_eq!((user.len(), &user[0]["user"]), (1, &json!("alice")));
    assert!(user[0]["appeared_at"].is_string());
    let follows: BTreeSet<_> = of_kind(&records, "follow").iter().map(|follow| follow["topic"].to_string()).collect();
    assert_eq!(follows, [r#""only-alice""#, r#""ops""#].map(str::to_owned).into());
    let ops = of_kind(&records, "follow").into_iter().find(|follow| follow["topic"] == "ops").expect("it is there");
    assert_eq!((&ops["following"], &ops["muted"]), (&json!(true), &json!(true)));
    let entries = of_kind(&records, "entry");
    assert_eq!(titles(&records, "entry"), ["direct to alice", "from bob", "ops", "both"]);
    assert!(entries[0]["state"]["read_at"].is_string() && entries[1]["state"]["read_at"].is_null());
    let marks: Vec<_> = of_kind(&records, "watermark").iter().map(|mark| mark["as"].clone()).collect();
    assert!(marks.contains(&json!("read")), "{marks:?}");
    assert_eq!(of_kind(&records, "ticket").len(), 1);
    assert_eq!(titles(&records, "published"), ["from alice"]);
    assert_eq!(titles(&records, "scheduled"), ["later from alice"]);
    let kinds: BTreeSet<_> = records.iter().map(|record| record["kind"].as_str().expect("a kind")).collect();
    let all = ["user", "follow", "watermark", "ticket", "entry", "published", "scheduled"];
    assert_eq!(kinds, all.into(), "each is one of those that are described");
    for foreign in ["direct to bob", "only-bob", "later from bob"] {
        assert!(!answer.text().contains(foreign), "{foreign}");
    }
    assert!(!answer.text().contains("tk_"), "no secret is handed out");
    export(&server, "nobody").problem(404, "not-found");
    server.operate(Ask::get("/v1/users/alice/export?kind=entry")).problem(400, "bad-query");
}

#[test]
fn an_export_of_many_entries_comes_page_by_page_and_stops_for_a_client_that_goes() {
    let server = Server::start();
    let many = 2_000;
    let body = "x".repeat(5_000);
    let lines: Vec<_> =
        (0..many).map(|i| json!({ "to": "user:alice", "title": i.to_string(), "body": body })).collect();
    for part in lines.chunks(500) {
        server.operate(Ask::post("/v1/notifications").ndjson(part)).expect(200);
    }
    let records = export(&server, "alice").expect(200).lines();
    let expected: Vec<_> = (0..many).map(|i| i.to_string()).collect();
    assert_eq!(titles(&records, "entry"), expected, "each once, oldest first");

    // A client that reads a little and goes; the server goes on.
    let ask = Ask::get("/v1/users/alice/export").bearer(&server.operator());
    let mut connection = Connection::open(server.place()).expect("the server accepts");
    connection.send(&ask.to_bytes()).expect("the server reads");
    assert_eq!(connection.head().expect("the server answers").status, 200);
    assert!(connection.chunk().expect("the first page").is_some_and(|chunk| !chunk.is_empty()));
    drop(connection);
    server.notify("alice", "after");
    assert_eq!(titles(&export(&server, "alice").expect(200).lines(), "entry").len(), many + 1);
}

#[test]
fn an_erased_user_is_gone_and_others_keep_what_is_theirs() {
    let server = two_people();
    let mut stream = server.stream("alice", "?cursor=now");
    stream.expect("hello");
    let erased = server.operate(Ask::delete("/v1/users/alice")).expect(200).json();
    // "direct to alice", "from bob" and "both" were in the inbox; the first two were nobody else's, "from alice" is bob's.
    assert_eq!(erased, json!({ "entries": 3, "notifications": 2, "unsigned": 1 }));
    stream.until("bye");
    stream.gone();
    export(&server, "alice").problem(404, "not-found");
    server.operate(Ask::delete("/v1/users/alice")).problem(404, "not-found");
    let bob: Vec<_> = server.inbox("bob")["entries"].as_array().expect("a list").clone();
    let told: Vec<_> = bob.iter().map(|entry| (entry["title"].clone(), entry["sender"].clone())).collect();
    assert_eq!(
        told,
        ["both", "ops", "direct to bob", "from alice"].map(|title| (json!(title), Value::Null)),
        "what she wrote stays without her name"
    );
    let records = export(&server, "bob").expect(200).lines();
    assert_eq!(titles(&records, "scheduled"), ["later from bob"]);
    let followers = server.operate(Ask::get("/v1/topics/ops/followers")).expect(200).json();
    assert_eq!(followers["followers"], json!([{ "user": "bob", "muted": true }]));
    // Who comes back under the name begins anew.
    // The harness's tokens don't say when they were made, so they count as made before.
    server.send(&Ask::get("/v1/inbox").bearer(&server.token("alice"))).problem(401, "revoked");
    server.operate(Ask::delete("/v1/users/alice/revocation")).expect(200);
    assert_eq!(server.inbox("alice")["entries"], json!([]));
    assert_eq!(server.inbox("alice")["counts"]["unread"], 0);
}

/// Entries that an erasure takes in several transactions.
const MANY: usize = 4_000;

#[test]
fn an_erasure_that_a_kill_cuts_short_is_finished_by_the_next_start() {
    let mut server = Server::start();
    let lines: Vec<Value> = (0..MANY).map(|i| json!({ "to": "user:vic", "title": format!("for vic {i}") })).collect();
    server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200);
    let (place, operator) = (server.place().clone(), server.operator());
    let erasing = std::thread::spawn(move || Ask::delete("/v1/users/vic").bearer(&operator).attempt(&place));
    // The first transaction hides the user; the rest of them takes a while.
    wait_for("the user to be forgotten", || {
        let counts = server.operate(Ask::get("/v1/users/vic/counts")).expect(200).json();
        (counts["unread"] == 0).then_some(())
    });
    server.kill();
    // It was cut short, or it was faster than the kill: either way nothing may be left behind.
    let _ = erasing.join().expect("the request does not panic");

    server.restart();

    let counts = server.operate(Ask::get("/v1/users/vic/counts")).expect(200).json();
    assert_eq!((&counts["unread"], &counts["unseen"]), (&json!(0), &json!(0)));
    server.operate(Ask::delete("/v1/users/vic")).problem(404, "not-found");
    server.operate(Ask::post("/v1/upkeep/compact")).expect(200);
    let log = std::fs::read(server.data().join("tidings.db")).expect("the log is there");
    let found = log.windows(b"for vic".len()).any(|bytes| bytes == b"for vic");
    assert!(!found, "the log still holds what was erased");
}

#[test]
fn what_was_erased_is_gone_from_the_file_when_it_is_compacted() {
    let server = Server::start();
    let secret = "the-number-is-8472916";
    let lines: Vec<_> = (0..500).map(|_| json!({ "to": "user:alice", "title": secret, "body": secret })).collect();
    server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200);
    server.notify("bob", "kept");
    server.operate(Ask::delete("/v1/users/alice")).expect(200);
    let compacted = server.operate(Ask::post("/v1/upkeep/compact")).expect(200).json();
    let (before, after) = (compacted["before"].as_u64().expect("bytes"), compacted["after"].as_u64().expect("bytes"));
    assert!(after > 0 && after <= before, "{compacted}");
    for name in ["tidings.db", "tidings.db-wal"] {
        let mut bytes = Vec::new();
        if let Ok(mut file) = std::fs::File::open(server.data().join(name)) {
            file.read_to_end(&mut bytes).expect("it can be read");
        }
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{name} still holds what was erased");
    }
    assert_eq!(server.inbox("bob")["entries"][0]["title"], "kept");
    server.notify("bob", "after");
    assert_eq!(server.inbox("bob")["counts"]["unread"], 2);
}

#[test]
fn a_recount_tells_who_drifted_and_repairs_only_where_asked() {
    let mut server = Server::start();
    for user in ["alice", "bob", "carol"] {
        server.follow("ops", user);
        server.notify(user, "direct");
    }
    server.publish(&json!({ "to": "topic:ops", "title": "ops" }));
    let recount = |server: &Server, body: &Value| server.operate(Ask::post("/v1/upkeep/recount").json(body));
    let right = recount(&server, &json!({})).expect(200).json();
    assert_eq!(right, json!({ "users": 3, "of": 3, "drifted": [], "next": null }));
    server.kill();
    let log = rusqlite::Connection::open(server.data().join("tidings.db")).expect("the log");
    let of_bob = "user = (SELECT id FROM users WHERE name = 'bob') AND source < 0";
    let spoilt = log.execute(&format!("UPDATE standings SET unread_gone = unread_gone + 1 WHERE {of_bob}"), []);
    assert_eq!(spoilt.expect("it is free"), 1);
    drop(log);
    server.restart();
    let drifted = recount(&server, &json!({ "repair": false })).expect(200).json()["drifted"].clone();
    let counts = |unread: u64| {
        let general = json!({ "unread": unread, "unseen": 2 });
        json!({ "unread": unread, "unseen": 2, "by_category": { "general": general } })
    };
    assert_eq!(drifted, json!([{ "user": "bob", "stored": counts(1), "recounted": counts(2) }]));
    let told = |server: &Server| {
        let ask = Ask::get("/v1/inbox/counts").bearer(&server.token("bob"));
        server.send(&ask).expect(200).json()["unread"].clone()
    };
    assert_eq!(told(&server), 1, "nothing was repaired unasked");
    assert_eq!(recount(&server, &json!({ "repair": true })).expect(200).json()["drifted"], drifted);
    assert_eq!(told(&server), 2);
    assert_eq!(recount(&server, &json!({})).expect(200).json()["drifted"], json!([]));
    // Past the last user there is nobody.
    let past = recount(&server, &json!({ "after": 1_000_000 })).expect(200).json();
    assert_eq!((&past["users"], &past["next"]), (&json!(0), &Value::Null));
    for bad in [json!({ "after": -1 }), json!({ "repair": "yes" }), json!({ "fix": true })] {
        recount(&server, &bad).problem(422, "invalid");
    }
}
