//! Tidings: a notification server for one machine.
//!
//! One binary and one SQLite file stream notifications, unread counts and state changes to every device of a person,
//! and replay exactly what was missed. `ARCHITECTURE.md` draws the map; each module says what it owns.
//!
//! Modules stand in ranks and import only from lower ones; `tests/it/architecture.rs` holds that.

// The model of the promise tests, which unit tests share, names this crate as every test does.
#[cfg(test)]
extern crate self as tidings;

pub mod model;

pub mod clock;
pub mod interleave;
pub mod lifecycle;
pub mod metrics;
pub mod tls;
pub mod wire;

pub mod hub;
pub mod store;

pub mod broker;

pub mod deliver;
pub mod http;
pub mod intake;

pub mod config;
pub mod server;

pub mod cli;
