//! Templates: what is registered, what is sent by it to readers of several languages, and what tries to break out.

use serde_json::{Value, json};

use crate::support::cli::{arg, run};
use crate::support::http::{Answer, Ask};
use crate::support::server::Server;

fn put(server: &Server, name: &str, definition: &Value) -> Answer {
    server.operate(Ask::put(&format!("/v1/templates/{name}")).json(definition))
}

/// Registers and publishes.
fn register(server: &Server, name: &str, definition: &Value) {
    put(server, name, definition).expect(201);
    server.operate(Ask::post(&format!("/v1/templates/{name}/publish"))).expect(200);
}

fn publish(server: &Server, body: &Value) -> Answer {
    server.operate(Ask::post("/v1/notifications").json(body))
}

fn preview(server: &Server, name: &str, body: &Value) -> Answer {
    server.operate(Ask::post(&format!("/v1/templates/{name}/preview")).json(body))
}

fn listens(server: &Server, user: &str, locale: &str) {
    server.operate(Ask::put(&format!("/v1/users/{user}")).json(&json!({ "locale": locale })));
}

fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().expect("a list");
    let mut found: Vec<_> = errors.iter().map(|e| e["pointer"].as_str().unwrap_or_default().to_owned()).collect();
    found.sort_unstable();
    found
}

/// A template in English, Chinese and traditional Chinese.
fn due() -> Value {
    json!({
        "category": "loans",
        "variables": { "name": { "type": "string" }, "due": { "type": "date" } },
        "texts": {
            "en": { "in_app": { "title": "Due on {{ due|date('%-d %B') }}", "body": "Dear {{ name }}", "click": "/loans" } },
            "zh": { "in_app": { "title": "{{ due|date('%m月%d日') }}到期", "body": "{{ name }}，您好" } },
            "zh-Hant": { "in_app": { "title": "{{ due|date('%m月%d日') }}到期（繁）" } },
        },
    })
}

const PARAMS: [&str; 2] = ["Alice", "2026-11-27"];

fn loan(to: &Value) -> Value {
    json!({ "to": to, "template": "due", "params": { "name": PARAMS[0], "due": PARAMS[1] } })
}

fn title_in_inbox(server: &Server, user: &str) -> String {
    server.inbox(user)["entries"][0]["title"].as_str().expect("a title").to_owned()
}

#[test]
fn versions_are_immutable_and_the_same_content_is_the_same_version() {
    let server = Server::start();
    let first = put(&server, "due", &due()).expect(201).json();
    assert_eq!((&first["version"], &first["state"], &first["published"]), (&json!(1), &json!("draft"), &Value::Null));
    assert_eq!(put(&server, "due", &due()).expect(200).json()["version"], 1, "services register at every start");
    publish(&server, &loan(&json!("user:alice"))).problem(422, "invalid");
    let mut second = due();
    second["texts"]["en"]["in_app"]["title"] = json!("Second {{ name }}");
    assert_eq!(put(&server, "due", &second).expect(201).json()["version"], 2);
    let published = server.operate(Ask::post("/v1/templates/due/publish").json(&json!({ "version": 1 }))).expect(200);
    assert_eq!(published.json()["state"], "published");
    publish(&server, &loan(&json!("user:alice"))).expect(201);
    assert_eq!(title_in_inbox(&server, "alice"), "Due on 27 November");
    let mut pinned = loan(&json!("user:alice"));
    pinned["template"] = json!({ "name": "due", "version": 2 });
    publish(&server, &pinned).expect(201);
    assert_eq!(title_in_inbox(&server, "alice"), "Second Alice");
    let shown = server.operate(Ask::get("/v1/templates/due?version=1")).expect(200).json();
    assert_eq!(shown["definition"]["texts"]["zh"]["in_app"]["body"], "{{ name }}，您好");
    let list = server.operate(Ask::get("/v1/templates")).expect(200).json();
    assert_eq!(
        (&list["templates"][0]["name"], &list["templates"][0]["version"], &list["templates"][0]["published"]),
        (&json!("due"), &json!(2), &json!(1))
    );
    server.operate(Ask::post("/v1/templates/due/publish").json(&json!({ "version": 9 }))).problem(404, "not-found");
    server.operate(Ask::delete("/v1/templates/due")).expect(204);
    server.operate(Ask::get("/v1/templates/due")).problem(404, "not-found");
    let problem = publish(&server, &loan(&json!("user:alice"))).problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/template"]);
    assert_eq!(title_in_inbox(&server, "alice"), "Second Alice", "what was sent stays");
}

