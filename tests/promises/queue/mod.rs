//! The queue as a way in, with a real RabbitMQ and real producers (pika, Celery): what is in the queue comes into the log
//! once, whoever is killed; what can't be taken ends among the dead letters with its reason, and the rest flows on.
//!
//! The crash harness in its quick form takes 2,000 messages; `TIDINGS_QUEUE_MESSAGES=100000` is the full one, whose kills fall
//! at random unless `TIDINGS_QUEUE_SEED` names a seed. `node.rs` is the broker, `centre.py` what speaks to it.

pub mod node;
pub mod rabbit;

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::mount::{Disk, skipped};
use crate::support::http::Ask;
use crate::support::server::{Server, Setup};
use crate::support::{Dice, token};
use node::wait_long;
use rabbit::Rabbit;

const MESSAGES: u64 = 2_000;
const SEED: u64 = 20_261_123;
/// How often each of the two is killed.
const KILLS: u64 = 3;
/// Entries of one user at most, well below what an inbox keeps.
const PER_USER: u64 = 2_000;

/// A server that consumes a queue.
fn consumer(rabbit: &Rabbit, queue: &str, dead_letters: &str) -> Setup {
    Setup::serve()
        .env("TIDINGS_AMQP_URL", &rabbit.address())
        .env("TIDINGS_AMQP_QUEUE", queue)
        .env("TIDINGS_AMQP_DEAD_LETTER_EXCHANGE", dead_letters)
}

/// The value of a sample of `/metrics`; `None` where it is not there.
fn figure(server: &Server, sample: &str) -> Option<u64> {
    let answer = server.send(&Ask::get("/metrics")).expect(200);
    let mut lines = answer.text().lines();
    lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

fn settled(server: &Server, outcome: &str) -> u64 {
    let sample = format!("tidings_intake_total{{outcome=\"{outcome}\"}}");
    figure(server, &sample).expect("every outcome has a sample from the start")
}

/// How the way in is, by `/readyz`, which must say that the server is ready.
fn intake(server: &Server) -> String {
    let told = server.send(&Ask::get("/readyz")).expect(200).json();
    assert_eq!(told["status"], "ready", "{told}");
    told["intake"].as_str().expect("a queue is consumed").to_owned()
}

fn wait_for_intake(server: &Server, state: &str) {
    wait_long(state, || intake(server).starts_with(state).then_some(()));
    let connected = u64::from(["consuming", "waiting"].contains(&state));
    assert_eq!(figure(server, "tidings_intake_connected{source=\"amqp\"}"), Some(connected), "{state}");
}

/// A user's titles, each once; sorted.
fn titles(server: &Server, user: &str) -> Vec<String> {
    let inbox = server.inbox(user);
    let entries = inbox["entries"].as_array().expect("a list");
    let mut titles: Vec<String> =
        entries.iter().map(|entry| entry["title"].as_str().expect("a text").to_owned()).collect();
    titles.sort_unstable();
    titles
}

/// A line for `centre.py publish`.
fn line(body: &Value, more: Value) -> String {
    let mut line = json!({ "body": body.to_string() });
    line.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    format!("{line}\n")
}

/// How the way in is, as the operator sees it.
fn told(server: &Server) -> Value {
    server.operate(Ask::get("/v1/status")).expect(200).json()["intake"].clone()
}

fn to(user: &str, title: &str) -> Value {
    json!({ "to": { "user": user }, "title": title })
}

#[test]
fn each_message_is_in_the_log_once_whoever_is_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let total = number("TIDINGS_QUEUE_MESSAGES").unwrap_or(MESSAGES);
    let drawn = || if total == MESSAGES { SEED } else { u64::try_from(token::now()).unwrap_or(SEED) };
    let seed = number("TIDINGS_QUEUE_SEED").unwrap_or_else(drawn);
    let users = (total / PER_USER).max(8);
    let mut dice = Dice::new(seed);

    let mut rabbit = Rabbit::start();
    rabbit.tell(&["setup"]);
    rabbit.settle();
    let mut producer = rabbit.begin(&["produce", "0", &total.to_string(), &users.to_string()]);
    // Few on their way, so that there is something to kill in the middle of.
    let mut server = consumer(&rabbit, "centre", "dead").env("TIDINGS_AMQP_PREFETCH", "64").start();
    let begun = Instant::now();
    let mut again = 0;
    // What earlier runs of the server have committed, and what each kill waits for.
    let mut before = 0;
    for kill in 0..2 * KILLS {
        let share = total / (4 * KILLS) + dice.below(total / (8 * KILLS));
        let from = figure(&server, "tidings_publishes_total").expect("it is counted");
        wait_long("some more messages", || {
            let published = figure(&server, "tidings_publishes_total").expect("it is counted");
            (published >= from + share || before + published >= total).then_some(())
        });
        if kill % 2 == 0 {
            again += settled(&server, "duplicate");
            server.kill();
            before = committed(&server);
            server.restart();
        } else {
            rabbit.kill();
            rabbit.restart();
        }
    }
    wait_long("every message", || {
        let published = figure(&server, "tidings_publishes_total").expect("it is counted");
        (before + published >= total).then_some(())
    });
    assert!(producer.wait().expect("it is ours").success(), "the producer gave up");
    wait_long("an empty queue", || (rabbit.depth("centre") == 0).then_some(()));
    again += settled(&server, "duplicate");
    println!("seed {seed}: {total} messages over {} kills in {:?}, {again} came again", 2 * KILLS, begun.elapsed());

    // Each inbox from its start: every number is there, once.
    let mut found = HashSet::new();
    for user in 0..users {
        let user = format!("u{user}");
        let mut stream = server.stream(&user, "?cursor=start&events=notification");
        let unread = stream.expect("hello").data["counts"]["unread"].as_u64().expect("a number");
        server.notify(&user, "end");
        for _ in 0..unread {
            let title = stream.expect("notification").title().to_owned();
            assert!(found.insert(title.clone()), "{title} is there twice");
        }
        assert_eq!(stream.expect("notification").title(), "end");
    }
    let expected: HashSet<String> = (0..total).map(|n| n.to_string()).collect();
    assert_eq!(found, expected);
    assert_eq!(settled(&server, "dead_lettered") + settled(&server, "rejected") + rabbit.depth("graveyard"), 0);
}

