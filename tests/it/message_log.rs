//! The message log: what went out and what was placed in the app as one list, in pages that leave nothing out, as a file, and
//! told for one person decision by decision.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::cli::{arg, run};
use crate::support::http::{Answer, Ask};
use crate::support::relay::Relay;
use crate::support::server::{Server, Setup};
use crate::support::wait_for;

/// A port where nobody takes mail.
const NOBODY: &str = "smtp://127.0.0.1:9?tls=none";

fn with_mail(relay: &str) -> Server {
    Setup::serve().env("TIDINGS_EMAIL_URL", relay).env("TIDINGS_EMAIL_FROM", "library@example.org").start()
}

fn ask(server: &Server, query: &str) -> Value {
    server.operate(Ask::get(&format!("/v1/deliveries?{query}"))).expect(200).json()
}

fn lines(page: &Value) -> Vec<Value> {
    page["deliveries"].as_array().expect("a list").clone()
}

/// The lines of a query, each as `medium who state`, where the topic stands for who where no user does.
fn told(server: &Server, query: &str) -> Vec<String> {
    let who = |line: &Value| line["user"].as_str().or(line["topic"].as_str()).unwrap_or("?").to_owned();
    let word = |line: &Value, name: &str| line[name].as_str().expect("a word").to_owned();
    let line = |line: &Value| format!("{} {} {}", word(line, "medium"), who(line), word(line, "state"));
    lines(&ask(server, query)).iter().map(line).collect()
}

fn know(server: &Server, user: &str, profile: &Value) {
    let answer = server.operate(Ask::put(&format!("/v1/users/{user}")).json(profile));
    assert!(answer.status() == 200 || answer.status() == 201, "{}", answer.text());
}

fn id(published: &Value) -> String {
    published["id"].as_str().expect("an id").to_owned()
}

/// Waits until nothing more happens to a notification by itself.
fn finished(server: &Server, id: &str) {
    wait_for("the deliveries to be settled", || {
        let page = ask(server, &format!("notification={id}"));
        (page["summary"]["finished"] == true && !lines(&page).is_empty()).then_some(())
    });
}

/// A template `due` about loans, in two languages.
fn with_template(server: &Server) {
    let texts = |title: &str| json!({ "in_app": { "title": title } });
    let template = json!({ "default_locale": "en", "category": "loans", "texts": { "en": texts("Due"), "zh-Hans": texts("到期") } });
    server.operate(Ask::put("/v1/templates/due").json(&template)).expect(201);
    server.operate(Ask::post("/v1/templates/due/publish")).expect(200);
}

