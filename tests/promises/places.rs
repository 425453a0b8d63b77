//! State directories and databases that can't be used: each is refused in a sentence that says what to do, with an exit code
//! that tells a supervisor what to make of it, and what is there is left as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::mount::{Disk, skipped};
use crate::support::http::Ask;
use crate::support::server::{Refused, Server, Setup};
use crate::support::wait_for;

/// A server that must refuse to start there.
fn refused(data: TempDir) -> Refused {
    let refused = Setup::serve().on(data).attempt().err();
    refused.expect("this is no place for a server")
}

impl Refused {
    /// With this code, and a sentence that holds these words; its directory.
    fn with(self, code: i32, words: &[&str]) -> TempDir {
        assert_eq!(self.code, Some(code), "{}", self.log);
        for words in words {
            assert!(self.log.contains(words), "no `{words}` in {}", self.log);
        }
        self.dir
    }
}

/// What a server says that must refuse, as [`refused`], to start in a directory that the test goes on with.
fn refused_in(data: &Path) -> String {
    let said = crate::support::cli::run(&["serve", "--listen", "127.0.0.1:0", "--data", &data.to_string_lossy()], "");
    assert_eq!(said.code, 65, "{said:?}");
    said.err
}

fn empty() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A directory with a log of some pages, which nobody uses.
fn used() -> TempDir {
    let mut server = Server::start();
    for i in 0..60 {
        server.notify("alice", &format!("{i} {}", "x".repeat(200)));
    }
    assert!(server.terminate().0.success());
    server.stop()
}

fn database(data: &Path) -> Vec<u8> {
    fs::read(data.join("tidings.db")).expect("it is there")
}

#[test]
fn two_servers_on_one_directory_are_one_too_many_and_the_first_goes_on() {
    let server = Server::start();
    let path = server.data().to_str().expect("UTF-8").to_owned();
    let second = crate::support::cli::run(&["serve", "--listen", "127.0.0.1:0", "--data", &path], "");
    assert_eq!(second.code, 75, "{second:?}");
    assert!(second.err.contains(&format!("(process {}): stop that one first", server.pid())), "{second:?}");
    server.notify("alice", "still here");
}

#[test]
fn a_directory_of_somebody_else_s_is_left_alone() {
    let theirs = empty();
    fs::set_permissions(theirs.path(), Permissions::from_mode(0o755)).expect("ours to change");
    fs::write(theirs.path().join("thesis.txt"), "x").expect("a file");
    let theirs = refused(theirs).with(73, &["holds files that are not Tidings'", "--data"]);
    let names: Vec<_> =
        fs::read_dir(theirs.path()).expect("it is there").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names, ["thesis.txt"]);
}

#[test]
fn a_file_in_the_place_of_the_directory_or_of_the_database_is_told() {
    let outer = empty();
    let file = outer.path().join("file");
    fs::write(&file, "x").expect("a file");
    let path = file.to_str().expect("UTF-8");
    let said = crate::support::cli::run(&["serve", "--listen", "127.0.0.1:0", "--data", path], "");
    assert_eq!(said.code, 73, "{said:?}");
    assert!(said.err.contains("is not a directory"), "{said:?}");
    let data = empty();
    fs::create_dir(data.path().join("tidings.db")).expect("a directory");
    refused(data).with(73, &["tidings.db is not a file"]);
}

#[test]
fn a_read_only_file_system_is_told_with_a_code_of_its_own() {
    if skipped("a read-only file system") {
        return;
    }
    let disk = Disk::of(16);
    let mut server = Setup::serve().on(disk.directory()).start();
    server.notify("alice", "before");
    assert!(server.terminate().0.success());
    disk.make_read_only();
    refused(server.stop()).with(77, &["Read-only file system"]);
}

