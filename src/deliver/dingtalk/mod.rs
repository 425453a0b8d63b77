//! DingTalk, by the custom robots of groups: what is for somebody is written into the robot's group and names them.
//!
//! Parcels of a lane (a robot) are planned into messages ([`plan`]), each of which is made to fit ([`message`]), signed
//! ([`signature`]), posted, and its answer read ([`answer`]). A robot says so many messages a minute ([`pace`]), and rests after
//! one that was not taken. All of this is in memory: after a restart the first minute may bring a "too fast", which costs a
//! rest and no message.
//!
//! **Invariants**: each parcel gets exactly one outcome; what was in no message was not tried, nor what was in a digest that was not
//! taken. A robot never says more in any minute than its settings admit. It sends one message after another, each of which begins
//! when what became of the one before is stored and no drain has begun; [`Adapter::send`] is back within [`BEGIN_WITHIN`], one
//! answer's patience and one note. No address, token or secret is ever logged or told.
//!
//! Deliberately not here: which robot speaks of what (`model::Robots`), where addresses and secrets are read (`server`),
//! and when a parcel is tried again (the outbox).

mod answer;
mod message;
mod pace;
mod plan;
mod signature;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

pub use self::message::MAX_BYTES;
pub use self::pace::WINDOW;
pub use self::signature::{MAX_SKEW_MS, Secret};
pub use super::post::{Address, AddressFault};

use self::answer::{BUSY_REST, Verdict};
use self::pace::Window;
use self::plan::{Kind, Plan, Planned, plan};
use super::post::Poster;
use super::{Adapter, Onward, Outcome, Progress, SetUp};
use crate::clock::Clock;
use crate::model::{DeliveryId, Medium, Parcel, RobotName};

/// Parcels that are handed over together at most: more than a minute has room for by themselves, so that digests are full.
pub const MOST_TOGETHER: usize = 500;
/// How long one message may take, from connecting to the last byte of the answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// No message of one call begins later than this; what is left has its turn in the next.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(30);
/// Deliveries at most of which is remembered that their digest was refused.
const MAX_ALONE: usize = 10_000;
/// Parcels that are handed over for each message that the robot may still send, at most: a digest of subjects with a link is
/// full with about as many.
const MOST_A_MESSAGE: usize = 100;
/// Messages a minute that DingTalk takes from a robot.
pub const PER_MINUTE: usize = 20;

/// A robot as settings name it, its secrets still in their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RobotFiles {
    pub name: RobotName,
    /// Holds the robot's address, with its token.
    pub url_file: PathBuf,
    /// Holds the secret of its signature, where it has one.
    pub secret_file: Option<PathBuf>,
    /// Messages a minute at most.
    pub per_minute: usize,
}

/// All robots as settings name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub robots: Vec<RobotFiles>,
    /// How long a robot rests that was told that it speaks too fast.
    pub too_fast_rest: Duration,
    /// Certificates that are trusted besides those of this machine.
    pub ca_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { robots: Vec::new(), too_fast_rest: Duration::from_secs(600), ca_file: None }
    }
}

/// A robot that can speak.
#[derive(Clone, Debug)]
pub struct Robot {
    pub name: RobotName,
    pub address: Address,
    pub secret: Option<Secret>,
    /// Messages a minute at most.
    pub per_minute: usize,
}

impl Robot {
    fn token(&self) -> &str {
        self.address.parameter("access_token").unwrap_or_default()
    }
}

/// Carries parcels to DingTalk.
pub struct DingTalk {
    lanes: HashMap<String, Lane>,
    poster: Poster,
    too_fast_rest: Duration,
    clock: Clock,
}

struct Lane {
    robot: Robot,
    /// Held while messages are sent: one robot, one voice.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    window: Window,
    rests_until: Option<Instant>,
    /// What was in a digest that was refused for what it said: the one that was meant is found by sending each alone.
    alone: BTreeSet<DeliveryId>,
    /// Parcels that a message held lately, where more waited than digests had room for; up to [`MOST_A_MESSAGE`].
    a_message: usize,
}

impl State {
    fn pause(&mut self, now: Instant) -> Duration {
        let rest = self.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        rest.max(self.window.wait(now))
    }

    /// Parcels that the messages which may begin now can carry; one at least, so that a lane is never without.
    fn room(&mut self, now: Instant) -> usize {
        (self.window.free(now) * self.a_message).clamp(1, MOST_TOGETHER)
    }

    /// Learns how much a digest holds: what is leased for one and does not fit is written twice for nothing.
    fn learn(&mut self, plan: &Plan) {
        let digests = plan.messages.iter().filter(|planned| planned.kind == Kind::Digest);
        let (count, carried) = digests.fold((0, 0), |(n, sum), digest| (n + 1, sum + digest.carries.len()));
        if count > 0 && !plan.waiting.is_empty() {
            self.a_message = (carried / count).clamp(1, MOST_A_MESSAGE);
        } else {
            self.a_message = (self.a_message * 2).min(MOST_A_MESSAGE);
        }
    }

