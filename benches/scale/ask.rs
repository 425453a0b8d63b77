//! One request at a time on a kept connection, its time, and what the server's own histogram says its commit took.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::support::http::{Answers, post_head};
use crate::support::report::median;

/// The server closes a connection that was silent for 10 s; one is not used again that was silent for so long.
const STALE: Duration = Duration::from_secs(5);

/// A connection that asks in turns.
pub struct Asker {
    address: SocketAddr,
    stream: TcpStream,
    used: Instant,
    buffer: Vec<u8>,
}

/// An answer, and how long it took until all of it was there.
pub struct Answer {
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Answer {
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).context("an answer is no JSON")
    }
}

/// A write that was measured; milliseconds.
pub struct Write {
    pub answer: Value,
    pub request_ms: f64,
    /// Not a number where anything else was committed at the same time.
    pub commit_ms: f64,
}

impl Asker {
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { address, stream: open(address)?, used: Instant::now(), buffer: vec![0; 256 * 1024] })
    }

    pub fn get(&mut self, path: &str, bearer: &str) -> anyhow::Result<Answer> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\n\r\n"))
    }

    pub fn post(&mut self, path: &str, bearer: &str, body: &str) -> anyhow::Result<Answer> {
        let head = post_head(path, Some(bearer), "application/json", body.len());
        self.ask(&(head + body))
    }

    /// Posts, and takes the commit's own time from the server's histogram.
    pub fn write(&mut self, path: &str, bearer: &str, body: &str) -> anyhow::Result<Write> {
        let before = self.commits()?;
        let answer = self.post(path, bearer, body)?;
        let after = self.commits()?;
        let alone = (after.count - before.count - 1.0).abs() < 0.5;
        let commit_ms = if alone { (after.seconds - before.seconds) * 1_000.0 } else { f64::NAN };
        Ok(Write { request_ms: milliseconds(answer.took), answer: answer.json()?, commit_ms })
    }

    fn commits(&mut self) -> anyhow::Result<Commits> {
        let answer = self.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let figure = |name: &str| -> anyhow::Result<f64> {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            Ok(value.with_context(|| format!("no {name}"))?.trim().parse()?)
        };
        Ok(Commits { count: figure("tidings_commit_seconds_count")?, seconds: figure("tidings_commit_seconds_sum")? })
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<Answer> {
        if self.used.elapsed() > STALE {
            self.stream = open(self.address)?;
        }
        let begun = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let mut answers = Answers::default();
        loop {
            let read = self.stream.read(&mut self.buffer)?;
            ensure!(read > 0, "the server closed without an answer");
            if let Some(body) = answers.push(&self.buffer[..read])?.pop() {
                self.used = Instant::now();
                return Ok(Answer { body, took: begun.elapsed() });
            }
        }
    }
}

/// What the server has committed so far.
struct Commits {
    count: f64,
    seconds: f64,
}

fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

/// The number at a JSON pointer.
pub fn number(value: &Value, pointer: &str) -> anyhow::Result<u64> {
    let found = value.pointer(pointer).and_then(Value::as_u64);
    found.with_context(|| format!("no number at {pointer} of {value}"))
}

/// The median of what was measured, which must not be next to nothing.
pub fn of_most(samples: &[f64], wanted: usize) -> anyhow::Result<f64> {
    let finite = samples.iter().filter(|sample| sample.is_finite()).count();
    if finite * 2 <= wanted {
        bail!("only {finite} of {wanted} commits stood alone");
    }
    Ok(median(samples))
}

/// The tokens that were minted into a file, in order.
pub fn tokens(path: &std::path::Path) -> anyhow::Result<Vec<String>> {
    Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}
