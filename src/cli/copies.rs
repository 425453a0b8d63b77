//! `tidings backup` and `tidings restore`: a copy of the whole log, and the way back.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{BinaryBytes, ProgressBar};
use serde_json::json;

use super::client::{Ask, Client, Receive};
use super::draft::{Draft, Present};
use super::reach::ServerArgs;
use super::settings::Place;
use super::{Output, Usage, progress, say};
use crate::server::state::{self, StateDir};
use crate::server::stopped::{self, Aside, Restored, Stage};

/// How long the server may take to make and check the copy before its first byte comes.
const BACKUP_PATIENCE: Duration = Duration::from_hours(4);
/// Bytes that are written before they are put on the disk. All at once at the end would keep the server's own writes
/// waiting, where both are on one disk.
const SYNC_EVERY: u64 = 8 * 1024 * 1024;

const BACKUP_EXAMPLES: &str = "\
Examples:
  tidings backup tidings-$(date +%F).db --data ./state
  tidings backup copy.db --force --data ./state
  tidings backup copy.db --json --data ./state | jq .bytes

Publishes and streams go on meanwhile. Everything acknowledged before is in the copy, and
nothing that was deleted. The server checks it; the file appears when it is whole, and only
its owner can read it: it holds everybody's notifications, and the hashes of keys. The server
needs twice the log's size on its disk while it makes the copy. Only the operator may ask.
With --json one object: {\"file\",\"bytes\",\"schema\"}.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  tidings restore tidings-2026-11-22.db --data ./state
  tidings restore tidings-2026-11-22.db --yes --discard --data ./state
  tidings restore tidings-2026-11-22.db --yes --json --data /var/lib/tidings

The server must be stopped. The copy is checked first; the log that was there is kept as
tidings.db.before-restore. The log gets a new name (epoch), so that clients read everything
anew instead of going on from positions that it never had. Access that was taken back after
the copy was made (users, keys) is good again: take it back again.
With --json one object: {\"bytes\",\"cursor\",\"was\",\"kept\"}.";

#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct BackupArgs {
    /// Where the copy goes
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(super) struct RestoreArgs {
    /// What `tidings backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Don't ask whether the log that is there may be replaced
    #[arg(long)]
    yes: bool,
    /// Don't keep the log that is there
    #[arg(long)]
    discard: bool,
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Writes a copy of the log.
///
/// # Errors
/// Where it could not be made, or the file can't be written.
pub(super) async fn backup(args: BackupArgs) -> anyhow::Result<()> {
    let present = if args.force { Present::Replace } else { Present::Keep };
    check_target(&args.file, present)?;
    let draft = Draft::beside(&args.file)?;
    let mut sink =
        Sink { to: &draft, written: 0, unsynced: 0, progress: progress::spinner("The server makes the copy") };
    let ask = Ask::get("/v1/upkeep/backup").patient(BACKUP_PATIENCE);
    args.server.ask(async |client: &Client| client.pass_on(&ask, &mut sink).await).await?;
    sink.progress.finish_and_clear();
    let bytes = sink.written;
    let schema = stopped::verify(draft.path())?;
    draft.put(&args.file, present)?;
    match Output::of(args.json) {
        Output::Json => say(json!({ "file": args.file, "bytes": bytes, "schema": schema })),
        Output::People => say(format_args!("{} is whole and has {}", args.file.display(), BinaryBytes(bytes))),
    }
}

/// Refuses what would be lost, before the server begins.
fn check_target(file: &Path, present: Present) -> anyhow::Result<()> {
    let folder = folder(file);
    if !folder.is_dir() {
        return Err(Usage(format!("there is no directory {}: make it first", folder.display())).into());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if folder.join("tidings.lock").exists() && name.starts_with("tidings.") {
        return Err(Usage(format!(
            "{} is a file of the state directory itself: name another one, best on another disk",
            file.display()
        ))
        .into());
    }
    match std::fs::symlink_metadata(file) {
        Ok(there) if there.is_dir() => bail!("{} is a directory: name a file in it", file.display()),
        Ok(there) if !is_file(file, &there) => {
            bail!("{} is neither a file nor a link to one, and would be lost: name another one", file.display())
        }
        Ok(_) if present == Present::Keep => bail!("{} is there already: --force replaces it", file.display()),
        _ => Ok(()),
    }
}

/// Whether it is a file or a link to one, which may be gone.
fn is_file(path: &Path, there: &std::fs::Metadata) -> bool {
    there.is_file() || (there.is_symlink() && std::fs::metadata(path).map_or(true, |target| target.is_file()))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What comes, on its way to the draft.
struct Sink<'d> {
    to: &'d Draft,
    written: u64,
    unsynced: u64,
    progress: ProgressBar,
}

impl Receive for Sink<'_> {
    fn expect(&mut self, bytes: u64) {
        self.progress.finish_and_clear();
        self.progress = progress::bytes_of(bytes);
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&self.to.file).write(bytes)?;
        self.written += written as u64;
        self.unsynced += written as u64;
        if self.unsynced >= SYNC_EVERY {
            self.to.file.sync_data()?;
            self.unsynced = 0;
        }
        self.progress.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts a copy in the place of the log.
///
/// # Errors
/// Where the directory is in use, the copy is not whole, or the log may not be replaced.
pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    stopped::verify(&args.file)?;
    let state = StateDir::open(&args.place.data()?)?;
    let there = state::log_bytes(state.path());
    if let Some(bytes) = there
        && !args.yes
        && !confirmed(&state, bytes, args.discard)?
    {
        bail!("nothing was restored");
    }
    let aside = if args.discard { Aside::Discard } else { Aside::Keep };
    let progress = progress::bytes_of(0);
    let restored = stopped::restore(&args.file, &state, aside, &mut |stage| match stage {
        Stage::Copying(done, of) => {
            progress.set_length(of);
            progress.set_position(done);
        }
        Stage::Checking => progress.println("Checking the copy"),
        Stage::PuttingInPlace => progress.println("Putting it in place"),
    })?;
    progress.finish_and_clear();
    match Output::of(args.json) {
        Output::Json => say(json!({
            "bytes": restored.bytes,
            "cursor": restored.cursor.to_string(),
            "was": restored.was.to_string(),
            "kept": restored.aside,
        })),
        Output::People => say(told(&restored, &args.file)),
    }
}

fn told(restored: &Restored, file: &Path) -> String {
    let Restored { bytes, cursor, was, aside } = restored;
    let kept = match aside {
        Some(aside) => format!("\nThe log that was there is {}: delete it when you are content", aside.display()),
        None => String::new(),
    };
    format!(
        "{} is restored ({}), up to position {}; the log was {was} and is {} now, so clients read it anew{kept}",
        file.display(),
        BinaryBytes(*bytes),
        cursor.seq,
        cursor.epoch,
    )
}

/// Asks the person at the terminal.
fn confirmed(state: &StateDir, bytes: u64, discard: bool) -> anyhow::Result<bool> {
    let (place, size) = (state.path().display(), BinaryBytes(bytes));
    if !io::stdin().is_terminal() {
        return Err(Usage(format!("{place} holds a log ({size}); where nobody can be asked, say --yes")).into());
    }
    let kept = if discard { "and is lost" } else { "and is kept as tidings.db.before-restore" };
    eprint!("{place} holds a log ({size}), which is replaced {kept}. Type `yes`: ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}
