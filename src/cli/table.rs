//! Tables of people as spreadsheets write them (CSV, RFC 4180), line by line: each becomes the JSON that the server takes.
//!
//! **Invariant**: no field spans lines, so that one stray quote costs one line and never those behind it.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::model::{About, Medium};

/// Columns of a table at most.
const MAX_COLUMNS: usize = 256;
/// Columns that hold what they are named for.
const FIELDS: [&str; 6] = ["user", "name", "email", "locale", "time_zone", "dingtalk"];

/// Why a line, or the head of a table, can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a quote is not closed; a field can't span lines")]
    OpenQuote,
    #[error("text stands behind a closing quote")]
    BehindQuote,
    #[error("a quote stands inside a field that is not quoted")]
    StrayQuote,
    #[error("has {found} fields where the first line names {expected}")]
    Width { expected: usize, found: usize },
    #[error(
        "the column `{0}` is not known; there are user, name, email, locale, time_zone, dingtalk, and <category>/<medium> such as loans/email or */email"
    )]
    Column(String),
    #[error("the column `{0}` stands twice")]
    Twice(String),
    #[error("the first line names the columns; `user` is not among them")]
    NoUser,
    #[error("the first line names more than {MAX_COLUMNS} columns")]
    Wide,
    #[error("{column}: `{found}` is neither yes nor no")]
    Wish { column: String, found: String },
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Field(&'static str),
    /// Whether a medium is wanted for a category.
    Wish(About, Medium),
}

/// The columns of a table, as its first line names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns(Vec<Column>);

impl Columns {
    /// Reads the first line.
    pub(super) fn parse(line: &str) -> Result<Self, Fault> {
        // Spreadsheets put a mark before the first name.
        let names = fields(line.strip_prefix('\u{feff}').unwrap_or(line))?;
        if names.len() > MAX_COLUMNS {
            return Err(Fault::Wide);
        }
        let mut known = HashSet::new();
        let mut columns = Vec::with_capacity(names.len());
        for name in &names {
            let name = name.trim();
            if !known.insert(name.to_owned()) {
                return Err(Fault::Twice(shown(name)));
            }
            columns.push(Column::parse(name).ok_or_else(|| Fault::Column(shown(name)))?);
        }
        if columns.contains(&Column::Field("user")) { Ok(Self(columns)) } else { Err(Fault::NoUser) }
    }

    /// A line as JSON. An empty field clears what it stands for.
    pub(super) fn read(&self, line: &str) -> Result<String, Fault> {
        let found = fields(line)?;
        if found.len() != self.0.len() {
            return Err(Fault::Width { expected: self.0.len(), found: found.len() });
        }
        let mut object = Map::new();
        let mut preferences: Map<String, Value> = Map::new();
        for (column, text) in self.0.iter().zip(found) {
            let text = text.trim();
            match column {
                Column::Field(name) if text.is_empty() => object.insert((*name).to_owned(), Value::Null),
                Column::Field(name) => object.insert((*name).to_owned(), text.into()),
                Column::Wish(about, medium) => {
                    let wish = wish(text).ok_or_else(|| Fault::Wish {
                        column: format!("{}/{}", about.as_str(), medium.as_str()),
                        found: shown(text),
                    })?;
                    let media = preferences.entry(about.as_str()).or_insert_with(|| Map::new().into());
                    media.as_object_mut().and_then(|media| media.insert(medium.as_str().to_owned(), wish))
                }
            };
        }
        if !preferences.is_empty() {
            object.insert("preferences".to_owned(), preferences.into());
        }
        Ok(Value::from(object).to_string())
    }
}

impl Column {
    fn parse(name: &str) -> Option<Self> {
        if let Some(field) = FIELDS.into_iter().find(|field| *field == name) {
            return Some(Self::Field(field));
        }
        let (about, medium) = name.split_once('/')?;
        Some(Self::Wish(About::parse(about)?, Medium::parse(medium)?))
    }
}

fn wish(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "" => Some(Value::Null),
        "yes" | "true" | "on" | "1" => Some(true.into()),
        "no" | "false" | "off" | "0" => Some(false.into()),
        _ => None,
    }
}

/// Characters of what stood in a table that a message repeats.
const MAX_SHOWN: usize = 40;

/// What stood there, short and on one line.
fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The fields of one line.
fn fields(line: &str) -> Result<Vec<String>, Fault> {
    let mut found = Vec::new();
    let mut rest = line;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, behind) = rest.split_at(end);
                if field.contains('"') {
                    return Err(Fault::StrayQuote);
                }
                (field.to_owned(), behind)
            }
        };
        found.push(field);
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(found),
            None => return Err(Fault::BehindQuote),
        }
    }
}

/// What stands up to the closing quote, and what behind it. A doubled quote is one.
fn unquoted(text: &str) -> Result<(String, &str), Fault> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"').ok_or(Fault::OpenQuote)?;
        field.push_str(before);
        match behind.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_as_spreadsheets_write_them() {
        let cut = |line: &str| fields(line);
        let texts = |texts: &[&str]| Ok(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(cut("a,b,,c"), texts(&["a", "b", "", "c"]));
        assert_eq!(cut(r#""a,b","say ""hi""","#), texts(&["a,b", r#"say "hi""#, ""]));
        assert_eq!(cut(""), texts(&[""]));
        assert_eq!(cut(r#""a"b"#), Err(Fault::BehindQuote));
        assert_eq!(cut(r#"a"b"#), Err(Fault::StrayQuote));
        assert_eq!(cut(r#""a"#), Err(Fault::OpenQuote));
    }

    #[test]
    fn a_line_becomes_what_the_server_takes() {
        let columns = Columns::parse("\u{feff}user, email,locale,loans/email,*/dingtalk").expect("columns");
        assert_eq!(
            columns.read("alice,a@b.example,,no,").as_deref(),
            Ok(
                r#"{"email":"a@b.example","locale":null,"preferences":{"*":{"dingtalk":null},"loans":{"email":false}},"user":"alice"}"#
            )
        );
        assert_eq!(columns.read("alice,x"), Err(Fault::Width { expected: 5, found: 2 }));
        assert_eq!(
            columns.read("a,b,c,maybe,").map_err(|e| e.to_string()),
            Err("loans/email: `maybe` is neither yes nor no".into())
        );
    }

    #[test]
    fn the_first_line_must_name_what_is_known() {
        assert_eq!(Columns::parse("email"), Err(Fault::NoUser));
        assert_eq!(Columns::parse("user,user"), Err(Fault::Twice("user".into())));
        for bad in ["user,nick", "user,loans/fax", "user,a b/email", "user,"] {
            assert!(matches!(Columns::parse(bad), Err(Fault::Column(_))), "{bad}");
        }
        assert_eq!(Columns::parse(&format!("user{}", ",x".repeat(300))), Err(Fault::Wide));
    }
}
