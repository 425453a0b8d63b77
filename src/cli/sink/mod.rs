//! `tidings sink`: stands where DingTalk and a mail server would, on this machine, prints what is sent to it, checks it, and
//! answers as they would. It is also what the tests send to.
//!
//! **Invariants**: it listens on loopback addresses and nowhere else. What it answers is what the other side would have
//! answered to the same, unless `--fail` says otherwise. What is held of each sender is bounded.
//!
//! It deliberately keeps nothing: what came is printed, and counted.

mod dingtalk;
mod mail;
mod reception;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use self::dingtalk::{Arrived, SEND_PATH};
use self::reception::Reception;
use super::show::number;
use super::signals::Signals;
use super::{Output, Usage, say};
use crate::deliver::dingtalk::{PER_MINUTE, Secret};

/// Connections at most that are served at once; others wait.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request at most. A message of DingTalk has 20,000; what is longer is still to be told how much too long it is.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long an answer is held back by `--fail slow`: longer than anybody waits.
const SLOW: Duration = Duration::from_secs(120);
/// How long nothing is accepted after an error.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the head of a request may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

pub(super) const EXAMPLES: &str = "\
Examples:
  tidings sink                                       a DingTalk on this machine
  tidings sink --secret SEC000000                    whose robots want a signature
  tidings sink --smtp 127.0.0.1:8026                 and a mail server
  tidings sink --fail 130101 --times 3               says three times that it is too fast
  tidings sink --fail slow                           never answers in time
  tidings sink --json | jq -r .title

It prints the address that goes into a robot's url_file; any access_token will do, each is a robot of its own. Each
message is checked as DingTalk does (signature, 20 messages a minute, 20,000 bytes) and beyond it (whether everybody who is
meant is named in the text too). Ctrl-C ends it with a summary; exit code 1 where a message was wrong.
With --json: a line when it listens, {\"ready\",\"dingtalk\",\"smtp\"}, then one a message,
{\"medium\",\"robot\",\"at\",\"title\",\"text\",\"people\",\"bytes\",\"answer\",\"faults\"}.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SinkArgs {
    /// Where robots' messages are taken, as IP:PORT of this machine; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8025")]
    listen: SocketAddr,
    /// Where mail is taken, as IP:PORT of this machine
    #[arg(long, value_name = "ADDRESS")]
    smtp: Option<SocketAddr>,
    /// The secret with which robots must sign; without it signatures are not looked at
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// What robots' messages are answered instead: an errcode, an HTTP status, slow, close, rubbish or redirect
    #[arg(long, value_name = "WHAT", allow_negative_numbers = true)]
    fail: Option<Failing>,
    /// How many of them, the first; all others are answered as they deserve
    #[arg(long, value_name = "NUMBER", requires = "fail")]
    times: Option<u64>,
    /// Messages a minute that a robot may send
    #[arg(long, value_name = "NUMBER", default_value_t = PER_MINUTE)]
    per_minute: usize,
    /// Print JSON, a line each
    #[arg(long)]
    json: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    Errcode(i64),
    Status(StatusCode),
    Slow,
    Close,
    Rubbish,
    Redirect,
}

impl FromStr for Failing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || "is no errcode (130101), HTTP status (500), slow, close, rubbish or redirect".to_owned();
        match text {
            "slow" => Ok(Self::Slow),
            "close" => Ok(Self::Close),
            "rubbish" => Ok(Self::Rubbish),
            "redirect" => Ok(Self::Redirect),
            number => match number.parse().map_err(|_| told())? {
                0 => Err("an errcode of 0 is no failure".to_owned()),
                status @ 200..=599 => {
                    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
                    status.map(Self::Status).ok_or_else(told)
                }
                errcode => Ok(Self::Errcode(errcode)),
            },
        }
    }
}

