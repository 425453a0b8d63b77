//! Reads an event stream as strictly as the WHATWG standard lets a client, and more strictly than any does: every chunk
//! that the server writes must hold whole frames, and every frame must keep the contract's rules.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use serde_json::Value;

use super::DEADLINE;
use super::http::{Ask, Connection, Head, Place, Socket};

/// One event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub retry: Option<u32>,
    pub id: Option<String>,
    /// `message` where the frame names none.
    pub kind: String,
    pub data: Value,
    /// The fields in the order in which they stood.
    pub order: Vec<String>,
    /// Which write of the server's it came with, from 0.
    pub chunk: usize,
}

impl Event {
    /// The seq in its id.
    pub fn seq(&self) -> u64 {
        let id = self.id.as_deref().unwrap_or_else(|| panic!("{self:?} has no id"));
        id.split_once('.').and_then(|(_, seq)| seq.parse().ok()).unwrap_or_else(|| panic!("{id} is no cursor"))
    }

    pub fn title(&self) -> &str {
        self.data["title"].as_str().unwrap_or_default()
    }

    pub fn reason(&self) -> &str {
        self.data["reason"].as_str().unwrap_or_default()
    }
}

/// What comes over a stream.
#[derive(Debug)]
enum Got {
    Event(Event),
    Comment(String),
    /// The body's proper end.
    End,
    /// Anything that must not be.
    Broken(String),
}

/// An open stream.
pub struct Sse {
    pub head: Head,
    got: Receiver<Got>,
    socket: Socket,
    last_id: Option<String>,
}

impl Drop for Sse {
    fn drop(&mut self) {
        self.socket.shutdown();
    }
}

impl Sse {
    /// Opens a stream, which must be accepted as one.
    pub fn open(place: &Place, ask: Ask) -> Self {
        let ask = ask.header("accept", "text/event-stream");
        let mut connection = Connection::open(place).expect("the server accepts");
        connection.send(&ask.to_bytes()).expect("the server reads");
        let head = connection.head().expect("the server answers");
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let socket = connection.socket().try_clone().expect("a socket can be shared");
        let (sender, got) = channel();
        std::thread::spawn(move || {
            let mut chunks = 0;
            loop {
                let read = match connection.chunk() {
                    Ok(Some(bytes)) => parse(&bytes, chunks),
                    Ok(None) => vec![Got::End],
                    Err(e) => vec![Got::Broken(e.to_string())],
                };
                chunks += 1;
                let over = matches!(read.last(), Some(Got::End | Got::Broken(_)));
                if read.into_iter().any(|got| sender.send(got).is_err()) || over {
                    return;
                }
            }
        });
        Self { head, got, socket, last_id: None }
    }

    /// What an EventSource would send as `Last-Event-ID` now.
    pub fn last_id(&self) -> &str {
        self.last_id.as_deref().expect("the stream has had an id")
    }