/// Notifications in the log of a server that does not run.
fn committed(server: &Server) -> u64 {
    let log = rusqlite::Connection::open(server.data().join("tidings.db")).expect("the log opens");
    log.query_row("SELECT count(*) FROM notifications", [], |row| row.get(0)).expect("SQLite counts")
}

#[test]
fn what_comes_by_the_queue_is_taken_or_told_and_the_server_is_ready_all_the_while() {
    let mut rabbit = Rabbit::start();
    rabbit.tell(&["setup"]);
    rabbit.tell(&["delete", "centre"]);
    // There is no queue: that is told, and waited for.
    let mut server = consumer(&rabbit, "centre", "dead").start();
    wait_for_intake(&server, "reconnecting");
    wait_long("the reason in the log", || server.log().contains("no queue 'centre'").then_some(()));
    rabbit.tell(&["setup"]);
    wait_for_intake(&server, "consuming");

    producers(&rabbit, &server);
    names(&rabbit, &server);
    poison(&rabbit, &server);
    letters_that_nobody_takes(&rabbit, &server);

    // The queue is deleted under it, and made again.
    rabbit.tell(&["delete", "centre"]);
    wait_for_intake(&server, "reconnecting");
    rabbit.tell(&["setup"]);
    wait_for_intake(&server, "consuming");

    // The broker is gone: HTTP goes on, and what is published there meanwhile is no less.
    rabbit.kill();
    wait_for_intake(&server, "reconnecting");
    server.notify("alice", "over HTTP");
    rabbit.restart();
    // It may not have written down yet that the queue was made again.
    rabbit.tell(&["setup"]);
    rabbit.tell_with(&["publish", "centre"], &line(&to("alice", "after the broker"), json!({})));
    wait_long("what came after", || titles(&server, "alice").contains(&"after the broker".to_owned()).then_some(()));
    assert!(titles(&server, "alice").contains(&"over HTTP".to_owned()));

    drain(&rabbit, &mut server);
    rejected(&rabbit);
    nameless_ones_outlive_a_restart(&rabbit);
    nameless_ones_outlive_a_flood(&rabbit);
    flood(&rabbit);
    encrypted(&rabbit);
    full_disk(&rabbit);
}

