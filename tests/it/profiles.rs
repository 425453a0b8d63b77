//! Who people are: what is taken as an address, what a change leaves alone, imports of any length, and what stays of
//! somebody who was erased.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cli::{Said, arg, run, start};
use crate::support::http::{Answer, Ask};
use crate::support::server::Server;

fn put(server: &Server, user: &str, change: &Value) -> Answer {
    server.operate(Ask::put(&format!("/v1/users/{user}")).json(change))
}

fn profile(server: &Server, user: &str) -> Value {
    server.operate(Ask::get(&format!("/v1/users/{user}"))).expect(200).json()
}

fn own(server: &Server, user: &str, change: &Value) -> Answer {
    server.send(&Ask::put("/v1/preferences").bearer(&server.token(user)).json(change))
}

fn import(server: &Server, file: &str, input: &str, more: &[&str]) -> Said {
    let args = [&["user", "import", file, "--json", "--data", arg(server.data())], more].concat();
    run(&args, input)
}

fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().expect("a list");
    errors.iter().map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_profile_is_kept_and_a_change_leaves_alone_what_it_does_not_name() {
    let server = Server::start();
    server.operate(Ask::get("/v1/users/alice")).problem(404, "not-found");
    let made = put(
        &server,
        "alice",
        &json!({ "name": "Alice 王", "email": "alice@example.com", "locale": "ZH-hant-tw", "time_zone": "asia/taipei",
                 "dingtalk": "manager4220", "preferences": { "loans": { "email": false }, "*": { "email": true } } }),
    );
    let whole = json!({ "user": "alice", "name": "Alice 王", "email": "alice@example.com", "locale": "zh-Hant-TW",
        "time_zone": "Asia/Taipei", "dingtalk": "manager4220",
        "preferences": { "*": { "email": true }, "loans": { "email": false } } });
    assert_eq!(made.expect(201).json(), whole);
    assert_eq!(put(&server, "alice", &json!({})).expect(200).json(), whole);
    let changed = put(
        &server,
        "alice",
        &json!({ "name": null, "preferences": { "loans": { "email": null, "dingtalk": true } } }),
    );
    let mut expected = whole;
    expected["name"] = Value::Null;
    expected["preferences"]["loans"] = json!({ "dingtalk": true });
    assert_eq!(changed.expect(200).json(), expected);
    assert_eq!(profile(&server, "alice"), expected);
    put(&server, "alice", &json!({ "preferences": null })).expect(200);
    assert_eq!(profile(&server, "alice")["preferences"], json!({}));
    // Someone who only appeared has one too, with nothing in it.
    server.notify("bob", "hello");
    assert_eq!(profile(&server, "bob")["email"], Value::Null);
}

#[test]
fn what_could_begin_a_header_is_no_address_and_nothing_of_a_refused_change_is_kept() {
    let server = Server::start();
    put(&server, "alice", &json!({ "email": "alice@example.com" })).expect(201);
    for (field, bad) in [
        ("email", json!("a@b.example\r\nBcc: everybody@example.com")),
        ("email", json!("a@b.example\nBcc: x@example.com")),
        ("email", json!("a\u{0}@b.example")),
        ("email", json!("a b@c.example")),
        ("email", json!("a@b@c.example")),
        ("email", json!("Alice <a@b.example>")),
        ("email", json!("a@b.example, c@d.example")),
        ("email", json!("")),
        ("email", json!(7)),
        ("name", json!("Alice\r\nBcc: x@example.com")),
        ("name", json!("\u{85}")),
        ("locale", json!("zh_CN")),
        ("time_zone", json!("../../etc/passwd")),
        ("time_zone", json!("Mars/Olympus")),
        ("dingtalk", json!("a](https://evil.example)")),
        ("preferences", json!({ "a b": { "email": true } })),
        ("preferences", json!({ "loans": { "fax": true } })),
        ("preferences", json!({ "loans": { "email": "no" } })),
        ("preferences", json!([])),
        ("role", json!("admin")),
    ] {
        let mut change = json!({ "locale": "de" });
        change[field] = bad.clone();
        let problem = put(&server, "alice", &change).problem(422, "invalid");
        assert!(pointers(&problem).iter().any(|at| at.starts_with(&format!("/{field}"))), "{bad}: {problem}");
    }
    let kept = profile(&server, "alice");
    assert_eq!((&kept["email"], &kept["locale"]), (&json!("alice@example.com"), &Value::Null));
    let too_many: serde_json::Map<String, Value> =
        (0..101).map(|i| (format!("c{i}"), json!({ "email": true }))).collect();
    put(&server, "alice", &json!({ "preferences": too_many })).problem(429, "too-many");
    assert_eq!(profile(&server, "alice")["preferences"], json!({}));
}

