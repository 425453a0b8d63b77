//! Every verb of the API that writes, besides publishing and marking: follows and mutes, profiles and preferences, keys, tickets
//! and revocations, topics, templates, what waits for its time, and what is taken back or erased. Each change that was
//! acknowledged keeps a question, whose answer shows whether it is there.
//!
//! **Invariant**: each change is of a person, a topic or a thing of its own, so that no later one hides or undoes it; what is not
//! acknowledged is asked for again until it is. **Invariant**: a route that writes is tried here, or [`ELSEWHERE`] says why not.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::http::ROUTES;

use crate::support::http::{Answer, Ask, Place};
use crate::support::publisher::Whereabouts;
use crate::support::server::{Server, Setup};
use crate::support::{DEADLINE, token};

/// Rounds at most: a database holds 1,000 templates.
pub const MAX_ROUNDS: usize = 900;
/// Between two tries of a change that was not acknowledged.
const AGAIN: Duration = Duration::from_millis(5);
/// A topic that people may follow by themselves.
const OPEN: &str = "open";

/// Routes that change something and are not tried here, each with the reason.
const ELSEWHERE: &[(&str, &str)] = &[
    ("POST /v1/notifications", "T1 and T2 hold publishes to the log themselves"),
    ("POST /v1/inbox/mark", "T1 and T2 hold marks to the log themselves"),
    ("POST /v1/session", "a cookie: nothing is stored"),
    ("DELETE /v1/session", "as signing in"),
    ("POST /demo/session", "as signing in, and only in a demo"),
    ("POST /v1/streams/{stream}/refresh", "ends with its stream"),
    ("DELETE /v1/users/{user}/streams", "ends streams; nothing is stored"),
    (
        "POST /v1/unsubscribe/{token}",
        "stores a preference, as those of /v1/preferences; its link stands in a mail (it/mail.rs)",
    ),
    ("POST /v1/deliveries/retry", "T11 kills the server between deliveries"),
    ("POST /v1/deliveries/{id}/retry", "as above"),
    ("POST /v1/templates/{template}/preview", "stores nothing"),
    ("POST /v1/upkeep/reload", "stores nothing"),
    ("POST /v1/upkeep/recount", "stores what can be counted anew at any time"),
    ("POST /v1/upkeep/compact", "changes nothing that anybody could see"),
    ("POST /v1/upkeep/check", "as recount"),
];

/// A change that was acknowledged.
#[derive(Debug)]
pub struct Change {
    what: String,
    /// How much had been written when it was told, where that is known.
    pub told: u64,
    question: Ask,
    status: u16,
    /// A JSON pointer into the answer, and what must be there.
    holds: Option<(&'static str, Value)>,
}

impl Change {
    /// What is wrong with it at a server that runs; `None` where it is there.
    pub fn missing(&self, place: &Place) -> Option<String> {
        let answer = self.question.send(place);
        let is_there = answer.status() == self.status
            && self.holds.as_ref().is_none_or(|(at, is)| answer.json().pointer(at) == Some(is));
        (!is_there).then(|| format!("{}: {} {}", self.what, answer.status(), String::from_utf8_lossy(&answer.body)))
    }
}

/// Who changes things, one after the other, and remembers.
pub struct Verbs<'w> {
    place: &'w Whereabouts,
    /// A state directory, for users' tokens.
    data: PathBuf,
    /// A key with `admin`.
    admin: String,
    /// How much has been written by now.
    written: &'w (dyn Fn() -> u64 + Sync),
    pub changes: Vec<Change>,
    /// Titles of what it has published.
    pub titles: HashSet<String>,
    tried: BTreeSet<&'static str>,
}

impl<'w> Verbs<'w> {
    pub fn new(place: &'w Whereabouts, data: PathBuf, admin: String, written: &'w (dyn Fn() -> u64 + Sync)) -> Self {
        let (changes, titles, tried) = (Vec::new(), HashSet::new(), BTreeSet::new());
        Self { place, data, admin, written, changes, titles, tried }
    }

