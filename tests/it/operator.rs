//! What an operator does from the command line: topics, notifications, schedules, users, upkeep. With a server on the
//! directory and without one it is the same commands with the same answers.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cli::{Said, arg, run, run_with, start};
use crate::support::http::Ask;
use crate::support::server::{Server, Setup};
use crate::support::token;

/// A directory that a server has used and left.
fn left() -> TempDir {
    let mut server = Server::start();
    server.terminate();
    server.stop()
}

/// Runs a command on a directory.
fn on(data: &Path, args: &[&str], input: &str) -> Said {
    run(&[args, &["--data", arg(data)]].concat(), input)
}

/// Runs a command on a directory, which must go well; its answer as JSON.
fn json_on(data: &Path, args: &[&str]) -> Value {
    on(data, &[args, &["--json"]].concat(), "").well().json()
}

/// The id of a new notification.
fn publish(data: &Path, args: &[&str]) -> String {
    let told = json_on(data, &[&["publish"], args].concat());
    told["id"].as_str().unwrap_or_else(|| panic!("no id in {told}")).to_owned()
}

/// Everything an operator may do with topics, and what was answered.
fn topics_story(data: &Path) -> Vec<String> {
    let said = |args: &[&str]| on(data, args, "").well().out;
    let lines = vec![
        said(&["topic", "put", "ops/eu", "--category", "loans", "--json"]),
        said(&["topic", "put", "ops/eu", "--follow", "open", "--json"]),
        said(&["topic", "follow", "ops/eu", "alice", "bob", "--json"]),
        said(&["topic", "follow", "ops/eu", "bob", "carol"]),
        said(&["topic", "unfollow", "ops/eu", "alice"]),
        said(&["topic", "unfollow", "ops/eu", "alice", "--json"]),
        said(&["topic", "followers", "ops/eu"]),
        said(&["topic", "followers", "ops/eu", "--json"]),
        said(&["topic", "show", "ops/eu", "--json"]),
        said(&["topic", "list"]),
        said(&["topic", "delete", "ops/eu"]),
        said(&["topic", "list", "--json"]),
    ];
    let gone = on(data, &["topic", "show", "ops/eu"], "");
    assert_eq!((gone.code, gone.err.contains("404")), (1, true), "{gone:?}");
    lines.into_iter().map(|line| without_times(&line)).collect()
}

/// A text without the times in JSON, which differ from run to run.
fn without_times(text: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    value.as_object_mut().map(|object| object.remove("created_at"));
    value.to_string()
}

#[test]
fn topics_are_managed_alike_with_a_server_and_without_one() {
    let server = Server::start();
    let told = topics_story(server.data());
    assert_eq!(
        told[..9],
        [
            r#"{"category":"loans","follow":"managed","followers":0,"published":0,"topic":"ops/eu"}"#,
            r#"{"category":"loans","follow":"open","followers":0,"published":0,"topic":"ops/eu"}"#,
            r#"{"failed":0,"followed":2,"unchanged":0}"#,
            "1 more follow ops/eu; 1 did already\n",
            "alice left ops/eu\n",
            r#"{"changed":false,"following":false,"topic":"ops/eu","user":"alice"}"#,
            "bob\ncarol\n",
            "{\"user\":\"bob\",\"muted\":false}\n{\"user\":\"carol\",\"muted\":false}\n",
            r#"{"category":"loans","follow":"open","followers":2,"published":0,"topic":"ops/eu"}"#,
        ]
    );
    assert!(told[9].starts_with("ops/eu ") && told[9].contains("2 followers, 0 published"), "{}", told[9]);
    assert_eq!(told[10..], ["Deleted ops/eu\n", ""]);
    let dir = left();
    assert_eq!(topics_story(dir.path()), told);
    Setup::serve().on(dir).start().notify("alice", "and a server starts on it again");
}

