//! Putting a copy of the log in the place of a log that nobody uses.
//!
//! The order is what makes it safe to be killed at any moment: whoever opens the directory next finds the old log or the
//! restored one, whole.
//!
//! 1. The copy is copied again, beside the log; that draft is checked, gets a new epoch, and is on disk before anything else changes.
//! 2. The old log takes its write-ahead log in, so that it is one file; that file gets a second name, which it keeps. Where
//!    the disk, or another program, hinders that, nothing more is done.
//! 3. What stood beside the old log goes: a write-ahead log that stayed would be taken for the new file's, and SQLite
//!    would put its pages over the restored ones without a word. Killed here, the old log is whole without it.
//! 4. The draft takes the log's name, in one step.
//!
//! **Invariant**: the restored log has an epoch that no client has seen, so that a cursor from after the copy was made
//! is never taken for a position that means something else now.
//!
//! Deliberately not here: whether the state directory is free, and whom it belongs to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::backup::beside;
use super::fault::Fault;
use super::log::{self, HeadFile};
use super::open::{self, APPLICATION_ID, configure_any};
use super::{StoreError, check};
use crate::model::{Cursor, Epoch};

/// The draft in the state directory.
const DRAFT: &str = "tidings.db.restoring";
/// The old log's second name; a number follows where there is one from before.
const ASIDE: &str = "tidings.db.before-restore";
/// Old logs that are kept beside each other.
const MAX_ASIDE: u32 = 100;
/// What SQLite may put beside a file.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How each SQLite file begins (fileformat2, 1.3), and where in it stand what is looked at before it is copied.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER: usize = 100;
const SCHEMA_AT: usize = 60;
const APPLICATION_AT: usize = 68;
/// Bytes copied at a time.
const CHUNK: usize = 1024 * 1024;
/// Page cache, in KiB.
const CACHE_KIB: u32 = 16 * 1024;

/// Why a copy can't be restored. The log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{} is no SQLite file: name one that `tidings backup` wrote", .0.display())]
    NotADatabase(PathBuf),
    #[error("{} is a SQLite file of another application: name one that `tidings backup` wrote", .0.display())]
    Foreign(PathBuf),
    #[error(
        "{} was written by a newer Tidings (its schema is {found}, this program knows up to {known}): install that \
         version and restore it with that",
        path.display()
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("{} is damaged: {why}. Take an older backup", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "a write-ahead log lies beside {}, so that file alone is not all there is: make a whole one with `tidings \
         backup`, or put both into a directory of their own as tidings.db and tidings.db-wal and back that up",
        .0.display()
    )]
    Unfolded(PathBuf),
    #[error("{needed} bytes are needed on the disk of {}, and {free} are free: make room", path.display())]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    #[error("{} old logs are kept in {} already: delete those you don't need", MAX_ASIDE, .0.display())]
    TooManyAside(PathBuf),
    #[error("cannot {doing} {}: {why}", path.display())]
    Failed { doing: &'static str, path: PathBuf, why: String },
}

/// What becomes of the log that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// It stays beside the new one under another name.
    Keep,
    Discard,
}

/// How far restoring has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// So many bytes are copied, of so many.
    Copying(u64, u64),
    Checking,
    PuttingInPlace,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub bytes: u64,
    /// The log's newest position, in its new epoch.
    pub cursor: Cursor,
    /// The epoch that the copy had.
    pub was: Epoch,
    /// Where the old log is kept.
    pub aside: Option<PathBuf>,
}

/// Names what was being done to which file when it failed.
trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, RestoreError>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, RestoreError> {
        self.map_err(|error| RestoreError::Failed { doing, path: path.to_owned(), why: error.to_string() })
    }
}

