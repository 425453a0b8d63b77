//! A stream's events as they arrive, each with its time. It reads what Tidings writes, whatever pieces a proxy cuts it
//! into; it is no general reader of server-sent events, and gives up where a block does not end.

use std::collections::VecDeque;
use std::time::Instant;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Bytes of one block at most; the largest that Tidings writes is far smaller.
const MAX_BLOCK_BYTES: usize = 1024 * 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When its last byte came.
    pub(super) at: Instant,
    /// The event's name; `None` is a comment, which is how a heartbeat comes.
    pub(super) name: Option<String>,
    pub(super) data: String,
}

/// How a stream ended, though it should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended(pub(super) String);

/// A stream that is read.
pub(super) struct Events {
    body: Incoming,
    pending: Blocks,
    /// When the first byte came.
    pub(super) first_byte: Option<Instant>,
    /// When the last byte came.
    pub(super) last_byte: Option<Instant>,
}

/// The bytes of which no block has been made yet, and the blocks.
#[derive(Default)]
struct Blocks {
    rest: Vec<u8>,
    whole: VecDeque<Arrival>,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, pending: Blocks::default(), first_byte: None, last_byte: None }
    }

    /// The next that comes. A caller that stops waiting has lost nothing.
    ///
    /// # Errors
    /// [`Ended`].
    pub(super) async fn next(&mut self) -> Result<Arrival, Ended> {
        loop {
            if let Some(arrival) = self.pending.whole.pop_front() {
                return Ok(arrival);
            }
            let frame = match self.body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(Ended(error.to_string())),
                None => return Err(Ended("the answer was ended".to_owned())),
            };
            let now = Instant::now();
            self.first_byte.get_or_insert(now);
            self.last_byte = Some(now);
            if let Some(data) = frame.data_ref() {
                self.pending.take(data, now)?;
            }
        }
    }
}

impl Blocks {
    fn take(&mut self, bytes: &[u8], at: Instant) -> Result<(), Ended> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            self.whole.push_back(read(&String::from_utf8_lossy(&block), at));
        }
        if self.rest.len() > MAX_BLOCK_BYTES {
            return Err(Ended(format!("{MAX_BLOCK_BYTES} bytes came and no event ended")));
        }
        Ok(())
    }
}

fn read(block: &str, at: Instant) -> Arrival {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Arrival { at, name: field("event").map(str::to_owned), data: field("data").unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_whole_however_they_are_cut() {
        let text = "retry: 2000\nid: k.1\nevent: hello\ndata: {\"a\":1}\n\n: heartbeat\n\nevent: unread\ndata: {}\n\n";
        let now = Instant::now();
        for size in 1..text.len() {
            let mut blocks = Blocks::default();
            for piece in text.as_bytes().chunks(size) {
                blocks.take(piece, now).expect("small blocks");
            }
            let came: Vec<_> = blocks.whole.iter().map(|a| (a.name.as_deref(), a.data.as_str())).collect();
            assert_eq!(came, [(Some("hello"), "{\"a\":1}"), (None, ""), (Some("unread"), "{}")], "pieces of {size}");
        }
    }

    #[test]
    fn a_block_that_does_not_end_is_given_up() {
        let mut blocks = Blocks::default();
        assert!(blocks.take(&vec![b'x'; MAX_BLOCK_BYTES], Instant::now()).is_ok());
        assert!(blocks.take(b"x", Instant::now()).is_err());
    }
}
