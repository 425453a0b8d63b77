//! The house (`ARCHITECTURE.md`) as a test: which module may name which, and which crate stays behind which fence.
//!
//! It reads the paths that the sources of `src/` name, in `use` trees and inline alike, and compares them with the
//! tables below. A new module is entered here before it compiles into a green run, so that someone decides where it
//! stands. Paths that a macro puts together are not seen; nothing here builds one.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Where each module of `src/` stands. It may name those of lower ranks, and itself.
const RANKS: &[(&str, u8)] = &[
    ("model", 0),
    ("wire", 1),
    ("clock", 1),
    ("metrics", 1),
    ("tls", 1),        // below `deliver` and `cli`, who are clients alike
    ("interleave", 0), // below `lifecycle`, whose tasks it schedules in unit tests
    ("lifecycle", 1),
    ("store", 2),
    ("hub", 2),
    ("broker", 3),
    ("http", 4),
    ("deliver", 4),
    ("intake", 4),
    ("config", 5),
    ("server", 5),
    ("cli", 6),
    ("main", 7), // the binary's one line; house.md draws it beside `cli`, which it calls
];

/// Modules that speak to the outside. They see the rules, never what lies behind them.
const EDGES: &[&str] = &["http", "deliver", "intake"];
const BEHIND_THE_BROKER: &[&str] = &["store", "hub"];

/// Crates that only these modules may name.
const FENCES: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    ("rusqlite_migration", &["store"]),
    ("deadpool_sqlite", &["store"]),
    ("deadpool_sync", &["store"]),
    ("async_stream", &["broker", "http"]),
    ("tokio_stream", &["broker", "http"]),
    ("hyper", &["http", "deliver", "cli"]), // `deliver` as a client of other services, `cli` of the running server; `tidings sink`
    ("hyper_util", &["http", "deliver", "cli", "server"]), // `server` for the adapter around its sockets
    ("http_body", &["http"]),
    ("http_body_util", &["http", "deliver", "cli"]),
    ("tower", &["http"]),
    ("tower_http", &["http"]),
    ("matchit", &["http"]),
    ("tokio_tungstenite", &["http", "cli"]), // `cli` as a client: `doctor --via`
    ("tokio_rustls", &["tls", "deliver", "intake", "cli"]), // all as clients, with the one configuration of `tls`
    ("rustls_native_certs", &["tls"]),
    ("governor", &["http"]),
    ("minijinja", &["broker"]),
    ("lettre", &["deliver"]),
    ("httpdate", &["deliver"]),
    ("lapin", &["intake"]),
    ("async_rs", &["intake"]),
    ("futures_io", &["intake"]),
    ("clap", &["cli", "main"]),
    ("anyhow", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("indicatif", &["cli", "main"]),
    ("generator", &["interleave"]),
];

/// Crates that these modules may not name, though others may.
const BANS: &[(&str, &[&str])] = &[("serde_json", &["model", "store", "hub"])];

#[test]
fn modules_name_only_what_stands_below_them_and_crates_stay_behind_their_fences() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for file in rust_files(&root) {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{} can't be read: {e}", file.display()));
        faults.extend(inspect(file.strip_prefix(&root).expect("it was found below src"), &text));
    }
    let told: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(told.is_empty(), "the house does not stand:\n  {}", told.join("\n  "));
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{} can't be listed: {e}", directory.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap_or_else(|e| panic!("{} can't be listed: {e}", directory.display())).path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A broken rule, and where.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Every rule that one file breaks. `file` is its path below `src/`.
fn inspect(file: &Path, text: &str) -> Vec<Fault> {
    let module = module_of(file);
    let room = module.first().map_or("lib", String::as_str);
    let mut faults = Vec::new();
    let mut fault = |line, what| faults.push(Fault { file: file.display().to_string(), line, what });

    if !text.trim_start().starts_with("//!") {
        fault(1, "does not begin with a `//!` header that says what it owns".to_owned());
    }
    let rank = rank_of(room);
    if room != "lib" && rank.is_none() {
        fault(1, format!("`{room}` has no rank in tests/it/architecture.rs: decide where it stands"));
    }
    for Named { line, path } in paths(text, &module) {
        match path.first().map(String::as_str) {
            Some("crate") => {
                let Some(other) = path.get(1).filter(|other| *other != room) else { continue };
                if let Some(problem) = rank.and_then(|rank| arrow_fault(room, rank, other)) {
                    fault(line, problem);
                }
            }
            Some(name) => {
                if let Some(problem) = fence_fault(room, name) {
                    fault(line, problem);
                }
            }
            None => {}
        }
    }
    faults.dedup();
    faults
}

