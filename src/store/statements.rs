//! What is held of every statement of the store: it is listed, it prepares against the schema, and it never walks
//! through a big table; the hot ones are ranges of a named index. And a publish to a topic writes the same few rows
//! however many follow it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::writer::Operation;
use super::{
    AskedBy, Follow, Policy, Publish, Store, Unknown, deaths, deliveries, dispatches, erase, expansions, export,
    follows, idempotency, inbox, keys, leases, letters, log, marks, notifications, placed, profiles, publish, reader,
    recount, rehearsal, replay, retention, revocations, schedule, scratch, sight, states, status, strays, templates,
    tickets, topics, users, wordings,
};
use crate::lifecycle::Lifecycle;
use crate::model::{
    Audience, Category, CategoryCounts, Content, Draft, NotificationId, Seq, Timestamp, TopicName, UserId, UserKey,
};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const HORIZON: std::time::Duration = std::time::Duration::from_hours(7 * 24);

/// Each file of the store that holds SQL, with what it lists.
const FILES: &[(&str, &[&str])] = &[
    ("deaths.rs", deaths::STATEMENTS),
    ("deliveries.rs", deliveries::STATEMENTS),
    ("dispatches.rs", dispatches::STATEMENTS),
    ("erase.rs", erase::STATEMENTS),
    ("expansions.rs", expansions::STATEMENTS),
    ("export.rs", export::STATEMENTS),
    ("follows.rs", follows::STATEMENTS),
    ("idempotency.rs", idempotency::STATEMENTS),
    ("inbox.rs", inbox::STATEMENTS),
    ("keys.rs", keys::STATEMENTS),
    ("leases.rs", leases::STATEMENTS),
    ("letters.rs", letters::STATEMENTS),
    ("log.rs", log::STATEMENTS),
    ("marks.rs", marks::STATEMENTS),
    ("notifications.rs", notifications::STATEMENTS),
    ("placed.rs", placed::STATEMENTS),
    ("profiles.rs", profiles::STATEMENTS),
    ("publish.rs", publish::STATEMENTS),
    ("reader.rs", reader::STATEMENTS),
    ("recount.rs", recount::STATEMENTS),
    ("rehearsal.rs", rehearsal::STATEMENTS),
    ("replay.rs", replay::STATEMENTS),
    ("retention.rs", retention::STATEMENTS),
    ("revocations.rs", revocations::STATEMENTS),
    ("schedule.rs", schedule::STATEMENTS),
    ("sight.rs", sight::STATEMENTS),
    ("states.rs", states::STATEMENTS),
    ("status.rs", status::STATEMENTS),
    ("strays.rs", strays::STATEMENTS),
    ("templates.rs", templates::STATEMENTS),
    ("tickets.rs", tickets::STATEMENTS),
    ("topics.rs", topics::STATEMENTS),
    ("users.rs", users::STATEMENTS),
    ("wordings.rs", wordings::STATEMENTS),
];

/// A store with its schema, and a connection of our own to look at it with.
struct Bench {
    store: Store,
    database: Connection,
    lifecycle: Lifecycle,
    _directory: TempDir,
}

impl Bench {
    async fn open() -> Self {
        let (store, lifecycle, directory) = scratch::open(NOW).await;
        let database = Connection::open(store.path()).expect("the database opens a second time");
        Self { store, database, lifecycle, _directory: directory }
    }

    async fn write<O: Operation>(&self, operation: O) -> O::Output {
        self.store.write(operation).await.unwrap_or_else(|error| panic!("a write failed: {error}"))
    }

    /// The steps of SQLite's plan for a statement.
    fn plan(&self, sql: &str) -> Vec<String> {
        let mut statement = self
            .database
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap_or_else(|error| panic!("{error} in {sql}"));
        // Parameters stay unbound: the plan does not depend on them.
        statement
            .raw_query()
            .mapped(|row| row.get(3))
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("no plan for {sql}: {error}"))
    }

    async fn close(self) {
        let Self { store, lifecycle, .. } = self;
        drop(store);
        assert!(lifecycle.core_ended(std::time::Duration::from_secs(5)).await, "the writer ends with its last user");
    }
}

