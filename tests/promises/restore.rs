//! Restore (T17): a backup under load holds everything acknowledged before it began; restored beside a stale write-ahead log it
//! is what it was, and old cursors are told `epoch`. And what is refused, what is left behind, and what is mended.
//!
//! Both forms are the same.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rusqlite::Connection as Database;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mount::{Disk, skipped};
use crate::support::cli::{Said, arg, run};
use crate::support::http::{Ask, Connection};
use crate::support::publisher::{Tally, Whereabouts, publish};
use crate::support::server::{Server, Setup, tidings};
use crate::support::{Dice, wait_for};

const PUBLISHERS: usize = 4;
/// Publishes that are acknowledged before the backup is asked for.
const BEFORE: usize = 200;
/// Kills in the middle of a restore, each at a moment of its own.
const KILLS: u64 = 10;
const SEED: u64 = 17;

fn log_of(data: &Path) -> PathBuf {
    data.join("tidings.db")
}

fn stale_log_of(data: &Path) -> PathBuf {
    data.join("tidings.db-wal")
}

fn backup(server: &Server, file: &Path) -> Value {
    run(&["backup", arg(file), "--json", "--data", arg(server.data())], "").well().json()
}

fn restore(file: &Path, data: &Path, more: &[&str]) -> Said {
    run(&[&["restore", arg(file), "--json", "--data", arg(data)], more].concat(), "")
}

fn check(data: &Path, more: &[&str]) -> Said {
    run(&[&["check", "--json", "--data", arg(data)], more].concat(), "")
}

/// The epoch and the head of a log that nobody uses.
fn position(database: &Path) -> (String, u64) {
    let database = Database::open(database).expect("it opens");
    database
        .query_row("SELECT epoch, head FROM log", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("a log has a row")
}

/// Drafts and what SQLite puts beside files; nothing of them may stay.
fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names
        .filter(|name| name.contains(".part-") || name.contains("tidings.copy") || name.contains("restoring"))
        .collect()
}

/// Fills a log with some megabytes, so that a copy of it does not fit into a socket.
fn fill(server: &Server, lines: usize) {
    let body = "x".repeat(9_000);
    let lines: Vec<Value> =
        (0..lines).map(|n| json!({ "to": "topic:bulk", "title": format!("{n}"), "body": body })).collect();
    for some in lines.chunks(100) {
        server.operate(Ask::post("/v1/notifications").ndjson(some)).expect(200);
    }
}

#[test]
fn a_backup_under_load_is_restored_over_a_stale_log_and_old_cursors_are_told() {
    let mut server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.db");
    let (credential, stop) = (server.key(&["publish"]), AtomicBool::new(false));
    let (place, tally) = (Whereabouts::new(server.place()), Tally::default());
    let acknowledged = Mutex::new(HashMap::new());
    let before: HashMap<String, u64> = std::thread::scope(|scope| {
        for i in 0..PUBLISHERS {
            let (stop, place, tally, credential, acknowledged) = (&stop, &place, &tally, &credential, &acknowledged);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let title = format!("{i}/{n}");
                    let body = json!({ "to": { "user": format!("u{i}") }, "title": title });
                    let answer = publish(place, credential, &title, &body, tally).json();
                    let seq = answer["seq"].as_u64().expect("a seq");
                    acknowledged.lock().expect("nobody panics with it").insert(title, seq);
                }
            });
        }
        let seen = || acknowledged.lock().expect("nobody panics with it").clone();
        // And of each publisher one, since their users are counted below.
        let has_all = |seen: &HashMap<String, u64>| (0..PUBLISHERS).all(|i| seen.contains_key(&format!("{i}/0")));
        let before = wait_for("some publishes", || Some(seen()).filter(|seen| seen.len() >= BEFORE && has_all(seen)));
        let told = backup(&server, &file);
        assert_eq!(told["bytes"], fs::metadata(&file).expect("it is there").len());
        // The load has outlived the backup.
        let then = seen().len();
        wait_for("more publishes", || (seen().len() > then).then_some(()));
        stop.store(true, Ordering::Relaxed);
        before
    });
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!((leftovers(folder.path()), leftovers(server.data())), (Vec::<String>::new(), Vec::new()));
    let (epoch, backed_up) = position(&file);

    let mut stream = server.stream("u0", "?events=notification");
    stream.expect("hello");
    let late = server.notify("u0", "after the backup");
    // What was there before may be replayed first.
    stream.titles_to("after the backup");
    let cursor = stream.last_id().to_owned();
    server.kill();
    let stale = fs::metadata(stale_log_of(server.data())).expect("a killed server leaves it").len();
    assert!(stale > 0, "there is nothing stale to restore over");

    let restored = restore(&file, server.data(), &["--yes"]).well().json();
    assert_eq!(restored["was"], epoch.as_str());
    assert!(!stale_log_of(server.data()).exists() && leftovers(server.data()).is_empty());
    let (fresh, head) = position(&log_of(server.data()));
    assert!(fresh != epoch && head == backed_up && head < late["seq"].as_u64().expect("a seq"), "{fresh}.{head}");
    let kept = PathBuf::from(restored["kept"].as_str().expect("the old log is kept"));
    assert_eq!(position(&kept).0, epoch, "the old log is whole in one file");
    assert_eq!(position(&kept).1, late["seq"].as_u64().expect("a seq"));
    let report = check(server.data(), &[]).well().json();
    assert_eq!((&report["findings"], report["users"].as_u64()), (&json!([]), Some(PUBLISHERS as u64)));

    server.restart();
    let hello = server.resume("u0", &cursor).expect("hello").data;
    assert_eq!((&hello["recovered"], &hello["reason"]), (&json!(false), &json!("epoch")), "{hello}");
    let mut found = HashMap::new();
    for i in 0..PUBLISHERS {
        let mut stream = server.stream(&format!("u{i}"), "?cursor=start&events=notification");
        stream.expect("hello");
        server.notify(&format!("u{i}"), "end");
        let mut event = stream.expect("notification");
        while event.title() != "end" {
            assert!(found.insert(event.title().to_owned(), event.seq()).is_none(), "{} is there twice", event.title());
            event = stream.expect("notification");
        }
    }
    for (title, seq) in &before {
        assert_eq!(found.get(title), Some(seq), "{title} was acknowledged before the backup began");
    }
    println!(
        "{} acknowledged before the backup, {} in it, head {backed_up} of {}",
        before.len(),
        found.len(),
        late["seq"]
    );
}