fn rank_of(room: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == room).map(|(_, rank)| *rank)
}

fn arrow_fault(room: &str, rank: u8, other: &str) -> Option<String> {
    if EDGES.contains(&room) && BEHIND_THE_BROKER.contains(&other) {
        return Some(format!("the edge `{room}` names `{other}`: edges see the broker and nothing behind it"));
    }
    match rank_of(other) {
        None => Some(format!("names `crate::{other}`, which has no rank in tests/it/architecture.rs")),
        Some(below) if below < rank => None,
        Some(same) if same == rank => Some(format!("`{room}` names its sibling `{other}`: both have rank {rank}")),
        Some(above) => Some(format!("`{room}` (rank {rank}) names `{other}` (rank {above}): the arrow runs upward")),
    }
}

fn fence_fault(room: &str, name: &str) -> Option<String> {
    if let Some((_, homes)) = FENCES.iter().find(|(fenced, _)| *fenced == name)
        && !homes.contains(&room)
    {
        return Some(format!("`{room}` names the crate `{name}`, which is fenced to {}", homes.join(", ")));
    }
    let banned = BANS.iter().any(|(crate_name, rooms)| *crate_name == name && rooms.contains(&room));
    banned.then(|| format!("`{room}` names the crate `{name}`, which it may not know"))
}

/// `store/log.rs` is `["store", "log"]`, `store/mod.rs` is `["store"]`, `lib.rs` is the root.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// A path that a source names, from the crate's root or from another crate's.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    line: usize,
    path: Vec<String>,
}

/// All paths in a source, resolved against the module it is.
fn paths(text: &str, module: &[String]) -> Vec<Named> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // Modules written in the file itself, with the depth of braces they were opened at.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while let Some((token, _)) = tokens.get(at) {
        match token {
            Token::Symbol('{') => depth += 1,
            Token::Symbol('}') => {
                depth -= 1;
                inner.pop_if(|(_, opened)| *opened == depth);
            }
            Token::Word("mod") => {
                if let (Some((Token::Word(name), _)), Some((Token::Symbol('{'), _))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    inner.push(((*name).to_owned(), depth));
                }
            }
            Token::Word(_) if starts_path(&tokens, at) => {
                let here: Vec<String> = module.iter().chain(inner.iter().map(|(name, _)| name)).cloned().collect();
                at = read_tree(&tokens, at, &[], &here, &mut found);
                continue;
            }
            Token::Word(_) | Token::Separator | Token::Symbol(_) => {}
        }
        at += 1;
    }
    found
}

/// Keywords that a `::name` may stand behind.
const BEFORE_A_GLOBAL_PATH: &[&str] = &["use", "return", "in", "as", "mut", "dyn", "impl", "match", "if", "else"];

