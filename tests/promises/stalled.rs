//! A reader that stalls costs little and slows nobody (T14): some never read, some send rubbish behind their request, some
//! read a kilobyte a second, while the server has megabytes to tell each of them.
//!
//! The quick form has 99 of them; `TIDINGS_STALLED_READERS=1000` is the full one, which judges memory and latency and waits
//! for the end of those who take nothing, 30 s. That one also cuts the cable of peers that say nothing more.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::crowd::line::{Asker, Line, Transport};
use crate::crowd::{address, long_token, runtime, setting, user};
use crate::storm::quantile;
use crate::support::http::Ask;
use crate::support::poll::figure;
use crate::support::server::{Server, Setup};
use crate::support::{DEADLINE, wait_for};

/// Bytes that one may cost, and five times that where it is not what is measured.
const STATED: u64 = 64 * 1024;
const LOOSE: u64 = 5 * STATED;
const STATED_P99: Duration = Duration::from_millis(100);
/// What each has to be told: so many notifications of so many bytes.
const NOTIFICATIONS: usize = 150;
const BODY: usize = 8_000;
/// Floods until everybody has stalled, at most: the kernel takes some megabytes for each before.
const FLOODS: usize = 10;
/// Readers that are well, and must not notice.
const HEALTHY: usize = 5;
const TOPIC: &str = "flood";
/// A window that is full soon.
const RECEIVE_BUFFER: u32 = 4 * 1024;
const RUBBISH: &[u8] = &[0x5a; 1024];
/// When a slow one reads its next kilobyte, and a rude one says its next.
const SLOWLY: Duration = Duration::from_secs(1);
const RUDELY: Duration = Duration::from_millis(200);
/// In which those who take nothing have been ended: 30 s, and what the server's own buffers took before.
const ENDED: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Never reads.
    Stalls,
    /// Never reads, and sends what is no request behind its request.
    IsRude,
    /// Reads a kilobyte a second.
    IsSlow,
}

