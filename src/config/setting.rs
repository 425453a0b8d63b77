//! Settings as people and scripts see them: each with its value and where that came from, as TOML that can be used as a
//! settings file again.
//!
//! Deliberately not here: whether a value is allowed, which is `config::Config`'s.

use serde::{Serialize, Serializer};
use toml::Value;

use super::fault::Origin;

/// A setting that is in force. Serialised it is `{"key","value","origin"}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Dotted: `http.listen`.
    pub key: String,
    /// A text, a whole number or a list of texts.
    pub value: Value,
    #[serde(serialize_with = "as_text")]
    pub origin: Origin,
    /// Whether the value is another than the default.
    #[serde(skip)]
    pub differs: bool,
}

fn as_text<S: Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(origin)
}

/// Writes settings as a settings file, each with its origin as a comment. Those of one section must stand together, and
/// those of none first, as they do in the documented defaults.
pub fn as_file<'a>(settings: impl IntoIterator<Item = &'a Setting>) -> String {
    let mut lines = Vec::new();
    let mut section = "";
    for Setting { key, value, origin, .. } in settings {
        let (of, name) = key.rsplit_once('.').unwrap_or(("", key));
        if of != section {
            section = of;
            let gap = if lines.is_empty() { "" } else { "\n" };
            lines.push(format!("{gap}[{section}]\n"));
        }
        // A comment ends with its line, and the name of a file may hold anything.
        let origin = origin.to_string().replace(char::is_control, "?");
        lines.push(format!("{name} = {value}  # {origin}\n"));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;

    fn setting(key: &str, value: impl Into<Value>, origin: Origin) -> Setting {
        Setting { key: key.to_owned(), value: value.into(), origin, differs: true }
    }

    #[test]
    fn settings_are_written_as_a_file_with_origins() {
        let list = vec!["https://a.example".to_owned(), "https://b.example".to_owned()];
        let settings = [
            setting("data", "x", Origin::Flag("--data")),
            setting("http.listen", "none", Origin::File { path: "t.toml".into(), line: 12 }),
            setting("http.origins", list, Origin::Env("TIDINGS_HTTP_ORIGINS".into())),
            setting("streams.max", 7, Origin::Default),
        ];
        assert_eq!(
            as_file(&settings),
            "data = \"x\"  # --data\n\n[http]\nlisten = \"none\"  # t.toml:12\n\
             origins = [\"https://a.example\", \"https://b.example\"]  # TIDINGS_HTTP_ORIGINS\n\n\
             [streams]\nmax = 7  # default\n"
        );
        assert_eq!(as_file(&[]), "");
        assert_eq!(
            serde_json::to_string(&settings[1]).expect("plain fields"),
            r#"{"key":"http.listen","value":"none","origin":"t.toml:12"}"#
        );
    }

    #[test]
    fn whatever_a_value_or_the_name_of_a_file_holds_is_read_back_the_same() {
        let odd = ["", "\"", "'", "\\", "a\nb", "\r\n", "\u{7}\u{0}", "'''\"\"\"", "# x", "[http]", "é\u{2028}"];
        for text in odd {
            let origin = Origin::File { path: format!("{text}\nmax = 1"), line: 1 };
            let file = as_file(&[setting("http.socket", text, origin)]);
            let table: Table = file.parse().unwrap_or_else(|e| panic!("{e} in {file}"));
            assert_eq!(table["http"].as_table().expect("a section").len(), 1, "{file}");
            assert_eq!(table["http"]["socket"].as_str(), Some(text), "{file}");
        }
    }
}
