//! `tidings serve`, and what `tidings demo` shares with it: from settings to a server that runs until a signal.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde::Serialize;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::settings::{Place, flag};
use super::signals::{self, Signals};
use super::{Output, demo, logs};
use crate::config::{Config, ConfigError};
use crate::http::{Process, Reload};
use crate::server::listen::{self, Addresses, Inherited, Listener, Role};
use crate::server::state::{self, Endpoint, StateDir};
use crate::server::{self, Control, Deadlines, Ended, Server, Supervisor};

/// Exit code of a process that Ctrl-C ended, by the shells' convention.
const EXIT_INTERRUPTED: i32 = 130;

const EXAMPLES: &str = "\
Examples:
  tidings demo                                       try it, in ./tidings-demo
  tidings serve --data ./state                       on 127.0.0.1:8383
  tidings serve --config tidings.toml --listen 127.0.0.1:0 --json
  TIDINGS_HTTP_BASE_PATH=/tidings tidings serve --data ./state

With --json one line on standard output says that the server is ready:
{\"url\",\"socket\",\"data\"}, from the demo with \"key\" and \"users\" as well.
SIGTERM and Ctrl-C drain; a second Ctrl-C ends at once.
Exit codes: 64 settings, 65 the database can't be used, 73 the directory can't be made,
74 the disk failed, 75 in use or no room, 77 not ours or read-only; 1 anything else.";

/// Flags of `serve` and `demo`.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Where to listen, as IP:PORT; port 0 takes a free one; "none" leaves only the unix socket [default: 127.0.0.1:8383]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The path under which everything stands, such as /tidings
    #[arg(long, value_name = "PATH")]
    base_path: Option<String>,
    /// Print one line of JSON when ready
    #[arg(long)]
    json: bool,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Demo,
}

/// What scripts learn when the server is ready.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    /// `None` where there is no TCP.
    pub(super) url: Option<String>,
    /// For those who watch the server; `None` where there is no such listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ops: Option<String>,
    pub(super) socket: Option<String>,
    pub(super) data: String,
    #[serde(flatten)]
    pub(super) demo: Option<demo::Ready>,
}

pub(super) fn run(args: &Args, kind: Kind) -> anyhow::Result<()> {
    // Takes variables out of the environment, so before there is any thread.
    let inherited = Inherited::take()?;
    let flags = [
        flag("http.listen", "--listen", args.listen.as_ref()),
        flag("http.base_path", "--base-path", args.base_path.as_ref()),
    ];
    let flags: Vec<_> = flags.into_iter().flatten().collect();
    let load = || match kind {
        Kind::Plain => args.place.load(flags.clone()),
        Kind::Demo => args.place.load_demo(flags.clone()),
    };
    let config = load()?;
    let filter = logs::start(&config.log_filter, config.log_format)?;
    let settings = Settings { load: &load, in_force: config.clone(), filter };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(settings, config, kind, inherited, Output::of(args.json)));
    // What still runs after the hard deadline is not waited for.
    runtime.shutdown_background();
    match ended? {
        Ended::Drained => Ok(()),
        Ended::Failed(failure) => Err(anyhow::Error::from(failure).context("the log can't be written any more")),
        Ended::TimedOut => anyhow::bail!("the server did not stop in time; what it had acknowledged is on disk"),
    }
}

async fn serve(
    settings: Settings<'_>,
    mut config: Config,
    kind: Kind,
    inherited: Inherited,
    output: Output,
) -> anyhow::Result<Ended> {
    let mut signals = Signals::listen()?;
    let hangups = signals::hangups()?;
    let state = StateDir::open(&config.data)?;
    let listeners = listen::listen(&addresses(&config, &state), inherited)?;
    let endpoint =
        Endpoint { socket: state::operator_socket_in(state.path()), base_path: config.http.base_path.clone() };
    state.tell_endpoint(&endpoint)?;
    let mut ready = Ready {
        url: listen::tcp_address(&listeners, Role::Public).map(|address| url(address, &config.http.base_path)),
        ops: listen::tcp_address(&listeners, Role::Watcher).map(|address| url(address, "")),
        socket: listen::unix_path(&listeners, Role::Public).map(|path| path.display().to_string()),
        data: state.path().display().to_string(),
        demo: None,
    };
    let (reloads, asked) = mpsc::channel(1);
    let process = Process { reloads: Some(reloads), listens: server::places(&listeners) };
    let server = match kind {
        Kind::Plain => Server::build(server_config(config, Supervisor::Systemd), state, process).await?,
        Kind::Demo => {
            let users = demo::users(&config, &state)?;
            config.http.demo = Some(demo::sign_in(&users));
            let server = Server::build(server_config(config, Supervisor::Systemd), state, process).await?;
            ready.demo =
                Some(demo::prepare(server.broker(), server.state(), users).await.context("cannot prepare the demo")?);
            server
        }
    };
    announce(&ready, output)?;
    let reloading = settings.follow(server.control(), asked, hangups);
    let (ended, ()) = tokio::join!(run_until_signal(server, listeners, &mut signals), reloading);
    ended
}

/// The settings in force, and where they are read from.
struct Settings<'s> {
    load: &'s dyn Fn() -> Result<Config, ConfigError>,
    in_force: Config,
    filter: logs::Filter,
}

