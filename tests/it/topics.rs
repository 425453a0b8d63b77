//! Topics over HTTP: made, listed, deleted; followed by a backend's word or a user's own; muted.

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask};
use crate::support::server::Server;
use crate::support::token;

fn put(server: &Server, topic: &str, body: &Value) -> Answer {
    server.operate(Ask::put(&format!("/v1/topics/{topic}")).json(body))
}

/// Publishes titles to a topic.
fn publish(server: &Server, topic: &str, titles: &[&str]) {
    for title in titles {
        server.publish(&json!({ "to": { "topic": topic }, "title": title }));
    }
}

fn titles(server: &Server, user: &str) -> Vec<String> {
    let inbox = server.inbox(user);
    let entries = inbox["entries"].as_array().expect("a list").iter();
    entries.map(|entry| entry["title"].as_str().unwrap_or_default().to_owned()).collect()
}

fn unread(server: &Server, user: &str) -> Value {
    let ask = Ask::get("/v1/inbox/counts").bearer(&server.token(user));
    server.send(&ask).expect(200).json()["unread"].clone()
}

/// All items of a listing, read in pages of `limit`.
fn walk(server: &Server, path: &str, list: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.operate(Ask::get(&format!("{path}?limit={limit}{after}"))).expect(200).json();
        let items = page[list].as_array().expect("a list");
        assert!(items.len() <= limit, "{page}");
        all.extend(items.iter().cloned());
        let Some(next) = page["next"].as_str() else {
            assert_eq!(page["next"], Value::Null);
            return all;
        };
        assert_eq!(items.len(), limit, "only the last page may be short: {page}");
        after = format!("&after={}", next.replace('/', "%2F"));
    }
}

fn names<'a>(items: &'a [Value], field: &str) -> Vec<&'a str> {
    items.iter().map(|item| item[field].as_str().expect("a name")).collect()
}

#[test]
fn a_topic_is_what_its_settings_say_until_they_are_changed() {
    let server = Server::start();
    let made = put(&server, "ops", &json!({ "category": "alerts", "follow": "open" })).expect(201).json();
    let at = made["created_at"].as_str().expect("a time").to_owned();
    assert!(at.parse::<jiff::Timestamp>().is_ok(), "{at}");
    let topic = |follow: &str, followers: u64, published: u64| {
        json!({
            "topic": "ops", "category": "alerts", "follow": follow, "followers": followers, "published": published,
            "created_at": at,
        })
    };
    assert_eq!(made, topic("open", 0, 0));
    server.follow("ops", "alice");
    publish(&server, "ops", &["one"]);
    let one = || server.operate(Ask::get("/v1/topics/ops"));
    assert_eq!(one().expect(200).json(), topic("open", 1, 1));
    assert_eq!(put(&server, "ops", &json!({})).expect(200).json(), topic("open", 1, 1), "what is not named stays");
    assert_eq!(put(&server, "ops", &json!({ "follow": "managed" })).expect(200).json(), topic("managed", 1, 1));
    put(&server, "ops", &json!({ "category": "news", "follow": "open" })).problem(409, "category-conflict");
    assert_eq!(one().expect(200).json(), topic("managed", 1, 1), "what was refused changed nothing");
    assert_eq!(put(&server, "plain", &json!({})).expect(201).json()["follow"], "managed");
}

#[test]
fn topics_and_their_followers_are_listed_page_by_page() {
    let server = Server::start();
    let topics = ["b", "a/2", "a/10", "Z", "c"];
    for topic in topics {
        put(&server, &topic.replace('/', "%2F"), &json!({})).expect(201);
    }
    server.publish(&json!({ "to": "everyone", "title": "hi" }));
    for limit in [1, 2, 5, 1_000] {
        let all = walk(&server, "/v1/topics", "topics", limit);
        assert_eq!(
            names(&all, "topic"),
            ["Z", "a/10", "a/2", "b", "c"],
            "pages of {limit}; `everyone` is none of them"
        );
    }
    for user in ["carol", "alice", "读者", "bob"] {
        server
            .operate(Ask::put(&format!("/v1/topics/b/followers/{}", user.replace("读者", "%E8%AF%BB%E8%80%85"))))
            .expect(200);
    }
    server.operate(Ask::delete("/v1/topics/b/followers/carol")).expect(200);
    server.send(&Ask::put("/v1/topics/b/mute").bearer(&server.token("bob"))).expect(200);
    let all = walk(&server, "/v1/topics/b/followers", "followers", 100);
    assert_eq!(names(&all, "user"), ["alice", "bob", "读者"]);
    assert_eq!(all.iter().map(|follower| follower["muted"] == true).collect::<Vec<_>>(), [false, true, false]);
    let by_two = server.operate(Ask::get("/v1/topics/b/followers?limit=2")).expect(200).json();
    assert_eq!(
        (names(by_two["followers"].as_array().expect("a list"), "user"), &by_two["next"]),
        (vec!["alice", "bob"], &json!("bob"))
    );
    for bad in ["limit=0", "limit=1001", "limit=x", "after=%20", "page=2"] {
        server.operate(Ask::get(&format!("/v1/topics?{bad}"))).problem(400, "bad-query");
        server.operate(Ask::get(&format!("/v1/topics/b/followers?{bad}"))).problem(400, "bad-query");
    }
}