#[test]
fn a_service_s_key_reaches_its_own_templates_and_no_other_s() {
    let server = Server::start();
    let (loans, all) = (server.key(&["templates:loan-*", "templates:desk", "publish"]), server.key(&["templates"]));
    let by = |key: &str, ask: Ask| server.send(&ask.bearer(key));
    let path = |name: &str| format!("/v1/templates/{name}");
    let put = |key: &str, name: &str| by(key, Ask::put(&path(name)).json(&due()));
    let names = |key: &str, query: &str| {
        let page = by(key, Ask::get(&format!("/v1/templates{query}"))).expect(200).json();
        let listed = page["templates"].as_array().expect("a list").clone();
        let names: Vec<String> = listed.iter().map(|one| one["name"].as_str().expect("a name").to_owned()).collect();
        (names, page["next"].clone())
    };
    for name in ["loan-due", "loan-lost", "desk"] {
        put(&loans, name).expect(201);
        by(&loans, Ask::post(&format!("{}/publish", path(name)))).expect(200);
    }
    for name in ["alarm", "loans", "desk2", "zebra"] {
        put(&loans, name).problem(403, "forbidden");
        put(&all, name).expect(201);
    }
    // Whether there is one or not: the answer is the same.
    for name in ["alarm", "nothing"] {
        let preview = Ask::post(&format!("{}/preview", path(name))).json(&json!({}));
        let publish = Ask::post(&format!("{}/publish", path(name)));
        for ask in [Ask::get(&path(name)), Ask::delete(&path(name)), publish, preview] {
            by(&loans, ask).problem(403, "forbidden");
        }
    }
    assert_eq!(by(&all, Ask::get(&path("alarm"))).expect(200).json()["version"], 1, "nobody has touched it");
    // Its own stand among the others', and the pages of a list leave none out.
    assert_eq!(names(&loans, ""), (["desk", "loan-due", "loan-lost"].map(str::to_owned).into(), Value::Null));
    assert_eq!(names(&loans, "?limit=1"), (vec!["desk".to_owned()], json!("desk")));
    assert_eq!(names(&loans, "?limit=1&after=desk"), (vec!["loan-due".to_owned()], json!("loan-due")));
    assert_eq!(names(&loans, "?limit=1&after=loan-due"), (vec!["loan-lost".to_owned()], Value::Null));
    assert_eq!(names(&all, "").0.len(), 7);
    // Publishing is another matter: whoever may publish may do so by any template.
    by(&all, Ask::post("/v1/templates/alarm/publish")).expect(200);
    let alarm = json!({ "to": "user:alice", "template": "alarm", "params": { "name": PARAMS[0], "due": PARAMS[1] } });
    by(&loans, Ask::post("/v1/notifications").json(&alarm)).expect(201);
    by(&loans, Ask::delete(&path("desk"))).expect(204);
    let said = run(&["key", "create", "--name", "x", "--scope", "templates:a b", "--data", arg(server.data())], "");
    assert!(said.code == 64 && said.err.contains("templates:<pattern>"), "{said:?}");
}

#[test]
fn each_reader_gets_their_language_on_every_way_of_reading() {
    let server = Server::start();
    register(&server, "due", &due());
    let readers = [
        ("ann", "", "Due on 27 November"),
        ("bea", "en-GB", "Due on 27 November"),
        ("cao", "zh-CN", "11月27日到期"),
        ("dai", "zh-TW", "11月27日到期（繁）"),
        ("eve", "fr", "Due on 27 November"),
    ];
    for (user, locale, _) in readers {
        server.follow("loans", user);
        if !locale.is_empty() {
            listens(&server, user, locale);
        }
    }
    let mut streams: Vec<_> = readers.iter().map(|(user, ..)| server.stream(user, "?cursor=now")).collect();
    for stream in &mut streams {
        stream.expect("hello");
    }
    let sent = publish(&server, &loan(&json!("topic:loans"))).expect(201).json();
    for (stream, (user, _, title)) in streams.iter_mut().zip(readers) {
        let live = stream.until("notification");
        assert_eq!(
            (live.data["title"].as_str(), live.data["click"].as_str()),
            (Some(title), Some("/loans")),
            "{user} live"
        );
    }
    for (user, _, title) in readers {
        assert_eq!(title_in_inbox(&server, user), title, "{user} in the inbox");
        let id = sent["id"].as_str().expect("an id");
        let entry = server.send(&Ask::get(&format!("/v1/inbox/{id}")).bearer(&server.token(user))).expect(200).json();
        assert_eq!(entry["title"], title, "{user}, one entry");
        let snapshot = server.stream(user, "").until("notification");
        assert_eq!(snapshot.data["title"], title, "{user} in a snapshot");
        let replay = server.stream(user, "?cursor=start").until("notification");
        assert_eq!(replay.data["title"], title, "{user} in a replay");
        let catch_up = Ask::get("/v1/poll?cursor=start&wait=0").bearer(&server.token(user));
        let polled = server.send(&catch_up).expect(200).json();
        assert_eq!(polled["events"][0]["data"]["title"], title, "{user} in a poll");
        let export = server.operate(Ask::get(&format!("/v1/users/{user}/export"))).expect(200).lines();
        let told: Vec<_> =
            export.iter().filter(|record| record["kind"] == "entry").map(|e| e["title"].clone()).collect();
        assert_eq!(told, [json!(title)], "{user} in an export");
    }
    let direct = publish(&server, &loan(&json!({ "users": ["ann", "cao"] }))).expect(201).json();
    assert_eq!(direct["recipients"], 2);
    assert_eq!(streams[2].until("notification").data["category"], "loans", "the template's own");
}

