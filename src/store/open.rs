//! Opening the database: settings of every connection, migrations, the backup before one, and refusals that say
//! what to do.

use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use deadpool_sqlite::Runtime;
use deadpool_sync::SyncWrapper;
use include_dir::{Dir, include_dir};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::Migrations;

use super::ballast::{Ballast, Hold};
use super::fault::{Fault, Space};
use super::log::HeadFile;
use super::writer::State;
use super::{BUSY_TIMEOUT, Config, StoreError, remains};
use crate::model::Timestamp;

static MIGRATIONS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/migrations");

/// The log's file in a state directory.
pub(super) const FILE: &str = "tidings.db";

/// `application_id` of our files, as the first migration sets it.
pub(super) const APPLICATION_ID: i32 = 0x5449_446E;

/// `auto_vacuum` of our files.
const INCREMENTAL: i64 = 2;

/// Why the database can't be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} was written by a newer Tidings (its schema is {found}, this program knows up to {known}): \
         install that version again, or restore a backup made by this one"
    )]
    Newer { path: PathBuf, found: usize, known: usize },
    #[error("{0} is a SQLite file of another application: name another data directory")]
    Foreign(PathBuf),
    #[error("the database is damaged: {0}. Nothing was changed: copy the directory, then restore the newest backup")]
    Damaged(String),
    #[error("{0} is not a file, and the database can't be there: move it away, or name another data directory")]
    NotAFile(PathBuf),
    #[error(
        "the disk that holds {} is full, and nothing is left to throw off: free some space there and start again",
        .0.display()
    )]
    Full(PathBuf),
    #[error(
        "the database is held by another program, or memory or files are short: end what has it open and start again"
    )]
    Busy,
    #[error(
        "the database can't be written: it, or the file system it lies on, is read-only. Run this as the user who owns it, \
         or look with `dmesg` why the file system is"
    )]
    ReadOnly,
    #[error("the database can't be opened: {0}")]
    Sqlite(rusqlite::Error),
    #[error("the database can't be brought up to date: {0}; it is unchanged")]
    Migration(rusqlite_migration::Error),
    #[error("the state directory can't be used: {0}")]
    Io(#[from] std::io::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match Fault::of(&error) {
            Fault::Damaged => Self::Damaged(error.to_string()),
            Fault::Busy => Self::Busy,
            Fault::ReadOnly => Self::ReadOnly,
            _ => Self::Sqlite(error),
        }
    }
}

impl From<rusqlite_migration::Error> for OpenError {
    fn from(error: rusqlite_migration::Error) -> Self {
        match error {
            // The disk's fault, not the migration's.
            rusqlite_migration::Error::RusqliteError { err, .. } if Fault::of(&err) != Fault::Operation => err.into(),
            error => Self::Migration(error),
        }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::Busy,
            StoreError::Damaged(cause) => Self::Damaged(cause),
            StoreError::Full => Self::Io(std::io::ErrorKind::StorageFull.into()),
            // The disk's fault: a new start may find it well.
            error => Self::Io(std::io::Error::other(error)),
        }
    }
}

/// What opening leaves for the writer.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) connection: SyncWrapper<Connection>,
    pub(super) state: State,
}

/// Opens `<directory>/tidings.db` for writing, brought up to date.
pub(super) async fn open(directory: &Path, now: Timestamp, config: &Config) -> Result<Opened, OpenError> {
    let path = directory.join(FILE);
    let (file, cache_kib) = (path.clone(), config.cache_kib);
    let directory = directory.to_path_buf();
    let (connection, state) = tokio::task::spawn_blocking(move || {
        if let Some(lost) = remains::of_lost(&file)? {
            return Err(OpenError::Damaged(lost));
        }
        look_at_header(&file)?;
        // Before anything else where one lies: a full disk has no room for the index of the log of writes either. Where none
        // does, the directory may be another program's, and gets one when it is known to be ours.
        let ballast = Ballast::of(&directory);
        let hold = ballast.lies().then(|| Hold::begin(&directory));
        let space = hold.as_ref().map(Hold::space);
        open_log(&file, cache_kib, now, hold).map_err(|error| match error {
            OpenError::Sqlite(error) if Fault::of(&error) == Fault::Full => OpenError::Full(directory),
            // What was thrown off did not help, or had been thrown off before.
            OpenError::Sqlite(_) | OpenError::Io(_) if space.unwrap_or_else(|| ballast.space()) == Space::Short => {
                OpenError::Full(directory)
            }
            error => error,
        })
    })
    .await
    .map_err(|e| OpenError::Io(std::io::Error::other(e)))??;
    let connection = SyncWrapper::new(Runtime::Tokio1, move || Ok::<_, OpenError>(connection)).await?;
    Ok(Opened { path, connection, state })
}

