//! Logs tell what happened and never a secret.

use serde_json::json;

use crate::support::cli::run_with;
use crate::support::http::{Ask, Place};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::ws::{Ws, handshake};
use crate::support::{token, wait_for};

#[test]
fn no_credential_and_no_body_ever_stands_in_the_log() {
    let loud = "trace,tungstenite=trace,tungstenite::protocol=trace,tokio_tungstenite=trace";
    let mut server = Setup::serve().env("TIDINGS_LOG", loud).start();
    let publishing = json!({ "sub": "alice", "exp": token::now() + 60, "scope": "publish" });
    let (token, key, ticket) = (server.token_for(&publishing), server.key(&["publish"]), server.ticket("alice"));
    let expired = server.token_for(&json!({ "sub": "alice", "exp": token::now() - 60 }));
    let operator = server.operator();
    let body = json!({ "to": "user:alice", "title": "a-secret-title", "body": "a-secret-body" });
    let publish = || Ask::post("/v1/notifications").json(&body).header("idempotency-key", "a-secret-name");
    for credential in [&token, &key, &operator] {
        server.send(&publish().bearer(credential)).expect(201);
    }
    let cookie = |token: &str| format!("tidings_session={token}");
    server.send(&publish().header("cookie", cookie(&token)).header("sec-fetch-site", "same-origin")).expect(201);
    server.send(&publish().header("cookie", cookie(&token))).problem(403, "cross-site");
    server.send(&Ask::post("/v1/session").bearer(&token)).expect(204);
    let mut stream = Sse::open(server.place(), Ask::get(&format!("/v1/stream?ticket={ticket}")));
    stream.expect("hello");
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws"));
    socket.ask(json!({ "op": "auth", "token": token }));
    socket.expect("hello");
    socket.ask(json!({ "op": "refresh", "token": expired }));
    // Each also where it is refused, misplaced or broken.
    for secret in [&token, &key, &ticket, &operator, &expired] {
        for path in ["/v1/stream", "/v1/inbox", "/v1/nothing", "/healthz", "/%ff"] {
            Ask::get(&format!("{path}?ticket={secret}&token={secret}x&cursor={secret}")).glance(server.place());
        }
        server.send(&Ask::post("/v1/publish/ops").bearer(&format!("{secret}x")));
        server.send(&Ask::get("/v1/inbox").header("cookie", cookie(&format!("{secret}x"))));
        server.send(&Ask::get(&format!("/v1/inbox/{secret}")).bearer(secret));
        server.send(&Ask::delete(&format!("/v1/keys/{secret}")).bearer(&operator));
        server.send(&Ask::post("/v1/notifications").bearer(secret).body("application/json", format!("{{\"{secret}\"")));
    }
    assert_eq!(server.terminate().0.code(), Some(0));
    let log = wait_for("the last line of the log", || Some(server.log()).filter(|log| log.contains("Drained")));
    assert!(log.contains("answered"), "the log is on: {log}");
    for secret in [&token, &key, &ticket, &operator, &expired].map(|text| secret_half(text)) {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
    for text in ["a-secret-title", "a-secret-body"] {
        assert!(!log.contains(text), "{text} stands in the log");
    }
}

/// A credential without what is public of it: a token's claims, the id of a key or a ticket.
fn secret_half(credential: &str) -> &str {
    let parts = match credential.split_once('_') {
        Some(("tk" | "tt", rest)) => rest.split_once('_'),
        Some(("op", rest)) => Some(("", rest)),
        _ => credential.rsplit_once('.'),
    };
    parts.map(|(_, secret)| secret).filter(|secret| secret.len() >= 32).expect("every credential has a secret half")
}

#[test]
fn nobody_forges_a_line_of_the_log() {
    let mut server = Setup::serve().env("TIDINGS_LOG", "trace").env("TIDINGS_LOG_FORMAT", "journal").start();
    server.send(&Ask::get("/%0a%3C3%3Eforged"));
    server.operate(Ask::put("/v1/topics/a%0aforged"));
    server.send(&Ask::get("/healthz").header("x", b"a\xff"));
    assert_eq!(server.terminate().0.code(), Some(0));
    let log = wait_for("the last line of the log", || Some(server.log()).filter(|log| log.contains("Drained")));
    assert!(log.lines().all(|line| line.starts_with('<') && !line.contains("forged")), "{log}");
}

/// What is planted: secrets must stand nowhere at all; what people wrote, nowhere but where it is kept for them.
struct Planted {
    secrets: Vec<String>,
    texts: Vec<&'static str>,
}

impl Planted {
    /// None of it may stand in what everybody who watches the server can read.
    fn is_nowhere_in(&self, place: &str, text: &str) {
        let texts = self.texts.iter().copied();
        for planted in self.secrets.iter().map(String::as_str).chain(texts) {
            assert!(!text.contains(planted), "{planted} stands in {place}: {}", around(text, planted));
        }
    }

    /// No secret may stand even where people's own texts are kept.
    fn has_no_secret_in(&self, place: &str, bytes: &[u8]) {
        for secret in &self.secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} stands in {place}");
        }
    }
}