#[test]
fn without_a_restore_a_stale_log_replaces_the_copy_without_a_word() {
    let mut server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.db");
    server.notify("alice", "kept");
    backup(&server, &file);
    for n in 0..20 {
        server.notify("alice", &format!("later {n}"));
    }
    server.kill();
    let (_, in_copy) = position(&file);
    let control = tempfile::tempdir().expect("a folder");
    fs::copy(&file, log_of(control.path())).expect("a copy by hand");
    fs::copy(stale_log_of(server.data()), stale_log_of(control.path())).expect("what was left beside it");
    let (_, by_hand) = position(&log_of(control.path()));
    assert!(by_hand > in_copy, "the control: SQLite takes the stale log for the copy's own ({by_hand}, {in_copy})");
    fs::copy(stale_log_of(server.data()), stale_log_of(folder.path())).expect("a file");
    restore(&file, server.data(), &["--yes", "--discard"]).well();
    assert_eq!(position(&log_of(server.data())).1, in_copy);
    assert!(!server.data().join("tidings.db.before-restore").exists());
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_log_or_the_new_one() {
    let mut server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.db");
    server.notify("alice", "kept");
    fill(&server, 300);
    backup(&server, &file);
    server.notify("alice", "later");
    server.kill();
    let data = server.stop();
    let (_, in_copy) = position(&file);
    let (mut dice, mut outcomes) = (Dice::new(SEED), [0, 0]);
    // How long one takes here and now, so that the moments lie in it.
    let begun = Instant::now();
    restore(&file, tempfile::tempdir().expect("a folder").path(), &[]).well();
    let span = begun.elapsed() * 3 / 2;
    for kill in 0..KILLS {
        let round = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(data.path()).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                fs::copy(&path, round.path().join(path.file_name().expect("a name"))).expect("it can be copied");
            }
        }
        let mut command = tidings();
        command.args(["restore", arg(&file), "--yes", "--data", arg(round.path())]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary is built");
        // At a moment of its own; whatever has happened by then, one of the two must be there.
        let share = u32::try_from(kill * 100 + dice.below(100)).expect("a small number");
        std::thread::park_timeout(span * share / u32::try_from(KILLS * 100).expect("a small number"));
        let _ = child.kill();
        let restored = child.wait().expect("it is ours").success();
        let report = check(round.path(), &[]).well().json();
        let seq = report["cursor"].as_str().and_then(|cursor| cursor.split_once('.')).expect("a cursor").1.to_owned();
        let seq: u64 = seq.parse().expect("a number");
        assert!(seq == in_copy || seq == in_copy + 1, "{report}");
        assert!(!restored || seq == in_copy, "it said that it was restored");
        outcomes[usize::from(seq == in_copy)] += 1;
        // What was left in the middle does not hinder the next one.
        restore(&file, round.path(), &["--yes"]).well();
        assert_eq!(leftovers(round.path()), Vec::<String>::new());
        assert_eq!(position(&log_of(round.path())).1, in_copy);
    }
    println!("killed {KILLS} times: the old log {} times, the restored one {} times", outcomes[0], outcomes[1]);
}

