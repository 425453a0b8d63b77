//! A WebSocket client on a bare socket: it frames by hand, so that frames no library would send can be sent too, and it
//! takes nothing from the server that RFC 6455 does not allow.

use std::io;
use std::time::Instant;

use serde_json::{Value, json};

use super::DEADLINE;
use super::http::{Ask, Connection, Head, Place};
use super::sse::Event;

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// The mask of every frame; any four bytes do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One frame as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// The three reserved bits.
    pub reserved: u8,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { fin: true, reserved: 0, opcode, payload: payload.as_ref().to_vec() }
    }

    /// A close with a code and a reason.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// More frames of the message follow.
    pub fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    pub fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    /// The code of a close; `None` where it bears none.
    pub fn code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }

    fn head(&self, masked: bool) -> Vec<u8> {
        let mut head = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        let mask = u8::from(masked) << 7;
        match self.payload.len() {
            length @ ..126 => head.push(mask | length as u8),
            length @ ..0x1_0000 => {
                head.push(mask | 126);
                head.extend((length as u16).to_be_bytes());
            }
            length => {
                head.push(mask | 127);
                head.extend((length as u64).to_be_bytes());
            }
        }
        head
    }

    /// As a client sends it.
    pub fn masked(&self) -> Vec<u8> {
        self.masked_by(MASK)
    }

    pub fn masked_by(&self, mask: [u8; 4]) -> Vec<u8> {
        let mut bytes = self.head(true);
        bytes.extend(mask);
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// As no client may send it.
    pub fn unmasked(&self) -> Vec<u8> {
        [self.head(false), self.payload.clone()].concat()
    }
}