fn open_log(file: &Path, cache_kib: u32, now: Timestamp, hold: Option<Hold>) -> Result<(Connection, State), OpenError> {
    let directory = file.parent().expect("the database lies in the state directory");
    let connection = accept(file, cache_kib)?;
    let hold = hold.unwrap_or_else(|| Hold::begin(directory));
    let mut head_file = HeadFile::open(directory)?;
    let (epoch, head) = super::log::read(&connection, &mut head_file, now)?;
    super::log::compare_clocks(&connection, now)?;
    Ok((connection, State::new(epoch, head, head_file, hold)))
}

/// Opens the file and brings it up to date. Until it is known to be ours and whole, closing leaves its log of writes alone.
fn accept(file: &Path, cache_kib: u32) -> Result<Connection, OpenError> {
    let mut connection = Connection::open(file)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    configure(&connection, cache_kib)?;
    look_for_cut(&connection, file)?;
    bring_up_to_date(&mut connection, file)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// A file that was cut short beside its log of writes looks whole to SQLite until a lost page is read. Looking at every page
/// takes its time, so it is done only where one is neither in the file nor in the log of writes.
fn look_for_cut(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    if remains::has_its_pages(file, pragma("page_size")?, pragma("page_count")?)? {
        return Ok(());
    }
    let told: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if told == "ok" { Ok(()) } else { Err(OpenError::Damaged(told)) }
}

/// Bytes of a SQLite file's header (<https://www.sqlite.org/fileformat2.html>), and where in it stands what we look for.
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
const VERSION_AT: usize = 60;
const APPLICATION_AT: usize = 68;

/// Looks at what is there before SQLite does, which would change another program's file by opening it our way. What
/// the log of writes says is looked at again by [`bring_up_to_date`].
fn look_at_header(path: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(OpenError::NotAFile(path.to_path_buf())),
        Ok(found) if found.len() == 0 => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let mut header = [0; HEADER_BYTES];
    let read = std::fs::File::open(path)?.read_exact(&mut header);
    if read.is_err() || !header.starts_with(MAGIC) {
        return Err(OpenError::Damaged("it does not begin as a SQLite file does".to_owned()));
    }
    let number = |at: usize| {
        let bytes = header[at..at + 4].try_into().expect("four bytes are four bytes");
        u32::from_be_bytes(bytes)
    };
    let (application, found, known) = (number(APPLICATION_AT), number(VERSION_AT), MIGRATIONS.dirs().count());
    if application != APPLICATION_ID.cast_unsigned() && application != 0 {
        return Err(OpenError::Foreign(path.to_path_buf()));
    }
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if application != 0 && found > known {
        return Err(OpenError::Newer { path: path.to_path_buf(), found, known });
    }
    if application == 0 { look_for_strangers(path) } else { Ok(()) }
}

/// A file without our mark is ours only where it has no tables: a start that was cut short before the first migration
/// was durable. What is in the log of writes [`bring_up_to_date`] looks at.
fn look_for_strangers(path: &Path) -> Result<(), OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let mut address = url_of(path);
    address.push_str("?immutable=1");
    let looked = Connection::open_with_flags(address, flags)?;
    let tables: i64 = looked.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 { Err(OpenError::Foreign(path.to_path_buf())) } else { Ok(()) }
}

/// A path as SQLite takes it with parameters.
fn url_of(path: &Path) -> String {
    let escaped = percent_encoding::percent_encode(path.as_os_str().as_bytes(), percent_encoding::NON_ALPHANUMERIC);
    format!("file:{escaped}")
}

/// The settings of the writing connection. `synchronous=FULL` is a promise, not a setting: without it a power cut
/// loses commits that were acknowledged. The writer takes the log of writes in by itself, since SQLite's own way hides what
/// goes wrong.
fn configure(connection: &Connection, cache_kib: u32) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before the first write: a file that is there already takes it over when it is rewritten.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 16777216;",
    )?;
    configure_any(connection, cache_kib)
}

/// The settings that reading connections share.
pub(super) fn configure_any(connection: &Connection, cache_kib: u32) -> Result<(), rusqlite::Error> {
    connection.set_prepared_statement_cache_capacity(256);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(&format!(
        "PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{cache_kib};"
    ))
}

/// The schema that this program reads.
pub(super) fn known_schema() -> u64 {
    u64::try_from(MIGRATIONS.dirs().count()).expect("a handful of migrations")
}

/// Brings the schema up to date, after a copy was put aside.
pub(super) fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let migrations = Migrations::from_directory(&MIGRATIONS)?;
    let known = MIGRATIONS.dirs().count();
    let found: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(OpenError::Newer { path: path.to_path_buf(), found, known });
    }
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(OpenError::Foreign(path.to_path_buf()));
    }
    if found < known && found > 0 {
        back_up(connection, path, found)?;
    }
    migrations.to_latest(connection)?;
    rewrite_once(connection)?;
    Ok(())
}