#[test]
fn a_command_without_a_server_says_nothing_of_it_and_leaves_the_directory_to_the_next() {
    let dir = left();
    let data = dir.path();
    let said = on(data, &["publish", "--to", "user:alice", "--title", "While nobody served"], "").well();
    assert!(
        said.out.starts_with("Published ") && said.out.contains(" to 1 person at ") && said.err.is_empty(),
        "{said:?}"
    );
    for socket in ["tidings.sock", "ops.sock"] {
        assert!(!data.join(socket).exists(), "{socket}");
    }
    let debug = [("TIDINGS_LOG", "debug")];
    let told = run_with(&["user", "counts", "alice", "--data", arg(data)], "", &debug).well();
    assert!(told.err.contains("opening the log here") && told.out.starts_with("1 unread, 1 unseen"), "{told:?}");
    let told = run_with(&["user", "counts", "alice", "--data", arg(data)], "", &[("TIDINGS_LOG", "info")]).well();
    assert!(told.err.is_empty(), "{told:?}");
    // Settings hold here as for a server.
    let refuse = [("TIDINGS_TOPICS_UNKNOWN", "refuse")];
    let refused = run_with(&["publish", "--data", arg(data), "--to", "topic:nobody-made-it", "t"], "", &refuse);
    assert!(refused.code == 1 && refused.err.contains("unknown-topic"), "{refused:?}");
    let wrong = [("TIDINGS_TOPICS_UNKNOWN", "ignore")];
    assert_eq!(run_with(&["topic", "list", "--data", arg(data)], "", &wrong).code, 64);
    let server = Setup::serve().on(dir).start();
    assert_eq!(server.inbox("alice")["entries"][0]["title"], "While nobody served");
    // Its socket is asked, and no settings are needed for that.
    run_with(&["topic", "list", "--data", arg(server.data())], "", &wrong).well();
}

#[test]
fn a_command_does_not_speak_to_systemd_for_the_service_that_runs_it() {
    let dir = left();
    let place = dir.path().join("notify");
    let notified = UnixDatagram::bind(&place).expect("a socket");
    notified.set_nonblocking(true).expect("ours to change");
    run_with(&["topic", "list", "--data", arg(dir.path())], "", &[("NOTIFY_SOCKET", arg(&place))]).well();
    let told = notified.recv(&mut [0; 256]);
    assert!(told.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_directory_that_no_server_has_used_is_told_and_not_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let mistyped = dir.path().join("mistyped");
    for args in [&["publish", "--to", "everyone", "t"][..], &["compact"], &["topic", "list"], &["doctor", "--counts"]] {
        let said = on(&mistyped, args, "");
        assert!(said.code == 1 && said.err.contains("mistyped") && said.err.contains("tidings serve"), "{said:?}");
    }
    assert!(!mistyped.exists());
}

#[test]
fn many_commands_at_once_all_get_through_without_a_server() {
    const COMMANDS: usize = 12;
    let dir = left();
    let data = arg(dir.path());
    let title = |i: usize| format!("t{i}");
    let all: Vec<_> = (0..COMMANDS)
        .map(|i| start(&["publish", "--data", data, "--to", "user:alice", "--title", &title(i), "t"], "", &[]))
        .collect();
    for said in all {
        said.end().well();
    }
    let server = Setup::serve().on(dir).start();
    let inbox = server.inbox("alice");
    let mut titles: Vec<_> =
        inbox["entries"].as_array().expect("a list").iter().map(|e| e["title"].to_string()).collect();
    titles.sort();
    let mut expected: Vec<_> = (0..COMMANDS).map(|i| json!(title(i)).to_string()).collect();
    expected.sort();
    assert_eq!(titles, expected);
}

#[test]
fn followers_come_from_a_file_by_the_thousand_and_those_refused_are_named() {
    let dir = left();
    let data = dir.path();
    on(data, &["topic", "put", "news"], "").well();
    for title in ["one", "two", "three"] {
        publish(data, &["--to", "topic:news", title]);
    }
    let lines: Vec<_> = (0..2_500)
        .map(|i| match i {
            7 => "alice".to_owned(),
            1_200 => r#"{"user":""}"#.to_owned(),
            3 => r#"{"user":"u3","last":1}"#.to_owned(),
            _ => json!({ "user": format!("u{i}") }).to_string(),
        })
        .collect();
    let said = on(data, &["topic", "follow", "news", "--file", "-", "--last", "2", "--json"], &lines.join("\n"));
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.json(), json!({ "followed": 2_498, "unchanged": 0, "failed": 2 }));
    for told in ["line 8: ", "line 1201: ", "2 of 2500 were refused"] {
        assert!(said.err.contains(told), "no {told:?} in {}", said.err);
    }
    let unread = |user: &str| json_on(data, &["user", "counts", user])["unread"].clone();
    assert_eq!([unread("u3"), unread("u4")], [1, 2], "a line's own number wins");
    assert_eq!(on(data, &["topic", "followers", "news"], "").well().out.lines().count(), 2_498, "over several pages");
    let file = data.join("more");
    std::fs::write(&file, "{\"user\":\"u3\"}\n\n{\"user\":\"bob\"}\n").expect("written");
    let told = on(data, &["topic", "follow", "news", "--file", arg(&file)], "").well().out;
    assert_eq!(told, "1 more follow news; 1 did already\n");
    for wrong in [&["topic", "follow", "news"][..], &["topic", "follow", "news", "a", "--last", "101"]] {
        assert_eq!(on(data, wrong, "").code, 64, "{wrong:?}");
    }
}

