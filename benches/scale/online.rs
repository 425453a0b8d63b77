//! Those who are online: event streams that are read in turns with the publishes, each checked on what it got.
//!
//! A watcher must get every publish to the topics it follows, once and in order, none to another, and in the end the
//! counts that follow from them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::support::client::connect;

/// How long nothing may happen before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are being opened at a time.
const OPENING: usize = 128;

/// The mark of a publish in its body: which topic, and the how-manieth.
pub fn mark(topic: usize, number: u64) -> String {
    format!("~{topic}~{number:08}~")
}

struct Watcher {
    stream: TcpStream,
    /// A block of the stream whose end has not come.
    rest: Vec<u8>,
    ready: bool,
    follows: Vec<bool>,
    /// How many of each topic have come.
    got: Vec<u64>,
    /// What the newest `unread` said.
    unread: u64,
}

/// All of them.
pub struct Online {
    poll: Poll,
    events: Events,
    watchers: Vec<Watcher>,
    /// Publishes to each topic so far.
    published: Vec<u64>,
}

impl Online {
    /// Connects a watcher for each token; `follows` tells whether watcher n follows topic t, of so many.
    pub fn connect(
        address: SocketAddr,
        tokens: &[String],
        topics: usize,
        follows: impl Fn(usize, usize) -> bool,
    ) -> anyhow::Result<Self> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(1_024));
        let mut online = Self { poll, events, watchers: Vec::with_capacity(tokens.len()), published: vec![0; topics] };
        for (number, token) in tokens.iter().enumerate() {
            online.open(address, token, (0..topics).map(|topic| follows(number, topic)).collect())?;
            if online.watchers.len().is_multiple_of(OPENING) {
                online.until("are ready", |watcher, _| watcher.ready)?;
            }
        }
        online.until("are ready", |watcher, _| watcher.ready)?;
        Ok(online)
    }

    fn open(&mut self, address: SocketAddr, token: &str, follows: Vec<bool>) -> anyhow::Result<()> {
        let mut stream = connect(address)?;
        let head = format!(
            "GET /v1/stream?cursor=now HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        self.poll.registry().register(&mut stream, Token(self.watchers.len()), Interest::READABLE)?;
        let got = vec![0; follows.len()];
        self.watchers.push(Watcher { stream, rest: Vec::new(), ready: false, follows, got, unread: 0 });
        Ok(())
    }

    /// A publish to a topic was made: waits until all who follow it have it. How long that took from `since` on.
    pub fn receive(&mut self, topic: usize, since: Instant) -> anyhow::Result<Duration> {
        self.published[topic] += 1;
        self.until("have the newest publish", |watcher, published| watcher.has_all(published))?;
        Ok(since.elapsed())
    }

    /// Waits until everybody's newest counts are right.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        self.until("have the right counts", |watcher, published| watcher.unread == watcher.expected(published))
    }

    /// Publishes to each topic so far.
    pub fn published(&self) -> &[u64] {
        &self.published
    }

    fn until(&mut self, what: &str, done: impl Fn(&Watcher, &[u64]) -> bool) -> anyhow::Result<()> {
        let mut moved = Instant::now();
        loop {
            let left = self.watchers.iter().filter(|watcher| !done(watcher, &self.published)).count();
            if left == 0 {
                return Ok(());
            }
            if self.turn()? {
                moved = Instant::now();
            }
            let all = self.watchers.len();
            ensure!(moved.elapsed() < PATIENCE, "{} of {all} {what}", all - left);
        }
    }

    /// Reads what came. Whether anything did.
    fn turn(&mut self) -> anyhow::Result<bool> {
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            other => other?,
        }
        let mut buffer = vec![0; 64 * 1024];
        for event in &self.events {
            self.watchers[event.token().0].read(&mut buffer)?;
        }
        Ok(!self.events.is_empty())
    }
}

impl Watcher {
    fn read(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed a stream"),
                Ok(read) => self.rest.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("a stream broke"),
            }
        }
        let mut begin = 0;
        while let Some(length) = memmem::find(&self.rest[begin..], b"\n\n") {
            let block = self.rest[begin..begin + length].to_vec();
            begin += length + 2;
            self.take(&block)?;
        }
        self.rest.drain(..begin);
        Ok(())
    }

    /// A block of the stream; what stands around it of the transfer's chunks is passed over.
    fn take(&mut self, block: &[u8]) -> anyhow::Result<()> {
        let holds = |text: &str| memmem::find(block, text.as_bytes()).is_some();
        if holds("event: hello") {
            self.ready = true;
        } else if holds("event: unread") {
            self.unread = number_behind(block, "\"unread\":").context("an `unread` without a number")?;
        } else if holds("event: notification") {
            let topic = number_behind(block, "~").and_then(|topic| usize::try_from(topic).ok());
            let topic = topic.filter(|topic| *topic < self.got.len()).context("a notification of nobody's")?;
            let number = number_behind(block, &format!("~{topic}~")).context("a publish without a number")?;
            ensure!(self.follows[topic], "a publish came to one who does not follow its topic");
            ensure!(number == self.got[topic], "publish {number} came where {} was due", self.got[topic]);
            self.got[topic] += 1;
        }
        Ok(())
    }

    fn has_all(&self, published: &[u64]) -> bool {
        self.follows.iter().zip(&self.got).zip(published).all(|((follows, got), all)| !follows || got == all)
    }

    fn expected(&self, published: &[u64]) -> u64 {
        self.follows.iter().zip(published).filter(|(follows, _)| **follows).map(|(_, all)| all).sum()
    }
}

/// The digits behind the first place where `text` stands.
fn number_behind(block: &[u8], text: &str) -> Option<u64> {
    let begin = memmem::find(block, text.as_bytes())? + text.len();
    let digits = block[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&block[begin..begin + digits]).ok()?.parse().ok()
}
