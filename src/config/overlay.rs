//! Raw settings: the defaults with files, the environment and flags laid over them, each value with where it came from.
//!
//! Data passes once: text -> [`Value`]s by dotted key (`http.listen`) -> [`Overlay::read`], which checks the uppermost
//! layer. Faults are collected, so that one run tells all of them.
//!
//! A section may stand for many: `[dingtalk.robots.NAME]` of the defaults says what each robot has, and a file gives each a name of
//! its own ([`Family`]).
//!
//! **Invariant**: the known keys are exactly those of `default.toml`, so a key can't exist without its comment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::fault::{Fault, Origin};
use super::files::{Layer, line_at};
use super::setting::Setting;
use super::value::Value;

/// The documented defaults, as they are compiled in.
pub const DEFAULTS: &str = include_str!("default.toml");

/// What names an environment variable that is a setting.
const ENV_PREFIX: &str = "TIDINGS_";

/// How alike two keys must be (0 to 1, Jaro-Winkler) for one to be suggested for the other.
const ALIKE: f64 = 0.84;

/// What stands in the defaults where a settings file has a name.
const PLACEHOLDER: &str = "NAME";
/// Characters of such a name at most.
const MAX_MEMBER_CHARS: usize = 32;
/// Sections of one family at most.
const MAX_MEMBERS: usize = 100;

/// A setting as it was given, or not.
#[derive(Clone)]
struct Raw {
    default: Value,
    /// Where the default stands in the defaults, in bytes: settings are shown in that order.
    place: usize,
    given: Option<(Value, Origin)>,
}

/// Sections that settings files name: what each of them has, and which there are.
struct Family {
    settings: BTreeMap<String, Raw>,
    /// Each with where it was named first.
    members: BTreeMap<String, Origin>,
}

/// Settings by dotted key.
pub(super) struct Overlay {
    settings: BTreeMap<String, Raw>,
    /// By the dotted key before the name: `dingtalk.robots`.
    families: BTreeMap<String, Family>,
    faults: Vec<Fault>,
}

impl Overlay {
    /// The defaults, with nothing over them.
    pub(super) fn defaults() -> Self {
        let mut settings = BTreeMap::new();
        let mut families = BTreeMap::new();
        let table = DeTable::parse(DEFAULTS).expect("the compiled-in defaults are TOML; a test reads them");
        for (key, value) in table.get_ref() {
            match value.get_ref().as_table() {
                Some(section) => {
                    for (inner, value) in section {
                        let key = dotted(key.get_ref(), inner.get_ref());
                        match value.get_ref().as_table() {
                            Some(named) => drop(families.insert(key, Family::of(inner, named))),
                            None => drop(settings.insert(key, Raw::default(inner, value))),
                        }
                    }
                }
                None => drop(settings.insert(key.get_ref().to_string(), Raw::default(key, value))),
            }
        }
        Self { settings, families, faults: Vec::new() }
    }

    /// Lays a settings file or a drop-in over what is there.
    pub(super) fn lay_file(&mut self, layer: &Layer) {
        match &layer.text {
            Ok(text) => self.lay_text(&layer.path, text),
            Err(fault) => self.faults.push(fault.clone()),
        }
    }

    fn lay_text(&mut self, path: &Path, text: &str) {
        match DeTable::parse(text) {
            Ok(table) => {
                let file = Text { path, text };
                table.get_ref().iter().for_each(|(key, value)| self.lay_entry(&file, "", key, value));
            }
            Err(e) => {
                let line = e.span().map_or(1, |span| line_at(text.as_bytes(), span.start));
                let told = format!("this is not TOML: {}", e.message());
                self.faults.push(Fault::in_file(path, Some(line), &told));
            }
        }
    }

