//! Bytes of strangers (T20): what must hold of every parser and encoder, tried in the quick form with what the fuzzers have
//! found so far. The properties are those of the fuzz targets (`fuzz/properties/`); the full form is `fuzz/run`.
//!
//! Every file of every corpus is replayed, then so many inputs that seeded dice make of them. **Invariant**: the inputs of
//! a seed are the same on every machine, so a red run is the commit's fault; it prints the input that did it.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use crate::support::Dice;

#[path = "../../fuzz/properties/mod.rs"]
mod properties;

/// From where the dice begin; `TIDINGS_FUZZ_SEED` overrides it.
const SEED: u64 = 20;
/// Inputs that the dice make for each target; `TIDINGS_FUZZ_INPUTS` overrides it.
const INPUTS: u64 = 3_000;
/// Bytes of an input of the dice at most; libFuzzer's own limit.
const MAX_BYTES: usize = 4_096;
/// Bytes that a corpus may have, so that the project stays quick to fetch.
const MAX_CORPUS_BYTES: u64 = 256 * 1024;

/// A test for each target, and the list of them.
macro_rules! targets {
    ($($target:ident)*) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                hold(stringify!($target), properties::$target);
            }
        )*
    };
}

targets! { batch cursor data depth event headers moment names operation plain publish query settings template ticket token }

/// Replays the corpus, then what the dice make of it.
fn hold(target: &str, property: fn(&[u8])) {
    let corpus = corpus(target);
    for (path, bytes) in &corpus {
        try_one(property, bytes, &path.display().to_string());
    }
    let seed = number("TIDINGS_FUZZ_SEED", SEED);
    let mut dice = Dice::new(seed);
    let seeds: Vec<&[u8]> = corpus.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    for count in 0..number("TIDINGS_FUZZ_INPUTS", INPUTS) {
        let input = mutated(&seeds, &mut dice);
        try_one(property, &input, &format!("input {count} of seed {seed}"));
    }
}

fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}"))
}

/// Runs a property on one input, and tells which it was where it does not hold.
fn try_one(property: fn(&[u8]), input: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(input))) {
        println!("{origin} breaks it: b\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a target's corpus, in order of name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = list(&root().join("corpus").join(target)).into_iter().collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a file of the corpus can be read"))).collect()
}

fn list(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{} can't be listed: {e}", folder.display()));
    entries.map(|entry| entry.expect("it was listed").path()).collect()
}

fn stems(paths: &BTreeSet<PathBuf>) -> BTreeSet<String> {
    paths.iter().map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// What is often a border: of numbers, of UTF-8, of lines, of quoting, and what ends a field of an input.
const BORDERS: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\r",
    b"\xff",
    b"\xc3\x28",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"\"",
    b"\\",
    b"\\u0000",
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b",",
    b";",
    b"=",
    b"%",
    b"&",
    b"?",
    b"*",
    b"/",
    b"//",
    b".",
    b"-1",
    b"0",
    b"01",
    b"1e999",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9223372036854775807",
    b"null",
    b"=?",
    b"?=",
    b" ",
    b"\t",
];

/// A corpus file, or nothing, with some changes.
fn mutated(seeds: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = match dice.below(16) {
        0 => (0..dice.below(64)).map(|_| byte(dice)).collect(),
        _ => pick(seeds, dice).to_vec(),
    };
    for _ in 0..=dice.below(6) {
        let at = place(bytes.len(), dice);
        let end = at + place(bytes.len() - at, dice).min(32);
        match dice.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = byte(dice),
            2 => bytes.insert(at, byte(dice)),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 => bytes.truncate(at),
            6 => {
                let other = pick(seeds, dice);
                let from = place(other.len(), dice);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => drop(bytes.splice(at..at, pick(BORDERS, dice).iter().copied())),
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn byte(dice: &mut Dice) -> u8 {
    u8::try_from(dice.below(256)).expect("below 256")
}

/// A place in so many bytes, the end included.
fn place(length: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(length as u64 + 1)).expect("no more than a length")
}

fn pick<'a>(from: &[&'a [u8]], dice: &mut Dice) -> &'a [u8] {
    from[place(from.len() - 1, dice)]
}

#[test]
fn every_target_has_a_test_a_property_a_corpus_and_its_place_in_the_manifest() {
    let expected: BTreeSet<String> = TARGETS.iter().map(|target| (*target).to_owned()).collect();
    assert_eq!(stems(&list(&root().join("fuzz_targets"))), expected, "fuzz_targets/ and the tests here");
    assert_eq!(stems(&list(&root().join("corpus"))), expected, "corpus/ and the tests here");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it can be read");
    for target in &expected {
        let text = fs::read_to_string(root().join(format!("fuzz_targets/{target}.rs"))).expect("it was listed");
        assert!(
            text.contains(&format!("properties::{target}(data)")),
            "fuzz_targets/{target}.rs tries another property"
        );
        let place = format!("[[bin]]\nname = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"\n");
        assert!(manifest.contains(&place), "{target} is not in fuzz/Cargo.toml");
        let files = corpus(target);
        assert!(files.len() >= 3, "corpus/{target} has {} files, which is no corpus", files.len());
        let bytes: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        assert!(bytes <= MAX_CORPUS_BYTES, "corpus/{target} has {bytes} bytes; `cargo fuzz cmin` makes it smaller");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), expected.len(), "the manifest has a target that is not here");
}

/// A harness that finds nothing proves nothing.
#[test]
#[should_panic(expected = "two spellings of one position")]
fn a_property_that_does_not_hold_is_found() {
    /// As `cursor` would be if it took a leading zero.
    fn lenient(data: &[u8]) {
        if let Some((epoch, seq)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('.'))
            && let (true, Ok(seq)) = (epoch.bytes().all(|b| b.is_ascii_lowercase()), seq.parse::<u64>())
        {
            assert_eq!(format!("{epoch}.{seq}").as_bytes(), data, "two spellings of one position");
        }
    }
    hold("cursor", lenient);
}
