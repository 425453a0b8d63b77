//! The promises (`docs/promises.md`) and the tests that try to break them, as one binary: what is killed, cut, filled,
//! reordered and starved here, and what must hold all the same.
//!
//! Each runs in a quick form with the test command, from fixed seeds, so that a red run is the commit's fault; the full
//! forms, one command each, are in `tests/README.md` and their figures in `docs/reliability.md`.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::type_complexity,
    clippy::bool_assert_comparison,
    reason = "tests print their seeds, spawn their own tasks and read as tables; what counts is that they can fail"
)]

mod centre;
mod clocks;
mod crowd;
mod cursors;
mod cuts;
mod drain;
mod failing;
mod full;
mod fuzz;
mod handover;
mod idempotency;
mod kill;
mod marks;
mod model;
mod mount;
mod outbox;
mod page;
mod places;
mod power;
mod queue;
mod restore;
mod shim;
mod soak;
mod stalled;
mod stored;
mod storm;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, reason = "the harness is shared with `tests/it`, which uses the rest of it")]
mod support;
mod verbs;
mod wal;