/// The line that a text holds something in.
fn around<'t>(text: &'t str, planted: &str) -> &'t str {
    text.lines().find(|line| line.contains(planted)).unwrap_or_default()
}

/// A user whom the trusted proxy names: the only thing that may be logged of what is sent here, and only as `user`.
const NAMED: &str = "canary-named-user";

/// Texts that only whoever they are for may read.
const TEXTS: [&str; 14] = [
    "canary-title",
    "canary-body",
    "canary-data",
    "canary-idempotency",
    "canary-header",
    "canary-agent",
    "canary-referer",
    "canary-query",
    "canary-cursor",
    "canary-last-event-id",
    "canary-forwarded",
    "canary-origin",
    "canary-broken",
    "canary-client",
];

/// Every header and parameter that is no credential, with something of its own in each.
fn dressed(ask: Ask) -> Ask {
    let ask = ask.header("x-canary", "canary-header").header("user-agent", "canary-agent");
    let ask = ask.header("referer", "http://localhost/canary-referer").header("last-event-id", "canary-last-event-id");
    ask.header("x-forwarded-for", "canary-forwarded").header("forwarded", "for=canary-forwarded")
}

/// Sends a credential in every way there is, over HTTP, rightly and wrongly, and checks what is answered.
fn present(server: &Server, place: &Place, secret: &str, planted: &Planted) {
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!(":{secret}"));
    let bearer = format!("Bearer {secret}");
    let cookie = format!("tidings_session={secret}");
    let headers =
        [("authorization", bearer.as_str()), ("authorization", &format!("Basic {basic}")), ("cookie", &cookie)];
    let publish =
        json!({ "to": "user:alice", "title": "canary-title", "body": "canary-body", "data": { "a": "canary-data" } });
    let asks = [
        Ask::get("/v1/inbox/counts?x=canary-query"),
        Ask::get("/v1/stream?cursor=canary-cursor&client=canary-client"),
        Ask::get("/v1/poll?wait=0&cursor=canary-cursor&client=canary-client"),
        Ask::get("/v1/keys"),
        Ask::get("/v1/canary-query"),
        Ask::get("/%ff"),
        Ask::post("/v1/notifications").json(&publish).header("idempotency-key", "canary-idempotency"),
        Ask::post("/v1/notifications").ndjson(&[publish.clone(), json!({ "canary-broken": "canary-broken" })]),
        Ask::post("/v1/notifications").body("application/json", "{\"canary-broken\""),
        Ask::post("/v1/notifications").json(&json!({ "to": 7, "canary-broken": "canary-broken" })),
        Ask::post("/v1/publish/ops").body("text/plain", "canary-body").header("title", "canary-title"),
        Ask::post("/v1/inbox/mark").json(&json!({ "as": "canary-broken", "ids": ["canary-broken"] })),
        Ask::post("/v1/tickets").json(&json!({ "user": "alice", "canary-broken": 1 })),
    ];
    let in_query = format!("ticket={secret}&token={secret}&key={secret}&access_token={secret}");
    let queries = ["/v1/stream", "/v1/poll", "/v1/ws", "/v1/inbox", "/healthz", "/nothing"]
        .map(|path| (Ask::get(&format!("{path}?{in_query}")), None));
    let asks = headers.iter().flat_map(|header| asks.iter().map(|ask| (ask.clone(), Some(*header)))).chain(queries);
    for (ask, header) in asks {
        let ask = header.into_iter().fold(dressed(ask), |ask, (name, value)| ask.header(name, value));
        for ask in [ask.clone(), ask.header("sec-fetch-site", "same-origin").header("origin", "http://canary-origin")] {
            let answer = ask.glance(place);
            planted.has_no_secret_in("an answer", &answer.body);
        }
    }
    let socket = |ask: Ask| ask.attempt(place).map(|answer| planted.has_no_secret_in("an answer", &answer.body));
    let _ = socket(dressed(handshake("/v1/ws")).bearer(secret).header("origin", "http://canary-origin"));
    let mut frames = Ws::open(place, &dressed(handshake("/v1/ws")));
    for operation in [json!({ "op": "canary-broken" }), json!({ "op": "auth", "token": secret, "canary-broken": 1 })] {
        let reply = frames.ask(operation);
        planted.has_no_secret_in("a reply", reply.to_string().as_bytes());
    }
    let mut frames = Ws::open(place, &handshake("/v1/ws?auth=message&cursor=now"));
    if frames.ask(json!({ "op": "auth", "token": secret }))["ok"] == true {
        let reply = frames.ask(json!({ "op": "refresh", "token": secret }));
        planted.has_no_secret_in("a reply", reply.to_string().as_bytes());
        frames.ask(json!({ "op": "mark", "as": "canary-broken" }));
        frames.ask(json!({ "op": "follow", "topic": "canary-broken" }));
        let reply = frames.ask(json!({ "op": "refresh", "token": format!("{secret}x") }));
        planted.has_no_secret_in("a reply", reply.to_string().as_bytes());
    }
    let env = [("TIDINGS_KEY", secret), ("TIDINGS_LOG", "trace")];
    let said = run_with(&["user", "counts", "alice", "--url", server.url()], "", &env);
    planted.is_nowhere_in("what a command says", &format!("{}{}", said.out, said.err));
}

