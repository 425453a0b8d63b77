//! Deny by default: every route against everyone who might call it.

use serde_json::{Value, json};
use tidings::http::ROUTES;

use crate::support::http::{Answer, Ask, Place};
use crate::support::server::{Server, Setup};
use crate::support::token;
use crate::support::ws::{Frames, Ws, handshake};

/// Who calls, in the order of the columns of [`TABLE`].
const ROLES: [&str; 21] = [
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
    "a revoked user",
    "a revoked user's cookie",
    "a revoked user's ticket",
    "an expired user",
    "a revoked key",
    "the secret before a key's rotation",
    "a user whom the proxy names",
    "a user whom a stranger names",
];

/// Method, route, a letter for each role, and the status for those who are let in. The letters: `+` let in, `1` refused
/// with 401, of these `r` as revoked and `e` as expired, `3` refused with 403, `4` as if it were not there.
const TABLE: &[(&str, &str, &str, u16)] = &[
    ("GET", "/healthz", "+++++++++++++++++++++", 200),
    ("GET", "/readyz", "+++++++++++++++++++++", 200),
    ("GET", "/metrics", "44444444444++44444444", 200),
    ("GET", "/", "+++++++++++++++++++++", 200),
    ("GET", "/publish", "+++++++++++++++++++++", 200),
    ("GET", "/preferences", "+++++++++++++++++++++", 200),
    ("GET", "/static/{file}", "+++++++++++++++++++++", 200),
    ("GET", "/favicon.ico", "+++++++++++++++++++++", 200),
    ("GET", "/problems/{code}", "+++++++++++++++++++++", 200),
    ("GET", "/demo", "444444444444444444444", 404),
    ("GET", "/demo/users", "444444444444444444444", 404),
    ("POST", "/demo/session", "444444444444444444444", 404),
    ("POST", "/v1/session", "1++1111111111r11e1111", 204),
    ("DELETE", "/v1/session", "+++++++++++++++++++++", 204),
    ("POST", "/v1/tickets", "1++++133+33++rr1ere+1", 201),
    ("GET", "/v1/stream", "1+++++3333333rrrere+1", 200),
    ("GET", "/v1/poll", "1+++++3333333rrrere+1", 200),
    ("GET", "/v1/ws", "++++++3333333rrrere++", 101),
    ("POST", "/v1/streams/{stream}/refresh", "1++++13333333rr1ere+1", 404),
    ("GET", "/v1/inbox", "1++++13333333rr1ere+1", 200),
    ("GET", "/v1/inbox/counts", "1++++13333333rr1ere+1", 200),
    ("GET", "/v1/inbox/{id}", "1++++13333333rr1ere+1", 404),
    ("POST", "/v1/inbox/mark", "1++++13333333rr1ere+1", 200),
    ("GET", "/v1/preferences", "1++++13333333rr1ere+1", 200),
    ("PUT", "/v1/preferences", "1++++13333333rr1ere+1", 200),
    ("GET", "/v1/unsubscribe/{token}", "444444444444444444444", 404),
    ("POST", "/v1/unsubscribe/{token}", "444444444444444444444", 404),
    ("POST", "/v1/users", "133111333+3++r11ere11", 200),
    ("GET", "/v1/users/{user}", "133111333+3++r11ere11", 200),
    ("PUT", "/v1/users/{user}", "133111333+3++r11ere11", 200),
    ("GET", "/v1/users/{user}/counts", "133111333+3++r11ere11", 200),
    ("GET", "/v1/users/{user}/export", "133111333+3++r11ere11", 200),
    ("POST", "/v1/notifications", "13+3+1++333++rr1ere31", 201),
    ("POST", "/v1/publish", "133111+3333++r11ere11", 201),
    ("POST", "/v1/publish/{*topic}", "133111++333++r11ere11", 201),
    ("GET", "/v1/notifications/{id}", "13+3+1++333++rr1ere31", 404),
    ("DELETE", "/v1/notifications/{id}", "13+3+1++333++rr1ere31", 404),
    ("GET", "/v1/notifications/{id}/recipients", "133111333+3++r11ere11", 404),
    ("GET", "/v1/notifications/{id}/explain", "133111333+3++r11ere11", 400),
    ("GET", "/v1/deliveries", "133111333+3++r11ere11", 200),
    ("GET", "/v1/deliveries/export", "133111333+3++r11ere11", 200),
    ("POST", "/v1/deliveries/retry", "133111333+3++r11ere11", 200),
    ("GET", "/v1/deliveries/{id}", "133111333+3++r11ere11", 404),
    ("POST", "/v1/deliveries/{id}/retry", "133111333+3++r11ere11", 404),
    ("GET", "/v1/scheduled", "13+3+1++333++rr1ere31", 200),
    ("PUT", "/v1/scheduled/{id}", "13+3+1++333++rr1ere31", 409),
    ("GET", "/v1/topics", "133111333+3++r11ere11", 200),
    ("PUT", "/v1/topics/{topic}", "133111333+3++r11ere11", 200),
    ("GET", "/v1/topics/{topic}", "133111333+3++r11ere11", 200),
    ("GET", "/v1/topics/{topic}/followers", "133111333+3++r11ere11", 200),
    ("POST", "/v1/topics/{topic}/followers", "133111333+3++r11ere11", 200),
    ("PUT", "/v1/topics/{topic}/followers/{user}", "133111333+3++r11ere11", 200),
    ("DELETE", "/v1/topics/{topic}/followers/{user}", "133111333+3++r11ere11", 200),
    ("PUT", "/v1/topics/{topic}/follow", "1++++13333333rr1ere+1", 200),
    ("DELETE", "/v1/topics/{topic}/follow", "1++++13333333rr1ere+1", 200),
    ("PUT", "/v1/topics/{topic}/mute", "1++++13333333rr1ere+1", 200),
    ("DELETE", "/v1/topics/{topic}/mute", "1++++13333333rr1ere+1", 200),
    ("GET", "/v1/follows", "1++++13333333rr1ere+1", 200),
    ("GET", "/v1/templates", "1331113333+++r11ere11", 200),
    ("PUT", "/v1/templates/{template}", "1331113333+++r11ere11", 200),
    ("GET", "/v1/templates/{template}", "1331113333+++r11ere11", 200),
    ("POST", "/v1/templates/{template}/publish", "1331113333+++r11ere11", 200),
    ("POST", "/v1/templates/{template}/preview", "1331113333+++r11ere11", 200),
    ("POST", "/v1/keys", "13311133333++r11ere11", 201),
    ("GET", "/v1/keys", "13311133333++r11ere11", 200),
    ("DELETE", "/v1/keys/{key}", "13311133333++r11ere11", 404),
    ("POST", "/v1/upkeep/recount", "13311133333++r11ere11", 200),
    ("POST", "/v1/upkeep/compact", "13311133333++r11ere11", 200),
    ("GET", "/v1/upkeep/backup", "133111333333+r11ere11", 200),
    ("POST", "/v1/upkeep/check", "13311133333++r11ere11", 200),
    ("POST", "/v1/keys/{key}/rotate", "13311133333++r11ere11", 404),
    ("GET", "/v1/status", "13311133333++r11ere11", 200),
    ("GET", "/v1/online", "133111333+3++r11ere11", 200),
    ("DELETE", "/v1/users/{user}/streams", "133111333+3++r11ere11", 200),
    ("PUT", "/v1/users/{user}/revocation", "133111333+3++r11ere11", 200),
    ("DELETE", "/v1/users/{user}/revocation", "133111333+3++r11ere11", 200),
    ("POST", "/v1/upkeep/reload", "13311133333++r11ere11", 200),
    // What the others need there goes last.
    ("DELETE", "/v1/users/{user}", "133111333+3++r11ere11", 200),
    ("DELETE", "/v1/topics/{topic}", "133111333+3++r11ere11", 204),
    ("DELETE", "/v1/templates/{template}", "1331113333+++r11ere11", 204),
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
        ("{template}", "due"),
        ("{key}", "0000000000000000"),
    ];
    let path = path.iter().fold(route.to_owned(), |path, (name, value)| path.replace(name, value));
    let ask = Ask::new(method, &path);
    let body = match (method, route) {
        ("POST", "/v1/notifications") | ("PUT", "/v1/scheduled/{id}") => json!({ "to": "topic:ops", "title": "t" }),
        ("POST", "/v1/inbox/mark") => json!({ "as": "read", "ids": ["00000000-0000-0000-0000-000000000000"] }),
        ("POST", "/v1/keys") => json!({ "name": "k", "scopes": ["publish"] }),
        ("PUT", "/v1/templates/{template}") => template(),
        ("POST", "/v1/publish") => return ask.header("to", "user:carol").body("text/plain", "t"),
        ("POST", "/v1/publish/{*topic}") => return ask.body("text/plain", "t"),
        ("POST", "/v1/upkeep/reload" | "/v1/keys/{key}/rotate") => return ask,
        ("POST", "/v1/topics/{topic}/followers" | "/v1/users") => return ask.ndjson(&[json!({ "user": "carol" })]),
        ("GET", _) => return ask,
        _ => json!({}),
    };
    ask.json(&body)
}

