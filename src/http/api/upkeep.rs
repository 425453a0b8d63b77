//! `/v1/upkeep`: what operators do with the store while it is in use.

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use crate::broker::Backup;
use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::wire::problem::Problem;
use crate::wire::upkeep::{CompactedBody, RecountBody, RecountedBody, parse_recount};

/// Bytes of a backup that are read at a time.
const CHUNK: usize = 128 * 1024;
const SQLITE: HeaderValue = HeaderValue::from_static("application/vnd.sqlite3");

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

/// `GET /v1/upkeep/backup`.
pub async fn backup(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[])?;
    let backup = call.broker().back_up(call.identity()?).await?;
    let bytes = backup.bytes;
    let mut response = Response::new(Body::Stream(Box::pin(stream::unfold(Some(backup), chunk))));
    // Told before: what ends early is no backup, and hyper cuts the connection then.
    response.headers_mut().insert(CONTENT_LENGTH, bytes.into());
    response.headers_mut().insert(CONTENT_TYPE, SQLITE);
    Ok(response)
}

/// The next bytes of a backup; `None` at its end, or where it can't be read.
async fn chunk(backup: Option<Backup>) -> Option<(Bytes, Option<Backup>)> {
    let backup = backup?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; CHUNK];
        let read = std::io::Read::read(&mut &backup.file, &mut bytes);
        (backup, read.map(|read| bytes[..read].to_vec()))
    });
    match read.await {
        Ok((backup, Ok(bytes))) if !bytes.is_empty() => Some((bytes.into(), Some(backup))),
        Ok((_, Err(error))) => {
            tracing::error!(%error, "a backup could not be read to its end");
            None
        }
        Ok((_, Ok(_))) | Err(_) => None,
    }
}

/// `POST /v1/upkeep/check`.
pub async fn check(call: &Call) -> Result<Response<Body>, Problem> {
    let report = call.broker().check(call.identity()?).await?;
    Ok(answer::json(StatusCode::OK, &report))
}
