//! Bad input: each is answered by a problem document with a stable code, and costs neither stored data nor another
//! client's stream.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask, Connection};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::token;

/// A server with a stream that was opened before the abuse, and an inbox that must not change by it.
struct Scene {
    server: Server,
    witness: Sse,
    published: usize,
}

impl Scene {
    fn new(setup: Setup) -> Self {
        let server = setup.start();
        let mut witness = server.stream("alice", "?cursor=now&events=notification");
        witness.expect("hello");
        Self { server, witness, published: 0 }
    }

    /// Asserts that the abuse was refused as it must be, and harmed nobody.
    fn refused(&mut self, what: &str, answer: &Answer, status: u16, code: &str) -> Value {
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
        let problem = answer.problem(status, code);
        self.is_unharmed(what);
        problem
    }

    fn is_unharmed(&mut self, what: &str) {
        self.published += 1;
        let title = format!("after {what}").chars().filter(|c| !c.is_control()).take(80).collect::<String>();
        self.server.notify("alice", &title);
        assert_eq!(self.witness.expect("notification").title(), title, "the stream goes on after {what}");
        let inbox = self.server.inbox("alice");
        assert_eq!(inbox["counts"]["unread"], self.published, "after {what}");
    }

    /// Sends bytes as they are; the answer.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut connection = Connection::open(self.server.place()).expect("the server accepts");
        // A server that refuses early may close before all is sent.
        let _ = connection.send(bytes);
        connection.answer().expect("the server says why")
    }
}

