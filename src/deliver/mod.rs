//! Carrying on: what the outbox holds goes to those who are not there, by mail and by DingTalk.
//!
//! An [`Adapter`] carries one medium. It is handed parcels of one lane (what one destination takes one after another) and
//! says of each what became of it; when a parcel is tried again, and when nobody tries any more, is the outbox's to decide.
//! **Invariant**: an adapter says [`Outcome::Sent`] only after the other side has said so. **Invariant**: it says
//! [`Outcome::Held`] only of what no parcel can be at fault for, since one that was would hold up all others. **Invariant**: one
//! that hands over several messages in a call notes each ([`Progress`]) before it begins the next.
//!
//! Deliberately not here: who is reached by what (`broker`), and the rows (`store`).
//!
//! Rank 4: imports the broker, never the store.

pub mod dingtalk;
pub mod email;
mod hold;
mod post;
mod progress;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use self::progress::{Onward, Progress};
pub use self::worker::Workers;
pub use crate::broker::MAX_ANSWER_CHARS;

use crate::broker::Broker;
use crate::lifecycle::Lifecycle;
pub use crate::model::Outcome;
use crate::model::{Medium, Parcel};

/// Carries one medium.
pub trait Adapter: Send + Sync + 'static {
    fn medium(&self) -> Medium;

    /// Parcels of a lane that [`Adapter::send`] is handed together at most: what it can carry in one call now, so that no others are
    /// leased only to be put back.
    fn most_together(&self, lane: &str) -> usize;

    /// Calls of [`Adapter::send`] for one lane that are on their way at once, at most.
    fn at_once(&self) -> usize;

    /// What is held together when it is wrong.
    fn set_up(&self) -> SetUp;

    /// How long a lane must be left alone, by the rate that its destination allows; zero is not at all.
    fn pause(&self, lane: &str) -> Duration;

    /// Carries parcels of one lane: one outcome for each, in their order, those included that it has noted in `progress`. It
    /// comes back within a named time, whatever the other side does, and begins nothing more once `progress` says
    /// [`Onward::Stop`].
    fn send<'a>(&'a self, lane: &'a str, parcels: Vec<Parcel>, progress: &'a Progress) -> BoxFuture<'a, Vec<Outcome>>;
}

/// What a fault of the set-up concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetUp {
    /// All lanes have one together.
    OfMedium,
    /// Each lane has its own.
    OfLane,
}

/// How media are carried; `None` where one is not set up. What carries DingTalk is made by `server::robots`, which reads the
/// robots' files.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub workers: Workers,
    /// Boxed, since settings are handed on by value through much that sends no mail.
    pub email: Option<Box<email::Config>>,
}

/// What a mail takes at most besides waiting for a line and being sent.
const SLACK: Duration = Duration::from_secs(10);

impl Config {
    /// How long an adapter may take: what the workers say, or what the settings give a mail where that is longer.
    pub fn patience(&self) -> Duration {
        // Waiting for a line may take as long as being sent.
        let mail = self.email.as_ref().map_or(Duration::ZERO, |mail| mail.timeout * 2 + SLACK);
        self.workers.patience.max(mail)
    }
}

/// What another side said, as it is kept: one line without control characters, of at most [`MAX_ANSWER_CHARS`].
fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_ANSWER_CHARS).collect::<String>().trim().to_owned()
}

/// Begins to carry what the outbox holds, until the drain; at most one adapter for a medium. Without adapters nothing is
/// carried, and what waits is told of.
pub fn start(broker: Broker, adapters: Vec<Arc<dyn Adapter>>, workers: Workers, lifecycle: &Lifecycle) {
    lifecycle.spawn_edge(worker::run(broker, adapters, workers, lifecycle.clone()));
}
