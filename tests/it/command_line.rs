//! The command line against a running server, and without one.

use serde_json::{Value, json};

use crate::support::cli::{arg, run, run_with};
use crate::support::http::Ask;
use crate::support::server::{Server, Setup};

#[test]
fn publish_takes_its_text_from_arguments_from_a_pipe_or_from_a_file() {
    let server = Server::start();
    let data = arg(server.data());
    let file = server.data().join("text");
    std::fs::write(&file, "from a file\n").expect("it can be written");
    let said = run(&["publish", "--data", data, "--to", "user:alice", "--title", "One", "from an argument"], "").well();
    assert!(said.out.starts_with("Published ") && said.out.contains("to 1 person at "), "{said:?}");
    run(&["publish", "--data", data, "--to", "user:alice", "--title", "Two"], "from\na pipe\n\n").well();
    run(&["publish", "--data", data, "--to", "user:alice", "-"], "from a dash").well();
    run(&["publish", "--data", data, "--to", "user:alice", "--body-file", arg(&file)], "").well();
    run(&["publish", "--data", data, "--to", "user:alice", "--title", "No text"], "").well();
    let more =
        ["--category", "loans", "--priority", "5", "--click", "/x", "--sender", "Shop", "--payload", "{\"a\": 1.0}"];
    run(&[&["publish", "--data", data, "--to", "everyone", "b"][..], &more].concat(), "").well();
    let inbox = server.inbox("alice");
    let texts = |field: &str| -> Vec<Value> {
        inbox["entries"].as_array().expect("a list").iter().rev().map(|entry| entry[field].clone()).collect()
    };
    assert_eq!(texts("body"), ["from an argument", "from\na pipe", "from a dash", "from a file", "", "b"]);
    assert_eq!(texts("title")[..2], ["One", "Two"]);
    let last = &inbox["entries"][0];
    assert_eq!(
        [&last["category"], &last["priority"], &last["click"], &last["sender"], &last["data"]],
        [&json!("loans"), &json!(5), &json!("/x"), &json!("Shop"), &json!({ "a": 1.0 })]
    );
}

#[test]
fn publish_reaches_a_server_by_address_by_socket_and_by_directory() {
    let server = Server::start();
    let key = server.key(&["publish"]);
    let socket = server.ready()["socket"].as_str().expect("a socket").to_owned();
    let by = |more: &[&str], env: &[(&str, &str)]| {
        let said = run_with(&[&["publish", "--to", "user:alice", "--json", "t"][..], more].concat(), "", env).well();
        assert_eq!(said.json()["recipients"], 1, "{said:?}");
    };
    by(&["--url", server.url(), "--key", &key], &[]);
    by(&["--url", server.url()], &[("TIDINGS_KEY", &key)]);
    by(&[], &[("TIDINGS_KEY", &key), ("TIDINGS_URL", server.url())]);
    by(&["--socket", &socket, "--key", &key], &[]);
    by(&["--data", arg(server.data())], &[]);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 5);
    let below = Setup::serve().arg("--base-path").arg("/tidings").start();
    run(&["publish", "--data", arg(below.data()), "--to", "user:alice", "t"], "").well();
    let key = server.key(&["tickets"]);
    let refused = run(&["publish", "--url", server.url(), "--key", &key, "--to", "user:alice", "t"], "");
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("scope `publish`") && refused.out.is_empty(), "{refused:?}");
    assert!(!refused.err.contains(&key), "{refused:?}");
}

#[test]
fn publish_with_the_same_key_twice_is_one_entry() {
    let server = Server::start();
    let args = ["publish", "--data", arg(server.data()), "--to", "user:alice", "--idempotency-key", "k", "--json", "t"];
    let (first, again) = (run(&args, "").well(), run(&args, "").well());
    assert_eq!(first.out, again.out);
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
}

