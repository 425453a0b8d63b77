//! A request's query: names and values, percent-decoded once.

use percent_encoding::percent_decode_str;

use super::problem;
use crate::model::Category;
use crate::wire::problem::Problem;

/// Query parameters in the order they stand. Values are bytes, since a client may send anything.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Reads what stands behind the `?`, as forms and `URLSearchParams` write it: `+` is a space.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode_name(name), decode(value)))
                .collect(),
        )
    }

    /// A parameter's value. The last one counts, since libraries append theirs to what the address already holds.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// A parameter's value as text; an empty one is the same as none.
    ///
    /// # Errors
    /// 400 where it is no UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let Some(bytes) = self.bytes(name).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        std::str::from_utf8(bytes).map(Some).map_err(|_| bad(name, "is not UTF-8"))
    }

    /// The parameter `category`; an empty one is the same as none.
    ///
    /// # Errors
    /// 400 where it is no category.
    pub fn category(&self) -> Result<Option<Category>, Problem> {
        let category = self.text("category")?.map(Category::new).transpose();
        category.map_err(|e| bad("category", &format!("is no category: {e}")))
    }

    /// The parameter `limit`: how much of a listing one answer holds, 1 to `max`.
    ///
    /// # Errors
    /// 400 where it is no such number.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.text("limit")? else { return Ok(default) };
        let limit = text.parse().ok().filter(|limit| (1..=max).contains(limit));
        limit.ok_or_else(|| bad("limit", &format!("must be 1 to {max}")))
    }

    /// The parameter `after`: where a page begins, as `read` understands the `next` of the page before.
    ///
    /// # Errors
    /// 400 where it is none.
    pub fn after<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let after = self.text("after")?.map(read);
        after.map(|after| after.ok_or_else(|| bad("after", "is not the `next` of a page as it came"))).transpose()
    }

    /// Refuses parameters that nobody reads, so that a misspelt one is not ignored.
    ///
    /// # Errors
    /// 400 with the first one's name.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.unknown(known) {
            None => Ok(()),
            Some(name) => Err(bad(&name.escape_debug().to_string(), "is not a parameter known here")),
        }
    }

    /// The first parameter that is none of these.
    pub fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).find(|name| !known.contains(name))
    }
}

/// 400 about one parameter.
pub fn bad(name: &str, rule: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    problem::BAD_QUERY.because(format!("the query parameter `{name}` {rule}"))
}

fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

fn decode_name(text: &str) -> String {
    String::from_utf8_lossy(&decode(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_once() {
        let query = Query::parse("title=%E7%A3%81%E7%9B%98+full&to=user%3Aalice&x=%252B&flag&&=y");
        assert_eq!(query.text("title").ok().flatten(), Some("磁盘 full"));
        assert_eq!(query.text("to").ok().flatten(), Some("user:alice"));
        assert_eq!(query.text("x").ok().flatten(), Some("%2B"));
        assert_eq!(query.bytes("flag"), Some(&b""[..]));
        assert_eq!(query.text("flag"), Ok(None));
        assert_eq!(query.bytes("none"), None);
    }

    #[test]
    fn what_a_library_appended_wins() {
        assert_eq!(Query::parse("cursor=k.1&cursor=k.2").bytes("cursor"), Some(&b"k.2"[..]));
    }

    #[test]
    fn unknown_and_undecodable_parameters_are_refused() {
        assert!(Query::parse("a=1&b=2").only(&["a", "b"]).is_ok());
        let refused = Query::parse("a=1&dry_run=1").only(&["a"]).expect_err("unknown");
        assert!(refused.detail.contains("dry_run"), "{}", refused.detail);
        assert_eq!(Query::parse("a=%ff").text("a").map_err(|p| p.code), Err("bad-query"));
    }

    #[test]
    fn a_page_is_asked_for_by_limit_and_after() {
        let number = |text: &str| text.parse::<u8>().ok();
        let query = Query::parse("after=7&limit=1000");
        assert_eq!((query.limit(100, 1_000), query.after(number)), (Ok(1_000), Ok(Some(7))));
        let nothing = Query::parse("after=&limit=");
        assert_eq!((nothing.limit(100, 1_000), nothing.after(number)), (Ok(100), Ok(None)));
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=%ff"] {
            assert_eq!(Query::parse(bad).limit(100, 1_000).map_err(|p| p.code), Err("bad-query"), "{bad}");
        }
        assert_eq!(Query::parse("after=x").after(number).map_err(|p| p.code), Err("bad-query"));
    }
}
