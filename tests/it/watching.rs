//! What those who keep a server see of it: metrics, readiness, `tidings status`; and that they see it when they need it
//! most, while the disk or the server is full.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::http::ROUTES;

use crate::support::cli::{Said, arg, run};
use crate::support::http::{Ask, Connection, Place};
use crate::support::poll::figure;
use crate::support::server::{Server, Setup};
use crate::support::ws::{Ws, handshake};
use crate::support::{token, wait_for};

/// What watchers may ask.
const WATCHED: [&str; 3] = ["/healthz", "/metrics", "/readyz"];

fn status(server: &Server, more: &[&str]) -> Said {
    run(&[&["status", "--data", arg(server.data())], more].concat(), "")
}

fn metrics_at(place: &Place) -> String {
    Ask::get("/metrics").send(place).expect(200).text().to_owned()
}

#[test]
fn the_listener_for_watchers_has_three_answers_and_no_others() {
    let server = Setup::serve().env("TIDINGS_OPS_LISTEN", "127.0.0.1:0").start();
    let watchers = server.watchers();
    for path in WATCHED {
        // Whoever comes here needs no credential, and is none the better for one; a proxy in between is no matter.
        Ask::get(path).send(&watchers).expect(200);
        Ask::get(path).bearer("rubbish").header("x-forwarded-for", "203.0.113.7").send(&watchers).expect(200);
    }
    for entry in ROUTES.iter().filter(|entry| !WATCHED.contains(&entry.path)) {
        for ask in [
            Ask::new(entry.verb.as_str(), entry.path),
            Ask::new(entry.verb.as_str(), entry.path).bearer(&server.operator()),
        ] {
            ask.send(&watchers).problem(404, "not-found");
        }
    }
    Ask::get("/nothing").send(&watchers).problem(404, "not-found");
    // Elsewhere it is as before.
    let forwarded = Ask::get("/metrics").header("x-forwarded-for", "203.0.113.7");
    server.send(&forwarded).problem(404, "not-found");
    let ready = server.ready()["ops"].as_str().expect("its address is told").to_owned();
    assert!(ready.starts_with("http://127.0.0.1:") && !ready.ends_with(":0"), "{ready}");
}

#[test]
fn watchers_ask_the_server_itself_whatever_path_it_has_behind_a_proxy() {
    let setup = Setup::serve().env("TIDINGS_OPS_LISTEN", "127.0.0.1:0").env("TIDINGS_HTTP_BASE_PATH", "/tidings");
    let server = setup.start();
    let watchers = server.watchers();
    for path in WATCHED {
        Ask::get(path).send(&watchers).expect(200);
        Ask::get(&format!("/tidings{path}")).send(&watchers).expect(200);
    }
    Ask::new("OPTIONS", "/v1/inbox").send(&watchers).problem(404, "not-found");
    Ask::new("PATCH", "/tidings/v1/inbox").send(&watchers).problem(404, "not-found");
}

/// Every metric, with the labels that it has.
const METRICS: &[(&str, &str)] = &[
    ("tidings_build_info", "version"),
    ("tidings_start_time_seconds", ""),
    ("tidings_ready", ""),
    ("tidings_connections", "transport"),
    ("tidings_sockets", ""),
    ("tidings_sockets_max", ""),
    ("tidings_users_online", ""),
    ("tidings_publishes_total", ""),
    ("tidings_deliveries_total", "transport"),
    ("tidings_sent_bytes_total", "transport"),
    ("tidings_commit_seconds_bucket", "le"),
    ("tidings_commit_seconds_sum", ""),
    ("tidings_commit_seconds_count", ""),
    ("tidings_commit_batch_bucket", "le"),
    ("tidings_commit_batch_sum", ""),
    ("tidings_commit_batch_count", ""),
    ("tidings_commit_to_socket_seconds_bucket", "le"),
    ("tidings_commit_to_socket_seconds_sum", ""),
    ("tidings_commit_to_socket_seconds_count", ""),
    ("tidings_recoveries_total", "recovery"),
    ("tidings_errors_total", "code"),
    ("tidings_byes_total", "reason"),
    ("tidings_limited_total", "limit"),
    ("tidings_lags_total", ""),
    ("tidings_replays_total", "from"),
    ("tidings_panics_total", ""),
    ("tidings_deaths_total", "death"),
    ("tidings_undelivered_total", ""),
    ("tidings_outbox_deliveries_total", "medium"),
    ("tidings_outbox_deliveries_total", "outcome"),
    ("tidings_outbox_pending", "medium"),
    ("tidings_outbox_oldest_seconds", "medium"),
    ("tidings_outbox_held", "medium"),
    ("tidings_pruned_total", ""),
    ("tidings_count_drift_total", ""),
    ("tidings_queue_bytes", ""),
    ("tidings_database_bytes", ""),
    ("tidings_wal_bytes", ""),
    ("tidings_backups_total", ""),
    ("tidings_last_backup_seconds", ""),
    ("tidings_open_files", ""),
    ("tidings_open_files_max", ""),
    ("tidings_resident_memory_bytes", ""),
    ("tidings_reloads_total", "outcome"),
    ("tidings_revocations", ""),
];