#[test]
fn people_say_themselves_how_they_are_reached_but_not_where() {
    let server = Server::start();
    server.publish(&json!({ "to": "user:alice", "title": "due", "category": "loans" }));
    put(&server, "alice", &json!({ "email": "alice@example.com" })).expect(200);
    let now = own(&server, "alice", &json!({ "locale": "zh-CN", "preferences": { "fines": { "email": false } } }));
    let now = now.expect(200).json();
    assert_eq!((&now["user"], &now["locale"]), (&json!("alice"), &json!("zh-CN")));
    assert_eq!(now["categories"], json!(["fines", "loans"]), "what there is, and what something was said about");
    assert_eq!(profile(&server, "alice")["preferences"], json!({ "fines": { "email": false } }));
    let problem = own(&server, "alice", &json!({ "email": "mallory@example.com" })).problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/email"]);
    assert_eq!(profile(&server, "alice")["email"], "alice@example.com");
    // Whoever asks for the first time has said nothing.
    let bob = server.send(&Ask::get("/v1/preferences").bearer(&server.token("bob"))).expect(200).json();
    assert_eq!((&bob["email"], &bob["categories"]), (&Value::Null, &json!([])));
    let foreign = Ask::put("/v1/preferences").header("cookie", format!("tidings_session={}", server.token("alice")));
    server.send(&foreign.json(&json!({ "locale": "de" }))).problem(403, "cross-site");
}

#[test]
fn an_export_has_the_profile_and_an_erasure_leaves_none_of_it() {
    let server = Server::start();
    for user in ["alice", "bob"] {
        let change = json!({ "email": format!("{user}@example.com"), "preferences": { "loans": { "email": false } } });
        put(&server, user, &change).expect(201);
    }
    let records = server.operate(Ask::get("/v1/users/alice/export")).expect(200).lines();
    let told: Vec<_> = records.iter().filter(|record| record["kind"] == "profile").collect();
    assert_eq!((told.len(), &told[0]["email"]), (1, &json!("alice@example.com")));
    assert_eq!(told[0]["preferences"], json!({ "loans": { "email": false } }));
    server.operate(Ask::delete("/v1/users/alice")).expect(200);
    server.operate(Ask::get("/v1/users/alice")).problem(404, "not-found");
    put(&server, "alice", &json!({})).expect(201);
    assert_eq!(profile(&server, "alice")["email"], Value::Null, "someone new of the same name");
    assert_eq!(profile(&server, "alice")["preferences"], json!({}));
    assert_eq!(profile(&server, "bob")["email"], "bob@example.com");
    server.operate(Ask::post("/v1/upkeep/compact").json(&json!({}))).expect(200);
    let file = fs::read(server.data().join("tidings.db")).expect("the database is there");
    let holds = |text: &str| file.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(holds("bob@example.com") && !holds("alice@example.com"), "nor is it in the file");
}

#[test]
fn a_bulk_answers_each_line_and_each_fails_alone() {
    let server = Server::start();
    server.notify("bob", "known");
    let lines = [
        json!({ "user": "alice", "email": "alice@example.com" }),
        json!({ "user": "bob", "locale": "de" }),
        json!({ "user": "carol", "email": "nonsense" }),
        json!({ "email": "nobody@example.com" }),
        json!({ "user": "alice", "email": null }),
    ];
    let answers = server.operate(Ask::post("/v1/users").ndjson(&lines)).expect(200).lines();
    let told: Vec<_> = answers.iter().map(|answer| answer["status"].as_u64().unwrap_or_default()).collect();
    assert_eq!(told, [201, 200, 422, 422, 200]);
    assert_eq!(answers[0]["user"], "alice");
    assert_eq!(pointers(&answers[2]["problem"]), ["/email"]);
    assert_eq!(profile(&server, "alice")["email"], Value::Null, "lines take effect in their order");
    server.operate(Ask::get("/v1/users/carol")).problem(404, "not-found");
}

