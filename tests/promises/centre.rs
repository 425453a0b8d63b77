//! The message centre of a company, its story from the first service's start to support's answer, against the real other sides: a
//! RabbitMQ, an SMTP server, and `tidings sink` for DingTalk. Services register their templates and publish over HTTP and by
//! the queue; each person is reached where they read; RabbitMQ and the server are killed in the middle; what the relay refuses
//! is mended and tried again; and support says of each whether they got it.
//!
//! One story and no full form: each part alone has one of its own (`queue`, `outbox`, `kill`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::queue::node::{PATIENCE, wait_long};
use crate::queue::rabbit::Rabbit;
use crate::support::cli::{Said, arg, run};
use crate::support::http::Ask;
use crate::support::relay::{Relay, header};
use crate::support::server::{Server, Setup};
use crate::support::sink::Sink;
use crate::support::wait_for;

/// People whose orders are told while things are killed: half of them before, half while nobody takes their messages.
const READERS: usize = 120;
/// How many of their mails the relay has when the server is killed.
const MAILS_BEFORE: usize = 20;
/// Deliveries that are being sent at once, by default: as many may be sent twice at a kill.
const WORKERS: usize = 16;
/// Alerts of one bad minute: more than DingTalk takes from a robot.
const ALERTS: usize = 30;
const PER_MINUTE: usize = 20;

const ALICE: &str = "alice@mail.example";
const BOB: &str = "bob@mail.example";
const CAROL: &str = "carol@mail.example";

/// The company: its other sides, its server, and what its services know.
struct Company {
    rabbit: Rabbit,
    relay: Relay,
    sink: Sink,
    server: Server,
    folder: TempDir,
}

/// A file that nobody else can read.
fn secret_file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("ours to write");
    file.write_all(text.as_bytes()).expect("ours to write");
    path
}

impl Company {
    fn found() -> Self {
        // Erlang takes its time; the others start meanwhile.
        let rabbit = std::thread::spawn(|| {
            let mut rabbit = Rabbit::start();
            rabbit.tell(&["setup"]);
            rabbit.settle();
            rabbit
        });
        // Alice's mail meets greylisting; Carol's mailbox is made after her first mail.
        let refusals = json!({ ALICE: ["451 4.7.1 come back later"], CAROL: ["550 5.1.1 no such mailbox"] });
        let relay = Relay::start(&json!({ "refusals": refusals }));
        let sink = Sink::start(&["--secret", "SEC123"]);
        let folder = tempfile::tempdir().expect("a folder");
        let robot = |name: &str| {
            let url = sink.url.replace("access_token=sink", &format!("access_token={name}"));
            secret_file(folder.path(), &format!("{name}.url"), &url)
        };
        let (desk, oncall) = (robot("desk"), robot("oncall"));
        let secret = secret_file(folder.path(), "robots.secret", "SEC123");
        let rabbit = rabbit.join().expect("RabbitMQ starts");
        let settings = format!(
            "[http]\npublic_url = \"https://centre.example\"\n\
             [email]\nurl = \"smtp://127.0.0.1:{}?tls=none\"\nfrom = \"Library <library@mail.example>\"\n\
             [outbox]\nschedule = [\"2s\", \"2s\", \"2s\", \"2s\", \"2s\", \"2s\"]\n\
             [dingtalk.robots.desk]\nurl_file = {desk:?}\nsecret_file = {secret:?}\n\
             [dingtalk.robots.oncall]\nurl_file = {oncall:?}\nsecret_file = {secret:?}\ncategories = [\"alerts\"]\n\
             [amqp]\nurl = \"{}\"\nqueue = \"centre\"\ndead_letter_exchange = \"dead\"\n",
            relay.port,
            rabbit.address(),
        );
        let file = folder.path().join("tidings.toml");
        fs::write(&file, settings).expect("ours to write");
        let server = Setup::serve().config(&file).start();
        Self { rabbit, relay, sink, server, folder }
    }

