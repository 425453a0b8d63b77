//! Relays to send mail to: a real SMTP server, and one that keeps to a script. The certificates are made here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{DEADLINE, wait_for};

/// What makes the environment that Python's packages are in, and prints its interpreter.
const INTERPRETER: &str =
    "import('./interpreters.js').then(({ python }) => python()).then((path) => console.log(path))";

/// The Python interpreter that has the packages of `tests/clients/requirements.txt`, which are installed where they are missing.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let said =
            Command::new("node").args(["-e", INTERPRETER]).current_dir(clients).output().expect("node is installed");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("a path").trim().into()
    })
}

/// A certificate for `localhost`, and the authority it is by.
pub struct Certificate {
    dir: TempDir,
}

impl Certificate {
    pub fn new() -> Self {
        let this = Self { dir: tempfile::tempdir().expect("a directory") };
        let extensions = this.path("extensions");
        std::fs::write(&extensions, "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
            .expect("ours to write");
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        this.openssl(&[
            &["req", "-x509"],
            &key[..],
            &["-subj", "/CN=Authority", "-keyout", "ca.key", "-out", "ca.pem"],
        ]);
        this.openssl(&[&["req"], &key[..5], &["-subj", "/CN=localhost", "-keyout", "relay.key", "-out", "relay.csr"]]);
        this.openssl(&[
            &["x509", "-req", "-in", "relay.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
            &["-days", "2", "-extfile", "extensions", "-out", "relay.pem"],
        ]);
        this
    }

    pub fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &[&[&str]]) {
        let said = Command::new("openssl").args(args.concat()).current_dir(self.dir.path()).output();
        let said = said.expect("openssl is installed");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}

/// A real SMTP server, killed when dropped; `relay.py` says what it does.
pub struct Relay {
    child: Child,
    pub port: u16,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Relay {
    /// Without TLS and without users.
    pub fn open() -> Self {
        Self::start(&json!({}))
    }

    /// With TLS (`starttls` or `implicit`).
    pub fn with_tls(tls: &str, certificate: &Certificate, mut options: Value) -> Self {
        options["tls"] = json!(tls);
        options["cert"] = json!(certificate.path("relay.pem"));
        options["key"] = json!(certificate.path("relay.key"));
        Self::start(&options)
    }

    pub fn start(options: &Value) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/relay.py");
        let mut command = Command::new(python());
        command.arg(program).arg(options.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python is installed");
        let said: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (kept, out) = (said.clone(), child.stdout.take().expect("it is piped"));
        let (ready, first) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let value: Value = serde_json::from_str(&line).expect("the relay says JSON");
                match value["port"].as_u64() {
                    Some(port) => drop(ready.send(port)),
                    None => kept.lock().expect("nobody panics with it").push(value),
                }
            }
        });
        let port = first.recv_timeout(DEADLINE).expect("the relay starts");
        Self { child, port: u16::try_from(port).expect("a port"), said }
    }

    fn events(&self, event: &str) -> Vec<Value> {
        let said = self.said.lock().expect("nobody panics with it");
        said.iter().filter(|value| value["event"] == event).cloned().collect()
    }

    /// The mails it has taken so far.
    pub fn mails(&self) -> Vec<Value> {
        self.events("mail")
    }

    /// How many mails it has taken so far.
    pub fn taken(&self) -> usize {
        let said = self.said.lock().expect("nobody panics with it");
        said.iter().filter(|value| value["event"] == "mail").count()
    }

    /// The first mail to a recipient; waits for it.
    pub fn mail_to(&self, recipient: &str) -> Value {
        wait_for("a mail", || self.mails().into_iter().find(|mail| mail["recipients"] == json!([recipient])))
    }

    /// Connections it has taken so far.
    pub fn connections(&self) -> usize {
        self.events("connected").len()
    }

    /// Connections that it has turned away, since there were as many as it takes.
    pub fn turned_away(&self) -> usize {
        self.events("turned_away").len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A header of a mail as the relay tells it.
pub fn header(mail: &Value, name: &str) -> Option<String> {
    let headers = mail["headers"].as_array().expect("headers");
    let found = headers.iter().find(|header| header[0].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name)));
    found.and_then(|header| header[1].as_str()).map(str::to_owned)
}

/// What a scripted relay does next.
#[derive(Clone, Debug)]
pub enum Act {
    Say(&'static [u8]),
    /// Says this again and again, until nobody listens.
    Babble(&'static [u8]),
    /// Waits for a line that begins like this; another one ends the script.
    Hear(&'static str),
    /// Waits for the end of a mail's content.
    HearContent,
    /// Says nothing more until the other side ends the line.
    Hang,
}

/// A relay that keeps to a script: a list of acts for each connection, after which the line is cut.
pub struct Scripted {
    pub port: u16,
    /// Every line it heard, on whichever connection.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = heard.clone();
        std::thread::spawn(move || {
            for script in scripts {
                let Ok((socket, _)) = listener.accept() else { return };
                play(socket, &script, &kept);
            }
        });
        Self { port, heard }
    }

    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("nobody panics with it").clone()
    }
}

/// Plays one script to its end, or to that of the line.
fn play(mut socket: TcpStream, script: &[Act], heard: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(socket.try_clone().expect("a socket can be shared"));
    let mut hear = || {
        let mut line = String::new();
        let read = lines.read_line(&mut line).unwrap_or(0);
        let line = line.trim_end().to_owned();
        heard.lock().expect("nobody panics with it").push(line.clone());
        (read > 0).then_some(line)
    };
    for act in script {
        let goes_on = match act {
            Act::Say(text) => socket.write_all(text).is_ok(),
            Act::Babble(text) => loop {
                if socket.write_all(text).is_err() {
                    break false;
                }
            },
            Act::Hear(begin) => hear().is_some_and(|line| line.starts_with(begin)),
            Act::HearContent => loop {
                match hear() {
                    Some(line) if line == "." => break true,
                    Some(_) => {}
                    None => break false,
                }
            },
            Act::Hang => {
                let _ = socket.read_to_end(&mut Vec::new());
                false
            }
        };
        if !goes_on {
            return;
        }
    }
}
