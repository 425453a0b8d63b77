//! The servers of a bench, as child processes, and what the kernel says of them.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{binary, http, scratch};

/// How long a child may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child that does not outlive its owner.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line of its standard output.
    pub fn first_line(&mut self) -> anyhow::Result<String> {
        let out = self.child.stdout.take().context("standard output is not piped")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(!line.is_empty(), "a child ended before it was ready");
        Ok(line)
    }

    /// Asks it to end and waits.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a child has an id")?;
        kill_process(id, Signal::TERM)?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < PATIENCE, "a child does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running Tidings on a state directory.
pub struct Tidings {
    process: Process,
    pub address: SocketAddr,
    pub data: PathBuf,
    /// From the start of the process to the line that says that it is ready.
    pub ready_after: Duration,
}

impl Tidings {
    /// Starts `tidings serve` on a free port.
    pub fn start(data: &Path) -> anyhow::Result<Self> {
        Self::start_with(data, |_| ())
    }

    /// The same with settings of the caller's.
    pub fn start_with(data: &Path, settings: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(binary());
        settings(&mut command);
        command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"]).arg(data);
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
        let ready: Value = serde_json::from_str(&process.first_line()?)?;
        let ready_after = begun.elapsed();
        let address = ready["url"].as_str().and_then(|url| url.strip_prefix("http://")).context("no url")?.parse()?;
        Ok(Self { process, address, data: data.to_owned(), ready_after })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn stop(self) -> anyhow::Result<()> {
        self.process.stop()
    }

    /// A key that may do everything.
    pub fn key(&self) -> anyhow::Result<String> {
        let out = Command::new(binary())
            .args(["key", "create", "--name", "bench", "--all-scopes", "--json", "--data"])
            .arg(&self.data)
            .stderr(Stdio::inherit())
            .output()?;
        let made: Value = serde_json::from_slice(&out.stdout).context("`tidings key create` said no JSON")?;
        Ok(made["key"].as_str().context("no key")?.to_owned())
    }

    /// Mints a token for each of the users `u0`, `u1`, …, into a file with one a line.
    pub fn tokens(&self, users: usize) -> anyhow::Result<PathBuf> {
        let path = self.data.join("tokens");
        let mut child = Command::new(binary())
            .args(["token", "--users", "-", "--data"])
            .arg(&self.data)
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&path)?)
            .spawn()?;
        let mut names = child.stdin.take().context("standard input is piped")?;
        names.write_all(user_lines(users, |user| format!("u{user}")).as_bytes())?;
        drop(names);
        ensure!(child.wait()?.success(), "`tidings token` failed");
        Ok(path)
    }

    /// Makes the users `u0`, `u1`, … follow a topic.
    pub fn follow(&self, key: &str, topic: &str, users: usize) -> anyhow::Result<()> {
        let lines = user_lines(users, |user| format!("{{\"user\":\"u{user}\"}}"));
        let path = format!("/v1/topics/{topic}/followers");
        let answer = http::post(self.address, &path, key, "application/x-ndjson", lines.as_bytes())?;
        let told: Value = serde_json::from_slice(&answer)?;
        ensure!(told["failed"] == 0, "not everybody follows: {told}");
        Ok(())
    }

    /// Publishes so many notifications to a topic in batches; returns the cursor of the last.
    pub fn fill(&self, key: &str, count: usize, mut line: impl FnMut(usize) -> String) -> anyhow::Result<String> {
        const BATCH: usize = 5_000;
        let mut cursor = None;
        for first in (0..count).step_by(BATCH) {
            let mut body = String::new();
            for number in first..count.min(first + BATCH) {
                writeln!(body, "{}", line(number))?;
            }
            let path = "/v1/notifications";
            let answer = http::post(self.address, path, key, "application/x-ndjson", body.as_bytes())?;
            let last = answer.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let last: Value = serde_json::from_slice(last)?;
            cursor = last["cursor"].as_str().map(str::to_owned);
            ensure!(cursor.is_some(), "a publish was refused: {last}");
        }
        cursor.context("nothing was published")
    }
}

fn user_lines(users: usize, line: impl Fn(usize) -> String) -> String {
    (0..users).map(|user| line(user) + "\n").collect()
}

/// nginx with nchan, where both are installed.
pub struct Nchan {
    process: Process,
    pub address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Nchan {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

    /// Starts it with `nchan.conf`; `None` where it is not installed.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let nginx = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].into_iter().find(|path| Path::new(path).exists());
        let Some(nginx) = nginx.filter(|_| Path::new(Self::MODULE).exists()) else { return Ok(None) };
        let directory = scratch()?;
        // A free port: taken, noted and given back.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let text = include_str!("../nchan.conf")
            .replace("@directory@", &directory.path().display().to_string())
            .replace("@listen@", &address.to_string());
        let config = directory.path().join("nginx.conf");
        std::fs::write(&config, text)?;
        let log = directory.path().join("error.log");
        let mut command = Command::new(nginx);
        command.arg("-c").arg(&config).arg("-e").arg(&log).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(&mut command)?;
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if process.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                bail!("nginx did not start: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(Self { process, address, _directory: directory }))
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn stop(self) -> anyhow::Result<()> {
        self.process.stop()
    }
}

/// The least work a fan-out can be, in a process of its own.
pub struct Floor {
    process: Process,
    pub address: SocketAddr,
}

impl Floor {
    pub fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = Process::start(command.arg("--floor").stdout(Stdio::piped()))?;
        let address = process.first_line()?.trim().parse()?;
        Ok(Self { process, address })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// CPU seconds of a process and its children.
pub fn cpu_seconds(process: u32) -> f64 {
    // Linux on every platform that Rust knows says 100 here.
    const TICKS_PER_SECOND: f64 = 100.0;
    let own = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in brackets, may hold spaces.
    let fields: Vec<&str> = own.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields.get(11..13).into_iter().flatten().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    let below = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let below: f64 = below.split_whitespace().filter_map(|child| child.parse().ok()).map(cpu_seconds).sum();
    ticks / TICKS_PER_SECOND + below
}

/// Resident memory of a process in KiB.
pub fn resident_kib(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
