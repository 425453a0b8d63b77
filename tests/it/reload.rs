//! Other settings while the server runs: all that can change, or nothing, and no open stream is touched.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cli::{Said, arg, run};
use crate::support::http::Ask;
use crate::support::poll::figure;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::wait_for;

const APP: &str = "https://app.example";

/// A settings file and what lies beside it.
struct Settings {
    dir: TempDir,
}

impl Settings {
    fn new(text: &str) -> Self {
        let settings = Self { dir: tempfile::tempdir().expect("a folder") };
        settings.write(text);
        settings
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("tidings.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("it can be written");
    }

    /// Puts a file into the folder beside it.
    fn drop_in(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.dir.path().join("tidings.toml.d");
        std::fs::create_dir_all(&folder).expect("it can be made");
        let file = folder.join(name);
        std::fs::write(&file, text).expect("it can be written");
        file
    }
}

fn reload(server: &Server, more: &[&str]) -> Said {
    run(&[&["reload", "--data", arg(server.data())], more].concat(), "")
}

/// What must be restarted for, as `--json` tells it.
fn needs_restart(server: &Server) -> Value {
    let told = reload(server, &["--json"]).well().json();
    assert_eq!(told["reloaded"], true);
    told["needs_restart"].clone()
}

fn reloads(server: &Server, outcome: &str) -> u64 {
    figure(server, &format!("tidings_reloads_total{{outcome=\"{outcome}\"}}")).unwrap_or_default()
}

/// Whether pages of this origin may call.
fn allows(server: &Server, origin: &str) -> bool {
    let ask = Ask::get("/v1/inbox/counts").bearer(&server.token("alice")).header("origin", origin);
    server.send(&ask).expect(200).header("access-control-allow-origin").is_some()
}

/// Whether one more stream of alice is let in.
fn has_room(server: &Server) -> bool {
    server.stream("alice", "?cursor=now").next().kind == "hello"
}

#[test]
fn what_can_change_counts_at_once_and_no_stream_is_touched() {
    let settings = Settings::new("[log]\nlevel = \"warn\"\n[limits]\nstreams_per_user = 3\n");
    let server = Setup::serve().config(&settings.file()).start();
    let mut streams = [server.stream("alice", "?cursor=now"), server.stream("alice", "?cursor=now")];
    streams.iter_mut().for_each(|stream| drop(stream.expect("hello")));
    assert!(!allows(&server, APP) && has_room(&server));
    let changed = format!("[log]\nlevel = \"debug\"\n[limits]\nstreams_per_user = 2\n[http]\norigins = [\"{APP}\"]\n");
    settings.write(&changed);
    assert!(!allows(&server, APP), "nothing changes before it is asked for");
    server.signal(Signal::HUP);
    // Without a request meanwhile: what is told of requests until here was told by the level before.
    wait_for("the signal to be heeded", || server.log().contains("Settings were read again").then_some(()));
    assert!(!server.log().contains("answered"), "{}", server.log());
    assert!(allows(&server, APP));
    wait_for("requests in the log", || server.log().contains("answered").then_some(()));
    wait_for("the refused one more", || (!has_room(&server)).then_some(()));
    settings.write("[log]\nlevel = \"warn\"\n");
    let said = reload(&server, &[]).well();
    assert_eq!(said.out, "The settings were read again\n");
    assert!(!allows(&server, APP) && has_room(&server));
    assert_eq!((reloads(&server, "done"), reloads(&server, "refused")), (2, 0));
    server.notify("alice", "to both");
    for stream in &mut streams {
        assert_eq!(stream.until("notification").title(), "to both");
    }
}

#[test]
fn files_that_are_dropped_in_are_read_again_too() {
    let settings = Settings::new("[http]\norigins = [\"https://first.example\"]\n");
    settings.drop_in("10-limits.toml", "[limits]\nstreams_per_user = 1\n");
    let server = Setup::serve().config(&settings.file()).start();
    let mut only = server.stream("alice", "?cursor=now");
    only.expect("hello");
    assert!(!has_room(&server) && allows(&server, "https://first.example") && !allows(&server, APP));
    settings.drop_in("20-later.toml", &format!("[limits]\nstreams_per_user = 9\n[http]\norigins = [\"{APP}\"]\n"));
    settings.drop_in("30-not-settings.txt", "rubbish");
    assert_eq!(needs_restart(&server), json!([]));
    assert!(has_room(&server) && allows(&server, APP) && !allows(&server, "https://first.example"));
}

/// The line of a file as faults name it.
fn at(file: &Path, line: usize) -> String {
    format!("{}:{line}", file.display())
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_with_its_line() {
    let good = format!("[http]\norigins = [\"{APP}\"]\n[limits]\nstreams_per_user = 1\n");
    let settings = Settings::new(&good);
    let server = Setup::serve().config(&settings.file()).start();
    let mut only = server.stream("alice", "?cursor=now");
    only.expect("hello");
    let nowhere = settings.dir.path().join("nowhere.pem");
    let harmless = "[http]\norigins = []\n[limits]\nstreams_per_user = 0\n";
    let file = settings.file();
    let cases = [
        (format!("{harmless}[streams\n"), vec![at(&file, 5)]),
        (format!("{harmless}[streams]\nhartbeat = \"1s\"\n"), vec![at(&file, 6), "heartbeat".to_owned()]),
        (format!("{harmless}[streams]\nheartbeat = \"1h\"\nmax = 0\n"), vec![at(&file, 6), at(&file, 7)]),
        (format!("{harmless}[log]\nlevel = \"info,,=\"\n"), vec!["log.level".to_owned()]),
        (
            format!("{harmless}[auth]\njwt_keys = [\"ES256 web {}\"]\n", nowhere.display()),
            vec![nowhere.display().to_string()],
        ),
        (format!("{harmless}[auth]\ntrusted_header = \"X-User\"\n"), vec!["trusted_header_from".to_owned()]),
    ];
    for (count, (text, told)) in cases.iter().enumerate() {
        settings.write(text);
        let said = reload(&server, &[]);
        assert_eq!(said.code, 1, "{text}: {said:?}");
        assert!(told.iter().all(|told| said.err.contains(told)), "{text}: no {told:?} in {said:?}");
        let log_before = server.log().len();
        server.signal(Signal::HUP);
        wait_for("the signal to be heeded", || (reloads(&server, "refused") == 2 * count as u64 + 2).then_some(()));
        wait_for("the log to tell of it", || {
            told.iter().all(|told| server.log()[log_before..].contains(told.as_str())).then_some(())
        });
        // Not even what was right in it.
        assert!(allows(&server, APP) && !has_room(&server), "{text}");
    }
    assert_eq!(reloads(&server, "done"), 0);
    std::fs::remove_file(&file).expect("it is there");
    let said = reload(&server, &[]);
    assert!(said.code == 1 && said.err.contains(arg(&file)), "{said:?}");
    assert!(allows(&server, APP) && !has_room(&server));
    server.notify("alice", "it goes on");
    assert_eq!(only.until("notification").title(), "it goes on");
    let answer = server.operate(Ask::post("/v1/upkeep/reload"));
    assert!(answer.problem(422, "not-reloaded")["detail"].as_str().is_some_and(|detail| detail.contains(arg(&file))));
    // Mended, it is taken.
    settings.write(harmless);
    reload(&server, &[]).well();
    assert!(!allows(&server, APP) && has_room(&server));
}

#[test]
fn a_broken_file_that_was_dropped_in_is_named_too() {
    let settings = Settings::new(&format!("[http]\norigins = [\"{APP}\"]\n"));
    let server = Setup::serve().config(&settings.file()).start();
    settings.drop_in("10-good.toml", "[http]\norigins = []\n");
    let broken = settings.drop_in("20-broken.toml", "\n[limits]\nstreams_per_usr = 1\n");
    let said = reload(&server, &[]);
    assert!(said.code == 1 && said.err.contains(&at(&broken, 3)), "{said:?}");
    assert!(said.err.contains("streams_per_user"), "the nearest known key is suggested: {said:?}");
    assert!(allows(&server, APP) && reloads(&server, "refused") == 1);
    std::fs::remove_file(&broken).expect("it is there");
    reload(&server, &[]).well();
    assert!(!allows(&server, APP));
}

#[test]
fn what_counts_only_after_a_restart_is_named() {
    let settings = Settings::new("");
    let mut server = Setup::serve().config(&settings.file()).start();
    assert_eq!(needs_restart(&server), json!([]));
    settings.write(
        "[http]\nmax_connections = 100\nheader_timeout = \"5s\"\nbase_path = \"/tidings\"\nsocket_mode = \"0660\"\n\
         [streams]\nmax = 10\nheartbeat = \"5s\"\n[ops]\nlisten = \"127.0.0.1:0\"\n\
         [amqp]\nurl = \"amqp://127.0.0.1:1\"\nqueue = \"q\"\n[log]\nformat = \"json\"\n\
         [server]\ndrain_deadline = \"1s\"\nhard_deadline = \"9s\"\n",
    );
    let fixed = json!([
        "http.socket_mode",
        "http.base_path",
        "http.max_connections",
        "http.header_timeout",
        "streams.max",
        "ops.listen",
        "amqp",
        "log.format",
        "server.drain_deadline",
        "server.hard_deadline"
    ]);
    // As long as they are not in force.
    for _ in 0..2 {
        assert_eq!(needs_restart(&server), fixed);
    }
    let said = reload(&server, &[]).well();
    assert!(said.out.contains("after a restart") && said.out.contains("http.base_path"), "{said:?}");
    server.send(&Ask::get("/v1/inbox").bearer(&server.token("alice"))).expect(200);
    // Heartbeats are what can change: a stream that is opened now says so.
    assert_eq!(server.stream("alice", "").expect("hello").data["heartbeat"], 5);
    server.terminate();
    server.restart();
    assert!(server.url().ends_with("/tidings") && server.ready()["ops"].is_string(), "{}", server.ready());
}

#[test]
fn variables_and_flags_still_win() {
    let settings = Settings::new("[limits]\nstreams_per_user = 5\n");
    let server = Setup::serve().config(&settings.file()).env("TIDINGS_LIMITS_STREAMS_PER_USER", "1").start();
    let url = server.url().to_owned();
    let mut only = server.stream("alice", "?cursor=now");
    only.expect("hello");
    settings.write("data = \"/nowhere\"\n[limits]\nstreams_per_user = 9\n[http]\nlisten = \"127.0.0.1:1\"\n");
    assert_eq!(needs_restart(&server), json!([]), "where it listens and its directory are said by flags");
    assert!(!has_room(&server));
    assert_eq!(server.url(), url);
    Sse::open(server.place(), Ask::get("/v1/stream").bearer(&server.token("bob"))).expect("hello");
}

#[test]
fn a_reload_needs_a_server() {
    let dir = Server::start().stop();
    let said = run(&["reload", "--data", arg(dir.path())], "");
    assert!(said.code == 1 && !said.err.is_empty(), "{said:?}");
}