#[test]
fn the_log_holds_what_was_placed_in_the_app_beside_what_went_out() {
    let relay = Relay::open();
    let server = with_mail(&format!("smtp://127.0.0.1:{}?tls=none", relay.port));
    with_template(&server);
    know(&server, "alice", &json!({ "email": "alice@mail.example", "locale": "zh-CN" }));
    server.follow("ops", "alice");
    let due = server.publish(&json!({ "to": { "users": ["alice", "bob"] }, "template": "due", "via": ["email"] }));
    finished(&server, &id(&due));
    let ops = server.publish(&json!({ "to": "topic:ops", "title": "Disk full", "category": "general" }));
    server.publish(&json!({ "to": "everyone", "title": "Closed on Monday" }));

    assert_eq!(
        told(&server, ""),
        ["email bob skipped", "email alice sent"],
        "besides the inbox, where nothing is said"
    );
    let all = [
        "in_app everyone stored",
        "in_app ops stored",
        "email bob skipped",
        "email alice sent",
        "in_app bob stored",
        "in_app alice stored",
    ];
    let found: BTreeSet<String> = told(&server, "medium=any").into_iter().collect();
    assert_eq!(found, all.map(str::to_owned).into());
    let hers: BTreeSet<String> = told(&server, "medium=any&user=alice").into_iter().collect();
    assert_eq!(hers, ["in_app alice stored", "email alice sent"].map(str::to_owned).into());
    assert_eq!(told(&server, "medium=in_app&user=alice").len(), 3, "for everyone, for her topic, and for her");
    assert_eq!(told(&server, "medium=in_app&user=bob").len(), 2, "he does not follow the topic");
    assert_eq!(told(&server, "medium=in_app&user=nobody"), Vec::<String>::new());

    server.mark("alice", &json!({ "as": "seen", "upto": due["cursor"] }));
    server.mark("alice", &json!({ "as": "read", "ids": [ops["id"]] }));
    let state = |query: &str| told(&server, query);
    assert_eq!(state("user=alice&state=read"), ["in_app alice read"]);
    assert_eq!(state("user=alice&state=seen"), ["in_app alice seen"]);
    assert_eq!(state("user=alice&state=stored"), ["in_app alice stored"]);
    let read = lines(&ask(&server, "user=alice&state=read")).remove(0);
    assert_eq!((&read["notification"], &read["topic"], &read["id"]), (&ops["id"], &json!("ops"), &Value::Null));
    assert!(read["read_at"].is_string() && read["seen_at"].is_string(), "{read}");
    let by_due = lines(&ask(&server, "medium=any&template=due"));
    assert_eq!(by_due.len(), 4, "two mails and two entries");
    assert!(by_due.iter().all(|line| line["template"] == "due" && line["template_version"] == 1), "{by_due:?}");
    assert_eq!((&read["template"], &read["template_version"]), (&Value::Null, &Value::Null));
    assert_eq!(state("medium=in_app&category=loans"), ["in_app bob stored", "in_app alice seen"]);
    assert_eq!(state("medium=any&state=sent"), ["email alice sent"]);
    let of_due = format!("medium=any&notification={}", id(&due));
    assert_eq!((state(&of_due).len(), state(&format!("{of_due}&user=bob")).len()), (4, 2));
    assert_eq!(state(&format!("medium=any&notification={}&user=bob", id(&ops))), Vec::<String>::new());
    assert_eq!(state("medium=any&since=2001-01-01T00:00:00Z").len(), 6);
    assert_eq!(state("medium=any&since=2999-01-01T00:00:00Z"), Vec::<String>::new());
    assert_eq!(state("medium=any&until=2001-01-01T00:00:00Z"), Vec::<String>::new());

    // What is taken back is told as it was, with what became of it.
    server.operate(Ask::delete(&format!("/v1/notifications/{}", id(&due)))).expect(200);
    let gone = lines(&ask(&server, "medium=in_app&category=loans"));
    assert_eq!(gone.len(), 2);
    assert!(gone.iter().all(|line| line["reason"] == "the notification was retracted"), "{gone:?}");
    assert_eq!(state("medium=in_app&user=alice&category=loans"), ["in_app alice seen"]);
    server.operate(Ask::delete(&format!("/v1/notifications/{}", id(&ops)))).expect(200);
    server.mark("alice", &json!({ "as": "read", "upto": server.notify("alice", "x")["cursor"] }));
    let dead = lines(&ask(&server, &format!("medium=in_app&user=alice&notification={}", id(&ops))));
    assert_eq!(state("medium=in_app&user=alice&category=loans"), ["in_app alice seen"], "what died unread stays so");
    assert_eq!(
        (dead.len(), &dead[0]["state"], &dead[0]["reason"]),
        (1, &json!("read"), &json!("the notification was retracted"))
    );

    for bad in
        ["state=lost", "medium=fax", "medium=email&state=read", "medium=in_app&state=dead", "before=7", "before=1.2"]
    {
        server.operate(Ask::get(&format!("/v1/deliveries?{bad}"))).problem(400, "bad-query");
    }
    assert_eq!(ask(&server, "")["next"], Value::Null);
}

/// What tells a line from every other.
fn key(line: &Value) -> String {
    format!("{} {} {} {}", line["id"], line["notification"], line["user"], line["medium"])
}

