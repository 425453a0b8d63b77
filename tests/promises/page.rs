//! Holds `docs/promises.md` and `docs/reliability.md` against the tree: every promise has a test, every test that is named
//! is there, and both pages name the same ones.
//!
//! A test is named as `- **T1** `kill`: …`: a module of this directory, or a path from the root of the project.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Promises, P1 to this one.
const PROMISES: u32 = 11;
/// Tests, T1 to this one.
const TESTS: u32 = 20;

/// Named already and not here yet. A test that has come is taken out of this list.
const AWAITED: &[&str] = &[];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{} can't be read: {e}", path.display()))
}

/// Whether a test is in the tree, and a module of this binary where it is one.
fn is_here(test: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if test.contains('/') {
        return root.join(test).is_file();
    }
    let folder = root.join("tests/promises");
    let has_file = folder.join(format!("{test}.rs")).is_file() || folder.join(test).join("mod.rs").is_file();
    let is_module = read("tests/promises/main.rs").lines().any(|line| line == format!("mod {test};"));
    assert_eq!(has_file, is_module, "{test} has a file, or is a module, and not both");
    has_file
}

/// The tests of each promise: number of the promise, number of the test, its place.
fn named(page: &str) -> Vec<(u32, u32, String)> {
    let (mut promise, mut found) = (0, Vec::new());
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let number = heading.strip_prefix('P').and_then(|rest| rest.split_once('.')).map(|(number, _)| number);
            promise = number.and_then(|number| number.parse().ok()).unwrap_or(0);
        }
        if let Some((number, rest)) = line.strip_prefix("- **T").and_then(|rest| rest.split_once("** `")) {
            let number = number.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            let (place, _) = rest.split_once('`').unwrap_or_else(|| panic!("{line}: no place"));
            found.push((promise, number, place.to_owned()));
        }
    }
    found
}

#[test]
fn every_promise_has_a_test_and_every_test_that_is_named_is_there() {
    let page = read("docs/promises.md");
    let named = named(&page);
    let promises: BTreeSet<u32> = named.iter().map(|(promise, ..)| *promise).collect();
    assert_eq!(promises, (1..=PROMISES).collect(), "promises that have a test");
    let tests: BTreeSet<u32> = named.iter().map(|(_, test, _)| *test).collect();
    assert_eq!(tests, (1..=TESTS).collect(), "tests that some promise names");
    for (promise, test, place) in &named {
        let awaited = AWAITED.contains(&place.as_str());
        match is_here(place) {
            true => assert!(!awaited, "T{test} `{place}` has come: take it out of AWAITED"),
            false => assert!(awaited, "P{promise} names T{test} `{place}`, which is not in the tree"),
        }
    }
    let places: BTreeSet<&str> = named.iter().map(|(.., place)| place.as_str()).collect();
    assert!(AWAITED.iter().all(|awaited| places.contains(awaited)), "something is awaited that no promise names");
    for section in page.split("\n## P").skip(1) {
        assert!(section.contains("Not promised: "), "a promise says what it is not: {section:.60}");
    }
}

#[test]
fn the_page_of_the_full_runs_names_the_same_tests_for_the_same_promises() {
    let mut promised: BTreeMap<u32, (BTreeSet<String>, BTreeSet<u32>)> = BTreeMap::new();
    for (promise, test, place) in named(&read("docs/promises.md")) {
        // Of a path the page has its last part.
        let name = place.rsplit('/').next().expect("a part").split('.').next().expect("a part").to_owned();
        let entry = promised.entry(test).or_default();
        entry.0.insert(name);
        entry.1.insert(promise);
    }
    let page = read("docs/reliability.md");
    let (tests, runs) = page.split_once("## Last full runs").expect("both tables");
    for number in 1..=TESTS {
        let row = |part: &str| -> Vec<String> {
            let row = part.lines().find(|line| {
                line.strip_prefix(&format!("| T{number} ")).is_some_and(|rest| rest.starts_with(['`', '|']))
            });
            let row = row.unwrap_or_else(|| panic!("T{number} has no row"));
            row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let (names, promises) = &promised[&number];
        let told = row(tests);
        let told_names: BTreeSet<String> = told[0].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(&told_names, names, "T{number} in docs/reliability.md");
        let told_promises: BTreeSet<u32> =
            told[1].split_whitespace().map(|text| text.trim_start_matches('P').parse().expect("a promise")).collect();
        assert_eq!(&told_promises, promises, "the promises of T{number} in docs/reliability.md");
        assert!(!row(runs)[1].is_empty(), "T{number} says when it was run, or that it was not");
    }
}

/// A name that is not in the tree is found.
#[test]
fn a_test_that_is_nowhere_is_not_here() {
    assert!(is_here("kill") && is_here("model") && is_here("tests/run"));
    assert!(!is_here("wishes") && !is_here("src/broker/wishes.rs"));
}