#[test]
fn a_stray_quote_in_a_table_costs_one_line_and_each_bad_line_is_told() {
    let server = Server::start();
    put(&server, "bob", &json!({ "email": "bob@example.com", "locale": "de" })).expect(201);
    let table = "\u{feff}user,name,email,loans/email\r\n\
                 alice,\"O'Neil, Alice\",alice@example.com,no\r\n\
                 bob,\"stray,bob2@example.com,\r\n\
                 carol,Carol,carol@example.com,yes\r\n\
                 bob,,,\r\n\
                 dave,Dave,dave@example,com,yes\r\n\
                 erin,Erin,nonsense,\r\n";
    let folder = tempfile::tempdir().expect("a folder");
    let (file, errors) = (folder.path().join("people.csv"), folder.path().join("bad.ndjson"));
    fs::write(&file, table).expect("it can be written");
    let said = import(&server, arg(&file), "", &["--errors", arg(&errors)]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.json(), json!({ "added": 2, "changed": 1, "failed": 3 }));
    let alice = profile(&server, "alice");
    assert_eq!(
        (&alice["name"], &alice["preferences"]),
        (&json!("O'Neil, Alice"), &json!({ "loans": { "email": false } }))
    );
    assert_eq!(profile(&server, "carol")["email"], "carol@example.com", "the line behind the quote");
    let bob = profile(&server, "bob");
    assert_eq!((&bob["email"], &bob["locale"]), (&Value::Null, &json!("de")), "an empty field clears, no column keeps");
    let bad: Vec<Value> = fs::read_to_string(&errors)
        .expect("it was written")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let numbers: Vec<_> = bad.iter().map(|bad| bad["line"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [3, 6, 7], "as they stand in the file");
    for (what, bad) in ["quote", "fields", "mail address"].iter().zip(&bad) {
        assert!(bad["error"].as_str().is_some_and(|error| error.contains(what)), "{bad}");
    }
    assert!(said.err.contains("line 3:") && said.err.contains("line 7:"), "{}", said.err);
}

#[test]
fn only_the_first_bad_lines_are_told_and_the_file_has_all_of_them() {
    let server = Server::start();
    let mut input = String::new();
    for i in 0..2_500 {
        let email = if i % 25 == 0 { "nonsense" } else { "a@b.example" };
        writeln!(input, "{}", json!({ "user": format!("u{i}"), "email": email })).expect("memory");
    }
    // A line over the limit is skipped to its end, and what follows is read.
    writeln!(input, "{{\"user\":\"long\",\"name\":\"{}\"}}", "x".repeat(70_000)).expect("memory");
    write!(input, "{}", json!({ "user": "last" })).expect("memory");
    let folder = tempfile::tempdir().expect("a folder");
    let errors = folder.path().join("bad.ndjson");
    let said = import(&server, "-", &input, &["--errors", arg(&errors)]);
    assert_eq!(said.json(), json!({ "added": 2_401, "changed": 0, "failed": 101 }));
    assert_eq!(said.err.lines().filter(|line| line.starts_with("line ")).count(), 20, "{}", said.err);
    let bad = fs::read_to_string(&errors).expect("it was written");
    assert_eq!(bad.lines().count(), 101);
    assert!(bad.contains("\"line\":2501") && bad.contains("65536 bytes"), "{bad}");
    profile(&server, "last");
    // The same once more changes nothing and does no harm.
    let again = import(&server, "-", &input, &[]);
    assert_eq!(again.json(), json!({ "added": 0, "changed": 2_401, "failed": 101 }));
}

/// Lines of the quick form, whose NDJSON is longer than [`MAX_MEMORY`]; `TIDINGS_IMPORT_LINES=1000000` is the full form.
const LINES: usize = 20_000;
/// Bytes of a line of NDJSON, for which blanks are added to it.
const LINE: usize = 4_096;
/// One line in so many is bad.
const BAD_EVERY: usize = 100;
/// What the command and the server may each come to hold, however long the file is.
const MAX_MEMORY: usize = 64 * 1024 * 1024;

/// The most memory that a process has held, in bytes; `None` when it has ended.
fn peak(pid: u32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    Some(kib * 1024)
}

/// A file of people, every [`BAD_EVERY`]th of whom has no address.
fn people(folder: &Path, format: &str, lines: usize) -> PathBuf {
    let path = folder.join(format!("people.{format}"));
    let mut file = BufWriter::new(File::create(&path).expect("ours to write"));
    let mut line = |text: String| writeln!(file, "{text}").expect("ours to write");
    if format == "csv" {
        line("user,name,email,loans/email".to_owned());
    }
    for n in 0..lines {
        let email = if n % BAD_EVERY == 0 { "nonsense".to_owned() } else { format!("u{n}@example.com") };
        if format == "csv" {
            line(format!("c{n},\"Person, {n}\",{email},yes"));
        } else {
            let person = json!({ "user": format!("n{n}"), "name": format!("Person {n}"), "email": email });
            // The full form is long by its lines.
            let width = if lines == LINES { LINE } else { 0 };
            line(format!("{:<width$}", person.to_string()));
        }
    }
    path
}

#[test]
fn an_import_of_any_length_takes_little_memory_and_counts_every_bad_line() {
    let lines = std::env::var("TIDINGS_IMPORT_LINES").map_or(LINES, |text| text.parse().expect("a number of lines"));
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    for format in ["ndjson", "csv"] {
        let (file, errors) = (people(folder.path(), format, lines), folder.path().join("bad.ndjson"));
        let begun = Instant::now();
        let args = ["user", "import", arg(&file), "--errors", arg(&errors), "--json", "--data", arg(server.data())];
        let importing = start(&args, "", &[]);
        let mut most = 0;
        while let Some(held) = peak(importing.pid()) {
            most = most.max(held);
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let said = importing.end();
        let (took, of_server) = (begun.elapsed(), peak(server.pid()).expect("it runs"));
        println!(
            "{lines} lines of {format} in {took:?}; the command held {} MiB at most, the server {} MiB",
            most >> 20,
            of_server >> 20
        );
        let bad = lines.div_ceil(BAD_EVERY);
        assert_eq!((said.code, said.json()), (1, json!({ "added": lines - bad, "changed": 0, "failed": bad })));
        let told = fs::read_to_string(&errors).expect("it was written");
        assert_eq!(
            (told.lines().count(), said.err.lines().filter(|line| line.starts_with("line ")).count()),
            (bad, 20)
        );
        assert!(most > 0 && most < MAX_MEMORY && of_server < MAX_MEMORY, "{most} and {of_server} bytes were held");
        fs::remove_file(&file).expect("ours to remove");
    }
    assert_eq!(profile(&server, &format!("c{}", lines - 1))["email"], format!("u{}@example.com", lines - 1));
}

#[test]
fn the_command_line_sets_and_shows_a_person() {
    let server = Server::start();
    let data = arg(server.data()).to_owned();
    let said = run(
        &[
            "user",
            "set",
            "alice",
            "--email",
            "alice@example.com",
            "--locale",
            "zh-cn",
            "--prefer",
            "loans/email=no",
            "--prefer",
            "*/email=yes",
            "--data",
            &data,
        ],
        "",
    )
    .well();
    assert!(said.out.contains("alice@example.com") && said.out.contains("loans/email=no"), "{}", said.out);
    run(&["user", "set", "alice", "--clear", "email", "--prefer", "*/email=", "--data", &data], "").well();
    let shown = run(&["user", "show", "alice", "--json", "--data", &data], "").well().json();
    assert_eq!((&shown["email"], &shown["locale"]), (&Value::Null, &json!("zh-CN")));
    assert_eq!(shown["preferences"], json!({ "loans": { "email": false } }));
    for wrong in [&["--prefer", "loans/fax=no"][..], &[]] {
        let said = run(&[&["user", "set", "alice", "--data", &data], wrong].concat(), "");
        assert_eq!(said.code, 64, "{said:?}");
    }
    assert_eq!(run(&["user", "set", "alice", "--email", "a@b\n.example", "--data", &data], "").code, 1);
}
