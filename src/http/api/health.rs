//! `GET /healthz`, `/readyz`, `/metrics`: what supervisors and scrapers ask.

use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::broker::Health;
use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Serialize)]
struct StatusBody<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// The process answers; nothing more is said.
pub fn alive() -> Response<Body> {
    answer::json(StatusCode::OK, &StatusBody { status: "ok", why: None })
}

/// Whether new requests should come here.
pub fn ready(call: &Call) -> Response<Body> {
    let health = call.broker().health();
    let (status, body) = match &health {
        Health::Ready => (StatusCode::OK, StatusBody { status: "ready", why: None }),
        Health::Draining => (
            StatusCode::SERVICE_UNAVAILABLE,
            StatusBody { status: "draining", why: Some("the server is shutting down") },
        ),
        Health::Degraded(why) => (StatusCode::SERVICE_UNAVAILABLE, StatusBody { status: "degraded", why: Some(why) }),
    };
    answer::json(status, &body)
}

/// OpenMetrics text.
pub fn metrics(call: &Call) -> Response<Body> {
    call.broker().gauge();
    call.app.metrics().look_at_process();
    answer::typed(StatusCode::OK, OPENMETRICS, call.app.metrics().text())
}