/// Whether the word at `at` begins a path: it has a tail, or it is all that `use` names.
fn starts_path(tokens: &[(Token<'_>, usize)], at: usize) -> bool {
    let token = |index: Option<usize>| index.and_then(|i| tokens.get(i)).map(|(token, _)| token);
    if matches!(token(Some(at)), Some(Token::Word(word)) if BEFORE_A_GLOBAL_PATH.contains(word)) {
        return false;
    }
    let (before, after) = (token(at.checked_sub(1)), token(Some(at + 1)));
    // `::name` begins a path of its own, unless it goes on from a name or from a closed generic.
    let goes_on = before == Some(&Token::Separator)
        && match token(at.checked_sub(2)) {
            Some(Token::Word(word)) => !BEFORE_A_GLOBAL_PATH.contains(word),
            Some(Token::Symbol(symbol)) => *symbol == '>',
            Some(Token::Separator) | None => false,
        };
    let whole = matches!(before, Some(Token::Word("use"))) || {
        before == Some(&Token::Word("crate")) && token(at.checked_sub(2)) == Some(&Token::Word("extern"))
    };
    !goes_on && (after == Some(&Token::Separator) || whole)
}

/// Reads a path, and every branch of it where it ends in `{…}`. Returns where it ended.
fn read_tree(
    tokens: &[(Token<'_>, usize)],
    mut at: usize,
    stem: &[String],
    here: &[String],
    found: &mut Vec<Named>,
) -> usize {
    let line = tokens[at].1;
    let mut path = stem.to_vec();
    loop {
        match tokens.get(at).map(|(token, _)| token) {
            Some(Token::Word(word)) => {
                path.push((*word).to_owned());
                at += 1;
            }
            Some(Token::Symbol('{')) if path.len() > stem.len() => {
                at += 1;
                while let Some((token, _)) = tokens.get(at) {
                    match token {
                        Token::Symbol('}') => return at + 1,
                        Token::Word("as") => at += 2,
                        Token::Word(_) => at = read_tree(tokens, at, &path, here, found),
                        Token::Separator | Token::Symbol(_) => at += 1,
                    }
                }
                return at;
            }
            _ => break,
        }
        if tokens.get(at).map(|(token, _)| token) != Some(&Token::Separator) {
            break;
        }
        at += 1;
    }
    found.push(Named { line, path: resolve(&path, here) });
    at
}

/// Makes `super::`, `self::` and the library's own name absolute.
fn resolve(path: &[String], here: &[String]) -> Vec<String> {
    let mut here = here.to_vec();
    let mut rest = path;
    let mut relative = false;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => {
                here.pop();
            }
            _ => break,
        }
        (relative, rest) = (true, tail);
    }
    if relative {
        return std::iter::once("crate".to_owned()).chain(here).chain(rest.iter().cloned()).collect();
    }
    match rest.split_first() {
        // The binary names the library by its name.
        Some((first, tail)) if first == "tidings" => {
            std::iter::once("crate".to_owned()).chain(tail.iter().cloned()).collect()
        }
        _ => rest.to_vec(),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'s> {
    /// An identifier, a keyword or a number.
    Word(&'s str),
    /// `::`
    Separator,
    Symbol(char),
}

/// Cuts a source into tokens with their lines; comments and literals are left out.
fn tokens(text: &str) -> Vec<(Token<'_>, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = string_literal(rest).or_else(|| char_literal(rest)) {
            length
        } else if rest.starts_with("::") {
            found.push((Token::Separator, line));
            2
        } else {
            let first = rest.chars().next().expect("there is a rest");
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if word > 0 {
                found.push((Token::Word(&rest[..word]), line));
                word
            } else {
                if !first.is_whitespace() {
                    found.push((Token::Symbol(first), line));
                }
                first.len_utf8()
            }
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    found
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        let step = if tail.starts_with(b"/*") {
            depth += 1;
            2
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            2
        } else {
            1
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    // Never inside a character: both ends are ASCII, or the end of the text.
    at
}

/// The length of `"…"`, `b"…"`, `r#"…"#` and their like, where one begins here.
fn string_literal(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix) && rest[prefix.len()..].starts_with(['"', '#']))?;
    let body = &rest[prefix.len()..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    if !body[hashes..].starts_with('"') || (hashes > 0 && !prefix.ends_with('r')) {
        return None;
    }
    let start = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest[start..].find(&end).map_or(rest.len(), |found| start + found + end.len()));
    }
    let mut escaped = false;
    for (offset, c) in rest[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(start + offset + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// The length of `'x'`, where one begins here; `'a` of a lifetime is none.
fn char_literal(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("b'").or_else(|| rest.strip_prefix('\''))?;
    let start = rest.len() - body.len();
    let mut chars = body.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return body.char_indices().skip(2).find(|(_, c)| *c == '\'').map(|(end, _)| start + end + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(end, _)| start + end + 1)
}

/// A test that can't fail guards nothing.
mod it_can_fail {
    use super::*;

    fn told(file: &str, body: &str) -> Vec<String> {
        inspect(Path::new(file), &format!("//! A header.\n{body}")).into_iter().map(|fault| fault.what).collect()
    }

    fn breaks(file: &str, body: &str, what: &str) {
        let told = told(file, body);
        assert!(told.iter().any(|fault| fault.contains(what)), "{file} with `{body}` was told {told:?}, not {what:?}");
    }

    fn stands(file: &str, body: &str) {
        assert_eq!(told(file, body), Vec::<String>::new(), "{file} with `{body}`");
    }

    #[test]
    fn an_arrow_that_runs_upward_is_told_however_it_is_written() {
        for body in [
            "use crate::broker::Broker;",
            "use crate::{model::Seq, broker::{self, Broker}};",
            "fn f(broker: &crate::broker::Broker) {}",
            "use super::super::broker::Broker;",
            "mod tests { mod deep { use super::super::super::super::broker; } }",
            "pub(crate) use crate::broker as rules;",
            "fn f() { let _ = Vec::<crate::broker::Broker>::new(); }",
            "fn f<'a>(c: &'a char) -> bool { *c == '{' && crate::broker::retry_ms() > 0 }",
        ] {
            breaks("store/log.rs", body, "`store` (rank 2) names `broker` (rank 3): the arrow runs upward");
        }
    }

    #[test]
    fn siblings_of_a_rank_do_not_know_each_other() {
        breaks("hub/mod.rs", "use crate::store::Store;", "names its sibling `store`");
        breaks("clock.rs", "use super::metrics::Metrics;", "names its sibling `metrics`");
        stands("clock.rs", "use crate::model::Timestamp; mod tests { use super::*; }");
    }

    #[test]
    fn an_edge_that_reaches_behind_the_broker_is_told() {
        breaks("http/api/inbox.rs", "use crate::store::PageQuery;", "edges see the broker");
        breaks("http/mod.rs", "use crate::hub::Filter;", "edges see the broker");
        stands("http/api/inbox.rs", "use crate::broker::InboxQuery; use super::super::answer::Answer;");
    }

    #[test]
    fn a_crate_outside_its_fence_is_told() {
        for (file, body, name) in [
            ("broker/inbox.rs", "use rusqlite::Connection;", "rusqlite"),
            ("broker/inbox.rs", "fn f(e: deadpool_sqlite::PoolError) {}", "deadpool_sqlite"),
            ("broker/feed.rs", "use ::hyper::Request;", "hyper"),
            ("http/mod.rs", "#[derive(clap::Parser)] struct A;", "clap"),
            ("server/mod.rs", "use hyper::{self as h, Request};", "hyper"),
            ("store/mod.rs", "use anyhow;", "anyhow"),
            ("hub/mod.rs", "extern crate tower;", "tower"),
            ("model/mod.rs", "fn f() { serde_json::to_string(&1); }", "serde_json"),
            ("lib.rs", "pub use rusqlite::Error;", "rusqlite"),
        ] {
            breaks(file, body, &format!("the crate `{name}`"));
        }
        stands("store/open.rs", "use rusqlite::Connection; use deadpool_sqlite::{Pool, Runtime};");
        stands("server/accept.rs", "use hyper_util::rt::TokioIo;");
        stands("cli/client.rs", "use hyper::client::conn; use anyhow::Context;");
    }

    #[test]
    fn a_file_without_a_header_and_a_module_without_a_rank_are_told() {
        let faults = inspect(Path::new("store/log.rs"), "use std::fmt;");
        assert!(faults.iter().any(|fault| fault.what.contains("`//!` header")), "{faults:?}");
        breaks("utils.rs", "", "`utils` has no rank");
        breaks("broker/mod.rs", "use crate::utils::pad;", "`crate::utils`, which has no rank");
    }

    #[test]
    fn words_in_comments_strings_and_longer_paths_are_no_paths() {
        stands(
            "store/log.rs",
            r##"
            // use crate::broker::Broker;
            /* use crate::http::Router; /* nested */ use crate::cli::Cli; */
            const SQL: &str = "SELECT crate::broker::x, \" crate::http::y";
            const RAW: &str = r#"use crate::broker; " use crate::http"#;
            const C: [char; 3] = ['"', '\'', '\u{7d}'];
            fn f<'r>(r: &'r str) -> &'r str { model::broker::pass(r) }
            use crate::model::{Seq, broker::http};
            "##,
        );
    }

    #[test]
    fn a_fault_names_its_line() {
        let faults =
            inspect(Path::new("store/log.rs"), "//! A header.\n\nconst A: &str = \"\n\";\nuse crate::cli::x;\n");
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [5]);
    }
}