#[test]
fn another_language_reaches_streams_that_are_open() {
    let server = Server::start();
    register(&server, "due", &due());
    let mut stream = server.stream("alice", "?cursor=now");
    stream.expect("hello");
    publish(&server, &loan(&json!("user:alice"))).expect(201);
    assert_eq!(stream.until("notification").data["title"], "Due on 27 November");
    listens(&server, "alice", "zh-TW");
    publish(&server, &loan(&json!("user:alice"))).expect(201);
    assert_eq!(stream.until("notification").data["title"], "11月27日到期（繁）");
    server.operate(Ask::put("/v1/users/alice").json(&json!({ "locale": null }))).expect(200);
    publish(&server, &loan(&json!("user:alice"))).expect(201);
    assert_eq!(stream.until("notification").data["title"], "Due on 27 November");
}

#[test]
fn values_that_are_missing_or_wrong_are_named_and_nothing_is_stored() {
    let server = Server::start();
    register(&server, "due", &due());
    let send = |params: Value| publish(&server, &json!({ "to": "user:alice", "template": "due", "params": params }));
    for (params, wrong) in [
        (json!({}), &["/params/due", "/params/name"][..]),
        (json!({ "name": 7, "due": "27.11.2026" }), &["/params/due", "/params/name"]),
        (json!({ "name": "x", "due": "2026-11-27", "extra": 1 }), &["/params/extra"]),
        (json!({ "name": { "$serde_json::private::RawValue": "\"x\"" }, "due": "2026-11-27" }), &["/params/name"]),
        (json!([]), &["/params"]),
        (json!({ "name": "x".repeat(10_001), "due": "2026-11-27" }), &["/params/name"]),
        // Fits as a value, and not as the body that comes out.
        (json!({ "name": "x".repeat(10_000), "due": "2026-11-27" }), &["/params", "/params"]),
    ] {
        let problem = send(params).problem(422, "invalid");
        let found = pointers(&problem);
        assert!(
            found == wrong || (wrong == ["/params", "/params"] && found.iter().all(|p| p == "/params")),
            "{problem}"
        );
    }
    for (body, wrong) in [
        (json!({ "to": "user:alice", "template": "due", "title": "x", "params": {} }), "/title"),
        (json!({ "to": "user:alice", "title": "x", "params": {} }), "/params"),
        (json!({ "to": "user:alice", "template": "no such" }), "/template"),
        (json!({ "to": "user:alice", "template": 7 }), "/template"),
        (json!({ "to": "user:alice", "template": "nothing", "params": {} }), "/template"),
        (json!({ "to": "user:alice", "template": { "name": "due", "version": 7 } }), "/template"),
    ] {
        let problem = publish(&server, &body).problem(422, "invalid");
        assert!(pointers(&problem).contains(&wrong.to_owned()), "{body}: {problem}");
    }
    assert_eq!(server.inbox("alice")["entries"], json!([]));
    assert_eq!(server.operate(Ask::get("/v1/scheduled")).expect(200).json()["scheduled"], json!([]));
}