    /// Lays what one key of a file holds: a value, or a section of values.
    fn lay_entry(&mut self, file: &Text<'_>, section: &str, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        let origin = file.origin(key.span().start);
        let key = if section.is_empty() { key.get_ref().to_string() } else { dotted(section, key.get_ref()) };
        let is_setting = self.settings.contains_key(&key);
        if self.families.contains_key(&key) {
            return self.lay_family(file, &key, &origin, value);
        }
        match (value.get_ref().as_table(), plain(value.get_ref())) {
            (Some(inner), _) if self.is_section(&key) => {
                inner.iter().for_each(|(name, value)| self.lay_entry(file, &key, name, value));
            }
            // Its settings are not told one by one: they may be right.
            (Some(_), _) if !is_setting => {
                let hint = suggestion(&key, self.sections(), |section| format!("[{section}]"));
                self.faults.push(Fault::of(&key, &origin, &format!("[{key}] is no section{hint}")));
            }
            (None, _) if self.is_section(&key) => {
                let told = format!("{key} is a section: write [{key}], and its settings below that");
                self.faults.push(Fault::of(&key, &origin, &told));
            }
            (None, Some(value)) => self.lay(&key, value, origin),
            (Some(_), _) | (None, None) if is_setting => {
                let told = format!("{key} must be a text, a whole number or a list of texts");
                self.faults.push(Fault::of(&key, &origin, &told));
            }
            (Some(_), _) | (None, None) => self.refuse_unknown(&key, &origin),
        }
    }

    /// Lays sections that the file names, such as those of robots.
    fn lay_family(&mut self, file: &Text<'_>, key: &str, origin: &Origin, value: &Spanned<DeValue<'_>>) {
        let Some(members) = value.get_ref().as_table() else {
            let told = format!("{key} is a section for each: write [{key}.{PLACEHOLDER}] with a name of its own");
            self.faults.push(Fault::of(key, origin, &told));
            return;
        };
        for (name, value) in members {
            let (origin, section) = (file.origin(name.span().start), dotted(key, name.get_ref()));
            let Some(inner) = value.get_ref().as_table() else {
                let told = format!("{section} is no setting: write [{section}], and its settings below that");
                self.faults.push(Fault::of(&section, &origin, &told));
                continue;
            };
            if let Some(told) = self.member_fault(key, name.get_ref(), inner) {
                self.faults.push(Fault::of(&section, &origin, &told));
            } else if name.get_ref() != PLACEHOLDER {
                self.add_member(key, name.get_ref(), origin);
                inner.iter().for_each(|(name, value)| self.lay_entry(file, &section, name, value));
            }
        }
    }

    /// What is wrong with the name of a section, if anything. The placeholder may stand as the defaults have it, which is what
    /// `tidings config default` writes.
    fn member_fault(&self, key: &str, name: &str, inner: &DeTable<'_>) -> Option<String> {
        let family = self.families.get(key)?;
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name == PLACEHOLDER {
            let is_default = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                let default = family.settings.get(key.get_ref().as_ref()).map(|raw| &raw.default);
                default.is_some_and(|default| plain(value.get_ref()).as_ref() == Some(default))
            };
            let told = || format!("[{key}.{PLACEHOLDER}]: {PLACEHOLDER} stands for a name: give it one of its own");
            return (!inner.iter().all(is_default)).then(told);
        }
        if !(1..=MAX_MEMBER_CHARS).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Some(format!("[{key}.…] must be named with 1 to {MAX_MEMBER_CHARS} of the characters a-z 0-9 _"));
        }
        let is_one_more = !family.members.contains_key(name) && family.members.len() == MAX_MEMBERS;
        is_one_more.then(|| format!("there are more than {MAX_MEMBERS} sections [{key}.{PLACEHOLDER}]"))
    }

    /// Makes the settings of a named section known, with their defaults.
    fn add_member(&mut self, key: &str, name: &str, origin: Origin) {
        let Some(family) = self.families.get_mut(key) else { return };
        if !family.members.contains_key(name) {
            family.members.insert(name.to_owned(), origin);
            let section = dotted(key, name);
            let settings = family.settings.iter().map(|(key, raw)| (dotted(&section, key), raw.clone()));
            self.settings.extend(settings);
        }
    }

    /// The names of the sections of a family, in order.
    pub(super) fn members(&self, key: &str) -> Vec<String> {
        self.families.get(key).map(|family| family.members.keys().cloned().collect()).unwrap_or_default()
    }

    /// Notes a fault of one setting of a named section, at the setting where somebody gave it, else at the section.
    pub(super) fn refuse_in(&mut self, family: &str, member: &str, setting: &str, message: &str) {
        let key = dotted(&dotted(family, member), setting);
        let given = self.settings.get(&key).and_then(|raw| raw.given.as_ref()).map(|(_, origin)| origin);
        let named = || self.families.get(family).and_then(|family| family.members.get(member));
        let origin = given.or_else(named).unwrap_or(&Origin::Default).clone();
        self.faults.push(Fault::of(&key, &origin, &format!("{key} {message}")));
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
                let hint = suggestion(&name, names.iter().map(String::as_str), str::to_owned);
                self.faults.push(format!("environment variable {name} is no setting{hint}").into());
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
            self.faults.push(Fault::of(key, origin, &format!("{key} must be {expected}")));
        }
        parse(&setting.default).expect("the compiled-in defaults pass their own checks; a test reads them")
    }

    /// Notes a fault that lies between settings, at the first of them that somebody gave: a default has no place that could
    /// be told. The message names them.
    pub(super) fn refuse(&mut self, keys: &[&str], message: &str) {
        let given = keys.iter().find_map(|key| Some((key, &self.settings.get(*key)?.given.as_ref()?.1)));
        let (key, origin) = given.expect("the defaults go together, so somebody gave one of these; a test reads them");
        self.faults.push(Fault::of(key, origin, message));
    }

    /// Every setting with its value and where that came from, in the order of the documented defaults.
    pub(super) fn effective(&self) -> Vec<Setting> {
        let mut raw: Vec<_> = self.settings.iter().collect();
        // Those of a named section have their family's place, and so stand together.
        raw.sort_by_key(|(key, raw)| (raw.place, *key));
        raw.into_iter().map(|(key, raw)| raw.effective(key)).collect()
    }

    /// Every fault found, as it was met.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().map(String::as_str)
    }

    fn sections(&self) -> BTreeSet<&str> {
        self.settings.keys().filter_map(|key| key.split_once('.')).map(|(section, _)| section).collect()
    }

    fn is_section(&self, key: &str) -> bool {
        self.sections().contains(key)
    }

    fn is_in_a_section(&self, name: &str) -> bool {
        self.sections().into_iter().any(|section| name.starts_with(&format!("{}_", env_name(section))))
    }

    fn refuse_unknown(&mut self, key: &str, origin: &Origin) {
        let hint = suggestion(key, self.settings.keys().map(String::as_str), str::to_owned);
        self.faults.push(Fault::of(key, origin, &format!("{key} is no setting{hint}")));
    }
}

