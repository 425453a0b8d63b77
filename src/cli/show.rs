//! Answers as people and scripts read them: fields below each other, and lists of any length, page by page.
//!
//! With `--json` a list is one object a line, as the server gave it, so that neither side holds all of it.

use std::io::Write as _;

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::client::{Ask, Client, read};
use super::{Output, segment};

/// A page of any list.
#[derive(Deserialize)]
struct Page {
    #[serde(
        alias = "topics",
        alias = "followers",
        alias = "recipients",
        alias = "scheduled",
        alias = "users",
        alias = "templates"
    )]
    items: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// Where a list is, and how many of it are asked for at a time.
pub(super) struct List {
    pub(super) path: String,
    pub(super) page: u32,
}

impl List {
    /// Writes the whole list to standard output; `line` is how people read one of it. How many there were.
    ///
    /// # Errors
    /// Those of the client, or that standard output can't be written.
    pub(super) async fn write<T: DeserializeOwned>(
        &self,
        client: &Client,
        output: Output,
        line: impl Fn(&T) -> String,
    ) -> anyhow::Result<u64> {
        let (mut count, mut after) = (0, None);
        loop {
            let page: Page = client.read(&Ask::get(self.page_after(after.as_deref()))).await?;
            let mut text = String::new();
            for item in &page.items {
                match output {
                    Output::Json => text.push_str(item.get()),
                    Output::People => text.push_str(&line(&read(item.get().as_bytes())?)),
                }
                text.push('\n');
            }
            count += page.items.len() as u64;
            std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(count),
            }
        }
    }

    fn page_after(&self, after: Option<&str>) -> String {
        let after = after.map(|after| format!("&after={}", segment(after))).unwrap_or_default();
        format!("{}?limit={}{after}", self.path, self.page)
    }
}

/// Names and values below each other, the values in a column; a line for each that has one.
pub(super) fn fields(fields: &[(&str, Option<String>)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |(name, value): &(&str, Option<String>)| Some(format!("{name:width$}  {}", value.as_ref()?));
    fields.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// `1 entry`, `2 entries`.
pub(super) fn number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_a_column_and_those_without_a_value_are_left_out() {
        let shown = fields(&[("id", Some("7".into())), ("expires", None), ("category", Some("loans".into()))]);
        assert_eq!(shown, "id        7\ncategory  loans");
    }

    #[test]
    fn a_page_is_asked_for_by_the_last_name_of_the_one_before() {
        let list = List { path: "/v1/topics".into(), page: 50 };
        assert_eq!(list.page_after(None), "/v1/topics?limit=50");
        assert_eq!(list.page_after(Some("a/b &c")), "/v1/topics?limit=50&after=a%2Fb%20%26c");
        let page: Page = read(br#"{"scheduled":[{"n": 1.0}],"next":"x"}"#).expect("a page");
        assert_eq!((page.items[0].get(), page.next.as_deref()), (r#"{"n": 1.0}"#, Some("x")));
    }
}