    /// Tries each verb once or more; `n` names what it is done to.
    pub fn round(&mut self, n: usize) {
        self.follow(n);
        self.describe(n);
        self.make_keys(n);
        self.let_in(n);
        self.make_topics(n);
        self.register(n);
        self.publish(n);
    }

    /// Asserts that every route that writes was tried, or is tried elsewhere.
    pub fn has_tried_all(&self) {
        let routes = ROUTES.iter().map(|entry| format!("{} {}", entry.verb.as_str(), entry.path));
        let writing: BTreeSet<String> = routes.filter(|route| !route.starts_with("GET ")).collect();
        let elsewhere = ELSEWHERE.iter().map(|(route, _)| *route);
        let told: BTreeSet<String> = self.tried.iter().copied().chain(elsewhere).map(str::to_owned).collect();
        assert_eq!(told, writing, "routes that are tried here or elsewhere, and those that write");
    }

    fn follow(&mut self, n: usize) {
        self.admin("PUT /v1/topics/{topic}", &[OPEN], |ask| ask.json(&json!({ "follow": "open" })));
        let users = ["followed", "one-of-many", "gone", "own", "own-gone"].map(|name| format!("{name}-{n}"));
        let [followed, many, gone, own, own_gone] = &users;
        let follows = |user: &str, this: &Self| Ask::get("/v1/follows").bearer(&this.token(user));
        let (one, none) = (Some(("/topics/0/following", json!(true))), Some(("/topics", json!([]))));
        self.admin("PUT /v1/topics/{topic}/followers/{user}", &[OPEN, followed], |ask| ask);
        self.keep(format!("{followed} follows"), follows(followed, self), 200, one.clone());
        let lines = [json!({ "user": many }), json!({ "user": gone })];
        let told = self.admin("POST /v1/topics/{topic}/followers", &[OPEN], |ask| ask.ndjson(&lines)).json();
        assert_eq!(told["failed"], 0, "{told}");
        self.keep(format!("{many} follows, with others"), follows(many, self), 200, one.clone());
        self.admin("DELETE /v1/topics/{topic}/followers/{user}", &[OPEN, gone], |ask| ask);
        self.keep(format!("{gone} does not follow any more"), follows(gone, self), 200, none.clone());
        self.user(own, "PUT /v1/topics/{topic}/follow", &[OPEN], |ask| ask);
        self.keep(format!("{own} follows by choice"), follows(own, self), 200, one);
        self.user(own, "PUT /v1/topics/{topic}/mute", &[OPEN], |ask| ask);
        self.keep(format!("{own} has muted"), follows(own, self), 200, Some(("/topics/0/muted", json!(true))));
        self.user(own_gone, "PUT /v1/topics/{topic}/follow", &[OPEN], |ask| ask);
        self.user(own_gone, "PUT /v1/topics/{topic}/mute", &[OPEN], |ask| ask);
        self.user(own_gone, "DELETE /v1/topics/{topic}/mute", &[OPEN], |ask| ask);
        self.user(own_gone, "DELETE /v1/topics/{topic}/follow", &[OPEN], |ask| ask);
        self.keep(format!("{own_gone} has left, and mutes nothing"), follows(own_gone, self), 200, none);
    }

