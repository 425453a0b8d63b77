//! Pages and static files, compiled in; and the pages that explain problems, made from their table.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use include_dir::{Dir, include_dir};

use super::answer;
use super::body::Body;
use super::call::Call;
use super::problem::{self, KINDS, Kind};
use crate::wire::problem::Problem;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/static");

/// What our pages may do: load and call their own origin, show pictures of publishers, and nothing else.
pub(super) const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);
/// Names bear no version, so a browser asks each time whether it still has the right bytes.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

struct Asset {
    bytes: &'static [u8],
    content_type: HeaderValue,
    etag: HeaderValue,
}

static ASSETS: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let files = FILES.files().filter_map(|file| Some((file.path().to_str()?, file.contents())));
    files.map(|(name, bytes)| (name, Asset { bytes, content_type: content_type(name), etag: etag(bytes) })).collect()
});

fn content_type(name: &str) -> HeaderValue {
    HeaderValue::from_static(match extension(name) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        // Types, for editors and people; no browser loads them. By its suffix alone it would be taken for a film.
        "ts" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "yaml" => "application/yaml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    })
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

fn etag(bytes: &[u8]) -> HeaderValue {
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut text = String::from("\"");
    for byte in &hash.as_ref()[..12] {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    HeaderValue::try_from(text).expect("hexadecimal digits are ASCII")
}

/// One of our pages.
///
/// # Errors
/// 404 where it is not compiled in.
pub fn page(call: &Call, name: &str) -> Result<Response<Body>, Problem> {
    let mut response = serve(call.headers(), name)?;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    Ok(response)
}

/// A file that pages load. Pages themselves have their own paths, which their relative addresses rely on.
///
/// # Errors
/// 404.
pub fn file(call: &Call, name: &str) -> Result<Response<Body>, Problem> {
    if extension(name) == "html" {
        return Err(problem::nothing_here());
    }
    serve(call.headers(), name)
}

fn serve(headers: &HeaderMap, name: &str) -> Result<Response<Body>, Problem> {
    let asset = ASSETS.get(name).ok_or_else(problem::nothing_here)?;
    let mut response = if is_known(headers, &asset.etag) {
        let mut response = answer::nothing();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        answer::typed(StatusCode::OK, asset.content_type.clone(), asset.bytes)
    };
    response.headers_mut().insert(ETAG, asset.etag.clone());
    response.headers_mut().insert(CACHE_CONTROL, REVALIDATE);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags =
        headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    // A proxy that compresses makes our tag a weak one; for a GET the comparison is weak anyway (RFC 9110, 13.1.2).
    tags.map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

/// The page that explains a problem.
///
/// # Errors
/// 404 for a code that does not exist.
pub fn problem_page(code: &str) -> Result<Response<Body>, Problem> {
    let kind = KINDS.iter().find(|kind| kind.code == code).ok_or_else(problem::nothing_here)?;
    let mut response = answer::typed(StatusCode::OK, answer::HTML, explain(kind));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    response.headers_mut().insert(CACHE_CONTROL, REVALIDATE);
    Ok(response)
}

fn explain(kind: &Kind) -> String {
    let Kind { code, status, title, explanation } = kind;
    let (title, explanation) = (escape(title), escape(explanation));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} · Tidings</title>\n\
         <link rel=\"icon\" href=\"../static/favicon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"../static/tidings.css\">\n</head>\n<body>\n\
         <main class=\"door\" id=\"main\">\n<div class=\"card door-card\">\n<h1>{title}</h1>\n\
         <p class=\"lead\">{explanation}</p>\n<p>Status {status}, code <code>{code}</code></p>\n</div>\n</main>\n</body>\n</html>\n"
    )
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tag: &str) -> HeaderMap {
        HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::try_from(tag).expect("a tag"))])
    }

    #[test]
    fn a_browser_that_has_the_file_gets_304() {
        let whole = serve(&HeaderMap::new(), "inbox.html").expect("the page is compiled in");
        let tag = whole.headers()[ETAG].to_str().expect("ASCII").to_owned();
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".into()] {
            let again = serve(&asked(&known), "inbox.html").expect("the page is compiled in");
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(again.headers()[ETAG], tag);
        }
        assert_eq!(serve(&asked("\"x\""), "inbox.html").map(|r| r.status()), Ok(StatusCode::OK));
    }

    #[test]
    fn every_file_has_a_type() {
        for name in ASSETS.keys() {
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn every_problem_has_its_page() {
        for kind in KINDS {
            assert!(problem_page(kind.code).is_ok(), "{}", kind.code);
        }
        assert_eq!(problem_page("nonsense").map_err(|p| p.status).err(), Some(404));
        let page = explain(&Kind { code: "x", status: 400, title: "a < b", explanation: "\"c\" & d" });
        assert!(page.contains("a &lt; b") && page.contains("&quot;c&quot; &amp; d"));
    }
}