/// The name of each line with each of its labels: the label's name and value, empty where it has none.
fn samples(text: &str) -> BTreeSet<(String, String, String)> {
    let sample = |line: &str| {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.split_once('}').expect("labels end").0),
            None => (line.split(' ').next().unwrap_or_default(), ""),
        };
        let pair = |label: &str| {
            let (label, value) = label.split_once('=').unwrap_or_default();
            (name.to_owned(), label.to_owned(), value.trim_matches('"').to_owned())
        };
        labels.split(',').map(pair).collect::<Vec<_>>()
    };
    text.lines().filter(|line| !line.starts_with('#')).flat_map(sample).collect()
}

#[test]
fn metrics_tell_all_there_is_and_nothing_that_a_caller_has_said() {
    let setup = Setup::serve().env("TIDINGS_LIMITS_STREAMS_PER_USER", "1").env("TIDINGS_OPS_LISTEN", "127.0.0.1:0");
    let server = setup.env("TIDINGS_HTTP_TRUSTED_PROXIES", "127.0.0.1").start();
    // Something of everything, by names that nobody else would use.
    let key = server.operate(Ask::post("/v1/keys").json(&json!({ "name": "canary-key", "scopes": ["publish"] })));
    let key = key.expect(201).json()["key"].as_str().expect("a key").to_owned();
    server.follow("canary-topic", "canary-user");
    let mut stream = server.stream("canary-user", "?cursor=canary-cursor&category=canary-category");
    stream.expect("hello");
    server.stream("canary-user", "").bye("overloaded");
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws").bearer(&server.token("canary-other")));
    socket.expect("hello");
    socket.ask(json!({ "op": "canary-op" }));
    server.send(&Ask::get("/v1/poll?wait=0").bearer(&server.token("canary-poller"))).expect(200);
    let publish = |body: &Value| server.send(&Ask::post("/v1/notifications").bearer(&key).json(body));
    let texts = json!({ "to": "user:canary-user", "title": "canary-title", "category": "canary-category" });
    publish(&texts).expect(201);
    publish(&json!({ "to": "topic:canary-topic", "title": "t", "sender": "canary-sender" })).expect(201);
    server.send(&Ask::get("/v1/poll?wait=0&cursor=start").bearer(&server.token("canary-user"))).expect(200);
    publish(&json!({ "to": "user:canary-user", "title": "t", "canary-field": 1 })).problem(422, "invalid");
    let gone = publish(&json!({ "to": "user:canary-user", "title": "t" })).expect(201).json();
    server
        .send(&Ask::delete(&format!("/v1/notifications/{}", gone["id"].as_str().expect("an id"))).bearer(&key))
        .expect(200);
    for path in ["/canary-path", "/v1/inbox/canary-id", "/%ff"] {
        let ask = Ask::get(path).bearer(&server.token("canary-user")).header("user-agent", "canary-agent");
        server.send(&ask.header("x-forwarded-for", "203.0.113.77").header("origin", "https://canary.example"));
    }
    server.operate(Ask::put("/v1/users/canary-revoked/revocation")).expect(200);
    run(&["reload", "--data", arg(server.data())], "").well();
    let text = metrics_at(&server.watchers());
    assert!(text.ends_with("# EOF\n"), "{text}");
    for told in ["canary", "203.0.113", "alice", &server.operator()] {
        assert!(!text.contains(told), "{told} stands in {text}");
    }
    let samples = samples(&text);
    let there: BTreeSet<_> = samples.iter().map(|(name, label, _)| (name.as_str(), label.as_str())).collect();
    let known: BTreeSet<_> = METRICS.iter().copied().collect();
    let missing: Vec<_> = known.difference(&there).collect();
    let unknown: Vec<_> = there.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?} in {text}");
    // Values of labels come from sets that were closed before anybody called.
    let closed = |name: &str, label: &str, value: &str| match label {
        "" | "version" => true,
        "le" => value.parse::<f64>().is_ok() || value == "+Inf",
        "transport" => ["sse", "poll", "ws"].contains(&value),
        "recovery" => ["recovered", "none", "epoch", "pruned", "ahead", "malformed"].contains(&value),
        "reason" => ["shutdown", "rotate", "overloaded", "expired", "revoked", "slow", "replaced"].contains(&value),
        "code" => tidings::http::PROBLEM_KINDS.iter().any(|kind| kind.code == value),
        "limit" => tidings::http::LIMITS.contains(&value),
        "from" => ["memory", "log"].contains(&value),
        "outcome" if name.starts_with("tidings_outbox") => {
            ["sent", "retried", "dead", "skipped", "cancelled"].contains(&value)
        }
        "outcome" => ["done", "refused"].contains(&value),
        "medium" => ["email", "dingtalk"].contains(&value),
        "death" => ["retracted", "expired", "replaced"].contains(&value),
        _ => false,
    };
    for (name, label, value) in &samples {
        assert!(closed(name, label, value), "{name}{{{label}={value:?}}}");
    }
    for (name, least) in [
        ("tidings_ready", 1),
        ("tidings_users_online", 2),
        ("tidings_connections{transport=\"sse\"}", 1),
        ("tidings_connections{transport=\"ws\"}", 1),
        ("tidings_publishes_total", 2),
        ("tidings_database_bytes", 4096),
        ("tidings_resident_memory_bytes", 1 << 20),
        ("tidings_open_files", 5),
        ("tidings_revocations", 1),
    ] {
        assert!(figure(&server, name) >= Some(least), "{name}: {:?}", figure(&server, name));
    }
    let start = figure(&server, "tidings_start_time_seconds").expect("it is told");
    assert!((token::now() - i64::try_from(start).expect("it fits")).abs() < 300, "{start}");
}

