//! A database with many entries, written with SQL: what the server would have written, in minutes rather than hours.
//!
//! The schema is the server's own: it is started on the empty directory and stopped. Every user has the same number of
//! direct entries, one of each turn through all users, so that an inbox lies scattered over the whole log; the older
//! half of each was marked read, each by a mark of the user's own.
//!
//! **Invariant**: what is written is right by the server's own recount, which the bench asks for.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rusqlite::{Connection, params};
use tidings::clock::Clock;

use crate::support::client::{MESSAGE, message};
use crate::support::process::Tidings;
use crate::support::progress;

/// Rows that share a transaction.
const A_TRANSACTION: i64 = 100_000;
/// How long ago the first entry was published; the others follow evenly.
const SPAN: Duration = Duration::from_hours(30 * 24);
/// Steps through the users: a prime, so that it visits all of them, no neighbours in turn.
const STEP: i64 = 7_919;
/// The category that is there where none is named.
const CATEGORY: (i64, &str) = (1, "general");

/// How large a database is.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    pub users: i64,
    /// Direct entries of each; even.
    pub each: i64,
}

impl Measure {
    pub const fn entries(self) -> i64 {
        self.users * self.each
    }

    /// The position up to which all was marked read.
    const fn read(self) -> i64 {
        self.users * (self.each / 2)
    }

    /// The position of a user's entry in a turn, both from 0.
    const fn seq(self, user: i64, turn: i64) -> i64 {
        turn * self.users + user * STEP % self.users + 1
    }
}

/// Writes it into an empty directory. Users are `u0`, `u1`, …; their numbers leap, so that no neighbours are asked in
/// turn.
pub fn build(directory: &Path, measure: Measure) -> anyhow::Result<()> {
    ensure!(measure.users % STEP != 0, "the step through the users does not visit all of them");
    Tidings::start(directory)?.stop()?;
    let mut builder =
        Builder { database: Connection::open(directory.join("tidings.db"))?, measure, begun: Instant::now() };
    builder.run()
}

struct Builder {
    database: Connection,
    measure: Measure,
    begun: Instant,
}

