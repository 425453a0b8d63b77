//! Publishing plain text with headers, as `curl -d` does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::http::Ask;
use crate::support::server::Server;
use crate::support::token;

/// What `curl -u :KEY -d TEXT` sends.
fn curl(key: &str, target: &str, text: &str) -> Ask {
    Ask::post(target)
        .header("authorization", format!("Basic {}", STANDARD.encode(format!(":{key}"))))
        .header("accept", "*/*")
        .body("application/x-www-form-urlencoded", text)
}

#[test]
fn the_curl_line_of_the_contract_works() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    server.follow("ops/eu", "alice");
    let ask = curl(&key, "/v1/publish/ops/eu", "disk full\n").header("Title", "磁盘").header("Priority", "high");
    let made = server.send(&ask).expect(201).json();
    assert_eq!(made["recipients"], 1);
    let entry = server.inbox("alice")["entries"][0].clone();
    assert_eq!(
        [&entry["title"], &entry["body"], &entry["priority"], &entry["topic"]],
        [&json!("磁盘"), &json!("disk full"), &json!(4), &json!("ops/eu")]
    );
}

#[test]
fn headers_may_be_encoded_words_and_the_key_a_bearer_token() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    let ask = Ask::post("/v1/publish")
        .bearer(&key)
        .header("To", "user:alice")
        .header("Title", "=?UTF-8?B?56OB55uY?= =?utf-8?q?_na=C3=AFve?= end")
        .header("Category", "loans")
        .header("Click", "https://library.example/7")
        .header("Sender", "=?iso-8859-1?Q?Andr=E9?=")
        .body("text/plain; charset=utf-8", "b");
    server.send(&ask).expect(201);
    let entry = server.inbox("alice")["entries"][0].clone();
    assert_eq!(entry["title"], "磁盘 naïve end");
    assert_eq!(entry["category"], "loans");
    assert_eq!(entry["click"], "https://library.example/7");
    assert_eq!(entry["sender"], "André");
}

#[test]
fn query_parameters_bear_the_same_names_and_headers_win() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    let target = "/v1/publish?to=user%3Aalice&title=caf%C3%A9+au+lait&priority=1&category=loans";
    server.send(&curl(&key, target, "b").header("priority", "u=1, i").header("category", "news")).expect(201);
    let entry = server.inbox("alice")["entries"][0].clone();
    assert_eq!([&entry["title"], &entry["category"]], ["café au lait", "news"]);
    assert_eq!(entry["priority"], 1, "the browser's own Priority says nothing about a notification");
    server.send(&curl(&key, "/v1/publish?to=user:alice&titel=x", "b")).problem(422, "invalid");
    server.send(&curl(&key, "/v1/publish?to=user:alice&title=%ff", "b")).problem(422, "invalid");
}

#[test]
fn a_plain_publish_needs_one_audience_and_a_text() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    let pointers = |ask: Ask| {
        let problem = server.send(&ask).problem(422, "invalid");
        let errors = problem["errors"].as_array().expect("a list").clone();
        errors.iter().map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(pointers(curl(&key, "/v1/publish", "b")), ["/to"]);
    assert_eq!(pointers(curl(&key, "/v1/publish/ops", "b").header("to", "user:alice")), ["/to"]);
    assert_eq!(pointers(curl(&key, "/v1/publish/ops", "\n")), ["/body"]);
    assert_eq!(pointers(curl(&key, "/v1/publish/a%20b", "b").header("priority", "9")), ["/to", "/priority"]);
    assert_eq!(pointers(curl(&key, "/v1/publish/ops", "b").header("click", "javascript:alert(1)")), ["/click"]);
    assert_eq!(pointers(curl(&key, "/v1/publish/ops", "b").header("title", b"\xff")), ["/title"]);
    assert_eq!(server.operate(Ask::put("/v1/topics/ops")).expect(201).json()["published"], 0);
}

#[test]
fn what_is_no_plain_text_is_sent_elsewhere() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    for kind in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/x-ndjson",
        "multipart/form-data; boundary=x",
    ] {
        let ask = Ask::post("/v1/publish/ops").bearer(&key).body(kind, "{}");
        server.send(&ask).problem(415, "unsupported-type");
    }
    server.send(&Ask::post("/v1/publish/ops").bearer(&key).body("", "no type at all")).expect(201);
    server.send(&Ask::post("/v1/publish/ops").bearer(&key).body("image/png", b"\x89PNG")).problem(400, "bad-json");
}

#[test]
fn plain_publishing_is_for_keys_alone() {
    let server = Server::start();
    let publisher = server.token_for(&json!({ "sub": "bob", "exp": token::now() + 60, "scope": "publish" }));
    let ask = || Ask::post("/v1/publish/ops").body("text/plain", "b");
    server.send(&ask().bearer(&publisher)).problem(403, "forbidden");
    let cookie = format!("tidings_session={publisher}");
    server.send(&ask().header("cookie", &cookie)).problem(401, "unauthenticated");
    let as_page = Ask::post("/v1/publish/ops").header("cookie", &cookie).header("sec-fetch-site", "same-origin");
    server.send(&as_page.body("application/json", "{}")).problem(401, "unauthenticated");
    server.send(&ask()).problem(401, "unauthenticated");
    server.send(&curl("tk_0000000000000000_no", "/v1/publish/ops", "b")).problem(401, "bad-credential");
    server.send(&ask().bearer(&server.key(&["users"]))).problem(403, "forbidden");
}

#[test]
fn a_repeated_plain_publish_is_one_entry_unless_a_header_differs() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    let ask = |title: &str| {
        curl(&key, "/v1/publish", "b").header("to", "user:alice").header("title", title).header("idempotency-key", "k1")
    };
    let first = server.send(&ask("one")).expect(201);
    let again = server.send(&ask("one")).expect(201);
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.body, again.body);
    server.send(&ask("two")).problem(422, "idempotency-mismatch");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
}