#[test]
fn what_is_no_topic_is_refused_by_name() {
    let server = Server::start();
    for ask in
        [Ask::get("/v1/topics/nothing"), Ask::delete("/v1/topics/nothing"), Ask::get("/v1/topics/nothing/followers")]
    {
        server.operate(ask).problem(404, "not-found");
    }
    for ask in [
        Ask::put("/v1/topics/everyone"),
        Ask::delete("/v1/topics/everyone"),
        Ask::put("/v1/topics/everyone/followers/alice"),
    ] {
        server.operate(ask).problem(422, "topic-reserved");
    }
    let pointer = |ask: Ask| server.operate(ask).problem(422, "invalid")["errors"][0]["pointer"].clone();
    assert_eq!(pointer(Ask::get("/v1/topics/a%20b")), "/topic");
    assert_eq!(pointer(Ask::put("/v1/topics/ops").json(&json!({ "follow": "all" }))), "/follow");
    assert_eq!(pointer(Ask::put("/v1/topics/ops").json(&json!({ "followers": 1 }))), "/followers");
    assert_eq!(pointer(Ask::put("/v1/topics/ops/followers/alice").json(&json!({ "last": 101 }))), "/last");
    assert_eq!(pointer(Ask::put("/v1/topics/ops/followers/alice").json(&json!({ "from": 1 }))), "/from");
    server.operate(Ask::put("/v1/topics/ops").body("text/plain", "{}")).problem(415, "unsupported-type");
    server.operate(Ask::get("/v1/topics/ops")).problem(404, "not-found");
}

#[test]
fn a_deleted_topic_takes_its_entries_out_of_every_inbox_and_count() {
    let server = Server::start();
    server.follow("ops", "alice");
    server.follow("ops", "bob");
    publish(&server, "ops", &["one", "two"]);
    server.operate(Ask::delete("/v1/topics/ops/followers/bob")).expect(200);
    server.notify("alice", "hers");
    let mut stream = server.stream("alice", "?cursor=now");
    assert_eq!(stream.expect("hello").data["counts"]["unread"], 3);
    server.operate(Ask::delete("/v1/topics/ops")).expect(204);
    assert_eq!(stream.expect("unread").data["unread"], 1, "no `state` tells it");
    assert_eq!((titles(&server, "alice"), unread(&server, "alice")), (vec!["hers".to_owned()], json!(1)));
    assert_eq!((titles(&server, "bob").len(), unread(&server, "bob")), (0, json!(0)), "also out of those who had left");
    server.operate(Ask::get("/v1/topics/ops")).problem(404, "not-found");
    server.operate(Ask::delete("/v1/topics/ops")).problem(404, "not-found");
    // The same name later is another topic, which nobody follows.
    let again = put(&server, "ops", &json!({ "category": "alerts" })).expect(201).json();
    assert_eq!((&again["followers"], &again["published"]), (&json!(0), &json!(0)));
    assert_eq!(server.publish(&json!({ "to": "topic:ops", "title": "three" }))["recipients"], 0);
    server.follow("ops", "alice");
    publish(&server, "ops", &["four"]);
    assert_eq!(stream.until("notification").title(), "four");
    assert_eq!(titles(&server, "alice"), ["four", "hers"]);
}

