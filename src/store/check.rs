//! Whether the log is whole and agrees with itself, and mending what can be computed anew.
//!
//! It needs a connection and nothing else, so it looks at a file that no server would open. A log in use is looked at in
//! a copy ([`super::backup`]).
//!
//! **Invariant**: a look changes nothing, not even by folding the write-ahead log in.
//! **Invariant**: a repair changes only what follows from other rows: indexes, rows that hang on nothing, the log's own
//! numbers, counts. What it can't mend it leaves as it was, and says so.
//!
//! Deliberately not here: whether the state directory is free, which whoever opens the file must know.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::backup::beside;
use super::ballast::Hold;
use super::log::{self, HeadFile};
use super::open::{self, APPLICATION_ID};
use super::reader::Reader;
use super::recount::{Drift, RepairTopics, RepairUser};
use super::writer::{self, State};
use super::{OpenError, StoreError, remains};
use crate::model::{Cursor, Epoch, Seq, Timestamp, TopicKey, UserId, UserKey};
use crate::wire::check::{Fault, Finding, Report};

/// Faults of one kind that are told at most.
const MAX_TOLD: usize = 20;
/// Users named of those whose counts are wrong.
const MAX_NAMED: usize = 5;
/// Page cache, in KiB.
const CACHE_KIB: u32 = 16 * 1024;

/// Rows that must hang on others: the table, and which of its rows hang on nothing.
const TIES: &[(&str, &str)] = &[
    ("entries", "user NOT IN (SELECT id FROM users) OR seq NOT IN (SELECT seq FROM notifications)"),
    (
        "standings",
        "user NOT IN (SELECT id FROM users) OR (source > 0 AND source NOT IN (SELECT id FROM topics))
         OR (source < 0 AND -source NOT IN (SELECT id FROM categories))",
    ),
    (
        "marks",
        "user NOT IN (SELECT id FROM users) OR (source > 0 AND source NOT IN (SELECT id FROM topics))
         OR (source < 0 AND -source NOT IN (SELECT id FROM categories))",
    ),
    (
        "watermarks",
        "user NOT IN (SELECT id FROM users) OR (category <> 0 AND category NOT IN (SELECT id FROM categories))",
    ),
    ("mutes", "user NOT IN (SELECT id FROM users) OR source NOT IN (SELECT id FROM topics)"),
    ("graves", "user NOT IN (SELECT id FROM users)"),
    ("dead_blocks", "topic NOT IN (SELECT id FROM topics)"),
    (
        "collapses",
        "(owner > 0 AND owner NOT IN (SELECT id FROM topics)) OR (owner < 0 AND -owner NOT IN (SELECT id FROM users))",
    ),
    ("profiles", "user NOT IN (SELECT id FROM users)"),
    ("preferences", "user NOT IN (SELECT id FROM users)"),
    ("template_versions", "name NOT IN (SELECT name FROM templates)"),
    ("wordings", UNPUBLISHED),
    ("letters", UNPUBLISHED),
    // They outlive their notification, so that the message log can tell of it.
    ("deliveries", "user NOT IN (SELECT id FROM users)"),
    ("attempts", "delivery NOT IN (SELECT id FROM deliveries)"),
];

/// What hangs on a notification that is neither in the log nor waits for its time.
const UNPUBLISHED: &str =
    "notification NOT IN (SELECT id FROM notifications) AND notification NOT IN (SELECT id FROM scheduled)";

/// Numbers of the log's row: the column, and what it must be at least.
const NUMBERS: &[(&str, &str)] = &[
    (
        "head",
        "max(coalesce((SELECT max(seq) FROM notifications), 0), coalesce((SELECT max(died) FROM notifications), 0),
             coalesce((SELECT max(changed) FROM marks), 0), coalesce((SELECT max(changed) FROM watermarks), 0),
             coalesce((SELECT max(died) FROM graves), 0), coalesce((SELECT max(began) FROM standings), 0),
             coalesce((SELECT max(shrunk) FROM topics), 0))",
    ),
    ("last_user", "coalesce((SELECT max(id) FROM users), 0)"),
    ("last_topic", "coalesce((SELECT max(id) FROM topics), 0)"),
];

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every page, row and index.
    Integrity,
    ForeignKeys,
    /// Rows of this table that hang on nothing.
    Orphans(&'static str),
    /// So many users' entries were counted, of so many.
    Counts(u64, u64),
    /// Mending what was found.
    Mending,
}

