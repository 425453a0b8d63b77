//! The real binary on a directory of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Answer, Ask, Connection, Place};
use super::sse::Sse;
use super::{DEADLINE, token, wait_for};

/// The binary of this build; full forms name another, built for release, as `TIDINGS_BIN`.
fn binary() -> OsString {
    std::env::var_os("TIDINGS_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidings").into())
}

/// The binary, without settings of whoever runs the tests and with nothing on its standard input.
pub fn tidings() -> Command {
    let mut command = without_settings(Command::new(binary()));
    command.stdin(Stdio::null());
    command
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    command
}

/// How a server is started.
#[derive(Debug)]
pub struct Setup {
    verb: &'static str,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    listen: &'static str,
    /// A listening socket that is handed over as systemd does.
    inherit: Option<TcpListener>,
    /// A directory that was used before.
    dir: Option<TempDir>,
}

/// Puts the socket from standard input where systemd puts it, and becomes the server. A process can only learn its own
/// number for `LISTEN_PID` by itself, hence the shell.
const HAND_OVER: &str =
    "exec 3<&0 0</dev/null; LISTEN_PID=$$; LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec \"$0\" \"$@\"";

impl Setup {
    pub fn serve() -> Self {
        Self { verb: "serve", args: Vec::new(), env: Vec::new(), listen: "127.0.0.1:0", inherit: None, dir: None }
    }

    pub fn demo() -> Self {
        Self { verb: "demo", ..Self::serve() }
    }

    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn only_unix(mut self) -> Self {
        self.listen = "none";
        self
    }

    /// Listens on every address of this machine, not on loopback alone.
    pub fn everywhere(mut self) -> Self {
        self.listen = "0.0.0.0:0";
        self
    }

    /// With a settings file of its own.
    pub fn config(self, file: &Path) -> Self {
        self.arg("--config").arg(file.to_str().expect("temporary paths are UTF-8"))
    }

    pub fn inherit(mut self, listener: &TcpListener) -> Self {
        self.inherit = Some(listener.try_clone().expect("a socket can be shared"));
        self
    }

    pub fn on(mut self, dir: TempDir) -> Self {
        self.dir = Some(dir);
        self
    }

    pub fn start(self) -> Server {
        self.attempt().unwrap_or_else(|refused| panic!("the server did not start: {refused:?}"))
    }

    /// Starts a server that may refuse.
    ///
    /// # Errors
    /// How it ended, with its directory.
    pub fn attempt(mut self) -> Result<Server, Refused> {
        let dir = self.dir.take().unwrap_or_else(|| tempfile::tempdir().expect("a directory for the server"));
        match Run::start(self.command(dir.path())) {
            Ok(run) => Ok(Server { setup: self, dir, run }),
            Err(Ended { code, log }) => Err(Refused { code, log, dir }),
        }
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = match &self.inherit {
            None => tidings(),
            Some(listener) => {
                let mut shell = without_settings(Command::new("sh"));
                let socket = OwnedFd::from(listener.try_clone().expect("a socket can be shared"));
                shell.args(["-c", HAND_OVER]).arg(binary()).stdin(Stdio::from(socket));
                shell
            }
        };
        command.arg(self.verb).args(["--json", "--listen", self.listen, "--data"]).arg(data).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A server that did not start.
#[derive(Debug)]
pub struct Refused {
    /// Its exit code; `None` where it had to be killed.
    pub code: Option<i32>,
    pub log: String,
    pub dir: TempDir,
}

/// How a run ended that never was ready.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    log: String,
}

/// One run of the process.
struct Run {
    child: Child,
    /// What it said when it was ready.
    ready: Value,
    log: Arc<Mutex<String>>,
    place: Place,
}

/// How long a server may take to recount what a test left in it; one that a test has stopped or filled up says nothing.
const RECOUNT: Duration = Duration::from_secs(5);

impl Run {
    /// Recounts every inbox from first principles, while the server still runs; what drifted.
    fn drifted(&mut self) -> Option<Value> {
        if self.child.try_wait().ok()?.is_some() {
            return None;
        }
        let socket = self.ready["socket"].as_str()?;
        let credential = std::fs::read_to_string(Path::new(self.ready["data"].as_str()?).join("operator.key")).ok()?;
        let url = self.ready["url"].as_str().unwrap_or_default();
        let base = url.splitn(4, '/').nth(3).map(|rest| rest.trim_end_matches('/')).unwrap_or_default();
        let target = if base.is_empty() { String::new() } else { format!("/{base}") };
        let ask = Ask::post(&format!("{target}/v1/upkeep/recount"));
        let ask = ask.bearer(credential.trim()).json(&json!({ "after": 0, "repair": false }));
        let mut connection = Connection::open(&Place::Unix(socket.into())).ok()?;
        connection.socket().patience(RECOUNT).ok()?;
        connection.send(&ask.header("connection", "close").to_bytes()).ok()?;
        let answer = connection.answer().ok()?;
        (answer.status() == 200).then(|| answer.json()["drifted"].clone())
    }