    /// A command of the operator's.
    fn command(&self, args: &[&str]) -> Said {
        run(&[args, &["--data", arg(self.server.data())]].concat(), "")
    }

    /// A person's delivery of a notification by a medium, when nothing more is tried.
    fn settled(&self, notification: &Value, user: &str, medium: &str) -> Value {
        let notification = notification.as_str().expect("an id");
        let ask = Ask::get(&format!("/v1/deliveries?notification={notification}&user={user}&medium={medium}"));
        wait_for("a delivery to be settled", || {
            let told = self.server.operate(ask.clone()).expect(200).json();
            let found = told["deliveries"].as_array().expect("a list");
            assert!(found.len() <= 1, "one medium, one delivery: {found:?}");
            found.first().filter(|delivery| delivery["settled_at"].is_string()).cloned()
        })
    }

    /// Messages for the queue, by pika, each with the id that stands before it.
    fn enqueue(&self, messages: &[(&str, String)]) {
        let line = |(id, body): &(&str, String)| format!("{}\n", json!({ "body": body, "message_id": id }));
        self.rabbit.tell_with(&["publish", "centre"], &messages.iter().map(line).collect::<String>());
    }

    fn inbox(&self, user: &str) -> Vec<String> {
        let inbox = self.server.inbox(user);
        let entries = inbox["entries"].as_array().expect("a list");
        entries.iter().map(|entry| entry["title"].as_str().expect("a text").to_owned()).collect()
    }
}

/// Decisions as `explain` and a publish that is tried tell them, a line each.
fn decisions(told: &Value) -> Vec<String> {
    let word = |decision: &Value, name: &str| decision[name].as_str().map(str::to_owned);
    let line = |decision: &Value| {
        let medium = word(decision, "medium").map(|medium| format!(" {medium}")).unwrap_or_default();
        let (step, decided) = (word(decision, "step"), word(decision, "decision"));
        format!("{}{medium}: {}", step.expect("a word"), decided.expect("a word"))
    };
    told.as_array().expect("a list").iter().map(line).collect()
}

#[test]
fn a_company_s_message_centre_reaches_everybody_and_can_say_so() {
    let mut company = Company::found();
    // Services do this at every start, so it is done twice.
    let keys = [company.services_start(201), company.services_start(200)];
    company.people_are_imported();
    let due = company.a_reminder_is_published(&keys[0]);
    company.the_mend_is_followed_by_a_retry(&due);
    company.messages_come_by_the_queue();
    company.both_are_killed_in_the_middle();
    company.a_bad_minute_becomes_a_digest(&keys[1]);
    company.support_answers(&due);
    company.alice_has_enough(&due);
    company.closes();
}

impl Company {
    /// The loans service pushes a folder by the command line, the on-call service sends JSON by a key that is good for its own
    /// templates.
    fn services_start(&self, registered: u16) -> String {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/templates");
        let pushed = self.command(&["template", "push", arg(&templates), "--publish", "--json"]).well().json();
        assert_eq!((&pushed["version"], &pushed["published"]), (&json!(1), &json!(1)), "{pushed}");
        let key = self.server.key(&["templates:disk", "publish"]);
        let text = |title: &str, dingtalk: &str| json!({ "in_app": { "title": title }, "dingtalk": { "title": title, "text": dingtalk } });
        let alert = json!({
            "category": "alerts",
            "variables": { "host": { "type": "string" }, "percent": { "type": "integer" } },
            "texts": {
                "en": text("{{ host }}: disk at {{ percent }} %", "**{{ host }}**: disk at {{ percent }} %"),
                "zh": text("{{ host }}：磁盘 {{ percent }}%", "**{{ host }}**：磁盘 {{ percent }}%"),
            },
        });
        let told =
            self.server.send(&Ask::put("/v1/templates/disk").bearer(&key).json(&alert)).expect(registered).json();
        assert_eq!(told["version"], 1, "the same content is the same version");
        self.server.send(&Ask::post("/v1/templates/disk/publish").bearer(&key).json(&json!({}))).expect(200);
        key
    }

