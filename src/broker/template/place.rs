//! Where a value stands in a text, and so how it is escaped: as a line, as plain text, in HTML, in Markdown, in a link, in JSON.
//!
//! What stands between the tags is read letter by letter, as if every block were taken. That is exact for texts whose blocks
//! are whole in themselves, and errs to the side of refusing for others: the finished text is looked at again.

use super::scan::{Fault, Kind};

/// What a text becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One line: a title, a subject.
    Line,
    /// Text of several lines that nobody reads as markup.
    Plain,
    Html,
    /// As DingTalk reads it.
    Markdown,
    Link,
    Json,
}

/// How far a text was read.
pub(super) struct Place {
    form: Form,
    html: Html,
    in_string: bool,
    escaped: bool,
    /// Whether anything came before.
    begun: bool,
}

/// Where in HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Html {
    Text,
    /// The name of a tag.
    Open(String),
    /// Between a tag's attributes, or in the name of one.
    Inside {
        element: String,
        attribute: String,
    },
    /// Behind `=`.
    Equals {
        element: String,
        attribute: String,
    },
    Quoted {
        element: String,
        attribute: String,
        quote: char,
        begun: bool,
    },
    Unquoted {
        element: String,
    },
    Comment(String),
    /// Inside `<style>`, up to its end.
    Style(String),
}

/// Attributes in which a text may stand.
const TEXTS: [&str; 3] = ["title", "alt", "aria-label"];
/// Attributes that are an address.
const LINKS: [&str; 2] = ["href", "src"];

impl Place {
    pub(super) const fn new(form: Form) -> Self {
        Self { form, html: Html::Text, in_string: false, escaped: false, begun: false }
    }