impl Family {
    /// Reads what the defaults have under the placeholder.
    fn of(key: &Spanned<DeString<'_>>, named: &DeTable<'_>) -> Self {
        let section = named.get(PLACEHOLDER).and_then(|section| section.get_ref().as_table());
        let section = section.expect("a family of the compiled-in defaults has its placeholder; a test reads them");
        let place = key.span().start;
        let raw = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
            (key.get_ref().to_string(), Raw { place, ..Raw::default(key, value) })
        };
        Self { settings: section.iter().map(raw).collect(), members: BTreeMap::new() }
    }
}

impl Raw {
    fn default(key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Self {
        let default = plain(value.get_ref()).expect("the compiled-in defaults have plain values; a test reads them");
        Self { default, place: key.span().start, given: None }
    }

    fn origin(&self) -> &Origin {
        self.given.as_ref().map_or(&Origin::Default, |(_, origin)| origin)
    }

    fn effective(&self, key: &str) -> Setting {
        let value = self.given.as_ref().map_or_else(|| self.default.clone(), |(value, _)| value.like(&self.default));
        let differs = value != self.default;
        Setting {
            key: key.to_owned(),
            value: value.without_password().into_toml(),
            origin: self.origin().clone(),
            differs,
        }
    }
}

/// A settings file that is being read.
struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Text<'_> {
    /// What stands at a byte of it.
    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: self.path.display().to_string(), line: line_at(self.text.as_bytes(), offset) }
    }
}

fn dotted(section: &str, key: &str) -> String {
    format!("{section}.{key}")
}

