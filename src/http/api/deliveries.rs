//! `/v1/deliveries`: the message log. What went to whom by which medium, page by page or all of it as a file, and trying
//! again what did not arrive.
//!
//! **Invariant**: an export holds one page in memory, however much the log holds: the next one is read when the client has
//! taken the last, and none when the client has gone.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::broker::Summary;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::export::{self, Broken, broken_line};
use crate::http::query::bad;
use crate::http::{answer, problem};
use crate::model::DeliveryId;
use crate::wire::delivery::{Asked, RetriedBody, TimelineBody};
use crate::wire::message_log::{LineBody, LogBody, LogCursor, LogPage, LogQuery, broken_row, table_head};
use crate::wire::problem::Problem;

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
    let (app, by, broker) = (call.app.clone(), call.identity()?.clone(), call.broker().clone());
    let read = move |before| {
        let (by, broker, query) = (by.clone(), broker.clone(), query.clone());
        async move {
            let page = broker.message_log(&by, query, before, EXPORT_PAGE, Summary::None).await?;
            Ok((format.lines(&page), page.next))
        }
    };
    let (first, next) = read(LogCursor::NEWEST).await?;
    let first = [format.head().into_bytes(), first.to_vec()].concat().into();
    let mut response = Response::new(export::body(app, (first, next), read, format.broken()));
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

    fn head(self) -> String {
        match self {
            Self::Ndjson => String::new(),
            Self::Csv => table_head(),
        }
    }

    fn lines(self, page: &LogPage) -> Bytes {
        let mut lines = Vec::new();
        for line in &page.lines {
            match self {
                Self::Ndjson => {
                    lines.extend_from_slice(&answer::to_json(&LineBody::from(line)));
                    lines.push(b'\n');
                }
                Self::Csv => lines.extend_from_slice(line.table_row().as_bytes()),
            }
        }
        lines.into()
    }

    fn broken(self) -> Broken {
        match self {
            Self::Ndjson => broken_line,
            Self::Csv => |problem, _| broken_row(problem.code, &problem.detail).into(),
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
