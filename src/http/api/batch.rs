//! `POST /v1/notifications` as NDJSON: a notification a line, a result a line, in order. Each line fails alone.
//!
//! The answer is collected and sent when the body is read: many clients read nothing before they have sent all, and
//! both sides would wait for each other. Its size is bounded by the number of lines and by how much one problem says.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::publish::{ROUTE_JSON, idempotency_key, refuse_parameters};
use crate::broker::{Idempotency, Meanwhile, hash_body};
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::lines::{self, LineBody};
use crate::http::service::contain;
use crate::http::{App, answer, problem};
use crate::model::Identity;
use crate::wire::problem::{Problem, ProblemBody};
use crate::wire::publish::{Place, Published, PublishedBody, parse};

#[derive(Serialize)]
struct RefusedBody<'a> {
    status: u16,
    problem: ProblemBody<'a>,
}

pub async fn publish(call: Call) -> Result<Response<Body>, Problem> {
    refuse_parameters(&call.query, &[])?;
    if idempotency_key(call.headers())?.is_some() {
        return Err(problem::INVALID
            .because("a batch takes no Idempotency-Key header: give each line its own `idempotency_key`"));
    }
    let by = call.identity()?.clone();
    let app = call.app.clone();
    let lines = LineBody::new(call, app.config().max_batch_lines)?;
    let mut results = Vec::new();
    lines::each(
        lines,
        |line| contain(publish_line(&app, &by, line), app.metrics()),
        |result| write_result(&app, result.flatten(), &mut results),
    )
    .await;
    Ok(answer::typed(StatusCode::OK, answer::NDJSON, results))
}

async fn publish_line(app: &App, by: &Identity, line: Bytes) -> Result<Published, Problem> {
    let mut body = parse(&line, Place::BatchLine)?;
    let idempotency = body.idempotency_key.take().map(|key| Idempotency {
        key,
        route: ROUTE_JSON,
        body_hash: hash_body(&line),
        meanwhile: Meanwhile::Wait,
    });
    app.broker().still_good(by)?;
    app.meters().publish(by)?;
    Ok(app.broker().publish_body(by, body, idempotency).await?)
}

fn write_result(app: &App, result: Result<Published, Problem>, results: &mut Vec<u8>) {
    match result {
        Ok(published) => {
            results.extend_from_slice(&answer::to_json(&PublishedBody::new(&published, Place::BatchLine)));
            results.push(b'\n');
        }
        Err(problem) => write_problem(app, &problem, results),
    }
}

/// The answer to a line that was refused: `{"status","problem"}`.
pub fn write_problem(app: &App, problem: &Problem, results: &mut Vec<u8>) {
    problem::count(problem, app.metrics());
    let body = ProblemBody { problem, base_path: &app.config().base_path };
    results.extend_from_slice(&answer::to_json(&RefusedBody { status: problem.status, problem: body }));
    results.push(b'\n');
}
