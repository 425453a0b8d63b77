//! What a log holds when nobody runs on it, held against what publishers were told: the judge of the tests that take the
//! disk away.

use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What a publisher was told.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub title: String,
    pub seq: u64,
    /// How much had been written when it was told, where that is known.
    pub told: u64,
}

/// A mark that was acknowledged: what came to a user up to a position is read.
#[derive(Clone, Debug)]
pub struct Marked {
    pub user: String,
    pub upto: u64,
    /// As that of [`Acknowledged`].
    pub told: u64,
}

/// What is wrong with a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged, and not there, or not where it was said to be.
    pub lost: Vec<String>,
    /// There, and nobody asked for it, or it was refused.
    pub phantoms: Vec<String>,
    /// Not what SQLite calls whole, or doubled, or beyond its own head.
    pub broken: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Judges the log of a directory. `possible` is everything that was asked for and not refused.
pub fn judge<'a>(
    data: &Path,
    acknowledged: impl Iterator<Item = &'a Acknowledged>,
    possible: &HashSet<String>,
) -> Verdict {
    let mut verdict = Verdict::default();
    let found = match read(data, &mut verdict) {
        Ok(found) => found,
        Err(error) => {
            verdict.broken.push(error.to_string());
            HashMap::new()
        }
    };
    for Acknowledged { title, seq, .. } in acknowledged {
        if found.get(title) != Some(seq) {
            verdict.lost.push(format!("{title} at {seq}, found at {:?}", found.get(title)));
        }
    }
    verdict.phantoms = found.into_keys().filter(|title| !possible.contains(title)).collect();
    verdict
}

/// Marks that were acknowledged and are not there.
pub fn unmarked<'a>(data: &Path, marks: impl Iterator<Item = &'a Marked>) -> Vec<String> {
    let found = read_marks(data).unwrap_or_default();
    let is_lost = |mark: &&Marked| found.get(&mark.user) < Some(&mark.upto);
    marks.filter(is_lost).map(|mark| format!("{mark:?}, found {:?}", found.get(&mark.user))).collect()
}

/// How far each user has read. (2 is "read", 0 is every category.)
fn read_marks(data: &Path) -> rusqlite::Result<HashMap<String, u64>> {
    let log = rusqlite::Connection::open(data.join("tidings.db"))?;
    let mut statement = log.prepare(
        "SELECT u.name, max(w.upto) FROM watermarks w JOIN users u ON u.id = w.user
         WHERE w.kind = 2 AND w.category = 0 GROUP BY u.name",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    rows.collect()
}

/// The titles with their positions.
fn read(data: &Path, verdict: &mut Verdict) -> rusqlite::Result<HashMap<String, u64>> {
    let path = data.join("tidings.db");
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let log = rusqlite::Connection::open(path)?;
    let whole: String = log.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if whole != "ok" {
        verdict.broken.push(whole);
    }
    let tables: i64 =
        log.query_row("SELECT count(*) FROM sqlite_schema WHERE name IN ('log', 'notifications')", [], |row| {
            row.get(0)
        })?;
    if tables < 2 {
        return Ok(HashMap::new());
    }
    let mut statement = log.prepare("PRAGMA foreign_key_check")?;
    let orphans: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    verdict.broken.extend(orphans.into_iter().map(|table| format!("an orphan in {table}")));
    // The row is made just after the tables.
    let head: i64 = log.query_row("SELECT coalesce(max(head), 0) FROM log", [], |row| row.get(0))?;
    // What was retracted has no title any more.
    let mut statement = log.prepare("SELECT title, seq FROM notifications WHERE title <> '' ORDER BY seq")?;
    let rows: Vec<(String, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut found = HashMap::new();
    for (title, seq) in rows {
        if seq > head {
            verdict.broken.push(format!("{title} at {seq} lies beyond the head {head}"));
        }
        if found.insert(title.clone(), seq.unsigned_abs()).is_some() {
            verdict.broken.push(format!("{title} is there twice"));
        }
    }
    Ok(found)
}