#[test]
fn what_waits_keeps_its_words_and_what_is_over_leaves_none() {
    let server = Server::start();
    register(&server, "due", &due());
    listens(&server, "alice", "zh");
    let mut later = loan(&json!("user:alice"));
    later["delay"] = json!("1h");
    let waiting = publish(&server, &later).expect(201).json();
    let id = waiting["id"].as_str().expect("an id");
    // Another version, and another time: the words are those that it was changed to.
    later["delay"] = json!(0);
    let mut stream = server.stream("alice", "?cursor=now");
    stream.expect("hello");
    server.operate(Ask::put(&format!("/v1/scheduled/{id}")).json(&later)).expect(200);
    assert_eq!(stream.until("notification").data["title"], "11月27日到期");
    assert_eq!(title_in_inbox(&server, "alice"), "11月27日到期");
    server.operate(Ask::delete(&format!("/v1/notifications/{id}"))).expect(200);
    assert_eq!(server.inbox("alice")["entries"], json!([]));
    // A collapse key takes the place of the one before, words and all.
    server.follow("loans", "alice");
    let mut keyed = loan(&json!("topic:loans"));
    keyed["collapse"] = json!("loan-1");
    publish(&server, &keyed).expect(201);
    publish(&server, &keyed).expect(201);
    let entries = server.inbox("alice")["entries"].clone();
    assert_eq!(entries.as_array().map(Vec::len), Some(1));
    server.operate(Ask::delete("/v1/users/alice")).expect(200);
    server.operate(Ask::delete("/v1/topics/loans")).expect(204);
}

#[test]
fn a_repeated_key_is_answered_as_it_was_whatever_became_of_the_template() {
    let server = Server::start();
    register(&server, "due", &due());
    let ask = || Ask::post("/v1/notifications").header("idempotency-key", "k1").json(&loan(&json!("user:alice")));
    let first = server.operate(ask()).expect(201).json();
    server.operate(Ask::delete("/v1/templates/due")).expect(204);
    let again = server.operate(ask()).expect(201);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json(), first);
    let lines = [json!({ "to": "user:alice", "title": "plain" }), loan(&json!("user:alice"))];
    let answers = server.operate(Ask::post("/v1/notifications").ndjson(&lines)).expect(200).lines();
    assert_eq!((answers[0]["status"].as_u64(), answers[1]["status"].as_u64()), (Some(201), Some(422)));
}

#[test]
fn hostile_values_stay_values_in_every_medium() {
    let server = Server::start();
    let definition = json!({
        "variables": { "name": { "type": "string" }, "link": { "type": "url" } },
        "texts": { "en": {
            "in_app": { "title": "Hello {{ name }}", "body": "{{ name }}", "click": "{{ link }}" },
            "email": { "subject": "Hello {{ name }}", "text": "{{ name }}", "html": "<p>{{ name }}</p><a href=\"{{ link }}\">x</a>" },
            "dingtalk": { "title": "{{ name }}", "text": "{{ name }} [x]({{ link }})" },
            "webhook": "{\"name\":{{ name }},\"text\":\"for {{ name }}\"}",
        } },
    });
    register(&server, "hostile", &definition);
    let name = "<img src=x onerror=alert(1)>\r\nBcc: all@example.com\n](https://evil.example) **b**";
    let params = json!({ "name": name, "link": "https://a.example/?a=)\"><b" });
    let told = preview(&server, "hostile", &json!({ "params": params })).expect(200).json();
    for line in [&told["email"]["subject"], &told["in_app"]["title"], &told["dingtalk"]["title"]] {
        let line = line.as_str().expect("text");
        assert!(!line.contains(['\r', '\n']), "{line:?}");
    }
    let html = told["email"]["html"].as_str().expect("text");
    assert!(!html.contains("<img") && !html.contains("<b") && html.matches('"').count() == 2, "{html}");
    let markdown = told["dingtalk"]["text"].as_str().expect("text");
    assert!(
        markdown.contains("\\]\\(https") && markdown.matches("](").count() == 1 && markdown.ends_with("%29%22%3E%3Cb)"),
        "{markdown}"
    );
    let webhook: Value = serde_json::from_str(told["webhook"].as_str().expect("text")).expect("JSON");
    assert_eq!((&webhook["name"], &webhook["text"]), (&json!(name), &json!(format!("for {name}"))));
    publish(&server, &json!({ "to": "user:alice", "template": "hostile", "params": params })).expect(201);
    let problem = preview(&server, "hostile", &json!({ "params": { "name": "x", "link": "javascript:alert(1)" } }));
    assert_eq!(pointers(&problem.problem(422, "invalid")), ["/params/link"]);
}