/// The old log's end lies in its log of writes, and there is no room to take that in: nothing is changed, not even where the
/// old log is to be thrown away.
#[test]
fn without_room_for_the_old_log_s_end_nothing_is_restored_over_it() {
    if skipped("a restore on a full disk") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy.db");
    backup(&Server::start(), &copy);
    let disk = Disk::of(32);
    let mut server = Setup::serve().on(disk.directory()).start();
    fill(&server, 100);
    let last = server.notify("alice", "the last")["seq"].as_u64().expect("a seq");
    server.kill();
    let data = server.stop();
    let log = fs::metadata(log_of(data.path())).expect("it is there").len();
    let of_writes = fs::metadata(stale_log_of(data.path())).expect("it is there").len();
    assert!(of_writes > log + 512 * 1024, "{of_writes} bytes beside {log}");
    // As it is once a full disk has had it thrown off.
    fs::remove_file(data.path().join("tidings.ballast")).expect("it lies there");
    // Room for the copy, and not for what the log would grow by.
    disk.fill_but(fs::metadata(&copy).expect("it is there").len() + 256 * 1024);
    let refused = restore(&copy, data.path(), &["--yes", "--discard"]);
    assert!(refused.code != 0 && refused.err.contains("take the log of writes into"), "{refused:?}");
    disk.clear();
    assert_eq!(position(&log_of(data.path())).1, last);
    assert_eq!(leftovers(data.path()), Vec::<String>::new());
    restore(&copy, data.path(), &["--yes", "--discard"]).well();
}

/// A directory whose log is one of these files.
fn directory_with(log: &Path) -> TempDir {
    let directory = tempfile::tempdir().expect("a folder");
    fs::copy(log, log_of(directory.path())).expect("it can be copied");
    directory
}

#[test]
fn what_is_no_whole_copy_is_refused_by_restore_and_named_by_check() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, of) = (folder.path().join("copy.db"), |name: &str| folder.path().join(name));
    fill(&server, 30);
    backup(&server, &file);
    let held = restore(&file, server.data(), &["--yes"]);
    assert!(held.code == 75 && held.err.contains("stop that one first"), "{held:?}");
    let data = server.stop();
    let whole = fs::read(&file).expect("it is there");
    fs::write(of("text"), "this is a text, and rather more than a hundred bytes of it ".repeat(20)).expect("a file");
    fs::write(of("empty"), "").expect("a file");
    fs::write(of("half"), &whole[..whole.len() / 2]).expect("a file");
    Database::open(of("theirs")).and_then(|db| db.execute_batch("CREATE TABLE theirs (x)")).expect("it is made");
    fs::copy(&file, of("newer")).expect("it can be copied");
    Database::open(of("newer")).and_then(|db| db.pragma_update(None, "user_version", 99)).expect("it is set");
    let before = fs::read(log_of(data.path())).expect("it is there");
    for (name, why, in_place) in [
        ("text", "is no SQLite file", "not a database"),
        ("empty", "is no SQLite file", "another application"),
        ("half", "is damaged", ""),
        ("theirs", "of another application", "another application"),
        ("newer", "written by a newer Tidings", "install the version"),
        ("missing", "No such file", ""),
    ] {
        let refused = restore(&of(name), data.path(), &["--yes"]);
        assert!(refused.code == 1 && refused.err.contains(why), "{name}: {refused:?}");
        assert_eq!(fs::read(log_of(data.path())).expect("it is there"), before, "{name}");
        assert_eq!(leftovers(data.path()), Vec::<String>::new(), "{name}");
        if name != "missing" {
            let found = check(directory_with(&of(name)).path(), &[]);
            assert!(found.code == 1 && found.out.contains(in_place), "{name}: {found:?}");
            assert!(found.err.contains("tidings restore"), "{name}: {found:?}");
        }
    }
    let unasked = restore(&file, data.path(), &[]);
    assert!(unasked.code == 64 && unasked.err.contains("--yes"), "{unasked:?}");
    let fresh = tempfile::tempdir().expect("a folder");
    let restored = restore(&file, &fresh.path().join("new"), &[]).well().json();
    assert_eq!(restored["kept"], Value::Null, "nobody is asked where nothing is lost");
    fs::write(of("copy.db-wal"), "x").expect("a file");
    let unfolded = restore(&file, data.path(), &["--yes"]);
    assert!(unfolded.code == 1 && unfolded.err.contains("a write-ahead log lies beside"), "{unfolded:?}");
}