/// All lines of a query, page by page; how many pages were cut short.
fn walked(server: &Server, query: &str) -> (Vec<Value>, usize) {
    let (mut all, mut cut, mut before) = (Vec::new(), 0, String::new());
    loop {
        let page = ask(server, &format!("{query}&limit=1000{before}"));
        cut += usize::from(page["cut_short"] == true);
        all.extend(lines(&page));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return (all, cut),
        }
    }
}

/// Names to which a publish goes at once.
fn crowd() -> Vec<String> {
    (0..200).map(|i| format!("u{i}")).collect()
}

#[test]
fn pages_put_together_leave_nothing_out_and_hold_nothing_twice() {
    const PUBLISHES: usize = 28;
    let server = with_mail(NOBODY);
    let rare = server.publish(&json!({ "to": "user:u7", "title": "rare", "category": "rare", "via": ["email"] }));
    let mut order = vec![rare["id"].clone()];
    for _ in 0..PUBLISHES {
        let published = server.publish(&json!({ "to": { "users": crowd() }, "title": "x", "via": ["email"] }));
        order.push(published["id"].clone());
    }
    // More of either kind than one page looks through.
    let expected = PUBLISHES * 200 + 1;
    assert!(expected > 5_000);
    for query in ["", "medium=in_app", "medium=any"] {
        let (all, _) = walked(&server, query);
        let keys: BTreeSet<String> = all.iter().map(key).collect();
        let expected = if query == "medium=any" { expected * 2 } else { expected };
        assert_eq!((all.len(), keys.len()), (expected, expected), "{query}");
        for medium in ["email", "in_app"] {
            let of_medium = all.iter().filter(|line| line["medium"] == medium);
            let places: Vec<_> =
                of_medium.map(|line| order.iter().position(|id| *id == line["notification"])).collect();
            assert!(places.is_sorted_by(|newer, older| newer >= older), "{query}: the newest first");
        }
    }
    // The oldest of all is found behind more than one page looks through, and each page that did not come so far says so.
    server.mark("u7", &json!({ "as": "read", "ids": [rare["id"]] }));
    for (query, count) in [("category=rare", 1), ("medium=in_app&state=read", 1), ("medium=any&category=rare", 2)] {
        let (found, cut) = walked(&server, query);
        assert_eq!(found.len(), count, "{query}");
        assert!(found.iter().all(|line| line["notification"] == rare["id"]), "{query}");
        assert!(cut > 0, "{query}");
        let first = ask(&server, query);
        assert!(first["next"].is_string() && first["cut_short"] == true, "{query}: {first}");
    }
    let (hers, cut) = walked(&server, "medium=any&user=u7");
    assert_eq!((hers.len(), cut), (2 * (PUBLISHES + 1), 0));
    let small: Vec<String> = {
        let (mut keys, mut before) = (Vec::new(), String::new());
        loop {
            let page = ask(&server, &format!("medium=any&user=u7&limit=7{before}"));
            keys.extend(lines(&page).iter().map(key));
            match page["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => break keys,
            }
        }
    };
    assert_eq!(small, hers.iter().map(key).collect::<Vec<_>>(), "pages of any size are the same list");

    let export = |format: &str| server.operate(Ask::get(&format!("/v1/deliveries/export?medium=any&format={format}")));
    let exported: BTreeSet<String> = export("ndjson").expect(200).lines().iter().map(key).collect();
    assert_eq!(exported.len(), 2 * expected);
    let table = export("csv").expect(200);
    assert_eq!(table.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(table.text().split("\r\n").count(), 2 * expected + 2, "with its head, and nothing behind the last end");
}

/// The cells of a table (RFC 4180).
fn cells(table: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = table.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    assert!(row.is_empty() && cell.is_empty() && !quoted, "the last row has its end");
    rows
}

#[test]
fn an_export_is_lines_or_a_table_and_no_cell_of_it_is_a_formula() {
    let server = with_mail(NOBODY);
    let names = ["=HYPERLINK(\"http://x.example\",\"y\")", "+1", "-1", "@SUM(A1)", "a;=1+1", "plain"];
    know(&server, "plain", &json!({ "email": "=1+1@mail.example" }));
    let published = server.publish(&json!({ "to": { "users": names }, "title": "x", "via": ["email"] }));
    let table = |ask: Ask| server.operate(ask).expect(200);
    let asked = table(Ask::get("/v1/deliveries/export?medium=any").header("accept", "text/csv"));
    let rows = cells(asked.text());
    let column = |name: &str| rows[0].iter().position(|head| head == name).expect("a column");
    assert_eq!(rows.len(), 1 + 2 * names.len());
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{rows:?}");
    for row in &rows[1..] {
        assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])), "{row:?}");
    }
    let users: BTreeSet<&str> = rows[1..].iter().map(|row| row[column("user")].trim_start_matches('\'')).collect();
    assert_eq!(users, names.into());
    assert!(rows.iter().any(|row| row[column("address")] == "'=1+1@mail.example"));
    assert!(asked.text().contains("\"a;=1+1\""), "some spreadsheets cut at semicolons");

    let of = |more: &str| format!("/v1/deliveries/export?notification={}{more}", id(&published));
    let plain = server.operate(Ask::get(&of(""))).expect(200);
    assert_eq!(plain.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(plain.lines().len(), names.len(), "besides the inbox, where nothing is said");
    let addresses: BTreeSet<String> = plain.lines().iter().map(|line| line["address"].to_string()).collect();
    assert!(addresses.contains("\"=1+1@mail.example\""), "lines are as they are: {addresses:?}");
    let both = Ask::get(&of("&format=ndjson")).header("accept", "text/csv");
    assert_eq!(server.operate(both).expect(200).header("content-type"), Some("application/x-ndjson"));
    for bad in ["format=xlsx", "limit=7", "before=1.2.3", "state=lost"] {
        server.operate(Ask::get(&format!("/v1/deliveries/export?{bad}"))).problem(400, "bad-query");
    }
    let empty = server.operate(Ask::get("/v1/deliveries/export?user=nobody&format=csv")).expect(200);
    assert_eq!(cells(empty.text()).len(), 1);
    server.send(&Ask::get("/v1/deliveries/export").bearer(&server.key(&["publish"]))).problem(403, "forbidden");
}