/// pika and Celery, a publish and a message centre's message, with and without a template.
fn producers(rabbit: &Rabbit, server: &Server) {
    let template = json!({
        "texts": { "en": { "in_app": { "title": "Order {{ order }}", "body": "It is on its way." } } },
        "variables": { "order": { "type": "string" } },
    });
    server.operate(Ask::put("/v1/templates/shipped").json(&template)).expect(201);
    server.operate(Ask::post("/v1/templates/shipped/publish").json(&json!({}))).expect(200);
    let centre = json!({ "type": "in_app", "receivers": ["bob", 17], "title": "Due", "content": "on Friday", "id": 7 });
    let by_template =
        json!({ "type": "in_app", "receivers": ["bob"], "template": "shipped", "params": { "order": "A-17" } });
    let messages = [to("bob", "a publish"), centre, by_template].map(|body| line(&body, json!({})));
    rabbit.tell_with(&["publish", "centre"], &messages.concat());
    rabbit.tell(&["celery", "centre", "4"]);
    wait_long("every producer's", || {
        (titles(server, "bob").len() == 3 && titles(server, "celia").len() == 4).then_some(())
    });
    assert_eq!(titles(server, "bob"), ["Due", "Order A-17", "a publish"]);
    assert_eq!(titles(server, "17"), ["Due"]);
    assert_eq!(titles(server, "celia"), ["task 0", "task 1", "task 2", "task 3"]);
    let told = server.inbox("17")["entries"][0]["body"].clone();
    assert_eq!(told, "on Friday");
}

/// A message with a name is taken once; of those without, each that is sent is one.
fn names(rabbit: &Rabbit, server: &Server) {
    let (duplicates, body) = (settled(server, "duplicate"), to("carol", "named"));
    let named = json!({ "message_id": "n-1" });
    let own = json!({ "to": { "user": "carol" }, "title": "named by itself", "idempotency_key": "n-2" });
    let messages = [
        line(&body, named.clone()),
        line(&body, named),
        line(&own, json!({})),
        line(&own, json!({ "message_id": "another" })),
        line(&to("carol", "nameless"), json!({})),
        line(&to("carol", "nameless"), json!({})),
        line(&to("carol", "last"), json!({})),
    ];
    rabbit.tell_with(&["publish", "centre"], &messages.concat());
    wait_long("the last", || titles(server, "carol").contains(&"last".to_owned()).then_some(()));
    wait_long("both duplicates", || (settled(server, "duplicate") == duplicates + 2).then_some(()));
    assert_eq!(titles(server, "carol"), ["last", "named", "named by itself", "nameless", "nameless"]);
}

/// Bytes that are no message, by far.
const HUGE: u64 = 20 * 1024 * 1024;

