//! `/v1/deliveries`: the message log. What went to whom by which medium, and trying again what did not arrive.

use http::{Response, StatusCode};

use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::query::bad;
use crate::http::{answer, problem};
use crate::model::DeliveryId;
use crate::wire::delivery::{Asked, DeliveriesBody, RetriedBody, TimelineBody};
use crate::wire::problem::Problem;

/// Deliveries of a page where the caller names no number, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// `GET /v1/deliveries`.
pub async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[&Asked::FIELDS[..], &["before", "limit"]].concat())?;
    let mut asked = Asked::default();
    for name in Asked::FIELDS {
        if let Some(text) = call.query.text(name)? {
            asked.set(name, text).map_err(|rule| bad(name, &rule))?;
        }
    }
    let before =
        call.query.text("before")?.map(|text| number(text).ok_or_else(|| bad("before", BEFORE))).transpose()?;
    let limit = call.query.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let page = call.broker().deliveries(call.identity()?, asked, before, limit).await?;
    Ok(answer::json(StatusCode::OK, &DeliveriesBody::from(&page)))
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

const BEFORE: &str = "is not the `next` of a page as it came";

/// A delivery's number, as it is written.
fn number(text: &str) -> Option<DeliveryId> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(DeliveryId)
}

/// The delivery that the path names.
fn delivery(call: &Call) -> Result<DeliveryId, Problem> {
    number(call.params.text("id")).ok_or_else(|| problem::NOT_FOUND.because("this is no delivery's number"))
}
