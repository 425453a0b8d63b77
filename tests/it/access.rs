//! Deny by default: every route against everyone who might call it.

use serde_json::{Value, json};
use tidings::http::ROUTES;

use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, Setup};
use crate::support::token;

/// Who calls, in the order of the columns of [`TABLE`].
const ROLES: [&str; 13] = [
    "nobody",
    "a user",
    "a publishing user",
    "a user's cookie",
    "a publishing user's cookie",
    "a ticket",
    "a key with publish",
    "a key with publish:topic/ops",
    "a key with tickets",
    "a key with users",
    "a key with templates",
    "a key with admin",
    "the operator",
];

/// Method, route, and a letter for each role: `+` let in, `1` refused with 401, `3` with 403, `4` as if it were not there.
const TABLE: &[(&str, &str, &str)] = &[
    ("GET", "/healthz", "+++++++++++++"),
    ("GET", "/readyz", "+++++++++++++"),
    ("GET", "/metrics", "44444444444++"),
    ("GET", "/", "+++++++++++++"),
    ("GET", "/publish", "+++++++++++++"),
    ("GET", "/static/{file}", "+++++++++++++"),
    ("GET", "/favicon.ico", "+++++++++++++"),
    ("GET", "/problems/{code}", "+++++++++++++"),
    ("GET", "/demo", "4444444444444"),
    ("GET", "/demo/users", "4444444444444"),
    ("POST", "/demo/session", "4444444444444"),
    ("POST", "/v1/session", "1++1111111111"),
    ("DELETE", "/v1/session", "+++++++++++++"),
    ("POST", "/v1/tickets", "1++++133+33++"),
    ("GET", "/v1/stream", "1+++++3333333"),
    ("GET", "/v1/poll", "1+++++3333333"),
    ("GET", "/v1/ws", "++++++3333333"),
    ("POST", "/v1/streams/{stream}/refresh", "1++++13333333"),
    ("GET", "/v1/inbox", "1++++13333333"),
    ("GET", "/v1/inbox/counts", "1++++13333333"),
    ("GET", "/v1/inbox/{id}", "1++++13333333"),
    ("POST", "/v1/inbox/mark", "1++++13333333"),
    ("GET", "/v1/users/{user}/counts", "133111333+3++"),
    ("GET", "/v1/users/{user}/export", "133111333+3++"),
    ("POST", "/v1/notifications", "13+3+1++333++"),
    ("POST", "/v1/publish", "133111+3333++"),
    ("POST", "/v1/publish/{*topic}", "133111++333++"),
    ("GET", "/v1/notifications/{id}", "13+3+1++333++"),
    ("DELETE", "/v1/notifications/{id}", "13+3+1++333++"),
    ("GET", "/v1/notifications/{id}/recipients", "133111333+3++"),
    ("GET", "/v1/scheduled", "13+3+1++333++"),
    ("PUT", "/v1/scheduled/{id}", "13+3+1++333++"),
    ("GET", "/v1/topics", "133111333+3++"),
    ("PUT", "/v1/topics/{topic}", "133111333+3++"),
    ("GET", "/v1/topics/{topic}", "133111333+3++"),
    ("GET", "/v1/topics/{topic}/followers", "133111333+3++"),
    ("POST", "/v1/topics/{topic}/followers", "133111333+3++"),
    ("PUT", "/v1/topics/{topic}/followers/{user}", "133111333+3++"),
    ("DELETE", "/v1/topics/{topic}/followers/{user}", "133111333+3++"),
    ("PUT", "/v1/topics/{topic}/follow", "1++++13333333"),
    ("DELETE", "/v1/topics/{topic}/follow", "1++++13333333"),
    ("PUT", "/v1/topics/{topic}/mute", "1++++13333333"),
    ("DELETE", "/v1/topics/{topic}/mute", "1++++13333333"),
    ("GET", "/v1/follows", "1++++13333333"),
    ("POST", "/v1/keys", "13311133333++"),
    ("GET", "/v1/keys", "13311133333++"),
    ("DELETE", "/v1/keys/{key}", "13311133333++"),
    ("POST", "/v1/upkeep/recount", "13311133333++"),
    ("POST", "/v1/upkeep/compact", "13311133333++"),
    // What the others need there goes last.
    ("DELETE", "/v1/users/{user}", "133111333+3++"),
    ("DELETE", "/v1/topics/{topic}", "133111333+3++"),
];

/// A request that each route takes from those it is for.
fn ask(method: &str, route: &str) -> Ask {
    let path = [
        ("{file}", "inbox.js"),
        ("{code}", "invalid"),
        ("{stream}", "00000000-0000-0000-0000-000000000000"),
        ("{id}", "00000000-0000-0000-0000-000000000000"),
        ("{user}", "carol"),
        ("{*topic}", "ops"),
        ("{topic}", "ops"),
        ("{key}", "0000000000000000"),
    ];
    let path = path.iter().fold(route.to_owned(), |path, (name, value)| path.replace(name, value));
    let ask = Ask::new(method, &path);
    let body = match (method, route) {
        ("POST", "/v1/notifications") | ("PUT", "/v1/scheduled/{id}") => json!({ "to": "topic:ops", "title": "t" }),
        ("POST", "/v1/inbox/mark") => json!({ "as": "read", "ids": ["00000000-0000-0000-0000-000000000000"] }),
        ("POST", "/v1/keys") => json!({ "name": "k", "scopes": ["publish"] }),
        ("POST", "/v1/publish") => return ask.header("to", "user:carol").body("text/plain", "t"),
        ("POST", "/v1/publish/{*topic}") => return ask.body("text/plain", "t"),
        ("POST", "/v1/topics/{topic}/followers") => return ask.ndjson(&[json!({ "user": "carol" })]),
        ("GET", _) => return ask,
        _ => json!({}),
    };
    ask.json(&body)
}

