//! Named points at which a test's scheduler may let something else go on.
//!
//! The hand-over from replay to live must be right in whatever order the writer, the fan-out, the readers and the feeds
//! take their turns. `broker::interleavings` plays such orders with the code that ships: everything runs as coroutines on
//! one thread, and seeded dice say at each point, and at each wait, who goes on. Outside the unit tests a point is an
//! empty function, and nothing else of this module is there.
//!
//! **Invariant**: whoever is at a point holds no lock.
//!
//! Rank 0: imports nothing of this crate.

#[cfg(test)]
mod scheduler;

#[cfg(test)]
pub use scheduler::{
    Fault, Journaled, Scheduler, TaskId, Whole, adopt, current, has_fault, in_place, is_scheduled, journal, point,
};

/// Something else may happen here. The name stands in the trace of a run that failed.
#[cfg(not(test))]
#[inline]
pub fn point(_name: &'static str) {}