/// The decisions for one person, as `step medium: decision`.
fn decisions(answer: &Answer) -> Vec<String> {
    let word = |one: &Value, name: &str| one[name].as_str().map(str::to_owned);
    let line = |one: &Value| {
        let medium = word(one, "medium").map(|medium| format!(" {medium}")).unwrap_or_default();
        format!("{}{medium}: {}", word(one, "step").expect("a step"), word(one, "decision").expect("a decision"))
    };
    answer.json()["decisions"].as_array().expect("a list").iter().map(line).collect()
}

fn reason(answer: &Answer, step: &str) -> String {
    let answer = answer.json();
    let mut all = answer["decisions"].as_array().expect("a list").iter();
    let found = all.find(|one| one["step"] == step).expect("the step is there");
    found["reason"].as_str().expect("a reason").to_owned()
}

fn explain(server: &Server, id: &str, user: &str) -> Answer {
    server.operate(Ask::get(&format!("/v1/notifications/{id}/explain?user={user}")))
}

#[test]
fn did_she_get_it_is_answered_decision_by_decision() {
    let relay = Relay::open();
    let server = with_mail(&format!("smtp://127.0.0.1:{}?tls=none", relay.port));
    with_template(&server);
    know(&server, "alice", &json!({ "email": "alice@mail.example", "locale": "zh-CN" }));
    know(&server, "carol", &json!({ "email": "carol@mail.example", "preferences": { "loans": { "email": false } } }));
    know(&server, "dave", &json!({ "email": "rcpt-550-5.1.1@mail.example" }));
    let to = json!({ "users": ["alice", "bob", "carol", "dave"] });
    let due = server.publish(&json!({ "to": to, "template": "due", "via": ["email"] }));
    let due = id(&due);
    // What is published by a template keeps the version that it was published by, whatever comes after it.
    let newer = json!({ "category": "loans", "texts": { "en": { "in_app": { "title": "Newer" } } } });
    server.operate(Ask::put("/v1/templates/due").json(&newer)).expect(201);
    server.operate(Ask::post("/v1/templates/due/publish")).expect(200);
    finished(&server, &due);

    let alice = explain(&server, &due, "alice").expect(200);
    let expected = [
        "audience: named",
        "template: worded",
        "preference email: wanted",
        "dedupe: none",
        "medium in_app: inbox",
        "medium email: sent",
        "attempt email: sent",
        "in_app in_app: stored",
    ];
    assert_eq!(decisions(&alice), expected);
    assert!(reason(&alice, "template").contains("version 1 of the template `due` has `zh-Hans`"), "{}", alice.text());
    let sent = alice.json()["decisions"][5].clone();
    assert!(sent["delivery"].is_u64() && sent["at"].is_string() && sent["next_at"].is_null(), "{sent}");
    assert!(reason(&alice, "attempt").contains("250"), "{}", reason(&alice, "attempt"));
    let bob = explain(&server, &due, "bob").expect(200);
    assert_eq!(
        decisions(&bob)[1..6],
        [
            "template: default",
            "preference email: wanted",
            "dedupe: none",
            "medium in_app: inbox",
            "medium email: skipped"
        ]
    );
    assert!(bob.text().contains("no email address is known"));
    let carol = explain(&server, &due, "carol").expect(200);
    assert_eq!(decisions(&carol)[2], "preference email: unwanted");
    assert!(reason(&carol, "preference").contains("does not want email about loans"));
    // What she says later changes nothing of what was decided.
    know(&server, "carol", &json!({ "preferences": { "loans": { "email": true } } }));
    assert_eq!(decisions(&explain(&server, &due, "carol").expect(200))[2], "preference email: unwanted");
    let dave = explain(&server, &due, "dave").expect(200);
    assert_eq!(decisions(&dave)[5..7], ["medium email: dead", "attempt email: never"]);
    assert!(reason(&dave, "attempt").contains("550"), "{}", reason(&dave, "attempt"));

    server.mark("alice", &json!({ "as": "read", "ids": [due] }));
    let read = explain(&server, &due, "alice").expect(200);
    assert_eq!(decisions(&read).last().map(String::as_str), Some("in_app in_app: read"));
    let nobody = explain(&server, &due, "erin").expect(200);
    assert_eq!(decisions(&nobody), ["audience: outside"]);
    server.notify("erin", "x");
    assert_eq!(decisions(&explain(&server, &due, "erin").expect(200)), ["audience: outside"]);

    server.operate(Ask::delete(&format!("/v1/notifications/{due}"))).expect(200);
    let gone = explain(&server, &due, "alice").expect(200);
    assert_eq!(decisions(&gone)[4], "medium in_app: gone");
    assert_eq!(decisions(&gone).last().map(String::as_str), Some("in_app in_app: read"), "she had read it before");
    assert!(gone.text().contains("the notification was retracted"), "{}", gone.text());

    explain(&server, "00000000-0000-0000-0000-000000000000", "alice").problem(404, "not-found");
    let bare = format!("/v1/notifications/{due}/explain");
    server.operate(Ask::get(&bare)).problem(400, "bad-query");
    server.operate(Ask::get(&format!("{bare}?user=alice&medium=email"))).problem(400, "bad-query");
    let key = server.key(&["publish"]);
    server.send(&Ask::get(&format!("{bare}?user=alice")).bearer(&key)).problem(403, "forbidden");
    let key = server.key(&["users"]);
    server.send(&Ask::get(&format!("{bare}?user=alice")).bearer(&key)).expect(200);
}

