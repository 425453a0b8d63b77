//! `POST|DELETE /v1/session`: a user's token, kept by the browser as a cookie. The cookie *is* the token, so the
//! server remembers no sessions.

use http::header::SET_COOKIE;
use http::{HeaderValue, Response};

use crate::broker::AuthError;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{answer, auth, cookie, problem, site};
use crate::model::UserIdentity;
use crate::wire::problem::Problem;

/// Puts the bearer token into the cookie.
pub fn sign_in(call: &Call) -> Result<Response<Body>, Problem> {
    let token = auth::bearer(call.headers()).ok_or(AuthError::Invalid)?;
    let mut response = answer::nothing();
    response.headers_mut().insert(SET_COOKIE, cookie_for(call, token, call.user()?)?);
    Ok(response)
}

/// Clears the cookie; without one, nothing happens.
pub fn sign_out(call: &Call) -> Result<Response<Body>, Problem> {
    let headers = call.headers();
    let config = call.app.config();
    if cookie::session(headers).is_some() {
        site::check(headers, &config.origins).map_err(|why| problem::CROSS_SITE.because(why))?;
    }
    let mut response = answer::nothing();
    if let Some(cleared) = cookie::cleared(headers, &config) {
        response.headers_mut().insert(SET_COOKIE, cleared);
    }
    Ok(response)
}

/// The cookie that holds a token for as long as it is good.
///
/// # Errors
/// 422 where the token can't stand in a cookie.
pub fn cookie_for(call: &Call, token: &str, identity: &UserIdentity) -> Result<HeaderValue, Problem> {
    // A user's token always ends: `exp` is required of it.
    let expires = identity.expires.ok_or(AuthError::Invalid)?;
    let lasts = expires.since(call.broker().clock().now());
    cookie::set(call.headers(), &call.app.config(), token, lasts).ok_or_else(|| {
        problem::INVALID.because(format!(
            "the token has more than the {} bytes that browsers keep as a cookie",
            cookie::MAX_TOKEN_BYTES
        ))
    })
}
