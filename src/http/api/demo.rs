//! The demo's door: who there is, and signing in as one of them by a click. Routed in a demo only.

use http::header::SET_COOKIE;
use http::{Response, StatusCode};
use serde::Serialize;

use super::session;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{Demo, DemoUser, answer, problem, site};
use crate::wire::manage;
use crate::wire::problem::Problem;

#[derive(Serialize)]
struct UsersBody<'a> {
    users: Vec<UserBody<'a>>,
}

#[derive(Serialize)]
struct UserBody<'a> {
    id: &'a str,
    name: &'a str,
}

/// `GET /demo/users`.
pub fn users(call: &Call) -> Result<Response<Body>, Problem> {
    let demo = demo(call)?;
    let users = demo.users.iter().map(|DemoUser { id, name, token: _ }| UserBody { id, name }).collect();
    Ok(answer::json(StatusCode::OK, &UsersBody { users }))
}

/// `POST /demo/session`. A foreign page must not sign anybody in, so the cross-site rule holds although no cookie is
/// needed.
pub async fn sign_in(mut call: Call) -> Result<Response<Body>, Problem> {
    site::check(call.headers(), &call.app.config().origins).map_err(|why| problem::CROSS_SITE.because(why))?;
    let body = call.json_body().await?;
    let wanted = manage::parse_user(&body)?;
    let demo = demo(&call)?;
    let user = demo.users.iter().find(|user| user.id == wanted.as_str());
    let user = user.ok_or_else(|| problem::NOT_FOUND.because("the demo has no such user"))?;
    let identity = call.broker().check_user_token(&user.token)?;
    let mut response = answer::nothing();
    response.headers_mut().insert(SET_COOKIE, session::cookie_for(&call, &user.token, &identity)?);
    Ok(response)
}

fn demo(call: &Call) -> Result<Demo, Problem> {
    call.app.config().demo.clone().ok_or_else(problem::nothing_here)
}
