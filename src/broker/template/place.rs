//! Where a value stands in a text, and so how it is escaped: as a line, as plain text, in HTML, in Markdown, in a link, in JSON.
//!
//! What stands between the tags is read letter by letter, as the reader's program will. **Invariant**: whichever blocks are
//! taken, a value stands in the place that it was escaped for: a block that ends elsewhere than it began is refused.

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
#[derive(Clone, Debug)]
pub(super) struct Place {
    form: Form,
    html: Html,
    in_string: bool,
    escaped: bool,
    /// What a link begins with.
    address: Address,
}

/// Where in HTML, as browsers cut it (HTML, 13.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Html {
    Text,
    /// Behind `<`.
    Less,
    /// Behind `</`.
    Slash,
    /// Behind `<!`, and a dash.
    Bang(String),
    /// Up to the next `>`: a document type, an instruction.
    Bogus,
    /// The end of what was read of it; all where that is short.
    Comment(String),
    /// The name of a tag, with `/` before it where it closes.
    Name(String),
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
        address: Address,
    },
    Unquoted {
        element: String,
    },
    /// Inside an element whose content is no markup, and the end of what was read of it.
    Raw(&'static str, String),
}

/// Attributes in which a text may stand.
const TEXTS: [&str; 3] = ["title", "alt", "aria-label"];
/// Attributes that are an address.
const LINKS: [&str; 2] = ["href", "src"];

impl Place {
    pub(super) const fn new(form: Form) -> Self {
        Self { form, html: Html::Text, in_string: false, escaped: false, address: Address(String::new()) }
    }

    /// Reads on.
    pub(super) fn read(&mut self, literal: &str) -> Result<(), Fault> {
        for c in literal.chars() {
            match self.form {
                Form::Json => match c {
                    _ if self.escaped => self.escaped = false,
                    '\\' if self.in_string => self.escaped = true,
                    '"' => self.in_string = !self.in_string,
                    _ => {}
                },
                // It is dropped from what comes out (`escape::plain`), so it parts nothing.
                Form::Html if c.is_control() && !matches!(c, '\n' | '\t') => {}
                Form::Html => {
                    let now = std::mem::replace(&mut self.html, Html::Text);
                    self.html = step(now, c)?;
                }
                Form::Link => self.address.read(c),
                Form::Line | Form::Plain | Form::Markdown => {}
            }
        }
        Ok(())
    }