/// The request as somebody of this role sends it.
fn as_role(ask: Ask, role: usize, credential: &str) -> Ask {
    match ROLES[role] {
        "nobody" => ask,
        role if role.ends_with("cookie") => {
            ask.header("cookie", format!("a=b; tidings_session={credential}")).header("sec-fetch-site", "same-origin")
        }
        _ => ask.bearer(credential),
    }
}

fn credentials(server: &Server) -> Vec<String> {
    let publishing = json!({ "sub": "alice", "exp": token::now() + 600, "scope": "publish" });
    let (user, publishing) = (server.token("alice"), server.token_for(&publishing));
    let keys = ["publish", "publish:topic/ops", "tickets", "users", "templates", "admin"].map(|s| server.key(&[s]));
    let users = [String::new(), user.clone(), publishing.clone(), user, publishing, server.ticket("alice")];
    users.into_iter().chain(keys).chain([server.operator()]).collect()
}

#[test]
fn the_table_names_every_route_there_is() {
    let mut here: Vec<_> = TABLE.iter().map(|(method, path, _)| (*method, *path)).collect();
    let mut there: Vec<_> = ROUTES.iter().map(|entry| (entry.verb.as_str(), entry.path)).collect();
    here.sort_unstable();
    there.sort_unstable();
    assert_eq!(here, there);
}

#[test]
fn every_route_lets_in_those_it_is_for_and_nobody_else() {
    let server = Server::start();
    let credentials = credentials(&server);
    server.operate(Ask::put("/v1/topics/ops").json(&json!({ "follow": "open" }))).expect(201);
    for (method, route, letters) in TABLE {
        for (role, letter) in letters.chars().enumerate() {
            let ask = as_role(role_body(ask(method, route), method, route, role), role, &credentials[role]);
            let ask = match ROLES[role] {
                "a ticket" => with_ticket(method, route, &credentials[role]),
                _ => ask,
            };
            // As a proxy passes it on, so that /metrics counts too.
            let answer = ask.header("x-forwarded-for", "203.0.113.7").glance(server.place());
            let here = format!("{method} {route} by {}: {} {}", ROLES[role], answer.status(), answer.text());
            match letter {
                '1' => assert_eq!(answer.status(), 401, "{here}"),
                '3' => assert_eq!((answer.status(), code(&answer)), (403, json!("forbidden")), "{here}"),
                '4' => assert_eq!((answer.status(), code(&answer)), (404, json!("not-found")), "{here}"),
                // Let in: what follows is about the request, not about who sent it.
                _ => assert!(
                    matches!(answer.status(), 200..=299 | 426)
                        || answer.text().contains("there is no such")
                        || answer.text().contains("not-scheduled"),
                    "{here}"
                ),
            }
        }
    }
}

fn code(answer: &Answer) -> Value {
    answer.json()["code"].clone()
}

/// A key makes tickets for a user it names; a user's own need no name.
fn role_body(ask: Ask, method: &str, route: &str, role: usize) -> Ask {
    match (method, route) {
        ("POST", "/v1/tickets") if role > 5 => Ask::post("/v1/tickets").json(&json!({ "user": "carol" })),
        _ => ask,
    }
}

/// A ticket stands in the query, and nowhere else.
fn with_ticket(method: &str, route: &str, ticket: &str) -> Ask {
    let bare = ask(method, route).to_bytes();
    let target = String::from_utf8_lossy(&bare).split(' ').nth(1).unwrap_or_default().to_owned();
    Ask::new(method, &format!("{target}?ticket={ticket}"))
}

#[test]
fn the_demos_door_is_there_in_a_demo_only() {
    let demo = Setup::demo().start();
    demo.send(&Ask::get("/demo")).expect(200);
    let users = demo.send(&Ask::get("/demo/users")).expect(200).json();
    assert_eq!(users["users"][0], json!({ "id": "alice", "name": "Alice" }));
    let sign_in = |user: &str| Ask::post("/demo/session").json(&json!({ "user": user }));
    demo.send(&sign_in("alice")).problem(403, "cross-site");
    demo.send(&sign_in("alice").header("sec-fetch-site", "cross-site")).problem(403, "cross-site");
    demo.send(&sign_in("mallory").header("sec-fetch-site", "same-origin")).problem(404, "not-found");
    let answer = demo.send(&sign_in("alice").header("sec-fetch-site", "same-origin")).expect(204);
    let cookie = answer.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    let publish = Ask::post("/v1/notifications").header("cookie", cookie).header("sec-fetch-site", "same-origin");
    demo.send(&publish.json(&json!({ "to": "user:bob", "title": "hi" }))).expect(201);
    let ready = demo.ready();
    let bob = ready["users"][1]["token"].as_str().expect("a token");
    let inbox = demo.send(&Ask::get("/v1/inbox").bearer(bob)).expect(200).json();
    assert_eq!(inbox["entries"][0]["sender"], "alice");
    let key = ready["key"].as_str().expect("a key");
    demo.send(&Ask::get("/v1/keys").bearer(key)).expect(200);
    assert_eq!(ready["users"].as_array().map(Vec::len), Some(3));
    assert_eq!(ready["users"][2]["id"], Value::from("carol"));
}
