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
    /// How the queue is consumed, where one is; whether the server is ready does not hang on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    intake: Option<String>,
    /// By what nothing goes out for now; what is due waits, and whether the server is ready does not hang on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held: Vec<String>,
}

/// The process answers; nothing more is said.
pub fn alive() -> Response<Body> {
    answer::json(StatusCode::OK, &StatusBody { status: "ok", why: None, intake: None, held: Vec::new() })
}

/// Whether new requests should come here.
pub fn ready(call: &Call) -> Response<Body> {
    let health = call.broker().health();
    let (code, status, why) = match &health {
        Health::Ready => (StatusCode::OK, "ready", None),
        Health::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", Some("the server is shutting down")),
        Health::Degraded(why) => (StatusCode::SERVICE_UNAVAILABLE, "degraded", Some(why.as_str())),
    };
    let intake = call.broker().intake().map(|state| state.to_string());
    let held = call.broker().holds().iter().map(ToString::to_string).collect();
    answer::json(code, &StatusBody { status, why, intake, held })
}

/// OpenMetrics text.
pub async fn metrics(call: &Call) -> Response<Body> {
    call.broker().gauge();
    call.broker().gauge_outbox().await;
    call.app.metrics().look_at_process();
    answer::typed(StatusCode::OK, OPENMETRICS, call.app.metrics().text())
}
