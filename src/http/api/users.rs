//! `GET /v1/users/{user}/counts`: a first badge for a page that the application's backend renders.

use http::{Response, StatusCode};

use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::wire::event::UnreadBody;
use crate::wire::problem::Problem;

pub async fn counts(call: &Call) -> Result<Response<Body>, Problem> {
    let (counts, as_of) = call.broker().counts_of(call.identity()?, &call.named_user()?).await?;
    Ok(answer::json(StatusCode::OK, &UnreadBody { counts: &counts, as_of }))
}