    fn describe(&mut self, n: usize) {
        let users = ["described", "imported", "choosy", "erased"].map(|name| format!("{name}-{n}"));
        let [described, imported, choosy, erased] = &users;
        let profile = |user: &str, this: &Self| Ask::get(&format!("/v1/users/{user}")).bearer(&this.admin);
        let name = json!({ "name": "Somebody" });
        self.admin("PUT /v1/users/{user}", &[described], |ask| ask.json(&name));
        self.keep(format!("{described} has a name"), profile(described, self), 200, Some(("/name", json!("Somebody"))));
        let line = json!({ "user": imported, "locale": "de" });
        let told = self.admin("POST /v1/users", &[], |ask| ask.ndjson(&[line])).lines();
        assert!(told[0]["status"].as_u64().is_some_and(|status| status < 300), "{told:?}");
        self.keep(format!("{imported} has a language"), profile(imported, self), 200, Some(("/locale", json!("de"))));
        let wishes = json!({ "*": { "email": false }, "loans": { "email": true } });
        self.user(choosy, "PUT /v1/preferences", &[], |ask| ask.json(&json!({ "preferences": wishes })));
        let own = Ask::get("/v1/preferences").bearer(&self.token(choosy));
        self.keep(format!("{choosy} has said so"), own, 200, Some(("/preferences", wishes)));
        self.admin("PUT /v1/users/{user}", &[erased], |ask| ask.json(&name));
        let told = self.admin("DELETE /v1/users/{user}", &[erased], |ask| ask).status();
        self.keep(format!("{erased} is erased"), profile(erased, self), 404, None);
        // One that was cut short, and whose repetition finds nobody, has not said that it has revoked.
        if told == 200 {
            let inbox = Ask::get("/v1/inbox").bearer(&self.token(erased));
            self.keep(format!("tokens of {erased} are refused"), inbox, 401, Some(("/code", json!("revoked"))));
        }
    }

    fn make_keys(&mut self, n: usize) {
        let secret = |answer: &Answer| answer.json()["key"].as_str().expect("it is told").to_owned();
        let id = |answer: &Answer| answer.json()["id"].as_str().expect("it is told").to_owned();
        let online = |key: &str| Ask::get("/v1/online?limit=1").bearer(key);
        let [kept, revoked, rotated] = ["kept", "revoked", "rotated"].map(|name| {
            let key = json!({ "name": format!("{name} {n}"), "scopes": ["users"] });
            self.admin("POST /v1/keys", &[], |ask| ask.json(&key))
        });
        self.keep(format!("key {n} is good"), online(&secret(&kept)), 200, None);
        self.admin("DELETE /v1/keys/{key}", &[&id(&revoked)], |ask| ask);
        self.keep(format!("key {n} is revoked"), online(&secret(&revoked)), 401, Some(("/code", json!("revoked"))));
        let at_once = json!({ "grace": "0s" });
        let another = self.admin("POST /v1/keys/{key}/rotate", &[&id(&rotated)], |ask| ask.json(&at_once));
        self.keep(format!("the new secret of key {n} is good"), online(&secret(&another)), 200, None);
        let expired = Some(("/code", json!("expired")));
        self.keep(format!("the old secret of key {n} is not"), online(&secret(&rotated)), 401, expired);
    }

    fn let_in(&mut self, n: usize) {
        let users = ["holder", "revoked", "restored"].map(|name| format!("{name}-{n}"));
        let [holder, revoked, restored] = &users;
        let made = self.user(holder, "POST /v1/tickets", &[], |ask| ask).json();
        let ticket = made["ticket"].as_str().expect("it is told").to_owned();
        // It is to be used within a minute, and then for hours.
        let poll = Ask::get(&format!("/v1/poll?wait=0&ticket={ticket}"));
        self.until_told(&poll, "a ticket's first use");
        self.keep(format!("the ticket of {holder} is good"), poll, 200, None);
        let inbox = |user: &str, this: &Self| Ask::get("/v1/inbox").bearer(&this.token(user));
        self.admin("PUT /v1/users/{user}/revocation", &[revoked], |ask| ask);
        self.keep(format!("{revoked} is kept out"), inbox(revoked, self), 401, Some(("/code", json!("revoked"))));
        self.admin("PUT /v1/users/{user}/revocation", &[restored], |ask| ask);
        self.admin("DELETE /v1/users/{user}/revocation", &[restored], |ask| ask);
        self.keep(format!("{restored} is let in again"), inbox(restored, self), 200, None);
    }

