//! How streams end, and how they are refused, in a form that does not stop a browser for ever.

use std::time::Duration;

use serde_json::json;

use crate::support::http::{Ask, Connection};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::token;

#[test]
fn a_drain_says_bye_to_every_stream_and_exits_well() {
    let mut server = Server::start();
    let mut streams: Vec<Sse> = (0..50).map(|i| server.stream(&format!("u{}", i % 7), "?cursor=now")).collect();
    for stream in &mut streams {
        stream.expect("hello");
    }
    // Neither an idle connection nor one that never asks anything holds it up.
    let mut idle = Connection::open(server.place()).expect("the server accepts");
    idle.send(&Ask::get("/healthz").to_bytes()).expect("the server reads");
    idle.answer().expect("the server answers");
    let _silent = Connection::open(server.place()).expect("the server accepts");
    let (status, took) = server.terminate();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < Duration::from_secs(5), "{took:?}");
    let mut retries: Vec<u32> = Vec::new();
    for stream in &mut streams {
        let bye = stream.bye("shutdown");
        assert_eq!(bye.order, ["retry", "event", "data"]);
        assert_eq!(bye.data["reconnect"], true);
        retries.extend(bye.retry);
    }
    retries.sort_unstable();
    assert!(retries.iter().all(|retry| (2_000..=6_000).contains(retry)), "{retries:?}");
    assert!(retries[retries.len() - 1] - retries[0] > 1_000, "the herd is spread: {retries:?}");
}

#[test]
fn what_is_published_while_the_server_drains_is_acknowledged_and_kept() {
    let mut server = Server::start();
    let (key, place) = (server.key(&["publish"]), server.place().clone());
    let mut connection = Connection::open(&place).expect("the server accepts");
    let ask = |i: usize| {
        Ask::post("/v1/notifications").bearer(&key).json(&json!({ "to": "user:alice", "title": format!("t{i}") }))
    };
    connection.send(&ask(0).to_bytes()).expect("the server reads");
    connection.answer().expect("an answer").expect(201);
    let publisher = std::thread::spawn({
        let ask: Vec<Vec<u8>> = (1..100_000).map(|i| ask(i).to_bytes()).collect();
        move || {
            let mut acknowledged = 1;
            for bytes in ask {
                if connection.send(&bytes).is_err() {
                    break;
                }
                let Ok(answer) = connection.answer() else { break };
                if answer.status() != 201 {
                    break;
                }
                acknowledged += 1;
            }
            acknowledged
        }
    });
    assert_eq!(server.terminate().0.code(), Some(0));
    let acknowledged: u64 = publisher.join().expect("it only publishes");
    server.restart();
    let kept = server.inbox("alice")["counts"]["unread"].as_u64().expect("a number");
    assert_eq!(kept, acknowledged, "a drain answers what it takes");
}