#[test]
fn status_is_one_screen_for_people_and_json_for_scripts() {
    let server = Server::start();
    let mut sse = server.stream("alice", "?cursor=now");
    sse.expect("hello");
    let mut socket = Ws::open(server.place(), &handshake("/v1/ws").bearer(&server.token("bob")));
    socket.expect("hello");
    server.notify("alice", "t");
    sse.until("notification");
    let told = status(&server, &["--json"]).well().json();
    assert_eq!([&told["status"], &told["why"]], [&json!("ready"), &Value::Null], "{told}");
    assert_eq!(told["connections"], json!({ "sse": 1, "poll": 0, "ws": 1 }), "{told}");
    assert_eq!([&told["users_online"], &told["publishes"]], [&json!(2), &json!(1)], "{told}");
    assert!(told["listens"].as_array().is_some_and(|listens| listens.iter().any(|at| at == server.url())), "{told}");
    assert!(told["disk_free_bytes"].as_u64() > Some(0) && told["deliveries"].as_u64() > Some(2), "{told}");
    assert_eq!(told, server_status(&server, &told));
    let people = status(&server, &[]).well().out;
    assert!(people.lines().count() <= 24 && people.lines().all(|line| line.chars().count() <= 100), "{people}");
    for part in ["is ready", server.url(), "2 users", "1 SSE", "1 WebSocket", "1 publish"] {
        assert!(people.contains(part), "no {part:?} in {people}");
    }
    let (admin, users) = (server.key(&["admin"]), server.key(&["users"]));
    run(&["status", "--url", server.url(), "--key", &admin], "").well();
    let refused = run(&["status", "--url", server.url(), "--key", &users], "");
    assert!(refused.code == 1 && refused.err.contains("admin") && !refused.err.contains(&users), "{refused:?}");
    let dir = server.stop();
    let told = run(&["status", "--data", arg(dir.path()), "--json"], "");
    assert!(told.code == 1 && told.out.is_empty() && told.err.contains("no server runs there"), "{told:?}");
}

/// The same over HTTP, with what changes from moment to moment taken from `told`.
fn server_status(server: &Server, told: &Value) -> Value {
    let mut now = server.operate(Ask::get("/v1/status")).expect(200).json();
    for field in [
        "uptime_s",
        "sockets",
        "disk_free_bytes",
        "resident_memory_bytes",
        "open_files",
        "deliveries",
        "wal_bytes",
        "database_bytes",
        "queue_bytes",
    ] {
        now[field] = told[field].clone();
    }
    now
}