#[test]
fn another_program_s_database_is_refused_and_not_a_byte_of_it_changes() {
    let data = empty();
    let theirs = Connection::open(data.path().join("tidings.db")).expect("opens");
    theirs.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").expect("is made");
    drop(theirs);
    let before = database(data.path());
    let data = refused(data).with(65, &["a SQLite file of another application"]);
    assert_eq!(database(data.path()), before);
    assert!(!data.path().join("tidings.db-wal").exists() && !data.path().join("tidings.ballast").exists());
    // One that says by its mark whose it is.
    let theirs = Connection::open(data.path().join("tidings.db")).expect("opens");
    theirs.pragma_update(None, "application_id", 0x1234_5678).expect("is set");
    drop(theirs);
    let before = database(data.path());
    let data = refused(data).with(65, &["a SQLite file of another application"]);
    assert_eq!(database(data.path()), before);
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let data = used();
    let log = Connection::open(data.path().join("tidings.db")).expect("opens");
    log.pragma_update(None, "user_version", 99).expect("is set");
    drop(log);
    let before = database(data.path());
    let data = refused(data).with(65, &["written by a newer Tidings", "its schema is 99"]);
    assert_eq!(database(data.path()), before);
}

#[test]
fn a_truncated_database_is_refused_and_left_alone() {
    let data = used();
    let whole = database(data.path());
    for length in [whole.len() / 2 / 4096 * 4096, whole.len() / 2 + 1_000, 50] {
        let data = empty();
        fs::write(data.path().join("tidings.db"), &whole[..length]).expect("is written");
        let data = refused(data).with(65, &["the database is damaged", "restore the newest backup"]);
        assert_eq!(database(data.path()), &whole[..length], "cut after {length} bytes");
    }
    let data = empty();
    fs::write(data.path().join("tidings.db"), "a text, and rather more than a hundred bytes of it ".repeat(9))
        .expect("is written");
    refused(data).with(65, &["the database is damaged"]);
}

/// Every file there that belongs to the log, with what is in it.
fn log_files(data: &Path) -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(data).expect("it is there").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    // The index of the log of writes is made anew from it.
    names.retain(|name| (name.starts_with("tidings.db") && !name.ends_with("-shm")) || name == "tidings.head");
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs::read(data.join(name)).expect("it is there"))).collect()
}

/// A directory as `kill -9` leaves it: what was published last is in the log of writes.
fn killed() -> TempDir {
    let mut server = Setup::serve().on(used()).start();
    for i in 0..200 {
        server.notify("alice", &format!("{i} {}", "x".repeat(200)));
    }
    server.kill();
    server.stop()
}

#[test]
fn a_lost_database_is_told_and_what_is_left_of_it_stays() {
    let lose: [fn(&Path); 3] = [
        |data| fs::remove_file(data.join("tidings.db")).expect("it is there"),
        |data| fs::write(data.join("tidings.db"), "").expect("it is there"),
        // And with it the log of writes: what is left is the file that says how far it had come.
        |data| {
            for name in ["tidings.db", "tidings.db-wal"] {
                fs::remove_file(data.join(name)).expect("it is there");
            }
        },
    ];
    for lose in lose {
        let data = killed();
        lose(data.path());
        let before = log_files(data.path());
        let words = ["the database is damaged", "is missing or empty", "restore the newest backup"];
        let data = refused(data).with(65, &words);
        assert!(log_files(data.path()) == before, "what was left is as it was");
    }
}

#[test]
fn a_first_start_that_was_cut_short_is_gone_on_with() {
    let data = empty();
    // As a power cut before the first commit leaves it.
    fs::write(data.path().join("tidings.db"), "").expect("a file");
    fs::write(data.path().join("tidings.head"), format!("{:<40}\n", "abcdef.0")).expect("a file");
    Setup::serve().on(data).start().notify("alice", "the first");
}

#[test]
fn a_database_cut_short_beside_its_log_of_writes_is_refused_and_left_alone() {
    let data = killed();
    let whole = database(data.path());
    fs::write(data.path().join("tidings.db"), &whole[..whole.len() / 2 / 4096 * 4096]).expect("is written");
    let before = log_files(data.path());
    let data = refused(data).with(65, &["the database is damaged", "restore the newest backup"]);
    assert!(log_files(data.path()) == before, "not a byte of it changed");
    // The control: the same files, whole.
    fs::write(data.path().join("tidings.db"), &whole).expect("is written");
    let server = Setup::serve().on(data).start();
    assert_eq!(server.inbox("alice")["counts"]["unread"], 260);
}

