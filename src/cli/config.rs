//! `tidings config`: shows the documented defaults and the settings in force, and finds faults before a server does.
//!
//! **Invariant**: nothing is changed, made or locked here, and no secret is printed: settings name files, and what is
//! in those stays there.
//!
//! Deliberately not here: whether an address is free or a socket's directory is there. Both may be the running
//! server's, or systemd's to make.

use std::io::{self, Write as _};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::settings::Place;
use super::{Output, Usage, logs, say};
use crate::config::{DEFAULTS, Fault, Loaded, Setting, as_file};
use crate::deliver::email::{self, Email};
use crate::server::{robots, secrets, state};
use crate::tls;

/// What the path in a setting begins with where it is a credential of the service instead of a file.
const CREDENTIAL: &str = "credential:";
/// Where systemd puts a service's credentials, which only the service sees.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

const DEFAULT_EXAMPLES: &str = "\
Examples:
  tidings config default                             every setting, with what it is for
  tidings config default > tidings.toml              to begin a settings file with

A settings file needs only what differs.";

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings config show                                what differs from the defaults, and who says so
  tidings config show --all --config tidings.toml
  tidings config show --json --all | jq -r '.[] | select(.key == \"http.listen\").value'

What is printed can be used as a settings file. These are the settings of a server that
would be started now, from here: not those of one that runs, nor of its unit's environment.";

