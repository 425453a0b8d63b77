//! Runs a command of the binary to its end.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use super::server::tidings;

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The same, which must have gone well.
    pub fn well(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

/// Runs `tidings ARGS`, with something on standard input.
pub fn run(args: &[&str], input: &str) -> Said {
    run_with(args, input, &[])
}

/// The same with variables in the environment.
pub fn run_with(args: &[&str], input: &str, env: &[(&str, &str)]) -> Said {
    start(args, input, env).end()
}

/// A command that runs.
pub struct Running {
    child: Child,
    feeding: JoinHandle<()>,
}

/// Starts a command and does not wait for it.
pub fn start(args: &[&str], input: &str, env: &[(&str, &str)]) -> Running {
    let mut child = tidings()
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let input = input.to_owned();
    // On a thread of its own: a command that answers before it has read everything would wait for us, and we for it.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    Running { child, feeding }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn end(self) -> Said {
        let output = self.child.wait_with_output().expect("it is ours");
        self.feeding.join().expect("it only writes");
        Said {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
