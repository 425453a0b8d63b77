//! Publishing one notification: as JSON, or as plain text with headers so that `curl -d` is enough.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::broker::{Idempotency, Meanwhile, hash_body};
use crate::http::body::Body;
use crate::http::call::{Call, is_json, media_type};
use crate::http::lines::is_ndjson;
use crate::http::query::Query;
use crate::http::{answer, problem};
use crate::wire::explain::RehearsalBody;
use crate::wire::plain::{self, PLAIN_FIELDS};
use crate::wire::problem::Problem;
use crate::wire::publish::{IDEMPOTENCY_KEY_RULE, Intent, Place, Published, PublishedBody, is_idempotency_key, parse};

/// The routes as idempotency keys know them: one key may stand for a request to each.
pub const ROUTE_JSON: &str = "notifications";
const ROUTE_PLAIN: &str = "publish";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How `POST /v1/notifications` was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    One,
    Batch,
}

/// Tells the form by its content type.
///
/// # Errors
/// 415.
pub fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    match (is_json(headers), is_ndjson(headers)) {
        (true, _) => Ok(Form::One),
        (_, true) => Ok(Form::Batch),
        _ => Err(problem::UNSUPPORTED_TYPE.because(
            "send one notification as `application/json`, several as `application/x-ndjson`, plain text to /v1/publish",
        )),
    }
}

/// `POST /v1/notifications` with one notification.
pub async fn one(mut call: Call) -> Result<Response<Body>, Problem> {
    refuse_parameters(&call.query, &[])?;
    let key = idempotency_key(call.headers())?;
    let body = call.json_body().await?;
    let parsed = parse(&body, Place::Request)?;
    let idempotency = key.map(|key| Idempotency {
        key,
        route: ROUTE_JSON,
        body_hash: hash_body(&body),
        meanwhile: Meanwhile::Refuse,
    });
    call.app.meters().publish(call.identity()?)?;
    if parsed.intent == Intent::DryRun {
        let rehearsal = call.broker().rehearse(call.identity()?, parsed).await?;
        return Ok(answer::json(StatusCode::OK, &RehearsalBody::from(&rehearsal)));
    }
    let published = call.broker().publish_body(call.identity()?, parsed, idempotency).await?;
    Ok(created(&published))
}

/// `POST /v1/publish` and `POST /v1/publish/{topic}`.
pub async fn plain(mut call: Call) -> Result<Response<Body>, Problem> {
    let kind = media_type(call.headers());
    if kind == "application/json" || kind == "application/x-ndjson" || kind.starts_with("multipart/") {
        let detail =
            format!("this takes plain text; send `{kind}` to /v1/notifications if it is JSON, and no multipart at all");
        return Err(problem::UNSUPPORTED_TYPE.because(detail));
    }
    refuse_parameters(&call.query, &PLAIN_FIELDS.map(|(name, _)| name))?;
    let fields = plain_fields(call.headers(), &call.query)?;
    let key = idempotency_key(call.headers())?;
    let body = call.any_body().await?;
    let topic = call.params.find("topic");
    let draft = plain::parse(topic, &fields, &body)?;
    let idempotency = key.map(|key| Idempotency {
        key,
        route: ROUTE_PLAIN,
        body_hash: hash_plain(topic, &fields, &body),
        meanwhile: Meanwhile::Refuse,
    });
    call.app.meters().publish(call.identity()?)?;
    let published = call.broker().publish(call.identity()?, draft, idempotency).await?;
    Ok(created(&published))
}

fn created(published: &Published) -> Response<Body> {
    let mut response = answer::json(StatusCode::CREATED, &PublishedBody::new(published, Place::Request));
    if published.replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// Parameters that change what a publish does must not be ignored, `dry_run` least of all.
///
/// # Errors
/// 422 with the first unknown one.
pub fn refuse_parameters(query: &Query, known: &[&str]) -> Result<(), Problem> {
    match query.unknown(known) {
        None => Ok(()),
        Some(name) => {
            let rule =
                if known.is_empty() { "this takes none".to_owned() } else { format!("there are {}", known.join(", ")) };
            Err(problem::invalid_field(&format!("/{name}"), format!("is not a query parameter known here; {rule}")))
        }
    }
}

/// The request's idempotency key, where it has one.
///
/// # Errors
/// 422 where there are several, or it breaks the rule.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| is_idempotency_key(key) && values.next().is_none());
    match key {
        Some(key) => Ok(Some(key.to_owned())),
        None => {
            Err(problem::INVALID.because(format!("the header Idempotency-Key {IDEMPOTENCY_KEY_RULE}, and stand once")))
        }
    }
}

