//! A reader that stalls costs little and slows nobody (T14): some never read, some send rubbish behind their request, some
//! read a kilobyte a second, while the server has megabytes to tell each of them. Most stream events, one in ten has a
//! WebSocket, and one in ten polls and leaves a whole page of answer unread. Peers whose cable is cut are given up.
//!
//! The quick form has 100 of them; `TIDINGS_STALLED_READERS=1000` is the full one, which judges memory and latency and waits
//! for the end of those who take nothing, 30 s.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::crowd::line::{Asker, Line, Transport};
use crate::crowd::{address, long_token, runtime, setting, user};
use crate::mount::skipped;
use crate::storm::quantile;
use crate::support::http::Ask;
use crate::support::poll::figure;
use crate::support::server::{Server, Setup};
use crate::support::ws::{Frame, TEXT, handshake};
use crate::support::{DEADLINE, wait_for};

/// Bytes that one may cost, and five times that where it is not what is measured.
const STATED: u64 = 64 * 1024;
const LOOSE: u64 = 5 * STATED;
/// The same of a poll that is not read: a page of 256 KiB, and the event that fills it.
const STATED_POLL: u64 = 384 * 1024;
const STATED_P99: Duration = Duration::from_millis(100);
/// What each has to be told: so many notifications of so many bytes.
const NOTIFICATIONS: usize = 150;
const BODY: usize = 8_000;
/// Floods until everybody has stalled, at most: the kernel takes some megabytes for each before.
const FLOODS: usize = 10;
/// Readers that are well, and must not notice.
const HEALTHY: usize = 5;
const TOPIC: &str = "flood";
/// Sockets of whoever asks for figures, and of who has published just now.
const OTHERS: u64 = 4;
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
    /// Never reads, and goes on sending: what is no request behind its request, or operations whose replies it leaves.
    IsRude,
    /// Reads a kilobyte a second.
    IsSlow,
}

/// How the reader of this number comes, and how it behaves.
fn reader(number: usize) -> (Transport, Manner) {
    let manner = [Manner::Stalls, Manner::IsRude, Manner::IsSlow][number % 3];
    match number % 10 {
        // What is answered is no subscriber any more: there is nothing for it to be slow or rude with.
        4 => (Transport::Poll, Manner::Stalls),
        // One that takes a kilobyte a second gets to no ping in time, and is ended like those who take nothing.
        9 if manner == Manner::IsSlow => (Transport::Ws, Manner::Stalls),
        9 => (Transport::Ws, manner),
        _ => (Transport::Sse, manner),
    }
}

