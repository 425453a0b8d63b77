//! Raw settings: the defaults with a file, the environment and flags laid over them, each value with where it came
//! from.
//!
//! Data passes once: text -> [`Value`]s by dotted key (`http.listen`) -> [`Overlay::read`], which checks the uppermost
//! layer. Faults are collected, so that one run tells all of them.
//!
//! **Invariant**: the known keys are exactly those of `default.toml`, so a key can't exist without its comment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::Value;

/// The documented defaults.
pub(super) const DEFAULTS: &str = include_str!("default.toml");

/// What names an environment variable that is a setting.
const ENV_PREFIX: &str = "TIDINGS_";

/// How alike two keys must be (0 to 1, Jaro-Winkler) for one to be suggested for the other.
const ALIKE: f64 = 0.84;

/// Where a value came from, for the one who has to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    File {
        path: String,
        line: usize,
    },
    Env(String),
    Flag(&'static str),
    /// What a command presets, such as the demo's folder.
    Preset,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Preset => f.write_str("preset"),
        }
    }
}

struct Setting {
    default: Value,
    given: Option<(Value, Origin)>,
}

/// Settings by dotted key.
pub(super) struct Overlay {
    settings: BTreeMap<String, Setting>,
    faults: Vec<String>,
}

impl Overlay {
    /// The defaults, with nothing over them.
    pub(super) fn defaults() -> Self {
        let mut settings = BTreeMap::new();
        let table = DeTable::parse(DEFAULTS).expect("the compiled-in defaults are TOML; a test reads them");
        flatten(table.get_ref(), "", &mut |key, value| {
            let default =
                plain(value.get_ref()).expect("the compiled-in defaults have plain values; a test reads them");
            settings.insert(key, Setting { default, given: None });
        });
        Self { settings, faults: Vec::new() }
    }

    /// Lays a settings file over what is there.
    pub(super) fn lay_file(&mut self, path: &Path, text: &str) {
        let path = path.display().to_string();
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(e) => {
                let line = e.span().map_or(1, |span| line_at(text, span.start));
                self.faults.push(format!("{path}:{line}: this is not TOML: {}", e.message()));
                return;
            }
        };
        flatten(table.get_ref(), "", &mut |key, value| {
            let origin = Origin::File { path: path.clone(), line: line_at(text, value.span().start) };
            match plain(value.get_ref()) {
                Some(value) => self.lay(&key, value, origin),
                None if self.settings.contains_key(&key) => {
                    self.faults.push(format!("{origin}: {key} must be a text, a whole number or a list of texts"));
                }
                None => self.refuse_unknown(&key, &origin),
            }
        });
    }

    /// Lays the environment over what is there: `TIDINGS_HTTP_LISTEN` for `http.listen`.
    ///
    /// A variable that begins with a section's name, or looks like a setting misspelt, is refused; others that merely
    /// begin with `TIDINGS_` belong to somebody else (a test harness, Kubernetes' service links).
    pub(super) fn lay_env(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            if !name.starts_with(ENV_PREFIX) {
                continue;
            }
            if let Some(key) = self.settings.keys().find(|key| env_name(key) == name).cloned() {
                self.lay(&key, Value::Text(value), Origin::Env(name));
                continue;
            }
            let names: Vec<_> = self.settings.keys().map(|key| env_name(key)).collect();
            let misspelt = names.iter().any(|known| strsim::damerau_levenshtein(known, &name) <= 2);
            if misspelt || self.is_in_a_section(&name) {
                let hint = suggestion(&name, names.iter().map(String::as_str));
                self.faults.push(format!("environment variable {name} is no setting{hint}"));
            }
        }
    }

    /// Lays one value over what is there: a flag's, or a command's preset.
    pub(super) fn lay(&mut self, key: &str, value: Value, origin: Origin) {
        match self.settings.get_mut(key) {
            Some(setting) => setting.given = Some((value, origin)),
            None => self.refuse_unknown(key, &origin),
        }
    }

    /// Reads a key that must be `expected`. A value that is not is noted, and the default stands in, so that reading
    /// goes on to the next fault.
    pub(super) fn read<T>(&mut self, key: &str, expected: &str, parse: impl Fn(&Value) -> Option<T>) -> T {
        let setting = self.settings.get(key).expect("only keys of the compiled-in defaults are read; a test reads all");
        if let Some((value, origin)) = &setting.given {
            if let Some(value) = parse(value) {
                return value;
            }
            self.faults.push(format!("{origin}: {key} must be {expected}"));
        }
        parse(&setting.default).expect("the compiled-in defaults pass their own checks; a test reads them")
    }

    /// Notes a fault that concerns more than one key.
    pub(super) fn refuse(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Every fault found, in the order of the layers.
    pub(super) fn into_faults(self) -> Vec<String> {
        self.faults
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().map(String::as_str)
    }

    fn is_in_a_section(&self, name: &str) -> bool {
        let sections = self.settings.keys().filter_map(|key| key.split_once('.')).map(|(section, _)| section);
        sections.into_iter().any(|section| name.starts_with(&format!("{}_", env_name(section))))
    }

    fn refuse_unknown(&mut self, key: &str, origin: &Origin) {
        let hint = suggestion(key, self.settings.keys().map(String::as_str));
        self.faults.push(format!("{origin}: {key} is no setting{hint}"));
    }
}