/// The environment variable of a key.
pub(super) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// `; did you mean …?` with the nearest known name, or where to find them all.
fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, written: impl Fn(&str) -> String) -> String {
    let nearest = known.into_iter().map(|key| (likeness(name, key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((alike, key)) if alike >= ALIKE => format!("; did you mean {}?", written(key)),
        _ => "; `tidings config default` shows them all".to_owned(),
    }
}

/// How alike two keys are. A key that only stands in the wrong section counts as alike.
fn likeness(name: &str, key: &str) -> f64 {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let misplaced = if last(name) == last(key) { ALIKE } else { 0.0 };
    strsim::jaro_winkler(name, key).max(misplaced)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(lay: impl FnOnce(&mut Overlay)) -> Vec<String> {
        let mut overlay = Overlay::defaults();
        lay(&mut overlay);
        overlay.into_faults().iter().map(ToString::to_string).collect()
    }

    fn layer(name: &str, text: &str) -> Layer {
        Layer { path: name.into(), is_drop_in: false, text: Ok(text.to_owned()) }
    }

    /// What is told of a settings file `t.toml` with this text.
    fn faults_in(text: &str) -> Vec<String> {
        faults(|o| o.lay_file(&layer("t.toml", text)))
    }

    fn env(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_later_layer_wins() {
        let mut overlay = Overlay::defaults();
        let listen = |overlay: &mut Overlay| overlay.read("http.listen", "", |v| v.text().map(str::to_owned));
        assert_eq!(listen(&mut overlay), "127.0.0.1:8383");
        overlay.lay_file(&layer("t.toml", "[http]\nlisten = 'file'"));
        assert_eq!(listen(&mut overlay), "file");
        overlay.lay_file(&layer("a.toml", "http = { listen = 'drop-in' }"));
        assert_eq!(listen(&mut overlay), "drop-in");
        overlay.lay_env(env("TIDINGS_HTTP_LISTEN", "env"));
        assert_eq!(listen(&mut overlay), "env");
        overlay.lay("http.listen", Value::Text("flag".into()), Origin::Flag("--listen"));
        assert_eq!(listen(&mut overlay), "flag");
        assert_eq!(overlay.into_faults(), []);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
        for (text, told) in [
            (
                "data = 'x'\n\n[http]\nlissten = 'y'\n",
                "t.toml:4: http.lissten is no setting; did you mean http.listen?",
            ),
            ("heartbeat = 3", "t.toml:1: heartbeat is no setting; did you mean streams.heartbeat?"),
            ("[http]\nzzz = 1.5", "t.toml:2: http.zzz is no setting; `tidings config default` shows them all"),
        ] {
            assert_eq!(faults_in(text), [told]);
        }
    }

    #[test]
    fn an_unknown_section_is_named_once_with_its_line_and_the_nearest() {
        for (text, told) in [
            ("data = 'x'\n[htpp]\nlisten = 'y'\n", "t.toml:2: [htpp] is no section; did you mean [http]?"),
            ("\n[stream]", "t.toml:2: [stream] is no section; did you mean [streams]?"),
            ("smtp.host = 3\nsmtp.port = 4", "t.toml:1: [smtp] is no section; `tidings config default` shows them all"),
            ("[http.tls]\nkey = 'x'", "t.toml:1: [http.tls] is no section; did you mean [http]?"),
            ("http = 'x'", "t.toml:1: http is a section: write [http], and its settings below that"),
            ("[[http]]\nlisten = 'x'", "t.toml:1: http is a section: write [http], and its settings below that"),
        ] {
            assert_eq!(faults_in(text), [told]);
        }
    }

    #[test]
    fn a_section_for_each_is_named_by_the_file() {
        let mut overlay = Overlay::defaults();
        assert_eq!(overlay.members("dingtalk.robots"), [""; 0]);
        let text = "[dingtalk.robots.oncall]\nurl_file = '/a'\n[dingtalk.robots.b2]\nper_minute = 3\n";
        overlay.lay_file(&layer("t.toml", text));
        overlay.lay_env(env("TIDINGS_DINGTALK_ROBOTS_ONCALL_PER_MINUTE", "7"));
        assert_eq!(overlay.members("dingtalk.robots"), ["b2", "oncall"]);
        let number = |overlay: &mut Overlay, key: &str| overlay.read(key, "", Value::number);
        assert_eq!(number(&mut overlay, "dingtalk.robots.oncall.per_minute"), 7);
        assert_eq!(number(&mut overlay, "dingtalk.robots.b2.per_minute"), 3);
        let shown: Vec<_> = overlay.effective().into_iter().filter(|s| s.differs).map(|s| s.key).collect();
        let expected =
            ["dingtalk.robots.b2.per_minute", "dingtalk.robots.oncall.per_minute", "dingtalk.robots.oncall.url_file"];
        assert_eq!(shown, expected);
        assert_eq!(overlay.into_faults(), []);
    }

    #[test]
    fn a_section_for_each_has_faults_like_any_other() {
        for (text, told) in [
            (
                "[dingtalk]\nrobots = 3",
                "t.toml:2: dingtalk.robots is a section for each: write [dingtalk.robots.NAME] with a name of its own",
            ),
            (
                "[dingtalk.robots]\na = 3",
                "t.toml:2: dingtalk.robots.a is no setting: write [dingtalk.robots.a], and its settings below that",
            ),
            (
                "[dingtalk.robots.a]\nurl = 'x'",
                "t.toml:2: dingtalk.robots.a.url is no setting; did you mean dingtalk.robots.a.url_file?",
            ),
            (
                "[dingtalk.robots.On-Call]",
                "t.toml:1: [dingtalk.robots.…] must be named with 1 to 32 of the characters a-z 0-9 _",
            ),
            (
                "[dingtalk.robots.NAME]\nurl_file = 'x'",
                "t.toml:1: [dingtalk.robots.NAME]: NAME stands for a name: give it one of its own",
            ),
            ("[dingtalk.robots.a.b]", "t.toml:1: [dingtalk.robots.a.b] is no section; did you mean [dingtalk]?"),
        ] {
            assert_eq!(faults_in(text), [told]);
        }
        let many: Vec<_> = (0..101).map(|n| format!("[dingtalk.robots.r{n}]\n")).collect();
        assert_eq!(faults_in(&many.concat()), ["t.toml:100: there are more than 100 sections [dingtalk.robots.NAME]"]);
        assert_eq!(faults_in(DEFAULTS), [""; 0], "the defaults are a settings file");
        let told = faults(|o| o.lay_env(env("TIDINGS_DINGTALK_ROBOTS_ONCALL_PER_MINUTE", "7")));
        assert!(told[0].starts_with("environment variable TIDINGS_DINGTALK_ROBOTS_ONCALL_PER_MINUTE is no setting"));
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let told = faults_in("data = 'x'\nhttp =");
        assert!(told[0].starts_with("t.toml:2: this is not TOML: "), "{told:?}");
    }

    #[test]
    fn a_key_given_twice_is_told_with_the_line_of_the_second() {
        for text in ["data = 'x'\n\ndata = 'y'", "[http]\n[log]\n[http]"] {
            let told = faults_in(text);
            assert!(told[0].starts_with("t.toml:3: this is not TOML: duplicate key"), "{told:?}");
        }
    }

    #[test]
    fn a_value_of_no_kind_is_told() {
        for text in ["[streams]\nheartbeat = 1.5", "[streams]\n[streams.heartbeat]", "[streams]\nheartbeat = [1]"] {
            let told = faults_in(text);
            assert_eq!(told, ["t.toml:2: streams.heartbeat must be a text, a whole number or a list of texts"]);
        }
    }

    #[test]
    fn values_of_the_environment_are_shown_in_the_kind_of_their_default() {
        let mut overlay = Overlay::defaults();
        overlay.lay_env(env("TIDINGS_STREAMS_MAX", "7"));
        overlay.lay_env(env("TIDINGS_HTTP_ORIGINS", "https://a.example, https://b.example"));
        overlay.lay_env(env("TIDINGS_RETENTION_PER_USER", "10000"));
        overlay.lay_env(env("TIDINGS_HTTP_MAX_CONNECTIONS", "many"));
        let shown = overlay.effective();
        let of = |key: &str| {
            let setting = shown.iter().find(|setting| setting.key == key).expect("a known key");
            (setting.value.to_string(), setting.origin.to_string(), setting.differs)
        };
        assert_eq!(of("streams.max"), ("7".into(), "TIDINGS_STREAMS_MAX".into(), true));
        assert_eq!(of("http.origins").0, "[\"https://a.example\", \"https://b.example\"]");
        assert_eq!(of("retention.per_user"), ("10000".into(), "TIDINGS_RETENTION_PER_USER".into(), false));
        assert_eq!(of("http.max_connections").0, "\"many\"");
        assert_eq!(of("log.level"), ("\"info\"".into(), "default".into(), false));
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
        let names: BTreeSet<_> = overlay.keys().map(env_name).collect();
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