fn poison(rabbit: &Rabbit, server: &Server) {
    let dead = settled(server, "dead_lettered");
    let raw = |name: &str, body: &str, times: u64| {
        format!(
            "{}\n",
            json!({ "body": body, "times": times, "message_id": name, "user_id": "guest", "expiration": "86400000" })
        )
    };
    let named = |name: &str, body: Value| raw(name, &body.to_string(), 1);
    let centre = |kind: &str| json!({ "type": kind, "receivers": ["dora"], "title": "x" });
    let messages = [
        raw("no JSON", "hello", 1),
        raw("empty", "", 1),
        raw("half", "{\"to\":", 1),
        raw("huge", "x", HUGE),
        named("yesterday", json!({ "user_id": 5, "msg": "x" })),
        named("misspelt", json!({ "to": "user:dora", "titel": "x" })),
        named("no template", json!({ "type": "in_app", "receivers": ["dora"], "template": "none" })),
        named("no medium", centre("fax")),
        // Whoever only asks must not be taken for one who means it.
        named("tried", json!({ "type": "in_app", "receivers": ["dora"], "title": "x", "dry_run": true })),
        named("reserved", json!({ "to": "topic:", "title": "x" })),
        line(&to("dora", "one"), json!({ "message_id": "twice" })),
        line(&to("dora", "another"), json!({ "message_id": "twice" })),
        line(&to("dora", "flows on"), json!({})),
    ];
    rabbit.tell_with(&["publish", "centre"], &messages.concat());
    wait_long("what is well", || titles(server, "dora").contains(&"flows on".to_owned()).then_some(()));
    wait_long("every dead letter", || (settled(server, "dead_lettered") == dead + 11).then_some(()));
    // Of two with one name the first that comes to the log wins.
    assert_eq!(titles(server, "dora").len(), 2, "{:?}", titles(server, "dora"));

    let letters = rabbit.bury("graveyard");
    let text = |letter: &Value, name: &str| letter["headers"][name].as_str().unwrap_or_default().to_owned();
    let found: BTreeMap<String, String> = letters
        .iter()
        .map(|letter| (letter["message_id"].as_str().unwrap_or_default().to_owned(), text(letter, "x-tidings-reason")))
        .collect();
    let expected = [
        ("no JSON", "bad-json"),
        ("empty", "bad-json"),
        ("half", "bad-json"),
        ("huge", "body-too-large"),
        ("yesterday", "invalid"),
        ("misspelt", "invalid"),
        ("no template", "invalid"),
        ("no medium", "invalid"),
        ("tried", "invalid"),
        ("reserved", "invalid"),
        ("twice", "idempotency-mismatch"),
    ];
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(name, reason)| ((*name).to_owned(), (*reason).to_owned())).collect();
    assert_eq!(found, expected);
    for letter in &letters {
        assert!(
            !text(letter, "x-tidings-detail").is_empty() && text(letter, "x-tidings-queue") == "centre",
            "{letter}"
        );
        // As they came, and for as long as nobody takes them away.
        assert_eq!((&letter["expiration"], &letter["delivery_mode"]), (&Value::Null, &json!(2)), "{letter}");
        let huge = letter["message_id"] == "huge";
        assert_eq!(letter["bytes"].as_u64() == Some(HUGE), huge, "{letter}");
    }
    let of = |name: &str| letters.iter().find(|letter| letter["message_id"] == name).expect("it is there");
    assert!(text(of("misspelt"), "x-tidings-detail").contains("/titel"), "{}", of("misspelt"));
    assert!(text(of("tried"), "x-tidings-detail").contains("/dry_run"), "{}", of("tried"));
    assert_eq!(of("half")["text"], "{\"to\":");
    // The operator is shown why, too, and nothing of what they say.
    let shown = told(server);
    let untaken = shown["untaken"].as_array().expect("a list");
    assert!(untaken.iter().any(|one| one["id"] == "huge" && one["bytes"] == json!(HUGE)), "{shown}");
    let misspelt = untaken.iter().find(|one| one["id"] == "misspelt").expect("it is remembered");
    assert_eq!((&misspelt["reason"], &misspelt["went"]), (&json!("invalid"), &json!("dead_lettered")));
    assert!(!shown.to_string().contains("hello"), "{shown}");
}