    fn make_topics(&mut self, n: usize) {
        let [kept, deleted] = ["kept", "deleted"].map(|name| format!("{name}-{n}"));
        let topic = |name: &str, this: &Self| Ask::get(&format!("/v1/topics/{name}")).bearer(&this.admin);
        let settings = json!({ "category": "verbs", "follow": "open" });
        self.admin("PUT /v1/topics/{topic}", &[&kept], |ask| ask.json(&settings));
        self.keep(format!("topic {kept} is open"), topic(&kept, self), 200, Some(("/follow", json!("open"))));
        self.admin("PUT /v1/topics/{topic}", &[&deleted], |ask| ask.json(&settings));
        self.admin("DELETE /v1/topics/{topic}", &[&deleted], |ask| ask);
        self.keep(format!("topic {deleted} is gone"), topic(&deleted, self), 404, None);
    }

    fn register(&mut self, n: usize) {
        let [kept, deleted] = ["kept", "deleted"].map(|name| format!("{name}-{n}"));
        let template = |name: &str, this: &Self| Ask::get(&format!("/v1/templates/{name}")).bearer(&this.admin);
        let texts = json!({ "texts": { "en": { "in_app": { "title": format!("template {n}") } } } });
        self.admin("PUT /v1/templates/{template}", &[&kept], |ask| ask.json(&texts));
        let first = json!({ "version": 1 });
        self.admin("POST /v1/templates/{template}/publish", &[&kept], |ask| ask.json(&first));
        self.keep(format!("template {kept} is published"), template(&kept, self), 200, Some(("/published", json!(1))));
        self.admin("PUT /v1/templates/{template}", &[&deleted], |ask| ask.json(&texts));
        self.admin("DELETE /v1/templates/{template}", &[&deleted], |ask| ask);
        self.keep(format!("template {deleted} is gone"), template(&deleted, self), 404, None);
    }

    /// Publishes as plain text, changes what waits for its time, and takes back.
    fn publish(&mut self, n: usize) {
        let titles = ["plain", "plain to one", "moved", "cancelled", "retracted"].map(|what| format!("{what} {n}"));
        let [to_topic, to_one, moved, cancelled, retracted] = &titles;
        let user = format!("reader-{n}");
        let id = |answer: &Answer| answer.json()["id"].as_str().expect("it is told").to_owned();
        let status = |id: &str, this: &Self| Ask::get(&format!("/v1/notifications/{id}")).bearer(&this.admin);
        let text = |ask: Ask, title: &str| ask.header("title", title).body("text/plain", "text");
        let made = id(&self.admin("POST /v1/publish/{*topic}", &[OPEN], |ask| text(ask, to_topic)));
        self.keep(to_topic.clone(), status(&made, self), 200, Some(("/title", json!(to_topic))));
        let made =
            id(&self.admin("POST /v1/publish", &[], |ask| text(ask.header("to", format!("user:{user}")), to_one)));
        self.keep(to_one.clone(), status(&made, self), 200, Some(("/title", json!(to_one))));
        let later = |title: &str, delay: &str| json!({ "to": { "user": user }, "title": title, "delay": delay });
        let waits = self.until_published(&later("waits", "2h"));
        self.admin("PUT /v1/scheduled/{id}", &[&waits], |ask| ask.json(&later(moved, "3h")));
        self.keep(moved.clone(), status(&waits, self), 200, Some(("/title", json!(moved))));
        let waits = self.until_published(&later(cancelled, "2h"));
        self.admin("DELETE /v1/notifications/{id}", &[&waits], |ask| ask);
        self.keep(cancelled.clone(), status(&waits, self), 404, None);
        let there = self.until_published(&json!({ "to": { "user": user }, "title": retracted }));
        self.admin("DELETE /v1/notifications/{id}", &[&there], |ask| ask);
        self.keep(retracted.clone(), status(&there, self), 200, Some(("/state", json!("retracted"))));
        self.titles.extend(titles);
    }

    /// Publishes something that is only there to be changed; its id.
    fn until_published(&self, body: &Value) -> String {
        let ask = Ask::post("/v1/notifications").bearer(&self.admin).json(body);
        let answer = self.until_told(&ask, "POST /v1/notifications").json();
        answer["id"].as_str().expect("it is told").to_owned()
    }

    fn admin(&mut self, route: &'static str, parts: &[&str], dress: impl FnOnce(Ask) -> Ask) -> Answer {
        let credential = self.admin.clone();
        self.change(route, parts, &credential, dress)
    }