#[test]
fn whom_a_topic_everyone_and_a_schedule_reach_is_told_with_what_took_its_place() {
    let server = with_mail(NOBODY);
    server.follow("ops", "alice");
    server.follow("ops", "bob");
    server.send(&Ask::put("/v1/topics/ops/mute").bearer(&server.token("bob"))).expect(200);
    let first = id(&server.publish(&json!({ "to": "topic:ops", "title": "x", "collapse": "disk", "via": ["email"] })));
    finished(&server, &first);
    server.operate(Ask::delete("/v1/topics/ops/followers/alice")).expect(200);
    server.follow("ops", "late");
    let second = id(&server.publish(&json!({ "to": "topic:ops", "title": "y", "collapse": "disk" })));
    let of = |id: &str, user: &str| explain(&server, id, user).expect(200);
    assert_eq!(decisions(&of(&first, "alice"))[..2], ["audience: follows", "template: none"]);
    assert!(reason(&of(&first, "alice"), "audience").contains("have left it since"));
    assert_eq!(decisions(&of(&first, "alice"))[3], "dedupe: replaced");
    let dedupe = reason(&of(&first, "alice"), "dedupe");
    assert!(dedupe.contains(&second) && dedupe.contains("`disk`"), "{dedupe}");
    assert_eq!(decisions(&of(&second, "alice")), ["audience: outside"]);
    assert_eq!(decisions(&of(&second, "late"))[3], "dedupe: newest");
    assert_eq!(decisions(&of(&first, "late")), ["audience: outside"]);
    // What came after its end took nothing's place, so nothing is said of whether something has.
    server.operate(Ask::delete(&format!("/v1/notifications/{second}"))).expect(200);
    server.publish(&json!({ "to": "topic:ops", "title": "z", "collapse": "disk" }));
    assert_eq!(decisions(&of(&second, "late"))[3], "dedupe: ended");
    assert!(reason(&of(&second, "late"), "dedupe").contains("before it was over"));
    let muted = of(&first, "bob");
    assert!(reason(&muted, "audience").contains("they have muted it"));
    assert!(muted.text().contains("has muted the topic"), "{}", muted.text());

    let everyone = id(&server.publish(&json!({ "to": "everyone", "title": "x" })));
    assert_eq!(decisions(&of(&everyone, "alice"))[..3], ["audience: everyone", "template: none", "preference: none"]);
    let waits = id(&server.publish(&json!({ "to": { "users": ["alice"] }, "title": "x", "delay": "1h" })));
    assert_eq!(decisions(&of(&waits, "alice")), ["audience: named", "medium in_app: waits"]);
    assert_eq!(decisions(&of(&waits, "bob")), ["audience: outside"]);
    let waits = id(&server.publish(&json!({ "to": "topic:ops", "title": "x", "delay": "1h" })));
    assert_eq!(decisions(&of(&waits, "bob")), ["audience: waits", "medium in_app: waits"]);

    // A notification may be gone before its deliveries are.
    server.operate(Ask::delete("/v1/topics/ops")).expect(204);
    assert_eq!(
        decisions(&of(&first, "alice")),
        ["audience: unknown", "preference email: wanted", "medium email: skipped"]
    );
    assert_eq!(decisions(&of(&first, "late")), ["audience: unknown"], "it may have been theirs or not");
    assert_eq!(decisions(&of(&first, "nobody")), ["audience: unknown"]);
    explain(&server, &second, "alice").problem(404, "not-found");
}