/// Looks whether a file can be a copy of a log, by its first bytes; what schema it has.
///
/// # Errors
/// [`RestoreError`].
pub fn verify(path: &Path) -> Result<u64, RestoreError> {
    let mut header = [0; HEADER];
    let mut file = File::open(path).doing("read", path)?;
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(RestoreError::NotADatabase(path.to_owned())),
        Err(e) => return Err(e).doing("read", path),
    }
    if !header.starts_with(MAGIC) {
        return Err(RestoreError::NotADatabase(path.to_owned()));
    }
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes are four bytes"));
    if number(APPLICATION_AT) != APPLICATION_ID.cast_unsigned() {
        return Err(RestoreError::Foreign(path.to_owned()));
    }
    let (found, known) = (u64::from(number(SCHEMA_AT)), open::known_schema());
    if found > known {
        return Err(RestoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(found)
}

/// Puts a copy in the place of the log in `directory`, which nobody may use meanwhile. The file itself is only read.
///
/// # Errors
/// [`RestoreError`]; the log is as it was then.
pub fn restore(
    copy: &Path,
    directory: &Path,
    aside: Aside,
    progress: &mut dyn FnMut(Stage),
) -> Result<Restored, RestoreError> {
    verify(copy)?;
    if fs::metadata(beside(copy, "-wal")).is_ok_and(|log| log.len() > 0) {
        return Err(RestoreError::Unfolded(copy.to_owned()));
    }
    let draft = Draft { path: directory.join(DRAFT) };
    draft.remove();
    let bytes = draft.fill(copy, directory, progress)?;
    progress(Stage::Checking);
    let (was, cursor) = draft.make_ready(copy)?;
    progress(Stage::PuttingInPlace);
    let place = directory.join(open::FILE);
    let kept = if place.exists() { step_aside(&place, directory, aside)? } else { None };
    for stale in BESIDE.map(|suffix| beside(&place, suffix)).into_iter().chain([HeadFile::path(directory)]) {
        remove(&stale)?;
    }
    sync_directory(directory)?;
    fs::rename(&draft.path, &place).doing("write", &place)?;
    sync_directory(directory)?;
    Ok(Restored { bytes, cursor, was, aside: kept })
}

/// The copy beside the log; removed with this value unless it was put in place.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        for suffix in BESIDE {
            let _ = fs::remove_file(beside(&self.path, suffix));
        }
    }

    fn fill(&self, copy: &Path, directory: &Path, progress: &mut dyn FnMut(Stage)) -> Result<u64, RestoreError> {
        let mut from = File::open(copy).doing("read", copy)?;
        let of = from.metadata().doing("look at", copy)?.len();
        // What can't be told is tried.
        let free = rustix::fs::statvfs(directory).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if free < of {
            return Err(RestoreError::NoRoom { path: directory.to_owned(), needed: of, free });
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path);
        let mut to = made.doing("make", &self.path)?;
        let (mut chunk, mut bytes) = (vec![0; CHUNK], 0);
        loop {
            progress(Stage::Copying(bytes, of));
            let read = from.read(&mut chunk).doing("read", copy)?;
            if read == 0 {
                break;
            }
            to.write_all(&chunk[..read]).doing("write", &self.path)?;
            bytes += read as u64;
        }
        // What root restores is for the server's user, whose directory this is.
        let (owner, file) = (fs::metadata(directory).doing("look at", directory)?, to.metadata());
        let file = file.doing("look at", &self.path)?;
        if (owner.uid(), owner.gid()) != (file.uid(), file.gid()) {
            std::os::unix::fs::fchown(&to, Some(owner.uid()), Some(owner.gid())).doing("hand over", &self.path)?;
        }
        to.sync_all().doing("write", &self.path)?;
        Ok(bytes)
    }

    /// Checks the draft and gives it an epoch of its own.
    fn make_ready(&self, copy: &Path) -> Result<(Epoch, Cursor), RestoreError> {
        let damaged = |why: String| RestoreError::Damaged { path: copy.to_owned(), why };
        let ready = || -> Result<_, StoreError> {
            let draft = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            configure_any(&draft, CACHE_KIB)?;
            // One file from here on, also where it was copied by hand from a log in use.
            draft.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL")?;
            check::is_whole(&draft)?;
            let (was, head) =
                log::stored(&draft)?.ok_or_else(|| StoreError::Damaged("the log's own row is missing".to_owned()))?;
            let was = Epoch::new(&was).ok_or_else(|| StoreError::Damaged("the log has no valid epoch".to_owned()))?;
            let epoch = log::rename(&draft)?;
            draft.close().map_err(|(_, error)| error)?;
            Ok((was, Cursor { epoch, seq: head }))
        };
        let ready = ready().map_err(|error| match error {
            StoreError::Damaged(why) | StoreError::Failed(why) => damaged(why),
            other => RestoreError::Failed { doing: "write", path: self.path.clone(), why: other.to_string() },
        })?;
        File::open(&self.path).and_then(|file| file.sync_all()).doing("write", &self.path)?;
        Ok(ready)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes the old log one file and gives it a second name. Where it is so damaged that it can't take its write-ahead log
/// in, that gets a second name too.
fn step_aside(place: &Path, directory: &Path, aside: Aside) -> Result<Option<PathBuf>, RestoreError> {
    let folded = fold(place);
    // Without its log of writes a log that is whole would lose its end, were this killed before the copy is in its place.
    if let Err(Unfolded::Hindered(why)) = &folded {
        let place = place.to_owned();
        return Err(RestoreError::Failed { doing: "take the log of writes into", path: place, why: why.clone() });
    }
    if aside == Aside::Discard {
        return Ok(None);
    }
    let kept = free_name(directory)?;
    fs::hard_link(place, &kept).doing("keep the old log as", &kept)?;
    let log = beside(place, "-wal");
    if folded.is_err() && log.exists() {
        let kept = beside(&kept, "-wal");
        fs::hard_link(&log, &kept).doing("keep the old log as", &kept)?;
    }
    Ok(Some(kept))
}

/// Why a log did not take its log of writes in.
enum Unfolded {
    /// It is damaged, or no log, so there is no whole one to lose.
    NotWhole,
    /// The disk is full or fails, or another program reads it.
    Hindered(String),
}

impl From<rusqlite::Error> for Unfolded {
    fn from(error: rusqlite::Error) -> Self {
        match Fault::of(&error) {
            Fault::Damaged | Fault::Unreadable | Fault::Operation => Self::NotWhole,
            _ => Self::Hindered(error.to_string()),
        }
    }
}

fn fold(place: &Path) -> Result<(), Unfolded> {
    // SQLite would remove what lies beside an empty file, and that is all there is left.
    if fs::metadata(place).is_ok_and(|log| log.len() == 0) {
        return Err(Unfolded::NotWhole);
    }
    let old = Connection::open_with_flags(place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let busy: bool = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        return Err(Unfolded::Hindered("another program has it open".to_owned()));
    }
    Ok(old.close().map_err(|(_, error)| error)?)
}

fn free_name(directory: &Path) -> Result<PathBuf, RestoreError> {
    let numbered = |n: u32| if n == 1 { ASIDE.to_owned() } else { format!("{ASIDE}-{n}") };
    let mut names = (1..=MAX_ASIDE).map(|n| directory.join(numbered(n)));
    names.find(|name| !name.exists()).ok_or_else(|| RestoreError::TooManyAside(directory.to_owned()))
}

fn remove(path: &Path) -> Result<(), RestoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).doing("remove", path),
        _ => Ok(()),
    }
}

/// Makes names in the directory last through a power cut.
fn sync_directory(path: &Path) -> Result<(), RestoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).doing("write", path)
}