#[test]
fn a_follow_may_begin_with_the_newest_entries() {
    let server = Server::start();
    publish(&server, "ops", &["1", "2", "3", "4", "5"]);
    let follow = |user: &str, last: u32| {
        let ask = Ask::put(&format!("/v1/topics/ops/followers/{user}")).json(&json!({ "last": last }));
        server.operate(ask).expect(200).json()
    };
    let mut stream = server.stream("alice", "?cursor=now");
    stream.expect("hello");
    let made = follow("alice", 2);
    assert_eq!(made, json!({ "topic": "ops", "user": "alice", "following": true, "changed": true }));
    assert_eq!(stream.expect("unread").data["unread"], 2, "a stream that is past them learns the counts");
    assert_eq!(titles(&server, "alice"), ["5", "4"]);
    assert_eq!(follow("alice", 5)["changed"], false, "who follows already stays where they began");
    assert_eq!(titles(&server, "alice").len(), 2);
    follow("bob", 0);
    follow("carol", 100);
    assert_eq!((titles(&server, "bob").len(), titles(&server, "carol").len()), (0, 5));
    publish(&server, "ops", &["6"]);
    assert_eq!(stream.expect("notification").title(), "6");
    assert_eq!(unread(&server, "alice"), 3);
    // Leaving and coming back: never before the end of the earlier follow.
    server.operate(Ask::delete("/v1/topics/ops/followers/alice")).expect(200);
    publish(&server, "ops", &["7"]);
    follow("alice", 100);
    assert_eq!(titles(&server, "alice"), ["7", "6", "5", "4"]);
    assert_eq!(unread(&server, "alice"), 4);
}

#[test]
fn a_bulk_of_followers_says_for_each_where_they_begin() {
    let server = Server::start();
    publish(&server, "ops", &["1", "2", "3"]);
    let lines =
        [json!({ "user": "alice", "last": 2 }), json!({ "user": "bob" }), json!({ "user": "carol", "last": 101 })];
    let told = server.operate(Ask::post("/v1/topics/ops/followers").ndjson(&lines)).expect(200).json();
    assert_eq!((&told["followed"], &told["failed"]), (&json!(2), &json!(1)));
    assert_eq!(told["errors"][0]["line"], 3);
    assert_eq!(told["errors"][0]["problem"]["errors"][0]["pointer"], "/last");
    assert_eq!((titles(&server, "alice"), titles(&server, "bob").len()), (vec!["3".to_owned(), "2".to_owned()], 0));
}

#[test]
fn users_follow_and_leave_only_what_is_open_and_what_their_token_sees() {
    let server = Server::start();
    put(&server, "open%2F1", &json!({ "follow": "open" })).expect(201);
    put(&server, "closed", &json!({})).expect(201);
    publish(&server, "open/1", &["before"]);
    let alice = server.token("alice");
    let follow = |topic: &str| Ask::put(&format!("/v1/topics/{topic}/follow")).bearer(&alice);
    let leave = |topic: &str| Ask::delete(&format!("/v1/topics/{topic}/follow")).bearer(&alice);
    let said = |following: bool, changed: bool| json!({ "topic": "open/1", "user": "alice", "following": following, "changed": changed });
    assert_eq!(server.send(&follow("open%2F1").json(&json!({ "last": 1 }))).expect(200).json(), said(true, true));
    assert_eq!(server.send(&follow("open%2F1")).expect(200).json(), said(true, false));
    assert_eq!(titles(&server, "alice"), ["before"]);
    let follows = || server.send(&Ask::get("/v1/follows").bearer(&alice)).expect(200).json();
    let open = json!({ "topic": "open/1", "category": "general", "following": true, "muted": false, "follow": "open" });
    assert_eq!(follows(), json!({ "topics": [open] }));

    server.send(&follow("closed")).problem(403, "topic-managed");
    server.follow("closed", "alice");
    server.send(&leave("closed")).problem(403, "topic-managed");
    server.send(&follow("nothing")).problem(404, "not-found");
    server.send(&follow("everyone")).problem(422, "topic-reserved");
    server.send(&follow("open%2F1").json(&json!({ "last": -1 }))).problem(422, "invalid");
    assert_eq!(names(follows()["topics"].as_array().expect("a list"), "topic"), ["closed", "open/1"]);

    let narrow = server.token_for(&json!({ "sub": "bob", "exp": token::now() + 60, "topics": ["closed", "else/*"] }));
    server.send(&Ask::put("/v1/topics/open%2F1/follow").bearer(&narrow)).problem(404, "not-found");
    server.send(&Ask::put("/v1/topics/closed/follow").bearer(&narrow)).problem(403, "topic-managed");
    let ticket = server.ticket("alice");
    server.send(&Ask::put(&format!("/v1/topics/open%2F1/follow?ticket={ticket}"))).problem(401, "unauthenticated");
    server.operate(Ask::put("/v1/topics/open%2F1/follow")).problem(403, "forbidden");

    assert_eq!(server.send(&leave("open%2F1")).expect(200).json(), said(false, true));
    assert_eq!(server.send(&leave("open%2F1")).expect(200).json(), said(false, false));
    publish(&server, "open/1", &["after"]);
    assert_eq!(titles(&server, "alice"), ["before"], "what came until then stays");
}