    fn user(&mut self, user: &str, route: &'static str, parts: &[&str], dress: impl FnOnce(Ask) -> Ask) -> Answer {
        let credential = self.token(user);
        self.change(route, parts, &credential, dress)
    }

    /// A user's token that was made a minute ago.
    fn token(&self, user: &str) -> String {
        let now = token::now();
        token::sign(&self.data, &json!({ "sub": user, "iat": now - 60, "exp": now + 3_600 }))
    }

    /// Asks until it is acknowledged; `parts` stand for what is in braces in the route, in order.
    fn change(
        &mut self,
        route: &'static str,
        parts: &[&str],
        credential: &str,
        dress: impl FnOnce(Ask) -> Ask,
    ) -> Answer {
        self.tried.insert(route);
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let mut target = path.to_owned();
        for part in parts {
            let (from, to) = (target.find('{').expect("a part"), target.find('}').expect("a part"));
            target.replace_range(from..=to, part);
        }
        let ask = dress(Ask::new(method, &target).bearer(credential));
        self.until_told(&ask, route)
    }

    /// Asks until there is an answer that acknowledges it. What was cut may have been done all the same: where it is gone when
    /// it is to be taken away once more, it was.
    fn until_told(&self, ask: &Ask, what: &str) -> Answer {
        let (began, mut told) = (Instant::now(), None);
        loop {
            match ask.attempt(&self.place.place()) {
                Ok(answer) if (200..300).contains(&answer.status()) => return answer,
                Ok(answer) if answer.status() == 404 && what.starts_with("DELETE ") && told.is_some() => return answer,
                // Ours while it starts or ends, or another test's server where ours was.
                Ok(answer) => told = Some(format!("{} {}", answer.status(), String::from_utf8_lossy(&answer.body))),
                Err(error) => told = Some(error.to_string()),
            }
            assert!(began.elapsed() < DEADLINE, "{what} is not acknowledged: {told:?}");
            std::thread::park_timeout(AGAIN);
        }
    }

    fn keep(&mut self, what: String, question: Ask, status: u16, holds: Option<(&'static str, Value)>) {
        self.changes.push(Change { what, told: (self.written)(), question, status, holds });
    }
}

/// Those that are not there.
pub fn missing<'c>(changes: impl Iterator<Item = &'c Change>, place: &Place) -> Vec<String> {
    changes.filter_map(|change| change.missing(place)).collect()
}

/// A judge that finds nothing missing in a log in which nothing was changed would be none.
#[test]
fn what_was_never_changed_is_missing() {
    let mut server = Server::start();
    let admin = server.key(&["admin"]);
    assert!(server.terminate().0.success());
    let (data, before) = (server.stop(), tempfile::tempdir().expect("a directory"));
    for file in std::fs::read_dir(data.path()).expect("it is there").map(|file| file.expect("it is listed")) {
        if file.file_type().expect("it is there").is_file() {
            std::fs::copy(file.path(), before.path().join(file.file_name())).expect("there is room for a copy");
        }
    }
    let server = Setup::serve().on(data).start();
    let (place, nothing) = (Whereabouts::new(server.place()), || 0);
    let mut verbs = Verbs::new(&place, server.data().to_owned(), admin, &nothing);
    verbs.round(0);
    verbs.has_tried_all();
    assert_eq!(missing(verbs.changes.iter(), server.place()), Vec::<String>::new());
    // The same questions about the same people, by the same key, to the log as it was before.
    let server = Setup::serve().on(before).start();
    let there = verbs.changes.iter().filter(|change| change.missing(server.place()).is_none());
    // What was made and taken away again is not there in either.
    let taken_away = [
        "gone-0 does not follow any more",
        "own-gone-0 has left, and mutes nothing",
        "erased-0 is erased",
        "restored-0 is let in again",
        "topic deleted-0 is gone",
        "template deleted-0 is gone",
        "cancelled 0",
    ];
    assert_eq!(there.map(|change| change.what.as_str()).collect::<Vec<_>>(), taken_away);
}
