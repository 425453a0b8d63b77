//! Many at once: notifications and followers as NDJSON, each line for itself.

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask, check_problem};
use crate::support::server::Server;

fn batch(server: &Server, lines: &[Value]) -> Vec<Value> {
    let answer = server.operate(Ask::post("/v1/notifications").ndjson(lines)).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.lines()
}

fn raw(server: &Server, body: &str) -> Answer {
    server.operate(Ask::post("/v1/notifications").body("application/x-ndjson", body))
}

fn line(title: &str) -> Value {
    json!({ "to": "user:alice", "title": title })
}

#[test]
fn a_batch_answers_a_line_for_each_line_in_order_and_commits_in_order() {
    let server = Server::start();
    let titles: Vec<String> = (0..300).map(|i| format!("t{i}")).collect();
    let results = batch(&server, &titles.iter().map(|title| line(title)).collect::<Vec<_>>());
    assert_eq!(results.len(), titles.len());
    let seqs: Vec<u64> = results.iter().map(|result| result["seq"].as_u64().expect("a seq")).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    assert!(results.iter().all(|result| result["status"] == 201 && result["recipients"] == 1));
    let mut stream = server.stream("alice", "?cursor=start&events=notification");
    stream.expect("hello");
    assert_eq!(stream.titles_to("t299"), titles);
}

#[test]
fn a_broken_line_fails_alone() {
    let server = Server::start();
    let body = [
        r#"{"to":"user:alice","title":"first"}"#,
        r#"{"to":"user:alice","title":"cut"#,
        "",
        r#"{"to":"user:alice","titel":"misspelt","body":"b"}"#,
        "\u{7f}",
        r#"{"to":"topic:a b","title":"t"}"#,
        r#"{"to":"user:alice","title":"last"}"#,
    ];
    // The last line needs no break.
    let results = raw(&server, &body.join("\r\n")).expect(200).lines();
    assert_eq!(results.len(), 6, "a blank line is none: {results:?}");
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap_or_default()).collect();
    assert_eq!(statuses, [201, 400, 422, 400, 422, 201]);
    for (at, code) in [(1, "bad-json"), (2, "invalid"), (3, "bad-json"), (4, "invalid")] {
        check_problem(&results[at]["problem"], u16::try_from(statuses[at]).unwrap_or_default(), code);
    }
    assert_eq!(results[2]["problem"]["errors"][0]["pointer"], "/titel");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 2);
}

#[test]
fn each_line_has_its_own_idempotency_key() {
    let server = Server::start();
    let keyed = |key: &str, title: &str| json!({ "to": "user:alice", "title": title, "idempotency_key": key });
    let lines = [keyed("a", "one"), keyed("b", "two"), line("three")];
    let first = batch(&server, &lines);
    let again = batch(&server, &[keyed("b", "two"), keyed("a", "one"), keyed("", "x")]);
    assert_eq!([&again[0], &again[1]], [&first[1], &first[0]], "the stored answers");
    check_problem(&again[2]["problem"], 422, "invalid");
    check_problem(&batch(&server, &[keyed("a", "changed")])[0]["problem"], 422, "idempotency-mismatch");
    // Twice in one batch, the second may come while the first still runs; it is never a second entry.
    let twice = batch(&server, &[keyed("a", "one"), keyed("a", "one")]);
    assert_eq!(twice[0], first[0]);
    assert!(twice[1] == first[0] || twice[1]["problem"]["code"] == "idempotency-running", "{twice:?}");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 3);
    let whole = Ask::post("/v1/notifications").header("idempotency-key", "k").ndjson(&lines);
    server.operate(whole).problem(422, "invalid");
    // A single request has a header for it, so the field is unknown there.
    server.operate(Ask::post("/v1/notifications").json(&keyed("c", "x"))).problem(422, "invalid");
}

#[test]
fn a_line_that_is_too_long_ends_the_batch_behind_those_before_it() {
    let server = Server::start();
    let long = "x".repeat(300 * 1024);
    let body = format!("{}\n{{\"to\":\"user:alice\",\"body\":\"{long}\"}}\n{}\n", line("before"), line("behind"));
    let results = raw(&server, &body).expect(200).lines();
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!(results[0]["status"], 201);
    check_problem(&results[1]["problem"], 413, "line-too-long");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
}

#[test]
fn a_batch_of_too_many_lines_ends_at_the_limit() {
    const LIMIT: usize = 10_000;
    let server = Server::start();
    // Lines that are refused are cheap, and count as well.
    let results = raw(&server, &"{}\n".repeat(LIMIT + 5)).expect(200).lines();
    assert_eq!(results.len(), LIMIT + 1);
    check_problem(&results[LIMIT - 1]["problem"], 422, "invalid");
    check_problem(&results[LIMIT]["problem"], 413, "too-many-lines");
}

#[test]
fn followers_come_in_bulk_and_the_bad_ones_are_named() {
    let server = Server::start();
    server.follow("library", "u7");
    let mut lines: Vec<_> = (0..500).map(|i| json!({ "user": format!("u{i}") })).collect();
    lines[3] = json!({ "user": " padded " });
    lines[9] = json!({ "usr": "u9" });
    let told = server.operate(Ask::post("/v1/topics/library/followers").ndjson(&lines)).expect(200).json();
    assert_eq!([&told["followed"], &told["unchanged"], &told["failed"]], [497, 1, 2], "{told}");
    assert_eq!([&told["errors"][0]["line"], &told["errors"][1]["line"]], [4, 10]);
    check_problem(&told["errors"][0]["problem"], 422, "invalid");
    assert_eq!(server.publish(&json!({ "to": "topic:library", "title": "t" }))["recipients"], 498);
    server
        .operate(Ask::post("/v1/topics/library/followers").json(&json!({ "user": "u1" })))
        .problem(415, "unsupported-type");
}

#[test]
fn who_leaves_a_topic_keeps_what_came_and_gets_no_more() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?events=notification");
    stream.expect("hello");
    let followed = json!({ "topic": "ops/eu", "user": "alice", "following": true, "changed": true });
    assert_eq!(server.follow("ops/eu", "alice"), followed);
    assert_eq!(server.follow("ops/eu", "alice")["changed"], false);
    server.publish(&json!({ "to": "topic:ops/eu", "title": "while following" }));
    let left = server.operate(Ask::delete("/v1/topics/ops%2Feu/followers/alice")).expect(200).json();
    assert_eq!(left, json!({ "topic": "ops/eu", "user": "alice", "following": false, "changed": true }));
    assert_eq!(server.publish(&json!({ "to": "topic:ops/eu", "title": "after" }))["recipients"], 0);
    server.notify("alice", "end");
    assert_eq!(stream.titles_to("end"), ["while following", "end"]);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 2);
    for ask in [
        Ask::put("/v1/topics/everyone"),
        Ask::put("/v1/topics/everyone/followers/alice"),
        Ask::delete("/v1/topics/everyone/followers/alice"),
    ] {
        server.operate(ask).problem(422, "topic-reserved");
    }
}

#[test]
fn a_server_may_refuse_topics_that_nobody_made() {
    let server = crate::support::server::Setup::serve().env("TIDINGS_TOPICS_UNKNOWN", "refuse").start();
    let publish = || server.operate(Ask::post("/v1/notifications").json(&json!({ "to": "topic:ops", "title": "t" })));
    publish().problem(422, "unknown-topic");
    server.operate(Ask::put("/v1/topics/ops/followers/alice")).problem(422, "unknown-topic");
    server.operate(Ask::put("/v1/topics/ops")).expect(201);
    publish().expect(201);
}