impl Builder {
    fn run(&mut self) -> anyhow::Result<()> {
        // The server sets what it needs when it opens the file; a crash here costs no more than another run.
        self.database.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF;
             PRAGMA cache_size = -262144;",
        )?;
        let mut indices = self.database.prepare(
            "SELECT name, sql FROM sqlite_schema
             WHERE type = 'index' AND tbl_name IN ('entries', 'watermarks') AND sql IS NOT NULL",
        )?;
        let rows = indices.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let indices: Vec<(String, String)> = rows.collect::<Result<_, _>>().map(|rows| (drop(indices), rows).1)?;
        for (name, _) in &indices {
            self.database.execute_batch(&format!("DROP INDEX {name}"))?;
        }
        self.users()?;
        self.notifications()?;
        self.inboxes()?;
        self.watermarks()?;
        // Sorted at once: quicker than a million leaps.
        for (name, sql) in &indices {
            progress(&format!("index {name}"));
            self.database.execute_batch(sql)?;
        }
        let Measure { users, .. } = self.measure;
        self.database.execute(
            "UPDATE log SET head = ?1, last_user = ?2 WHERE id = 1",
            params![self.measure.entries() + users, users],
        )?;
        progress(&format!(
            "{} entries were written in {:.0} s",
            self.measure.entries(),
            self.begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Runs `insert` for every number below `count`, with a word about it now and then.
    fn rows(
        &mut self,
        what: &str,
        count: i64,
        sql: &str,
        mut insert: impl FnMut(&mut rusqlite::Statement<'_>, Measure, i64) -> rusqlite::Result<()>,
    ) -> anyhow::Result<()> {
        let measure = self.measure;
        for first in (0..count).step_by(usize::try_from(A_TRANSACTION)?) {
            let transaction = self.database.transaction()?;
            {
                let mut statement = transaction.prepare_cached(sql)?;
                for number in first..count.min(first + A_TRANSACTION) {
                    insert(&mut statement, measure, number)?;
                }
            }
            transaction.commit()?;
            if first > 0 && first % (10 * A_TRANSACTION) == 0 {
                progress(&format!("{what}: {first} of {count}, {:.0} s", self.begun.elapsed().as_secs_f64()));
            }
        }
        Ok(())
    }

    fn users(&mut self) -> anyhow::Result<()> {
        let (category, name) = CATEGORY;
        self.database.execute("INSERT INTO categories (id, name) VALUES (?1, ?2)", params![category, name])?;
        let appeared = now_ms() - span_ms();
        let sql = "INSERT INTO users (id, name, everyone_from, appeared_at) VALUES (?1, ?2, 0, ?3)";
        self.rows("users", self.measure.users, sql, |statement, measure, key| {
            let user = key * STEP % measure.users;
            statement.execute(params![key + 1, format!("u{user}"), appeared]).map(drop)
        })
    }

    fn notifications(&mut self) -> anyhow::Result<()> {
        let body = message(0, 0, MESSAGE);
        let (first, count) = (now_ms() - span_ms(), self.measure.entries());
        let sql = "INSERT INTO notifications
                (seq, id, category, priority, title, body, created_at, publisher_kind, publisher)
            VALUES (?1, ?2, ?3, 3, 'Build finished', ?4, ?5, 2, 'bench')";
        self.rows("notifications", count, sql, |statement, _, number| {
            let at = first + i64::try_from(i128::from(span_ms()) * i128::from(number) / i128::from(count)).unwrap_or(0);
            statement.execute(params![number + 1, id(at, number), CATEGORY.0, body, at]).map(drop)
        })
    }

    /// In the order of the table, so that it grows at its edge.
    fn inboxes(&mut self) -> anyhow::Result<()> {
        let count = self.measure.entries();
        let sql = "INSERT INTO entries (user, source, seq) VALUES (?1, ?2, ?3)";
        self.rows("entries", count, sql, |statement, measure, number| {
            let (key, turn) = (number / measure.each, number % measure.each);
            statement.execute(params![key + 1, -CATEGORY.0, measure.seq(key, turn)]).map(drop)
        })?;
        let sql = "INSERT INTO standings (user, source, joined, published, newest, unread_gone, unseen_gone, kept)
            VALUES (?1, ?2, 0, ?3, ?4, ?5, ?5, ?3)";
        self.rows("standings", self.measure.users, sql, |statement, measure, key| {
            let newest = measure.seq(key, measure.each - 1);
            statement.execute(params![key + 1, -CATEGORY.0, measure.each, newest, measure.each / 2]).map(drop)
        })
    }

    /// A mark for each user, behind all entries: read, and so seen.
    fn watermarks(&mut self) -> anyhow::Result<()> {
        let at = now_ms();
        let sql = "INSERT INTO watermarks (user, category, kind, upto, at, changed) VALUES (?1, 0, ?2, ?3, ?4, ?5)";
        self.rows("marks", self.measure.users, sql, |statement, measure, key| {
            for kind in [1, 2] {
                statement.execute(params![key + 1, kind, measure.read(), at, measure.entries() + key + 1])?;
            }
            Ok(())
        })
    }
}

fn now_ms() -> i64 {
    Clock::system().now().as_millis()
}

fn span_ms() -> i64 {
    i64::try_from(SPAN.as_millis()).unwrap_or(i64::MAX)
}

/// A `UUIDv7` of a moment; the number takes the place of what is random.
fn id(at_ms: i64, number: i64) -> [u8; 16] {
    let (at, number) = (u128::from(at_ms.unsigned_abs()), u128::from(number.unsigned_abs()));
    (at << 80 | 0x7 << 76 | 0b10 << 62 | number).to_be_bytes()
}
