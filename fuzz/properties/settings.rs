//! A settings file is right, and then reads the same when it is written again; or it has faults, each on one line with the
//! place to mend: the file and a line that it has. The same of the environment, whose faults name the variable.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidings::config::{Loaded, SettingsFile, Sources, as_file};

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().expect("a folder for settings files");
}

pub fn settings(data: &[u8]) {
    FOLDER.with(|folder| {
        let path = folder.path().join("tidings.toml");
        fs::write(&path, data).expect("our own file can be written");
        file(&path, data);
    });
    environment(&String::from_utf8_lossy(data));
}

fn load(file: SettingsFile, environment: Vec<(String, String)>) -> Loaded {
    Loaded::read(Sources { presets: Vec::new(), file, environment, flags: Vec::new() })
}

fn file(path: &Path, data: &[u8]) {
    let loaded = load(SettingsFile::Named(path.to_owned()), Vec::new());
    let lines = 1 + data.iter().filter(|byte| **byte == b'\n').count();
    for fault in loaded.faults() {
        let told = fault.to_string();
        assert!(!told.contains(char::is_control), "a fault is one line: {told:?}");
        assert_eq!(fault.file(), path.to_str(), "{told}");
        let line = fault.line().unwrap_or_else(|| panic!("no line: {told}"));
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {told}");
        assert!(told.starts_with(&format!("{}:{line}: ", path.display())), "{told}");
    }
    if loaded.faults().is_empty() {
        let again: PathBuf = path.with_file_name("again.toml");
        fs::write(&again, as_file(&loaded.settings)).expect("our own file can be written");
        let reread = load(SettingsFile::Named(again), Vec::new());
        assert_eq!(reread.faults(), [], "what was shown is read");
        let values = |loaded: &Loaded| -> Vec<_> {
            loaded.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
        };
        assert_eq!(values(&reread), values(&loaded));
        assert!(loaded.checked().is_ok());
    }
}

/// Each line is a variable.
fn environment(text: &str) {
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<_> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let names: Vec<_> = variables.iter().map(|(name, _)| name.replace(char::is_control, " ")).collect();
    let loaded = load(SettingsFile::None, variables);
    for fault in loaded.faults() {
        let told = fault.to_string();
        assert!(!told.contains(char::is_control), "a fault is one line: {told:?}");
        let after = told.strip_prefix("environment variable ").unwrap_or(&told);
        assert!(names.iter().any(|name| !name.is_empty() && after.starts_with(name)), "whose fault? {told}");
    }
}