/// The environment variable of a key.
pub(super) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// `; did you mean …?`, or nothing where no known name is near.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|key| (likeness(name, key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((alike, key)) if alike >= ALIKE => format!("; did you mean {key}?"),
        _ => String::new(),
    }
}

/// How alike two keys are. A key that only stands in the wrong section counts as alike.
fn likeness(name: &str, key: &str) -> f64 {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let misplaced = if last(name) == last(key) { ALIKE } else { 0.0 };
    strsim::jaro_winkler(name, key).max(misplaced)
}

type Visit<'v> = dyn FnMut(String, &Spanned<DeValue<'_>>) + 'v;

/// Visits every value that is not a table, with its dotted key.
fn flatten(table: &DeTable<'_>, section: &str, visit: &mut Visit<'_>) {
    for (key, value) in table {
        let key = if section.is_empty() { key.get_ref().to_string() } else { format!("{section}.{}", key.get_ref()) };
        match value.get_ref().as_table() {
            Some(inner) => flatten(inner, &key, visit),
            None => visit(key, value),
        }
    }
}

fn plain(value: &DeValue<'_>) -> Option<Value> {
    if let Some(text) = value.as_str() {
        return Some(Value::Text(text.to_owned()));
    }
    if let Some(number) = value.as_integer() {
        return i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Number);
    }
    let items = value.as_array()?.iter();
    items.map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<_>>().map(Value::List)
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(lay: impl FnOnce(&mut Overlay)) -> Vec<String> {
        let mut overlay = Overlay::defaults();
        lay(&mut overlay);
        overlay.into_faults()
    }

    fn env(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_later_layer_wins() {
        let mut overlay = Overlay::defaults();
        let listen = |overlay: &mut Overlay| overlay.read("http.listen", "", |v| v.text().map(str::to_owned));
        assert_eq!(listen(&mut overlay), "127.0.0.1:8383");
        overlay.lay_file(Path::new("t.toml"), "[http]\nlisten = 'file'");
        assert_eq!(listen(&mut overlay), "file");
        overlay.lay_env(env("TIDINGS_HTTP_LISTEN", "env"));
        assert_eq!(listen(&mut overlay), "env");
        overlay.lay("http.listen", Value::Text("flag".into()), Origin::Flag("--listen"));
        assert_eq!(listen(&mut overlay), "flag");
        assert_eq!(overlay.into_faults(), [""; 0]);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
        let told = faults(|o| o.lay_file(Path::new("t.toml"), "data = 'x'\n\n[http]\nlissten = 'y'\n"));
        assert_eq!(told, ["t.toml:4: http.lissten is no setting; did you mean http.listen?"]);
        let told = faults(|o| o.lay_file(Path::new("t.toml"), "[htpp]\nlisten = 'y'\n"));
        assert_eq!(told, ["t.toml:2: htpp.listen is no setting; did you mean http.listen?"]);
        let told = faults(|o| o.lay_file(Path::new("t.toml"), "heartbeat = 3"));
        assert_eq!(told, ["t.toml:1: heartbeat is no setting; did you mean streams.heartbeat?"]);
        let told = faults(|o| o.lay_file(Path::new("t.toml"), "[smtp]\nhost = 3"));
        assert_eq!(told, ["t.toml:2: smtp.host is no setting"]);
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let told = faults(|o| o.lay_file(Path::new("t.toml"), "data = 'x'\nhttp ="));
        assert!(told[0].starts_with("t.toml:2: this is not TOML: "), "{told:?}");
    }

    #[test]
    fn a_value_of_no_kind_is_told() {
        let told = faults(|o| o.lay_file(Path::new("t.toml"), "[streams]\nheartbeat = 1.5"));
        assert_eq!(told, ["t.toml:2: streams.heartbeat must be a text, a whole number or a list of texts"]);
    }

    #[test]
    fn misspelt_variables_are_refused_and_foreign_ones_left_alone() {
        let told = faults(|o| o.lay_env(env("TIDINGS_HTTP_LISSTEN", "x")));
        assert_eq!(
            told,
            ["environment variable TIDINGS_HTTP_LISSTEN is no setting; did you mean TIDINGS_HTTP_LISTEN?"]
        );
        assert_eq!(faults(|o| o.lay_env(env("TIDINGS_DATE", "x"))).len(), 1);
        for foreign in
            ["TIDINGS_LOG", "TIDINGS_KEY", "TIDINGS_URL", "TIDINGS_SERVICE_HOST", "TIDINGS_PORT_8383_TCP", "PATH"]
        {
            assert_eq!(faults(|o| o.lay_env(env(foreign, "x"))), [""; 0], "{foreign}");
        }
    }

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let overlay = Overlay::defaults();
        let names: std::collections::BTreeSet<_> = overlay.keys().map(env_name).collect();
        assert_eq!(names.len(), overlay.keys().count());
        assert!(names.contains("TIDINGS_DATA") && names.contains("TIDINGS_HTTP_MAX_BODY"));
    }

    #[test]
    fn every_default_has_a_comment_above_it() {
        let lines: Vec<_> = DEFAULTS.lines().collect();
        for (before, line) in lines.iter().zip(&lines[1..]) {
            let is_setting = line.contains(" = ") && !line.starts_with('#');
            assert!(!is_setting || before.starts_with('#'), "{line}");
        }
    }
}
