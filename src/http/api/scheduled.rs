//! `/v1/scheduled`: notifications that wait for their time.

use http::{Response, StatusCode};

use super::publish::refuse_parameters;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{answer, problem};
use crate::wire::problem::Problem;
use crate::wire::publish::{Intent, Place, parse};
use crate::wire::status::{ScheduledBody, ScheduledPageBody, parse_next};

/// Notifications of a page where the caller names no number, and at most. They are told in full.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;

/// `GET /v1/scheduled`.
pub async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["after", "limit"])?;
    let after = call.query.after(parse_next)?;
    let limit = call.query.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let page = call.broker().scheduled(call.identity()?, after, limit).await?;
    Ok(answer::json(StatusCode::OK, &ScheduledPageBody::from(&page)))
}

/// `PUT /v1/scheduled/{id}`.
pub async fn change(mut call: Call) -> Result<Response<Body>, Problem> {
    refuse_parameters(&call.query, &[])?;
    let id = call.notification()?;
    let body = parse(&call.json_body().await?, Place::Request)?;
    if body.intent == Intent::DryRun {
        return Err(problem::invalid_field("/dry_run", "tries a publish; a change of one that waits can't be tried"));
    }
    let scheduled = call.broker().reschedule_body(call.identity()?, id, body).await?;
    Ok(answer::json(StatusCode::OK, &ScheduledBody(&scheduled)))
}
