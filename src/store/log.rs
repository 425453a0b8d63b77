//! The log's identity and head: one row in the database, repeated in a small file beside it.
//!
//! A database found behind that file is an older copy put back by hand: clients may hold cursors it never gave out,
//! so it gets a new epoch. The file is written without fsync after each durable commit; after a power cut it may be
//! behind the database, which is harmless, never ahead of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand;
use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{Cursor, Epoch, Seq, Timestamp};

const SELECT_LOG: &str = "SELECT epoch, head FROM log WHERE id = 1";
const INSERT_LOG: &str = "INSERT INTO log (id, epoch, head, created_at) VALUES (1, ?1, 0, ?2)";
const UPDATE_EPOCH: &str = "UPDATE log SET epoch = ?1 WHERE id = 1";
pub(super) const UPDATE_HEAD: &str = "UPDATE log SET head = ?1 WHERE id = 1";
const SELECT_NEWEST: &str = "SELECT created_at FROM notifications ORDER BY seq DESC LIMIT 1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_LOG, INSERT_LOG, UPDATE_EPOCH, UPDATE_HEAD, SELECT_NEWEST];

/// What a fresh epoch is drawn from; no letters that people mix up with digits.
const EPOCH_ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
const EPOCH_LEN: usize = 6;

/// The small file beside the database.
#[derive(Debug)]
pub(super) struct HeadFile {
    file: File,
}

impl HeadFile {
    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join("tidings.head")
    }

    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(Self::path(directory))?;
        Ok(Self { file })
    }

    /// What the file says, without making one; `None` where there is none, or it is unreadable as a cursor.
    pub(super) fn peek(directory: &Path) -> io::Result<Option<Cursor>> {
        match File::open(Self::path(directory)) {
            Ok(file) => Self { file }.read(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` where the file is new or unreadable as a cursor.
    fn read(&mut self) -> io::Result<Option<Cursor>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        Read::by_ref(&mut self.file).take(64).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let parsed = text
            .trim()
            .split_once('.')
            .and_then(|(epoch, seq)| Some(Cursor { epoch: Epoch::new(epoch)?, seq: Seq(seq.parse().ok()?) }));
        Ok(parsed)
    }

    /// Padded, so that a shorter number never leaves digits of a longer one behind.
    pub(super) fn write(&mut self, epoch: &Epoch, head: Seq) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(format!("{:<40}\n", format!("{epoch}.{head}")).as_bytes())
    }
}

/// Reads the log's row, making it in a new database, and gives a new epoch to a database found behind its file.
pub(super) fn read(
    connection: &Connection,
    file: &mut HeadFile,
    now: Timestamp,
) -> Result<(Epoch, Seq), super::OpenError> {
    let Some((epoch, head)) = stored(connection)? else {
        let epoch = fresh_epoch();
        connection.execute(INSERT_LOG, params![epoch.as_str(), now.as_millis()])?;
        file.write(&epoch, Seq::ZERO)?;
        return Ok((epoch, Seq::ZERO));
    };
    let stored = Epoch::new(&epoch).ok_or(super::OpenError::Damaged("the log has no valid epoch".to_owned()))?;
    // A file of another epoch belongs to a log that replaced this one: this is an older copy too.
    let behind = file.read()?.is_some_and(|known| known.epoch != stored || known.seq > head);
    let epoch = if behind {
        let epoch = rename(connection)?;
        tracing::warn!(%head, "the database is older than the file beside it says: it gets a new epoch, clients will reload");
        epoch
    } else {
        stored
    };
    file.write(&epoch, head)?;
    Ok((epoch, head))
}

/// How far the clock may lie behind the newest entry before it is told of.
const CLOCK_SLACK: Duration = Duration::from_mins(1);

/// Says so where the clock was set back since the newest entry. Order does not come from it; what waits for its time, and
/// what expires, does.
pub(super) fn compare_clocks(connection: &Connection, now: Timestamp) -> Result<(), rusqlite::Error> {
    let newest: Option<Timestamp> = connection.query_row(SELECT_NEWEST, [], |row| row.get(0)).optional()?;
    if let Some(behind) = newest.map(|newest| newest.since(now)).filter(|behind| *behind > CLOCK_SLACK) {
        tracing::warn!(
            behind_s = behind.as_secs(),
            "The clock stands behind the newest entry: it was set back, or is wrong now. The order of entries stays right; \
             schedules and expiries follow the clock as it is"
        );
    }
    Ok(())
}

/// The log's row as it stands: its epoch, which may be none, and its head. `None` where there is no row.
pub(super) fn stored(connection: &Connection) -> Result<Option<(String, Seq)>, rusqlite::Error> {
    let row =
        connection.query_row(SELECT_LOG, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))).optional()?;
    Ok(row.map(|(epoch, head)| (epoch, Seq(u64::try_from(head).unwrap_or_default()))))
}

/// Gives the log another identity: every cursor from before is of another epoch.
pub(super) fn rename(connection: &Connection) -> Result<Epoch, rusqlite::Error> {
    let epoch = fresh_epoch();
    connection.execute(UPDATE_EPOCH, [epoch.as_str()])?;
    Ok(epoch)
}

fn fresh_epoch() -> Epoch {
    let mut bytes = [0u8; EPOCH_LEN];
    rand::fill(&mut bytes).expect("the system's random source works, or nothing here may go on");
    let text: String = bytes.iter().map(|b| char::from(EPOCH_ALPHABET[usize::from(b % 32)])).collect();
    Epoch::new(&text).expect("drawn from an epoch's alphabet")
}