/// A small file system of its own, until it is dropped.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// `None` where this machine does not let us, which is told.
    fn new(size: &str) -> Option<Self> {
        let path = tempfile::tempdir().expect("a folder").keep();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tidings-test", arg(&path)]).output();
        if mounted.is_ok_and(|said| said.status.success()) {
            return Some(Self { path });
        }
        println!("only root may mount a small disk: a full one was not tried");
        std::fs::remove_dir(path).expect("it is empty");
        None
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let file = self.path.join("ballast");
        let all = std::io::copy(
            &mut std::io::repeat(b'x'),
            &mut std::fs::File::create(&file).expect("there is room for a name"),
        );
        assert_eq!(all.map_err(|e| e.kind()), Err(std::io::ErrorKind::StorageFull));
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).output();
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[test]
fn a_full_disk_is_told_wherever_somebody_looks_and_passes_when_there_is_room() {
    let Some(disk) = Disk::new("24m") else { return };
    let state = tempfile::tempdir_in(&disk.path).expect("there is room");
    let server = Setup::serve().on(state).env("TIDINGS_OPS_LISTEN", "127.0.0.1:0").start();
    let data = arg(server.data());
    let tell = |title: &str| {
        let body = json!({ "to": "user:alice", "title": title, "body": "x".repeat(2_000) });
        server.operate(Ask::post("/v1/notifications").json(&body))
    };
    tell("before").expect(201);
    let ready = || Ask::get("/readyz").send(&server.watchers());
    assert_eq!(ready().expect(200).json(), json!({ "status": "ready" }));
    let mut stream = server.stream("alice", "");
    stream.expect("hello");
    let ballast = disk.fill();
    wait_for("the disk to be full", || (tell("too much").status() == 507).then_some(()));
    let told = ready().expect(503).json();
    let why = told["why"].as_str().expect("it says why").to_owned();
    assert!(told["status"] == "degraded" && why.contains("full"), "{told}");
    assert!(metrics_at(&server.watchers()).contains("\ntidings_ready 0\n"));
    Ask::get("/healthz").send(&server.watchers()).expect(200);
    let said = run(&["status", "--data", data], "");
    assert!(said.code == 1 && said.out.contains("degraded") && said.err.contains(&why), "{said:?}");
    let said = run(&["status", "--data", data, "--json"], "");
    assert!(said.code == 1 && said.json()["why"] == json!(why), "{said:?}");
    // Reading goes on.
    assert!(server.inbox("alice")["counts"]["unread"].as_u64() >= Some(1));
    server.stream("bob", "?cursor=now");
    std::fs::remove_file(ballast).expect("it is ours");
    wait_for("room", || (tell("after").status() == 201).then_some(()));
    wait_for("readiness", || (ready().status() == 200).then_some(()));
    run(&["status", "--data", data], "").well();
}

#[test]
fn the_operator_is_answered_while_every_connection_is_taken() {
    let setup = Setup::serve().env("TIDINGS_HTTP_MAX_CONNECTIONS", "2").env("TIDINGS_HTTP_HEADER_TIMEOUT", "60s");
    let server = setup.start();
    let mut held = server.stream("alice", "?cursor=now");
    held.expect("hello");
    let silent = Connection::open(server.place()).expect("the server accepts");
    // The next one waits in the kernel's queue.
    let mut waiting = Connection::open(server.place()).expect("the kernel accepts");
    waiting.send(&Ask::get("/healthz").to_bytes()).expect("the kernel takes it");
    let told = status(&server, &["--json"]).well().json();
    assert_eq!([&told["connections"]["sse"], &told["sockets_max"]], [&json!(1), &json!(2)], "{told}");
    run(&["reload", "--data", arg(server.data())], "").well();
    run(&["revoke", "--user", "bob", "--data", arg(server.data())], "").well();
    let published = run(&["publish", "--data", arg(server.data()), "--to", "user:alice", "--title", "still", "t"], "");
    assert_eq!(published.code, 0, "{published:?}");
    assert_eq!(held.until("notification").title(), "still");
    run(&["user", "disconnect", "alice", "--data", arg(server.data())], "").well();
    held.bye("rotate");
    drop((held, silent));
    assert_eq!(waiting.answer().expect("its turn comes").status(), 200);
    let socket = std::fs::metadata(server.data().join("ops.sock")).expect("the socket is there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

/// How many idle streams metrics are asked beside, and how long the answer may take: five times what is promised at
/// ten thousand would be 25 ms, but here it is only to come.
const IDLE: usize = 3_000;
const PROMPT: Duration = Duration::from_secs(5);

#[test]
fn metrics_come_at_once_beside_thousands_of_idle_streams() {
    let server = Setup::serve().env("TIDINGS_LIMITS_STREAMS_PER_USER", "0").start();
    let token = server.token("alice");
    let ask = Ask::get("/v1/stream?cursor=now").bearer(&token).header("accept", "text/event-stream").to_bytes();
    let streams: Vec<Connection> = (0..IDLE)
        .map(|_| {
            let mut connection = Connection::open(server.place()).expect("the server accepts");
            connection.send(&ask).expect("the server reads");
            assert_eq!(connection.head().expect("the server answers").status, 200);
            connection
        })
        .collect();
    let open = "tidings_connections{transport=\"sse\"}";
    wait_for("all streams", || figure(&server, open).filter(|open| *open == IDLE as u64));
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let started = Instant::now();
            metrics_at(server.place());
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("/metrics beside {} idle streams: median {:?}, worst {:?}", streams.len(), times[10], times[19]);
    assert!(times[19] < PROMPT, "{times:?}");
    let told = status(&server, &["--json"]).well().json();
    assert_eq!([&told["connections"]["sse"], &told["users_online"]], [&json!(IDLE), &json!(1)]);
}