/// A file made before pages were given back is rewritten so that it can. Asked of the file and not of its version: the
/// rewriting may have been cut short, and is done at the next start then.
fn rewrite_once(connection: &Connection) -> Result<(), rusqlite::Error> {
    let auto_vacuum: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if auto_vacuum != INCREMENTAL {
        tracing::info!(
            "the database file is rewritten once, so that it can give free pages back; this may take a while"
        );
        connection.execute_batch("VACUUM")?;
    }
    Ok(())
}

/// Copies the database beside itself, readable by its owner only, before a migration touches it.
fn back_up(connection: &Connection, path: &Path, version: usize) -> Result<(), OpenError> {
    let copy = path.with_extension(format!("db.before-schema-{}", version + 1));
    if copy.exists() {
        // A migration that failed half-way through an earlier start left the copy of the same state.
        std::fs::remove_file(&copy)?;
    }
    std::fs::OpenOptions::new().write(true).create_new(true).open(&copy)?;
    set_private(&copy)?;
    connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    tracing::info!(copy = %copy.display(), "the database was copied before its schema changes");
    Ok(())
}

fn set_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_file(path: &Path) -> Result<Connection, OpenError> {
        look_at_header(path)?;
        accept(path, 1024)
    }

    fn pragma(connection: &Connection, name: &str) -> String {
        connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).map_or_else(
            |e| e.to_string(),
            |value| match value {
                rusqlite::types::Value::Integer(i) => i.to_string(),
                rusqlite::types::Value::Text(t) => t,
                other => format!("{other:?}"),
            },
        )
    }

    #[test]
    fn the_writer_is_durable_and_strict() {
        let directory = tempfile::tempdir().expect("a directory");
        let connection = open_file(&directory.path().join("tidings.db")).expect("opens");
        for (name, value) in [
            ("journal_mode", "wal"),
            ("synchronous", "2"),
            ("foreign_keys", "1"),
            ("trusted_schema", "0"),
            ("auto_vacuum", "2"),
        ] {
            assert_eq!(pragma(&connection, name), value, "{name}");
        }
        assert_eq!(pragma(&connection, "application_id"), APPLICATION_ID.to_string());
    }

    #[test]
    fn a_newer_schema_is_refused_in_a_clear_sentence_and_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tidings.db");
        open_file(&path).expect("opens").pragma_update(None, "user_version", 99).expect("is set");
        let error = open_file(&path).expect_err("is refused");
        assert!(error.to_string().contains("written by a newer Tidings"), "{error}");
        let version: i64 = Connection::open(&path)
            .and_then(|c| c.pragma_query_value(None, "user_version", |row| row.get(0)))
            .expect("is still a database");
        assert_eq!(version, 99);
    }

    #[test]
    fn a_file_that_keeps_its_free_pages_is_rewritten_at_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tidings.db");
        // As a kill between the migration and the rewriting leaves it.
        let mut old = Connection::open(&path).expect("opens");
        old.execute_batch("PRAGMA journal_mode = WAL").expect("is set");
        bring_up_to_date(&mut old, &path).map(|()| drop(old)).expect("is brought up to date");
        let connection = Connection::open(&path).expect("opens");
        connection.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM").expect("is set");
        assert_eq!(pragma(&connection, "auto_vacuum"), "0");
        drop(connection);
        assert_eq!(pragma(&open_file(&path).expect("opens"), "auto_vacuum"), "2");
    }

    #[test]
    fn what_is_not_ours_is_not_touched() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tidings.db");
        Connection::open(&path).and_then(|c| c.execute_batch("CREATE TABLE theirs (x)")).expect("is made");
        let theirs = std::fs::read(&path).expect("it is there");
        assert!(matches!(open_file(&path), Err(OpenError::Foreign(_))));
        assert_eq!(std::fs::read(&path).expect("it is there"), theirs, "not a byte of it was changed");
        std::fs::write(&path, "this is a text, and rather more than a hundred bytes of it ".repeat(20))
            .expect("is written");
        assert!(matches!(open_file(&path), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn a_migration_first_puts_a_private_copy_aside() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tidings.db");
        let connection = open_file(&path).expect("opens");
        back_up(&connection, &path, 1).expect("is copied");
        let copy = directory.path().join("tidings.db.before-schema-2");
        assert_eq!(std::fs::metadata(&copy).expect("is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(
            pragma(&Connection::open(&copy).expect("opens"), "user_version"),
            MIGRATIONS.dirs().count().to_string()
        );
    }
}