    /// Starts it and waits until it is ready; what it logged where it does not get there.
    fn start(mut command: Command) -> Result<Self, Ended> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary is built");
        let log = Arc::new(Mutex::new(String::new()));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (sender, line) = channel();
        let kept = log.clone();
        std::thread::spawn(move || {
            let mut out = BufReader::new(stdout.expect("standard output is piped"));
            let mut line = String::new();
            let _ = out.read_line(&mut line);
            let _ = sender.send(line);
            // Kept open until the end: a server whose reader is gone must not notice.
            keep(out, &kept);
        });
        let kept = log.clone();
        let saying = std::thread::spawn(move || keep(BufReader::new(stderr.expect("standard error is piped")), &kept));
        let line = line.recv_timeout(DEADLINE).unwrap_or_default();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            let code = child.wait().ok().and_then(|status| status.code());
            let _ = saying.join();
            return Err(Ended { code, log: log.lock().expect("nobody panics with the log").clone() });
        };
        let url = ready["url"].as_str().unwrap_or_default();
        let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()?.parse().ok());
        let socket = || Place::Unix(ready["socket"].as_str().unwrap_or_default().into());
        Ok(Self { place: address.map_or_else(socket, Place::Tcp), child, ready, log })
    }
}

/// Keeps what is said, line by line, to its end.
fn keep(said: impl BufRead, kept: &Mutex<String>) {
    for line in said.lines().map_while(Result::ok) {
        let mut kept = kept.lock().expect("nobody panics with the log");
        kept.push_str(&line);
        kept.push('\n');
    }
}

/// Every test's server is recounted when it ends: a badge that lies fails the test that made it, whatever it was about.
impl Drop for Run {
    fn drop(&mut self) {
        let drifted = if std::thread::panicking() { None } else { self.drifted() };
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(drifted) = drifted {
            assert_eq!(drifted, json!([]), "stored counts are not what a recount gives");
        }
    }
}

/// A server that runs; killed when dropped.
pub struct Server {
    setup: Setup,
    dir: TempDir,
    run: Run,
}

impl Server {
    pub fn start() -> Self {
        Setup::serve().start()
    }

    pub fn place(&self) -> &Place {
        &self.run.place
    }

    pub fn unix(&self) -> Place {
        Place::Unix(self.run.ready["socket"].as_str().expect("the server has a socket").into())
    }

    /// The operator's own socket.
    pub fn operators(&self) -> Place {
        Place::Unix(self.data().join("ops.sock"))
    }

    /// Where those who watch the server ask.
    pub fn watchers(&self) -> Place {
        let url = self.run.ready["ops"].as_str().expect("the server has a listener for watchers");
        Place::Tcp(url.trim_start_matches("http://").parse().expect("IP:PORT"))
    }

    pub fn url(&self) -> &str {
        self.run.ready["url"].as_str().expect("the server listens")
    }

