//! Every mail at least once (T11): mails are published while the server is killed with `kill -9` again and again, and every
//! address is written to; one that is written to twice gets the same mail, and no more of them than were being sent.
//!
//! The quick form sends 300 mails over 4 kills, at moments drawn from a fixed seed; `TIDINGS_T11_MAILS=10000` is the full one, with
//! 10 kills and a random seed unless `TIDINGS_T11_SEED` names one.

use std::collections::HashMap;

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

/// The deliveries of a notification, and how many there are by state.
fn deliveries(server: &Server, notification: &str) -> Vec<Value> {
    let answer = server.operate(Ask::get(&format!("/v1/deliveries?notification={notification}"))).expect(200).json();
    answer["deliveries"].as_array().expect("a list").clone()
}

#[test]
fn every_address_is_written_to_though_the_server_is_killed_again_and_again() {
    let mails = number("TIDINGS_T11_MAILS").map_or(MAILS, |mails| mails as usize);
    let kills = if mails == MAILS { KILLS } else { FULL_KILLS };
    let drawn = || if mails == MAILS { SEED } else { u64::try_from(token::now()).unwrap_or(SEED) };
    let seed = number("TIDINGS_T11_SEED").unwrap_or_else(drawn);
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
