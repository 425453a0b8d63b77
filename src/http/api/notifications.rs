//! `/v1/notifications/{id}`: what became of a notification, who did what with it, and taking it back.

use http::{Response, StatusCode};

use super::topics::{DEFAULT_PAGE, MAX_PAGE};
use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::model::UserId;
use crate::wire::problem::Problem;
use crate::wire::status::{RecipientsBody, RetractedBody, StatusBody};

/// `GET /v1/notifications/{id}`.
pub async fn status(call: &Call) -> Result<Response<Body>, Problem> {
    let status = call.broker().notification(call.identity()?, call.notification()?).await?;
    Ok(answer::json(StatusCode::OK, &StatusBody(&status)))
}

/// `GET /v1/notifications/{id}/recipients`.
pub async fn recipients(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["after", "limit"])?;
    let after = call.query.after(|text| UserId::new(text).ok())?;
    let limit = call.query.limit(DEFAULT_PAGE, MAX_PAGE)?;
    let page = call.broker().recipients(call.identity()?, call.notification()?, after, limit).await?;
    Ok(answer::json(StatusCode::OK, &RecipientsBody::from(&page)))
}

/// `DELETE /v1/notifications/{id}`.
pub async fn retract(call: &Call) -> Result<Response<Body>, Problem> {
    let id = call.notification()?;
    let retracted = call.broker().retract(call.identity()?, id).await?;
    Ok(answer::json(StatusCode::OK, &RetractedBody::new(&id, retracted)))
}
