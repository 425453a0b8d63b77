//! The client process: many event streams on nonblocking sockets in one thread, and the publisher that feeds them.
//!
//! A message says its number and when it was due (`~00000012~00000000000003e8~`), so each delivery is checked: a
//! subscriber that misses one, gets one twice or out of order is told apart, and makes the bench fail.

use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use memchr::{memchr, memmem};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::http::{Answers, post_head};
use super::process::cpu_seconds;
use super::report::quantile;

/// Connections that are being opened at a time.
const OPENING: usize = 256;
/// How long nothing may happen before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Below this the next publish is waited for without sleeping: `epoll_wait` knows only whole milliseconds.
const SPIN: Duration = Duration::from_millis(2);
/// Bytes of a message's mark.
const MARK: usize = 27;
const PUBLISHER: Token = Token(usize::MAX);

/// What the client process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    pub address: SocketAddr,
    pub subscribers: usize,
    /// Path and query of a stream.
    pub path: String,
    /// A bearer token a line, one for each subscriber.
    pub tokens: Option<PathBuf>,
    /// What a subscriber that is ready has seen.
    pub ready: String,
    /// Whose CPU time counts.
    pub server: u32,
    pub load: Load,
}

/// What happens once everybody is ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Load {
    /// Nothing, until standard input ends.
    Idle,
    /// Each subscriber gets so many messages that it missed.
    Replay(u64),
    Broadcast(Broadcast),
}

/// Publishing to all of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    pub path: String,
    pub key: Option<String>,
    /// What stands before and behind the message in a publish.
    pub around: (String, String),
    pub pace: Pace,
    pub seconds: f64,
    /// Messages that are not measured.
    pub warm_up: u64,
}

/// When the next message is published.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Pace {
    /// As soon as fewer than so many are on their way to somebody.
    Window(u64),
    /// So many a second.
    Rate(f64),
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// From the first connection to the moment at which all were ready.
    pub connected_s: f64,
    pub seconds: f64,
    pub deliveries: u64,
    /// Frames with counts, which travel beside the messages.
    pub counts: u64,
    pub server_cpu_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub lost: u64,
    /// Twice, or behind a later one.
    pub disordered: u64,
}

impl Outcome {
    /// # Errors
    /// Where the server lost, doubled or reordered anything.
    pub fn checked(self) -> anyhow::Result<Self> {
        ensure!(self.lost == 0 && self.disordered == 0, "{} lost, {} out of order", self.lost, self.disordered);
        Ok(self)
    }

    #[expect(clippy::cast_precision_loss)]
    pub fn rate(&self) -> f64 {
        self.deliveries as f64 / self.seconds
    }

    /// Microseconds of server CPU for one delivery.
    #[expect(clippy::cast_precision_loss)]
    pub fn cost_us(&self) -> f64 {
        self.server_cpu_s * 1e6 / self.deliveries as f64
    }
}

/// A message of `size` bytes that bears its number and when it was due.
pub fn message(number: u64, due_us: u64, size: usize) -> String {
    let mark = format!("~{number:08}~{due_us:016x}~");
    let padding = "Nothing is lost and nothing comes twice. ".repeat(size / 41 + 1);
    format!("{mark}{}", &padding[..size.saturating_sub(MARK)])
}

/// Bytes of a message in the benches.
pub const MESSAGE: usize = 200;

/// A client process.
pub struct Client {
    child: std::process::Child,
    out: std::io::BufReader<std::process::ChildStdout>,
    /// From the first connection to the moment at which all were ready.
    pub connected_s: f64,
}

