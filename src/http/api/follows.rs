//! What users decide for themselves about topics: to follow and leave those that are open to that, and to mute any.

use http::{Response, StatusCode};

use super::topics::followed;
use crate::broker::Mute;
use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::wire::problem::Problem;
use crate::wire::topic::{FollowsBody, MuteBody, parse_follow};

/// `PUT /v1/topics/{topic}/follow`.
pub async fn follow(mut call: Call) -> Result<Response<Body>, Problem> {
    let topic = call.topic()?;
    let last = parse_follow(&call.optional_json_body().await?)?;
    call.change()?;
    let who = call.user()?;
    let changed = call.broker().follow_own(who, &topic, last).await?;
    Ok(followed(&topic, &who.user, true, changed))
}

/// `DELETE /v1/topics/{topic}/follow`.
pub async fn unfollow(call: &Call) -> Result<Response<Body>, Problem> {
    let (topic, who) = (call.topic()?, call.user()?);
    call.change()?;
    let changed = call.broker().unfollow_own(who, &topic).await?;
    Ok(followed(&topic, &who.user, false, changed))
}

/// `PUT` and `DELETE /v1/topics/{topic}/mute`.
pub async fn mute(call: &Call, mute: Mute) -> Result<Response<Body>, Problem> {
    let (topic, who) = (call.topic()?, call.user()?);
    call.change()?;
    let changed = call.broker().mute(who, &topic, mute).await?;
    let (topic, user) = (topic.as_str(), Some(who.user.as_str()));
    Ok(answer::json(StatusCode::OK, &MuteBody { topic, user, muted: mute == Mute::On, changed }))
}

/// `GET /v1/follows`.
pub async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&[])?;
    let topics = call.broker().followed(call.user()?).await?;
    Ok(answer::json(StatusCode::OK, &FollowsBody::from(topics.as_slice())))
}
