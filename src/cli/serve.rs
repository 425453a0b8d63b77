//! `tidings serve`, and what `tidings demo` shares with it: from settings to a server that runs until a signal.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde::Serialize;
use tokio::sync::oneshot;

use super::settings::{Place, flag};
use super::signals::Signals;
use super::{Output, demo, logs};
use crate::config::Config;
use crate::server::listen::{self, Addresses, Inherited, Listener};
use crate::server::state::{self, Endpoint, StateDir};
use crate::server::{self, Deadlines, Ended, Server, Supervisor};

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
SIGTERM and Ctrl-C drain; a second Ctrl-C ends at once.";

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
    let flags = flags.into_iter().flatten();
    let config = match kind {
        Kind::Plain => args.place.load(flags)?,
        Kind::Demo => args.place.load_demo(flags)?,
    };
    logs::start(&config.log_filter, config.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(config, kind, inherited, Output::of(args.json)));
    // What still runs after the hard deadline is not waited for.
    runtime.shutdown_background();
    match ended? {
        Ended::Drained => Ok(()),
        Ended::Failed(reason) => anyhow::bail!("the log can't be written any more: {reason}"),
        Ended::TimedOut => anyhow::bail!("the server did not stop in time; what it had acknowledged is on disk"),
    }
}

async fn serve(mut config: Config, kind: Kind, inherited: Inherited, output: Output) -> anyhow::Result<Ended> {
    let mut signals = Signals::listen()?;
    let state = StateDir::open(&config.data)?;
    let listeners = listen::listen(&addresses(&config, &state), inherited)?;
    let endpoint = Endpoint {
        socket: listen::unix_path(&listeners).map(Path::to_owned).unwrap_or_default(),
        base_path: config.http.base_path.clone(),
    };
    state.tell_endpoint(&endpoint)?;
    let mut ready = Ready {
        url: listen::tcp_address(&listeners).map(|address| url(address, &config.http.base_path)),
        socket: listen::unix_path(&listeners).map(|path| path.display().to_string()),
        data: state.path().display().to_string(),
        demo: None,
    };
    let server = match kind {
        Kind::Plain => Server::build(server_config(config, Supervisor::Systemd), state).await?,
        Kind::Demo => {
            let users = demo::users(&config, &state)?;
            config.http.demo = Some(demo::sign_in(&users));
            let server = Server::build(server_config(config, Supervisor::Systemd), state).await?;
            ready.demo =
                Some(demo::prepare(server.broker(), server.state(), users).await.context("cannot prepare the demo")?);
            server
        }
    };
    announce(&ready, output)?;
    run_until_signal(server, listeners, &mut signals).await
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
        unix: config.socket.clone().unwrap_or_else(|| state::socket_in(state.path())),
        unix_mode: config.socket_mode,
    }
}

/// A server by these settings, and whom it tells how it is.
pub(super) fn server_config(config: Config, supervisor: Supervisor) -> server::Config {
    server::Config {
        max_connections: config.max_connections,
        jwt_secret_file: config.jwt_secret_file,
        deadlines: Deadlines { drain: config.drain_deadline, hard: config.hard_deadline },
        supervisor,
        http: config.http,
        broker: config.broker,
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
            Ready { url: Some("http://x".into()), socket: Some("/s".into()), data: "/d".into(), demo: None };
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