/// A dead letter that no queue would hold is not thrown away: it waits, the rest flows on, and that is told.
fn letters_that_nobody_takes(rabbit: &Rabbit, server: &Server) {
    let dead = settled(server, "dead_lettered");
    rabbit.tell(&["unbind"]);
    let messages =
        [line(&json!("no object"), json!({ "message_id": "waits" })), line(&to("erin", "flows on"), json!({}))];
    rabbit.tell_with(&["publish", "centre"], &messages.concat());
    wait_for_intake(server, "waiting");
    wait_long("what is well", || (titles(server, "erin") == ["flows on"]).then_some(()));
    assert!(intake(server).contains("dead-letter exchange"), "{}", intake(server));
    assert_eq!(settled(server, "dead_lettered"), dead);
    rabbit.tell(&["bind"]);
    wait_long("the letter", || (settled(server, "dead_lettered") == dead + 1).then_some(()));
    wait_for_intake(server, "consuming");
    let letters = rabbit.bury("graveyard");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["message_id"], "waits");
}

/// Messages that the drain falls into.
const DRAINED: u64 = 1_000;

/// What is on its way when the drain begins is settled or comes again; the process leaves in time.
fn drain(rabbit: &Rabbit, server: &mut Server) {
    let mut producer = rabbit.begin(&["produce", "0", &DRAINED.to_string(), "1"]);
    let from = figure(server, "tidings_publishes_total").expect("it is counted");
    wait_long("messages on their way", || {
        (figure(server, "tidings_publishes_total") > Some(from + DRAINED / 10)).then_some(())
    });
    server.signal(Signal::TERM);
    let status = server.exit();
    assert!(status.success(), "{status:?}: {}", server.log());
    server.restart();
    assert!(producer.wait().expect("it is ours").success(), "the producer gave up");
    wait_for_intake(server, "consuming");
    wait_long("every message", || (server.inbox("u0")["counts"]["unread"] == json!(DRAINED)).then_some(()));
    wait_long("an empty queue", || (rabbit.depth("centre") == 0).then_some(()));
    assert_eq!(server.inbox("u0")["counts"]["unread"], json!(DRAINED));
    server.kill();
}

/// Without an exchange of its own, Tidings rejects, and the queue's own dead-lettering does the rest.
fn rejected(rabbit: &Rabbit) {
    rabbit.tell(&["setup", "other"]);
    // A broker that was killed may not have written down yet what had been taken out of a queue: it is there again.
    let back = rabbit.bury("graveyard");
    println!("{} letters came back after the kill", back.len());
    let server = consumer(rabbit, "other", "").env("TIDINGS_USERS_UNKNOWN", "refuse").start();
    let messages = [line(&to("nobody", "x"), json!({ "message_id": "unknown" })), line(&json!(1), json!({}))];
    rabbit.tell_with(&["publish", "other"], &messages.concat());
    wait_long("both to be rejected", || (settled(&server, "rejected") == 2).then_some(()));
    wait_long("both letters", || (rabbit.depth("graveyard") == 2).then_some(()));
    let letters = rabbit.bury("graveyard");
    assert!(letters[0]["headers"]["x-death"].as_str().is_some_and(|death| death.contains("rejected")), "{letters:?}");
    assert!(server.log().contains("unknown-user"), "{}", server.log());
    let shown = told(&server);
    let reasons = [&shown["untaken"][0], &shown["untaken"][1]].map(|one| (&one["reason"], &one["went"]));
    assert!(reasons.contains(&(&json!("unknown-user"), &json!("rejected"))), "{shown}");
}

/// Messages that are all the same, and have no name.
const EQUALS: u64 = 600;