    /// From a table with a slip in it, which is told; the mended line is imported by itself.
    fn people_are_imported(&self) {
        let mut table = format!(
            "user,name,email,locale,dingtalk,loans/email\n\
             alice,Alice 王,{ALICE},zh-CN,manager4220,\n\
             bob,\"Bob, the night shift\",{BOB},en-GB,13800000000,\n\
             carol,Carol,carol at mail.example,en,,\n\
             dave,Dave,dave@mail.example,,,no\n"
        );
        for n in 0..READERS {
            table.push_str(&format!("u{n},Reader {n},u{n}@readers.example,,,\n"));
        }
        let file = |name: &str| self.folder.path().join(name);
        let (people, bad, mended) = (file("people.csv"), file("bad.ndjson"), file("mended.csv"));
        fs::write(&people, table).expect("ours to write");
        let said = self.command(&["user", "import", arg(&people), "--errors", arg(&bad), "--json"]);
        assert_eq!((said.code, said.json()), (1, json!({ "added": READERS + 3, "changed": 0, "failed": 1 })));
        let told: Value =
            serde_json::from_str(&fs::read_to_string(&bad).expect("it was written")).expect("one line of JSON");
        assert!(told["line"] == 4 && told["error"].as_str().is_some_and(|why| why.contains("/email")), "{told}");
        fs::write(&mended, format!("user,name,email,locale\ncarol,Carol,{CAROL},en\n")).expect("ours to write");
        self.command(&["user", "import", arg(&mended)]).well();
    }

