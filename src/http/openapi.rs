//! Holds the description of the API, `static/openapi.yaml`, against the table of routes and the table of problems.
//!
//! No YAML is parsed: the file is written by hand with two spaces a level, and only its outline is read here.

use super::problem::KINDS;
use super::router::ROUTES;

const DESCRIPTION: &str = include_str!("../../static/openapi.yaml");
/// Keys of a path that are no methods.
const BESIDE_METHODS: [&str; 4] = ["parameters", "summary", "description", "servers"];

/// The lines below a key, up to the next line that is indented no deeper.
fn below<'a>(lines: impl IntoIterator<Item = &'a str>, key: &str) -> Vec<&'a str> {
    let mut lines = lines.into_iter().skip_while(|line| *line != key);
    assert!(lines.next().is_some(), "there is no `{key}`");
    lines.take_while(|line| line.is_empty() || indent(line) > indent(key)).collect()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The key that a line of this indent begins with; nothing for comments and items of lists.
fn key(line: &str, depth: usize) -> Option<&str> {
    let text = line.trim_start();
    let plain = indent(line) == depth && !text.starts_with(['#', '-']);
    plain.then(|| text.split_once(':').map(|(key, _)| key)).flatten()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let mut described = Vec::new();
    let mut path = "";
    for line in below(DESCRIPTION.lines(), "paths:") {
        if let Some(found) = key(line, 2) {
            path = found;
        } else if let Some(method) = key(line, 4).filter(|name| !BESIDE_METHODS.contains(name)) {
            described.push((path.to_owned(), method.to_ascii_uppercase()));
        }
    }
    // OpenAPI has no name for "all that is left"; there the description says so in words.
    let mut routes: Vec<_> =
        ROUTES.iter().map(|entry| (entry.path.replace("{*", "{"), entry.verb.as_str().to_owned())).collect();
    described.sort_unstable();
    routes.sort_unstable();
    assert_eq!(described, routes);
}

#[test]
fn every_problem_is_described_and_nothing_else() {
    let schema = below(DESCRIPTION.lines(), "    ProblemCode:");
    let codes = below(schema, "      enum:").into_iter().filter_map(|line| line.trim_start().strip_prefix("- "));
    assert_eq!(codes.collect::<Vec<_>>(), KINDS.iter().map(|kind| kind.code).collect::<Vec<_>>());
}
