//! The command line: one enum of commands, each in a file of its own.
//!
//! Data passes from flags to a command's `run`, and back as an exit code ([`exit`]). **Invariant**: standard output carries only what was asked for, in one form; whatever is said
//! besides goes to standard error. Every failure says what to do next.
//!
//! Rank 6: imports everything; nothing imports it. `anyhow` and `clap` live here and nowhere else.

#![expect(clippy::print_stderr, reason = "what the command line says besides its answer goes there")]

mod batch;
mod check;
mod client;
mod config;
mod copies;
mod delivery;
mod demo;
mod draft;
mod exit;
mod followers;
mod import;
mod key;
mod local;
mod logs;
mod mail;
mod manual;
mod message_log;
mod notification;
mod ops;
mod profile;
mod progress;
mod publish;
mod reach;
mod records;
mod schedule;
mod serve;
mod settings;
mod show;
mod signals;
mod sink;
mod table;
mod template;
mod token;
mod topic;
mod upkeep;
mod user;
mod via;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::task::LocalSet;

const EXAMPLES: &str = "\
Examples:
  tidings demo                                       try it, on this machine only
  tidings serve --data ./state                       the server
  tidings publish --to user:alice --title Hello --data ./state
  tidings key create --name shop --scope publish     for your application's backend
  tidings topic list --data ./state                  what there is to follow, and by how many
  tidings backup copy.db --data ./state              everything, while the server runs
  tidings check --data ./state                       whether the log is whole
  tidings doctor --counts --data ./state             whether every count is right
  tidings doctor --via https://app.example/tidings --data ./state
                                                     whether the proxy in front is
  tidings sink                                       a DingTalk on this machine, to try robots

A command with --data asks the server that runs there; where none does, it opens the log itself.

Settings: --config FILE, FILE.d/*.toml, TIDINGS_<SECTION>_<KEY> in the environment, flags; later ones win.
Exit codes: 0 done, 1 failed, 64 wrong usage or settings; from whoever opens the log also
65 damaged or another program's, 73 can't be made there, 74 the disk failed, 75 in use or
the disk is full, 77 not this user's or read-only.";

/// A notification server for one machine: one binary, one SQLite file, one cursor for every client.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Args),
    /// Run the server with three demo users and a key, to try it.
    Demo(serve::Args),
    /// Publish a notification, or many.
    Publish(Box<publish::Args>),
    /// Make tokens with which users sign in, without a running server.
    Token(token::Args),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Make, show and delete topics, and say who follows them.
    #[command(subcommand)]
    Topic(topic::Command),
    /// What became of a notification; take it back.
    #[command(subcommand)]
    Notification(notification::Command),
    /// What went to whom by mail and DingTalk; try again what did not arrive.
    #[command(subcommand)]
    Delivery(delivery::Command),
    /// What went to whom, in the app too: "did she get it?".
    Log(Box<message_log::Args>),
    /// Notifications that wait for their time.
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Say who users are, hand out or erase what is stored about them.
    #[command(subcommand)]
    User(user::Command),
    /// Keep the texts that services send by name.
    #[command(subcommand)]
    Template(template::Command),
    /// Look whether mail can be sent as it is set up.
    #[command(subcommand)]
    Mail(mail::Command),
    /// Show the settings, and look for faults in them.
    #[command(subcommand)]
    Config(config::Command),
    /// How the running server is, on one screen.
    Status(ops::StatusArgs),
    /// Have the running server read its settings again.
    Reload(ops::ReloadArgs),
    /// Take a user's access back, on every device at once.
    Revoke(ops::RevokeArgs),
    /// Look whether what is stored is right, and mend it.
    Doctor(upkeep::DoctorArgs),
    /// Rewrite the database file without what was deleted.
    Compact(upkeep::CompactArgs),
    /// Copy the log, while it is in use.
    Backup(copies::BackupArgs),
    /// Put a copy in the place of a stopped server's log.
    Restore(copies::RestoreArgs),
    /// Look whether the log is whole, running or stopped, and mend what can be.
    Check(check::CheckArgs),
    /// Stand where DingTalk and a mail server would, and show what is sent.
    Sink(sink::SinkArgs),
    /// Print what a shell needs to complete commands and flags.
    Completions(manual::CompletionsArgs),
    /// Write the manual pages into a directory.
    Man(manual::ManArgs),
}

/// Something was asked wrongly; told with [`exit::USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Whether people or scripts read standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    People,
    Json,
}

impl Output {
    const fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::People }
    }
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // `--help` and `--version` come here too, and are no errors. Nobody is left to tell of a closed pipe.
            let _ = told.print();
            return if told.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // What we make is nobody else's to read, the database included.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has read enough: `tidings token … | head -1`.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::from(exit::code(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::run(&args, serve::Kind::Plain),
        Command::Demo(args) => serve::run(&args, serve::Kind::Demo),
        Command::Publish(args) => block_on(publish::run(*args)),
        Command::Token(args) => token::run(&args),
        Command::Key(command) => block_on(key::run(command)),
        Command::Topic(command) => block_on(topic::run(command)),
        Command::Notification(command) => block_on(notification::run(command)),
        Command::Delivery(command) => block_on(delivery::run(command)),
        Command::Log(args) => block_on(message_log::run(*args)),
        Command::Schedule(command) => block_on(schedule::run(command)),
        Command::User(command) => block_on(user::run(command)),
        Command::Template(command) => block_on(template::run(command)),
        Command::Mail(command) => block_on(mail::run(command)),
        Command::Config(command) => config::run(command),
        Command::Doctor(args) => block_on(upkeep::doctor(args)),
        Command::Compact(args) => block_on(upkeep::compact(args)),
        Command::Backup(args) => block_on(copies::backup(args)),
        Command::Restore(args) => copies::restore(&args),
        Command::Check(args) => block_on(check::run(args)),
        Command::Status(args) => block_on(ops::status(args)),
        Command::Reload(args) => block_on(ops::reload(args)),
        Command::Revoke(args) => block_on(ops::revoke(args)),
        Command::Sink(args) => block_on(sink::run(args)),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}

/// Writes a line to standard output.
fn say(line: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{line}").context("cannot write to standard output")
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(broken)
}

/// The error and its causes, save those whose text a sentence before has told already.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let joint = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{joint}{cause}");
        }
    }
    text
}

/// Runs a command on this thread. One more is for the server that it may have to be, which must go on while the command
/// waits for standard input.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    logs::start_where_debugging();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let outcome = runtime.block_on(LocalSet::new().run_until(work));
    // What still runs after a server's hard deadline is not waited for.
    runtime.shutdown_background();
    outcome
}

/// A name as one segment of a path, or as a parameter's value.
fn segment(name: impl AsRef<str>) -> String {
    utf8_percent_encode(name.as_ref(), NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::server::file::FileError;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn look(command: &clap::Command) {
            if command.has_subcommands() {
                command.get_subcommands().filter(|c| c.get_name() != "help").for_each(look);
            } else {
                let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(text.contains("Examples:\n  tidings "), "{}: {text}", command.get_name());
            }
        }
        look(&Cli::command());
    }

    #[test]
    fn causes_are_told_once() {
        let source = io::Error::other("no such thing");
        let error = anyhow::Error::from(FileError { doing: "read", path: "t.key".into(), source });
        assert_eq!(told(&error), "cannot read t.key: no such thing");
        assert_eq!(told(&anyhow::Error::from(std::fmt::Error).context("x")), format!("x: {}", std::fmt::Error));
    }
}