#[test]
fn readers_that_take_nothing_cost_little_and_slow_nobody() {
    let full = setting("TIDINGS_STALLED_READERS", 0);
    let readers = if full == 0 { 100 } else { full as usize };
    let server = Server::start();
    let followers: Vec<Value> = (0..readers + HEALTHY).map(|number| json!({ "user": user(number) })).collect();
    for some in followers.chunks(1_000) {
        server.operate(Ask::post(&format!("/v1/topics/{TOPIC}/followers")).ndjson(some)).expect(200);
    }
    let (runtime, address, credential) = (runtime(), address(&server), server.key(&["publish"]));
    let (tell, mut told) = mpsc::unbounded_channel();
    for number in 0..HEALTHY {
        let (token, tell) = (long_token(&server, &user(readers + number)), tell.clone());
        let transport = if number == 0 { Transport::Ws } else { Transport::Sse };
        runtime.spawn(async move {
            let mut line = Line::open(address, transport, &token, "now").await.expect("it is accepted");
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
    let (polls, streams): (Vec<usize>, Vec<usize>) =
        (0..readers).partition(|number| reader(*number).0 == Transport::Poll);
    let open = |number: &usize| {
        let (transport, manner) = reader(*number);
        runtime.spawn(stall(address, long_token(&server, &user(*number)), transport, manner))
    };
    let _kept: Vec<_> = streams.iter().map(open).collect();
    let online = (streams.len() + HEALTHY) as u64;
    wait_for("the readers", || figure(&server, "tidings_users_online").filter(|there| *there >= online));
    let overran = || figure(&server, "tidings_lags_total").unwrap_or_default();
    let slow = || figure(&server, "tidings_byes_total{reason=\"slow\"}").unwrap_or_default();
    // On a machine that takes half a minute for this, some are ended before they have stalled so far.
    let have_stalled = || overran() + slow() >= streams.len() as u64;
    let mut took = Vec::new();
    for _ in 0..FLOODS {
        took.extend(runtime.block_on(flood(address, &credential, &mut told)));
        if have_stalled() {
            break;
        }
    }
    let among = quantile(&took, 0.99);
    assert!(have_stalled(), "{} of {} have stalled after {FLOODS} floods", overran(), streams.len());
    let after = resident(&server);
    // A poll's answer is made whole, so the first byte of it that arrives says that all of it is there. They come last, since
    // what is freed when they are cut would hide what streams cost.
    let mut unread: Vec<TcpStream> = Vec::new();
    for poll in polls.iter().map(open).collect::<Vec<_>>() {
        unread
            .push(runtime.block_on(async { timeout(DEADLINE, poll).await }).expect("in time").expect("it is answered"));
    }
    let each_poll = resident(&server).saturating_sub(after) / polls.len() as u64;
    let each = after.saturating_sub(before) / streams.len() as u64;
    println!(
        "{} readers that stall: {each} bytes each ({before} to {after}); {} polls that are not read: {each_poll} bytes \
         each; p99 {alone:?} alone, {among:?} among them",
        streams.len(),
        polls.len()
    );
    assert!(each < LOOSE && each_poll < 5 * STATED_POLL, "{each} bytes each, a poll {each_poll}");
    if full == 0 {
        return;
    }
    assert!(each < STATED && each_poll < STATED_POLL, "{each} bytes each, a poll {each_poll}");
    let slowly = (0..readers).filter(|number| reader(*number).1 == Manner::IsSlow).count() as u64 + HEALTHY as u64;
    let began = Instant::now();
    let there = || figure(&server, "tidings_users_online").expect("it is counted");
    // The kernel gives one up by itself after as long; where it comes first, nobody is told that it was slow.
    let open = || figure(&server, "tidings_sockets").expect("it is counted");
    while there() > slowly || open() > slowly + OTHERS {
        let (there, open) = (there(), open());
        assert!(began.elapsed() < ENDED, "{there} are there after {ENDED:?}, on {open} sockets, for {slowly}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    println!("{} ended as slow after {:?}, {} still there", slow(), began.elapsed(), there());
    assert_eq!(there(), slowly, "who reads slowly is kept");
    assert!(slow() > 0, "nobody was told to be slow");
    assert!(among < STATED_P99, "p99 {among:?}, and {alone:?} alone");
}

/// Streams of a peer whose cable is cut: nobody says goodbye, and nothing is refused.
const VANISHING: usize = 20;
/// In which they are given up; 30 s is what is not acknowledged given.
const GIVEN_UP: Duration = Duration::from_secs(150);
/// Opens streams, says when each has been greeted, and holds them until its standard input ends.
const PEER: &str = r#"
import socket, sys
host, port, tokens = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
held = []
for token in tokens:
    s = socket.create_connection((host, port), 30)
    s.sendall(f"GET /v1/stream?cursor=now HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    got = b""
    while b"event: hello" not in got:
        some = s.recv(65536)
        if not some: sys.exit(f"the server hung up: {got}")
        got += some
    held.append(s)
print("ready", flush=True)
sys.stdin.read()
"#;

/// A network with one cable, and a peer at its far end. Runs beside each other have addresses of their own.
struct Network {
    name: String,
    near: String,
    far: String,
    host: Ipv4Addr,
}

impl Network {
    fn make() -> Self {
        let id = std::process::id();
        let (name, near, far) = (format!("tidings-{id}"), format!("tid{id}"), format!("tif{id}"));
        let first = u32::from(Ipv4Addr::new(10, 203, 0, 0)) + (id % 0x4000) * 4;
        let [host, peer] = [1, 2].map(|last| Ipv4Addr::from(first + last));
        let this = Self { name, near, far, host };
        let (name, near, far) = (this.name.as_str(), this.near.as_str(), this.far.as_str());
        for words in [
            vec!["netns", "add", name],
            vec!["link", "add", near, "type", "veth", "peer", "name", far],
            vec!["link", "set", far, "netns", name],
            vec!["addr", "add", &format!("{host}/30"), "dev", near],
            vec!["link", "set", near, "up"],
            vec!["-n", name, "addr", "add", &format!("{peer}/30"), "dev", far],
            vec!["-n", name, "link", "set", far, "up"],
        ] {
            ip(&words);
        }
        this
    }

    fn cut(&self) {
        ip(&["-n", &self.name, "link", "set", &self.far, "down"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.near]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("iproute2 is there");
    assert!(status.success(), "ip {words:?}: it takes root; TIDINGS_SKIP_MOUNTS=1 leaves it out");
}

/// A process that ends with the test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn peers_that_vanish_without_a_word_are_given_up() {
    if skipped("peers whose cable is cut") {
        return;
    }
    let server = Setup::serve().everywhere().start();
    for number in 0..VANISHING {
        server.follow(TOPIC, &user(number));
    }
    let files = open_files(&server);
    let network = Network::make();
    let (host, port) = (network.host.to_string(), address(&server).port().to_string());
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &network.name, "python3", "-c", PEER, &host, &port]);
    command.args((0..VANISHING).map(|number| long_token(&server, &user(number))));
    let mut peer = Peer(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs"));
    let mut line = String::new();
    let _ = BufReader::new(peer.0.stdout.take().expect("it is piped")).read_line(&mut line);
    assert_eq!(line, "ready\n");
    assert_eq!(figure(&server, "tidings_users_online"), Some(VANISHING as u64));
    network.cut();
    let (began, online) = (Instant::now(), || figure(&server, "tidings_users_online").expect("it is counted"));
    while online() > 0 {
        assert!(began.elapsed() < GIVEN_UP, "{} are still there after {GIVEN_UP:?}", online());
        // Heartbeats alone would find it out too, some seconds later.
        server.publish(&json!({ "to": { "topic": TOPIC }, "title": "t" }));
        std::thread::park_timeout(Duration::from_millis(500));
    }
    println!("{VANISHING} peers that vanished are given up after {:?}", began.elapsed());
    wait_for("their files", || (open_files(&server) <= files + KEPT).then_some(()));
}

/// Files that a server opens as it goes along and keeps: its readers' connections to the database.
pub const KEPT: usize = 16;

/// Files and sockets that the server has open.
pub fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count()
}

/// Subscribes and behaves badly for as long as it may.
async fn stall(address: SocketAddr, token: String, transport: Transport, manner: Manner) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER).expect("the kernel takes it");
    let mut stream = socket.connect(address).await.expect("the server accepts");
    let ask = match transport {
        Transport::Sse => Ask::get("/v1/stream?cursor=now").header("accept", "text/event-stream"),
        Transport::Ws => handshake("/v1/ws?cursor=now"),
        // What the first flood has left is several pages.
        Transport::Poll => Ask::get("/v1/poll?cursor=start&limit=500"),
    };
    stream.write_all(&ask.bearer(&token).to_bytes()).await.expect("the server reads");
    let operation = Frame::new(TEXT, r#"{"op":"ping","ref":"rude"}"#).masked();
    let rubbish = if transport == Transport::Ws { &operation } else { RUBBISH };
    match manner {
        Manner::Stalls => stream.readable().await.expect("the server answers"),
        Manner::IsRude => loop {
            // It is read no further than a buffer, and the connection ends some day: both are answers.
            if timeout(RUDELY, stream.write_all(rubbish)).await.is_ok_and(|sent| sent.is_err()) {
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