#[test]
fn a_backup_that_ends_early_leaves_nothing_and_there_is_one_at_a_time() {
    let mut server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.db");
    fill(&server, 600);
    let ask = Ask::get("/v1/upkeep/backup").bearer(&server.operator());
    // Bigger than what lies between the two, which on TCP is as much as the machine is set to: the server waits for its
    // reader, who keeps the place.
    let mut slow = Connection::open(&server.operators()).expect("the server accepts");
    slow.send(&ask.to_bytes()).expect("the server reads");
    let head = slow.head().expect("the copy is made");
    let length: usize = head.header("content-length").and_then(|text| text.parse().ok()).expect("its length is told");
    assert!(length > 4 << 20, "{length}");
    assert_eq!(leftovers(server.data()), Vec::<String>::new(), "the copy has no name while it is read");
    let second = server.send(&ask);
    second.problem(409, "copy-running");
    assert_eq!(second.header("retry-after"), Some("5"));
    server.operate(Ask::post("/v1/upkeep/check")).problem(409, "copy-running");
    drop(slow);
    wait_for("the place of the copy", || (server.send(&ask).status() == 200).then_some(()));

    // A client that is killed in the middle: nothing of its file, nothing of the server's.
    let mut command = tidings();
    command.args(["backup", arg(&file), "--data", arg(server.data())]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary is built");
    wait_for("a draft", || (!leftovers(folder.path()).is_empty() || file.exists()).then_some(()));
    let _ = child.kill();
    let _ = child.wait();
    wait_for("the place of the copy", || (server.send(&ask).status() == 200).then_some(()));
    assert_eq!(leftovers(server.data()), Vec::<String>::new());

    // A server that is killed in the middle leaves its draft to the next start.
    fs::write(server.data().join("tidings.copy"), "half of it").expect("a file");
    fs::write(server.data().join("tidings.copy-packed"), "half of it").expect("a file");
    server.kill();
    server.restart();
    assert_eq!(leftovers(server.data()), Vec::<String>::new());
}

#[test]
fn a_backup_goes_where_it_may_and_holds_nothing_that_was_deleted() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.db");
    let secret = "the combination is 4711";
    server.publish(&json!({ "to": { "user": "alice" }, "title": "t", "body": secret }));
    backup(&server, &file);
    let holds =
        |file: &Path| fs::read(file).expect("it is there").windows(secret.len()).any(|part| part == secret.as_bytes());
    assert!(holds(&file), "the control: it can be found");
    server.operate(Ask::delete("/v1/users/alice")).expect(200);

    let again = run(&["backup", arg(&file), "--data", arg(server.data())], "");
    assert!(again.code == 1 && again.err.contains("--force"), "{again:?}");
    assert!(holds(&file), "it is as it was");
    run(&["backup", arg(&file), "--force", "--data", arg(server.data())], "").well();
    assert!(!holds(&file), "what was deleted is not in it");

    for (target, why) in [
        (folder.path().join("no/copy.db"), "make it first"),
        (log_of(server.data()), "of the state directory itself"),
        (stale_log_of(server.data()), "of the state directory itself"),
    ] {
        let refused = run(&["backup", arg(&target), "--force", "--data", arg(server.data())], "");
        assert!(refused.code == 64 && refused.err.contains(why), "{refused:?}");
    }
    let refused = run(&["backup", arg(folder.path()), "--data", arg(server.data())], "");
    assert!(refused.code == 1 && refused.err.contains("is a directory"), "{refused:?}");
    // A device, say; a socket is as little of a file, and takes no root to make.
    let (socket, link) = (folder.path().join("socket"), folder.path().join("link"));
    let _listener = UnixListener::bind(&socket).expect("a socket");
    symlink("/dev/null", &link).expect("a link");
    for target in [&socket, &link] {
        let refused = run(&["backup", arg(target), "--force", "--data", arg(server.data())], "");
        assert!(refused.code == 1 && refused.err.contains("neither a file nor a link to one"), "{refused:?}");
    }
    assert!(link.is_symlink() && !socket.is_file());
    let key = server.key(&["admin"]);
    server.send(&Ask::get("/v1/upkeep/backup").bearer(&key)).problem(403, "forbidden");
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
}

