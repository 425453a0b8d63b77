//! The RabbitMQ of a test, with a certificate, and the Python that speaks to it, with the libraries that producers use.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::node::{Node, Tls};
use crate::support::relay::Certificate;

pub struct Rabbit {
    node: Node,
    certificate: Certificate,
}

impl Rabbit {
    pub fn start() -> Self {
        let certificate = Certificate::new();
        let tls = Tls {
            authority: certificate.path("ca.pem"),
            certificate: certificate.path("relay.pem"),
            key: certificate.path("relay.key"),
        };
        Self { node: Node::start(Some(tls)), certificate }
    }

    /// Where Tidings finds it.
    pub fn address(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.node.port())
    }

    /// The same by TLS, whose certificate is for `localhost`.
    pub fn tls_address(&self, host: &str) -> String {
        format!("amqps://{host}:{}", self.node.tls_port().expect("it was started with a certificate"))
    }

    /// The file of the authority that its certificate is by.
    pub fn authority(&self) -> String {
        self.certificate.authority().to_str().expect("a temporary path is UTF-8").to_owned()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.node.kill();
    }

    /// Starts it on what it left, and waits until it answers.
    pub fn restart(&mut self) {
        self.node.restart();
    }

    /// Ends it in order, and starts it again, so that queues that were made just now outlive a kill.
    pub fn settle(&mut self) {
        self.node.settle();
    }

    /// A command of `centre.py`, not yet started.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(python());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/queue/centre.py");
        command.arg(script).arg(format!("amqp://guest:guest@127.0.0.1:{}/%2F", self.node.port())).args(args);
        command
    }

    /// Runs a command of `centre.py` to its end; what it printed.
    pub fn tell(&self, args: &[&str]) -> String {
        self.tell_with(args, "")
    }

    /// The same with something on standard input.
    pub fn tell_with(&self, args: &[&str], input: &str) -> String {
        let mut command = self.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python is there");
        let mut stdin = child.stdin.take().expect("it is piped");
        let input = input.to_owned();
        let feeding = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().expect("it is ours");
        feeding.join().expect("it only writes");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Starts a command of `centre.py` that goes on beside the test.
    pub fn begin(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::null()).spawn().expect("Python is there")
    }

    /// Empties a queue; what was in it.
    pub fn bury(&self, queue: &str) -> Vec<Value> {
        let told = self.tell(&["bury", queue]);
        told.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    pub fn depth(&self, queue: &str) -> u64 {
        self.tell(&["depth", queue]).trim().parse().expect("a number")
    }
}

/// A Python with pika and Celery; its environment is made once and kept until `requirements.txt` changes.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let wanted = include_str!("requirements.txt");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("queue-venv");
        // Written last, so that an environment whose making was broken off is made anew.
        let stamp = folder.join("requirements.txt");
        if std::fs::read_to_string(&stamp).ok().as_deref() != Some(wanted) {
            let _ = std::fs::remove_dir_all(&folder);
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/queue/requirements.txt");
            run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(list));
            std::fs::write(&stamp, wanted).expect("ours to write");
        }
        folder.join("bin/python")
    })
}

fn run(command: &mut Command) {
    let output = command.output().expect("Python is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