#[test]
fn a_credential_that_has_run_out_gets_a_bye_and_other_clients_a_401() {
    let server = Server::start();
    let token = server.token_for(&json!({ "sub": "alice", "exp": token::now() - 1 }));
    for query in ["", "?envelope=1"] {
        let mut stream = Sse::open(server.place(), Ask::get(&format!("/v1/stream{query}")).bearer(&token));
        if query.is_empty() {
            let bye = stream.bye("expired");
            assert_eq!(bye.data["reconnect"], false);
        } else {
            let bye = stream.expect("message");
            assert_eq!((&bye.data["event"], &bye.data["data"]["reason"]), (&json!("bye"), &json!("expired")));
            stream.ends();
        }
    }
    server.send(&Ask::get("/v1/stream").bearer(&token)).problem(401, "expired");
    let answer = server.send(&Ask::get("/v1/inbox").bearer(&token));
    answer.problem(401, "expired");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

#[test]
fn a_credential_that_never_was_good_is_refused_with_401() {
    let server = Server::start();
    let good = server.token("alice");
    let (signed, _) = good.rsplit_once('.').expect("a JWT has three parts");
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let claims = signed.split_once('.').expect("a JWT has three parts").1;
    let unsigned = format!("{}.{claims}.", encode(r#"{"alg":"none","typ":"JWT"}"#));
    let exp = token::now() + 60;
    for bad in [
        "nonsense".to_owned(),
        unsigned,
        format!("{signed}."),
        format!("{signed}.{}", encode("somebody else's signature, 32 B.")),
        format!("{}.{claims}.x", encode(r#"{"alg":"HS256","kid":"../../dev/null"}"#)),
        server.token_for(&json!({ "sub": "alice" })),
        server.token_for(&json!({ "exp": exp })),
        server.token_for(&json!({ "sub": 7, "exp": exp })),
        server.token_for(&json!({ "sub": "alice", "exp": exp.to_string() })),
        server.token_for(&json!({ "sub": " alice", "exp": exp })),
        server.token_for(&json!({ "sub": "alice", "exp": exp, "topics": ["a*b"] })),
        "tk_0000000000000000_secret".to_owned(),
        "op_guessed".to_owned(),
    ] {
        for accept in ["text/event-stream", "application/json"] {
            let ask = Ask::get("/v1/stream").bearer(&bad).header("accept", accept);
            server.send(&ask).problem(401, "bad-credential");
        }
    }
    server.send(&Ask::get("/v1/stream").header("accept", "text/event-stream")).problem(401, "unauthenticated");
}

#[test]
fn audience_and_issuer_count_where_they_are_configured() {
    let server = Setup::serve().env("TIDINGS_AUTH_AUDIENCE", "tidings").env("TIDINGS_AUTH_ISSUER", "library").start();
    let status = |aud: serde_json::Value, iss: &str| {
        let claims = json!({ "sub": "alice", "exp": token::now() + 60, "aud": aud, "iss": iss });
        server.send(&Ask::get("/v1/inbox/counts").bearer(&server.token_for(&claims))).status()
    };
    assert_eq!(status(json!("tidings"), "library"), 200);
    assert_eq!(status(json!(["shop", "tidings"]), "library"), 200);
    assert_eq!(status(json!("shop"), "library"), 401);
    assert_eq!(status(json!("tidings"), "shop"), 401);
    server.send(&Ask::get("/v1/inbox/counts").bearer(&server.token("alice"))).problem(401, "bad-credential");
}

#[test]
fn one_stream_too_many_is_refused_softly() {
    let server = Setup::serve().env("TIDINGS_STREAMS_MAX", "1").start();
    let mut first = server.stream("alice", "?cursor=now");
    first.expect("hello");
    let mut second = server.stream("bob", "");
    assert_eq!(second.bye("overloaded").data["reconnect"], true);
    let answer = server.send(&Ask::get("/v1/stream").bearer(&server.token("bob")).header("accept", "*/*"));
    answer.problem(503, "overloaded");
    assert!(answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok()).is_some());
    server.notify("alice", "still here");
    assert_eq!(first.until("notification").title(), "still here");
    drop(first);
    // The place is free again as soon as the server has noticed.
    crate::support::wait_for("the freed place", || {
        let mut stream = server.stream("bob", "?cursor=now");
        (stream.next().kind == "hello").then_some(())
    });
}

#[test]
fn the_end_of_a_token_is_told_a_minute_before() {
    let server = Server::start();
    let claims = json!({ "sub": "alice", "exp": token::now() + 62 });
    let ask = Ask::get("/v1/stream?cursor=now").bearer(&server.token_for(&claims));
    let mut stream = Sse::open(server.place(), ask);
    stream.expect("hello");
    let warning = stream.expect("token");
    assert_eq!(warning.order, ["event", "data"]);
    let seconds = warning.data["seconds"].as_u64().expect("a number");
    assert!((55..=60).contains(&seconds), "{seconds}");
}

#[test]
fn a_stream_ends_with_its_token_unless_it_gets_a_new_one() {
    let server = Setup::serve().env("TIDINGS_STREAMS_HEARTBEAT", "1s").start();
    let open = || {
        let claims = json!({ "sub": "alice", "exp": token::now() + 3 });
        let ask = Ask::get("/v1/stream?cursor=now&heartbeat=event").bearer(&server.token_for(&claims));
        Sse::open(server.place(), ask)
    };
    let (mut left, mut kept) = (open(), open());
    left.expect("hello");
    let name = kept.expect("hello").data["stream"].as_str().expect("a name").to_owned();
    assert!(kept.until("token").data["seconds"].as_u64().is_some_and(|seconds| seconds <= 3));
    let fresh = json!({ "sub": "alice", "exp": token::now() + 600 });
    let ask = Ask::post(&format!("/v1/streams/{name}/refresh")).bearer(&server.token_for(&fresh));
    let expires = server.send(&ask).expect(200).json()["expires"].as_str().and_then(|at| at.parse().ok());
    assert_eq!(expires.map(jiff::Timestamp::as_second), fresh["exp"].as_i64());
    left.bye("expired");
    // Two more signs of life lie well behind the old end.
    kept.take("heartbeat", 2);
    server.notify("alice", "still here");
    assert_eq!(kept.until("notification").title(), "still here");
}

#[test]
fn a_stream_is_refreshed_only_by_its_own_user_and_for_what_it_sees() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?cursor=now");
    let name = stream.expect("hello").data["stream"].as_str().expect("a name").to_owned();
    let refresh =
        |stream: &str, token: &str| server.send(&Ask::post(&format!("/v1/streams/{stream}/refresh")).bearer(token));
    refresh(&name, &server.token("alice")).expect(200);
    refresh(&name, &server.token("bob")).problem(404, "not-found");
    refresh("nonsense", &server.token("alice")).problem(404, "not-found");
    let other = name.chars().rev().collect::<String>();
    refresh(&other, &server.token("alice")).problem(404, "not-found");
    let narrower = json!({ "sub": "alice", "exp": token::now() + 60, "topics": ["ops"] });
    refresh(&name, &server.token_for(&narrower)).problem(403, "forbidden");
    refresh(&name, &server.operator()).problem(403, "forbidden");
    server.notify("alice", "still here");
    assert_eq!(stream.expect("notification").title(), "still here");
}
