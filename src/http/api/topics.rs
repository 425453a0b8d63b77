//! Topics and who follows them, by API key.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::lines::{self, LineBody};
use crate::http::{answer, problem};
use crate::model::{TopicName, UserId};
use crate::wire::manage::{FollowBody, TopicBody, parse_topic, parse_user};
use crate::wire::problem::{Problem, ProblemBody};

/// Failed lines that a bulk's answer names.
const MAX_TOLD_LINES: usize = 100;

/// `PUT /v1/topics/{topic}`.
pub async fn put(mut call: Call) -> Result<Response<Body>, Problem> {
    let name = call.topic()?;
    let category = parse_topic(&call.optional_json_body().await?)?;
    let (topic, created) = call.broker().put_topic(call.identity()?, &name, category).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer::json(status, &TopicBody::from(&topic)))
}

/// `PUT /v1/topics/{topic}/followers/{user}`.
pub async fn follow(call: &Call) -> Result<Response<Body>, Problem> {
    let (topic, user) = (call.topic()?, call.named_user()?);
    let changed = call.broker().follow(call.identity()?, &topic, &user).await?;
    Ok(followed(&topic, &user, true, changed))
}

/// `DELETE /v1/topics/{topic}/followers/{user}`.
pub async fn unfollow(call: &Call) -> Result<Response<Body>, Problem> {
    let (topic, user) = (call.topic()?, call.named_user()?);
    let changed = call.broker().unfollow(call.identity()?, &topic, &user).await?;
    Ok(followed(&topic, &user, false, changed))
}

fn followed(topic: &TopicName, user: &UserId, following: bool, changed: bool) -> Response<Body> {
    answer::json(StatusCode::OK, &FollowBody { topic: topic.as_str(), user: user.as_str(), following, changed })
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
        let user = parse_user(&line)?;
        Ok(app.broker().follow(&by, &topic, &user).await?)
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