#[test]
fn publish_takes_many_from_standard_input_and_says_which_were_refused() {
    let server = Server::start();
    let lines: Vec<String> = (0..2_500)
        .map(|i| match i {
            7 => "{".to_owned(),
            1_200 => json!({ "to": "user:alice" }).to_string(),
            _ => json!({ "to": "user:alice", "title": format!("t{i}") }).to_string(),
        })
        .collect();
    let said = run(&["publish", "--batch", "--json", "--data", arg(server.data())], &lines.join("\n"));
    assert_eq!(said.code, 1, "{}", said.err);
    assert_eq!(said.out.lines().count(), 2_500);
    for told in ["line 8: ", "line 1201: ", "2 of 2500 lines were refused"] {
        assert!(said.err.contains(told), "no {told:?} in {}", said.err);
    }
    assert_eq!(server.inbox("alice")["counts"]["unread"], 2_498);
    let said = run(&["publish", "--batch", "--data", arg(server.data())], &lines[10]).well();
    assert!(said.out.contains("Published 1 of 1"), "{said:?}");
}

#[test]
fn tokens_are_made_without_a_server_and_by_the_thousand() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = arg(dir.path());
    let users: Vec<String> = (0..3_000).map(|i| format!("user{i}")).collect();
    let many = run(&["token", "--data", data, "--users", "-"], &users.join("\n")).well();
    let tokens: Vec<&str> = many.out.lines().collect();
    assert_eq!(tokens.len(), 3_000);
    let one = run(
        &[
            "token", "--data", data, "--user", "alice", "--scope", "publish", "--ttl", "1h", "--topics", "ops,a/*",
            "--json",
        ],
        "",
    )
    .well()
    .json();
    assert_eq!(one["user"], "alice");
    let server = Setup::serve().on(dir).start();
    let whose = |token: &str| {
        crate::support::sse::Sse::open(server.place(), Ask::get("/v1/stream").bearer(token)).expect("hello").data
    };
    assert_eq!(whose(tokens[2_999])["user"], "user2999");
    assert_eq!(whose(one["token"].as_str().expect("a token"))["expires"], one["expires"]);
    let publish = Ask::post("/v1/notifications").bearer(one["token"].as_str().expect("a token"));
    server.send(&publish.json(&json!({ "to": "user:bob", "title": "t" }))).expect(201);
    // While it runs as well: nothing of it needs the lock.
    let fresh = run(&["token", "--data", arg(server.data()), "--user", "bob"], "").well();
    assert_eq!(whose(fresh.out.trim())["user"], "bob");
    let broken = run(&["token", "--data", arg(server.data()), "--users", "-"], "good\n\u{7}\n");
    assert!(broken.code != 0 && broken.err.contains("line 2"), "{broken:?}");
}

#[test]
fn keys_are_kept_alike_by_a_running_server_and_by_the_log_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = arg(dir.path()).to_owned();
    let create = |name: &str, more: &[&str]| {
        run(&[&["key", "create", "--data", &data, "--name", name][..], more].concat(), "").well()
    };
    let offline = create("offline", &["--scope", "publish", "--json"]).json();
    assert_eq!(offline["scopes"], json!(["publish"]));
    let server = Setup::serve().on(dir).start();
    let online = create("online", &["--scope", "publish:topic/ops", "--scope", "users"]);
    let (online, told) = (online.out.trim().to_owned(), online.err);
    assert!(online.starts_with("tk_") && told.contains("not shown again"), "{told}");
    let publish = |key: &str| {
        server
            .send(&Ask::post("/v1/notifications").bearer(key).json(&json!({ "to": "topic:ops", "title": "t" })))
            .status()
    };
    let first = offline["key"].as_str().expect("a key");
    assert_eq!([publish(first), publish(&online)], [201, 201]);
    let listed = run(&["key", "list", "--data", &data, "--json"], "").well();
    let names: Vec<_> =
        listed.json()["keys"].as_array().expect("a list").iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["offline", "online"]);
    assert!(!listed.out.contains(first) && !listed.out.contains(&online));
    run(&["key", "revoke", offline["id"].as_str().expect("an id"), "--data", &data], "").well();
    assert_eq!([publish(first), publish(&online)], [401, 201], "revoked at once");
    let kept = server.stop();
    let id = online.split('_').nth(1).expect("tk_<id>_<secret>").to_owned();
    run(&["key", "revoke", &id, "--data", &data], "").well();
    let table = run(&["key", "list", "--data", &data], "").well().out;
    assert_eq!(table.lines().filter(|line| line.contains("revoked")).count(), 2, "{table}");
    let unknown = run(&["key", "revoke", "nothing", "--data", &data], "");
    assert_eq!(unknown.code, 1, "{unknown:?}");
    let server = Setup::serve().on(kept).start();
    let body = json!({ "to": "topic:ops", "title": "t" });
    server.send(&Ask::post("/v1/notifications").bearer(&online).json(&body)).problem(401, "revoked");
}

