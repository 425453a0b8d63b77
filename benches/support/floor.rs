//! The least work a fan-out can be: accept, and write one prebuilt frame to each socket for each publish. No queue, no
//! log, no check of who is who. A socket that is full loses the frame, which the client then tells.

use std::io::{ErrorKind, Read as _, Write as _};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

const LISTENER: Token = Token(usize::MAX);
const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n: hello\n\n";
const PUBLISHED: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    subscribed: bool,
}

#[derive(Default)]
struct Floor {
    peers: Vec<Option<Peer>>,
    published: u64,
}

/// Serves on a free port, told on standard output, until it is killed.
pub fn run() -> anyhow::Result<()> {
    super::client::raise_open_files();
    let mut poll = Poll::new()?;
    let mut listener = listen()?;
    println!("{}", listener.local_addr()?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor::default();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() != LISTENER {
                floor.read(event.token().0, &mut buffer);
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nodelay(true)?;
                poll.registry().register(&mut stream, Token(floor.peers.len()), Interest::READABLE)?;
                floor.peers.push(Some(Peer { stream, input: Vec::new(), subscribed: false }));
            }
        }
    }
}

/// With a queue as long as the other servers', since hundreds connect at a time.
fn listen() -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4_096)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Floor {
    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(peer) = &mut self.peers[index] else { return };
        loop {
            match peer.stream.read(buffer) {
                Ok(read @ 1..) => peer.input.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => {
                    self.peers[index] = None;
                    return;
                }
            }
        }
        if peer.input.starts_with(b"GET ") && peer.input.ends_with(b"\r\n\r\n") {
            peer.subscribed = peer.stream.write(STREAM_HEAD).is_ok();
            peer.input = Vec::new();
            return;
        }
        while let Some(body) = self.publish(index) {
            self.published += 1;
            let id = self.published.to_string();
            let frame = [b"id: ", id.as_bytes(), b"\ndata: ", &body, b"\n\n"].concat();
            for peer in self.peers.iter_mut().flatten().filter(|peer| peer.subscribed) {
                let _ = peer.stream.write(&frame);
            }
        }
    }

    /// Takes one whole publish off a connection and answers it.
    fn publish(&mut self, index: usize) -> Option<Vec<u8>> {
        let peer = self.peers[index].as_mut()?;
        let head = memchr::memmem::find(&peer.input, b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&peer.input[..head]).to_ascii_lowercase();
        let length: usize = text.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
        let body = peer.input.get(head + 4..head + 4 + length)?.to_vec();
        peer.input.drain(..head + 4 + length);
        peer.stream.write_all(PUBLISHED).ok()?;
        Some(body)
    }
}
