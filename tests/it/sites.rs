//! What browsers may do: cookies, other sites, other origins, base paths; and what a proxy's peer may see.

use serde_json::json;

use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::token;

const APP: &str = "https://app.example";

fn sign_in(server: &Server, base: &str, more: impl FnOnce(Ask) -> Ask) -> Answer {
    server.send(&more(Ask::post(&format!("{base}/v1/session")).bearer(&server.token("alice")))).expect(204)
}

/// The attributes of a cookie that was set, without its value.
fn attributes(answer: &Answer) -> Vec<String> {
    let set = answer.header("set-cookie").expect("a cookie is set");
    assert!(set.starts_with("tidings_session="), "{set}");
    set.split("; ").skip(1).filter(|part| !part.starts_with("Max-Age=")).map(str::to_owned).collect()
}

#[test]
fn a_session_cookie_is_kept_from_scripts_and_other_sites_and_ends_with_its_token() {
    let server = Server::start();
    let answer = sign_in(&server, "", |ask| ask);
    assert_eq!(attributes(&answer), ["Path=/", "HttpOnly", "SameSite=Lax"]);
    let set = answer.header("set-cookie").expect("a cookie").to_owned();
    let age: u64 = set.split("Max-Age=").nth(1).and_then(|rest| rest.split(';').next()?.parse().ok()).expect("an age");
    assert!((3_590..=3_600).contains(&age), "{age}");
    let over_tls = sign_in(&server, "", |ask| ask.header("x-forwarded-proto", "https"));
    assert_eq!(attributes(&over_tls), ["Path=/", "HttpOnly", "SameSite=Lax", "Secure"]);
    let cookie = set.split(';').next().expect("a cookie");
    let mut stream = Sse::open(server.place(), Ask::get("/v1/stream").header("cookie", cookie));
    assert_eq!(stream.expect("hello").data["user"], "alice");
    let out = Ask::delete("/v1/session").header("cookie", cookie).header("sec-fetch-site", "same-origin");
    let answer = server.send(&out.body("application/json", "")).expect(204);
    assert!(
        answer
            .header("set-cookie")
            .is_some_and(|set| set.starts_with("tidings_session=;") && set.contains("Max-Age=0"))
    );
    server.send(&Ask::post("/v1/session").bearer(&server.operator())).problem(401, "bad-credential");
    let always = Setup::serve().env("TIDINGS_HTTP_SECURE_COOKIES", "always").start();
    assert!(attributes(&sign_in(&always, "", |ask| ask)).contains(&"Secure".to_owned()));
}