#[test]
fn what_waits_is_listed_and_cancelled_and_what_was_delivered_is_not() {
    for serving in [true, false] {
        let server = serving.then(Server::start);
        let dir = (!serving).then(left);
        let data = server.as_ref().map_or_else(|| dir.as_ref().expect("one of them").path(), Server::data);
        let said =
            on(data, &["publish", "--to", "user:alice", "--delay", "1h", "--expires-in", "2h", "Later"], "").well();
        assert!(said.out.starts_with("Scheduled ") && said.out.contains(" for 20"), "{said:?}");
        let id = said.out.split(' ').nth(1).expect("an id").to_owned();
        let listed = json_on(data, &["schedule", "list"]);
        assert_eq!((&listed["id"], &listed["body"]), (&json!(id), &json!("Later")));
        let line = on(data, &["schedule", "list"], "").well().out;
        assert!(line.contains(&id) && line.contains("alice"), "{line}");
        assert_eq!(json_on(data, &["notification", "show", &id])["state"], "scheduled");
        assert_eq!(on(data, &["schedule", "cancel", &id], "").well().out, format!("Cancelled {id}\n"));
        assert_eq!(on(data, &["schedule", "cancel", &id], "").code, 1);
        assert_eq!(on(data, &["schedule", "list", "--json"], "").well().out, "");
        let id = publish(data, &["--to", "user:alice", "Now"]);
        let refused = on(data, &["schedule", "cancel", &id], "");
        assert!(refused.code == 1 && refused.err.contains("does not wait"), "{refused:?}");
        assert_eq!(json_on(data, &["user", "counts", "alice"])["unread"], 1, "it was left alone");
    }
}

#[test]
fn a_publish_says_when_it_is_over_and_what_it_replaces() {
    let server = Server::start();
    let data = server.data();
    let tomorrow = jiff::Timestamp::from_second(token::now() + 86_400).expect("a day");
    let over = tomorrow.to_string();
    let first = publish(data, &["--to", "user:alice", "--collapse", "disk", "--expires-at", &over, "90 %"]);
    let second = publish(data, &["--to", "user:alice", "--collapse", "disk", "95 %"]);
    let shown = json_on(data, &["notification", "show", &first]);
    assert_eq!((&shown["state"], &shown["by"]), (&json!("replaced"), &json!(second)));
    assert_eq!(shown["expires_at"], format!("{tomorrow:.3}"));
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
    let past = on(data, &["publish", "--to", "user:alice", "--expires-at", "2020-01-01T00:00:00Z", "t"], "");
    assert!(past.code == 1 && past.err.contains("expires_at"), "{past:?}");
    for wrong in
        [["--delay", "1h", "--deliver-at", "2099-01-01T00:00:00Z"], ["--expires-in", "1h", "--expires-at", "2099"]]
    {
        assert_eq!(on(data, &[&["publish", "--to", "everyone", "t"][..], &wrong].concat(), "").code, 64);
    }
}

#[test]
fn a_notification_is_shown_with_who_did_what_and_taken_back() {
    let server = Server::start();
    let data = server.data();
    let to = json!({ "users": ["alice", "bob"] });
    let id = server.publish(&json!({ "to": to, "title": "Due" }))["id"].as_str().expect("an id").to_owned();
    server.mark("bob", &json!({ "as": "read", "ids": [id] }));
    let said = on(data, &["notification", "show", &id, "--recipients", "--json"], "").well();
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!([&lines[0]["recipients"], &lines[0]["seen"], &lines[0]["read"]], [2, 1, 1], "{said:?}");
    assert_eq!([&lines[1]["user"], &lines[2]["user"]], ["alice", "bob"]);
    assert!(lines[1]["read_at"].is_null() && lines[2]["read_at"].is_string(), "{said:?}");
    let told = on(data, &["notification", "show", &id], "").well().out;
    assert!(told.contains("2 users: 1 seen, 1 read, 0 archived") && told.contains("delivered"), "{told}");
    assert_eq!(on(data, &["notification", "retract", &id], "").well().out, format!("Retracted {id}\n"));
    assert_eq!(on(data, &["notification", "retract", &id], "").well().out, format!("{id} was retracted before\n"));
    assert_eq!(server.inbox("alice")["entries"], json!([]));
    assert_eq!(on(data, &["notification", "show", "nothing"], "").code, 1);
}