#[test]
fn without_room_for_a_copy_none_is_begun() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.db");
    server.notify("alice", "t");
    // As large as the disk by its length, and no larger in truth: SQLite looks at its header and not at the end.
    let disk = rustix::fs::statvfs(server.data()).expect("the disk can be asked");
    let log = fs::OpenOptions::new().write(true).open(log_of(server.data())).expect("it is there");
    let was = log.metadata().expect("it is there").len();
    log.set_len(disk.f_bavail * disk.f_frsize).expect("a hole needs no room");
    let refused = run(&["backup", arg(&file), "--data", arg(server.data())], "");
    log.set_len(was).expect("as it was");
    assert!(refused.code == 1 && refused.err.contains("507 storage-full): a copy needs"), "{refused:?}");
    assert!(!file.exists() && leftovers(folder.path()).is_empty() && leftovers(server.data()).is_empty());
    backup(&server, &file);
}

#[test]
fn what_can_be_computed_anew_is_mended_and_the_rest_is_told() {
    let server = Server::start();
    for n in 0..5 {
        server.notify("alice", &format!("{n}"));
    }
    server.follow("ops", "alice");
    server.ticket("alice");
    let well = run(&["check", "--json", "--data", arg(server.data())], "").well().json();
    assert_eq!((&well["findings"], &well["users"]), (&json!([]), &json!(1)), "through the running server");
    assert_eq!(leftovers(server.data()), Vec::<String>::new());
    let data = server.stop();
    {
        let log = Database::open(log_of(data.path())).expect("it opens");
        log.execute_batch(
            "PRAGMA foreign_keys = OFF;
             UPDATE standings SET unread_gone = unread_gone + 2 WHERE source < 0;
             UPDATE topics SET followers = 7 WHERE name = 'ops';
             UPDATE log SET head = 1, last_user = 0;
             INSERT INTO marks (user, source, seq, kind, at, changed) VALUES (4711, -1, 1, 1, 1, 1);
             INSERT INTO entries (user, source, seq) SELECT 4711, -1, min(seq) FROM notifications;",
        )
        .expect("it is damaged");
        // Rows come while their index is not there, and then it is again.
        let index: (i64, String) = log
            .query_row("SELECT rootpage, sql FROM sqlite_schema WHERE name = 'tickets_by_expiry'", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .expect("the index is there");
        log.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'tickets_by_expiry'")
            .expect("it is hidden");
        drop(log);
        let log = Database::open(log_of(data.path())).expect("it opens");
        log.execute("UPDATE tickets SET expires_at = expires_at + 1", []).expect("a row changes");
        log.execute_batch("PRAGMA writable_schema = ON").expect("it is set");
        log.execute(
            "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('index', 'tickets_by_expiry', 'tickets', ?1, ?2)",
            rusqlite::params![index.0, index.1],
        )
        .expect("it is there again");
    }
    let found = check(data.path(), &[]);
    assert!(found.code == 1 && found.err.contains("tidings check --repair"), "{found:?}");
    let faults = |report: &Value, what: &str| -> Vec<String> {
        let list = report[what].as_array().expect("a list");
        let mut faults: Vec<_> = list.iter().map(|one| one["fault"].as_str().expect("a fault").to_owned()).collect();
        faults.dedup();
        faults
    };
    assert_eq!(faults(&found.json(), "findings"), ["integrity", "foreign-keys", "orphans", "head", "counts"]);
    assert_eq!(check(data.path(), &[]).code, 1, "a look changes nothing");
    let repaired = check(data.path(), &["--repair"]).well().json();
    assert_eq!(faults(&repaired, "findings"), Vec::<String>::new(), "{repaired}");
    assert_eq!(faults(&repaired, "mended"), ["integrity", "foreign-keys", "orphans", "head", "counts"]);
    assert_eq!(check(data.path(), &[]).well().json()["mended"], json!([]));

    // A page of a table that is gone comes back from nowhere.
    let mut bytes = fs::read(log_of(data.path())).expect("it is there");
    let page = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    let root: usize = {
        let log = Database::open(log_of(data.path())).expect("it opens");
        log.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'notifications'", [], |row| row.get(0))
            .expect("a page")
    };
    bytes[(root - 1) * page..root * page].fill(0xee);
    fs::write(log_of(data.path()), bytes).expect("it is damaged");
    let lost = check(data.path(), &["--repair"]);
    assert!(lost.code == 1 && faults(&lost.json(), "findings").contains(&"integrity".to_owned()), "{lost:?}");
    assert!(lost.err.contains("tidings restore"), "{lost:?}");
}