/// The request that opens a WebSocket.
pub fn handshake(target: &str) -> Ask {
    Ask::get(target)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// An open WebSocket, frame by frame.
pub struct Frames {
    pub head: Head,
    connection: Connection,
}

impl Frames {
    /// Opens one, which must be accepted.
    pub fn open(place: &Place, ask: &Ask) -> Self {
        Self::open_with(place, ask, &[])
    }

    /// Opens one with bytes that follow the request in the same piece.
    pub fn open_with(place: &Place, ask: &Ask, behind: &[u8]) -> Self {
        let mut connection = Connection::open(place).expect("the server accepts");
        connection.send(&[&ask.to_bytes(), behind].concat()).expect("the server reads");
        let head = connection.head().expect("the server answers");
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(head.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{head:?}");
        assert!(head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{head:?}");
        assert_eq!(head.header("sec-websocket-extensions"), None, "no extension was asked for");
        Self { head, connection }
    }

    pub fn send(&mut self, frame: &Frame) {
        self.send_raw(&frame.masked());
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server reads");
    }

    /// Sends to a server that may have hung up.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.send(bytes)
    }

    /// The next frame; `None` where the connection ends between two.
    pub fn read(&mut self) -> Option<Frame> {
        let [first, second] = *self.connection.exactly(2).ok()?.first_chunk().expect("two bytes");
        let frame = self.rest(first, second).unwrap_or_else(|e| panic!("the connection ended inside a frame: {e}"));
        assert_eq!(second & 0x80, 0, "a server masks nothing (RFC 6455, 5.1)");
        assert_eq!(frame.reserved, 0, "no extension was negotiated (5.2)");
        if frame.opcode >= CLOSE {
            assert!(frame.fin && frame.payload.len() <= 125, "a control frame is whole and small (5.5): {frame:?}");
        }
        Some(frame)
    }

    fn rest(&mut self, first: u8, second: u8) -> io::Result<Frame> {
        let mut number = |bytes: usize| -> io::Result<usize> {
            let bytes = self.connection.exactly(bytes)?;
            Ok(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
        };
        let length = match second & 0x7f {
            126 => number(2)?,
            127 => number(8)?,
            length => usize::from(length),
        };
        let payload = self.connection.exactly(length)?;
        Ok(Frame { fin: first & 0x80 != 0, reserved: first >> 4 & 0x7, opcode: first & 0xf, payload })
    }

    /// The next frame that is no ping; pings are answered.
    pub fn next(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "nothing but pings came in {DEADLINE:?}");
            let frame = self.read()?;
            if frame.opcode != PING {
                return Some(frame);
            }
            // The server may be gone already; what it said still counts.
            let _ = self.try_send(&Frame::new(PONG, &frame.payload).masked());
        }
    }

    /// The close that must come behind whatever else does, and the end of the connection behind it.
    pub fn closed(&mut self) -> Frame {
        loop {
            let frame = self.next().expect("a close comes before the end");
            if frame.opcode == CLOSE {
                let _ = self.try_send(&Frame::new(CLOSE, &frame.payload).masked());
                assert_eq!(self.next(), None, "nothing follows a close");
                return frame;
            }
        }
    }

    /// Whether the connection ends here as it should: behind the last frame, and not by a reset.
    pub fn ends(&mut self) -> bool {
        self.connection.exactly(1).is_err_and(|e| e.kind() == io::ErrorKind::UnexpectedEof)
    }

    pub fn shutdown(&self) {
        self.connection.socket().shutdown();
    }
}

/// An open WebSocket, event by event.
pub struct Ws {
    pub frames: Frames,
    /// Replies that came while an event was waited for.
    replies: Vec<Value>,
    events: std::collections::VecDeque<Event>,
    /// The code of the server's close, where that has come.
    code: Option<u16>,
}

impl Ws {
    pub fn open(place: &Place, ask: &Ask) -> Self {
        Self { frames: Frames::open(place, ask), replies: Vec::new(), events: Default::default(), code: None }
    }

    /// Sends an operation as it is written.
    pub fn say(&mut self, operation: &Value) {
        self.frames.send(&Frame::new(TEXT, operation.to_string()));
    }

    /// The next message, be it an event or a reply; `None` at the close, which is answered.
    pub fn message(&mut self) -> Option<Value> {
        let frame = self.frames.next()?;
        if frame.opcode == CLOSE {
            let _ = self.frames.try_send(&Frame::new(CLOSE, &frame.payload).masked());
            self.code = frame.code();
            return None;
        }
        assert!(frame.fin && frame.opcode == TEXT, "{frame:?}");
        Some(serde_json::from_slice(&frame.payload).expect("every message is JSON"))
    }

    /// The next event; `None` at the close.
    pub fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        loop {
            let message = self.message()?;
            if message.get("reply").is_some() {
                self.replies.push(message);
            } else {
                return Some(event(&message));
            }
        }
    }

    /// The next of the events that came while a reply was waited for.
    pub fn pending(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next event, which must be of this kind.
    pub fn expect(&mut self, kind: &str) -> Event {
        let event = self.next().unwrap_or_else(|| panic!("the close came before {kind}"));
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    /// The next event of this kind.
    pub fn until(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().unwrap_or_else(|| panic!("the close came before {kind}"));
            if event.kind == kind {
                return event;
            }
        }
    }

    /// The end that must come before any other event: a close with this code.
    pub fn closes(&mut self, code: u16) {
        let event = self.next();
        assert!(event.is_none(), "an event in place of the close: {event:?}");
        assert_eq!(self.code, Some(code));
        assert!(self.frames.ends(), "the connection ends behind the close");
    }

    /// The end that must come, whatever comes before it: `bye` for this reason, and a close with this code.
    pub fn bye(&mut self, reason: &str, code: u16) -> Event {
        let bye = self.until("bye");
        assert_eq!(bye.data["reason"], reason, "{bye:?}");
        assert_eq!(bye.data["reconnect"], code < 4100, "{bye:?}");
        self.closes(code);
        bye
    }

    /// Sends an operation, and returns its reply; events on the way are kept.
    pub fn ask(&mut self, mut operation: Value) -> Value {
        let name = json!(format!("ask-{}", operation["op"]));
        operation["ref"] = name.clone();
        self.say(&operation);
        self.reply(&name)
    }

    /// The reply to what bore this `ref`.
    pub fn reply(&mut self, name: &Value) -> Value {
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply["reply"] == *name) {
                return self.replies.remove(at);
            }
            let message = self.message().unwrap_or_else(|| panic!("the close came before the reply to {name}"));
            if message.get("reply").is_some() {
                self.replies.push(message);
            } else {
                self.events.push_back(event(&message));
            }
        }
    }
}

/// An event object, which must keep the contract's rules.
pub fn event(object: &Value) -> Event {
    let kind = object["event"].as_str().unwrap_or_else(|| panic!("{object} is no event")).to_owned();
    let id = object.get("id").map(|id| id.as_str().expect("an id is a text").to_owned());
    let durable = matches!(kind.as_str(), "hello" | "notification" | "state");
    assert_eq!(id.is_some(), durable, "an id where none belongs, or none where one does: {object}");
    assert!(object["data"].is_object(), "{object}");
    Event { id, kind, data: object["data"].clone(), ..Event::default() }
}
