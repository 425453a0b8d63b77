//! `/v1/templates`: texts with places for values, registered by services, published, tried.

use http::{Response, StatusCode};

use crate::broker::Registered;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::{answer, problem};
use crate::model::TemplateName;
use crate::wire::json::stored;
use crate::wire::problem::Problem;
use crate::wire::template::{PreviewedBody, TemplateBody, TemplatesBody, parse_preview, parse_template, parse_version};

/// Templates of a page where the caller names no number, and at most.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;

/// `PUT /v1/templates/{template}`.
pub async fn put(mut call: Call) -> Result<Response<Body>, Problem> {
    let name = call.template()?;
    let template = parse_template(&call.json_body().await?)?;
    let (info, registered) = call.broker().put_template(call.identity()?, &name, template).await?;
    let status = match registered {
        Registered::Now => StatusCode::CREATED,
        Registered::Before => StatusCode::OK,
    };
    Ok(answer::json(status, &TemplateBody::new(&info, None)))
}

/// `GET /v1/templates/{template}`.
pub async fn one(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["version"])?;
    let version = match call.query.text("version")? {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| problem::BAD_QUERY.because("`version` must be a number from 1"))?),
    };
    let (info, definition) = call.broker().template(call.identity()?, &call.template()?, version).await?;
    Ok(answer::json(StatusCode::OK, &TemplateBody::new(&info, stored(&definition))))
}

/// `GET /v1/templates`.
pub async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    call.query.only(&["after", "limit"])?;
    let after = call.query.after(|text| TemplateName::new(text).ok())?;
    let limit = call.query.limit(DEFAULT_PAGE, MAX_PAGE)?;
    let page = call.broker().templates(call.identity()?, after, limit).await?;
    let templates = page.items.iter().map(|info| TemplateBody::new(info, None)).collect();
    Ok(answer::json(StatusCode::OK, &TemplatesBody { templates, next: page.next.as_deref() }))
}

/// `DELETE /v1/templates/{template}`.
pub async fn delete(call: &Call) -> Result<Response<Body>, Problem> {
    call.broker().delete_template(call.identity()?, &call.template()?).await?;
    Ok(answer::nothing())
}

/// `POST /v1/templates/{template}/publish`.
pub async fn publish(mut call: Call) -> Result<Response<Body>, Problem> {
    let name = call.template()?;
    let version = parse_version(&call.optional_json_body().await?)?;
    let info = call.broker().publish_template(call.identity()?, &name, version).await?;
    Ok(answer::json(StatusCode::OK, &TemplateBody::new(&info, None)))
}

/// `POST /v1/templates/{template}/preview`.
pub async fn preview(mut call: Call) -> Result<Response<Body>, Problem> {
    let name = call.template()?;
    let body = parse_preview(&call.json_body().await?)?;
    let preview = call.broker().preview_template(call.identity()?, &name, body).await?;
    Ok(answer::json(StatusCode::OK, &PreviewedBody::from(&preview)))
}
