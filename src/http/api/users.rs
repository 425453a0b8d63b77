//! `/v1/users/{user}`: a first badge for a page that the application's backend renders, and everything about one person,
//! to be handed out or erased.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

use crate::broker::BrokerError;
use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::export;
use crate::lifecycle::joined;
use crate::wire::event::UnreadBody;
use crate::wire::problem::Problem;
use crate::wire::upkeep::{ErasedBody, ExportFrom, ExportPage, RecordBody};

/// `GET /v1/users/{user}/counts`.
pub async fn counts(call: &Call) -> Result<Response<Body>, Problem> {
    let (counts, as_of) = call.broker().counts_of(call.identity()?, &call.named_user()?).await?;
    Ok(answer::json(StatusCode::OK, &UnreadBody { counts: &counts, as_of }))
}

/// `DELETE /v1/users/{user}`.
pub async fn erase(call: &Call) -> Result<Response<Body>, Problem> {
    let (broker, by, user) = (call.broker().clone(), call.identity()?.clone(), call.named_user()?);
    // In a task of its own: a client who hangs up must not leave an erasure behind that has taken no access back.
    let erasing = call.app.lifecycle().spawn_edge(async move { broker.erase(&by, &user).await });
    let erased = joined(erasing.await).ok_or(BrokerError::StorageStopped)??;
    Ok(answer::json(StatusCode::OK, &ErasedBody::from(erased)))
}

/// `GET /v1/users/{user}/export`.
pub async fn export(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[])?;
    let (app, by, user) = (call.app.clone(), call.identity()?.clone(), call.named_user()?);
    let broker = call.broker().clone();
    let read = move |from| {
        let (broker, by, user) = (broker.clone(), by.clone(), user.clone());
        async move {
            let page = broker.export(&by, &user, from).await?;
            Ok((lines(&page), page.next))
        }
    };
    let first = read(ExportFrom::Profile).await?;
    let mut response = Response::new(export::body(app, first, read, export::broken_line));
    response.headers_mut().insert(CONTENT_TYPE, answer::NDJSON);
    Ok(response)
}

fn lines(page: &ExportPage) -> Bytes {
    let mut lines = Vec::new();
    for record in &page.records {
        lines.extend_from_slice(&answer::to_json(&RecordBody::from(record)));
        lines.push(b'\n');
    }
    lines.into()
}
