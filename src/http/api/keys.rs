//! `/v1/keys`: API keys, by an operator or a key with `admin`.

use http::{Response, StatusCode};

use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::wire::manage::{KeyInfoBody, KeysBody, parse_key};
use crate::wire::ops::parse_rotation;
use crate::wire::problem::Problem;

/// The answer holds the key itself, which is not kept and not shown again.
pub async fn create(mut call: Call) -> Result<Response<Body>, Problem> {
    let wanted = parse_key(&call.json_body().await?)?;
    let (info, key) = call.broker().create_key(call.identity()?, wanted).await?;
    Ok(answer::json(StatusCode::CREATED, &KeyInfoBody::new(&info, Some(&key))))
}

pub async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    let keys = call.broker().keys(call.identity()?).await?;
    Ok(answer::json(StatusCode::OK, &KeysBody { keys: keys.iter().map(|info| KeyInfoBody::new(info, None)).collect() }))
}

/// The answer holds the new key; the one before is taken for a while.
pub async fn rotate(mut call: Call) -> Result<Response<Body>, Problem> {
    let grace = parse_rotation(&call.optional_json_body().await?)?;
    let (info, key) = call.broker().rotate_key(call.identity()?, call.params.text("key"), grace).await?;
    Ok(answer::json(StatusCode::OK, &KeyInfoBody::new(&info, Some(&key))))
}

/// Revoking a key again changes nothing.
pub async fn revoke(call: &Call) -> Result<Response<Body>, Problem> {
    call.broker().revoke_key(call.identity()?, call.params.text("key")).await?;
    Ok(answer::nothing())
}