#[test]
fn templates_that_loop_explode_or_nest_are_refused_and_the_server_goes_on() {
    let server = Server::start();
    let with = |body: &str| {
        json!({
            "variables": { "name": { "type": "string" }, "items": { "type": "list", "items": { "t": { "type": "string" } } } },
            "texts": { "en": { "in_app": { "title": "t", "body": body } } },
        })
    };
    let deep = [
        "{% if name %}".repeat(900),
        format!("{{{{ {}name{} }}}}", "(".repeat(6_000), ")".repeat(6_000)),
        format!("{{% if {}name %}}{{% endif %}}", "not ".repeat(3_000)),
        format!("{{% if name %}}{}{{% endif %}}", "{% elif name %}".repeat(800)),
        format!("{{{{ name{} }}}}", "|upper".repeat(2_000)),
        "{{ [".repeat(4_000),
        "{# {{ ".repeat(2_000),
        "{{ name }}".repeat(5_000),
        "x".repeat(70_000),
    ];
    let tricks = [
        "{{ name|replace('', 'xxxxxxxxxxxxxxxxxxxx') }}",
        "{{ name * 999999999 }}",
        "{{ 'x'|center(999999999) }}",
        "{% include 'x' %}",
        "{{ name|indent(999999999) }}",
        "{% for i in range(999999999) %}{% endfor %}",
        "{{ name|date('%999999999Y') }}",
        "{{ name|safe }}",
        "{% set x = name %}",
        "{% macro m() %}{{ m() }}{% endmacro %}",
        "{% extends 'x' %}",
        "{{ self.x() }}",
        "{% for x in items recursive %}{% endfor %}",
        "{{ name.__class__ }}",
        "{{ items }}",
        "{{ undeclared }}",
        "{% autoescape false %}{% endautoescape %}",
        "\u{1b}[2J{{ \u{1b} }}",
    ];
    for text in deep.iter().map(String::as_str).chain(tricks) {
        let answer = put(&server, "bad", &with(text));
        let problem = answer.problem(422, "invalid");
        assert_eq!(pointers(&problem), ["/texts/en/in_app/body"], "{text:.60}");
        assert!(!problem.to_string().contains("\\u001b"), "{problem}");
    }
    server.operate(Ask::get("/v1/templates/bad")).problem(404, "not-found");
    // One that is fine, and whose values make it grow.
    register(&server, "grows", &with("{% for a in items %}{% for b in items %}{{ b.t }}{% endfor %}{% endfor %}"));
    let items: Vec<_> = (0..100).map(|_| json!({ "t": "x".repeat(2_000) })).collect();
    let problem = publish(
        &server,
        &json!({ "to": "user:alice", "template": "grows", "params": { "name": "x", "items": items } }),
    );
    let problem = problem.problem(422, "invalid");
    assert!(problem.to_string().contains("grows beyond"), "{problem}");
    server.notify("alice", "still here");
    assert_eq!(title_in_inbox(&server, "alice"), "still here");
}

#[test]
fn many_versions_push_out_the_oldest_drafts_and_never_the_published_one() {
    let server = Server::start();
    let version = |i: usize| json!({ "texts": { "en": { "in_app": { "title": format!("v{i}") } } } });
    register(&server, "many", &version(1));
    for i in 2..=102 {
        put(&server, "many", &version(i)).expect(201);
    }
    server.operate(Ask::get("/v1/templates/many?version=1")).expect(200);
    server.operate(Ask::get("/v1/templates/many?version=2")).problem(404, "not-found");
    server.operate(Ask::get("/v1/templates/many?version=102")).expect(200);
    assert_eq!(put(&server, "many", &version(2)).expect(201).json()["version"], 103);
}

#[test]
fn the_command_line_pushes_a_folder_and_shows_what_comes_out() {
    let server = Server::start();
    let data = arg(server.data()).to_owned();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/templates");
    let said = run(&["template", "push", examples, "--publish", "--data", &data], "").well();
    assert!(said.out.contains("loan-due"), "{}", said.out);
    let again = run(&["template", "push", examples, "--publish", "--json", "--data", &data], "").well();
    let first: Value = serde_json::from_str(again.out.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["version"], &first["state"]),
        (&json!(1), &json!("published")),
        "the same content is the same version"
    );
    let list = run(&["template", "list", "--json", "--data", &data], "").well();
    assert!(list.out.contains("\"loan-due\""), "{}", list.out);
    run(&["template", "show", "loan-due", "--data", &data], "").well();
    let params =
        r#"{"name":"Alice <b>","due":"2026-11-27","books":[{"title":"SICP","url":"https://library.example/5"}]}"#;
    let shown = run(
        &["template", "preview", "loan-due", "--params", params, "--locale", "zh-CN", "--json", "--data", &data],
        "",
    )
    .well();
    let shown = shown.json();
    assert_eq!(shown["locale"], "zh");
    assert!(shown["email"]["html"].as_str().is_some_and(|html| html.contains("Alice &lt;b&gt;")), "{shown}");
    run(&["template", "publish", "loan-due", "--version", "1", "--data", &data], "").well();
    run(&["template", "delete", "loan-due", "--yes", "--data", &data], "").well();
    assert_ne!(run(&["template", "show", "loan-due", "--data", &data], "").code, 0);
}
