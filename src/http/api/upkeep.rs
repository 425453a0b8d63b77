//! `/v1/upkeep`: what operators do with the store while it is in use.

use http::{Response, StatusCode};

use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::wire::problem::Problem;
use crate::wire::upkeep::{CompactedBody, RecountBody, RecountedBody, parse_recount};

/// `POST /v1/upkeep/recount`.
pub async fn recount(mut call: Call) -> Result<Response<Body>, Problem> {
    let RecountBody { after, repair } = parse_recount(&call.optional_json_body().await?)?;
    let page = call.broker().recount(call.identity()?, after, repair).await?;
    Ok(answer::json(StatusCode::OK, &RecountedBody::from(&page)))
}

/// `POST /v1/upkeep/compact`.
pub async fn compact(call: &Call) -> Result<Response<Body>, Problem> {
    let compacted = call.broker().compact(call.identity()?).await?;
    Ok(answer::json(StatusCode::OK, &CompactedBody::from(compacted)))
}