    /// Reads on.
    pub(super) fn read(&mut self, literal: &str) -> Result<(), Fault> {
        self.begun |= !literal.is_empty();
        match self.form {
            Form::Json => {
                for c in literal.chars() {
                    match c {
                        _ if self.escaped => self.escaped = false,
                        '\\' if self.in_string => self.escaped = true,
                        '"' => self.in_string = !self.in_string,
                        _ => {}
                    }
                }
            }
            Form::Html => {
                for c in literal.chars() {
                    let now = std::mem::replace(&mut self.html, Html::Text);
                    self.html = step(now, c)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The escape of a value that stands here.
    pub(super) fn escape(&mut self, kind: Kind<'_>) -> Result<&'static str, Fault> {
        let first = !std::mem::replace(&mut self.begun, true);
        let is_link = matches!(kind, Kind::Link);
        match self.form {
            Form::Line => Ok("e_line"),
            Form::Plain => Ok("e_plain"),
            Form::Markdown => Ok(if is_link { "e_md_url" } else { "e_md" }),
            Form::Json if self.escaped => Err(Fault::new("a value can't stand behind a backslash")),
            Form::Json => Ok(if self.in_string { "e_json_part" } else { "e_json" }),
            Form::Link if first && is_link => Ok("e_url"),
            Form::Link if first => Err(Fault::new("a link begins with a `url`, or with text of the template")),
            Form::Link => Ok("e_url_part"),
            Form::Html => match &mut self.html {
                Html::Text => Ok("e_html"),
                Html::Quoted { attribute, .. } if TEXTS.contains(&attribute.as_str()) => Ok("e_html"),
                Html::Quoted { attribute, begun, .. } if LINKS.contains(&attribute.as_str()) => {
                    match (std::mem::replace(begun, true), is_link) {
                        (false, true) => Ok("e_html"),
                        (false, false) => Err(Fault::new(
                            "an address begins with a `url`, or with text of the template: another value could be a script",
                        )),
                        (true, _) => Ok("e_url_part"),
                    }
                }
                _ => Err(Fault::new(
                    "a value can't stand here: in HTML it stands in text, in a quoted title, alt or aria-label, or in a quoted href or src",
                )),
            },
        }
    }
}

fn step(now: Html, c: char) -> Result<Html, Fault> {
    Ok(match now {
        Html::Text if c == '<' => Html::Open(String::new()),
        Html::Text => Html::Text,
        Html::Open(mut element) => match c {
            '-' if element == "!-" => Html::Comment(String::new()),
            '>' => opened(&element)?,
            c if c.is_whitespace() => Html::Inside { element, attribute: String::new() },
            c => {
                if element.len() < 16 {
                    element.push(c.to_ascii_lowercase());
                }
                Html::Open(element)
            }
        },
        Html::Inside { element, mut attribute } => match c {
            '>' => opened(&element)?,
            '=' => Html::Equals { element, attribute },
            c if c.is_whitespace() || c == '/' => Html::Inside { element, attribute: String::new() },
            c => {
                if attribute.len() < 32 {
                    attribute.push(c.to_ascii_lowercase());
                }
                Html::Inside { element, attribute }
            }
        },
        Html::Equals { element, attribute } => match c {
            '"' | '\'' => {
                if attribute.starts_with("on") {
                    return Err(Fault(format!("`{attribute}` holds a script, which no mail may")));
                }
                Html::Quoted { element, attribute, quote: c, begun: false }
            }
            '>' => opened(&element)?,
            c if c.is_whitespace() => Html::Equals { element, attribute },
            _ => Html::Unquoted { element },
        },
        Html::Quoted { element, attribute, quote, begun } => {
            if c == quote {
                Html::Inside { element, attribute: String::new() }
            } else {
                Html::Quoted { element, attribute, quote, begun: begun || !c.is_whitespace() }
            }
        }
        Html::Unquoted { element } => match c {
            '>' => opened(&element)?,
            c if c.is_whitespace() => Html::Inside { element, attribute: String::new() },
            _ => Html::Unquoted { element },
        },
        Html::Comment(mut end) => {
            end.push(c);
            if end.ends_with("-->") { Html::Text } else { Html::Comment(tail(&end, 2)) }
        }
        Html::Style(mut end) => {
            end.push(c.to_ascii_lowercase());
            if end.ends_with("</style>") { Html::Text } else { Html::Style(tail(&end, 7)) }
        }
    })
}

/// Where one is behind the `>` of a tag.
fn opened(element: &str) -> Result<Html, Fault> {
    match element.trim_end_matches('/') {
        "script" | "iframe" | "object" | "embed" => Err(Fault(format!("`<{element}>` has no place in a mail"))),
        "style" => Ok(Html::Style(String::new())),
        _ => Ok(Html::Text),
    }
}

/// The last `n` letters.
fn tail(text: &str, n: usize) -> String {
    let count = text.chars().count();
    text.chars().skip(count.saturating_sub(n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(form: Form, before: &str, kind: Kind<'_>) -> Result<&'static str, String> {
        let mut place = Place::new(form);
        place.read(before).and_then(|()| place.escape(kind)).map_err(|Fault(what)| what)
    }

    #[test]
    fn html_is_escaped_by_where_it_stands() {
        let html = |before: &str, kind| at(Form::Html, before, kind);
        assert_eq!(html("<p class=\"a>b\">", Kind::Text), Ok("e_html"));
        assert_eq!(html("<a href=\"", Kind::Link), Ok("e_html"));
        assert_eq!(html("<a title='x ", Kind::Text), Ok("e_html"));
        assert_eq!(html("<a href=\"https://a.example/?q=", Kind::Text), Ok("e_url_part"));
        assert_eq!(html("<!-- <a href= --> ", Kind::Text), Ok("e_html"));
        assert_eq!(html("<style>p{}</style>", Kind::Text), Ok("e_html"));
        for (before, kind) in [
            ("<a href=\"", Kind::Text),
            ("<a href=", Kind::Link),
            ("<a ", Kind::Text),
            ("<", Kind::Text),
            ("<p style=\"", Kind::Text),
            ("<style>", Kind::Text),
            ("<!-- ", Kind::Text),
            ("<a title=\"a>\" href=\"", Kind::Text),
            ("<p data-x='", Kind::Text),
            ("<p onclick=\"", Kind::Link),
            ("<script>", Kind::Text),
            ("<SCRIPT src=x>", Kind::Text),
        ] {
            assert!(html(before, kind).is_err(), "{before}");
        }
    }

    #[test]
    fn json_and_links_are_escaped_by_where_they_stand() {
        assert_eq!(at(Form::Json, "{\"a\":", Kind::Text), Ok("e_json"));
        assert_eq!(at(Form::Json, "{\"a\":\"x\\\" ", Kind::Text), Ok("e_json_part"));
        assert!(at(Form::Json, "{\"a\":\"\\", Kind::Text).is_err());
        assert_eq!(at(Form::Link, "", Kind::Link), Ok("e_url"));
        assert!(at(Form::Link, "", Kind::Text).is_err());
        assert_eq!(at(Form::Link, "/loans/", Kind::Text), Ok("e_url_part"));
        assert_eq!(at(Form::Markdown, "[x](", Kind::Link), Ok("e_md_url"));
    }
}
