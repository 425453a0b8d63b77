//! One connection of a client, event by event, on any of the three transports. Thousands of them live in one runtime, so
//! this is the small sibling of `support`'s readers: it takes what the server says, and leaves it to them to be strict.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::http::Ask;
use crate::support::sse::Event;
use crate::support::ws::{CLOSE, Frame, PING, PONG, TEXT, event, handshake};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Sse,
    Poll,
    Ws,
}

pub const TRANSPORTS: [Transport; 3] = [Transport::Sse, Transport::Poll, Transport::Ws];

/// Seconds that a poll waits.
const WAIT: u32 = 25;

/// An open connection.
pub struct Line {
    transport: Transport,
    pub socket: TcpStream,
    unread: Vec<u8>,
    events: VecDeque<Event>,
    credential: String,
    /// Where a poll goes on from.
    cursor: String,
    /// Whether a poll has been answered.
    greeted: bool,
}

impl Line {
    /// Opens one; `cursor` is empty for a first visit.
    ///
    /// # Errors
    /// Where nobody listens, or it is refused.
    pub async fn open(address: SocketAddr, transport: Transport, credential: &str, cursor: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Self::over(socket, transport, credential, cursor).await
    }

    /// The same over a socket of one's own.
    pub async fn over(socket: TcpStream, transport: Transport, credential: &str, cursor: &str) -> io::Result<Self> {
        let mut this = Self {
            transport,
            socket,
            unread: Vec::new(),
            events: VecDeque::new(),
            credential: credential.to_owned(),
            cursor: cursor.to_owned(),
            greeted: false,
        };
        let (ask, status) = match transport {
            Transport::Sse => {
                (Ask::get(&format!("/v1/stream?cursor={cursor}")).header("accept", "text/event-stream"), 200)
            }
            Transport::Ws => (handshake(&format!("/v1/ws?cursor={cursor}")), 101),
            Transport::Poll => return Ok(this),
        };
        this.socket.write_all(&ask.bearer(credential).to_bytes()).await?;
        let (told, head) = this.head().await?;
        if told == status { Ok(this) } else { Err(io::Error::other(head)) }
    }

    /// The next event.
    ///
    /// # Errors
    /// The end of the connection, however it comes.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match self.transport {
                Transport::Sse => self.chunk().await?,
                Transport::Ws => self.message().await?,
                Transport::Poll => self.poll().await?,
            }
        }
    }

    /// Reads a chunk, which holds whole frames.
    async fn chunk(&mut self) -> io::Result<()> {
        let line = self.line().await?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let bytes = self.exactly(length + 2).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = std::str::from_utf8(&bytes[..length]).map_err(io::Error::other)?;
        for block in text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')) {
            let mut event = Event::default();
            for (name, value) in block.lines().filter_map(|line| line.split_once(": ")) {
                match name {
                    "id" => event.id = Some(value.to_owned()),
                    "event" => value.clone_into(&mut event.kind),
                    "retry" => event.retry = value.parse().ok(),
                    "data" => event.data = serde_json::from_str(value).map_err(io::Error::other)?,
                    _ => {}
                }
            }
            self.events.push_back(event);
        }
        Ok(())
    }

    /// Reads a frame of a WebSocket; pings are answered.
    async fn message(&mut self) -> io::Result<()> {
        let [first, second] = *self.exactly(2).await?.first_chunk().expect("two bytes");
        let mut length = usize::from(second & 0x7f);
        if length >= 126 {
            let bytes = self.exactly(if length == 126 { 2 } else { 8 }).await?;
            length = bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        }
        let payload = self.exactly(length).await?;
        match first & 0xf {
            TEXT => {
                let mut event = event(&serde_json::from_slice(&payload).map_err(io::Error::other)?);
                event.retry = event.data["retry_ms"].as_u64().and_then(|ms| u32::try_from(ms).ok());
                self.events.push_back(event);
            }
            PING => self.socket.write_all(&Frame::new(PONG, &payload).masked()).await?,
            CLOSE => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        Ok(())
    }

    /// Asks once. The first answer begins with what `hello` says on a stream.
    async fn poll(&mut self) -> io::Result<()> {
        let ask = Ask::get(&format!("/v1/poll?wait={WAIT}&cursor={}", self.cursor)).bearer(&self.credential);
        self.socket.write_all(&ask.to_bytes()).await?;
        let (status, head) = self.head().await?;
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let body = self.exactly(length.unwrap_or_default()).await?;
        if status != 200 {
            return Err(io::Error::other(head));
        }
        let answer: Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
        let before = std::mem::replace(&mut self.cursor, answer["cursor"].as_str().unwrap_or_default().to_owned());
        if !std::mem::replace(&mut self.greeted, true) {
            let id = Some(before).filter(|cursor| cursor.contains('.'));
            self.events.push_back(Event { id, kind: "hello".to_owned(), data: answer.clone(), ..Event::default() });
        }
        self.events.extend(answer["events"].as_array().into_iter().flatten().map(event));
        Ok(())
    }

    async fn head(&mut self) -> io::Result<(u16, String)> {
        let mut head = String::new();
        loop {
            let line = self.line().await?;
            if line.trim_end().is_empty() {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return Ok((status.ok_or(io::ErrorKind::InvalidData)?, head));
            }
            head.push_str(&line);
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.drain(..=at).collect();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.fill().await?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.socket.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Asks over a connection of its own that is kept; the status and the body of the answer.
pub struct Asker {
    line: Line,
}

impl Asker {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { line: Line::open(address, Transport::Poll, "", "").await? })
    }

    /// # Errors
    /// Where the connection ends before the answer.
    pub async fn ask(&mut self, ask: &Ask) -> io::Result<(u16, Vec<u8>)> {
        let line = &mut self.line;
        line.socket.write_all(&ask.to_bytes()).await?;
        let (status, head) = line.head().await?;
        let head = head.to_ascii_lowercase();
        if head.contains("transfer-encoding: chunked") {
            let mut body = Vec::new();
            loop {
                let length = usize::from_str_radix(line.line().await?.trim_end(), 16).map_err(io::Error::other)?;
                let chunk = line.exactly(length + 2).await?;
                if length == 0 {
                    return Ok((status, body));
                }
                body.extend_from_slice(&chunk[..length]);
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        Ok((status, line.exactly(length.unwrap_or_default()).await?))
    }
}