/// Listens until Ctrl-C.
///
/// # Errors
/// Where it can't listen there, and at the end where a message was wrong.
pub(super) async fn run(args: SinkArgs) -> anyhow::Result<()> {
    for address in [Some(args.listen), args.smtp].into_iter().flatten() {
        if !address.ip().is_loopback() {
            let told =
                format!("{address} is not of this machine alone: name a loopback address, such as 127.0.0.1:8025");
            return Err(Usage(told).into());
        }
    }
    let secret = args.secret.as_deref().and_then(Secret::new);
    let mut signals = Signals::listen()?;
    let robots = listen(args.listen).await?;
    let mails = match args.smtp {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let address = robots.local_addr()?;
    let url = format!("http://{address}{SEND_PATH}?access_token=sink");
    let smtp = mails.as_ref().map(TcpListener::local_addr).transpose()?.map(|address| format!("smtp://{address}"));
    let output = Output::of(args.json);
    match output {
        Output::Json => say(json!({ "ready": true, "dingtalk": url, "smtp": smtp }))?,
        Output::People => {
            say(format_args!("DingTalk  {url}"))?;
            smtp.iter().try_for_each(|smtp| say(format_args!("Mail      {smtp}")))?;
        }
    }
    let reception = Rc::new(Reception::new(output, args.per_minute, secret, args.fail, args.times));
    let taking_mail = async {
        match mails {
            Some(mails) => take(mails, reception.clone(), mail::serve).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signals.stop() => {}
        never = take(robots, reception.clone(), serve) => match never {},
        never = taking_mail => match never {},
        refused = reception.broken() => return Err(refused),
    }
    let (received, wrong) = reception.end();
    if wrong > 0 {
        bail!("{} of {} not right", wrong, number(received, "message was", "messages were"));
    }
    if output == Output::People {
        say(format_args!("{} and right", number(received, "message, taken", "messages, taken")))?;
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}: name another with --listen"))
}

/// Accepts for ever, so many at once.
async fn take<F>(
    listener: TcpListener,
    reception: Rc<Reception>,
    serve: fn(TcpStream, Rc<Reception>) -> F,
) -> Infallible
where
    F: Future<Output = ()> + 'static,
{
    let permits = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("nobody closes the permits");
        match listener.accept().await {
            Ok((socket, _)) => {
                let serving = serve(socket, reception.clone());
                drop(spawn_local(async move {
                    serving.await;
                    drop(permit);
                }));
            }
            // A socket that went while it waited, or too many open files, which passes.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Serves one connection of a robot. How it ends is its client's to notice.
async fn serve(socket: TcpStream, reception: Rc<Reception>) {
    let answering = service_fn(|request| answer(&reception, request));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    drop(server.serve_connection(TokioIo::new(socket), answering).await);
}

/// An error closes the connection without an answer.
async fn answer(reception: &Reception, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    if request.uri().path() != SEND_PATH || request.method() != Method::POST {
        let told = format!("POST {SEND_PATH}?access_token=… is all that there is here\n");
        return Ok(plain(StatusCode::NOT_FOUND, told));
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MAX_BODY_BYTES} bytes\n")));
    };
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let body = body.to_bytes();
    let arrived = Arrived { query: head.uri.query().unwrap_or_default(), content_type, body: &body };
    match reception.robot(&arrived) {
        Ok(answer) => Ok(errcode(answer.errcode, &answer.errmsg)),
        Err(Failing::Errcode(code)) => Ok(errcode(code, dingtalk::errmsg(code))),
        Err(Failing::Status(status)) => Ok(plain(status, "as --fail wants it\n".to_owned())),
        Err(Failing::Rubbish) => Ok(plain(StatusCode::OK, "<html>Welcome to the guest network</html>\n".to_owned())),
        Err(Failing::Redirect) => {
            let mut answer = plain(StatusCode::FOUND, String::new());
            answer.headers_mut().insert(LOCATION, http::HeaderValue::from_static(SEND_PATH));
            Ok(answer)
        }
        Err(Failing::Close) => bail!("as --fail wants it"),
        Err(Failing::Slow) => {
            tokio::time::sleep(SLOW).await;
            bail!("nobody waits any more")
        }
    }
}

fn errcode(errcode: i64, errmsg: &str) -> Response<Full<Bytes>> {
    let body = json!({ "errcode": errcode, "errmsg": errmsg }).to_string();
    let mut answer = plain(StatusCode::OK, body);
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_read_from_its_name() {
        assert_eq!("130101".parse(), Ok(Failing::Errcode(130_101)));
        assert_eq!("-1".parse(), Ok(Failing::Errcode(-1)));
        assert_eq!("500".parse(), Ok(Failing::Status(StatusCode::INTERNAL_SERVER_ERROR)));
        assert_eq!("slow".parse(), Ok(Failing::Slow));
        for bad in ["", "0", "fast", "5.5"] {
            assert!(bad.parse::<Failing>().is_err(), "{bad}");
        }
    }
}