/// Nothing is sent back where Tidings is stopped as it should be: so equal messages without a name stay as many as they were.
fn nameless_ones_outlive_a_restart(rabbit: &Rabbit) {
    rabbit.tell(&["setup"]);
    let equal = line(&to("hana", "the same"), json!({}));
    rabbit.tell_with(&["publish", "centre"], &equal.repeat(usize::try_from(EQUALS).expect("few")));
    let mut server = consumer(rabbit, "centre", "dead").env("TIDINGS_AMQP_PREFETCH", "16").start();
    wait_long("some of them", || (settled(&server, "published") > EQUALS / 10).then_some(()));
    server.signal(Signal::TERM);
    let status = server.exit();
    assert!(status.success(), "{status:?}: {}", server.log());
    println!("{} of {EQUALS} were taken before the restart", committed(&server));
    server.restart();
    wait_long("an empty queue", || (rabbit.depth("centre") == 0).then_some(()));
    wait_long("all of them", || (server.inbox("hana")["counts"]["unread"] == json!(EQUALS)).then_some(()));
    assert_eq!(settled(&server, "duplicate"), 0);
}

/// Messages that are all the same and have no name; before them stands one to so many that they are still being worked on when
/// the flood comes behind them.
const WORKED_ON: usize = 24;
const MANY: usize = 3_000;
/// More than is held with 32 messages of 32 KiB.
const FLOOD_BYTES: u64 = 1024 * 1024;

/// A flood cuts the connection, and what is being worked on is settled before that: so equal messages without a name stay as
/// many as they were.
fn nameless_ones_outlive_a_flood(rabbit: &Rabbit) {
    rabbit.tell(&["setup"]);
    let many: Vec<String> = (0..MANY).map(|n| format!("m{n}")).collect();
    let before = line(&json!({ "to": { "users": many }, "title": "takes its time" }), json!({}));
    let equal = line(&to("ines", "the same"), json!({})).repeat(WORKED_ON);
    let large = json!({ "body": "x", "times": FLOOD_BYTES, "message_id": "large" });
    rabbit.tell_with(&["publish", "centre"], &format!("{before}{equal}{large}\n"));
    let server = consumer(rabbit, "centre", "dead")
        .env("TIDINGS_AMQP_PREFETCH", "32")
        .env("TIDINGS_AMQP_MAX_MESSAGE", "32KiB")
        .start();
    wait_long("the dead letter", || (settled(&server, "dead_lettered") == 1).then_some(()));
    wait_long("an empty queue", || (rabbit.depth("centre") == 0).then_some(()));
    assert!(server.log().contains("one message at a time for a while"), "{}", server.log());
    let taken = WORKED_ON as u64 + 1;
    assert_eq!((settled(&server, "published"), settled(&server, "duplicate")), (taken, 0), "{}", server.log());
    assert_eq!(server.inbox("ines")["counts"]["unread"], json!(WORKED_ON));
    rabbit.bury("graveyard");
}

/// Messages that are too large, their size, and messages that follow them.
const LARGE: u64 = 12;
const LARGE_BYTES: u64 = 16 * 1024 * 1024;
const SMALL: usize = 40;
/// Memory that the server has had at most. Taken side by side they would hold 192 MiB, and as much again in frames on their way
/// to the dead letters, besides what the server needs; cut off and one by one, 192 MiB at the very worst (where lapin reads all
/// of them before the cut) and one in frames.
const MOST_MEMORY: u64 = 320 * 1024 * 1024;