/// Deliveries that one answer looks through.
const LOOKED_THROUGH: u64 = 20_000;

/// Writes down more deliveries to a user than one answer looks through, as another year would.
fn age(server: &mut Server, change: &str) {
    server.kill();
    let log = rusqlite::Connection::open(server.data().join("tidings.db")).expect("the log opens");
    let now = log.query_row("SELECT max(created_at) FROM deliveries", [], |row| row.get::<_, i64>(0)).expect("a time");
    let deliveries = "
        INSERT INTO deliveries (notification, user, medium, lane, category, bulk, state, reason, created_at, settled_at)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        SELECT randomblob(16), (SELECT id FROM users WHERE name = 'alice'), 1, '', 'general', 0, 6, 'x', ?2, ?2 FROM n";
    log.execute(deliveries, rusqlite::params![LOOKED_THROUGH + 1, now]).expect("they are written");
    log.execute_batch(change).expect("is changed");
    drop(log);
    server.restart();
}

#[test]
fn what_became_of_it_is_found_however_much_came_since_and_what_can_not_be_told_is_said() {
    let mut server = with_mail(NOBODY);
    server.follow("ops", "alice");
    server.follow("ops", "bob");
    // One after the other, so that it is known which number each delivery has.
    let publish = |to: &str| {
        let id = id(&server.publish(&json!({ "to": to, "title": "x", "via": ["email"] })));
        finished(&server, &id);
        id
    };
    let (living, gone, unsent) = (publish("user:alice"), publish("topic:ops"), publish("user:bob"));
    server.operate(Ask::delete("/v1/topics/ops")).expect(204);
    // A delivery that is not kept any more, of a notification that is.
    age(&mut server, "DELETE FROM deliveries WHERE user = (SELECT id FROM users WHERE name = 'bob') AND id = 4");
    let of = |server: &Server, id: &str, user: &str| decisions(&explain(server, id, user).expect(200));
    let sent = ["preference email: wanted", "dedupe: none", "medium in_app: inbox", "medium email: skipped"];
    assert_eq!(of(&server, &living, "alice")[2..6], sent);
    assert_eq!(
        of(&server, &gone, "alice"),
        ["audience: unknown", "preference email: wanted", "medium email: skipped"],
        "the notification is gone, and her delivery lies behind many that came since"
    );
    assert_eq!(
        of(&server, &unsent, "bob")[2..],
        ["preference: unknown", "dedupe: none", "medium in_app: inbox", "medium: unknown", "in_app in_app: stored"],
        "there was a delivery, and it is not kept"
    );

    // Deliveries of one notification, with more to her between the first and the last than are looked through.
    age(&mut server, "UPDATE deliveries SET id = 1000000 WHERE id = 3");
    let too_many = of(&server, &gone, "alice");
    assert_eq!(too_many.first().map(String::as_str), Some("audience: unknown"));
    assert_eq!(too_many.last().map(String::as_str), Some("medium: unknown"), "{too_many:?}");
    assert_eq!(of(&server, &gone, "nobody"), ["audience: unknown"]);
}

