//! `/v1/deliveries`: the message log. What went to whom by which medium, page by page or all of it as a file, and trying
//! again what did not arrive.
//!
//! **Invariant**: an export holds one page in memory, however much the log holds: the next one is read when the client has
//! taken the last, and none when the client has gone.

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::broker::Summary;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::query::bad;
use crate::http::{App, answer, problem};
use crate::model::{DeliveryId, Identity};
use crate::wire::delivery::{Asked, RetriedBody, TimelineBody};
use crate::wire::message_log::{LineBody, LogBody, LogCursor, LogPage, LogQuery, broken_row, table_head};
use crate::wire::problem::{Problem, ProblemBody};

/// Lines of a page where the caller names no number, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// Lines that an export reads at a time.
const EXPORT_PAGE: usize = 500;

/// `GET /v1/deliveries`.
pub async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    let query = query(call, &["before", "limit"])?;
    let before = match call.query.text("before")? {
        None => LogCursor::NEWEST,
        Some(text) => LogCursor::parse(text).ok_or_else(|| bad("before", "is not the `next` of a page as it came"))?,
    };
    let limit = call.query.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let page = call.broker().message_log(call.identity()?, query, before, limit, Summary::Counted).await?;
    Ok(answer::json(StatusCode::OK, &LogBody::from(&page)))
}

/// `GET /v1/deliveries/export`.
pub async fn export(call: &Call) -> Result<Response<Body>, Problem> {
    let query = query(call, &["format"])?;
    let format = Format::of(call)?;
    let export = Export { app: call.app.clone(), by: call.identity()?.clone(), query, format };
    // Read before the answer begins, so that what can't be had is told by a status.
    let first = export.page(LogCursor::NEWEST).await?;
    let pages = stream::unfold(Next::First(first), move |next| {
        let export = export.clone();
        async move { export.step(next).await }
    });
    let mut response = Response::new(Body::Stream(Box::pin(pages)));
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    Ok(response)
}

/// `GET /v1/deliveries/{id}`.
pub async fn one(call: &Call) -> Result<Response<Body>, Problem> {
    let timeline = call.broker().delivery(call.identity()?, delivery(call)?).await?;
    Ok(answer::json(StatusCode::OK, &TimelineBody::from(&timeline)))
}

/// `POST /v1/deliveries/{id}/retry`.
pub async fn retry(call: &Call) -> Result<Response<Body>, Problem> {
    let retried = call.broker().retry_delivery(call.identity()?, delivery(call)?).await?;
    Ok(answer::json(StatusCode::OK, &RetriedBody { retried }))
}

/// `POST /v1/deliveries/retry`.
pub async fn retry_many(mut call: Call) -> Result<Response<Body>, Problem> {
    let asked = Asked::parse(&call.json_body().await?)?;
    let retried = call.broker().retry_deliveries(call.identity()?, asked).await?;
    Ok(answer::json(StatusCode::OK, &RetriedBody { retried }))
}

/// What the parameters ask the log for; `besides` are those that it is not asked by.
fn query(call: &Call, besides: &[&str]) -> Result<LogQuery, Problem> {
    call.query.only(&[&Asked::FIELDS[..], besides].concat())?;
    let mut query = LogQuery::default();
    for name in Asked::FIELDS {
        if let Some(text) = call.query.text(name)? {
            query.set(name, text).map_err(|rule| bad(name, &rule))?;
        }
    }
    query.check().map_err(|rule| bad("state", &rule))?;
    Ok(query)
}

/// The delivery that the path names.
fn delivery(call: &Call) -> Result<DeliveryId, Problem> {
    let text = call.params.text("id");
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits).map(DeliveryId);
    number.ok_or_else(|| problem::NOT_FOUND.because("this is no delivery's number"))
}

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Ndjson,
    Csv,
}

impl Format {
    /// As `format` says it, else as `Accept` does.
    fn of(call: &Call) -> Result<Self, Problem> {
        match call.query.text("format")? {
            None if prefers_csv(call.headers()) => Ok(Self::Csv),
            None | Some("ndjson") => Ok(Self::Ndjson),
            Some("csv") => Ok(Self::Csv),
            Some(_) => Err(bad("format", "must be ndjson or csv")),
        }
    }

    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Ndjson => answer::NDJSON,
            Self::Csv => answer::CSV,
        }
    }
}

/// Whether CSV is named, and NDJSON not before it.
fn prefers_csv(headers: &HeaderMap) -> bool {
    let accepted =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    let mut types = accepted.map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    types
        .find(|range| ["text/csv", "application/x-ndjson"].contains(&range.as_str()))
        .is_some_and(|first| first == "text/csv")
}

/// What is exported, and for whom.
#[derive(Clone)]
struct Export {
    app: App,
    by: Identity,
    query: LogQuery,
    format: Format,
}

/// What an export writes next.
enum Next {
    First(LogPage),
    Read(LogCursor),
    Nothing,
}

/// The last line of an export that could not be brought to its end.
#[derive(Serialize)]
struct BrokenBody<'a> {
    kind: &'static str,
    problem: ProblemBody<'a>,
}

impl Export {
    async fn page(&self, before: LogCursor) -> Result<LogPage, Problem> {
        Ok(self.app.broker().message_log(&self.by, self.query.clone(), before, EXPORT_PAGE, Summary::None).await?)
    }

    /// The next page's lines; `None` at the end.
    async fn step(&self, next: Next) -> Option<(Bytes, Next)> {
        let (page, head) = match next {
            Next::First(page) => (Ok(page), if self.format == Format::Csv { table_head() } else { String::new() }),
            Next::Read(before) => (self.page(before).await, String::new()),
            Next::Nothing => return None,
        };
        Some(match page {
            Ok(page) => (self.lines(head, &page), page.next.map_or(Next::Nothing, Next::Read)),
            Err(problem) => (self.broken(&problem), Next::Nothing),
        })
    }

    fn lines(&self, head: String, page: &LogPage) -> Bytes {
        let mut lines = head.into_bytes();
        for line in &page.lines {
            match self.format {
                Format::Ndjson => {
                    lines.extend_from_slice(&answer::to_json(&LineBody::from(line)));
                    lines.push(b'\n');
                }
                Format::Csv => lines.extend_from_slice(line.table_row().as_bytes()),
            }
        }
        lines.into()
    }

    /// The status was sent long ago, so the last line has to say it.
    fn broken(&self, problem: &Problem) -> Bytes {
        problem::count(problem, self.app.metrics());
        if self.format == Format::Csv {
            return broken_row(problem.code, &problem.detail).into();
        }
        let problem = ProblemBody { problem, base_path: &self.app.config().base_path };
        let mut line = answer::to_json(&BrokenBody { kind: "problem", problem });
        line.push(b'\n');
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_sent_to_those_who_ask_for_one_first() {
        for (accept, csv) in [
            ("text/csv", true),
            ("application/json, Text/CSV; charset=utf-8", true),
            ("text/csv, application/x-ndjson", true),
            ("application/x-ndjson, text/csv", false),
            ("*/*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(prefers_csv(&headers), csv, "{accept}");
        }
        assert!(!prefers_csv(&HeaderMap::new()));
    }
}
