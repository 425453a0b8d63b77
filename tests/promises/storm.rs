//! The storm after a restart (T13): everybody is cut at one moment by `kill -9` and comes back as its `retry` says, while
//! publishes go on. What all of them missed is read once. A few of them are pages with `tidings.js`.
//!
//! The quick form has 400 clients; `TIDINGS_STORM_CLIENTS=5000` is the full one, which judges the times too and is meant
//! for a release build named by `TIDINGS_BIN`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::crowd::line::{Asker, Line, TRANSPORTS, Transport};
use crate::crowd::pages::{Cuts, Due, PAGES, Pages};
use crate::crowd::{Eye, Faults, address, long_token, runtime, setting, user};
use crate::support::http::Ask;
use crate::support::poll::figure;
use crate::support::server::Server;
use crate::support::wait_for;

/// In which all are to be back, and five times that where it is not what is measured.
const STATED: Duration = Duration::from_secs(15);
const LOOSE: Duration = Duration::from_secs(75);
const STATED_P99: Duration = Duration::from_millis(100);
/// Publishes come so often, and one in so many goes to the topic that all follow.
const EVERY: Duration = Duration::from_millis(20);
const ONE_IN: usize = 20;
const TOPIC: &str = "all";
/// Clients that connect at once, before the storm.
const WAVE: usize = 200;