#[test]
fn the_command_line_shows_the_log_tells_it_and_writes_it_down() {
    let relay = Relay::open();
    let server = with_mail(&format!("smtp://127.0.0.1:{}?tls=none", relay.port));
    // Comes again later.
    know(&server, "alice", &json!({ "email": "rcpt-451@mail.example" }));
    let published =
        id(&server.publish(&json!({ "to": { "users": ["alice", "bob"] }, "title": "x", "via": ["email"] })));
    let line = wait_for("an attempt", || {
        let lines = lines(&ask(&server, "user=alice"));
        lines.into_iter().find(|line| line["attempts"] == 1 && line["state"] == "pending")
    });
    let number = line["id"].to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("log.csv");
    let data = server.data().to_owned();
    let log = |args: &[&str]| run(&[&["log"][..], args, &["--data", arg(&data)]].concat(), "").well();
    let check = |with: &str| {
        let said = log(&[]);
        let rows: Vec<&str> = said.out.lines().collect();
        assert!(rows.len() == 5 && rows[0].starts_with("ID"), "{with}: {said:?}");
        assert!(rows.iter().any(|row| row.contains("in_app") && row.contains("stored")), "{with}: {said:?}");
        assert!(rows.iter().any(|row| row.contains("bob") && row.contains("no email address is known")), "{said:?}");
        let said = log(&["--user", "alice", "--medium", "in_app", "--since", "1h", "--json"]);
        assert_eq!(said.out.lines().count(), 1, "{said:?}");
        assert_eq!(said.json()["state"], "stored");
        let said = log(&["--limit", "1"]);
        assert!(said.out.lines().count() == 2 && said.err.contains("There is more"), "{said:?}");
        let said = log(&["--user", "nobody"]);
        assert!(said.out.is_empty() && said.err.contains("nothing like that"), "{said:?}");
        let said = log(&["show", &number]);
        assert!(said.out.contains("message id") && said.out.contains("later"), "{said:?}");
        let said = log(&["explain", &published, "--user", "bob"]);
        assert!(said.out.lines().any(|line| line.starts_with("medium") && line.contains("skipped")), "{said:?}");
        let said = log(&["explain", &published, "--user", "bob", "--json"]);
        assert_eq!(said.json()["user"], "bob");
        let said = log(&["export", "--user", "alice"]);
        assert_eq!(said.out.lines().count(), 2, "{said:?}");
        let said = log(&["export", "--format", "csv", "--output", arg(&file), "--json"]);
        assert_eq!(said.json()["lines"], 4, "{said:?}");
        assert_eq!(cells(&std::fs::read_to_string(&file).expect("it was written")).len(), 5);
    };
    check("with a running server");
    let said = run(&["log", "--state", "lost", "--data", arg(&data)], "");
    assert!(said.code == 1 && said.err.contains("stored, seen, read"), "{said:?}");
    let said = run(&["log", "explain", "7", "--user", "bob", "--data", arg(&data)], "");
    assert!(said.code == 1 && said.err.contains("404"), "{said:?}");
    let _kept = server.stop();
    check("without one");
}

