//! `POST /v1/tickets`: a credential for a stream's address, by the user's own token or by a backend's key.

use http::{Response, StatusCode};

use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::wire::manage::{TicketBody, parse_ticket};
use crate::wire::problem::Problem;

pub async fn mint(mut call: Call) -> Result<Response<Body>, Problem> {
    call.change()?;
    let body = call.optional_json_body().await?;
    let user = parse_ticket(&body)?;
    let ticket = call.broker().create_ticket(call.identity()?, user).await?;
    Ok(answer::json(StatusCode::CREATED, &TicketBody::from(&ticket)))
}
