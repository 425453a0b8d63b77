//! Who people are: `/v1/users` and `/v1/users/{user}` for their application, `/v1/preferences` for themselves.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::batch::write_problem;
use crate::broker::Acquaintance;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::lines::{self, LineBody};
use crate::http::{App, answer};
use crate::model::{Identity, UserId};
use crate::wire::problem::Problem;
use crate::wire::profile::{ProfileBody, PutBody, parse_own, parse_profile, parse_profile_line};

/// `GET /v1/users/{user}`.
pub async fn one(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[])?;
    let user = call.named_user()?;
    let profile = call.broker().profile_of(call.identity()?, &user).await?;
    Ok(answer::json(StatusCode::OK, &ProfileBody::new(&user, &profile)))
}

/// `PUT /v1/users/{user}`.
pub async fn put(mut call: Call) -> Result<Response<Body>, Problem> {
    let user = call.named_user()?;
    let edit = parse_profile(&call.json_body().await?)?;
    let (profile, acquaintance) = call.broker().put_profile(call.identity()?, &user, edit).await?;
    Ok(answer::json(status(acquaintance), &ProfileBody::new(&user, &profile)))
}

/// `POST /v1/users`: a change a line, an answer a line, in order. Each line fails alone.
pub async fn put_many(call: Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[])?;
    let by = call.identity()?.clone();
    let app = call.app.clone();
    let lines = LineBody::new(call, app.config().max_bulk_lines)?;
    let mut results = Vec::new();
    lines::each(
        lines,
        |line| put_line(&app, &by, line),
        |result| match result.flatten() {
            Ok((user, status)) => {
                let body = PutBody { status: status.as_u16(), user: user.as_str() };
                results.extend_from_slice(&answer::to_json(&body));
                results.push(b'\n');
            }
            Err(problem) => write_problem(&app, &problem, &mut results),
        },
    )
    .await;
    Ok(answer::typed(StatusCode::OK, answer::NDJSON, results))
}

async fn put_line(app: &App, by: &Identity, line: Bytes) -> Result<(UserId, StatusCode), Problem> {
    app.broker().still_good(by)?;
    let (user, edit) = parse_profile_line(&line)?;
    let (_, acquaintance) = app.broker().put_profile(by, &user, edit).await?;
    Ok((user, status(acquaintance)))
}

const fn status(acquaintance: Acquaintance) -> StatusCode {
    match acquaintance {
        Acquaintance::New => StatusCode::CREATED,
        Acquaintance::Known => StatusCode::OK,
    }
}

/// `GET /v1/preferences`.
pub async fn own(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[])?;
    let who = call.user()?;
    let own = call.broker().own_profile(who).await?;
    Ok(answer::json(StatusCode::OK, &ProfileBody::own(&who.user, &own)))
}

/// `PUT /v1/preferences`.
pub async fn put_own(mut call: Call) -> Result<Response<Body>, Problem> {
    let edit = parse_own(&call.json_body().await?)?;
    call.change()?;
    let who = call.user()?;
    let own = call.broker().put_own_profile(who, edit).await?;
    Ok(answer::json(StatusCode::OK, &ProfileBody::own(&who.user, &own)))
}