#[test]
fn a_change_by_cookie_needs_proof_that_no_other_site_made_it() {
    let server = Setup::serve().env("TIDINGS_HTTP_ORIGINS", APP).start();
    let publishing = json!({ "sub": "alice", "exp": token::now() + 60, "scope": "publish" });
    let cookie = format!("tidings_session={}", server.token_for(&publishing));
    let cursor = server.notify("alice", "t")["cursor"].clone();
    let changes = [
        ("/v1/notifications", json!({ "to": "user:bob", "title": "t" })),
        ("/v1/inbox/mark", json!({ "as": "seen", "upto": cursor })),
        ("/v1/tickets", json!({})),
    ];
    let proofs: [(&[(&str, &str)], bool); 9] = [
        (&[("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], true),
        (&[("origin", "http://localhost")], true),
        (&[("sec-fetch-site", "cross-site"), ("origin", APP)], true),
        (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], false),
        (&[("sec-fetch-site", "same-site")], false),
        (&[("sec-fetch-site", "none")], false),
        (&[("origin", "null")], false),
        (&[], false),
    ];
    for (path, body) in &changes {
        for (headers, good) in proofs {
            let ask = Ask::post(path).header("cookie", &cookie).json(body);
            let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
            let answer = server.send(&ask);
            if good {
                assert!((200..300).contains(&answer.status()), "{path} {headers:?}: {}", answer.text());
            } else {
                answer.problem(403, "cross-site");
            }
        }
        // What a form can send is never enough.
        for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
            let ask = Ask::post(path).header("cookie", &cookie).header("sec-fetch-site", "same-origin");
            server.send(&ask.body(kind, body.to_string())).problem(403, "cross-site");
        }
        // A token in the header was put there on purpose.
        let bearer = cookie.trim_start_matches("tidings_session=");
        let ask = Ask::post(path).bearer(bearer).header("sec-fetch-site", "cross-site").json(body);
        assert!((200..300).contains(&server.send(&ask).status()), "{path}");
    }
    let reading = Ask::get("/v1/inbox").header("cookie", &cookie).header("sec-fetch-site", "cross-site");
    server.send(&reading).expect(200);
    let out = Ask::delete("/v1/session").header("cookie", &cookie).header("sec-fetch-site", "cross-site");
    server.send(&out.body("application/json", "")).problem(403, "cross-site");
}

#[test]
fn only_a_listed_origin_may_call_and_nothing_is_reflected() {
    let server = Setup::serve().env("TIDINGS_HTTP_ORIGINS", "https://app.example,https://other.example:8443").start();
    let preflight = |origin: &str| {
        let ask = Ask::new("OPTIONS", "/v1/notifications").header("origin", origin);
        server.send(
            &ask.header("access-control-request-method", "POST").header("access-control-request-headers", "x-evil"),
        )
    };
    for origin in [APP, "https://other.example:8443"] {
        let answer = preflight(origin);
        assert!((200..300).contains(&answer.status()));
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-max-age"), Some("7200"));
        let allowed = answer.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
        assert!(allowed.contains("authorization") && allowed.contains("last-event-id"), "{allowed}");
        assert!(!allowed.contains("x-evil") && !allowed.contains('*'), "nothing is reflected: {allowed}");
        let methods = answer.header("access-control-allow-methods").unwrap_or_default();
        assert!(methods.contains("POST") && !methods.contains('*'), "{methods}");
    }
    let get =
        |origin: &str| server.send(&Ask::get("/v1/inbox").bearer(&server.token("alice")).header("origin", origin));
    let exposed = get(APP).header("access-control-expose-headers").unwrap_or_default().to_ascii_lowercase();
    assert!(exposed.contains("tidings-") && exposed.contains("retry-after"), "{exposed}");
    assert_eq!(get(APP).header("access-control-allow-origin"), Some(APP));
    for origin in
        ["https://evil.example", "null", "*", "https://app.example.evil", "http://app.example", "https://APP.example"]
    {
        for answer in [preflight(origin), get(origin)] {
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            assert!(answer.header("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("origin")), "{origin}");
        }
    }
    // Refusals and streams are for the page to read as well.
    let refused = server.send(&Ask::get("/v1/inbox").header("origin", APP));
    assert_eq!((refused.status(), refused.header("access-control-allow-origin")), (401, Some(APP)));
    let ask = Ask::get("/v1/stream").bearer(&server.token("alice")).header("origin", APP);
    assert_eq!(Sse::open(server.place(), ask).head.header("access-control-allow-origin"), Some(APP));
    let silent = Server::start().send(&Ask::get("/healthz").header("origin", APP));
    assert_eq!(silent.header("access-control-allow-origin"), None);
}

#[test]
fn everything_stands_under_the_base_path() {
    let server = Setup::serve().arg("--base-path").arg("/apps/tidings/").start();
    assert!(server.url().ends_with("/apps/tidings"), "{}", server.url());
    server.send(&Ask::get("/apps/tidings/healthz")).expect(200);
    for outside in ["/healthz", "/", "/apps", "/apps/tidingsx/healthz", "/apps/tidings/../healthz"] {
        server.send(&Ask::get(outside)).problem(404, "not-found");
    }
    let bare = server.send(&Ask::get("/apps/tidings"));
    assert!((300..400).contains(&bare.status()), "{}", bare.status());
    assert_eq!(bare.header("location"), Some("/apps/tidings/"));
    let page = server.send(&Ask::get("/apps/tidings/")).expect(200);
    assert!(!page.text().contains("=\"/"), "pages name only what is beside them");
    let problem = server.send(&Ask::get("/apps/tidings/v1/inbox")).problem(401, "unauthenticated");
    assert_eq!(problem["type"], "/apps/tidings/problems/unauthenticated");
    server.send(&Ask::get("/apps/tidings/problems/unauthenticated")).expect(200);
    assert_eq!(attributes(&sign_in(&server, "/apps/tidings", |ask| ask))[0], "Path=/apps/tidings");
    let ask = Ask::get("/apps/tidings/v1/stream").bearer(&server.token("alice"));
    Sse::open(server.place(), ask).expect("hello");
}

#[test]
fn metrics_are_for_this_machine_alone() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?cursor=now");
    stream.expect("hello");
    server.notify("alice", "t");
    stream.expect("notification");
    server.send(&Ask::get("/v1/inbox")).problem(401, "unauthenticated");
    let answer = server.send(&Ask::get("/metrics")).expect(200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for name in ["connections", "publishes", "deliveries", "commit_to_socket", "errors"] {
        assert!(text.contains(name), "no {name} in {text}");
    }
    for header in ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-proto"] {
        server.send(&Ask::get("/metrics").header(header, "x")).problem(404, "not-found");
    }
    let admin = server.key(&["admin"]);
    server.send(&Ask::get("/metrics").header("x-forwarded-for", "203.0.113.7").bearer(&admin)).expect(200);
    Ask::get("/metrics").send(&server.unix()).problem(404, "not-found");
}

#[test]
fn the_unix_socket_serves_all_that_tcp_does() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Setup::serve().start();
    let unix = server.unix();
    let mut stream = Sse::open(&unix, Ask::get("/v1/stream").bearer(&server.token("alice")));
    stream.expect("hello");
    let ask =
        Ask::post("/v1/notifications").bearer(&server.operator()).json(&json!({ "to": "user:alice", "title": "t" }));
    ask.send(&unix).expect(201);
    assert_eq!(stream.until("notification").title(), "t");
    Ask::get("/v1/inbox").send(&unix).problem(401, "unauthenticated");
    let mode = |name: &str| {
        let found = std::fs::metadata(server.data().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        found.permissions().mode() & 0o777
    };
    for name in ["tidings.sock", "token.key", "operator.key", "tidings.db", "tidings.lock", "tidings.head"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode(""), 0o700);
}

#[test]
fn a_server_may_listen_on_the_unix_socket_alone() {
    let mut server =
        Setup::serve().arg("--config").arg("/dev/null").env("TIDINGS_HTTP_SOCKET_MODE", "0666").only_unix().start();
    assert_eq!(server.ready()["url"], json!(null));
    server.send(&Ask::get("/healthz")).expect(200);
    let path = server.data().join("tidings.sock");
    assert_eq!(server.terminate().0.code(), Some(0));
    assert!(!path.exists(), "its socket goes with it");
}

#[test]
fn every_answer_says_what_browsers_must_not_do_with_it() {
    let server = Server::start();
    for path in ["/", "/publish", "/healthz", "/v1/inbox", "/static/inbox.js", "/nothing", "/problems/invalid"] {
        let answer = server.send(&Ask::get(path));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.header("referrer-policy").is_some(), "{path}");
        assert_eq!(answer.header("server"), None, "{path}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
    }
    for path in ["/v1/inbox", "/v1/inbox/counts"] {
        let answer = server.send(&Ask::get(path).bearer(&server.token("alice"))).expect(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    let page = server.send(&Ask::get("/"));
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("require-trusted-types-for 'script'") && policy.contains("default-src 'none'"), "{policy}");
    assert!(!page.text().contains("<script>"), "no script stands in a page");
}

#[test]
fn every_problem_has_its_page() {
    let server = Server::start();
    for kind in tidings::http::PROBLEM_KINDS {
        let page = server.send(&Ask::get(&format!("/problems/{}", kind.code))).expect(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text().contains(kind.code), "{}", kind.code);
    }
    server.send(&Ask::get("/problems/nonsense")).problem(404, "not-found");
}
