//! Exports: answers that are read a page at a time while they are sent.
//!
//! **Invariant**: an export holds one page in memory, however much is stored: the next one is read when the client has
//! taken the last, and none when the client has gone. **Invariant**: one that could not be brought to its end says so in its
//! last line, since its status was sent long before.

use bytes::Bytes;
use serde::Serialize;

use super::body::Body;
use super::{App, answer, problem};
use crate::wire::problem::{Problem, ProblemBody};

/// What is sent of a page, and from where the next one is read.
pub type Page<F> = (Bytes, Option<F>);

/// The last line of an export in NDJSON that could not be brought to its end.
#[derive(Serialize)]
struct BrokenBody<'a> {
    kind: &'static str,
    problem: ProblemBody<'a>,
}

/// The body that begins with a page which was read before the answer began, so that what can't be had is told by a status.
/// `broken` makes the last line of one that breaks off.
pub fn body<F, R>(app: App, first: Page<F>, read: impl Fn(F) -> R + Send + 'static, broken: Broken) -> Body
where
    F: Send + 'static,
    R: Future<Output = Result<Page<F>, Problem>> + Send + 'static,
{
    Body::Stream(Box::pin(async_stream::stream! {
        let (mut lines, mut next) = first;
        loop {
            yield lines;
            let Some(from) = next else { break };
            match read(from).await {
                Ok(page) => (lines, next) = page,
                Err(problem) => {
                    problem::count(&problem, app.metrics());
                    yield broken(&problem, &app);
                    break;
                }
            }
        }
    }))
}

/// Makes the last line of an export that breaks off.
pub type Broken = fn(&Problem, &App) -> Bytes;

/// [`Broken`] for NDJSON.
pub fn broken_line(problem: &Problem, app: &App) -> Bytes {
    let problem = ProblemBody { problem, base_path: &app.config().base_path };
    let mut line = answer::to_json(&BrokenBody { kind: "problem", problem });
    line.push(b'\n');
    line.into()
}