impl Settings<'_> {
    /// Reads them again at each SIGHUP and whenever asked, until the drain begins.
    async fn follow(mut self, control: Control, mut asked: mpsc::Receiver<Reload>, mut hangups: Signal) {
        loop {
            let answer = tokio::select! {
                biased;
                () = control.draining() => return,
                Some(answer) = asked.recv() => Some(answer),
                Some(()) = hangups.recv() => None,
            };
            let outcome = self.reload(&control);
            match &outcome {
                Ok(fixed) if fixed.is_empty() => tracing::info!("Settings were read again"),
                Ok(fixed) => tracing::warn!(
                    settings = fixed.join(" "),
                    "Settings were read again; these have changed and count only after a restart"
                ),
                Err(faults) => {
                    tracing::error!(
                        faults,
                        "Settings can't be used and stay as they were; `tidings config check` helps"
                    );
                }
            }
            if let Some(answer) = answer {
                // Whoever asked may have gone.
                let _ = answer.send(outcome);
            }
        }
    }

    /// All that can be changed, or nothing. Which settings have changed and count only after a restart.
    fn reload(&mut self, control: &Control) -> Result<Vec<&'static str>, String> {
        let mut read = None;
        control.reload(|| {
            let config = (self.load)().map_err(|error| error.to_string())?;
            let filter = logs::read(&config.log_filter).map_err(|error| error.to_string())?;
            let server = server_config(config.clone(), Supervisor::Systemd);
            read = Some((config, filter));
            Ok(server)
        })?;
        let (config, filter) = read.expect("it was read, or there was an error");
        self.filter.set(filter);
        // Against what the process started with: that is what still counts of these.
        Ok(self.in_force.fixed(&config))
    }
}

/// Runs the server; a second Ctrl-C leaves the process without waiting for the drain.
async fn run_until_signal(server: Server, listeners: Vec<Listener>, signals: &mut Signals) -> anyhow::Result<Ended> {
    let (stop, stopped) = oneshot::channel();
    let impatience = async {
        signals.stop().await;
        // The server is gone only when this future is dropped too.
        let _ = stop.send(());
        signals.interrupt().await;
    };
    tokio::select! {
        ended = server.run(listeners, async { stopped.await.unwrap_or_default() }) => Ok(ended),
        () = impatience => {
            tracing::warn!("Interrupted again: leaving without the rest of the drain");
            std::process::exit(EXIT_INTERRUPTED)
        }
    }
}

fn addresses(config: &Config, state: &StateDir) -> Addresses {
    Addresses {
        tcp: config.listen,
        unix: Some(config.socket.clone().unwrap_or_else(|| state::socket_in(state.path()))),
        unix_mode: config.socket_mode,
        operator: state::operator_socket_in(state.path()),
        watcher: config.ops_listen,
    }
}

/// A server by these settings, and whom it tells how it is.
pub(super) fn server_config(config: Config, supervisor: Supervisor) -> server::Config {
    server::Config {
        max_connections: config.max_connections,
        jwt_secret_file: config.jwt_secret_file,
        jwt_keys: config.jwt_keys,
        deadlines: Deadlines { drain: config.drain_deadline, hard: config.hard_deadline },
        supervisor,
        http: config.http,
        intake: config.intake,
        broker: config.broker,
        deliver: Some(config.deliver),
        robots: config.dingtalk,
    }
}

/// The address that a browser on this machine opens.
fn url(address: SocketAddr, base_path: &str) -> String {
    let reachable = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}{base_path}", SocketAddr::new(reachable, address.port()))
}

fn announce(ready: &Ready, output: Output) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match (output, &ready.demo) {
        (Output::Json, _) => writeln!(out, "{}", serde_json::to_string(ready)?)?,
        (Output::People, Some(demo)) => write!(out, "{}", demo::welcome(ready, demo))?,
        // The log says where it listens.
        (Output::People, None) => {}
    }
    out.flush().context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_one_that_a_browser_here_can_open() {
        for (address, expected) in [
            ("127.0.0.1:8383", "http://127.0.0.1:8383/tidings"),
            ("0.0.0.0:80", "http://127.0.0.1:80/tidings"),
            ("[::]:8383", "http://[::1]:8383/tidings"),
            ("192.0.2.7:8383", "http://192.0.2.7:8383/tidings"),
        ] {
            assert_eq!(url(address.parse().expect("an address"), "/tidings"), expected);
        }
    }

    #[test]
    fn the_ready_line_is_what_scripts_were_promised() {
        let mut ready =
            Ready { url: Some("http://x".into()), ops: None, socket: Some("/s".into()), data: "/d".into(), demo: None };
        let line = |ready: &Ready| serde_json::to_string(ready).expect("plain fields");
        assert_eq!(line(&ready), r#"{"url":"http://x","socket":"/s","data":"/d"}"#);
        ready.demo = Some(demo::Ready {
            key: "tk_1_2".into(),
            users: vec![demo::User { id: "alice".into(), name: "Alice", token: "t".into() }],
        });
        assert_eq!(
            line(&ready),
            r#"{"url":"http://x","socket":"/s","data":"/d","key":"tk_1_2","users":[{"id":"alice","token":"t"}]}"#
        );
    }
}