/// Messages far beyond `max_message` don't fill the memory: they are taken one at a time, and then things are as before.
fn flood(rabbit: &Rabbit) {
    rabbit.tell(&["setup"]);
    let large = |n: u64| {
        let name = format!("large-{n}");
        format!("{}\n", json!({ "body": "x", "times": LARGE_BYTES, "message_id": name }))
    };
    let small = |n: usize| line(&to("gina", &format!("{n:03}")), json!({ "message_id": format!("g-{n}") }));
    let messages: String = (0..LARGE).map(large).chain((0..SMALL).map(small)).collect();
    rabbit.tell_with(&["publish", "centre"], &messages);
    let server = consumer(rabbit, "centre", "dead")
        .env("TIDINGS_AMQP_PREFETCH", "32")
        .env("TIDINGS_AMQP_MAX_MESSAGE", "32KiB")
        .start();
    wait_long("every dead letter", || (settled(&server, "dead_lettered") == LARGE).then_some(()));
    wait_long("what is well", || (titles(&server, "gina").len() == SMALL).then_some(()));
    let began = |log: &str| log.matches("Consuming the queue").count();
    wait_long("the ordinary pace", || (began(&server.log()) == 3).then_some(()));
    wait_for_intake(&server, "consuming");
    assert!(server.log().contains("one message at a time for a while"), "{}", server.log());
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024;
    println!(
        "{} MiB of messages that are too large: {} MiB of memory at most",
        (LARGE * LARGE_BYTES) >> 20,
        peak >> 20
    );
    assert!(peak < MOST_MEMORY, "{peak} bytes of memory");
    rabbit.tell(&["delete", "graveyard"]);
}

/// TLS: the certificate is checked, by authority and by name; who does not pass is told what to do, and is told no password.
fn encrypted(rabbit: &Rabbit) {
    rabbit.tell(&["setup"]);
    let begin = |url: &str, authority: &str| {
        let server = consumer(rabbit, "centre", "dead").env("TIDINGS_AMQP_URL", url);
        server.env("TIDINGS_AMQP_CA_FILE", authority).start()
    };
    let trusted = rabbit.authority();
    let plain = rabbit.address().replace("amqp://", "amqps://");
    for (url, authority, told_of) in [
        (
            rabbit.tls_address("localhost"),
            "",
            "certificate that is not trusted: invalid peer certificate: UnknownIssuer",
        ),
        (rabbit.tls_address("127.0.0.1"), &trusted, "not valid for name"),
        (plain, &trusted, "speaks no TLS that we understand"),
    ] {
        let server = begin(&url, authority);
        wait_for_intake(&server, "reconnecting");
        let why = wait_long("the reason", || told(&server)["why"].as_str().map(str::to_owned));
        assert!(why.contains(told_of) && server.log().contains(told_of), "{url}: {why}");
    }
    let server = begin(&rabbit.tls_address("localhost"), &trusted);
    wait_for_intake(&server, "consuming");
    let messages = [line(&to("ivan", "by TLS"), json!({})), line(&json!(1), json!({ "message_id": "poison" }))];
    rabbit.tell_with(&["publish", "centre"], &messages.concat());
    wait_long("both", || {
        (titles(&server, "ivan") == ["by TLS"] && settled(&server, "dead_lettered") == 1).then_some(())
    });
    rabbit.bury("graveyard");
}

/// A full disk stops the intake and loses nothing.
fn full_disk(rabbit: &Rabbit) {
    if skipped("a queue before a full disk") {
        return;
    }
    rabbit.tell(&["setup"]);
    let disk = Disk::of(24);
    let server = consumer(rabbit, "centre", "dead").on(disk.directory()).start();
    wait_for_intake(&server, "consuming");
    disk.fill();
    let padded = |n: u64| json!({ "to": { "user": "frank" }, "title": format!("{n:03}"), "body": "x".repeat(4_000) });
    let messages: String = (0..90).map(|n| line(&padded(n), json!({ "message_id": format!("f-{n}") }))).collect();
    rabbit.tell_with(&["publish", "centre"], &messages);
    let readiness = || server.send(&Ask::get("/readyz")).json();
    wait_long("the disk to be full", || {
        let told = readiness();
        let waits = told["intake"].as_str().is_some_and(|intake| intake.starts_with("waiting"));
        (told["status"] == "degraded" && waits).then_some(())
    });
    disk.clear();
    wait_long("every message", || (titles(&server, "frank").len() == 90).then_some(()));
    wait_long("readiness", || (readiness()["status"] == "ready").then_some(()));
    wait_for_intake(&server, "consuming");
    assert_eq!(settled(&server, "dead_lettered") + settled(&server, "rejected"), 0);
}