    /// Lets these go by themselves from now on.
    fn keep_alone(&mut self, deliveries: &[DeliveryId]) {
        // What is forgotten is found again by another digest. These must be remembered, or they would be put into the same one
        // for ever.
        if self.alone.len() + deliveries.len() > MAX_ALONE {
            self.alone.clear();
        }
        self.alone.extend(deliveries.iter().copied());
    }

    /// These do not come again.
    fn settle(&mut self, deliveries: &[DeliveryId]) {
        for delivery in deliveries {
            self.alone.remove(delivery);
        }
    }
}

/// What follows of a message.
enum Follows {
    /// This became of what it carried; the next may begin.
    Next(Outcome),
    /// This became of what it carried, where it was a try; all others wait so long.
    Rest { carried: Option<Outcome>, why: String, rest: Duration },
    /// Nothing would have passed.
    Held { why: String, remedy: &'static str },
}

impl DingTalk {
    /// Robots that speak from now on. `trusted` is what TLS begins with, `clock` dates the signatures.
    pub fn new(robots: Vec<Robot>, too_fast_rest: Duration, trusted: Arc<ClientConfig>, clock: Clock) -> Self {
        let lane = |robot: Robot| {
            let window = Window::new(robot.per_minute);
            let state =
                Mutex::new(State { window, rests_until: None, alone: BTreeSet::new(), a_message: MOST_A_MESSAGE });
            (robot.name.to_string(), Lane { robot, turn: tokio::sync::Mutex::default(), state })
        };
        let poster = Poster { trusted, patience: PATIENCE };
        Self { lanes: robots.into_iter().map(lane).collect(), poster, too_fast_rest, clock }
    }

    /// The same with another patience for one message.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.poster.patience = patience;
        self
    }

    async fn carry(&self, lane: &Lane, parcels: &[Parcel], progress: &Progress) -> Vec<Outcome> {
        let _turn = lane.turn.lock().await;
        let begun = Instant::now();
        let mut outcomes = Outcomes::of(parcels.len());
        let planned = {
            let mut state = lane.state.lock();
            let pause = state.pause(begun);
            if !pause.is_zero() {
                return outcomes.put_back("the robot has said all that it may in this minute, or rests", pause);
            }
            let slots = state.window.free(begun);
            let planned = plan(parcels, slots, &state.alone);
            state.learn(&planned);
            planned
        };
        for Planned { message, kind, carries } in planned.messages {
            if begun.elapsed() > BEGIN_WITHIN || progress.onward() == Onward::Stop {
                break;
            }
            lane.state.lock().window.begin(Instant::now());
            let verdict = self.say(&lane.robot, &message).await;
            let carried: Vec<DeliveryId> = carries.iter().map(|place| parcels[*place].delivery).collect();
            match self.follow(lane, verdict, kind, &carried) {
                Follows::Next(outcome) => {
                    outcomes.set(&carries, &outcome);
                    // Before the next one begins, so that an end of the process doubles the one that is on its way at most.
                    if progress.note(&carries, &outcome).await == Onward::Stop {
                        break;
                    }
                }
                Follows::Rest { carried, why, rest } => {
                    if let Some(outcome) = carried {
                        outcomes.set(&carries, &outcome);
                    }
                    return outcomes.put_back(&why, rest);
                }
                Follows::Held { why, remedy } => return outcomes.held(&why, remedy),
            }
        }
        let pause = lane.state.lock().pause(Instant::now());
        outcomes.put_back("its turn has not come yet", pause)
    }

