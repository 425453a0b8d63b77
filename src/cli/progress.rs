//! What a terminal shows while something takes long. **Invariant**: nothing is shown where nobody watches, and nothing
//! is left of it when the work is done.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a sign of life moves.
const TICK: Duration = Duration::from_millis(100);

/// Things done and how fast, where nobody knows how many there will be; `done` is what they are called.
pub(super) fn counter(done: &str) -> ProgressBar {
    watched(ProgressBar::no_length(), &format!("{{spinner}} {{human_pos}} {done}, {{per_sec}}, {{elapsed}}"))
}

/// Things done out of a known number.
pub(super) fn bar(done: &str) -> ProgressBar {
    watched(ProgressBar::new(0), &format!("{{wide_bar}} {{human_pos}} of {{human_len}} {done}, {{elapsed}}"))
}

/// Bytes that came.
pub(super) fn bytes() -> ProgressBar {
    watched(ProgressBar::no_length(), "{spinner} {bytes}, {bytes_per_sec}, {elapsed}")
}

/// Bytes of a known number.
pub(super) fn bytes_of(length: u64) -> ProgressBar {
    watched(ProgressBar::new(length), "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}")
}

/// A sign of life, and what is going on.
pub(super) fn spinner(doing: &'static str) -> ProgressBar {
    let spinner = watched(ProgressBar::no_length(), "{spinner} {msg}, {elapsed}").with_message(doing);
    spinner.enable_steady_tick(TICK);
    spinner
}

fn watched(bar: ProgressBar, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
