//! What those who keep a server ask of it: how it is, to read its settings again, who is online, and whose access ends.

use http::{Response, StatusCode};
use tokio::sync::oneshot;

use crate::broker::{Broker, Health, IntakeState};
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{LIMITS, answer, problem};
use crate::metrics::Metrics;
use crate::model::UserId;
use crate::wire::ops::{
    Connections, EndedBody, IntakeBody, OnlineBody, ReloadedBody, RevokedBody, StatusBody, UntakenBody,
};
use crate::wire::problem::Problem;

/// Users of a page where the caller names no number, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// `GET /v1/status`.
pub fn status(call: &Call) -> Response<Body> {
    let broker = call.broker();
    let metrics = broker.metrics();
    broker.gauge();
    metrics.look_at_process();
    let (status, why) = match broker.health() {
        Health::Ready => ("ready", None),
        Health::Draining => ("draining", None),
        Health::Degraded(why) => ("degraded", Some(why)),
    };
    let live = |transport| metrics.connections.get_or_create(&[("transport", transport)]).get();
    let started = broker.started();
    let body = StatusBody {
        version: env!("CARGO_PKG_VERSION"),
        status,
        why,
        started_at: started.to_string(),
        uptime_s: broker.clock().now().since(started).as_secs(),
        listens: call.app.process().listens.clone(),
        cursor: broker.head().to_string(),
        users_online: metrics.users_online.get(),
        connections: Connections { sse: live("sse"), poll: live("poll"), ws: live("ws") },
        sockets: metrics.sockets.get(),
        sockets_max: metrics.sockets_max.get(),
        publishes: metrics.publishes.get(),
        deliveries: Metrics::sum(&metrics.deliveries, "transport", ["sse", "poll", "ws"]),
        errors: Metrics::sum(&metrics.errors, "code", problem::KINDS.iter().map(|kind| kind.code)),
        limited: Metrics::sum(&metrics.limited, "limit", LIMITS),
        lags: metrics.lags.get(),
        panics: metrics.panics.get(),
        count_drift: metrics.drift.get(),
        revocations: metrics.revocations.get(),
        queue_bytes: metrics.queue.get(),
        database_bytes: metrics.database.get(),
        wal_bytes: metrics.wal.get(),
        disk_free_bytes: broker.disk_free(),
        resident_memory_bytes: metrics.resident_memory.get(),
        open_files: metrics.open_files.get(),
        open_files_max: metrics.open_files_max.get(),
        intake: intake(broker),
    };
    answer::json(StatusCode::OK, &body)
}

fn intake(broker: &Broker) -> Option<IntakeBody> {
    let state = broker.intake()?;
    let why = match &state {
        IntakeState::Reconnecting { why, .. } => Some(why.clone()),
        _ => None,
    };
    let told = broker.untaken().into_iter().map(|untaken| UntakenBody {
        at: untaken.at.to_string(),
        reason: untaken.reason,
        detail: untaken.detail,
        id: untaken.id,
        bytes: untaken.bytes,
        went: untaken.went.as_str(),
    });
    Some(IntakeBody { state: state.to_string(), why, untaken: told.collect() })
}

/// `POST /v1/upkeep/reload`.
pub async fn reload(call: &Call) -> Result<Response<Body>, Problem> {
    let nobody = || problem::NOT_RELOADED.because("no server runs there whose settings could be read again");
    let reloads = call.app.process().reloads.as_ref().ok_or_else(nobody)?;
    let (answer, answered) = oneshot::channel();
    reloads.send(answer).await.map_err(|_| nobody())?;
    match answered.await.map_err(|_| nobody())? {
        Ok(needs_restart) => Ok(answer::json(StatusCode::OK, &ReloadedBody { reloaded: true, needs_restart })),
        Err(faults) => Err(problem::NOT_RELOADED.because(faults)),
    }
}

/// `GET /v1/online`.
pub async fn online(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["after", "limit"])?;
    let limit = call.query.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let (users, online) = call.broker().online(call.identity()?, call.query.text("after")?, limit).await?;
    let next = (users.len() == limit).then(|| users.last().map(|last| last.user.as_str().to_owned())).flatten();
    Ok(answer::json(StatusCode::OK, &OnlineBody { users, online, next }))
}

/// `DELETE /v1/users/{user}/streams`.
pub async fn disconnect(call: &Call) -> Result<Response<Body>, Problem> {
    let ended = call.broker().disconnect(call.identity()?, &call.named_user()?).await?;
    Ok(answer::json(StatusCode::OK, &EndedBody { ended }))
}

/// `PUT /v1/users/{user}/revocation`.
pub async fn revoke(call: &Call) -> Result<Response<Body>, Problem> {
    let user = call.named_user()?;
    let ended = call.broker().revoke(call.identity()?, &user).await?;
    Ok(told(&user, true, ended))
}

/// `DELETE /v1/users/{user}/revocation`.
pub async fn restore(call: &Call) -> Result<Response<Body>, Problem> {
    let user = call.named_user()?;
    call.broker().restore(call.identity()?, &user).await?;
    Ok(told(&user, false, 0))
}

fn told(user: &UserId, revoked: bool, ended: usize) -> Response<Body> {
    answer::json(StatusCode::OK, &RevokedBody { user: user.as_str(), revoked, ended })
}