/// The one statement of a file that holds `fragment`.
fn the(file: &str, fragment: &str) -> &'static str {
    let listed = FILES.iter().find(|(name, _)| *name == file).map_or(&[][..], |(_, statements)| statements);
    let found: Vec<&str> = listed.iter().copied().filter(|sql| sql.contains(fragment)).collect();
    let [sql] = found[..] else { panic!("{} statements of {file} hold `{fragment}`", found.len()) };
    sql
}

/// Statements that may walk through a whole table, and why that stays cheap.
const WALKS: &[(&str, &str, &str)] = &[
    ("revocations.rs", "FROM revocations", "they are few, and read at start and when one is added"),
    ("log.rs", "SELECT created_at FROM notifications", "the last row, read once at start"),
    ("keys.rs", "old_until FROM api_keys", "keys are few, and read once at start"),
    ("erase.rs", "scheduled", "what waits is bounded, and erasing is rare"),
    ("export.rs", "EXISTS", "what waits is bounded, and exporting is rare"),
    ("recount.rs", "count(*) FROM users", "an operator's question"),
    ("expansions.rs", "FROM expansions", "they are bounded, and looked at one after the other"),
    ("dispatches.rs", "FROM deliveries d JOIN users u ON u.id = d.user WHERE d.id <", "bounded, from the newest back"),
    ("leases.rs", "INDEXED BY deliveries_leased WHERE state = 2 ORDER", "leases of an ended process, once at start"),
    ("leases.rs", "SELECT EXISTS (SELECT 1 FROM deliveries", "the first row of an index of what is open"),
    ("schedule.rs", "WHERE failed IS NULL ORDER BY", "the first row of an index of what waits"),
    ("schedule.rs", "WHERE expires_at IS NOT NULL AND", "the first row of an index of what will expire"),
    ("templates.rs", "count(*) FROM templates", "templates are bounded, and counted when one is added"),
    ("topics.rs", "count(*) FROM categories", "categories are bounded, and counted when one is added"),
];

