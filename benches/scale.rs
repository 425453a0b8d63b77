//! What must not grow with the number of rows, measured on the real binary over HTTP and SSE:
//!
//! 1. [`followers`]: a publish to a topic that a million follow, beside one that ten follow.
//! 2. [`inbox`]: counts and `hello` of one with ten thousand unread entries, beside one with ten; and how long marking
//!    all of them holds the writer.
//! 3. [`database`]: publish, replay, counts and a page on ten million entries, beside ten thousand.
//!
//! What is compared is asked for in turns, of the same server or of two that run side by side, so that a noisy minute
//! falls on both. Whatever is measured is checked too: who received what, and every count.
//!
//! `cargo bench --bench scale` is the quick look (100,000 rows; 200,000 entries); `TIDINGS_BENCH=full` takes a million
//! and ten million, and some gigabytes below `target/` while it runs. `-- followers`, `-- inbox` or `-- database` runs
//! one part.

mod support;

#[path = "scale/ask.rs"]
mod ask;
#[path = "scale/build.rs"]
mod build;
#[path = "scale/database.rs"]
mod database;
#[path = "scale/followers.rs"]
mod followers;
#[path = "scale/inbox.rs"]
mod inbox;
#[path = "scale/online.rs"]
mod online;

use support::{Role, Size};

type Part = fn(Size) -> anyhow::Result<()>;

/// The parts, by the name that asks for one of them.
const PARTS: [(&str, Part); 3] =
    [("followers", followers::bench), ("inbox", inbox::bench), ("database", database::bench)];

fn main() -> anyhow::Result<()> {
    match support::role()? {
        Role::Bench => bench(Size::from_environment()),
        Role::Played | Role::Nothing => Ok(()),
    }
}

fn bench(size: Size) -> anyhow::Result<()> {
    support::client::raise_open_files();
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, part) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            part(size)?;
        }
    }
    Ok(())
}