    fn recv(&mut self, deadline: Instant) -> Got {
        match self.got.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Got::Broken(why)) => panic!("the stream broke: {why}"),
            Ok(got) => {
                if let Got::Event(Event { id: Some(id), .. }) = &got {
                    self.last_id = Some(id.clone());
                }
                got
            }
            Err(RecvTimeoutError::Timeout) => panic!("nothing came in {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the stream was over"),
        }
    }

    /// The next event; comments are passed over, as clients do.
    pub fn next(&mut self) -> Event {
        // One deadline for all: heartbeats must not put it off for ever.
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.recv(deadline) {
                Got::Event(event) => return event,
                Got::Comment(_) => {}
                other => panic!("an event was due, not {other:?}"),
            }
        }
    }

    /// The next event, which must be of this kind.
    pub fn expect(&mut self, kind: &str) -> Event {
        let event = self.next();
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    /// The next event of this kind, whatever comes before it.
    pub fn until(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next();
            if event.kind == kind {
                return event;
            }
        }
    }

    /// The next `count` events of this kind.
    pub fn take(&mut self, kind: &str, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.until(kind)).collect()
    }

    /// Reads until the counts say so many unread.
    pub fn until_unread(&mut self, unread: u64) -> Event {
        loop {
            let counts = self.until("unread");
            if counts.data["unread"] == unread {
                return counts;
            }
        }
    }

    /// The titles of the next notifications up to and with this one.
    pub fn titles_to(&mut self, last: &str) -> Vec<String> {
        let mut titles = Vec::new();
        while titles.last().is_none_or(|title| title != last) {
            titles.push(self.until("notification").title().to_owned());
        }
        titles
    }

    /// The next comment; nothing else may come before it.
    pub fn comment(&mut self) -> String {
        match self.recv(Instant::now() + DEADLINE) {
            Got::Comment(text) => text,
            other => panic!("a comment was due, not {other:?}"),
        }
    }

    /// Asserts that the stream ends here, properly.
    pub fn ends(&mut self) {
        match self.recv(Instant::now() + DEADLINE) {
            Got::End => {}
            other => panic!("the end was due, not {other:?}"),
        }
    }

    /// Asserts a last `bye` of this reason behind whatever is still on its way; the bye.
    pub fn bye(&mut self, reason: &str) -> Event {
        let bye = self.until("bye");
        assert_eq!(bye.reason(), reason, "{bye:?}");
        assert!(bye.id.is_none() && bye.retry.is_some(), "{bye:?}");
        assert_eq!(bye.data["retry_ms"], bye.retry.unwrap_or_default());
        self.ends();
        bye
    }

    /// Waits until the connection is gone, however it goes.
    pub fn gone(&mut self) {
        while !matches!(self.got.recv_timeout(DEADLINE), Ok(Got::End | Got::Broken(_)) | Err(_)) {}
        self.socket.shutdown();
    }
}

/// One write of the server's as what it holds.
fn parse(bytes: &[u8], chunk: usize) -> Vec<Got> {
    let Ok(text) = std::str::from_utf8(bytes) else { return vec![Got::Broken("a chunk is not UTF-8".to_owned())] };
    let Some(whole) = text.strip_suffix("\n\n") else {
        return vec![Got::Broken(format!("a chunk ends inside a frame: {text:?}"))];
    };
    whole.split("\n\n").map(|block| frame(block, chunk).unwrap_or_else(Got::Broken)).collect()
}

/// One block, which must be a comment by itself or one whole event.
fn frame(block: &str, chunk: usize) -> Result<Got, String> {
    let fault = |why: &str| Err(format!("{why}: {block:?}"));
    if let Some(comment) = block.strip_prefix(':') {
        return if comment.contains('\n') {
            fault("a comment with more")
        } else {
            Ok(Got::Comment(comment.to_owned()))
        };
    }
    let mut event = Event { kind: "message".to_owned(), chunk, ..Event::default() };
    let mut data = None;
    for line in block.split('\n') {
        let Some((name, value)) = line.split_once(": ") else { return fault("a line that is no field") };
        if event.order.iter().any(|known| known == name) {
            return fault("a field stands twice");
        }
        event.order.push(name.to_owned());
        match name {
            "id" if !value.is_empty() && !value.contains('\0') => event.id = Some(value.to_owned()),
            "retry" => event.retry = Some(value.parse().map_err(|_| format!("retry is no number: {block:?}"))?),
            "event" => value.clone_into(&mut event.kind),
            "data" => data = Some(value),
            _ => return fault("a field that must not be"),
        }
    }
    let Some(data) = data else { return fault("a block without data") };
    if block.contains('\r') {
        return fault("a carriage return");
    }
    event.data = serde_json::from_str(data).map_err(|e| format!("data is no JSON ({e}): {block:?}"))?;
    let durable = matches!(event.kind.as_str(), "hello" | "notification" | "state");
    if event.kind != "message" && event.id.is_some() != durable {
        return fault("an id where none belongs, or none where one does");
    }
    Ok(Got::Event(event))
}