/// Plants something of its own in each credential and each text, good and bad, and reads all that a server leaves.
fn plant_and_search(format: &'static str) {
    let setup = Setup::serve().env("TIDINGS_LOG", "trace").env("TIDINGS_LOG_FORMAT", format);
    let setup =
        setup.env("TIDINGS_AUTH_TRUSTED_HEADER", "X-Remote-User").env("TIDINGS_AUTH_TRUSTED_HEADER_FROM", "unix");
    let mut server = setup.env("TIDINGS_HTTP_TRUSTED_PROXIES", "unix").start();
    let token = |claim: &str, from_now: i64| {
        let now = token::now();
        let claims =
            json!({ "sub": "alice", "exp": now + from_now, "iat": now - 60, "scope": "publish", "jti": claim });
        server.token_for(&claims)
    };
    let (user, expired) = (token("canary-user", 600), token("canary-expired", -30));
    let (key, admin, ticket, operator) =
        (server.key(&["publish"]), server.key(&["admin"]), server.ticket("alice"), server.operator());
    let rotation = Ask::post(&format!("/v1/keys/{}/rotate", key.split('_').nth(1).expect("an id")));
    let rotated = server.operate(rotation.json(&json!({ "grace": "0s" }))).expect(200).json();
    let rotated = rotated["key"].as_str().expect("a key").to_owned();
    let bad = format!("canary.bad.{}", "0123456789".repeat(4));
    let bad_key = format!("tk_0000000000000000_{bad}");
    let presented = [user, expired, key, rotated, admin, ticket, operator, bad, bad_key];
    let claims = presented[..2].iter().map(|token| token.split('.').nth(1).expect("a JWT").to_owned());
    let secrets: Vec<String> = presented.iter().map(|secret| secret_half(secret).to_owned()).chain(claims).collect();
    let planted = Planted { secrets, texts: TEXTS.to_vec() };
    for secret in &presented {
        for place in [server.place().clone(), server.unix(), server.operators()] {
            present(&server, &place, secret, &planted);
        }
    }
    let named = |ask: Ask| dressed(ask).header("x-remote-user", NAMED);
    Sse::open(&server.unix(), named(Ask::get("/v1/stream"))).expect("hello");
    named(Ask::get("/v1/inbox")).send(&server.unix()).expect(200);
    for stranger in [server.place().clone(), server.operators()] {
        named(Ask::get("/v1/inbox").header("x-remote-user", "canary-header"))
            .send(&stranger)
            .problem(401, "unauthenticated");
    }
    server.operate(Ask::put("/v1/users/alice/revocation")).expect(200);
    for secret in &presented[..2] {
        server.send(&Ask::get("/v1/inbox").bearer(secret));
    }
    for path in ["/metrics", "/v1/status", "/v1/keys", "/v1/online", "/readyz"] {
        let answer = server.operate(Ask::get(path)).expect(200);
        planted.is_nowhere_in(path, answer.text());
        assert!(path == "/v1/online" || !answer.text().contains(NAMED), "{path}: {}", answer.text());
    }
    let export = server.operate(Ask::get("/v1/users/alice/export")).expect(200);
    assert!(export.text().contains("canary-title"), "what is kept for alice is alice's to read");
    planted.has_no_secret_in("an export", &export.body);
    assert_eq!(server.terminate().0.code(), Some(0));
    let log = wait_for("the last line of the log", || Some(server.log()).filter(|log| log.contains("Drained")));
    assert!(log.contains("answered"), "the log is on: {log}");
    planted.is_nowhere_in("the log", &log);
    planted.is_nowhere_in("what it said when it was ready", &server.ready().to_string());
    for line in log.lines().filter(|line| line.contains(NAMED)) {
        let rest = line.replace(&format!("user={NAMED}"), "").replace(&format!("\"user\":\"{NAMED}\""), "");
        assert!(!rest.contains(NAMED), "a name may stand as `user` only: {line}");
    }
    let mut files = 0;
    for entry in std::fs::read_dir(server.data()).expect("its directory").map(|entry| entry.expect("readable")) {
        // Where the operator's credential is kept is no news; everything else must not have it.
        if entry.file_type().is_ok_and(|kind| kind.is_file()) && entry.file_name() != "operator.key" {
            let bytes = std::fs::read(entry.path()).expect("readable");
            planted.has_no_secret_in(&entry.path().display().to_string(), &bytes);
            files += 1;
        }
    }
    assert!(files >= 3, "the database, the head and the secret of tokens are there");
}

#[test]
fn what_is_planted_in_every_credential_and_text_is_found_nowhere_in_a_terminals_log() {
    plant_and_search("terminal");
}

#[test]
fn what_is_planted_in_every_credential_and_text_is_found_nowhere_in_a_log_of_json() {
    plant_and_search("json");
}

#[test]
fn what_is_planted_in_every_credential_and_text_is_found_nowhere_in_the_journal() {
    plant_and_search("journal");
}