#[test]
fn another_program_s_database_with_its_log_of_writes_is_left_as_it_was() {
    let (theirs, data) = (empty(), empty());
    // The tables in the file and rows in the log; and everything in the log.
    let made =
        ["CREATE TABLE theirs (x); PRAGMA journal_mode = WAL", "PRAGMA journal_mode = WAL; CREATE TABLE theirs (x)"];
    for made in made {
        let _ = fs::remove_file(theirs.path().join("tidings.db"));
        let open = Connection::open(theirs.path().join("tidings.db")).expect("opens");
        open.execute_batch(&format!("{made}; INSERT INTO theirs VALUES (1)")).expect("is made");
        // Copied while it is in use, as a kill leaves it.
        for name in ["tidings.db", "tidings.db-wal"] {
            fs::copy(theirs.path().join(name), data.path().join(name)).expect("it is there");
        }
        drop(open);
        let before = log_files(data.path());
        assert!(before.iter().any(|(name, bytes)| name == "tidings.db-wal" && !bytes.is_empty()), "{made}");
        let refused = refused_in(data.path());
        assert!(refused.contains("a SQLite file of another application"), "{refused}");
        assert!(log_files(data.path()) == before, "{made}: not a byte of it changed");
        assert!(!data.path().join("tidings.ballast").exists(), "{made}");
        let _ = fs::remove_file(data.path().join("tidings.db-shm"));
    }
}

#[test]
fn a_clock_set_back_two_days_is_told_and_changes_no_order() {
    let data = used();
    let log = Connection::open(data.path().join("tidings.db")).expect("opens");
    // What was stored moves on instead of the clock going back.
    log.execute("UPDATE notifications SET created_at = created_at + 2 * 86400 * 1000", []).expect("is moved");
    drop(log);
    let server = Setup::serve().on(data).start();
    wait_for("the clock to be told of", || {
        server.log().contains("The clock stands behind the newest entry").then_some(())
    });
    let mut stream = server.stream("alice", "?cursor=start&events=notification");
    stream.expect("hello");
    server.notify("alice", "later");
    let (mut last, mut title) = (0, String::new());
    while title != "later" {
        let entry = stream.expect("notification");
        assert!(entry.seq() > last, "{} after {last}", entry.seq());
        last = entry.seq();
        entry.title().clone_into(&mut title);
    }
}

/// Pages of a log are overwritten under a server that runs: it ends, and not a byte is written any more, though commits that
/// the database has not taken in lie beside it.
#[test]
fn a_file_that_a_reader_finds_damaged_ends_the_server_and_is_left_as_it_is() {
    let mut server = Setup::serve().on(used()).start();
    server.notify("bob", "not yet in the database");
    let file = server.data().join("tidings.db");
    let mut bytes = fs::read(&file).expect("it is there");
    // All but the first page, which says what the file is.
    bytes[4_096..].fill(0xff);
    let damage = fs::File::options().write(true).open(&file).expect("ours to write");
    std::os::unix::fs::FileExt::write_all_at(&damage, &bytes[4_096..], 4_096).expect("ours to write");
    let log = fs::metadata(server.data().join("tidings.db-wal")).expect("it is there").len();
    assert!(log > 0, "something is not yet in the database");
    // Readers keep pages; sooner or later each asks for one.
    let ask = Ask::get("/v1/inbox?limit=100").bearer(&server.token("alice"));
    let place = server.place().clone();
    wait_for("a reader to meet the damage", || {
        ask.attempt(&place).map_or(Some(()), |answer| (answer.status() >= 500).then_some(()))
    });
    let status = server.exit();
    assert_eq!(status.code(), Some(65), "{}", server.log());
    let data = server.stop();
    assert!(database(data.path()) == bytes, "the database was written to");
    let left = fs::metadata(data.path().join("tidings.db-wal")).expect("it is still there").len();
    assert!(left >= log, "the log of writes was emptied: {left} bytes of {log}");
}