const CHECK_EXAMPLES: &str = "\
Examples:
  tidings config check                               what the installed server would read
  tidings config check tidings.toml                  and tidings.toml.d/*.toml
  tidings config check --json tidings.toml           for an editor or CI
  tidings config check && systemctl reload tidings

Faults are printed one a line, as FILE:LINE: what is wrong. Exit code 64 where there are any.
With --json: {\"ok\",\"file\",\"drop_ins\",\"faults\":[{\"file\",\"line\",\"key\",\"message\"}]}.";

/// What is done with settings.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the documented defaults.
    #[command(after_help = DEFAULT_EXAMPLES)]
    Default,
    /// Print the settings in force, each with where it came from.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Read the settings as `serve` would, look at what they name, and tell every fault.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    place: Place,
    /// Every setting, also those that are as the defaults have them
    #[arg(long)]
    all: bool,
    /// Print [{"key","value","origin"}]
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The settings file, as with --config
    #[arg(conflicts_with = "config")]
    file: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// What a check came to, for an editor or CI.
#[derive(Serialize)]
struct Checked<'a> {
    ok: bool,
    file: Option<&'a Path>,
    drop_ins: &'a [PathBuf],
    faults: &'a [Fault],
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Default => {
            io::stdout().lock().write_all(DEFAULTS.as_bytes()).context("cannot write to standard output")
        }
        Command::Show(args) => show(&args),
        Command::Check(args) => check(args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let loaded = args.place.read();
    let settings = loaded.settings.clone();
    loaded.checked()?;
    let shown: Vec<&Setting> = settings.iter().filter(|setting| args.all || setting.differs).collect();
    match Output::of(args.json) {
        Output::Json => say(serde_json::to_string(&shown)?),
        Output::People if shown.is_empty() => say("# Every setting is as the defaults have it; --all shows them"),
        Output::People => say(as_file(shown).trim_end()),
    }
}

fn check(args: CheckArgs) -> anyhow::Result<()> {
    let mut loaded = args.place.or_config(args.file).read();
    let found = looked_at(&loaded);
    loaded.add(found);
    let (Loaded { file, drop_ins, .. }, faults) = (&loaded, loaded.faults());
    match Output::of(args.json) {
        Output::Json => {
            let checked = Checked { ok: faults.is_empty(), file: file.as_deref(), drop_ins, faults };
            say(serde_json::to_string(&checked)?)?;
        }
        Output::People if faults.is_empty() => say(well(file.as_deref(), drop_ins.len()))?,
        Output::People => faults.iter().try_for_each(say)?,
    }
    match faults.len() {
        0 => Ok(()),
        1 => Err(Usage("1 fault in the settings".to_owned()).into()),
        more => Err(Usage(format!("{more} faults in the settings")).into()),
    }
}

fn well(file: Option<&Path>, drop_ins: usize) -> String {
    let read = file.map_or("no settings file, so the defaults".into(), Path::to_string_lossy);
    match drop_ins {
        0 => format!("OK: {read}"),
        1 => format!("OK: {read} (+1 drop-in)"),
        more => format!("OK: {read} (+{more} drop-ins)"),
    }
}

/// What is wrong with the things that settings name, beyond what can be seen in the settings themselves.
fn looked_at(loaded: &Loaded) -> Vec<Fault> {
    let log = logs::read(&loaded.provisional().log_filter).err().map(|usage| Fault::from(usage.to_string()));
    let one = [data(loaded), token_secret(loaded), password(loaded), queue_authority(loaded), mail(loaded), log];
    let one = one.into_iter().flatten();
    one.chain(sockets(loaded)).chain(token_keys(loaded)).chain(robots_of(loaded)).collect()
}

/// The state directory is made at the first start; a parent that is not there is more likely a slip of the pen.
fn data(loaded: &Loaded) -> Option<Fault> {
    let fault = |told: &str| Some(loaded.fault("data", &format!("data: {told}")));
    let Ok(data) = std::path::absolute(&loaded.provisional().data) else { return fault("this is no path") };
    let is_directory = |path: &Path| path.metadata().map(|found| found.is_dir());
    match is_directory(&data) {
        Ok(true) => None,
        Ok(false) => fault(&format!("{} is not a directory: name another one", data.display())),
        // Others may not look into the service's own, and it is as good as any.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
        Err(_) => {
            let parent = data.parent()?;
            let told = format!("{} is no directory: make it, or name another directory", parent.display());
            if is_directory(parent).unwrap_or(false) { None } else { fault(&told) }
        }
    }
}

/// The kernel's limit on the path of a unix socket is a short one.
fn sockets(loaded: &Loaded) -> impl Iterator<Item = Fault> {
    let config = loaded.provisional();
    let named = config.socket.clone().map(|path| ("http.socket", path));
    // The longest of those that stand in the state directory.
    let inside = if named.is_some() { state::operator_socket_in } else { state::socket_in };
    let paths = named.into_iter().chain([("data", inside(&config.data))]);
    paths.filter_map(|(key, path)| {
        let path = std::path::absolute(path).ok()?;
        let told = format!("{key}: {} is too long for the path of a unix socket: name a shorter one", path.display());
        SocketAddr::from_pathname(&path).err().map(|_| loaded.fault(key, &told))
    })
}

fn token_secret(loaded: &Loaded) -> Option<Fault> {
    const KEY: &str = "auth.jwt_secret_file";
    let config = loaded.provisional();
    let named = config.jwt_secret_file.as_deref().filter(|named| can_be_seen(KEY, named))?;
    let refused = state::token_secret(&config.data, Some(named)).err()?;
    Some(loaded.fault(KEY, &format!("{KEY}: {refused}")))
}

fn password(loaded: &Loaded) -> Option<Fault> {
    const KEY: &str = "amqp.password_file";
    let intake = loaded.provisional().intake.as_ref()?;
    let named = intake.password_file.as_deref().filter(|named| can_be_seen(KEY, named))?;
    let refused = secrets::password(named).err()?;
    Some(loaded.fault(KEY, &format!("{KEY}: {refused}")))
}

/// The authority that is trusted for the queue's RabbitMQ.
fn queue_authority(loaded: &Loaded) -> Option<Fault> {
    const KEY: &str = "amqp.ca_file";
    let named = loaded.provisional().intake.as_ref()?.ca_file.as_deref()?;
    let refused = tls::client(Some(named)).err()?;
    Some(loaded.fault(KEY, &format!("{KEY}: {refused}")))
}

fn token_keys(loaded: &Loaded) -> impl Iterator<Item = Fault> {
    const KEY: &str = "auth.jwt_keys";
    let named = loaded.provisional().jwt_keys.iter().filter(|file| can_be_seen(KEY, &file.path));
    named.filter_map(|file| {
        let refused = secrets::verifying_keys(slice::from_ref(file)).err()?;
        Some(loaded.fault(KEY, &format!("{KEY}: {refused}")))
    })
}

/// The robots' files, and the authority that is trusted for them.
fn robots_of(loaded: &Loaded) -> impl Iterator<Item = Fault> {
    const AUTHORITY: &str = "dingtalk.ca_file";
    let settings = &loaded.provisional().dingtalk;
    let robots = settings.robots.iter().filter_map(|files| {
        let key = format!("dingtalk.robots.{}.url_file", files.name);
        let named = std::iter::once(&files.url_file).chain(&files.secret_file);
        let seen = named.filter(|path| !can_be_seen(&key, path)).count() == 0;
        let refused = if seen { robots::robot(files).err()? } else { return None };
        Some(loaded.fault(&key, &refused.to_string()))
    });
    let refused = settings.ca_file.as_deref().and_then(|file| tls::client(Some(file)).err());
    let authority = refused.map(|refused| loaded.fault(AUTHORITY, &format!("{AUTHORITY}: {refused}")));
    robots.chain(authority)
}

/// The password of the relay, and the authorities that its certificate may be by.
fn mail(loaded: &Loaded) -> Option<Fault> {
    const PASSWORD: &str = "email.password_file";
    const AUTHORITIES: &str = "email.ca_file";
    let mail = loaded.provisional().deliver.email.as_ref()?;
    let unread = mail.password_file.as_deref().filter(|named| can_be_seen(PASSWORD, named));
    if let Some(refused) = unread.and_then(|named| secrets::password(named).err()) {
        return Some(loaded.fault(PASSWORD, &format!("{PASSWORD}: {refused}")));
    }
    let refused = Email::new(email::Config::clone(mail)).err()?;
    Some(loaded.fault(AUTHORITIES, &format!("{AUTHORITIES}: {refused}")))
}

/// Whether the file that a setting names is here to be looked at; where it is not, that is said.
fn can_be_seen(key: &str, named: &Path) -> bool {
    let hidden = named.to_string_lossy().starts_with(CREDENTIAL) && std::env::var_os(CREDENTIALS_VARIABLE).is_none();
    if hidden {
        eprintln!("note: {key} names {}, which only the service is given; it was not looked at", named.display());
    }
    !hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_is_told_with_what_was_read() {
        let file = Path::new("/etc/tidings/tidings.toml");
        assert_eq!(well(Some(file), 0), "OK: /etc/tidings/tidings.toml");
        assert_eq!(well(Some(file), 2), "OK: /etc/tidings/tidings.toml (+2 drop-ins)");
        assert_eq!(well(None, 1), "OK: no settings file, so the defaults (+1 drop-in)");
    }

    #[test]
    fn a_check_is_told_to_machines_as_they_were_promised() {
        let faults = [Fault::from("x".to_owned())];
        let checked = Checked { ok: false, file: Some(Path::new("t.toml")), drop_ins: &["a".into()], faults: &faults };
        assert_eq!(
            serde_json::to_string(&checked).expect("plain fields"),
            concat!(
                r#"{"ok":false,"file":"t.toml","drop_ins":["a"],"#,
                r#""faults":[{"file":null,"line":null,"key":null,"message":"x"}]}"#
            )
        );
    }
}