/// What is done with what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// It is told and left.
    Nothing,
    /// What can be computed anew is. A log that is an older copy gets a new epoch.
    All(Timestamp),
}

/// Checks the log of a state directory that nobody uses.
///
/// # Errors
/// Where there is no file, or it can't even be opened. What is wrong in it is told in the report.
pub fn check_stopped(directory: &Path, mend: Mend, progress: &mut dyn FnMut(Check)) -> Result<Report, OpenError> {
    let path = directory.join(open::FILE);
    if let Some(lost) = remains::of_lost(&path)? {
        return Err(OpenError::Damaged(lost));
    }
    // Neither made where it is missing, nor folded where it is not.
    let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let unfolded = size(&beside(&path, "-wal")).is_some_and(|bytes| bytes > 0);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, unfolded)?;
    let report = look(&connection, &path, progress);
    let Mend::All(now) = mend else { return Ok(report) };
    if report.findings.is_empty() || report.findings.iter().any(|finding| finding.fault == Fault::NotALog) {
        return Ok(report);
    }
    progress(Check::Mending);
    let hindered = self::mend(&connection, directory, &report, now).err();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    let mut after = look(&connection, &path, progress);
    // A kind of which nothing is left was mended; of one that is still found, the rest is what could not be.
    let left = |fault| after.findings.iter().any(|finding| finding.fault == fault);
    after.mended = report.findings.into_iter().filter(|finding| !left(finding.fault)).collect();
    if let (Some(error), Some(first)) = (hindered, after.findings.first_mut()) {
        first.detail = format!("{}; mending stopped there: {error}", first.detail);
    }
    Ok(after)
}

/// Whether SQLite finds the file whole and every row that another names.
///
/// # Errors
/// [`StoreError::Damaged`] with the first fault, or what hindered the look.
pub(super) fn is_whole(connection: &Connection) -> Result<(), StoreError> {
    let told: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if told != "ok" {
        return Err(StoreError::Damaged(told));
    }
    match foreign_keys(connection)?.first() {
        Some(finding) => Err(StoreError::Damaged(finding.detail.clone())),
        None => Ok(()),
    }
}

/// Looks at everything there is to look at. `file` is the log itself, where the connection is to a copy.
pub(super) fn look(connection: &Connection, file: &Path, progress: &mut dyn FnMut(Check)) -> Report {
    let mut report = Report { known_schema: open::known_schema(), ..Report::default() };
    report.wal_bytes = size(&beside(file, "-wal")).unwrap_or_default();
    report.ballast_bytes = size(&file.with_file_name("tidings.ballast"));
    if let Err(error) = look_into(connection, &mut report, progress) {
        let fault = if report.schema == 0 { Fault::NotALog } else { Fault::Integrity };
        report.findings.push(Finding { fault, detail: format!("it can't be read to its end: {error}") });
    }
    report
}

fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.len())
}