/// What headers and query say besides the body, by the names of the query; a header wins over a parameter.
///
/// # Errors
/// 422 where a value is no text.
pub fn plain_fields(headers: &HeaderMap, query: &Query) -> Result<Vec<(&'static str, String)>, Problem> {
    let mut fields = Vec::with_capacity(PLAIN_FIELDS.len());
    for (name, header) in PLAIN_FIELDS {
        if let Some(text) = from_header(headers, name, header)? {
            fields.push((name, text));
        } else if let Some(bytes) = query.bytes(name) {
            let text = String::from_utf8(bytes.to_vec());
            fields.push((name, text.map_err(|_| not_utf8(name, "the query parameter"))?));
        }
    }
    Ok(fields)
}

fn from_header(headers: &HeaderMap, name: &str, header: &str) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header).filter(|value| !(header == "priority" && is_http_priority(value))) else {
        return Ok(None);
    };
    plain::header_text(value.as_bytes()).map(Some).ok_or_else(|| not_utf8(name, "the header"))
}

/// Browsers and some proxies send HTTP's own `Priority: u=1, i` (RFC 9218), which says nothing about the notification.
fn is_http_priority(value: &HeaderValue) -> bool {
    value.as_bytes().starts_with(b"u=") || value.as_bytes().split(|b| *b == b',').any(|part| part.trim_ascii() == b"i")
}

fn not_utf8(name: &str, place: &str) -> Problem {
    problem::invalid_field(&format!("/{name}"), format!("{place} is neither UTF-8 nor an encoded word (RFC 2047)"))
}

/// A plain publish is the same only if its headers are too. Each part bears its length, so that no two requests run
/// together into the same bytes.
fn hash_plain(topic: Option<&str>, fields: &[(&str, String)], body: &[u8]) -> [u8; 32] {
    let mut whole = Vec::with_capacity(body.len() + 256);
    let mut part = |bytes: &[u8]| {
        whole.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        whole.extend_from_slice(bytes);
    };
    part(topic.unwrap_or_default().as_bytes());
    for (name, value) in fields {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(body);
    hash_body(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("a header's value");
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn fields(pairs: &[(&'static str, &str)], query: &str) -> Vec<(&'static str, String)> {
        plain_fields(&headers(pairs), &Query::parse(query)).expect("readable fields")
    }

    #[test]
    fn a_header_wins_over_a_parameter() {
        let fields = fields(&[("title", "磁盘"), ("sender", "=?UTF-8?Q?caf=C3=A9?=")], "title=no&to=user%3Aalice");
        assert_eq!(
            fields,
            [("to", "user:alice".to_owned()), ("title", "磁盘".to_owned()), ("sender", "café".to_owned())]
        );
    }

    #[test]
    fn a_headers_name_has_a_hyphen_where_a_parameters_has_an_underscore() {
        let fields = fields(&[("expires-in", "2h"), ("collapse", "disk")], "expires_in=1h&deliver_at=now&delay=");
        let text = |(name, text): (&'static str, &str)| (name, text.to_owned());
        assert_eq!(
            fields,
            [("collapse", "disk"), ("deliver_at", "now"), ("delay", ""), ("expires_in", "2h")].map(text)
        );
        assert_eq!(refuse_parameters(&Query::parse("expires-in=1h"), &["expires_in"]).map_err(|p| p.status), Err(422));
    }

    #[test]
    fn the_priority_of_http_is_not_the_notifications() {
        assert_eq!(fields(&[("priority", "u=1, i")], ""), []);
        assert_eq!(fields(&[("priority", "i")], "priority=high"), [("priority", "high".to_owned())]);
        assert_eq!(fields(&[("priority", "high")], ""), [("priority", "high".to_owned())]);
    }

    #[test]
    fn what_is_no_text_is_pointed_at() {
        let undecodable =
            plain_fields(&headers(&[("title", "=?utf-8?b?%%?=")]), &Query::default()).expect_err("no text");
        assert_eq!(undecodable.errors[0].pointer, "/title");
        assert!(plain_fields(&HeaderMap::new(), &Query::parse("sender=%ff")).is_err());
        assert_eq!(refuse_parameters(&Query::parse("dry_run=1"), &[]).map_err(|p| p.status), Err(422));
        assert_eq!(
            refuse_parameters(&Query::parse("Title=x"), &["title"]).map_err(|p| p.errors[0].pointer.clone()),
            Err("/Title".into())
        );
    }

    #[test]
    fn an_idempotency_key_is_one_printable_word() {
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
        assert_eq!(idempotency_key(&headers(&[("idempotency-key", "a-1")])), Ok(Some("a-1".into())));
        for bad in ["", "a b", "库", &"x".repeat(129)] {
            assert_eq!(idempotency_key(&headers(&[("idempotency-key", bad)])).map_err(|p| p.status), Err(422), "{bad}");
        }
    }

    #[test]
    fn the_form_is_told_by_the_type() {
        let form = |kind: &str| form(&headers(&[("content-type", kind)])).map_err(|p| p.status);
        assert_eq!(form("application/json; charset=UTF-8"), Ok(Form::One));
        assert_eq!(form("Application/X-NDJSON"), Ok(Form::Batch));
        assert_eq!(form("application/x-www-form-urlencoded"), Err(415));
        assert_eq!(form(""), Err(415));
    }
}