#[test]
fn the_doctor_finds_counts_that_are_wrong_and_puts_them_right() {
    let server = Server::start();
    for i in 0..30 {
        server.notify(&format!("u{i}"), "t");
    }
    let doctor = |data: &Path, more: &[&str]| on(data, &[&["doctor", "--counts"], more].concat(), "");
    let right = doctor(server.data(), &[]).well();
    assert!(right.out.contains("The counts of 30 users are right"), "{right:?}");
    let dir = server.stop();
    let log = rusqlite::Connection::open(dir.path().join("tidings.db")).expect("the log");
    let broken =
        "UPDATE standings SET unread_gone = unread_gone + 1 WHERE user = (SELECT id FROM users WHERE name = 'u7')";
    assert_eq!(log.execute(broken, []).expect("a row"), 1);
    drop(log);
    let wrong = doctor(dir.path(), &[]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(wrong.out.starts_with("u7: in all stored 0 unread, 1 unseen, recounted 1 unread, 1 unseen"), "{wrong:?}");
    assert!(wrong.err.contains("the counts of 1 user out of 30 are wrong"), "{wrong:?}");
    let found = doctor(dir.path(), &["--json"]);
    assert_eq!((found.code, found.json()["user"].clone()), (1, json!("u7")));
    let mended = doctor(dir.path(), &["--repair"]).well();
    assert!(mended.out.contains("1 were wrong and have been put right"), "{mended:?}");
    doctor(dir.path(), &[]).well();
    assert_eq!(Setup::serve().on(dir).start().inbox("u7")["counts"]["unread"], 1);
    assert_eq!(run(&["doctor"], "").code, 64, "it says what it may look at");
}

#[test]
fn a_user_is_handed_out_in_a_file_and_erased_from_the_file_only_when_asked_to() {
    let server = Server::start();
    server.follow("news", "alice");
    server.notify("alice", "the secret of alice");
    server.notify("bob", "what bob keeps");
    let file = server.data().join("alice.ndjson");
    let export = ["user", "export", "alice", "--output", arg(&file), "--json"];
    let told = on(server.data(), &export, "").well().json();
    let kept = std::fs::read_to_string(&file).expect("it was written");
    assert_eq!((&told["records"], &told["bytes"]), (&json!(kept.lines().count()), &json!(kept.len())));
    assert!(kept.contains("the secret of alice") && kept.contains("news") && !kept.contains("bob"), "{kept}");
    assert_eq!(on(server.data(), &["user", "export", "alice"], "").well().out, kept);
    std::fs::remove_file(&file).expect("it is there");

    let asked = on(server.data(), &["user", "erase", "alice"], "yes\n");
    assert!(asked.code == 64 && asked.err.contains("--yes"), "nobody can be asked: {asked:?}");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
    let erased = on(server.data(), &["user", "erase", "alice", "--yes"], "").well();
    assert!(erased.out.starts_with("Erased alice: 1 entry, 1 notification "), "{erased:?}");
    assert!(erased.err.contains("tidings compact"), "{erased:?}");
    let gone = on(server.data(), &["user", "export", "alice", "--output", arg(&file)], "");
    assert_eq!(gone.code, 1, "{gone:?}");
    let left_over = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("readable").file_name().to_string_lossy().contains("ndjson")
    };
    assert!(!std::fs::read_dir(server.data()).expect("a directory").any(left_over), "no file where nothing came");

    let dir = server.stop();
    let compacted = json_on(dir.path(), &["compact"]);
    assert!(compacted["before"].as_u64() >= compacted["after"].as_u64(), "{compacted}");
    let holds = |text: &str| {
        let files = std::fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("readable").path());
        let mut bytes = files.filter(|path| path.is_file()).map(|path| std::fs::read(path).expect("readable"));
        bytes.any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    assert!(holds("what bob keeps") && !holds("the secret of alice"));
    let again = json_on(dir.path(), &["user", "erase", "bob", "--yes", "--compact"]);
    assert!(again["entries"] == 1 && again["compacted"]["after"].is_u64(), "{again}");
    assert!(!holds("what bob keeps"));
}

#[test]
fn an_application_manages_from_afar_with_a_key_and_only_what_the_key_may() {
    let server = Server::start();
    let key = server.key(&["users"]);
    let by = |args: &[&str]| run_with(&[args, &["--url", server.url()]].concat(), "", &[("TIDINGS_KEY", &key)]);
    by(&["topic", "follow", "ops", "alice"]).well();
    server.publish(&json!({ "to": "topic:ops", "title": "t" }));
    assert_eq!(by(&["user", "counts", "alice", "--json"]).well().json()["unread"], 1);
    for forbidden in [&["doctor", "--counts"][..], &["compact"], &["schedule", "list"]] {
        let said = by(forbidden);
        assert!(said.code == 1 && said.err.contains("403") && !said.err.contains(&key), "{said:?}");
    }
    server.send(&Ask::get("/v1/topics/ops").bearer(&key)).expect(200);
}
