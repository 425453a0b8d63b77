//! The queue as a way in: messages of a RabbitMQ queue become publishes.
//!
//! [`start`] runs a supervisor that keeps one `session` alive. A session takes as many messages as may be on their way at
//! once, publishes each, and settles it by what became of it: committed is acknowledged, what never can be taken goes to the
//! dead letters (`letters`), and what can't be taken now stays on its way and is tried again. `wire::queue` says what a
//! message means.
//!
//! **Invariant**: a message is acknowledged only after its publish is durable, or after RabbitMQ has confirmed that it holds
//! the message among the dead letters. Whatever dies in between, the message comes again, and its id makes that harmless.
//! **Invariant**: what is on its way is bounded by `prefetch` messages of `max_message` bytes. RabbitMQ has no bound in bytes,
//! and lapin puts a message together before we see it; where larger ones take more room than that, the connection is cut and
//! they are taken one at a time (`session`).
//! **Invariant**: what goes wrong with one message is that message's: a fault of ours too (`attempts`).
//!
//! Deliberately not here: declaring anything but the queue, and that only where settings ask for it; lapin's own TLS (a second
//! tree of crates for certificates; `line` has ours); lapin's own recovery, which each of its releases mends.
//!
//! Rank 4: imports the broker, never the store. The crates `lapin`, `async_rs` and `futures_io` are fenced to it, and the
//! feature `amqp` builds it.

#[cfg(feature = "amqp")]
mod acks;
mod address;
#[cfg(feature = "amqp")]
mod attempts;
#[cfg(feature = "amqp")]
mod backoff;
#[cfg(feature = "amqp")]
mod letters;
#[cfg(feature = "amqp")]
mod line;
#[cfg(feature = "amqp")]
mod message;
#[cfg(feature = "amqp")]
mod session;
#[cfg(feature = "amqp")]
mod supervisor;
#[cfg(feature = "amqp")]
mod verdict;

use std::path::PathBuf;

pub use address::{Address, AddressFault, Scheme};
#[cfg(feature = "amqp")]
pub use supervisor::start;

/// Bytes of a queue's or an exchange's name at most (AMQP 0-9-1, a short string).
pub const MAX_NAME_BYTES: usize = 255;

/// Settings of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub address: Address,
    /// The file of the password; `None` is RabbitMQ's own `guest`.
    pub password_file: Option<PathBuf>,
    /// Filled in by the server, from the file.
    pub password: Option<Password>,
    /// Certificates in PEM that are trusted besides those of this machine, where TLS is spoken. Read anew for each connection.
    pub ca_file: Option<PathBuf>,
    pub queue: String,
    pub declare: Declare,
    /// Where messages go that never can be taken; `None` rejects them, so that the queue's own dead-lettering takes them.
    pub dead_letter_exchange: Option<String>,
    /// Messages that are on their way at once, at most.
    pub prefetch: u16,
    /// Bytes of a message's body at most.
    pub max_message: usize,
}

/// Whether the queue is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declare {
    /// It is taken as it is, whatever its arguments; where it is missing, that is told and waited for.
    Passive,
    /// It is made durable and without arguments where it is missing. One that differs is refused by RabbitMQ.
    Durable,
}

/// The password of the connection. Its `Debug` tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why no queue can be consumed by this build; `None` where one can.
pub const fn refusal() -> Option<&'static str> {
    if cfg!(feature = "amqp") {
        None
    } else {
        Some("this tidings was built without `amqp`; take the packaged build, or build it with `--features amqp`")
    }
}

/// Consumes nothing: settings that name a queue are refused in this build.
#[cfg(not(feature = "amqp"))]
pub fn start(_broker: crate::broker::Broker, _config: Config, _lifecycle: &crate::lifecycle::Lifecycle) {}