/// Everybody's credential, in the order of [`ROLES`]; empty where it is a header's word.
fn credentials(server: &Server) -> Vec<String> {
    let user_token = |user: &str, exp: i64, scope: &str| {
        server.token_for(&json!({ "sub": user, "exp": token::now() + exp, "iat": token::now() - 60, "scope": scope }))
    };
    let (user, publishing) = (user_token("alice", 600, ""), user_token("alice", 600, "publish"));
    let revoked = user_token("mallory", 600, "publish");
    let made = server.send(&Ask::post("/v1/tickets").bearer(&revoked)).expect(201).json();
    let revoked_ticket = made["ticket"].as_str().expect("a ticket").to_owned();
    server.operate(Ask::put("/v1/users/mallory/revocation")).expect(200);
    let keys = ["publish", "publish:topic/ops", "tickets", "users", "templates", "admin"].map(|s| server.key(&[s]));
    let (revoked_key, rotated) = (server.key(&["admin"]), server.key(&["admin"]));
    let id = |key: &str| key.split('_').nth(1).expect("tk_<id>_<secret>").to_owned();
    server.operate(Ask::delete(&format!("/v1/keys/{}", id(&revoked_key)))).expect(204);
    let rotation = Ask::post(&format!("/v1/keys/{}/rotate", id(&rotated))).json(&json!({ "grace": "0s" }));
    server.operate(rotation).expect(200);
    let users = [String::new(), user.clone(), publishing.clone(), user, publishing, server.ticket("alice")];
    let gone = [revoked.clone(), revoked, revoked_ticket, user_token("alice", -60, "publish"), revoked_key, rotated];
    users.into_iter().chain(keys).chain([server.operator()]).chain(gone).chain([String::new(), String::new()]).collect()
}