#[test]
fn all_are_back_soon_after_a_kill_and_what_they_missed_is_read_once() {
    let full = setting("TIDINGS_STORM_CLIENTS", 0);
    let clients = if full == 0 { 400 } else { full as usize };
    let mut server = Server::start();
    let credential = server.key(&["publish"]);
    let followers: Vec<Value> = (0..clients + PAGES).map(|number| json!({ "user": user(number) })).collect();
    for some in followers.chunks(1_000) {
        server.operate(Ask::post(&format!("/v1/topics/{TOPIC}/followers")).ndjson(some)).expect(200);
    }
    let tokens: Vec<String> = (0..clients).map(|number| long_token(&server, &user(number))).collect();
    let runtime = runtime();
    let first = runtime.block_on(publish(address(&server), credential.clone(), None));
    let (place, moved) = watch::channel(address(&server));
    let mut pages = runtime.block_on(Pages::open(&server, clients, moved.clone(), Cuts::None));
    let for_pages = |due: &[u64]| -> Due { (clients..clients + PAGES).map(|page| (page, due.to_vec())).collect() };
    let (finish, finished) = watch::channel(0u64);
    let greeted = Arc::new(AtomicUsize::new(0));
    let mut members = Vec::new();
    for (number, token) in tokens.into_iter().enumerate() {
        let member =
            Member { number, token, moved: moved.clone(), finished: finished.clone(), greeted: greeted.clone() };
        members.push(runtime.spawn(member.live()));
        if number % WAVE == WAVE - 1 || number + 1 == clients {
            wait_for("the clients", || (greeted.load(Ordering::Relaxed) > number).then_some(()));
        }
    }
    runtime.block_on(pages.have_seen(&for_pages(&first.seqs)));
    server.kill();
    greeted.store(0, Ordering::Relaxed);
    server.restart();
    let began = Instant::now();
    place.send_replace(address(&server));
    let (stop, stopped) = watch::channel(false);
    let publishing = runtime.spawn(publish(address(&server), credential, Some(stopped)));
    while greeted.load(Ordering::Relaxed) < clients {
        assert!(began.elapsed() < LOOSE, "{greeted:?} of {clients} are back after {LOOSE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let back = began.elapsed();
    stop.send_replace(true);
    let during = runtime.block_on(publishing).expect("the publisher panicked");
    let due: Vec<u64> = first.seqs.into_iter().chain(during.seqs).collect();
    finish.send_replace(*due.last().expect("something was published"));
    let mut faults = Faults::default();
    for (number, member) in members.into_iter().enumerate() {
        let eye = runtime.block_on(async { timeout(LOOSE, member).await });
        let eye =
            eye.unwrap_or_else(|_| panic!("{} has not seen everything", user(number))).expect("a client panicked");
        assert_eq!((eye.resets, eye.again), (0, 0), "{}: every cursor is good, and nothing comes again", user(number));
        faults.add(Faults::of(&due, &eye.seen));
    }
    let seen = runtime.block_on(pages.close(&for_pages(&due)));
    let told = |name: &str| figure(&server, name).unwrap_or_default();
    let from = |place: &str| told(&format!("tidings_replays_total{{from=\"{place}\"}}"));
    let p99 = quantile(&during.took, 0.99);
    println!(
        "{clients} clients back in {back:?}, {PAGES} pages saw {seen}; {} publishes meanwhile, p99 {p99:?}, slowest {:?}; replayed {} from memory, {} from the log; \
         {} told overloaded; {faults:?}",
        during.took.len(),
        during.took.iter().max().expect("some"),
        from("memory"),
        from("log"),
        told("tidings_byes_total{reason=\"overloaded\"}"),
    );
    assert_eq!(faults, Faults::default());
    assert!(from("memory") > from("log"), "what all of them missed is read once");
    if full > 0 {
        assert!(back < STATED && p99 < STATED_P99, "{back:?}, {p99:?}");
    }
}

/// The latency below which this share lies.
pub fn quantile(took: &[Duration], share: f64) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
    sorted[at - 1]
}

#[derive(Default)]
struct Published {
    seqs: Vec<u64>,
    took: Vec<Duration>,
}

/// Publishes one after the other at a steady pace until it is told to stop, once without that: to the topic, and mostly to
/// somebody else, for a publish to thousands takes its time in any case.
async fn publish(address: SocketAddr, credential: String, stopped: Option<watch::Receiver<bool>>) -> Published {
    let mut asker = Asker::connect(address).await.expect("the server accepts");
    let mut published = Published::default();
    for n in 0.. {
        let is_due = n % ONE_IN == 0;
        let to = if is_due { json!({ "topic": TOPIC }) } else { json!("user:somebody") };
        let ask = Ask::post("/v1/notifications").bearer(&credential);
        let ask = ask.json(&json!({ "to": to, "title": "t", "body": "b".repeat(200) }));
        let asked = Instant::now();
        let (status, body) = asker.ask(&ask).await.expect("the server answers");
        published.took.push(asked.elapsed());
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        if is_due {
            published.seqs.push(answer["seq"].as_u64().expect("a seq"));
        }
        if stopped.as_ref().is_none_or(|stopped| *stopped.borrow()) {
            break;
        }
        sleep(EVERY.saturating_sub(asked.elapsed())).await;
    }
    published
}

/// A client that comes back as it is told, as an EventSource does.
struct Member {
    number: usize,
    token: String,
    moved: watch::Receiver<SocketAddr>,
    /// The position at which all is seen; 0 while that is not known.
    finished: watch::Receiver<u64>,
    /// How many have been told where they stand.
    greeted: Arc<AtomicUsize>,
}

impl Member {
    async fn live(mut self) -> Eye {
        let (mut eye, mut retry) = (Eye::default(), Duration::from_secs(2 + (self.number % 5) as u64));
        loop {
            let address = *self.moved.borrow_and_update();
            let transport = TRANSPORTS[self.number % 3];
            if let Ok(mut line) = Line::open(address, transport, &self.token, &eye.cursor()).await {
                loop {
                    let next = line.next();
                    tokio::pin!(next);
                    let event = loop {
                        let due = *self.finished.borrow_and_update();
                        if due > 0 && eye.seen.last() >= Some(&due) {
                            return eye;
                        }
                        tokio::select! {
                            event = &mut next => break event,
                            told = self.finished.changed() => told.expect("the test outlives its clients"),
                        }
                    };
                    let Ok(event) = event else { break };
                    eye.look(&event);
                    self.greeted.fetch_add(usize::from(event.kind == "hello"), Ordering::Relaxed);
                    if transport == Transport::Sse || event.kind == "bye" {
                        retry = event.retry.map_or(retry, |ms| Duration::from_millis(ms.into()));
                    }
                }
            }
            sleep(retry).await;
        }
    }
}
