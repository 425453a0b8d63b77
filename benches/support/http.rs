//! As much HTTP/1.1 as a bench needs: a request with an answer, and answers counted as they come in.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{bail, ensure};

/// The head of a POST, with its length.
pub fn post_head(path: &str, authorization: Option<&str>, content_type: &str, length: usize) -> String {
    let authorization = authorization.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Posts once and returns the answer's body.
pub fn post(address: SocketAddr, path: &str, key: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    ask(address, &post_head(path, Some(key), content_type, body.len()), body)
}

/// Gets what anybody may have, and returns the answer's body.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"), b"")
}

fn ask(address: SocketAddr, head: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let (mut answers, mut buffer) = (Answers::default(), vec![0; 64 * 1024]);
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the server closed without an answer");
        if let Some(answer) = answers.push(&buffer[..read])?.pop() {
            return Ok(answer);
        }
    }
}

/// Cuts a connection's bytes into answers; anything but success is an error.
#[derive(Debug, Default)]
pub struct Answers {
    bytes: Vec<u8>,
}

impl Answers {
    /// Takes what was read; returns the bodies of the answers that are whole now.
    pub fn push(&mut self, read: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
        self.bytes.extend_from_slice(read);
        let mut whole = Vec::new();
        while let Some(head) = memchr::memmem::find(&self.bytes, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&self.bytes[..head]).to_ascii_lowercase();
            if !text.starts_with("http/1.1 2") {
                bail!("refused: {}", String::from_utf8_lossy(&self.bytes));
            }
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(Ok(0), |length| length.trim().parse())?;
            let end = head + 4 + length;
            if self.bytes.len() < end {
                break;
            }
            whole.push(self.bytes[head + 4..end].to_vec());
            self.bytes.drain(..end);
        }
        Ok(whole)
    }
}
