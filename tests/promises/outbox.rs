//! Every mail at least once (T11): mails are published while the server is killed with `kill -9` again and again, and every
//! address is written to; one that is written to twice gets the same mail, and no more of them than were being sent. A publish
//! to many is killed while its deliveries are made and while they are carried, and says at every look `finished` when each
//! of them is settled, and at no other time.
//!
//! The quick form sends 300 mails over 4 kills, and publishes to 2,010 people, at moments drawn from a fixed seed; `TIDINGS_T11_MAILS=10000`
//! is the full one, with 10 kills, 9,990 people and a random seed unless `TIDINGS_T11_SEED` names one.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::support::http::Ask;
use crate::support::publisher::{Tally, Whereabouts, publish};
use crate::support::relay::{Relay, header};
use crate::support::server::{Server, Setup};
use crate::support::{Dice, token, wait_for};

const MAILS: usize = 300;
const KILLS: usize = 4;
const FULL_KILLS: usize = 10;
const PUBLISHERS: usize = 4;
const SEED: u64 = 20_261_107;
/// People whom a publish to many reaches, in each form. No whole number of those that one transaction makes deliveries for, so that
/// the last delivery and the end of their making are one commit, and `finished` can be held against a number.
const PEOPLE: usize = 2_010;
const FULL_PEOPLE: usize = 9_990;
/// Of so many one has an address; the first of those is refused by the relay.
const PER_READER: usize = 10;
/// Publishes to many within which one must have been cut short while its deliveries were made.
const MAX_ROUNDS: usize = 8;
/// Deliveries that are being sent at once, by default: as many may be sent twice at each kill.
const WORKERS: usize = 16;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// A server that sends its mail to this relay.
fn server_with(relay: &Relay) -> Server {
    let url = format!("smtp://127.0.0.1:{}?tls=none", relay.port);
    Setup::serve().env("TIDINGS_EMAIL_URL", &url).env("TIDINGS_EMAIL_FROM", "library@example.org").start()
}

fn address(n: usize) -> String {
    format!("u{n}@example.com")
}

/// Lets each user have an address.
fn introduce(server: &Server, addresses: &[String]) {
    for (at, chunk) in addresses.chunks(1000).enumerate() {
        let line = |(n, address): (usize, &String)| json!({ "user": format!("u{}", at * 1000 + n), "email": address });
        let lines: Vec<Value> = chunk.iter().enumerate().map(line).collect();
        server.operate(Ask::post("/v1/users").ndjson(&lines)).expect(200);
    }
}

/// The deliveries of a notification to few, which says `finished` when each of them is settled, and at no other time.
fn deliveries(server: &Server, notification: &str) -> Vec<Value> {
    let answer = server.operate(Ask::get(&format!("/v1/deliveries?notification={notification}"))).expect(200).json();
    let all = answer["deliveries"].as_array().expect("a list").clone();
    let settled = all.iter().all(|delivery| delivery["settled_at"].is_string());
    assert_eq!(answer["summary"]["finished"], json!(settled), "{answer}");
    all
}

/// Whether this run draws what it does.
fn is_full() -> bool {
    number("TIDINGS_T11_MAILS").is_some_and(|mails| mails != MAILS as u64)
}

fn seed() -> u64 {
    let drawn = || if is_full() { u64::try_from(token::now()).unwrap_or(SEED) } else { SEED };
    number("TIDINGS_T11_SEED").unwrap_or_else(drawn)
}

#[test]
fn every_address_is_written_to_though_the_server_is_killed_again_and_again() {
    let mails = number("TIDINGS_T11_MAILS").map_or(MAILS, |mails| mails as usize);
    let (kills, seed) = (if is_full() { FULL_KILLS } else { KILLS }, seed());
    let relay = Relay::open();
    let mut server = server_with(&relay);
    introduce(&server, &(0..mails).map(address).collect::<Vec<_>>());
    let credential = server.key(&["publish"]);
    let (place, tally) = (Whereabouts::new(server.place()), Tally::default());
    // A kill falls where so many mails have arrived, so that each of them falls into the middle of the sending.
    let mut dice = Dice::new(seed);
    let mut moments: Vec<usize> = (0..kills).map(|_| dice.below(mails as u64 * 9 / 10) as usize).collect();
    moments.sort_unstable();
    let published: Vec<String> = std::thread::scope(|scope| {
        let publishing: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (place, tally, credential) = (&place, &tally, &credential);
                scope.spawn(move || -> Vec<String> {
                    let own = (publisher..mails).step_by(PUBLISHERS);
                    own.map(|n| {
                        let body = json!({ "to": { "user": format!("u{n}") }, "title": format!("mail {n}"), "via": ["email"] });
                        let answer = publish(place, credential, &format!("mail-{n}"), &body, tally).json();
                        answer["id"].as_str().expect("an id").to_owned()
                    })
                    .collect()
                })
            })
            .collect();
        for moment in &moments {
            wait_for("mails to arrive", || (relay.taken() >= *moment).then_some(()));
            server.kill();
            server.restart();
            place.moved(server.place());
        }
        publishing.into_iter().flat_map(|publisher| publisher.join().expect("it published")).collect()
    });
    assert_eq!(published.len(), mails);
    for notification in &published {
        let all = wait_for("a delivery to be sent", || {
            let all = deliveries(&server, notification);
            all.iter().all(|delivery| delivery["state"] == "sent").then_some(all)
        });
        assert_eq!(all.len(), 1, "one address, one delivery: {all:?}");
    }
    // What the relay has said is read a moment after it was said.
    wait_for("every mail to be read", || (relay.taken() >= mails).then_some(()));
    let doubled = hold_against_the_relay(&relay, mails);
    println!("seed {seed}: {mails} mails, {kills} kills after {moments:?} mails, {doubled} sent twice, {tally:?}");
    assert!(doubled <= WORKERS * kills, "{doubled} mails were sent twice over {kills} kills");
}