type Words<'a> = &'a [&'a str];
type Settings<'a> = &'a [(&'a str, &'a str)];

#[test]
fn a_command_that_was_asked_wrongly_ends_with_64_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = arg(dir.path());
    let settings = dir.path().join("tidings.toml");
    std::fs::write(&settings, "[http]\nlissten = \"127.0.0.1:0\"\n[streams]\nheartbeat = \"1h\"\n").expect("written");
    let cases: [(Words, Settings, &str); 11] = [
        (&[], &[], "Usage"),
        (&["serv"], &[], "serve"),
        (&["serve", "--listen", "here", "--data", data], &[], "--listen"),
        (&["serve", "--port", "1"], &[], "--port"),
        (&["serve", "--data", data, "--config", arg(&settings)], &[], "tidings.toml:2"),
        (&["serve", "--data", data, "--config", "/nowhere/tidings.toml"], &[], "/nowhere/tidings.toml"),
        (&["serve", "--data", data], &[("TIDINGS_HTTP_LISSTEN", "127.0.0.1:0")], "TIDINGS_HTTP_LISSTEN"),
        (&["serve", "--data", data, "--listen", "none"], &[("TIDINGS_LOG", "info,,=")], "TIDINGS_LOG"),
        (&["publish", "--to", "user:alice", "t"], &[], "TIDINGS_KEY"),
        (&["token", "--data", data, "--user", "alice", "--ttl", "soon"], &[], "--ttl"),
        (&["key", "create", "--data", data, "--name", "x", "--scope", "root"], &[], "root"),
    ];
    for (args, env, told) in cases {
        let said = run_with(args, "", env);
        assert_eq!(said.code, 64, "{args:?}: {said:?}");
        assert!(said.err.contains(told) && said.out.is_empty(), "{args:?}: no {told:?} in {said:?}");
    }
    let faults = run(&["serve", "--data", data, "--config", arg(&settings)], "").err;
    assert!(faults.contains("http.listen") && faults.contains("tidings.toml:4"), "all faults at once: {faults}");
    for good in ["--help", "--version"] {
        assert!(!run(&[good], "").well().out.is_empty());
    }
}

#[test]
fn a_directory_that_is_in_use_is_not_used_twice() {
    let server = Server::start();
    let said = run(&["serve", "--listen", "127.0.0.1:0", "--data", arg(server.data())], "");
    assert_eq!(said.code, 75, "{said:?}");
    assert!(said.err.contains(&format!("is in use by another tidings (process {})", server.pid())), "{said:?}");
    server.notify("alice", "it goes on");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let address = server.url().trim_start_matches("http://");
    let said = run(&["serve", "--listen", address, "--data", arg(elsewhere.path())], "");
    assert!(said.code == 1 && said.err.contains("is in use") && said.err.contains("--listen"), "{said:?}");
}

#[test]
fn a_command_without_its_server_says_so_and_ends_with_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = run(&["publish", "--data", arg(dir.path()), "--to", "user:alice", "t"], "");
    assert!(said.code == 1 && said.err.contains("--data"), "{said:?}");
}

#[test]
fn the_ready_line_is_one_line_of_json_with_what_scripts_need() {
    let server = Server::start();
    let ready = server.ready().as_object().expect("an object");
    assert_eq!(ready.keys().collect::<Vec<_>>(), ["data", "socket", "url"]);
    assert!(server.url().starts_with("http://127.0.0.1:") && !server.url().ends_with(":0"), "{}", server.url());
    let data = server.data().canonicalize().expect("it is there");
    assert_eq!(ready["data"], arg(&data));
    assert_eq!(ready["socket"], arg(&data.join("tidings.sock")));
    let demo = Setup::demo().start();
    let ready = demo.ready().as_object().expect("an object");
    assert_eq!(ready.keys().collect::<Vec<_>>(), ["data", "key", "socket", "url", "users"]);
    demo.send(&Ask::get("/v1/keys").bearer(ready["key"].as_str().expect("a key"))).expect(200);
}