impl Client {
    /// Starts it; returns when all subscribers are ready.
    pub fn start(spec: &Spec) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--client").arg(serde_json::to_string(spec)?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let out = std::io::BufReader::new(child.stdout.take().context("standard output is piped")?);
        let mut this = Self { child, out, connected_s: 0.0 };
        this.connected_s = this.line()?.trim().parse()?;
        Ok(this)
    }

    /// Waits for the end of the load.
    pub fn finish(mut self) -> anyhow::Result<Outcome> {
        // The end of its standard input ends an idle client.
        drop(self.child.stdin.take());
        let outcome: Outcome = serde_json::from_str(&self.line()?)?;
        self.child.wait()?;
        outcome.checked()
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the client ended early");
        Ok(line)
    }
}

/// Starts a client, lets it load the server and returns what came of it.
pub fn load(spec: &Spec) -> anyhow::Result<Outcome> {
    Client::start(spec)?.finish()
}

/// Raises the open-file limit as far as allowed.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Plays the client process.
pub fn run(spec: &str) -> anyhow::Result<()> {
    raise_open_files();
    let spec: Spec = serde_json::from_str(spec).context("the client's part can't be read")?;
    let mut fleet = Fleet::connect(&spec)?;
    println!("{}", fleet.outcome.connected_s);
    match &spec.load {
        Load::Idle => {
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        Load::Replay(each) => fleet.replay(*each)?,
        Load::Broadcast(broadcast) => fleet.broadcast(&spec, broadcast)?,
    }
    println!("{}", serde_json::to_string(&fleet.outcome)?);
    Ok(())
}

struct Subscriber {
    stream: TcpStream,
    /// The end of what was read, where a mark is cut in two.
    rest: Vec<u8>,
    ready: bool,
    /// The number that must come next.
    next: u64,
}

struct Fleet {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    subscribers: Vec<Subscriber>,
    begun: Instant,
    /// What is looked for in the stream of someone who is not ready.
    ready_mark: Vec<u8>,
    ready: usize,
    /// How many subscribers have got each message.
    received: Vec<usize>,
    /// Messages that all have got.
    complete: u64,
    /// Messages below this number are not measured.
    measured_from: u64,
    delays_us: Vec<u32>,
    outcome: Outcome,
}

impl Fleet {
    fn connect(spec: &Spec) -> anyhow::Result<Self> {
        let tokens = spec.tokens.as_ref().map(std::fs::read_to_string).transpose()?;
        let mut tokens = tokens.as_deref().map(str::lines);
        let mut fleet = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; 256 * 1024],
            subscribers: Vec::with_capacity(spec.subscribers),
            begun: Instant::now(),
            ready_mark: spec.ready.clone().into_bytes(),
            ready: 0,
            received: Vec::new(),
            complete: 0,
            measured_from: 0,
            delays_us: Vec::new(),
            outcome: Outcome::default(),
        };
        let mut moved = Instant::now();
        while fleet.ready < spec.subscribers {
            let before = fleet.ready;
            while fleet.subscribers.len() < spec.subscribers && fleet.subscribers.len() < fleet.ready + OPENING {
                let token = tokens.as_mut().map(|tokens| tokens.next().context("too few tokens")).transpose()?;
                fleet.open(spec, token)?;
            }
            fleet.turn(Duration::from_millis(100))?;
            if fleet.ready > before {
                moved = Instant::now();
            }
            ensure!(moved.elapsed() < PATIENCE, "only {} of {} are ready", fleet.ready, spec.subscribers);
        }
        fleet.outcome.connected_s = fleet.begun.elapsed().as_secs_f64();
        Ok(fleet)
    }

    fn open(&mut self, spec: &Spec, token: Option<&str>) -> anyhow::Result<()> {
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{authorization}\r\n",
            spec.path
        );
        let mut stream = connect(spec.address)?;
        stream.write_all(head.as_bytes())?;
        let token = Token(self.subscribers.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        self.subscribers.push(Subscriber { stream, rest: Vec::new(), ready: false, next: 0 });
        Ok(())
    }

    /// Waits for events and reads what came. Whether the publisher's answers are among it.
    fn turn(&mut self, wait: Duration) -> anyhow::Result<bool> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            other => other?,
        }
        let mut answered = false;
        let tokens: Vec<Token> = self.events.iter().map(mio::event::Event::token).collect();
        for token in tokens {
            if token == PUBLISHER { answered = true } else { self.read(token.0)? }
        }
        Ok(answered)
    }

    fn read(&mut self, index: usize) -> anyhow::Result<()> {
        loop {
            let subscriber = &mut self.subscribers[index];
            let kept = subscriber.rest.len();
            self.buffer[..kept].copy_from_slice(&subscriber.rest);
            let read = match subscriber.stream.read(&mut self.buffer[kept..]) {
                Ok(0) => bail!("the server closed stream {index}"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("a stream broke"),
            };
            // Less than there was room for is all that there was: edge-triggered, as epoll(7) allows.
            let drained = kept + read < self.buffer.len();
            let buffer = std::mem::take(&mut self.buffer);
            self.take(index, &buffer[..kept + read]);
            self.buffer = buffer;
            if drained {
                return Ok(());
            }
        }
    }

    fn take(&mut self, index: usize, bytes: &[u8]) {
        let subscriber = &mut self.subscribers[index];
        if !subscriber.ready {
            if memmem::find(bytes, &self.ready_mark).is_none() {
                subscriber.rest = bytes.to_vec();
                return;
            }
            subscriber.ready = true;
            self.ready += 1;
        }
        let mut at = 0;
        let mut rest = bytes.len();
        while let Some(found) = memchr(b'~', &bytes[at..]) {
            let start = at + found;
            let Some(mark) = bytes.get(start..start + MARK) else {
                rest = start;
                break;
            };
            at = start + MARK;
            if let Some((number, due_us)) = parse(mark) {
                self.deliver(index, number, due_us);
            }
        }
        // Counts are looked for by a word that stands once in each; one cut in two is not worth carrying over.
        self.outcome.counts += memmem::find_iter(bytes, b"event: unread").count() as u64;
        let subscriber = &mut self.subscribers[index];
        subscriber.rest.clear();
        subscriber.rest.extend_from_slice(&bytes[rest..]);
    }

    fn deliver(&mut self, index: usize, number: u64, due_us: u64) {
        let subscriber = &mut self.subscribers[index];
        if number < subscriber.next {
            self.outcome.disordered += 1;
            return;
        }
        self.outcome.lost += number - subscriber.next;
        subscriber.next = number + 1;
        let slot = usize::try_from(number).unwrap_or(usize::MAX);
        if self.received.len() <= slot {
            self.received.resize(slot + 1, 0);
        }
        self.received[slot] += 1;
        while self.received.get(usize::try_from(self.complete).unwrap_or(usize::MAX)) == Some(&self.subscribers.len()) {
            self.complete += 1;
        }
        if number >= self.measured_from {
            let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.delays_us.push(u32::try_from(now.saturating_sub(due_us)).unwrap_or(u32::MAX));
            self.outcome.deliveries += 1;
        }
    }

    fn replay(&mut self, each: u64) -> anyhow::Result<()> {
        let mut moved = (Instant::now(), 0);
        while self.complete < each {
            self.turn(Duration::from_millis(100))?;
            if self.outcome.deliveries > moved.1 {
                moved = (Instant::now(), self.outcome.deliveries);
            }
            ensure!(moved.0.elapsed() < PATIENCE, "only {} of {each} came to all", self.complete);
        }
        self.outcome.seconds = self.begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn broadcast(&mut self, spec: &Spec, broadcast: &Broadcast) -> anyhow::Result<()> {
        let mut publisher = Publisher::connect(spec, broadcast, &self.poll)?;
        self.measured_from = broadcast.warm_up;
        let span = Duration::from_secs_f64(broadcast.seconds);
        let first_due = Instant::now();
        let mut measured: Option<(Instant, f64)> = None;
        let mut moved = (Instant::now(), 0);
        loop {
            let over = measured.is_some_and(|(since, _)| since.elapsed() >= span);
            if over && self.complete == publisher.published {
                break;
            }
            if measured.is_none() && self.complete >= broadcast.warm_up {
                (self.outcome.counts, measured) = (0, Some((Instant::now(), cpu_seconds(spec.server))));
            }
            let wait = if over {
                Duration::from_millis(100)
            } else {
                match broadcast.pace {
                    Pace::Window(window) => {
                        while publisher.published < self.complete + window {
                            publisher.publish(self.begun.elapsed())?;
                        }
                        Duration::from_millis(100)
                    }
                    Pace::Rate(rate) => {
                        let due = |number: u64| {
                            #[expect(clippy::cast_precision_loss)]
                            let after = Duration::from_secs_f64(number as f64 / rate);
                            first_due + after
                        };
                        while due(publisher.published) <= Instant::now() {
                            publisher.publish(due(publisher.published) - self.begun)?;
                        }
                        let left = due(publisher.published).saturating_duration_since(Instant::now());
                        left.saturating_sub(SPIN).min(Duration::from_millis(100))
                    }
                }
            };
            if self.turn(wait)? {
                publisher.read()?;
            }
            publisher.write()?;
            if self.complete > moved.1 {
                moved = (Instant::now(), self.complete);
            }
            ensure!(moved.0.elapsed() < PATIENCE, "{} of {} came to all", self.complete, publisher.published);
        }
        let (since, cpu) = measured.context("the warm-up never ended")?;
        self.outcome.seconds = since.elapsed().as_secs_f64();
        self.outcome.server_cpu_s = cpu_seconds(spec.server) - cpu;
        let mut delays: Vec<f64> = self.delays_us.iter().map(|us| f64::from(*us) / 1_000.0).collect();
        self.outcome.p50_ms = quantile(&mut delays, 0.5);
        self.outcome.p99_ms = quantile(&mut delays, 0.99);
        Ok(())
    }
}

/// Opens a connection that leaves no port behind in `TIME_WAIT`.
pub fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    // Blocking, since loopback answers at once and the request can be written straight away.
    let stream = std::net::TcpStream::connect(address)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

fn parse(mark: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(mark).ok()?;
    Some((text.get(1..9)?.parse().ok()?, u64::from_str_radix(text.get(10..26)?, 16).ok()?))
}

/// One connection that publishes without waiting for the answers, so that messages stay in order.
struct Publisher {
    stream: TcpStream,
    answers: Answers,
    queued: Vec<u8>,
    published: u64,
    path: String,
    key: Option<String>,
    around: (String, String),
}

impl Publisher {
    fn connect(spec: &Spec, broadcast: &Broadcast, poll: &Poll) -> anyhow::Result<Self> {
        let mut stream = connect(spec.address)?;
        poll.registry().register(&mut stream, PUBLISHER, Interest::READABLE | Interest::WRITABLE)?;
        let Broadcast { path, key, around, .. } = broadcast.clone();
        Ok(Self { stream, answers: Answers::default(), queued: Vec::new(), published: 0, path, key, around })
    }

    fn publish(&mut self, due: Duration) -> anyhow::Result<()> {
        let due_us = u64::try_from(due.as_micros())?;
        let body = format!("{}{}{}", self.around.0, message(self.published, due_us, MESSAGE), self.around.1);
        let head = post_head(&self.path, self.key.as_deref(), "application/json", body.len());
        self.queued.extend_from_slice(head.as_bytes());
        self.queued.extend_from_slice(body.as_bytes());
        self.published += 1;
        self.write()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        while !self.queued.is_empty() {
            match self.stream.write(&self.queued) {
                Ok(written) => drop(self.queued.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the publisher's connection broke"),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed the publisher's connection"),
                Ok(read) => drop(self.answers.push(&buffer[..read])?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the publisher's connection broke"),
            }
        }
    }
}
