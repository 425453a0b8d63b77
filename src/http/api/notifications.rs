//! `/v1/notifications/{id}`: what became of a notification, for all and for one, who did what with it, and taking it back.

use http::{Response, StatusCode};

use super::topics::{DEFAULT_PAGE, MAX_PAGE};
use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::query::bad;
use crate::model::UserId;
use crate::wire::explain::AccountBody;
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

/// `GET /v1/notifications/{id}/explain`.
pub async fn explain(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["user"])?;
    let user = call.query.text("user")?.ok_or_else(|| bad("user", "is missing: it says about whom"))?;
    let user = UserId::new(user).map_err(|e| bad("user", &e.to_string()))?;
    let account = call.broker().account(call.identity()?, call.notification()?, user).await?;
    Ok(answer::json(StatusCode::OK, &AccountBody::from(&account)))
}

/// `DELETE /v1/notifications/{id}`.
pub async fn retract(call: &Call) -> Result<Response<Body>, Problem> {
    let id = call.notification()?;
    let retracted = call.broker().retract(call.identity()?, id).await?;
    Ok(answer::json(StatusCode::OK, &RetractedBody::new(&id, retracted)))
}