fn look_into(
    connection: &Connection,
    report: &mut Report,
    progress: &mut dyn FnMut(Check),
) -> Result<(), rusqlite::Error> {
    open::configure_any(connection, CACHE_KIB)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    report.pages = number("page_count")?;
    report.free_pages = number("freelist_count")?;
    report.page_bytes = number("page_size")?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let not_a_log = |detail: String| Finding { fault: Fault::NotALog, detail };
    if application != APPLICATION_ID {
        report.findings.push(not_a_log("it is a SQLite file of another application".to_owned()));
        return Ok(());
    }
    report.schema = number("user_version")?;
    if report.schema != report.known_schema {
        let detail = format!(
            "its schema is {}, and this program reads {}: {}",
            report.schema,
            report.known_schema,
            if report.schema > report.known_schema {
                "install the version that wrote it"
            } else {
                "start the server once"
            }
        );
        report.findings.push(not_a_log(detail));
        return Ok(());
    }
    progress(Check::Integrity);
    report.findings.extend(integrity(connection)?);
    progress(Check::ForeignKeys);
    report.findings.extend(foreign_keys(connection)?);
    for (table, loose) in TIES {
        progress(Check::Orphans(table));
        let sql = format!("SELECT count(*) FROM {table} WHERE {loose}");
        let count: u64 = connection.query_row(&sql, [], |row| row.get(0))?;
        if count > 0 {
            let detail = format!("{count} of the rows of {table} hang on nothing");
            report.findings.push(Finding { fault: Fault::Orphans, detail });
        }
    }
    let Some((epoch, head)) = log_row(connection, report)? else { return Ok(()) };
    report.cursor = Some(Cursor { epoch: epoch.clone(), seq: head }.to_string());
    numbers(connection, report)?;
    counts(connection, &epoch, head, report, progress)
}

fn integrity(connection: &Connection) -> Result<Vec<Finding>, rusqlite::Error> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MAX_TOLD})"))?;
    let told: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let found = told.into_iter().filter(|line| line != "ok");
    Ok(found.map(|detail| Finding { fault: Fault::Integrity, detail }).collect())
}

fn foreign_keys(connection: &Connection) -> Result<Vec<Finding>, rusqlite::Error> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(2)?)))?;
    let mut broken: Vec<(String, String, u64)> = Vec::new();
    for row in rows {
        let (table, parent): (String, String) = row?;
        match broken.iter_mut().find(|(t, p, _)| *t == table && *p == parent) {
            Some((.., count)) => *count += 1,
            None => broken.push((table, parent, 1)),
        }
    }
    let tell = |(table, parent, count)| Finding {
        fault: Fault::ForeignKeys,
        detail: format!("{count} of the rows of {table} name rows of {parent} that are not there"),
    };
    Ok(broken.into_iter().map(tell).collect())
}

fn log_row(connection: &Connection, report: &mut Report) -> Result<Option<(Epoch, Seq)>, rusqlite::Error> {
    match log::stored(connection)? {
        Some((epoch, head)) if Epoch::new(&epoch).is_some() => Ok(Epoch::new(&epoch).map(|epoch| (epoch, head))),
        Some(_) => {
            report.findings.push(Finding { fault: Fault::NotALog, detail: "the log has no valid epoch".to_owned() });
            Ok(None)
        }
        None => {
            report.findings.push(Finding { fault: Fault::NotALog, detail: "the log's own row is missing".to_owned() });
            Ok(None)
        }
    }
}

fn numbers(connection: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    for (column, least) in NUMBERS {
        let sql = format!("SELECT {column}, {least} FROM log WHERE id = 1");
        let (stored, least): (i64, i64) = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if stored < least {
            let detail = format!("{column} is {stored}, and {least} was given out");
            report.findings.push(Finding { fault: Fault::Head, detail });
        }
    }
    let sql = "SELECT scheduled, (SELECT count(*) FROM scheduled) FROM log WHERE id = 1";
    let (stored, waiting): (i64, i64) = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if stored != waiting {
        let detail = format!("scheduled is {stored}, and {waiting} wait");
        report.findings.push(Finding { fault: Fault::Head, detail });
    }
    Ok(())
}

