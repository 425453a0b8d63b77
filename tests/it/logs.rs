//! Logs tell what happened and never a secret.

use serde_json::json;

use crate::support::http::Ask;
use crate::support::server::Setup;
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