    /// What follows of a message that is over, for what it carried and for the robot.
    fn follow(&self, lane: &Lane, verdict: Verdict, kind: Kind, carried: &[DeliveryId]) -> Follows {
        let (robot, over) = (&lane.robot.name, Instant::now());
        let mut state = lane.state.lock();
        state.window.end(over);
        match verdict {
            Verdict::Sent { answer } => {
                state.settle(carried);
                Follows::Next(Outcome::Sent { answer })
            }
            // Of which of them that was is not said, so none of them was tried.
            Verdict::Refused { reason } if kind == Kind::Digest => {
                state.keep_alone(carried);
                Follows::Next(Outcome::NotTried { why: taken_apart(robot, &reason), after: Duration::ZERO })
            }
            // Nor whether it is about them at all: the next digest waits, or all of them would be taken apart for a moment's trouble.
            Verdict::Unknown { reason } if kind == Kind::Digest => {
                state.keep_alone(carried);
                state.rests_until = Some(over + BUSY_REST);
                Follows::Rest { carried: None, why: taken_apart(robot, &reason), rest: BUSY_REST }
            }
            Verdict::Refused { reason } => {
                state.settle(carried);
                Follows::Next(Outcome::Never { reason })
            }
            Verdict::Unknown { reason } => {
                tracing::warn!(%robot, "DingTalk does not take a message, for a reason that is not known here: {reason}");
                // Nor does it get into anybody's digest.
                state.keep_alone(carried);
                Follows::Next(Outcome::Later { reason, after: None })
            }
            Verdict::TooFast { reason } => {
                let rest = self.too_fast_rest;
                state.rests_until = Some(over + rest);
                tracing::warn!(%robot, "DingTalk says that this robot speaks too often; it rests: {reason}");
                Follows::Rest { carried: None, why: reason, rest }
            }
            Verdict::Later { reason, asked } => {
                let rest = asked.unwrap_or(BUSY_REST);
                state.rests_until = Some(over + rest);
                tracing::warn!(%robot, "DingTalk does not take a message now: {reason}");
                let why = format!("the robot rests: {reason}");
                Follows::Rest { carried: Some(Outcome::Later { reason, after: asked }), why, rest }
            }
            Verdict::Fault { reason, remedy } => Follows::Held { why: reason, remedy },
        }
    }

    async fn say(&self, robot: &Robot, message: &message::Message) -> Verdict {
        let signed = robot.secret.as_ref().map(|secret| secret.query(self.clock.now().as_millis()));
        let address = robot.address.with(signed.as_deref().unwrap_or_default());
        let reply = self.poster.post(&address, message.to_json()).await;
        answer::read(reply, robot.token())
    }
}

/// Tells that a digest was not taken; why what it carried was not tried.
fn taken_apart(robot: &RobotName, reason: &str) -> String {
    tracing::warn!(%robot, "DingTalk does not take a digest; each of it goes by itself now: {reason}");
    format!("{reason} (a digest; each goes by itself now)")
}

/// What became of each parcel, as far as it is known.
struct Outcomes(Vec<Option<Outcome>>);

impl Outcomes {
    fn of(parcels: usize) -> Self {
        Self(vec![None; parcels])
    }

    fn set(&mut self, places: &[usize], outcome: &Outcome) {
        for place in places {
            self.0[*place] = Some(outcome.clone());
        }
    }

    /// All others were not tried, for this reason.
    fn put_back(self, why: &str, after: Duration) -> Vec<Outcome> {
        self.others(|| Outcome::NotTried { why: why.to_owned(), after })
    }

    /// No other would have passed, for this reason.
    fn held(self, why: &str, remedy: &'static str) -> Vec<Outcome> {
        self.others(|| Outcome::Held { why: why.to_owned(), remedy })
    }

    fn others(self, other: impl Fn() -> Outcome) -> Vec<Outcome> {
        self.0.into_iter().map(|outcome| outcome.unwrap_or_else(&other)).collect()
    }
}

/// The same cases in each run, so that a red one is the commit's fault; where `PROPTEST_RNG_SEED` is set, those of that seed, as many
/// as `PROPTEST_CASES` says.
#[cfg(test)]
fn same_cases() -> proptest::prelude::ProptestConfig {
    use proptest::prelude::ProptestConfig;
    use proptest::test_runner::RngSeed;

    const CASES: u32 = 64;
    let asked = ProptestConfig::default();
    match asked.rng_seed {
        RngSeed::Fixed(_) => asked,
        RngSeed::Random => {
            ProptestConfig { rng_seed: RngSeed::Fixed(1), cases: CASES, failure_persistence: None, ..asked }
        }
    }
}

impl Adapter for DingTalk {
    fn medium(&self) -> Medium {
        Medium::DingTalk
    }

    fn most_together(&self, lane: &str) -> usize {
        self.lanes.get(lane).map_or(MOST_TOGETHER, |lane| lane.state.lock().room(Instant::now()))
    }

    fn at_once(&self) -> usize {
        1
    }

    fn set_up(&self) -> SetUp {
        SetUp::OfLane
    }

    fn pause(&self, lane: &str) -> Duration {
        self.lanes.get(lane).map_or(Duration::ZERO, |lane| lane.state.lock().pause(Instant::now()))
    }

    fn send<'a>(&'a self, lane: &'a str, parcels: Vec<Parcel>, progress: &'a Progress) -> BoxFuture<'a, Vec<Outcome>> {
        async move {
            match self.lanes.get(lane) {
                Some(lane) => self.carry(lane, &parcels, progress).await,
                // Such lanes are given up at start; what waits in one all the same has nobody who would say it.
                None => {
                    let reason = format!("there is no [dingtalk.robots.{lane}] in the settings any more");
                    vec![Outcome::Never { reason }; parcels.len()]
                }
            }
        }
        .boxed()
    }
}
