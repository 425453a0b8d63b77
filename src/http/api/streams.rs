//! `POST /v1/streams/{stream}/refresh`: a new token for a stream that is open.

use http::{Response, StatusCode};

use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{answer, problem};
use crate::model::StreamId;
use crate::wire::manage::RefreshedBody;
use crate::wire::problem::Problem;

pub async fn refresh(call: &Call) -> Result<Response<Body>, Problem> {
    let stream = StreamId::parse(call.params.text("stream"))
        .ok_or_else(|| problem::NOT_FOUND.because("there is no such stream"))?;
    let expires = call.broker().refresh(stream, call.user()?).await?;
    Ok(answer::json(StatusCode::OK, &RefreshedBody::from(expires)))
}