fn nested(levels: usize) -> String {
    format!(r#"{{"to":"user:alice","title":"t","data":{}1{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
}

#[test]
fn bodies_that_are_no_publish_are_refused_field_by_field() {
    let mut scene = Scene::new(Setup::serve());
    let operator = scene.server.operator();
    let cases: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        ("nothing", b"".to_vec(), 400, "bad-json", ""),
        ("malformed JSON", b"{\"to\":\"user:alice\",".to_vec(), 400, "bad-json", ""),
        ("no object", b"[1]".to_vec(), 400, "bad-json", ""),
        ("two values", b"{} {}".to_vec(), 400, "bad-json", ""),
        ("invalid UTF-8", b"{\"to\":\"user:alice\",\"title\":\"\xff\xfe\"}".to_vec(), 400, "bad-json", ""),
        ("a lone surrogate", br#"{"to":"user:alice","title":"\ud800"}"#.to_vec(), 422, "invalid", "/title"),
        ("JSON 33 levels deep", nested(33).into_bytes(), 400, "bad-json", ""),
        ("JSON 100000 levels deep", nested(100_000).into_bytes(), 400, "bad-json", ""),
        ("an unknown field", json_of(&json!({ "titel": "t", "body": "b" })), 422, "invalid", "/titel"),
        ("a medium not set up", json_of(&json!({ "title": "t", "via": ["email"] })), 422, "invalid", "/via/0"),
        ("a field twice", br#"{"to":"user:alice","title":"a","title":"b"}"#.to_vec(), 422, "invalid", "/title"),
        ("neither title nor body", json_of(&json!({ "title": " " })), 422, "invalid", "/body"),
        ("a long title", json_of(&json!({ "title": "ä".repeat(251) })), 422, "invalid", "/title"),
        ("a long body", json_of(&json!({ "body": "ä".repeat(10_001) })), 422, "invalid", "/body"),
        ("a control character", json_of(&json!({ "title": "a\u{7}" })), 422, "invalid", "/title"),
        ("a line break in a title", json_of(&json!({ "title": "a\nid: 7" })), 422, "invalid", "/title"),
        ("NUL in a body", json_of(&json!({ "body": "a\0" })), 422, "invalid", "/body"),
        ("a number for a title", json_of(&json!({ "title": 7 })), 422, "invalid", "/title"),
        ("a priority of 6", json_of(&json!({ "title": "t", "priority": 6 })), 422, "invalid", "/priority"),
        ("a script as a link", json_of(&json!({ "title": "t", "click": "javascript:x" })), 422, "invalid", "/click"),
        ("four buttons", json_of(&json!({ "title": "t", "actions": vec![button(); 4] })), 422, "invalid", "/actions"),
        ("large data", json_of(&json!({ "title": "t", "data": "x".repeat(33_000) })), 422, "invalid", "/data"),
        ("a bad category", json_of(&json!({ "title": "t", "category": "a b" })), 422, "invalid", "/category"),
        ("no audience", br#"{"title":"t"}"#.to_vec(), 422, "invalid", "/to"),
        ("two audiences", br#"{"to":{"user":"a","topic":"b"},"title":"t"}"#.to_vec(), 422, "invalid", "/to"),
        ("an unknown audience", br#"{"to":"group:a","title":"t"}"#.to_vec(), 422, "invalid", "/to"),
        ("a topic out of its alphabet", br#"{"to":"topic:a b","title":"t"}"#.to_vec(), 422, "invalid", "/to"),
        ("a topic of 129", of_topic(&"a".repeat(129)), 422, "invalid", "/to/topic"),
        ("a bad user among good", br#"{"to":{"users":["a",""]},"title":"t"}"#.to_vec(), 422, "invalid", "/to/users/1"),
        ("everyone as no", br#"{"to":{"everyone":false},"title":"t"}"#.to_vec(), 422, "invalid", "/to"),
    ];
    for (what, body, status, code, pointer) in cases {
        let ask = Ask::post("/v1/notifications").bearer(&operator).body("application/json", body);
        let answer = scene.server.send(&ask);
        let problem = scene.refused(what, &answer, status, code);
        if !pointer.is_empty() {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{what}: {problem}");
        }
    }
    let good = Ask::post("/v1/notifications").bearer(&operator).body("application/json", nested(31));
    scene.server.send(&good).expect(201);
}

fn json_of(fields: &Value) -> Vec<u8> {
    let mut body = json!({ "to": "user:alice" });
    let fields = fields.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body.to_string().into_bytes()
}

fn of_topic(topic: &str) -> Vec<u8> {
    json!({ "to": { "topic": topic }, "title": "t" }).to_string().into_bytes()
}

fn button() -> Value {
    json!({ "label": "l", "click": "/x" })
}

#[test]
fn every_broken_field_is_named_at_once() {
    let server = Server::start();
    let body = json!({ "to": "nobody", "title": "a\tb", "priority": 0, "x": 1, "actions": [{ "label": "" }] });
    let problem = server.operate(Ask::post("/v1/notifications").json(&body)).problem(422, "invalid");
    let errors = problem["errors"].as_array().expect("a list").iter();
    let mut pointers: Vec<_> = errors.map(|error| error["pointer"].as_str().unwrap_or_default()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/actions/0/click", "/actions/0/label", "/priority", "/title", "/to", "/x"]);
    let many: serde_json::Map<_, _> = (0..5_000).map(|i| (format!("field{i}"), Value::Null)).collect();
    let answer = server.operate(Ask::post("/v1/notifications").json(&Value::Object(many)));
    answer.problem(422, "invalid");
    assert!(answer.body.len() < 16 * 1024, "an answer stays small: {} bytes", answer.body.len());
}

#[test]
fn a_body_of_the_wrong_kind_or_size_is_refused_before_it_is_read() {
    let mut scene = Scene::new(Setup::serve());
    let operator = scene.server.operator();
    let ask = || Ask::post("/v1/notifications").bearer(&operator);
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data"] {
        let answer = scene.server.send(&ask().body(kind, "{}"));
        scene.refused(&format!("content type {kind:?}"), &answer, 415, "unsupported-type");
    }
    for coding in ["gzip", "br", "deflate", "x", "identity, gzip"] {
        let answer = scene.server.send(&ask().header("content-encoding", coding).body("application/json", "{}"));
        scene.refused(coding, &answer, 415, "content-encoding");
    }
    // Only the head is sent: the answer must not wait for the body. The same where the client waits to be asked on.
    for (length, more) in [("262145", ""), ("99999999999", ""), ("262145", "expect: 100-continue\r\n")] {
        let head = format!(
            "POST /v1/notifications HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {operator}\r\n\
             content-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
        );
        let answer = scene.raw(head.as_bytes());
        scene.refused(&format!("a body of {length}"), &answer, 413, "body-too-large");
    }
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let head = format!(
        "POST /v1/notifications HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {operator}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let answer = scene.raw(format!("{head}{}", chunk.repeat(6)).as_bytes());
    scene.refused("a body that never ends", &answer, 413, "body-too-large");
    let answer = scene.raw(format!("{head}nonsense\r\n").as_bytes());
    scene.refused("chunks that are none", &answer, 400, "broken-body");
    scene.server.send(&ask().json(&json!({ "to": "user:bob", "body": "ä".repeat(10_000) }))).expect(201);
}

#[test]
fn a_request_that_does_not_come_to_its_end_is_given_up() {
    let mut scene =
        Scene::new(Setup::serve().env("TIDINGS_HTTP_HEADER_TIMEOUT", "1s").env("TIDINGS_HTTP_BODY_TIMEOUT", "1s"));
    let operator = scene.server.operator();
    let answer = scene.raw(b"POST /v1/notifications HTTP/1.1\r\nhost: a\r\nx-slow: ");
    scene.refused("headers that never end", &answer, 408, "timeout");
    for (route, kind) in [("/v1/notifications", "application/json"), ("/v1/publish/ops", "text/plain")] {
        let head = format!(
            "POST {route} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {operator}\r\ncontent-type: {kind}\r\n\
             content-length: 100\r\n\r\n{{"
        );
        let answer = scene.raw(head.as_bytes());
        scene.refused("a body that stops", &answer, 408, "timeout");
    }
    let batch = format!(
        "POST /v1/notifications HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {operator}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n{{\"to\":\"user:bob\",\"title\":\"t\"}}\n{{"
    );
    let results = scene.raw(batch.as_bytes()).expect(200).lines();
    assert_eq!((&results[0]["status"], &results[1]["problem"]["code"]), (&json!(201), &json!("timeout")));
    scene.is_unharmed("a batch that stops");
    let mut silent = Connection::open(scene.server.place()).expect("the server accepts");
    assert!(silent.is_closed(), "a connection that asks nothing is closed without a word");
}

#[test]
fn heads_out_of_bounds_are_refused_by_name() {
    let mut scene = Scene::new(Setup::serve());
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\n{headers}\r\n");
    let many = |count: usize| {
        (0..count).fold("host: a\r\n".to_owned(), |mut text, i| {
            let _ = write!(text, "x-{i}: y\r\n");
            text
        })
    };
    let cases = [
        ("too many headers", get("/healthz", &many(64)), 431, "headers-too-large"),
        ("far too many headers", get("/healthz", &many(2_000)), 431, "headers-too-large"),
        (
            "one large header",
            get("/healthz", &format!("host: a\r\nx: {}\r\n", "y".repeat(20_000))),
            431,
            "headers-too-large",
        ),
        ("a long target", get(&format!("/healthz?{}", "x".repeat(9_000)), "host: a\r\n"), 414, "target-too-long"),
        ("no Host", get("/healthz", ""), 400, "bad-host"),
        ("two Hosts", get("/healthz", "host: a\r\nhost: a\r\n"), 400, "bad-host"),
        ("a Host with a user", get("/healthz", "host: a@b\r\n"), 400, "bad-host"),
        ("an empty Host", get("/healthz", "host:\r\n"), 400, "bad-host"),
        ("no request at all", "nonsense\r\n\r\n".to_owned(), 400, "bad-request"),
        ("TLS to a plain port", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\r\n\r\n".to_owned(), 400, "bad-request"),
        ("a header without a name", get("/healthz", "host: a\r\n: x\r\n"), 400, "bad-request"),
        ("a folded header", get("/healthz", "host: a\r\nx: y\r\n z\r\n"), 400, "bad-request"),
        ("two lengths", get("/healthz", "host: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n"), 400, "bad-request"),
        ("a path that is no UTF-8", get("/v1/users/%ff/counts", "host: a\r\n"), 400, "bad-request"),
        ("a path that is not there", get("/v1/nothing", "host: a\r\n"), 404, "not-found"),
        ("a path above the files", get("/static/..%2f..%2fCargo.toml", "host: a\r\n"), 404, "not-found"),
        ("another method", "PATCH /v1/session HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 405, "method-not-allowed"),
    ];
    for (what, bytes, status, code) in cases {
        let answer = scene.raw(bytes.as_bytes());
        scene.refused(what, &answer, status, code);
    }
    assert_eq!(scene.raw(get("/healthz", &many(63)).as_bytes()).status(), 200, "64 headers are taken");
    assert_eq!(scene.raw(b"GET /healthz HTTP/1.0\r\n\r\n").status(), 200, "HTTP/1.0 had no Host");
}

#[test]
fn a_message_that_two_parsers_would_cut_differently_is_not_believed_twice() {
    let mut scene = Scene::new(Setup::serve());
    let operator = scene.server.operator();
    let smuggled = r#"{"to":"user:alice","title":"smuggled"}"#;
    let inner = format!(
        "POST /v1/notifications HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {operator}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let bytes = format!(
        "POST /v1/session HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        inner.len() + 5
    );
    let answer = scene.raw(bytes.as_bytes());
    assert!((400..500).contains(&answer.status()), "{answer:?}");
    scene.is_unharmed("both lengths");
}

#[test]
fn paths_and_queries_that_hold_what_they_may_not_are_refused() {
    let mut scene = Scene::new(Setup::serve());
    let (operator, alice) = (scene.server.operator(), scene.server.token("alice"));
    for (ask, status, code) in [
        (Ask::put("/v1/topics/a%20b").bearer(&operator), 422, "invalid"),
        (Ask::put("/v1/topics/%00").bearer(&operator), 422, "invalid"),
        (Ask::put("/v1/topics/a%2F%2Fb").bearer(&operator), 422, "invalid"),
        (Ask::put("/v1/topics/a/followers/%20x").bearer(&operator), 422, "invalid"),
        (Ask::put(&format!("/v1/topics/a/followers/{}", "u".repeat(129))).bearer(&operator), 422, "invalid"),
        (Ask::get("/v1/users/%0a/counts").bearer(&operator), 422, "invalid"),
        (Ask::post("/v1/keys").bearer(&operator).json(&json!({ "name": "x", "scopes": ["root"] })), 422, "invalid"),
        (Ask::post("/v1/keys").bearer(&operator).json(&json!({ "name": "", "scopes": [] })), 422, "invalid"),
        (Ask::delete("/v1/keys/nothing").bearer(&operator), 404, "not-found"),
        (Ask::post("/v1/notifications?dry_run=1").bearer(&operator).json(&json!({})), 422, "invalid"),
        (Ask::get("/v1/inbox/not-an-id").bearer(&alice), 404, "not-found"),
        (Ask::get("/v1/inbox?limit=0").bearer(&alice), 400, "bad-query"),
        (Ask::get("/v1/inbox?limit=101").bearer(&alice), 400, "bad-query"),
        (Ask::get("/v1/inbox?limit=-1").bearer(&alice), 400, "bad-query"),
        (Ask::get("/v1/inbox?state=eaten").bearer(&alice), 400, "bad-query"),
        (Ask::get("/v1/inbox?before=now").bearer(&alice), 400, "bad-query"),
        (Ask::get("/v1/inbox?before=zzzzz.1").bearer(&alice), 422, "unknown-epoch"),
        (Ask::get("/v1/inbox?category=%ff").bearer(&alice), 400, "bad-query"),
        (Ask::get("/v1/inbox?unknown=1").bearer(&alice), 400, "bad-query"),
    ] {
        let answer = scene.server.send(&ask);
        scene.refused(&format!("{ask:?}"), &answer, status, code);
    }
}

#[test]
fn a_credential_in_a_bad_form_is_refused_though_a_good_one_stands_beside_it() {
    let mut scene = Scene::new(Setup::serve());
    let token = scene.server.token("alice");
    let cookie = format!("tidings_session={token}");
    for bad in ["Bearer", "Bearer ", "Digest x", "Basic !!!", "Basic a2V5", "", "bearer\t"] {
        let ask = Ask::get("/v1/inbox").header("authorization", bad).header("cookie", &cookie);
        let answer = scene.server.send(&ask);
        scene.refused(bad, &answer, 401, "bad-credential");
    }
    let twice = Ask::get("/v1/inbox").bearer(&token).bearer(&token);
    let answer = scene.server.send(&twice);
    scene.refused("two headers", &answer, 401, "bad-credential");
    let huge = scene.server.token_for(&json!({ "sub": "alice", "exp": token::now() + 60, "x": "x".repeat(8_000) }));
    let answer = scene.server.send(&Ask::get("/v1/inbox").bearer(&huge));
    scene.refused("a huge token", &answer, 401, "bad-credential");
}