/// The request as somebody of this role sends it.
fn as_role(ask: Ask, role: &str, credential: &str) -> Ask {
    let same_origin = |ask: Ask| ask.header("sec-fetch-site", "same-origin");
    match role {
        "nobody" => ask,
        role if role.ends_with("cookie") => {
            same_origin(ask.header("cookie", format!("a=b; tidings_session={credential}")))
        }
        role if role.ends_with("names") => same_origin(ask.header("x-remote-user", "alice")),
        _ => ask.bearer(credential),
    }
}

/// The request of somebody of this role, whole.
fn request(method: &str, route: &str, role: usize, credential: &str) -> Ask {
    let ask = match (method, route) {
        // A key makes tickets for a user it names; a user's own need no name.
        ("POST", "/v1/tickets") if matches!(role, 6..=12 | 17 | 18) => {
            Ask::post("/v1/tickets").json(&json!({ "user": "carol" }))
        }
        ("GET", "/v1/ws") => handshake("/v1/ws"),
        _ => ask(method, route),
    };
    // As a proxy passes it on, so that /metrics counts too.
    let forwarded = |ask: Ask| ask.header("x-forwarded-for", "203.0.113.7");
    if !ROLES[role].ends_with("ticket") {
        return forwarded(as_role(ask, ROLES[role], credential));
    }
    // A ticket stands in the query, and nowhere else.
    let bare = ask.to_bytes();
    let target = String::from_utf8_lossy(&bare).split(' ').nth(1).unwrap_or_default().to_owned();
    let target = format!("{target}?ticket={credential}");
    forwarded(if route == "/v1/ws" { handshake(&target) } else { Ask::new(method, &target) })
}