    /// Over HTTP, by template, to four people at once; twice, since the service did not hear the first answer. Its id.
    fn a_reminder_is_published(&self, key: &str) -> Value {
        let mut streams = ["alice", "bob"].map(|user| self.server.stream(user, "?cursor=now"));
        for stream in &mut streams {
            stream.expect("hello");
        }
        let body = json!({
            "to": { "users": ["alice", "bob", "carol", "dave"] }, "template": "loan-due", "via": ["email", "dingtalk"],
            "params": { "name": "reader", "due": "2026-11-27",
                        "books": [{ "title": "红楼梦", "url": "https://library.example/1" }] },
        });
        let ask = Ask::post("/v1/notifications").bearer(key).header("idempotency-key", "loan-7").json(&body);
        let id = self.server.send(&ask).expect(201).json()["id"].clone();
        assert_eq!(self.server.send(&ask).expect(201).json()["id"], id, "a repeated publish is the same one");

        // In the app, each in their language.
        let titles = streams.each_mut().map(|stream| stream.until("notification").title().to_owned());
        assert_eq!(titles, ["11月27日到期", "Due on 27 November"]);

        // By mail: Alice's at the second attempt, since the relay wanted that.
        let delivery = self.settled(&id, "alice", "email");
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("sent"), &json!(2)), "{delivery}");
        let mail = self.relay.mail_to(ALICE);
        let of = |name: &str| header(&mail, name).unwrap_or_else(|| panic!("no {name} in {mail}"));
        assert_eq!(of("message-id"), format!("<{}>", delivery["message_id"].as_str().expect("a text")));
        assert_eq!((of("subject").as_str(), of("content-language").as_str()), ("2026年11月27日到期提醒", "zh"));
        assert!(of("list-unsubscribe").starts_with("<https://centre.example/v1/unsubscribe/"));
        assert_eq!(mail["type"], "multipart/alternative");
        let part = |n: usize| mail["parts"][n]["text"].as_str().expect("a text").to_owned();
        assert!(part(0).contains("- 红楼梦：https://library.example/1"), "{}", part(0));
        assert!(part(1).contains("<a href=\"https://library.example/1\">红楼梦</a>"), "{}", part(1));
        // Its headers have a way out of what went to many, and so has what people see.
        let way_out = of("list-unsubscribe").trim_matches(['<', '>']).to_owned();
        assert!(part(0).contains(&way_out) && part(1).contains(&way_out), "{mail}");
        let mail = self.relay.mail_to(BOB);
        assert_eq!(header(&mail, "subject").as_deref(), Some("Due on 27 November 2026"));

        // In the group: who can be named is, in a message of their language.
        let mut said: Vec<Value> = (0..2).map(|_| self.sink.next()).collect();
        said.sort_by_key(|message| message["people"][0] == "13800000000");
        for (message, person, words) in
            [(&said[0], "manager4220", "### 图书到期提醒"), (&said[1], "13800000000", "### Due on 27 November")]
        {
            assert_eq!((&message["robot"], &message["people"]), (&json!("desk"), &json!([person])), "{message}");
            assert!(message["faults"] == json!([]) && message["answer"] == "errcode 0: ok", "{message}");
            assert!(message["text"].as_str().is_some_and(|text| text.starts_with(words)), "{message}");
        }

        // Dave has said that he wants none of these by mail; nobody knows how to name him in the group.
        for medium in ["email", "dingtalk"] {
            let delivery = self.settled(&id, "dave", medium);
            assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("skipped"), &json!(0)), "{delivery}");
        }
        assert_eq!(self.settled(&id, "dave", "email")["reason"], "does not want email about loans");
        id
    }

    /// Carol had no mailbox: her mail is dead, with the relay's words. Somebody makes the mailbox and has it tried again.
    fn the_mend_is_followed_by_a_retry(&self, due: &Value) {
        let delivery = self.settled(due, "carol", "email");
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("dead"), &json!(1)), "{delivery}");
        assert!(delivery["reason"].as_str().is_some_and(|why| why.contains("550 5.1.1 no such mailbox")), "{delivery}");
        let retried = self.command(&["delivery", "retry", "--dead", "--user", "carol", "--json"]).well().json();
        assert_eq!(retried, json!({ "retried": 1 }));
        self.relay.mail_to(CAROL);
        let delivery = self.settled(due, "carol", "email");
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("sent"), &json!(2)), "{delivery}");
    }

    /// As the old services send them, by pika and Celery; what can't be taken is put aside, and the rest flows on.
    fn messages_come_by_the_queue(&self) {
        let of = |kind: &str, user: &str, title: &str| json!({ "type": kind, "receivers": [user], "title": title, "content": "At the desk.", "category": "desk" });
        let mail = of("mail", "bob", "Your fine").to_string();
        let by_template = json!({ "type": "in_app", "receivers": ["alice"], "template": "loan-due",
                                  "params": { "name": "Alice", "due": "2026-12-24" } });
        self.enqueue(&[
            ("fine-1", mail.clone()),
            ("no JSON", "hello".to_owned()),
            ("hold-1", of("dingtalk", "alice", "Your hold").to_string()),
            ("yesterday's", json!({ "user_id": 5, "msg": "x" }).to_string()),
            // A producer that did not hear the confirmation.
            ("fine-1", mail),
            ("due-2", by_template.to_string()),
        ]);
        let task = json!({ "to": { "user": "bob" }, "title": "By Celery", "category": "desk" });
        self.rabbit.tell_with(&["tasks", "centre"], &format!("{task}\n"));

        wait_long("what was for Bob", || (self.inbox("bob").len() == 3).then_some(()));
        wait_long("what was for Alice", || (self.inbox("alice").len() == 3).then_some(()));
        assert_eq!(self.inbox("bob").iter().collect::<HashSet<_>>().len(), 3, "{:?}", self.inbox("bob"));
        assert!(self.inbox("alice").contains(&"12月24日到期".to_owned()), "{:?}", self.inbox("alice"));
        let mail = wait_for("the fine by mail", || {
            self.relay.mails().into_iter().find(|mail| header(mail, "subject").as_deref() == Some("Your fine"))
        });
        assert_eq!(mail["recipients"], json!([BOB]));
        assert_eq!(mail["parts"][0]["text"].as_str().map(str::trim_end), Some("At the desk."));
        let message = self.sink.next();
        assert_eq!(
            (&message["people"], &message["title"]),
            (&json!(["manager4220"]), &json!("Your hold")),
            "{message}"
        );

        wait_long("two dead letters", || (self.rabbit.depth("graveyard") == 2).then_some(()));
        let letters = self.rabbit.bury("graveyard");
        let reasons: BTreeMap<&str, &str> = letters
            .iter()
            .map(|letter| (letter["message_id"].as_str(), letter["headers"]["x-tidings-reason"].as_str()))
            .map(|(id, reason)| (id.expect("it has one"), reason.expect("it has one")))
            .collect();
        assert_eq!(reasons, BTreeMap::from([("no JSON", "bad-json"), ("yesterday's", "invalid")]));
    }

    /// The server is killed while it sends; services go on, and RabbitMQ is killed with what it holds; both come back. Each order is
    /// in its reader's inbox once, and their mail arrives.
    fn both_are_killed_in_the_middle(&mut self) {
        let before = self.relay.taken();
        let more = json!({ "via": ["email"], "category": "orders" }).to_string();
        let (half, all) = ((READERS / 2).to_string(), READERS.to_string());
        let produce = |from: &str| self.rabbit.begin(&["produce", from, &half, &all, &more]);
        let first = produce("0");
        wait_long("mails to arrive", || (self.relay.taken() >= before + MAILS_BEFORE).then_some(()));
        self.server.kill();
        for mut producer in [first, produce(&half)] {
            assert!(producer.wait().expect("it is ours").success(), "the producer gave up");
        }
        assert!(self.rabbit.depth("centre") >= (READERS / 2) as u64, "nobody takes them");
        self.rabbit.kill();
        self.server.restart();
        self.rabbit.restart();
        let ask = Ask::get("/v1/deliveries?category=orders&medium=email&limit=1000");
        let deliveries = wait_long("every order by mail", || {
            let told = self.server.operate(ask.clone()).expect(200).json();
            let all = told["deliveries"].as_array().expect("a list");
            (all.len() == READERS && all.iter().all(|delivery| delivery["state"] == "sent")).then(|| all.clone())
        });
        wait_long("an empty queue", || (self.rabbit.depth("centre") == 0).then_some(()));
        for n in 0..READERS {
            assert_eq!(self.inbox(&format!("u{n}")), [n.to_string()]);
        }
        let ids: HashMap<&str, &str> = deliveries
            .iter()
            .map(|delivery| (delivery["address"].as_str(), delivery["message_id"].as_str()))
            .map(|(address, id)| (address.expect("it has one"), id.expect("it has one")))
            .collect();
        assert_eq!(ids.len(), READERS, "everybody has one delivery");
        // What the relay has said is read a moment after it was said.
        let mails = wait_for("every address to be written to", || {
            let mails = self.relay.mails().split_off(before);
            let to: HashSet<&str> = mails.iter().filter_map(|mail| mail["recipients"][0].as_str()).collect();
            (to.len() == READERS).then_some(mails)
        });
        for mail in &mails {
            let to = mail["recipients"][0].as_str().expect("a recipient");
            assert_eq!(
                header(mail, "message-id"),
                Some(format!("<{}>", ids[to])),
                "again or not, {to} gets the same mail"
            );
        }
        let doubled = mails.len() - READERS;
        println!("{READERS} orders by the queue and by mail over a kill of each side: {doubled} sent twice");
        assert!(doubled <= WORKERS, "{doubled} mails were sent twice over one kill of the server");
    }

    /// DingTalk hangs while everything breaks: what then waits is more than it takes in a minute, and loses nothing.
    fn a_bad_minute_becomes_a_digest(&self, key: &str) {
        let alert = |n: usize| {
            json!({ "to": { "user": "bob" }, "template": "disk", "params": { "host": format!("db-{n}"), "percent": 97 },
                    "via": ["dingtalk"] })
        };
        self.sink.freeze();
        let first = self.server.send(&Ask::post("/v1/notifications").bearer(key).json(&alert(0))).expect(201).json();
        let first = first["id"].as_str().expect("an id");
        wait_for("the first to be on its way", || {
            let told =
                self.server.operate(Ask::get(&format!("/v1/deliveries?notification={first}"))).expect(200).json();
            (told["summary"]["leased"] == 1).then_some(())
        });
        let rest: Vec<Value> = (1..ALERTS).map(alert).collect();
        let answers = self.server.send(&Ask::post("/v1/notifications").bearer(key).ndjson(&rest)).expect(200).lines();
        assert!(answers.iter().all(|answer| answer["status"] == 201), "{answers:?}");
        self.sink.thaw();

        let hosts: HashSet<String> = (0..ALERTS).map(|n| format!("db-{n}:")).collect();
        let (mut said, mut digests, mut messages) = (HashSet::new(), 0, 0);
        while said.len() < ALERTS {
            let message = self.sink.next_within(PATIENCE);
            let text = message["text"].as_str().expect("a text").replace(['*', '\\'], "");
            let here: Vec<&String> = hosts.iter().filter(|host| text.contains(host.as_str())).collect();
            assert!(!here.is_empty() && message["people"] == json!(["13800000000"]), "{message}");
            assert_eq!(
                (&message["robot"], &message["answer"]),
                (&json!("oncall"), &json!("errcode 0: ok")),
                "{message}"
            );
            digests += usize::from(here.len() > 1);
            messages += 1;
            said.extend(here);
        }
        println!("{ALERTS} alerts in a bad minute: {messages} messages, of these {digests} digest");
        assert!(digests >= 1 && messages <= PER_MINUTE + 1, "{messages} messages, {digests} digests");
    }

    /// "Did she get it?", by the command line and over HTTP.
    fn support_answers(&self, due: &Value) {
        let key = self.server.key(&["users"]);
        let target = format!("/v1/deliveries?notification={}", due.as_str().expect("an id"));
        let told = self.server.send(&Ask::get(&target).bearer(&key)).expect(200).json();
        assert_eq!((&told["summary"]["finished"], &told["summary"]["dead"]), (&json!(true), &json!(0)), "{told}");
        assert_eq!((&told["summary"]["sent"], &told["summary"]["skipped"]), (&json!(5), &json!(3)), "{told}");
        let listed =
            self.command(&["delivery", "list", "--user", "carol", "--medium", "email", "--json"]).well().json();
        assert_eq!((&listed["notification"], &listed["address"]), (due, &json!(CAROL)), "{listed}");
        let id = listed["id"].as_u64().expect("a number").to_string();
        let shown = self.command(&["delivery", "show", &id, "--json"]).well().json();
        assert_eq!(shown["template"], "loan-due");
        let timeline = shown["timeline"].as_array().expect("a list");
        let told: Vec<(&str, bool)> = timeline
            .iter()
            .map(|attempt| (attempt["outcome"].as_str(), attempt["answer"].as_str()))
            .map(|(outcome, answer)| (outcome.expect("a word"), answer.expect("a text")))
            .map(|(outcome, answer)| (outcome, answer.contains("550 5.1.1") || answer.contains("250 2.0.0")))
            .collect();
        assert_eq!(told, [("never", true), ("sent", true)], "{shown}");
        let people = self.command(&["delivery", "show", &id]).well().out;
        assert!(people.contains(CAROL) && people.contains("no such mailbox"), "{people}");
        self.support_tells_why(due, &key);
    }

    /// Decision by decision, of what was sent, and of what would be.
    fn support_tells_why(&self, due: &Value, key: &str) {
        let due = due.as_str().expect("an id");
        let explain = |user: &str| {
            let ask = Ask::get(&format!("/v1/notifications/{due}/explain?user={user}")).bearer(key);
            decisions(&self.server.send(&ask).expect(200).json()["decisions"])
        };
        let carol = explain("carol");
        let of_mail = ["medium email: sent", "attempt email: never", "attempt email: sent"].map(str::to_owned);
        assert!(carol.starts_with(&["audience: named".to_owned(), "template: worded".to_owned()]), "{carol:?}");
        assert!(carol.windows(3).any(|three| three == of_mail), "{carol:?}");
        assert_eq!(carol.last().map(String::as_str), Some("in_app in_app: stored"), "she has not looked yet");
        let dave = explain("dave");
        for told in ["preference email: unwanted", "medium email: skipped", "medium in_app: inbox"] {
            assert!(dave.contains(&told.to_owned()), "{told}: {dave:?}");
        }
        assert_eq!(explain("u1"), ["audience: outside"]);
        let said = self.command(&["log", "explain", due, "--user", "carol", "--json"]).well().json();
        assert_eq!(decisions(&said["decisions"]), carol, "the command line says the same");

        let log = self.command(&["log", "--user", "carol", "--notification", due, "--json"]).well().out;
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let told: BTreeSet<(&str, &str)> = lines
            .iter()
            .map(|line| (line["medium"].as_str().expect("a word"), line["state"].as_str().expect("a word")))
            .collect();
        assert_eq!(told, BTreeSet::from([("in_app", "stored"), ("email", "sent"), ("dingtalk", "skipped")]), "{log}");

        // What would become of the next one is asked, not tried.
        let before = self.inbox("dave");
        let body = json!({
            "to": { "users": ["carol", "dave"] }, "template": "loan-due", "via": ["email"], "dry_run": true,
            "params": { "name": "reader", "due": "2027-02-01" },
        });
        let asker = self.server.key(&["publish", "users"]);
        let would = self.server.send(&Ask::post("/v1/notifications").bearer(&asker).json(&body)).expect(200).json();
        assert_eq!((&would["dry_run"], &would["recipients"]), (&json!(true), &json!(2)), "{would}");
        for (at, user, mail) in [(0, "carol", "medium email: tried"), (1, "dave", "medium email: skipped")] {
            let person = &would["people"][at];
            let told = decisions(&person["decisions"]);
            assert!(person["user"] == user && told.contains(&mail.to_owned()), "{person}");
        }
        // What comes after it is there, and of itself there is nothing.
        self.server.notify("dave", "At the desk");
        let after = self.inbox("dave");
        assert_eq!((after[0].as_str(), &after[1..]), ("At the desk", &before[..]));
        let mails = self.relay.mails();
        let is_of_it = |mail: &&Value| header(mail, "subject").is_some_and(|subject| subject.contains("February"));
        assert_eq!(mails.iter().find(is_of_it), None, "nobody was written to");
    }

    /// One click in Alice's mail program: no more mail about loans; the inbox goes on.
    fn alice_has_enough(&self, due: &Value) {
        let link = header(&self.relay.mail_to(ALICE), "list-unsubscribe").expect("it went to many");
        let path = link.trim_matches(['<', '>']).strip_prefix("https://centre.example").expect("ours").to_owned();
        let click = Ask::post(&path).body("application/x-www-form-urlencoded", "List-Unsubscribe=One-Click");
        self.server.send(&click).expect(200);
        let body = json!({ "to": "user:alice", "template": "loan-due", "via": ["email"],
                           "params": { "name": "Alice", "due": "2027-01-05" } });
        let id = self.server.publish(&body)["id"].clone();
        assert_ne!(id, *due);
        let delivery = self.settled(&id, "alice", "email");
        assert_eq!(
            (&delivery["state"], &delivery["reason"]),
            (&json!("skipped"), &json!("does not want email about loans"))
        );
        assert!(self.inbox("alice").contains(&"01月05日到期".to_owned()), "{:?}", self.inbox("alice"));
    }

    /// The server leaves in peace, and DingTalk has nothing to say against what it was sent.
    fn closes(mut self) {
        let (status, _) = self.server.terminate();
        assert!(status.success() && !self.server.log().contains("panicked"), "{status:?}: {}", self.server.log());
        let (code, more, told) = self.sink.stop();
        assert_eq!((code, more.len()), (0, 0), "{told}");
    }
}
