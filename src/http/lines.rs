//! Streamed bodies of NDJSON: cut into lines under limits, worked on several at a time, answered in order.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use hyper::body::Incoming;

use super::body::{next_chunk, too_large};
use super::call::{Call, media_type};
use super::{body, problem};
use crate::wire::batch::Lines;
use crate::wire::problem::Problem;

/// Lines that are worked on at a time: enough to fill group commits, few enough to bound what one caller holds.
const WINDOW: usize = 256;

/// A body's lines as they come in.
pub struct LineBody<B = Incoming> {
    body: B,
    lines: Lines,
    limits: Limits,
    read_bytes: usize,
    read_lines: usize,
    ended: bool,
}

/// How long a streamed body may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    lines: usize,
    bytes: usize,
    idle: Duration,
}

impl LineBody {
    /// Takes a call's body.
    ///
    /// # Errors
    /// 415 where it is no NDJSON, 413 where its length is over the limit.
    pub fn new(call: Call, max_lines: usize) -> Result<Self, Problem> {
        let headers = call.headers();
        if !is_ndjson(headers) {
            return Err(problem::UNSUPPORTED_TYPE
                .because("send one JSON object a line, with `Content-Type: application/x-ndjson`"));
        }
        let config = call.app.config();
        let limits = Limits { lines: max_lines, bytes: config.max_batch_bytes, idle: config.body_timeout };
        body::check_headers(headers, limits.bytes)?;
        Ok(Self::of(call.body, limits))
    }
}

impl<B: http_body::Body<Data = Bytes, Error: Display> + Unpin> LineBody<B> {
    fn of(body: B, limits: Limits) -> Self {
        Self { body, lines: Lines::default(), limits, read_bytes: 0, read_lines: 0, ended: false }
    }

    /// The next line that is not blank; `None` at the end. Dropping the future loses nothing. After an error there is
    /// no further line.
    async fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        while !self.ended {
            match self.lines.next_line() {
                Ok(Some(line)) => return Some(self.count(line)),
                Ok(None) => {}
                Err(error) => return Some(Err(self.end(error.into()))),
            }
            match next_chunk(&mut self.body, self.limits.idle).await {
                Ok(Some(chunk)) => {
                    self.read_bytes += chunk.len();
                    if self.read_bytes > self.limits.bytes {
                        return Some(Err(self.end(too_large(self.limits.bytes))));
                    }
                    self.lines.push(&chunk);
                }
                Ok(None) => {
                    self.ended = true;
                    let last = std::mem::take(&mut self.lines).finish();
                    return last.map_err(Problem::from).transpose().map(|line| line.and_then(|line| self.count(line)));
                }
                Err(problem) => return Some(Err(self.end(problem))),
            }
        }
        None
    }

    fn count(&mut self, line: Bytes) -> Result<Bytes, Problem> {
        self.read_lines += 1;
        if self.read_lines > self.limits.lines {
            let detail = format!("the batch ends here, since {} lines are taken at most", self.limits.lines);
            return Err(self.end(problem::TOO_MANY_LINES.because(detail)));
        }
        Ok(line)
    }

    fn end(&mut self, problem: Problem) -> Problem {
        self.ended = true;
        problem
    }
}

pub fn is_ndjson(headers: &http::HeaderMap) -> bool {
    matches!(media_type(headers).as_str(), "application/x-ndjson" | "application/ndjson" | "application/jsonl")
}

/// Works on every line, [`WINDOW`] at a time, and hands the results to `done` in the order of the lines. What ended
/// the batch early is handed over last.
///
/// Lines are begun in order too (each is polled for the first time before the next is read), since the broker queues
/// a publish at the first poll: lines are committed in the order in which they stand.
pub async fn each<B, T, F>(
    mut body: LineBody<B>,
    mut work: impl FnMut(Bytes) -> F,
    mut done: impl FnMut(Result<T, Problem>),
) where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
    F: Future<Output = T>,
{
    let mut window = FuturesOrdered::new();
    let mut cut = None;
    let mut open = true;
    while open || !window.is_empty() {
        tokio::select! {
            biased;
            Some(result) = window.next(), if !window.is_empty() => done(Ok(result)),
            line = body.next(), if open && window.len() < WINDOW => match line {
                Some(Ok(line)) => window.push_back(work(line)),
                Some(Err(problem)) => {
                    cut = Some(problem);
                    open = false;
                }
                None => open = false,
            },
        }
    }
    if let Some(problem) = cut {
        done(Err(problem));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::stream;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::http::body::Body;

    const LIMITS: Limits = Limits { lines: 1_000, bytes: 100_000, idle: Duration::from_secs(30) };

    fn chunked(body: &[u8], size: usize) -> Body {
        let chunks: Vec<_> = body.chunks(size).map(Bytes::copy_from_slice).collect();
        Body::Stream(Box::pin(stream::iter(chunks)))
    }

    /// Hands every line back; what ended the batch as its code.
    async fn echo(body: Body, limits: Limits) -> Vec<String> {
        let mut results = Vec::new();
        let work = async |line: Bytes| String::from_utf8_lossy(&line).into_owned();
        each(LineBody::of(body, limits), work, |result| {
            results.push(result.unwrap_or_else(|problem| problem.code.to_owned()));
        })
        .await;
        results
    }

    #[tokio::test]
    async fn lines_are_begun_and_answered_in_order_although_they_end_out_of_order() {
        let body = (0..600).map(|i| i.to_string()).collect::<Vec<_>>().join("\n");
        let begun = RefCell::new(Vec::new());
        let (even, mut answered) = (Semaphore::new(0), Vec::new());
        let work = async |line: Bytes| {
            let number: usize = std::str::from_utf8(&line).expect("digits").parse().expect("a number");
            begun.borrow_mut().push(number);
            // Even lines wait for the odd line behind them.
            if number.is_multiple_of(2) {
                even.acquire().await.expect("open").forget();
            } else {
                even.add_permits(1);
            }
            number
        };
        let lines = LineBody::of(chunked(body.as_bytes(), 50), LIMITS);
        each(lines, work, |result| answered.push(result.expect("a line"))).await;
        let all: Vec<usize> = (0..600).collect();
        assert_eq!(*begun.borrow(), all);
        assert_eq!(answered, all);
    }

    #[tokio::test]
    async fn a_batch_ends_where_a_limit_is_reached_and_says_so_last() {
        let few = Limits { lines: 2, ..LIMITS };
        assert_eq!(echo(chunked(b"a\nb", 1), few).await, ["a", "b"]);
        assert_eq!(echo(chunked(b"a\nb\nc\nd", 2), few).await, ["a", "b", "too-many-lines"]);
        let short = Limits { bytes: 5, ..LIMITS };
        assert_eq!(echo(chunked(b"a\nb\nc\nd", 1), short).await, ["a", "b", "body-too-large"]);
        let long = [b"a\n".as_slice(), &b"x".repeat(300_000)].concat();
        let wide = Limits { bytes: 1_000_000, ..LIMITS };
        assert_eq!(echo(chunked(&long, 10_000), wide).await, ["a", "line-too-long"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_falls_silent_is_answered_as_far_as_it_came() {
        let silent = stream::iter([Bytes::from_static(b"a\nb")]).chain(stream::pending());
        assert_eq!(echo(Body::Stream(Box::pin(silent)), LIMITS).await, ["a", "timeout"]);
    }
}