    /// The escape of a value that stands here.
    pub(super) fn escape(&mut self, kind: Kind<'_>) -> Result<&'static str, Fault> {
        let is_link = matches!(kind, Kind::Link);
        match self.form {
            Form::Line => Ok("e_line"),
            Form::Plain => Ok("e_plain"),
            Form::Markdown => Ok(if is_link { "e_md_url" } else { "e_md" }),
            Form::Json if self.escaped => Err(Fault::new("a value can't stand behind a backslash")),
            Form::Json => Ok(if self.in_string { "e_json_part" } else { "e_json" }),
            Form::Link => self.address.value(kind, "e_url"),
            Form::Html => match &mut self.html {
                Html::Text => Ok("e_html"),
                Html::Raw("title", end) => {
                    end.clear();
                    Ok("e_html")
                }
                Html::Quoted { attribute, .. } if TEXTS.contains(&attribute.as_str()) => Ok("e_html"),
                Html::Quoted { attribute, address, .. } if LINKS.contains(&attribute.as_str()) => {
                    address.value(kind, "e_html")
                }
                _ => Err(Fault::new(
                    "a value can't stand here: in HTML it stands in text, in a quoted title, alt or aria-label, or in a quoted href or src",
                )),
            },
        }
    }

    /// Where one is behind a block that was read up to here, or up to there.
    ///
    /// # Errors
    /// [`Fault`] where these are different places: what stands behind it would be in one or the other.
    pub(super) fn or(mut self, other: Self) -> Result<Self, Fault> {
        let apart = || {
            Err(Fault::new(
                "a block ends elsewhere than it began or than its other branch: tags, quotes and strings are opened and closed in the same one",
            ))
        };
        if (self.in_string, self.escaped) != (other.in_string, other.escaped) {
            return apart();
        }
        self.address = self.address.or(&other.address);
        self.html = match (self.html, other.html) {
            (here, there) if here == there => here,
            (
                Html::Quoted { element, attribute, quote, address },
                Html::Quoted { attribute: same, quote: too, address: other, .. },
            ) if (&attribute, quote) == (&same, too) => {
                Html::Quoted { element, attribute, quote, address: address.or(&other) }
            }
            (Html::Comment(end), Html::Comment(other))
                if ![&end, &other].iter().any(|end| end.is_empty() || end.contains('-')) =>
            {
                Html::Comment("    ".to_owned())
            }
            (Html::Raw(element, end), Html::Raw(same, other))
                if element == same && !end.contains('<') && !other.contains('<') =>
            {
                Html::Raw(element, String::new())
            }
            _ => return apart(),
        };
        Ok(self)
    }

    /// Where one is behind a loop that began here and whose body was read up to there.
    ///
    /// # Errors
    /// [`Fault`] where the body's next round would begin in another place.
    pub(super) fn repeated(self, other: Self) -> Result<Self, Fault> {
        let beginning = |place: &Self| match &place.html {
            Html::Quoted { attribute, address, .. } if LINKS.contains(&attribute.as_str()) => address.clone(),
            _ => place.address.clone(),
        };
        let (begun, ended) = (beginning(&self), beginning(&other));
        if begun != ended && begun.site_ends().is_err() {
            return Err(Fault::new("a loop can't stand where an address begins"));
        }
        self.or(other)
    }
}

fn step(now: Html, c: char) -> Result<Html, Fault> {
    Ok(match now {
        Html::Text if c == '<' => Html::Less,
        Html::Text => Html::Text,
        Html::Less => match c {
            '!' => Html::Bang(String::new()),
            '/' => Html::Slash,
            '?' => Html::Bogus,
            '<' => Html::Less,
            c if c.is_ascii_alphabetic() => Html::Name(c.to_ascii_lowercase().to_string()),
            _ => Html::Text,
        },
        Html::Slash => match c {
            '>' => Html::Text,
            c if c.is_ascii_alphabetic() => Html::Name(format!("/{}", c.to_ascii_lowercase())),
            _ => Html::Bogus,
        },
        Html::Bang(dash) => match (c, dash.is_empty()) {
            ('-', true) => Html::Bang("-".to_owned()),
            ('-', false) => Html::Comment(String::new()),
            ('>', _) => Html::Text,
            _ => Html::Bogus,
        },
        Html::Bogus if c == '>' => Html::Text,
        Html::Bogus => Html::Bogus,
        Html::Comment(mut end) => {
            end.push(c);
            let ends = matches!(end.as_str(), ">" | "->") || end.ends_with("-->") || end.ends_with("--!>");
            if ends { Html::Text } else { Html::Comment(tail(&end, 4)) }
        }
        Html::Name(mut name) => match c {
            '>' => opened(&name)?,
            c if c.is_ascii_whitespace() || c == '/' => Html::Inside { element: name, attribute: String::new() },
            c => {
                if name.len() < 16 {
                    name.push(c.to_ascii_lowercase());
                }
                Html::Name(name)
            }
        },
        now @ (Html::Inside { .. } | Html::Equals { .. } | Html::Quoted { .. } | Html::Unquoted { .. }) => {
            inside(now, c)?
        }
        Html::Raw(element, mut end) => {
            let closes = end.strip_prefix("</") == Some(element);
            match c {
                '>' if closes => Html::Text,
                c if closes && (c.is_ascii_whitespace() || c == '/') => {
                    Html::Inside { element: format!("/{element}"), attribute: String::new() }
                }
                c => {
                    end.push(c.to_ascii_lowercase());
                    Html::Raw(element, tail(&end, element.len() + 2))
                }
            }
        }
    })
}

/// Reads on behind a tag's name.
fn inside(now: Html, c: char) -> Result<Html, Fault> {
    Ok(match now {
        Html::Inside { element, mut attribute } => match c {
            '>' => opened(&element)?,
            '=' if attribute.is_empty() => return Err(Fault::new("an attribute's `=` stands right behind its name")),
            '=' if attribute.starts_with("on") => {
                return Err(Fault(format!("`{attribute}` holds a script, which no mail may")));
            }
            '=' => Html::Equals { element, attribute },
            c if c.is_ascii_whitespace() || c == '/' => Html::Inside { element, attribute: String::new() },
            c => {
                if attribute.len() < 32 {
                    attribute.push(c.to_ascii_lowercase());
                }
                Html::Inside { element, attribute }
            }
        },
        Html::Equals { element, attribute } => match c {
            '"' | '\'' => Html::Quoted { element, attribute, quote: c, address: Address(String::new()) },
            '>' => opened(&element)?,
            c if c.is_ascii_whitespace() => Html::Equals { element, attribute },
            _ => Html::Unquoted { element },
        },
        Html::Quoted { element, attribute, quote, mut address } => {
            if c == quote {
                Html::Inside { element, attribute: String::new() }
            } else {
                address.read(c);
                Html::Quoted { element, attribute, quote, address }
            }
        }
        Html::Unquoted { element } => match c {
            '>' => opened(&element)?,
            c if c.is_ascii_whitespace() => Html::Inside { element, attribute: String::new() },
            _ => Html::Unquoted { element },
        },
        elsewhere => elsewhere,
    })
}

/// Where one is behind the `>` of a tag.
fn opened(element: &str) -> Result<Html, Fault> {
    match element {
        "script" | "iframe" | "object" | "embed" | "textarea" | "xmp" | "noembed" | "noframes" | "noscript"
        | "plaintext" | "svg" | "math" => Err(Fault(format!("`<{element}>` has no place in a mail"))),
        "style" => Ok(Html::Raw("style", String::new())),
        "title" => Ok(Html::Raw("title", String::new())),
        _ => Ok(Html::Text),
    }
}

/// The last `n` letters.
fn tail(text: &str, n: usize) -> String {
    let count = text.chars().count();
    text.chars().skip(count.saturating_sub(n)).collect()
}

/// What an address begins with, as far as it says to whom it leads: without white space, with [`VALUE`] for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address(String);

/// A value among the text of an address.
const VALUE: char = '\u{fffc}';
/// Bytes of an address's beginning that are kept; a site that is longer never ends.
const MAX_SITE_BYTES: usize = 512;

impl Address {
    fn read(&mut self, c: char) {
        // Browsers leave them out, so `/ /host` would be another site.
        if !c.is_control() && !c.is_whitespace() && self.0.len() < MAX_SITE_BYTES {
            self.0.push(c.to_ascii_lowercase());
        }
    }