#[test]
fn a_persons_export_has_their_deliveries_with_every_attempt_and_an_erasure_takes_them_out_of_the_log() {
    let relay = Relay::open();
    let server = with_mail(&format!("smtp://127.0.0.1:{}?tls=none", relay.port));
    for user in ["alice", "bob"] {
        know(&server, user, &json!({ "email": format!("{user}@mail.example") }));
    }
    let published = server.publish(&json!({ "to": { "users": ["alice", "bob"] }, "title": "x", "via": ["email"] }));
    finished(&server, &id(&published));
    let records = server.operate(Ask::get("/v1/users/alice/export")).expect(200).lines();
    let deliveries: Vec<&Value> = records.iter().filter(|record| record["kind"] == "delivery").collect();
    assert_eq!(deliveries.len(), 1, "{records:?}");
    assert_eq!((&deliveries[0]["address"], &deliveries[0]["state"]), (&json!("alice@mail.example"), &json!("sent")));
    let attempts = deliveries[0]["timeline"].as_array().expect("her attempts");
    assert!(
        attempts.len() == 1 && attempts[0]["answer"].as_str().is_some_and(|text| text.contains("250")),
        "{attempts:?}"
    );
    assert!(!records.iter().any(|record| record.to_string().contains("bob")));
    server.operate(Ask::delete("/v1/users/alice")).expect(200);
    let left: BTreeMap<String, usize> =
        lines(&ask(&server, "medium=any")).iter().fold(BTreeMap::new(), |mut all, line| {
            *all.entry(line["user"].to_string()).or_default() += 1;
            all
        });
    assert_eq!(left, BTreeMap::from([("\"bob\"".to_owned(), 2)]));
    assert_eq!(lines(&ask(&server, "medium=any&user=alice")), Vec::<Value>::new());
    assert_eq!(decisions(&explain(&server, &id(&published), "alice").expect(200)), ["audience: outside"]);
}
