//! Log lines: for a terminal, for the journal, or as JSON. Always on standard error.
//!
//! **Invariant**: a journal line is one line, whatever a field holds, and begins with its priority, so that nobody can
//! forge an entry. What is *in* a line is up to those who log: never a token, never a body.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use super::Usage;
use crate::config::LogFormat;

/// The variable that stands above the setting `log.level`.
const FILTER_VARIABLE: &str = "TIDINGS_LOG";

/// Begins to log. Panics go the same way, so that they too are one line with a priority.
///
/// # Errors
/// [`Usage`], where the filter can't be read.
pub(super) fn start(filter: &str, format: LogFormat) -> Result<Filter, Usage> {
    let builder = tracing_subscriber::fmt().with_env_filter(read(filter)?).with_writer(std::io::stderr);
    let set: Set = match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
        LogFormat::Journal => journal(builder.event_format(JournalLines)),
        LogFormat::Auto if journal_reads_stderr() => journal(builder.event_format(JournalLines)),
        LogFormat::Auto | LogFormat::Terminal => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let builder = builder.compact().with_target(false).with_ansi(colours).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
    };
    // Libraries that log by the `log` crate don't know our rule: at `trace` the WebSocket's tells whole messages, and with
    // them the token of a first one. No filter, however exact, lets that through.
    log::set_max_level(log::LevelFilter::Info);
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "Panic: {}", panic.payload_as_str().unwrap_or("no text"));
    }));
    Ok(Filter(set))
}

/// Puts another filter in the place of the one that is in use; it fails only where nothing logs any more.
type Set = Box<dyn Fn(EnvFilter)>;

/// What is logged, as it can be changed while the process runs.
pub(super) struct Filter(Set);

impl Filter {
    pub(super) fn set(&self, filter: EnvFilter) {
        (self.0)(filter);
    }
}

fn journal<W>(builder: SubscriberBuilder<DefaultFields, JournalLines, EnvFilter, W>) -> Set
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = builder.with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    Box::new(move |filter| drop(handle.reload(filter)))
}

/// Reads what is to be logged; the variable wins over what is given.
///
/// # Errors
/// [`Usage`], where it can't be read.
pub(super) fn read(filter: &str) -> Result<EnvFilter, Usage> {
    let (filter, origin) = match std::env::var(FILTER_VARIABLE) {
        Ok(named) => (named, FILTER_VARIABLE),
        Err(_) => (filter.to_owned(), "log.level"),
    };
    EnvFilter::try_new(&filter)
        .map_err(|e| Usage(format!("{origin} must be a level or a filter such as \"info,tidings::store=debug\": {e}")))
}

/// Begins to log in a command that is no server, where the variable asks for `debug` or more: what such a command does
/// besides answering is for those who look for a fault. What the variable says wrongly is for the server to tell.
pub(super) fn start_where_debugging() {
    let filter = std::env::var(FILTER_VARIABLE).ok().and_then(|named| EnvFilter::try_new(named).ok());
    if filter.is_some_and(|filter| filter.max_level_hint().is_none_or(|level| level >= LevelFilter::DEBUG)) {
        // The variable wins over what is given here, and was just read well.
        let _ = start("debug", LogFormat::Auto);
    }
}

/// Whether standard error is the journal's socket. That `JOURNAL_STREAM` is set does not say so: a desktop session hands
/// it down to its terminals. So compare, as systemd.exec(5) advises.
fn journal_reads_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let Ok(file) = stderr.and_then(|file| file.metadata()) else { return false };
    stream == format!("{}:{}", file.dev(), file.ino())
}

/// `<6>Listening on … data=/var/lib/tidings`: the priority of syslog(3), no time (the journal has its own).
struct JournalLines;

impl<S, N> FormatEvent<S, N> for JournalLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        ctx.format_fields(Writer::new(&mut line), event)?;
        for span in ctx.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                write!(line, " {fields}")?;
            }
        }
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        for c in line.chars() {
            if c.is_control() { write!(writer, "{}", c.escape_default())? } else { writer.write_char(c)? }
        }
        writeln!(writer)
    }
}

const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one thread").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_journal_line_is_one_line_with_a_priority() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(JournalLines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", user = "alice");
            let _inside = span.enter();
            tracing::warn!(topic = %"ops\n<0>forged", "Something is odd");
        });
        let text = String::from_utf8(buffer.0.lock().expect("one thread").clone()).expect("UTF-8");
        assert_eq!(text, "<4>Something is odd topic=ops\\n<0>forged user=\"alice\"\n");
    }
}