/// As `tidings doctor --counts` does, user by user.
fn counts(
    connection: &Connection,
    epoch: &Epoch,
    head: Seq,
    report: &mut Report,
    progress: &mut dyn FnMut(Check),
) -> Result<(), rusqlite::Error> {
    let told =
        |error: StoreError| Finding { fault: Fault::Counts, detail: format!("they can't be recounted: {error}") };
    let reader = Reader::on(connection, head, epoch);
    let of = match reader.count_users() {
        Ok(of) => of,
        Err(error) => {
            report.findings.push(told(error));
            return Ok(());
        }
    };
    let (mut next, mut wrong, mut named) = (Some(UserKey(0)), 0_usize, Vec::new());
    while let Some(after) = next {
        progress(Check::Counts(report.users, of));
        match reader.drift(after) {
            Ok((looked_at, drifted, following)) => {
                report.users += u64::try_from(looked_at).unwrap_or_default();
                wrong += drifted.len();
                named.extend(drifted.into_iter().take(MAX_NAMED).map(|Drift { user, .. }| user.to_string()));
                next = following;
            }
            Err(error) => {
                report.findings.push(told(error));
                return Ok(());
            }
        }
    }
    if wrong > 0 {
        named.truncate(MAX_NAMED);
        let detail = format!("the counts of {wrong} of {of} users are wrong, such as {}", named.join(", "));
        report.findings.push(Finding { fault: Fault::Counts, detail });
    }
    let sql = "SELECT count(*) FROM topics WHERE name <> 'everyone' AND deleted IS NULL AND followers <>
               (SELECT count(*) FROM standings s WHERE s.source = topics.id AND s.parted IS NULL)";
    let topics: u64 = connection.query_row(sql, [], |row| row.get(0))?;
    if topics > 0 {
        let detail = format!("{topics} topics count other followers than they have");
        report.findings.push(Finding { fault: Fault::Counts, detail });
    }
    Ok(())
}

/// Computes anew what can be, from what the others hang on to what hangs on them.
fn mend(connection: &Connection, directory: &Path, report: &Report, now: Timestamp) -> Result<(), StoreError> {
    let found = |fault| report.findings.iter().any(|finding| finding.fault == fault);
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    if found(Fault::Integrity) {
        connection.execute_batch("REINDEX")?;
    }
    // What it is made of is read next, and may hang on what is not there.
    connection.execute_batch("PRAGMA foreign_keys = OFF")?;
    for (table, loose) in TIES {
        connection.execute(&format!("DELETE FROM {table} WHERE {loose}"), [])?;
    }
    connection.execute_batch("PRAGMA foreign_keys = ON")?;
    for (column, least) in NUMBERS {
        let sql = format!("UPDATE log SET {column} = {least} WHERE id = 1 AND {column} < {least}");
        // Positions above what is still stored may have been given out: no cursor of this name is to be trusted.
        if connection.execute(&sql, [])? > 0 && *column == "head" {
            log::rename(connection)?;
        }
    }
    connection.execute("UPDATE log SET scheduled = (SELECT count(*) FROM scheduled) WHERE id = 1", [])?;
    mend_counts(connection, directory, now)
}

fn mend_counts(connection: &Connection, directory: &Path, now: Timestamp) -> Result<(), StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Failed(error.to_string());
    let mut file = HeadFile::open(directory).map_err(|error| failed(&error))?;
    let (epoch, head) = log::read(connection, &mut file, now).map_err(|error| failed(&error))?;
    let mut state = State::new(epoch.clone(), head, file, Hold::begin(directory));
    let mut topic = Some(TopicKey(0));
    while let Some(after) = topic {
        topic = writer::apply_alone(connection, &mut state, RepairTopics { after })?;
    }
    let mut next = Some(UserKey(0));
    while let Some(after) = next {
        let (_, drifted, following) = Reader::on(connection, state.head(), &epoch).drift(after)?;
        for Drift { user, .. } in drifted {
            writer::apply_alone::<RepairUser>(connection, &mut state, RepairUser { user: UserId::clone(&user) })?;
        }
        next = following;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tie_and_number_fits_the_schema() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(open::FILE);
        let mut connection = Connection::open(&path).expect("opens");
        open::bring_up_to_date(&mut connection, &path).expect("a new log");
        let mut head = HeadFile::open(directory.path()).expect("a file");
        log::read(&connection, &mut head, Timestamp::from_seconds(1)).expect("its row is made");
        let mut seen = Vec::new();
        let report = look(&connection, &path, &mut |step| seen.push(step));
        assert_eq!((report.findings.as_slice(), report.schema), (&[][..], open::known_schema()));
        assert_eq!(seen.iter().filter(|step| matches!(step, Check::Orphans(_))).count(), TIES.len());
        mend(&connection, directory.path(), &report, Timestamp::from_seconds(2)).expect("nothing is there to mend");
    }
}
