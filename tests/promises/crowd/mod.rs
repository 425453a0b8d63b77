//! A crowd: clients by the hundred that are cut at random and go on from their cursors, under a steady load, and what each
//! of them has seen held against what was acknowledged.

pub mod line;
pub mod pages;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at};

use self::line::{Asker, Line, TRANSPORTS};
use crate::support::Dice;
use crate::support::http::{Ask, Place};
use crate::support::server::Server;
use crate::support::sse::Event;
use crate::support::token;

/// How long the last client may take to have everything, once nobody is cut any more: libraries wait up to half a minute
/// between two tries.
pub const SETTLE: Duration = Duration::from_secs(90);
/// Publishes are sent in batches, so often.
const TICK: Duration = Duration::from_millis(20);

/// A number that a variable of the environment may override.
pub fn setting(name: &str, quick: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(quick, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

pub fn address(server: &Server) -> SocketAddr {
    match server.place() {
        Place::Tcp(address) => *address,
        Place::Unix(path) => panic!("{} is no address", path.display()),
    }
}

/// A runtime for a crowd: two threads, as many as the machine of reference has cores.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// What one person has seen, as an eye sees it: what stands at or before the last seen is not looked at again.
#[derive(Clone, Debug, Default)]
pub struct Eye {
    /// The position of the last durable event.
    pub last: u64,
    pub epoch: String,
    /// The positions of the notifications, in the order in which they came to the eye.
    pub seen: Vec<u64>,
    /// Events that came again over the wire, though each line goes on from the last: there must be none.
    pub again: u64,
    /// Streams that could not go on from the cursor.
    pub resets: u64,
}

impl Eye {
    pub fn look(&mut self, event: &Event) {
        let Some((epoch, seq)) = event.id.as_deref().and_then(|id| id.split_once('.')) else { return };
        let Ok(seq) = seq.parse() else { return };
        epoch.clone_into(&mut self.epoch);
        if event.kind == "hello" {
            self.resets += u64::from(event.data["recovered"] != true);
            self.last = seq;
        } else if seq <= self.last {
            self.again += 1;
        } else {
            self.last = seq;
            if event.kind == "notification" {
                self.seen.push(seq);
            }
        }
    }

    pub fn cursor(&self) -> String {
        if self.epoch.is_empty() { "start".to_owned() } else { format!("{}.{}", self.epoch, self.last) }
    }
}

/// How what was seen differs from what was to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Acknowledged, and never seen.
    pub gaps: usize,
    /// Seen twice.
    pub doubles: usize,
    /// Seen behind a later one.
    pub disorder: usize,
}

impl Faults {
    /// `due` ascends.
    pub fn of(due: &[u64], seen: &[u64]) -> Self {
        let mut sorted = seen.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        Self {
            gaps: due.iter().filter(|seq| sorted.binary_search(seq).is_err()).count(),
            doubles: seen.len() - sorted.len(),
            disorder: seen.windows(2).filter(|pair| pair[1] < pair[0]).count(),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.gaps += other.gaps;
        self.doubles += other.doubles;
        self.disorder += other.disorder;
    }
}

/// What a crowd does.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: usize,
    /// Publishes a second, each to 1 to 5 of them.
    pub rate: u64,
    pub span: Duration,
    /// How long a connection lives before it is cut, in milliseconds.
    pub lives: Range<u64>,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub published: usize,
    pub delivered: usize,
    pub cuts: u64,
    pub resets: u64,
    pub rotations: u64,
    pub faults: Faults,
    /// Positions that were acknowledged, by user.
    pub due: HashMap<usize, Vec<u64>>,
    /// How long the last of them took to have everything, once nobody was cut any more.
    pub settled: Duration,
}

pub fn user(number: usize) -> String {
    format!("u{number}")
}

/// A user's token, good for two days: longer than any run.
pub fn long_token(server: &Server, user: &str) -> String {
    server.token_for(&json!({ "sub": user, "exp": token::now() + 2 * 86_400 }))
}

#[derive(Default)]
struct Counters {
    cuts: AtomicU64,
    rotations: AtomicU64,
}

/// Runs a crowd against a server; `minute` is called once a minute with what has passed.
pub async fn run(server: &Server, plan: &Plan, extra: usize, mut minute: impl FnMut(Duration)) -> Outcome {
    let address = address(server);
    let counters = Arc::new(Counters::default());
    // What each has to see, told when nobody publishes any more.
    let (finish, finished) = watch::channel(None::<Arc<HashMap<usize, Vec<u64>>>>);
    let members: Vec<_> = (0..plan.clients)
        .map(|number| {
            let member = Member {
                address,
                number,
                token: long_token(server, &user(number)),
                lives: plan.lives.clone(),
                dice: Dice::new(plan.seed ^ ((number as u64 + 1) << 20)),
                finished: finished.clone(),
                counters: counters.clone(),
            };
            tokio::spawn(member.live())
        })
        .collect();
    let credential = server.key(&["publish"]);
    let began = Instant::now();
    let publishing = publish(address, credential, plan, plan.clients + extra);
    tokio::pin!(publishing);
    let mut told = 0;
    let due = loop {
        match timeout(Duration::from_secs(1), &mut publishing).await {
            Ok(due) => break due,
            Err(_) => {
                let minutes = began.elapsed().as_secs() / 60;
                if minutes > told {
                    told = minutes;
                    minute(began.elapsed());
                }
            }
        }
    };
    let due = Arc::new(due);
    let stopped = Instant::now();
    finish.send_replace(Some(due.clone()));
    let mut outcome = Outcome::default();
    for (number, member) in members.into_iter().enumerate() {
        let eye = timeout_at((stopped + SETTLE).into(), member).await;
        let eye =
            eye.unwrap_or_else(|_| panic!("{} has not seen everything", user(number))).expect("a client panicked");
        let due = due.get(&number).map(Vec::as_slice).unwrap_or_default();
        let faults = Faults::of(due, &eye.seen);
        assert_eq!(
            faults,
            Faults::default(),
            "{}: due {due:?}, seen {:?} (seed {})",
            user(number),
            eye.seen,
            plan.seed
        );
        assert_eq!(eye.again, 0, "{}: events came again on one line (seed {})", user(number), plan.seed);
        outcome.faults.add(faults);
        outcome.delivered += eye.seen.len();
        outcome.resets += eye.resets;
    }
    outcome.settled = stopped.elapsed();
    outcome.published = due.values().flatten().collect::<std::collections::HashSet<_>>().len();
    outcome.cuts = counters.cuts.load(Ordering::Relaxed);
    outcome.rotations = counters.rotations.load(Ordering::Relaxed);
    outcome.due = Arc::try_unwrap(due).unwrap_or_else(|due| (*due).clone());
    outcome
}

/// Publishes at a steady rate, each to 1 to 5 users; the positions by user.
async fn publish(address: SocketAddr, credential: String, plan: &Plan, users: usize) -> HashMap<usize, Vec<u64>> {
    let mut dice = Dice::new(plan.seed);
    let mut asker = Asker::connect(address).await.expect("the server accepts");
    let mut due: HashMap<usize, Vec<u64>> = HashMap::new();
    let (began, mut sent) = (Instant::now(), 0u64);
    while began.elapsed() < plan.span {
        let wanted = (began.elapsed().as_secs_f64() * plan.rate as f64) as u64;
        if wanted == sent {
            sleep(TICK).await;
            continue;
        }
        let audiences: Vec<Vec<usize>> = (sent..wanted.min(sent + 200))
            .map(|_| {
                let mut audience: Vec<usize> = (0..=dice.below(5)).map(|_| dice.below(users as u64) as usize).collect();
                audience.sort_unstable();
                audience.dedup();
                audience
            })
            .collect();
        let lines: Vec<Value> = audiences
            .iter()
            .enumerate()
            .map(|(i, audience)| {
                let names: Vec<String> = audience.iter().map(|number| user(*number)).collect();
                json!({ "to": { "users": names }, "title": format!("n{}", sent + i as u64) })
            })
            .collect();
        let ask = Ask::post("/v1/notifications").bearer(&credential).ndjson(&lines);
        let (status, body) = asker.ask(&ask).await.expect("the server answers");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answers: Vec<Value> =
            serde_json::Deserializer::from_slice(&body).into_iter().map(|line| line.expect("JSON")).collect();
        assert_eq!(answers.len(), audiences.len());
        for (answer, audience) in answers.iter().zip(&audiences) {
            let seq = answer["seq"].as_u64().unwrap_or_else(|| panic!("{answer}"));
            for number in audience {
                due.entry(*number).or_default().push(seq);
            }
        }
        sent += audiences.len() as u64;
        sleep(TICK).await;
    }
    due
}

/// One client of a crowd.
struct Member {
    address: SocketAddr,
    number: usize,
    token: String,
    lives: Range<u64>,
    dice: Dice,
    finished: watch::Receiver<Option<Arc<HashMap<usize, Vec<u64>>>>>,
    counters: Arc<Counters>,
}

impl Member {
    /// Connects, is cut and comes back by another way, until it has seen what it was to see.
    async fn live(mut self) -> Eye {
        let (mut eye, mut is_reset) = (Eye::default(), false);
        loop {
            let transport = TRANSPORTS[self.dice.below(3) as usize];
            let life = self.lives.start + self.dice.below(self.lives.end - self.lives.start);
            let life = tokio::time::Instant::now() + Duration::from_millis(life);
            let reset = self.dice.below(2) == 0;
            let cursor = eye.cursor();
            let Ok(mut line) = Line::open(self.address, transport, &self.token, &cursor).await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            loop {
                // One future for one event, however often something else is looked at meanwhile.
                let next = line.next();
                tokio::pin!(next);
                let event = loop {
                    let is_cut = self.finished.borrow_and_update().is_none();
                    if self.has_everything(&eye) {
                        return eye;
                    }
                    tokio::select! {
                        event = &mut next => break Some(event),
                        _ = self.finished.changed(), if is_cut => {}
                        () = tokio::time::sleep_until(life), if is_cut => break None,
                    }
                };
                match event {
                    Some(Ok(event)) => {
                        if event.kind == "bye" && event.data["reason"] == "rotate" {
                            self.counters.rotations.fetch_add(1, Ordering::Relaxed);
                        }
                        eye.look(&event);
                    }
                    Some(Err(_)) => break,
                    None => {
                        self.counters.cuts.fetch_add(1, Ordering::Relaxed);
                        is_reset = reset;
                        break;
                    }
                }
            }
            // Some go with a reset, others as they should.
            if std::mem::take(&mut is_reset) {
                let _ = socket2::SockRef::from(&line.socket).set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// Whether all that there ever was to see was seen.
    fn has_everything(&self, eye: &Eye) -> bool {
        let due = self.finished.borrow();
        let last = due.as_ref().map(|due| due.get(&self.number).and_then(|due| due.last()).copied());
        last.is_some_and(|last| eye.seen.last().copied() >= last)
    }
}