#[test]
fn readers_that_take_nothing_cost_little_and_slow_nobody() {
    let full = setting("TIDINGS_STALLED_READERS", 0);
    let readers = if full == 0 { 99 } else { full as usize };
    let server = Server::start();
    let followers: Vec<Value> = (0..readers + HEALTHY).map(|number| json!({ "user": user(number) })).collect();
    for some in followers.chunks(1_000) {
        server.operate(Ask::post(&format!("/v1/topics/{TOPIC}/followers")).ndjson(some)).expect(200);
    }
    let (runtime, address, credential) = (runtime(), address(&server), server.key(&["publish"]));
    let (tell, mut told) = mpsc::unbounded_channel();
    for number in 0..HEALTHY {
        let (token, tell) = (long_token(&server, &user(readers + number)), tell.clone());
        runtime.spawn(async move {
            let mut line = Line::open(address, Transport::Sse, &token, "now").await.expect("it is accepted");
            loop {
                let event = line.next().await.expect("it lives to the end of the test");
                if event.kind != "unread" && tell.send((event.data["seq"].as_u64(), Instant::now())).is_err() {
                    return;
                }
            }
        });
    }
    let hello = |(seq, _): (Option<u64>, Instant)| assert_eq!(seq, None);
    runtime.block_on(async {
        for _ in 0..HEALTHY {
            hello(timeout(DEADLINE, told.recv()).await.expect("in time").expect("a hello"));
        }
    });
    // What a first flood costs for good, caches and all, is not theirs; and it says how fast the healthy are alone.
    let alone = quantile(&runtime.block_on(flood(address, &credential, &mut told)), 0.99);
    let before = resident(&server);
    let mut kept = Vec::new();
    for number in 0..readers {
        let manner = [Manner::Stalls, Manner::IsRude, Manner::IsSlow][number % 3];
        let token = long_token(&server, &user(number));
        kept.push(runtime.spawn(stall(address, token, manner)));
    }
    let online = (readers + HEALTHY) as u64;
    wait_for("the readers", || figure(&server, "tidings_users_online").filter(|there| *there >= online));
    let overran = || figure(&server, "tidings_lags_total").unwrap_or_default();
    let mut took = Vec::new();
    for _ in 0..FLOODS {
        took.extend(runtime.block_on(flood(address, &credential, &mut told)));
        if overran() >= readers as u64 {
            break;
        }
    }
    let among = quantile(&took, 0.99);
    assert!(overran() >= readers as u64, "{} of {readers} have stalled after {FLOODS} floods", overran());
    let after = resident(&server);
    let each = after.saturating_sub(before) / readers as u64;
    println!(
        "{readers} readers that stall: {each} bytes each ({before} to {after}); p99 {alone:?} alone, {among:?} among them"
    );
    assert!(each < LOOSE, "{each} bytes each");
    if full == 0 {
        return;
    }
    assert!(each < STATED, "{each} bytes each");
    let took_nothing = (0..readers).filter(|number| number % 3 != 2).count() as u64;
    let began = Instant::now();
    let slow = || figure(&server, "tidings_byes_total{reason=\"slow\"}").unwrap_or_default();
    while slow() < took_nothing {
        assert!(began.elapsed() < ENDED, "{} of {took_nothing} are ended after {ENDED:?}", slow());
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let there = figure(&server, "tidings_users_online");
    println!("{} ended as slow after {:?}, {there:?} still there", slow(), began.elapsed());
    assert_eq!(there, Some(online - took_nothing), "who reads slowly is kept");
    assert!(among < STATED_P99, "p99 {among:?}, and {alone:?} alone");
}

/// Streams of a peer whose cable is cut: nobody says goodbye, and nothing is refused.
const VANISHING: usize = 20;
/// Opens streams, says when each has been greeted, and holds them.
const PEER: &str = r#"
import socket, sys, time
host, port, tokens = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
held = []
for token in tokens:
    s = socket.create_connection((host, port))
    s.sendall(f"GET /v1/stream?cursor=now HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    while b"event: hello" not in s.recv(65536): pass
    held.append(s)
print("ready", flush=True)
time.sleep(600)
"#;

/// A network with one cable, and a peer at its far end.
struct Network {
    name: String,
    near: String,
}

impl Network {
    const HOST: &str = "10.203.77.1";

    fn make() -> Self {
        let id = std::process::id();
        let this = Self { name: format!("tidings-{id}"), near: format!("tid{id}") };
        let (name, near, far) = (this.name.as_str(), this.near.as_str(), format!("tif{id}"));
        for words in [
            vec!["netns", "add", name],
            vec!["link", "add", near, "type", "veth", "peer", "name", &far],
            vec!["link", "set", &far, "netns", name],
            vec!["addr", "add", "10.203.77.1/30", "dev", near],
            vec!["link", "set", near, "up"],
            vec!["-n", name, "addr", "add", "10.203.77.2/30", "dev", &far],
            vec!["-n", name, "link", "set", &far, "up"],
        ] {
            ip(&words);
        }
        this
    }

    fn cut(&self) {
        ip(&["-n", &self.name, "link", "set", &self.near.replace("tid", "tif"), "down"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.near]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(words: &[&str]) {
    assert!(
        Command::new("ip").args(words).status().expect("iproute2 is there").success(),
        "ip {words:?}: root is needed"
    );
}

#[test]
fn peers_that_vanish_without_a_word_are_given_up() {
    if setting("TIDINGS_STALLED_READERS", 0) == 0 {
        println!("only in the full form: it takes root, and half a minute");
        return;
    }
    let server = Setup::serve().everywhere().start();
    for number in 0..VANISHING {
        server.follow(TOPIC, &user(number));
    }
    let files = open_files(&server);
    let network = Network::make();
    let port = address(&server).port().to_string();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &network.name, "python3", "-c", PEER, Network::HOST, &port]);
    command.args((0..VANISHING).map(|number| long_token(&server, &user(number))));
    let mut peer = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    let _ = BufReader::new(peer.stdout.take().expect("it is piped")).read_line(&mut line);
    assert_eq!(line, "ready\n");
    network.cut();
    let (began, online) = (Instant::now(), || figure(&server, "tidings_users_online").unwrap_or_default());
    while online() > 0 {
        assert!(began.elapsed() < ENDED, "{} are still there after {ENDED:?}", online());
        // Heartbeats alone would find it out too, some seconds later.
        server.publish(&json!({ "to": { "topic": TOPIC }, "title": "t" }));
        std::thread::park_timeout(Duration::from_millis(500));
    }
    println!("{VANISHING} peers that vanished are given up after {:?}", began.elapsed());
    wait_for("their files", || (open_files(&server) <= files + KEPT).then_some(()));
    let _ = peer.kill();
    let _ = peer.wait();
}

/// Files that a server opens as it goes along and keeps: its readers' connections to the database.
pub const KEPT: usize = 16;

/// Files and sockets that the server has open.
pub fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count()
}

/// Opens a stream and behaves badly for as long as it may.
async fn stall(address: SocketAddr, token: String, manner: Manner) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER).expect("the kernel takes it");
    let mut stream = socket.connect(address).await.expect("the server accepts");
    let ask = Ask::get("/v1/stream?cursor=now").header("accept", "text/event-stream").bearer(&token);
    stream.write_all(&ask.to_bytes()).await.expect("the server reads");
    match manner {
        Manner::Stalls => {}
        Manner::IsRude => loop {
            // It is read no further than a buffer, and the connection ends some day: both are answers.
            if timeout(RUDELY, stream.write_all(RUBBISH)).await.is_ok_and(|sent| sent.is_err()) {
                break;
            }
            sleep(RUDELY).await;
        },
        Manner::IsSlow => {
            let mut kilobyte = [0; 1024];
            while stream.read(&mut kilobyte).await.is_ok_and(|read| read > 0) {
                sleep(SLOWLY).await;
            }
        }
    }
    stream
}

/// Publishes to all, and waits until the healthy have everything; how long each took from the answer to the reader.
async fn flood(
    address: SocketAddr,
    credential: &str,
    told: &mut mpsc::UnboundedReceiver<(Option<u64>, Instant)>,
) -> Vec<Duration> {
    let mut asker = Asker::connect(address).await.expect("the server accepts");
    let body = "b".repeat(BODY);
    let (mut due, mut took) = (Vec::new(), Vec::new());
    for _ in 0..NOTIFICATIONS {
        let ask = Ask::post("/v1/notifications").bearer(credential);
        let ask = ask.json(&json!({ "to": { "topic": TOPIC }, "title": "t", "body": body }));
        let asked = Instant::now();
        let (status, answer) = asker.ask(&ask).await.expect("the server answers");
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        due.push((answer["seq"].as_u64().expect("a seq"), asked));
    }
    for _ in 0..NOTIFICATIONS * HEALTHY {
        let (seq, came) = timeout(DEADLINE, told.recv()).await.expect("the healthy get it in time").expect("an event");
        let at = due.binary_search_by_key(&seq.expect("a seq"), |(seq, _)| *seq).expect("it was published");
        took.push(came.saturating_duration_since(due[at].1));
    }
    took
}

/// Bytes of memory that the server has.
pub fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}