/// Every address has its mail; how many mails came again, each of which is the same.
fn hold_against_the_relay(relay: &Relay, mails: usize) -> usize {
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut doubled = 0;
    for mail in relay.mails() {
        let to = mail["recipients"][0].as_str().expect("a recipient").to_owned();
        let id = header(&mail, "message-id").expect("every mail has one");
        let subject = header(&mail, "subject").expect("every mail has one");
        assert_eq!(Some(subject.as_str()), to.split('@').next().map(|user| user.replace('u', "mail ")).as_deref());
        if let Some(before) = ids.insert(to.clone(), id.clone()) {
            assert_eq!(before, id, "{to} got the same mail again");
            doubled += 1;
        }
    }
    assert_eq!(ids.len(), mails, "every address is written to");
    let mut distinct: Vec<&String> = ids.values().collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), mails, "no two mails have the same Message-ID");
    doubled
}

/// A crowd that publishes go to, one in [`PER_READER`] of whom has an address.
struct Crowd {
    relay: Relay,
    server: Server,
    people: usize,
    dice: Dice,
}

/// What the server says of a publish to a crowd.
#[derive(Clone, Copy, Debug)]
struct Stand {
    /// Deliveries that were made.
    made: usize,
    is_finished: bool,
}

impl Crowd {
    fn gather(seed: u64) -> Self {
        let relay = Relay::open();
        let server = server_with(&relay);
        let people = if is_full() { FULL_PEOPLE } else { PEOPLE };
        let person = |n: usize| match n {
            0 => json!({ "user": "c0", "email": "rcpt-550-5.1.1@example.com" }),
            n if n.is_multiple_of(PER_READER) => {
                json!({ "user": format!("c{n}"), "email": format!("c{n}@example.com") })
            }
            n => json!({ "user": format!("c{n}") }),
        };
        let lines: Vec<Value> = (0..people).map(person).collect();
        for chunk in lines.chunks(1000) {
            server.operate(Ask::post("/v1/users").ndjson(chunk)).expect(200);
            let follow: Vec<Value> = chunk.iter().map(|person| json!({ "user": person["user"] })).collect();
            server.operate(Ask::post("/v1/topics/crowd/followers").ndjson(&follow)).expect(200);
        }
        Self { relay, server, people, dice: Dice::new(seed) }
    }

    /// Those whose mail arrives.
    fn readers(&self) -> usize {
        self.people.div_ceil(PER_READER) - 1
    }

    /// A look at a publish, which holds what it says against how many deliveries there are to be.
    fn look(&self, notification: &str) -> Stand {
        let target = format!("/v1/deliveries?notification={notification}&limit=1");
        let told = self.server.operate(Ask::get(&target)).expect(200).json()["summary"].clone();
        let count = |states: &[&str]| -> usize {
            let counts = states.iter().map(|state| told[*state].as_u64().expect("a number"));
            usize::try_from(counts.sum::<u64>()).expect("few")
        };
        let settled = count(&["sent", "dead", "cancelled", "skipped"]);
        let made = settled + count(&["pending", "leased"]);
        assert!(made <= self.people, "nobody has two: {told}");
        let is_finished = settled == self.people;
        assert_eq!(told["finished"], json!(is_finished), "of {} people: {told}", self.people);
        assert_eq!(told["expanding"], json!(made < self.people), "of {} people: {told}", self.people);
        Stand { made, is_finished }
    }

    /// Kills it; whether deliveries were still to be made then, as what it leaves behind says.
    fn kill(&mut self) -> bool {
        self.server.kill();
        let file = self.server.data().join("tidings.db");
        let log = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the log opens");
        let left: u64 = log.query_row("SELECT count(*) FROM expansions", [], |row| row.get(0)).expect("SQLite counts");
        drop(log);
        left > 0
    }

