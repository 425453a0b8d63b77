//! Topics and who follows them, by API key.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::lines::{self, LineBody};
use crate::http::{answer, problem};
use crate::model::{TopicName, UserId};
use crate::wire::problem::{Problem, ProblemBody};
use crate::wire::topic::{
    FollowBody, FollowLine, FollowersBody, TopicBody, TopicsBody, parse_follow, parse_follow_line, parse_topic,
};

/// Failed lines that a bulk's answer names.
const MAX_TOLD_LINES: usize = 100;
/// Topics or followers of a page where the caller names no number, and at most.
pub const DEFAULT_PAGE: usize = 100;
pub const MAX_PAGE: usize = 1_000;

/// `PUT /v1/topics/{topic}`.
pub async fn put(mut call: Call) -> Result<Response<Body>, Problem> {
    let name = call.topic()?;
    let settings = parse_topic(&call.optional_json_body().await?)?;
    let (topic, created) = call.broker().put_topic(call.identity()?, &name, settings).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer::json(status, &TopicBody::from(&topic)))
}

/// `GET /v1/topics/{topic}`.
pub async fn one(call: &Call) -> Result<Response<Body>, Problem> {
    let topic = call.broker().topic(call.identity()?, &call.topic()?).await?;
    Ok(answer::json(StatusCode::OK, &TopicBody::from(&topic)))
}

/// `GET /v1/topics`.
pub async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["after", "limit"])?;
    let after = call.query.after(|text| TopicName::new(text).ok())?;
    let limit = call.query.limit(DEFAULT_PAGE, MAX_PAGE)?;
    let page = call.broker().topics(call.identity()?, after, limit).await?;
    Ok(answer::json(StatusCode::OK, &TopicsBody::from(&page)))
}

/// `DELETE /v1/topics/{topic}`.
pub async fn delete(call: &Call) -> Result<Response<Body>, Problem> {
    call.broker().delete_topic(call.identity()?, &call.topic()?).await?;
    Ok(answer::nothing())
}

/// `GET /v1/topics/{topic}/followers`.
pub async fn followers(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["after", "limit"])?;
    let after = call.query.after(|text| UserId::new(text).ok())?;
    let limit = call.query.limit(DEFAULT_PAGE, MAX_PAGE)?;
    let page = call.broker().followers(call.identity()?, &call.topic()?, after, limit).await?;
    Ok(answer::json(StatusCode::OK, &FollowersBody::from(&page)))
}

/// `PUT /v1/topics/{topic}/followers/{user}`.
pub async fn follow(mut call: Call) -> Result<Response<Body>, Problem> {
    let (topic, user) = (call.topic()?, call.named_user()?);
    let last = parse_follow(&call.optional_json_body().await?)?;
    let changed = call.broker().follow(call.identity()?, &topic, &user, last).await?;
    Ok(followed(&topic, &user, true, changed))
}

/// `DELETE /v1/topics/{topic}/followers/{user}`.
pub async fn unfollow(call: &Call) -> Result<Response<Body>, Problem> {
    let (topic, user) = (call.topic()?, call.named_user()?);
    let changed = call.broker().unfollow(call.identity()?, &topic, &user).await?;
    Ok(followed(&topic, &user, false, changed))
}

/// The answer to a follow or its end.
pub fn followed(topic: &TopicName, user: &UserId, following: bool, changed: bool) -> Response<Body> {
    let body = FollowBody { topic: topic.as_str(), user: Some(user.as_str()), following, changed };
    answer::json(StatusCode::OK, &body)
}

/// What a bulk of followers came to.
#[derive(Default, Serialize)]
struct BulkBody<'a> {
    followed: u64,
    unchanged: u64,
    failed: u64,
    errors: Vec<LineError<'a>>,
}

#[derive(Serialize)]
struct LineError<'a> {
    /// Counted from 1, blank lines left out.
    line: u64,
    problem: ProblemBody<'a>,
}

/// `POST /v1/topics/{topic}/followers`.
pub async fn follow_many(call: Call) -> Result<Response<Body>, Problem> {
    let topic = call.topic()?;
    let by = call.identity()?.clone();
    let app = call.app.clone();
    let lines = LineBody::new(call, app.config().max_bulk_lines)?;
    let (mut line, mut followed, mut unchanged) = (0, 0, 0);
    let mut failed: Vec<(u64, Problem)> = Vec::new();
    let mut failures = 0;
    let follow = async |line: bytes::Bytes| -> Result<bool, Problem> {
        app.broker().still_good(&by)?;
        let FollowLine { user, last } = parse_follow_line(&line)?;
        Ok(app.broker().follow(&by, &topic, &user, last).await?)
    };
    lines::each(lines, follow, |result| {
        line += 1;
        match result.flatten() {
            Ok(true) => followed += 1,
            Ok(false) => unchanged += 1,
            Err(problem) => {
                problem::count(&problem, app.metrics());
                failures += 1;
                if failed.len() < MAX_TOLD_LINES {
                    failed.push((line, problem));
                }
            }
        }
    })
    .await;
    let base_path = &app.config().base_path;
    let errors =
        failed.iter().map(|(line, problem)| LineError { line: *line, problem: ProblemBody { problem, base_path } });
    Ok(answer::json(StatusCode::OK, &BulkBody { followed, unchanged, failed: failures, errors: errors.collect() }))
}
