//! A RabbitMQ of one's own: a node with its ports, its name, its directories and its cookie, as a child that is killed when it
//! is dropped. The tests of the queue use it, and the bench of the intake.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// How long a node may take to start: some ten seconds are usual.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(5);
/// Where Debian keeps the script that stays what it was started as; the one in the path becomes another user.
const SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Below those that the kernel gives to whoever connects.
const PORTS: std::ops::Range<u16> = 21_000..31_000;
/// What a client of AMQP 0-9-1 says first.
const GREETING: &[u8] = b"AMQP\0\0\x09\x01";

/// Waits until `found` finds something; as `support::wait_for`, with the patience that a node's start takes.
pub fn wait_long<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// A port that is free.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    let own = u16::try_from(std::process::id() * 13 % u32::from(span)).expect("less than the span");
    (0..span)
        .map(|_| PORTS.start + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % span)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}

/// What a node shows to those who come by TLS.
pub struct Tls {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A node, or what it left.
pub struct Node {
    dir: TempDir,
    port: u16,
    tls: Option<(u16, Tls)>,
    epmd_port: u16,
    distribution_port: u16,
    /// Knows the names of nodes; started here, or Erlang would leave one behind for everybody.
    epmd: Child,
    running: Option<Child>,
}

impl Node {
    /// Starts one, and waits until it answers.
    pub fn start(tls: Option<Tls>) -> Self {
        assert!(Path::new(SCRIPT).exists(), "{SCRIPT} is not there: apt-get install rabbitmq-server");
        let dir = tempfile::tempdir().expect("a directory for the node");
        let epmd_port = free_port();
        let epmd = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()])
            .env_clear()
            .stdin(Stdio::null())
            .spawn()
            .expect("epmd comes with Erlang");
        let (port, distribution_port) = (free_port(), free_port());
        let tls = tls.map(|tls| (free_port(), tls));
        let mut this = Self { dir, port, tls, epmd_port, distribution_port, epmd, running: None };
        this.restart();
        this
    }

    /// Where it takes plain connections, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it takes TLS.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls.as_ref().map(|(port, _)| *port)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut node) = self.running.take() {
            // The node and what it has started.
            let _ = kill_process_group(Pid::from_child(&node), Signal::KILL);
            let _ = node.wait();
        }
    }

    /// Ends it in order, and starts it again. RabbitMQ writes down lazily which queues there are: one that was made just now is
    /// gone after a kill, with every message in it that a producer was told is safe.
    pub fn settle(&mut self) {
        if let Some(mut node) = self.running.take() {
            let _ = kill_process_group(Pid::from_child(&node), Signal::TERM);
            wait_long("RabbitMQ to end", || node.try_wait().expect("it is ours"));
        }
        self.restart();
    }

    /// Starts it on what it left, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill();
        let file = |name: &str| self.dir.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(file("log.txt")).expect("ours to write");
        std::fs::write(file("plugins"), "[].").expect("ours to write");
        let mut settings = String::new();
        if let Some((port, tls)) = &self.tls {
            let lines = [
                format!("listeners.ssl.local = 127.0.0.1:{port}"),
                format!("ssl_options.cacertfile = {}", tls.authority.display()),
                format!("ssl_options.certfile = {}", tls.certificate.display()),
                format!("ssl_options.keyfile = {}", tls.key.display()),
                "ssl_options.verify = verify_none".to_owned(),
                "ssl_options.fail_if_no_peer_cert = false\n".to_owned(),
            ];
            settings = lines.join("\n");
        }
        std::fs::write(file("rabbitmq.conf"), settings).expect("ours to write");
        let node = Command::new(SCRIPT)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", self.dir.path())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("tidings-{}@localhost", self.port))
            .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_PID_FILE", file("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"))
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the script is there");
        self.running = Some(node);
        wait_long("RabbitMQ", || {
            let ended = self.running.as_mut().and_then(|node| node.try_wait().expect("it is ours"));
            assert!(ended.is_none(), "RabbitMQ ended with {ended:?}: {}", self.log());
            self.answers().then_some(())
        });
    }

    /// Whether it says how it would speak.
    fn answers(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut first = [0];
        socket.set_read_timeout(Some(PATIENCE)).is_ok()
            && socket.write_all(GREETING).is_ok()
            && socket.read_exact(&mut first).is_ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log.txt")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = self.epmd.kill();
        let _ = self.epmd.wait();
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            println!("RabbitMQ's last lines, newest first:\n{}", last.join("\n"));
        }
    }
}
