//! What the wire-level tests stand on: the real binary, a raw HTTP client, a strict reader of event streams.
//!
//! Tests wait for conditions, each under [`DEADLINE`]; nothing sleeps for a guessed time. What must *not* come is proved
//! by something that comes after it.

pub mod cli;
pub mod http;
pub mod poll;
pub mod publisher;
pub mod relay;
pub mod robot;
pub mod server;
pub mod sink;
pub mod sse;
pub mod token;
pub mod ws;

use std::time::{Duration, Instant};

/// How long anything may take before a test fails: far above what it takes, for machines that do much else.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition that nobody announces is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `found` finds something.
///
/// # Panics
/// After [`DEADLINE`], with what was waited for.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// Random numbers for jitter and choices; seeds are printed by who uses them (xorshift64*).
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }
}