    /// The readers whom this mail has reached, and how many of it there were.
    fn reached(&self, subject: &str) -> (HashMap<String, String>, usize) {
        let (mut reached, mut mails) = (HashMap::new(), 0);
        for mail in self.relay.mails() {
            if header(&mail, "subject").as_deref() != Some(subject) {
                continue;
            }
            mails += 1;
            let to = mail["recipients"][0].as_str().expect("a recipient").to_owned();
            let id = header(&mail, "message-id").expect("every mail has one");
            let before = reached.insert(to.clone(), id.clone());
            assert!(before.as_ref().is_none_or(|before| *before == id), "{to} got another mail again: {before:?}");
        }
        (reached, mails)
    }

    /// One publish over two kills; whether the first fell while its deliveries were made.
    fn round(&mut self, to: &Value, subject: &str) -> bool {
        let (readers, before) = (self.readers(), self.relay.taken());
        let body = json!({ "to": to, "title": subject, "via": ["email"] });
        let made = self.server.publish(&body);
        let id = made["id"].as_str().expect("an id").to_owned();
        let share = 1 + self.dice.below(self.people as u64 / 2) as usize;
        wait_for("deliveries to be made", || (self.look(&id).made >= share).then_some(()));
        let is_cut_short = self.kill();
        self.server.restart();
        let share = readers / 4 + self.dice.below(readers as u64 / 2) as usize;
        wait_for("mails to arrive", || {
            self.look(&id);
            (self.relay.taken() >= before + share).then_some(())
        });
        self.kill();
        self.server.restart();
        wait_for("all to be finished", || self.look(&id).is_finished.then_some(()));
        // Nothing that arrives from here on was sent after it was told.
        self.server.kill();
        let (reached, mails) = wait_for("every mail to be read", || {
            let (reached, mails) = self.reached(subject);
            (reached.len() >= readers).then_some((reached, mails))
        });
        assert_eq!(reached.len(), readers, "those who have an address, and nobody else");
        let ids: HashSet<&String> = reached.values().collect();
        assert_eq!(ids.len(), readers, "no two mails have the same Message-ID");
        let doubled = mails - readers;
        assert!(doubled <= 2 * WORKERS, "{doubled} mails were sent twice over 2 kills");
        self.server.restart();
        assert!(self.look(&id).is_finished, "it stays so");
        println!("{subject}: {} people, {readers} mails, {doubled} sent twice, cut short: {is_cut_short}", self.people);
        is_cut_short
    }
}

#[test]
fn a_publish_to_many_is_finished_when_each_is_served_and_never_before_whoever_is_killed() {
    let seed = seed();
    let mut crowd = Crowd::gather(seed);
    let names: Vec<String> = (0..crowd.people).map(|n| format!("c{n}")).collect();
    println!("seed {seed}");
    for (kind, to) in [("named", json!({ "users": names })), ("followers", json!({ "topic": "crowd" }))] {
        // On a machine that stands still for a moment a kill may come when all are made: that round counts, and there is another.
        let mut rounds = (1..=MAX_ROUNDS).map(|round| crowd.round(&to, &format!("To the {kind}, {round}")));
        assert!(rounds.any(|is_cut_short| is_cut_short), "none of {MAX_ROUNDS} kills fell while deliveries were made");
    }
}

#[test]
fn what_the_relay_refuses_for_good_is_dead_with_its_reason_and_the_rest_waits() {
    let relay = Relay::open();
    let server = server_with(&relay);
    let addresses = ["rcpt-550-5.1.1@example.com", "rcpt-451-4.7.1@example.com", "u2@example.com"];
    introduce(&server, &addresses.map(str::to_owned));
    let to = json!({ "users": ["u0", "u1", "u2"] });
    let made = server.publish(&json!({ "to": to, "title": "hello", "via": ["email"] }));
    let id = made["id"].as_str().expect("an id");
    let of = |user: &str| {
        wait_for("an attempt", || {
            let found = deliveries(&server, id).into_iter().find(|delivery| delivery["user"] == user);
            found.filter(|delivery| delivery["attempts"].as_u64() >= Some(1) && delivery["state"] != "leased")
        })
    };
    let dead = of("u0");
    assert_eq!(dead["state"], "dead");
    assert!(dead["reason"].as_str().is_some_and(|reason| reason.contains("550 5.1.1")), "{dead}");
    let waiting = of("u1");
    assert_eq!(waiting["state"], "pending");
    assert!(waiting["next_at"].is_string(), "{waiting}");
    assert_eq!(of("u2")["state"], "sent");
    let mail = relay.mail_to("u2@example.com");
    assert_eq!(header(&mail, "subject").as_deref(), Some("hello"));
}