    /// What it said when it was ready.
    pub fn ready(&self) -> &Value {
        &self.run.ready
    }

    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.run.child.id()
    }

    /// What this run has logged so far, and whatever it said besides when it was ready.
    pub fn log(&self) -> String {
        self.run.log.lock().expect("nobody panics with the log").clone()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.run.child.kill().expect("it runs");
        self.run.child.wait().expect("it is ours");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.run.child), signal).expect("it runs");
    }

    /// Waits until it ends by itself.
    pub fn exit(&mut self) -> ExitStatus {
        wait_for("the server's end", || self.run.child.try_wait().expect("it is ours"))
    }

    /// Asks it to drain; its exit status and how long it took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        (self.exit(), asked.elapsed())
    }

    /// Ends it and leaves its directory.
    pub fn stop(self) -> TempDir {
        drop(self.run);
        self.dir
    }

    /// Starts it again on the same directory, on another port.
    pub fn restart(&mut self) {
        if self.run.child.try_wait().expect("it is ours").is_none() {
            self.kill();
        }
        let run = Run::start(self.setup.command(self.dir.path()));
        self.run = run.unwrap_or_else(|ended| panic!("the server did not start again: {ended:?}"));
    }

    /// The operator's credential of this run.
    pub fn operator(&self) -> String {
        let text = std::fs::read_to_string(self.data().join("operator.key")).expect("every run writes it");
        text.trim().to_owned()
    }

    /// A new API key.
    pub fn key(&self, scopes: &[&str]) -> String {
        let ask = Ask::post("/v1/keys").bearer(&self.operator()).json(&json!({ "name": "test", "scopes": scopes }));
        ask.send(self.place()).expect(201).json()["key"].as_str().expect("a key").to_owned()
    }

    /// A user's token, good for an hour.
    pub fn token(&self, user: &str) -> String {
        self.token_for(&json!({ "sub": user, "exp": token::now() + 3600 }))
    }

    /// A token with these claims.
    pub fn token_for(&self, claims: &Value) -> String {
        token::sign(self.data(), claims)
    }

    pub fn send(&self, ask: &Ask) -> Answer {
        ask.send(self.place())
    }

    /// Asks as the operator.
    pub fn operate(&self, ask: Ask) -> Answer {
        self.send(&ask.bearer(&self.operator()))
    }

    /// Publishes as the operator; the answer.
    pub fn publish(&self, body: &Value) -> Value {
        self.operate(Ask::post("/v1/notifications").json(body)).expect(201).json()
    }

    /// Publishes a title to one user.
    pub fn notify(&self, user: &str, title: &str) -> Value {
        self.publish(&json!({ "to": { "user": user }, "title": title }))
    }

    pub fn follow(&self, topic: &str, user: &str) -> Value {
        self.operate(Ask::put(&format!("/v1/topics/{}/followers/{user}", topic.replace('/', "%2F")))).expect(200).json()
    }

    /// Opens a user's stream; `query` begins with a `?` or is empty.
    pub fn stream(&self, user: &str, query: &str) -> Sse {
        Sse::open(self.place(), Ask::get(&format!("/v1/stream{query}")).bearer(&self.token(user)))
    }

    /// Opens a user's stream from a cursor, as an EventSource that comes back.
    pub fn resume(&self, user: &str, cursor: &str) -> Sse {
        let ask = Ask::get("/v1/stream").bearer(&self.token(user)).header("last-event-id", cursor);
        Sse::open(self.place(), ask)
    }

    /// A user's inbox, newest first.
    pub fn inbox(&self, user: &str) -> Value {
        self.send(&Ask::get("/v1/inbox?limit=100").bearer(&self.token(user))).expect(200).json()
    }

    /// Marks entries of a user.
    pub fn mark(&self, user: &str, body: &Value) -> Value {
        self.send(&Ask::post("/v1/inbox/mark").bearer(&self.token(user)).json(body)).expect(200).json()
    }

    /// A user's ticket, made by the user's own token.
    pub fn ticket(&self, user: &str) -> String {
        let made = self.send(&Ask::post("/v1/tickets").bearer(&self.token(user))).expect(201).json();
        made["ticket"].as_str().expect("a ticket").to_owned()
    }
}