#[test]
fn the_table_names_every_route_there_is() {
    let mut here: Vec<_> = TABLE.iter().map(|(method, path, ..)| (*method, *path)).collect();
    let mut there: Vec<_> = ROUTES.iter().map(|entry| (entry.verb.as_str(), entry.path)).collect();
    here.sort_unstable();
    there.sort_unstable();
    assert_eq!(here, there);
    assert!(TABLE.iter().all(|(.., letters, _)| letters.len() == ROLES.len()));
}

#[test]
fn every_route_lets_in_those_it_is_for_and_nobody_else() {
    let trusting = Setup::serve().env("TIDINGS_AUTH_TRUSTED_HEADER", "X-Remote-User");
    let server = trusting.env("TIDINGS_AUTH_TRUSTED_HEADER_FROM", "unix").start();
    let (credentials, mut wrong) = (credentials(&server), Vec::new());
    for (method, route, letters, let_in) in TABLE {
        for (role, letter) in letters.chars().enumerate() {
            if letter == '+' {
                prepare(&server, method, route);
            }
            // The socket is where the proxy is; what comes over TCP is a stranger's.
            let place = if ROLES[role].contains("proxy") { server.unix() } else { server.place().clone() };
            let ask = request(method, route, role, &credentials[role]);
            if *route == "/v1/ws" {
                check_socket(&place, &ask, letter, ROLES[role]);
                continue;
            }
            let answer = ask.glance(&place);
            let right = match refusal(letter) {
                None => answer.status() == *let_in,
                Some(refusal) => is_refused(&answer, refusal),
            };
            if !right {
                let (role, said) = (ROLES[role], answer.text());
                wrong.push(format!("{method} {route} by {role} is no {letter}: {} {said}", answer.status()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_refused(answer: &Answer, (status, codes): (u16, &[&str])) -> bool {
    answer.status() == status && codes.contains(&answer.json()["code"].as_str().unwrap_or_default())
}

/// The status and the problem's possible codes that a letter stands for; `None` for those who are let in.
fn refusal(letter: char) -> Option<(u16, &'static [&'static str])> {
    match letter {
        '1' => Some((401, &["unauthenticated", "bad-credential"])),
        'r' => Some((401, &["revoked"])),
        'e' => Some((401, &["expired"])),
        '3' => Some((403, &["forbidden"])),
        '4' => Some((404, &["not-found"])),
        _ => None,
    }
}

/// A browser can't read the status of a handshake: who is not let in any more is told on the socket.
fn check_socket(place: &Place, ask: &Ask, letter: char, role: &str) {
    match letter {
        '+' => assert_eq!(Frames::open(place, ask).head.status, 101, "{role}"),
        'r' => drop(Ws::open(place, ask).bye("revoked", 4103)),
        'e' => drop(Ws::open(place, ask).bye("expired", 4101)),
        letter => {
            let answer = ask.glance(place);
            let refusal = refusal(letter).expect("the others are refused");
            assert!(is_refused(&answer, refusal), "{role}: {} {}", answer.status(), answer.text());
        }
    }
}

/// A template that says one thing.
fn template() -> Value {
    json!({ "texts": { "en": { "in_app": { "title": "t" } } } })
}

/// Makes what a request needs to find, so that everybody who is let in gets the same answer.
fn prepare(server: &Server, method: &str, route: &str) {
    match (method, route) {
        ("DELETE", "/v1/users/{user}") => drop(server.notify("carol", "t")),
        _ if route.contains("{template}") => {
            drop(server.operate(Ask::put("/v1/templates/due").json(&template())));
        }
        _ if route.contains("{topic}") => {
            drop(server.operate(Ask::put("/v1/topics/ops").json(&json!({ "follow": "open" }))));
            server.follow("ops", "carol");
        }
        _ if route.contains("{user}") => drop(server.notify("carol", "t")),
        _ => {}
    }
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
