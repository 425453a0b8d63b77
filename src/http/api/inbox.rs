//! The caller's own inbox: pages, counts, one entry, marks.

use http::{Response, StatusCode};

use crate::broker::{InboxQuery, InboxState};
use crate::http::answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::query::{Query, bad};
use crate::wire::cursor;
use crate::wire::event::UnreadBody;
use crate::wire::inbox::{EntryBody, MarkedBody, PageBody, parse_mark};
use crate::wire::problem::Problem;

/// Entries of a page where the caller names no number, and at most.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;

/// `GET /v1/inbox`.
pub async fn page(call: &Call) -> Result<Response<Body>, Problem> {
    let page = call.broker().inbox(call.user()?, read_query(&call.query)?).await?;
    Ok(answer::json(StatusCode::OK, &PageBody::new(&page)))
}

/// `GET /v1/inbox/counts`.
pub async fn counts(call: &Call) -> Result<Response<Body>, Problem> {
    let (counts, as_of) = call.broker().counts(call.user()?).await?;
    Ok(answer::json(StatusCode::OK, &UnreadBody { counts: &counts, as_of }))
}

/// `GET /v1/inbox/{id}`.
pub async fn entry(call: &Call) -> Result<Response<Body>, Problem> {
    let entry = call.broker().entry(call.user()?, call.notification()?).await?;
    Ok(answer::json(StatusCode::OK, &EntryBody(&entry)))
}

/// `POST /v1/inbox/mark`.
pub async fn mark(mut call: Call) -> Result<Response<Body>, Problem> {
    let body = call.json_body().await?;
    call.change()?;
    let marked = call.broker().mark(call.user()?, parse_mark(&body)?).await?;
    Ok(answer::json(StatusCode::OK, &MarkedBody::new(&marked)))
}

fn read_query(query: &Query) -> Result<InboxQuery, Problem> {
    query.only(&["before", "limit", "state", "category"])?;
    let before = match query.text("before")? {
        None => None,
        Some(text) => Some(
            cursor::exact(text.as_bytes())
                .ok_or_else(|| bad("before", "is no cursor; send `next` of a page as it came"))?,
        ),
    };
    let limit = query.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let state = match query.text("state")? {
        None | Some("all") => InboxState::All,
        Some("unread") => InboxState::Unread,
        Some("archived") => InboxState::Archived,
        Some(_) => return Err(bad("state", "must be all, unread or archived")),
    };
    Ok(InboxQuery { before, limit, state, category: query.category()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for() {
        let query = read_query(&Query::parse("before=k7.5&limit=20&state=unread&category=loans")).expect("a query");
        assert_eq!(query.limit, 20);
        assert!(matches!(query.state, InboxState::Unread));
        assert_eq!(query.category.map(|c| c.to_string()).as_deref(), Some("loans"));
        assert_eq!(query.before.map(|c| c.to_string()).as_deref(), Some("k7.5"));
        let plain = read_query(&Query::parse("before=&category=")).expect("a query");
        assert!(plain.before.is_none() && plain.category.is_none() && plain.limit == DEFAULT_LIMIT);
    }

    #[test]
    fn bad_parameters_are_named() {
        for bad in
            ["before=now", "limit=0", "limit=101", "limit=x", "state=read", "category=a+b", "befor=k7.5", "limit=%ff"]
        {
            assert_eq!(read_query(&Query::parse(bad)).map_err(|p| p.code).err(), Some("bad-query"), "{bad}");
        }
    }
}
