//! Where a setting came from, and what is wrong with one, for the one who has to mend it.
//!
//! **Invariant**: a fault is one line, whatever a key or the name of a file holds: editors and CI read
//! `FILE:LINE: what`, and nothing in a settings file can forge a line of its own. It never repeats a value.

use std::fmt;
use std::path::Path;

use serde::Serialize;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The documented defaults, which are compiled in.
    Default,
    /// A settings file or a drop-in; lines count from 1.
    File { path: String, line: usize },
    /// The environment: the variable's name.
    Env(String),
    /// The flag as it is typed.
    Flag(&'static str),
    /// What a command presets, such as the demo's folder.
    Preset,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Env(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
            Self::Preset => f.write_str("preset"),
        }
    }
}

/// One thing that is wrong with the settings, and where. Serialised it is `{"file","line","key","message"}`, with null
/// for what is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    file: Option<String>,
    line: Option<usize>,
    key: Option<String>,
    message: String,
}

impl Fault {
    /// A fault of one setting. The message names the key; where it is no file's, it is told with its origin.
    pub fn of(key: &str, origin: &Origin, message: &str) -> Self {
        let (file, line, message) = match origin {
            Origin::File { path, line } => (Some(one_line(path)), Some(*line), one_line(message)),
            Origin::Default => (None, None, one_line(message)),
            Origin::Env(_) | Origin::Flag(_) | Origin::Preset => {
                (None, None, one_line(&format!("{origin}: {message}")))
            }
        };
        Self { file, line, key: Some(one_line(key)), message }
    }

    /// A fault of a file, or of a line in it, rather than of one setting.
    pub(super) fn in_file(path: &Path, line: Option<usize>, message: &str) -> Self {
        Self { file: Some(one_line(&path.display().to_string())), line, key: None, message: one_line(message) }
    }

    /// The settings file it is in.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The line of the file, from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

/// A fault that is neither in a file nor one setting's.
impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { file: None, line: None, key: None, message: one_line(&message) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: {}", self.message),
            (Some(file), None) => write!(f, "{file}: {}", self.message),
            (None, _) => f.write_str(&self.message),
        }
    }
}

/// The text without line breaks and what else steers a terminal.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_with_its_place_in_one_line() {
        let file = Origin::File { path: "t.toml".into(), line: 3 };
        let told = |fault: Fault| fault.to_string();
        assert_eq!(told(Fault::of("a.b", &file, "a.b must be")), "t.toml:3: a.b must be");
        assert_eq!(told(Fault::of("a.b", &Origin::Env("X".into()), "a.b must be")), "X: a.b must be");
        assert_eq!(told(Fault::of("a.b", &Origin::Default, "a.b must be")), "a.b must be");
        assert_eq!(told(Fault::in_file(Path::new("t.d"), None, "can't be read")), "t.d: can't be read");
        assert_eq!(told(Fault::of("a\nb", &file, "a\nt.toml:9: b\u{1b}[0m")), "t.toml:3: a t.toml:9: b [0m");
    }

    #[test]
    fn machines_are_told_the_place_in_fields_of_their_own() {
        let file = Origin::File { path: "t.toml".into(), line: 3 };
        let json = |fault: &Fault| serde_json::to_string(fault).expect("plain fields");
        assert_eq!(
            json(&Fault::of("a.b", &file, "must be")),
            r#"{"file":"t.toml","line":3,"key":"a.b","message":"must be"}"#
        );
        assert_eq!(json(&Fault::from("both".to_owned())), r#"{"file":null,"line":null,"key":null,"message":"both"}"#);
    }
}