#[test]
fn a_muted_topic_counts_nowhere_and_its_entries_stay() {
    let server = Server::start();
    server.follow("ops", "alice");
    publish(&server, "ops", &["one"]);
    server.notify("alice", "direct");
    let alice = server.token("alice");
    let mute = |topic: &str| Ask::put(&format!("/v1/topics/{topic}/mute")).bearer(&alice);
    let unmute = |topic: &str| Ask::delete(&format!("/v1/topics/{topic}/mute")).bearer(&alice);
    let said =
        |muted: bool, changed: bool| json!({ "topic": "ops", "user": "alice", "muted": muted, "changed": changed });
    let mut stream = server.stream("alice", "?cursor=now");
    stream.expect("hello");
    assert_eq!(server.send(&mute("ops")).expect(200).json(), said(true, true));
    assert_eq!(stream.expect("unread").data["unread"], 1, "a mute is no durable event; the counts tell it");
    assert_eq!(server.send(&mute("ops")).expect(200).json(), said(true, false));
    publish(&server, "ops", &["two"]);
    assert_eq!(stream.expect("notification").title(), "two");
    assert_eq!(titles(&server, "alice"), ["two", "direct", "one"]);
    assert_eq!(unread(&server, "alice"), 1);
    let follows = server.send(&Ask::get("/v1/follows").bearer(&alice)).expect(200).json();
    assert_eq!((&follows["topics"][0]["muted"], &follows["topics"][0]["following"]), (&json!(true), &json!(true)));
    // Marks go on underneath.
    let inbox = server.inbox("alice");
    let marked = server.mark("alice", &json!({ "as": "read", "ids": [inbox["entries"][2]["id"]] }));
    assert_eq!(marked["counts"]["unread"], 1);
    assert_eq!(server.send(&unmute("ops")).expect(200).json(), said(false, true));
    assert_eq!(unread(&server, "alice"), 2, "`two` and `direct`");
    assert_eq!(server.send(&unmute("ops")).expect(200).json(), said(false, false));

    // Also before it is followed, and after it was left.
    publish(&server, "news", &["n1"]);
    assert_eq!(server.send(&mute("news")).expect(200).json()["changed"], true);
    server.operate(Ask::put("/v1/topics/news/followers/alice").json(&json!({ "last": 1 }))).expect(200);
    assert_eq!((unread(&server, "alice"), titles(&server, "alice").len()), (json!(2), 4));
    server.operate(Ask::delete("/v1/topics/news/followers/alice")).expect(200);
    assert_eq!(unread(&server, "alice"), 2);
    server.send(&unmute("news")).expect(200);
    assert_eq!(unread(&server, "alice"), 3);
    server.send(&mute("everyone")).problem(422, "topic-reserved");
    server.send(&mute("nothing")).problem(404, "not-found");
}

#[test]
fn a_page_changes_what_one_follows_only_where_no_other_site_can_have_made_it() {
    let server = Server::start();
    put(&server, "ops", &json!({ "follow": "open" })).expect(201);
    let cookie = format!("tidings_session={}", server.token("alice"));
    for (method, path) in [
        ("PUT", "/v1/topics/ops/follow"),
        ("PUT", "/v1/topics/ops/mute"),
        ("DELETE", "/v1/topics/ops/mute"),
        ("DELETE", "/v1/topics/ops/follow"),
    ] {
        let ask = |site: &str| Ask::new(method, path).header("cookie", &cookie).header("sec-fetch-site", site);
        // What a form could send, and a request without a body and a type.
        server.send(&ask("same-origin")).problem(403, "cross-site");
        server.send(&ask("same-origin").body("text/plain", "{}")).problem(403, "cross-site");
        for site in ["cross-site", "same-site", "none"] {
            server.send(&ask(site).body("application/json", "")).problem(403, "cross-site");
            server.send(&ask(site).json(&json!({}))).problem(403, "cross-site");
        }
        let changed = server.send(&ask("same-origin").body("application/json", "")).expect(200).json();
        assert_eq!(changed["changed"], true, "{method} {path}: {changed}");
    }
}