    /// The escape of a value that stands here; `whole` is that of an address.
    fn value(&mut self, kind: Kind<'_>, whole: &'static str) -> Result<&'static str, Fault> {
        let escape = match (self.0.is_empty(), kind) {
            (true, Kind::Link) => whole,
            (true, _) => {
                return Err(Fault::new(
                    "an address begins with a `url`, or with text of the template: another value could be a script",
                ));
            }
            (false, _) => self.site_ends()?,
        };
        self.read(VALUE);
        Ok(escape)
    }

    /// The escape of a value here, behind the end of the site.
    ///
    /// # Errors
    /// [`Fault`] where a value could make it another site.
    fn site_ends(&self) -> Result<&'static str, Fault> {
        let text = self.0.as_str();
        let slash = |c: char| matches!(c, '/' | '\\');
        let end = |text: &str| text.find(|c: char| slash(c) || matches!(c, '?' | '#'));
        let first = end(text).unwrap_or(text.len());
        let path = match text[..first].split_once(':') {
            Some(("mailto" | "tel", _)) => return Ok("e_url_part"),
            Some(("http" | "https", "")) => text[first..]
                .strip_prefix("//")
                .and_then(|host| end(host).filter(|end| *end > 0).map(|end| host.split_at(end))),
            Some(_) => None,
            None => Some(text.split_at(first)),
        };
        let refused = || {
            Fault::new(
                "a value in an address stands behind the `/`, `?` or `#` that ends its site, which is http, https, mailto or a path: it could make it another site",
            )
        };
        // A sign may be written `&#47;` too, so none is taken before the site ends.
        let (site, path) = path.filter(|(site, path)| !site.contains('&') && !path.is_empty()).ok_or_else(refused)?;
        let mut signs = path.chars();
        match (signs.next().is_some_and(slash), signs.next()) {
            (true, Some(c)) if (slash(c) || c == '&') && (site.is_empty() || site.contains(VALUE)) => Err(refused()),
            // Two slashes with an empty value between them would begin a site.
            (true, None) => Ok("e_url_first"),
            _ => Ok("e_url_part"),
        }
    }

    /// Behind one or the other.
    fn or(self, other: &Self) -> Self {
        if self == *other {
            return self;
        }
        let ends = |address: &Self| matches!(address.site_ends(), Ok("e_url_part"));
        // `&` ends no site, so no value will be taken here.
        Self(if ends(&self) && ends(other) { format!("/{VALUE}") } else { "&".to_owned() })
    }
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
        assert_eq!(html("<title>", Kind::Text), Ok("e_html"));
        assert_eq!(html("<!DOCTYPE html PUBLIC \"-//W3C//DTD\"> 1 < 2 ", Kind::Text), Ok("e_html"));
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
            ("<script/x>", Kind::Text),
            ("<\u{0}script>", Kind::Text),
            ("<!--><script>-->", Kind::Text),
            ("<!--a--!><style>-->", Kind::Text),
            ("<style></style ><script></style>", Kind::Text),
            ("<style/x>", Kind::Text),
            ("<?x a=\"><a ", Kind::Text),
            ("<p =x=\">", Kind::Text),
            ("<svg><style>", Kind::Text),
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

    #[test]
    fn no_value_makes_an_address_lead_to_another_site() {
        for (before, escape) in [
            ("/", "e_url_first"),
            ("/a", "e_url_part"),
            ("https://a.example/", "e_url_first"),
            ("https://a.example?", "e_url_part"),
            ("mailto:", "e_url_part"),
            ("?a=", "e_url_part"),
            ("loans/", "e_url_first"),
        ] {
            assert_eq!(at(Form::Link, before, Kind::Text), Ok(escape), "{before}");
        }
        for before in [
            "https://",
            "https:",
            "https://a.example",
            "//",
            "/ /",
            "/\\",
            "javascript:",
            "javascript:/",
            "a",
            "&#47;/",
            "/&#47;",
        ] {
            assert!(at(Form::Link, before, Kind::Text).is_err(), "{before}");
        }
        let mut place = Place::new(Form::Link);
        let mut next = |before: &str, kind| place.read(before).and_then(|()| place.escape(kind)).ok();
        assert_eq!(next("", Kind::Link), Some("e_url"));
        assert_eq!(next("", Kind::Text), None);
        assert_eq!(next("?a=", Kind::Text), Some("e_url_part"));
        assert_eq!(next("/", Kind::Text), Some("e_url_part"));
    }
}