#[test]
fn every_statement_that_a_file_names_is_listed() {
    look_into(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store"));
}

fn look_into(directory: &Path) {
    let entries = std::fs::read_dir(directory).expect("the store's sources are there");
    for entry in entries {
        let path = entry.expect("the store's sources can be listed").path();
        if path.is_dir() {
            look_into(&path);
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name == "statements.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let named = sql_constants(&text);
        let listed = FILES.iter().find(|(file, _)| *file == name).map_or(0, |(_, statements)| statements.len());
        assert_eq!(named, listed, "{name} names {named} SQL texts and lists {listed}");
    }
}

/// Constants that hold SQL: they begin with one of its verbs.
fn sql_constants(text: &str) -> usize {
    let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
    let after_type = text.split(": &str =").skip(1).map(|rest| rest.trim_start().trim_start_matches('"').trim_start());
    after_type.filter(|sql| verbs.iter().any(|verb| sql.starts_with(verb))).count()
}

#[tokio::test]
async fn every_statement_prepares_and_walks_through_no_big_table() {
    let bench = Bench::open().await;
    let mut walking = Vec::new();
    for (file, statements) in FILES {
        for sql in *statements {
            let plan = bench.plan(sql);
            if WALKS.iter().any(|(of, fragment, _)| of == file && sql.contains(fragment)) {
                continue;
            }
            // What a subquery hands out is as small as the range it was made of.
            let walks = |step: &String| {
                (step.starts_with("SCAN")
                    && !step.starts_with("SCAN (subquery")
                    && !["SCAN CONSTANT ROW", "SCAN taken"].contains(&step.as_str()))
                    || step.contains("TEMP B-TREE")
            };
            if plan.iter().any(walks) {
                walking.push(format!("{file}: {plan:#?}\n{sql}"));
            }
        }
    }
    assert!(walking.is_empty(), "{}", walking.join("\n"));
    bench.close().await;
}

/// Each line: the file, what tells its statement from the others there, the step its plan must hold.
const HOT: &[(&str, &str, &str)] = &[
    ("replay.rs", "FROM entries", "SEARCH entries USING PRIMARY KEY (user=? AND source=? AND seq>? AND seq<?)"),
    (
        "replay.rs",
        "died IS NULL ORDER BY seq LIMIT ?4",
        "SEARCH notifications USING COVERING INDEX notifications_by_topic (topic=? AND seq>? AND seq<?)",
    ),
    (
        "replay.rs",
        "DISTINCT m.changed",
        "SEARCH m USING COVERING INDEX marks_changed (user=? AND changed>? AND changed<?)",
    ),
    (
        "replay.rs",
        "DISTINCT changed FROM watermarks",
        "SEARCH watermarks USING COVERING INDEX watermarks_changed (user=? AND changed>? AND changed<?)",
    ),
    ("replay.rs", "FROM watermarks w", "SEARCH w USING COVERING INDEX watermarks_changed (user=? AND changed=?)"),
    ("replay.rs", "at IS NULL, n.id FROM marks m", "SEARCH m USING INDEX marks_changed (user=? AND changed=?)"),
    ("inbox.rs", "FROM entries", "SEARCH entries USING PRIMARY KEY (user=? AND source=? AND seq>? AND seq<?)"),
    (
        "inbox.rs",
        "FROM notifications",
        "SEARCH notifications USING COVERING INDEX notifications_by_topic (topic=? AND seq>? AND seq<?)",
    ),
    (
        "sight.rs",
        "SELECT ordinal",
        "SEARCH notifications USING COVERING INDEX notifications_by_topic (topic=? AND seq<?)",
    ),
    ("sight.rs", "FROM standings s", "SEARCH s USING PRIMARY KEY (user=?)"),
    ("sight.rs", "count(*) FROM entries", "SEARCH entries USING PRIMARY KEY (user=? AND source=? AND seq>? AND seq<?)"),
    ("leases.rs", "SELECT lane, next_at", "SEARCH lanes USING COVERING INDEX lanes_due (medium=?)"),
    (
        "leases.rs",
        "next_at <= ?3",
        "SEARCH deliveries USING COVERING INDEX deliveries_in_lane (medium=? AND lane=? AND next_at<?)",
    ),
    ("leases.rs", "lane > ?2", "SEARCH deliveries USING COVERING INDEX deliveries_in_lane (medium=? AND lane>?)"),
    (
        "leases.rs",
        "SELECT min(next_at)",
        "SEARCH deliveries USING COVERING INDEX deliveries_in_lane (medium=? AND lane=?)",
    ),
    (
        "deliveries.rs",
        "SELECT id, user, medium",
        "SEARCH deliveries USING INDEX deliveries_by_notification (notification=? AND id>?)",
    ),
    (
        "dispatches.rs",
        "sum(state = 1)",
        "SEARCH deliveries USING COVERING INDEX deliveries_by_notification (notification=?)",
    ),
    ("dispatches.rs", "d.user = ?1 AND d.id < ?2", "SEARCH d USING INDEX deliveries_by_user (user=? AND id<?)"),
    ("dispatches.rs", "d.id >= ?2", "SEARCH d USING INDEX deliveries_by_user (user=? AND id>? AND id<?)"),
    (
        "dispatches.rs",
        "SELECT min(id)",
        "SEARCH deliveries USING COVERING INDEX deliveries_by_notification (notification=?)",
    ),
    ("dispatches.rs", "count(*), min", "SEARCH deliveries USING COVERING INDEX deliveries_due (medium=?)"),
    ("placed.rs", "SELECT n.seq", "SEARCH n USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    ("placed.rs", "FROM entries WHERE", "SEARCH entries USING PRIMARY KEY (user=? AND source=? AND seq>? AND seq<?)"),
    ("placed.rs", "FROM entries e", "SEARCH e USING COVERING INDEX entries_by_notification (seq=? AND user<?)"),
    ("expansions.rs", "standings_by_topic", "SEARCH s USING INDEX standings_by_topic (source=? AND user>?)"),
    ("status.rs", "s.joined < ?2", "SEARCH w USING PRIMARY KEY (user=? AND category=? AND kind=? AND upto>?)"),
    (
        "states.rs",
        "ORDER BY upto LIMIT 1",
        "SEARCH watermarks USING PRIMARY KEY (user=? AND category=? AND kind=? AND upto>?)",
    ),
    ("states.rs", "SELECT kind, at FROM marks", "SEARCH marks USING PRIMARY KEY (user=? AND source=? AND seq=?)"),
    ("marks.rs", "UPDATE marks", "SEARCH marks USING INDEX marks_taken_back (user=? AND source=? AND seq>? AND seq<?)"),
    (
        "marks.rs",
        "INDEXED BY marks_taken_back\n",
        "SEARCH marks USING INDEX marks_taken_back (user=? AND source=? AND seq>? AND seq<?)",
    ),
    ("recount.rs", "UNION ALL", "SEARCH marks USING INDEX marks_taken_back (user=? AND source=? AND seq>? AND seq<?)"),
    ("notifications.rs", "SELECT n.seq, n.id, t.name", "SEARCH n USING INTEGER PRIMARY KEY (rowid=?)"),
    ("notifications.rs", "WHERE n.id = ?1", "SEARCH n USING INDEX sqlite_autoindex_notifications_1 (id=?)"),
    ("publish.rs", "UPDATE topics", "SEARCH topics USING INTEGER PRIMARY KEY (rowid=?)"),
    ("topics.rs", "t.name = ?1 AND", "SEARCH t USING INDEX topics_by_name (name=?)"),
    ("follows.rs", "SELECT joined", "SEARCH standings USING PRIMARY KEY (user=? AND source=?)"),
    ("users.rs", "FROM users WHERE name", "SEARCH users USING COVERING INDEX sqlite_autoindex_users_1 (name=?)"),
    ("users.rs", "ORDER BY seq LIMIT 1", "SEARCH notifications USING INTEGER PRIMARY KEY (rowid>?)"),
    (
        "idempotency.rs",
        "SELECT body_hash",
        "SEARCH idempotency USING PRIMARY KEY (principal_kind=? AND principal=? AND route=? AND key=?)",
    ),
    ("idempotency.rs", "DELETE", "SEARCH idempotency USING COVERING INDEX idempotency_by_age (created_at<?)"),
    ("tickets.rs", "SELECT hash", "SEARCH tickets USING INDEX sqlite_autoindex_tickets_1 (id=?)"),
];

#[tokio::test]
async fn hot_statements_are_ranges_of_the_index_that_was_made_for_them() {
    let bench = Bench::open().await;
    for (file, fragment, step) in HOT {
        let plan = bench.plan(the(file, fragment));
        assert!(plan.iter().any(|found| found == step), "{file}, `{fragment}`: {plan:#?} does not hold\n{step}");
    }
    bench.close().await;
}

/// `COUNT_ENTRY` has no plan to explain: an upsert looks its row up by the primary key that it would conflict with.
#[tokio::test]
async fn the_upserts_meet_their_conflict_in_the_primary_key() {
    let bench = Bench::open().await;
    for (table, key) in
        [("standings", ["user", "source", "joined"].as_slice()), ("marks", &["user", "source", "seq", "kind"])]
    {
        let mut statement = bench
            .database
            .prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")
            .expect("SQLite tells a table's columns");
        let columns: Vec<String> =
            statement.query_map([table], |row| row.get(0)).and_then(Iterator::collect).expect("are told");
        assert_eq!(columns, key, "{table}");
    }
    bench.close().await;
}

const FOLLOWERS: i64 = 100_000;

#[tokio::test]
async fn a_publish_to_a_topic_of_100_000_followers_writes_one_notification_row_and_none_for_a_follower() {
    let bench = Bench::open().await;
    let topic = TopicName::new("ops").expect("a topic");
    let publish = |title: &str| Publish {
        id: NotificationId(uuid::Uuid::now_v7()),
        draft: Draft {
            to: Audience::Topic(topic.clone()),
            content: Content { title: title.to_owned(), ..Content::default() },
            category_named: false,
            life: crate::model::Life::default(),
            via: crate::model::Via::default(),
        },
        when: Ok(super::When::default()),
        publisher: crate::model::Principal::Operator,
        idempotency: None,
        now: NOW,
        policy: Policy {
            topics: Unknown::Create,
            users: Unknown::Create,
            everyone_horizon: HORIZON,
            media: Arc::default(),
        },
    };
    // The first follower and the first entry make the topic; the other followers come by SQL, for speed.
    let first = UserId::new("first").expect("a user");
    let follow = Follow {
        topic: topic.clone(),
        user: first,
        by: AskedBy::Manager,
        last: 0,
        now: NOW,
        everyone_horizon: HORIZON,
        unknown: Unknown::Create,
    };
    bench.write(follow).await;
    bench.write(publish("before")).await;
    bench
        .database
        .execute_batch(&format!(
            "BEGIN IMMEDIATE;
             WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {FOLLOWERS})
                 INSERT INTO users (id, name, everyone_from, appeared_at) SELECT i, 'user ' || i, 0, 0 FROM n;
             INSERT INTO standings (user, source, joined, unread_gone, unseen_gone)
                 SELECT u.id, t.id, 2, 1, 1 FROM users u, topics t WHERE u.id > 1;
             UPDATE topics SET followers = {FOLLOWERS};
             COMMIT;"
        ))
        .expect("followers are added");
    record_writes(&bench.database);

    let outcome = bench.write(publish("to all of them")).await;

    assert_eq!(outcome.recipients, Some(FOLLOWERS as u64));
    let written: BTreeMap<(String, String), u64> = writes(&bench.database);
    let expected = [(("log", "update"), 1), (("notifications", "insert"), 1), (("topics", "update"), 1)];
    let expected: BTreeMap<(String, String), u64> =
        expected.into_iter().map(|((table, verb), rows)| ((table.to_owned(), verb.to_owned()), rows)).collect();
    assert_eq!(written, expected);

    // And yet it counts for each of them, the last as well as the first.
    for (user, unread) in [(UserKey(1), 2), (UserKey(FOLLOWERS), 1)] {
        let sight = bench.store.read(move |session| session.snapshot(|reader| reader.sight(user))).await;
        let counts = sight.expect("the user's sight is read").counts(|_| true);
        let of_category = counts.by_category.get(&Category::default()).copied().unwrap_or_default();
        assert_eq!(of_category, CategoryCounts { unread, unseen: unread }, "{user:?}");
    }
    assert_eq!(bench.store.head(), Seq(3));
    bench.close().await;
}

/// Puts triggers on every table that note each row which is written, whoever writes it.
fn record_writes(database: &Connection) {
    let tables: Vec<String> = database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .expect("the schema is read");
    assert!(tables.iter().any(|table| table == "standings"), "{tables:?}");
    database.execute_batch("CREATE TABLE written (name TEXT, verb TEXT)").expect("the note book is made");
    for table in tables {
        for verb in ["insert", "update", "delete"] {
            let trigger = format!(
                "CREATE TRIGGER {table}_{verb} AFTER {verb} ON {table}
                 BEGIN INSERT INTO written VALUES ('{table}', '{verb}'); END"
            );
            database.execute_batch(&trigger).unwrap_or_else(|error| panic!("{trigger}: {error}"));
        }
    }
}

/// Rows written since, by table and verb.
fn writes(database: &Connection) -> BTreeMap<(String, String), u64> {
    database
        .prepare("SELECT name, verb, count(*) FROM written GROUP BY name, verb")
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.collect()
        })
        .expect("the notes are read")
}
