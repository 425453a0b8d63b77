//! What the benches against real sockets share: the servers they start, the client process, and the tables they print.
//!
//! Each bench starts the real binary as a child and re-executes itself as the client, since client and server must not
//! share a process: neither its open-file limit nor its CPU time.

#![allow(dead_code)] // each bench uses its part
#![allow(clippy::print_stdout, clippy::print_stderr)] // tables go to standard output, progress to standard error
#![allow(clippy::disallowed_methods)] // a bench that waits for a child has no runtime to hold up

pub mod client;
pub mod floor;
pub mod http;
pub mod post;
pub mod process;
pub mod report;

use std::path::PathBuf;

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Everything that is stated in `docs/performance.md`, rather than a quick look.
    pub full: bool,
    /// Rounds, of which the median is shown.
    pub rounds: usize,
}

impl Size {
    /// Reads `TIDINGS_BENCH=full` and `TIDINGS_BENCH_ROUNDS=n`.
    pub fn from_environment() -> Self {
        let full = std::env::var("TIDINGS_BENCH").is_ok_and(|size| size == "full");
        let rounds = std::env::var("TIDINGS_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
        Self { full, rounds: rounds.unwrap_or(if full { 3 } else { 1 }).max(1) }
    }

    /// The one or the other.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        if self.full { full } else { quick }
    }
}

/// What this process is to be.
#[derive(Debug)]
pub enum Role {
    Bench,
    /// A child of a bench: its part was played, and the process is to end.
    Played,
    /// Built and started to see that it builds (`cargo test --benches`).
    Nothing,
}

/// Plays the part of a child, where this process is one.
pub fn role() -> anyhow::Result<Role> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--client") => client::run(arguments.get(2).map_or("", String::as_str)).map(|()| Role::Played),
        Some("--post") => post::run(arguments.get(2).map_or("", String::as_str)).map(|()| Role::Played),
        Some("--floor") => floor::run().map(|()| Role::Played),
        _ if arguments.iter().any(|argument| argument == "--bench") => Ok(Role::Bench),
        _ => Ok(Role::Nothing),
    }
}

/// The server to measure: `TIDINGS_BIN`, or what this build made.
pub fn binary() -> PathBuf {
    std::env::var_os("TIDINGS_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tidings").into(), PathBuf::from)
}

/// A directory of a bench's own on the disk that builds stand on: one in memory would make every commit free.
pub fn scratch() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("bench").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

pub fn progress(text: &str) {
    eprintln!("  {text}");
}
