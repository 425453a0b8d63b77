//! `/v1/users/{user}`: a first badge for a page that the application's backend renders, and everything about one person,
//! to be handed out or erased.
//!
//! **Invariant**: an export holds one page in memory, however much is stored: the next one is read when the client has
//! taken the last, and none when the client has gone.

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde::Serialize;

use crate::broker::BrokerError;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{App, answer, problem};
use crate::model::{Identity, UserId};
use crate::wire::event::UnreadBody;
use crate::wire::problem::{Problem, ProblemBody};
use crate::wire::upkeep::{ErasedBody, ExportFrom, ExportPage, RecordBody};

/// `GET /v1/users/{user}/counts`.
pub async fn counts(call: &Call) -> Result<Response<Body>, Problem> {
    let (counts, as_of) = call.broker().counts_of(call.identity()?, &call.named_user()?).await?;
    Ok(answer::json(StatusCode::OK, &UnreadBody { counts: &counts, as_of }))
}

/// `DELETE /v1/users/{user}`.
pub async fn erase(call: &Call) -> Result<Response<Body>, Problem> {
    let (broker, by, user) = (call.broker().clone(), call.identity()?.clone(), call.named_user()?);
    // In a task of its own: a client who hangs up must not leave an erasure behind that has taken no access back.
    let erasing = call.app.lifecycle().spawn_edge(async move { broker.erase(&by, &user).await });
    let erased = erasing.await.map_err(|_| BrokerError::Storage("the erasure panicked".to_owned()))??;
    Ok(answer::json(StatusCode::OK, &ErasedBody::from(erased)))
}

/// `GET /v1/users/{user}/export`.
pub async fn export(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[])?;
    let export = Export { app: call.app.clone(), by: call.identity()?.clone(), user: call.named_user()? };
    // Read before the answer begins, so that a user who is not there is told by a status.
    let first = export.page(ExportFrom::Profile).await?;
    let pages = stream::unfold(Next::Page(first), move |next| {
        let export = export.clone();
        async move { export.step(next).await }
    });
    let mut response = Response::new(Body::Stream(Box::pin(pages)));
    response.headers_mut().insert(CONTENT_TYPE, answer::NDJSON);
    Ok(response)
}

/// Whose data it is, and for whom.
#[derive(Clone)]
struct Export {
    app: App,
    by: Identity,
    user: UserId,
}

/// What an export writes next.
enum Next {
    Page(ExportPage),
    Read(ExportFrom),
    Nothing,
}

/// The last line of an export that could not be brought to its end.
#[derive(Serialize)]
struct BrokenBody<'a> {
    kind: &'static str,
    problem: ProblemBody<'a>,
}

impl Export {
    async fn page(&self, from: ExportFrom) -> Result<ExportPage, Problem> {
        Ok(self.app.broker().export(&self.by, &self.user, from).await?)
    }

    /// The next page's lines; `None` at the end.
    async fn step(&self, next: Next) -> Option<(Bytes, Next)> {
        let page = match next {
            Next::Page(page) => Ok(page),
            Next::Read(from) => self.page(from).await,
            Next::Nothing => return None,
        };
        Some(match page {
            Ok(page) => (lines(&page), page.next.map_or(Next::Nothing, Next::Read)),
            Err(problem) => (self.broken(&problem), Next::Nothing),
        })
    }

    /// The status was sent long ago, so the last line has to say it.
    fn broken(&self, problem: &Problem) -> Bytes {
        problem::count(problem, self.app.metrics());
        let problem = ProblemBody { problem, base_path: &self.app.config().base_path };
        let mut line = answer::to_json(&BrokenBody { kind: "problem", problem });
        line.push(b'\n');
        line.into()
    }
}

fn lines(page: &ExportPage) -> Bytes {
    let mut lines = Vec::new();
    for record in &page.records {
        lines.extend_from_slice(&answer::to_json(&RecordBody::from(record)));
        lines.push(b'\n');
    }
    lines.into()
}
