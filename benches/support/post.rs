//! The publishing client process: connections that each have one request under way, alone or a batch of lines.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use super::client::{MESSAGE, connect, message};
use super::http::{Answers, post_head};
use super::process::cpu_seconds;
use super::report::quantile;

/// What the client process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    pub address: SocketAddr,
    pub key: String,
    pub connections: usize,
    /// Lines of a request; `None` is a single notification.
    pub lines: Option<usize>,
    pub to: To,
    pub seconds: f64,
    pub server: u32,
}

/// Whom the publishes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum To {
    Topic,
    /// One of so many users each, in turn, far apart.
    Users(usize),
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub publishes: u64,
    pub seconds: f64,
    pub server_cpu_s: f64,
    /// Of a request.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

struct Connection {
    stream: TcpStream,
    answers: Answers,
    request: Vec<u8>,
    sent: usize,
    begun: Instant,
}

/// Runs a client process.
pub fn load(spec: &Spec) -> anyhow::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    let out = command.arg("--post").arg(serde_json::to_string(spec)?).stderr(Stdio::inherit()).output()?;
    ensure!(out.status.success(), "the client failed");
    Ok(serde_json::from_slice(&out.stdout)?)
}

/// Plays the client process.
pub fn run(spec: &str) -> anyhow::Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("the client's part can't be read")?;
    let outcome = Fleet::connect(spec)?.run()?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

struct Fleet {
    spec: Spec,
    poll: Poll,
    connections: Vec<Connection>,
    made: u64,
}

impl Fleet {
    fn connect(spec: Spec) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for index in 0..spec.connections {
            let mut stream = connect(spec.address)?;
            poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            let (answers, begun) = (Answers::default(), Instant::now());
            connections.push(Connection { stream, answers, request: Vec::new(), sent: 0, begun });
        }
        Ok(Self { spec, poll, connections, made: 0 })
    }

    fn run(mut self) -> anyhow::Result<Outcome> {
        let mut events = Events::with_capacity(1024);
        let span = Duration::from_secs_f64(self.spec.seconds);
        let (begun, cpu) = (Instant::now(), cpu_seconds(self.spec.server));
        let (mut publishes, mut delays) = (0, Vec::new());
        for index in 0..self.connections.len() {
            self.ask(index)?;
        }
        while begun.elapsed() < span {
            self.poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                let index = event.token().0;
                self.write(index)?;
                for answer in self.read(index)? {
                    publishes += self.settle(&answer)?;
                    delays.push(self.connections[index].begun.elapsed().as_secs_f64() * 1_000.0);
                    self.ask(index)?;
                }
            }
        }
        Ok(Outcome {
            publishes,
            seconds: begun.elapsed().as_secs_f64(),
            server_cpu_s: cpu_seconds(self.spec.server) - cpu,
            p50_ms: quantile(&mut delays, 0.5),
            p99_ms: quantile(&mut delays, 0.99),
        })
    }

    /// How many publishes an answer acknowledges: every line of a batch must have been taken.
    fn settle(&self, answer: &[u8]) -> anyhow::Result<u64> {
        let Some(lines) = self.spec.lines else { return Ok(1) };
        let taken = memchr::memmem::find_iter(answer, b"\"status\":201").count();
        ensure!(taken == lines, "{taken} of {lines} lines were taken");
        Ok(taken as u64)
    }

    /// Begins a connection's next request.
    fn ask(&mut self, index: usize) -> anyhow::Result<()> {
        let mut body = String::new();
        for line in 0..self.spec.lines.unwrap_or(1) {
            if line > 0 {
                body.push('\n');
            }
            let to = match self.spec.to {
                To::Topic => "topic:bench".to_owned(),
                // A prime step visits all of them, no neighbours in turn.
                To::Users(users) => format!("user:u{}", self.made.wrapping_mul(7_919) % users as u64),
            };
            self.made += 1;
            body.push_str(&notification(&to, self.made));
        }
        let kind = if self.spec.lines.is_some() { "application/x-ndjson" } else { "application/json" };
        let mut request = post_head("/v1/notifications", Some(&self.spec.key), kind, body.len()).into_bytes();
        request.extend_from_slice(body.as_bytes());
        let connection = &mut self.connections[index];
        (connection.request, connection.sent, connection.begun) = (request, 0, Instant::now());
        self.write(index)
    }

    fn write(&mut self, index: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        while connection.sent < connection.request.len() {
            match connection.stream.write(&connection.request[connection.sent..]) {
                Ok(written) => connection.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("a connection broke"),
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let connection = &mut self.connections[index];
        let (mut whole, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(read) => whole.extend(connection.answers.push(&buffer[..read])?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(whole),
                Err(error) => return Err(error).context("a connection broke"),
            }
        }
    }
}

/// A publish of the usual size.
pub fn notification(to: &str, number: u64) -> String {
    format!(r#"{{"to":"{to}","title":"Build finished","body":"{}"}}"#, message(number % 100_000_000, 0, MESSAGE))
}
