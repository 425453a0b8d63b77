//! What the figures mean: a finding for each thing that was measured, and what to change where it is not as it must be.
//!
//! Pure. **Invariant**: a fault is what people notice, such as an event that comes late or a stream that is cut; what
//! only costs something or may do harm one day is a warning.

use serde::Serialize;

use super::advice::{Change, Matter};
use super::figures::{Answer, Figures, Head, Life, Poll, Publish, Silence, StreamStart};

/// An event comes at once where it takes no longer than this.
const AT_ONCE_MS: f64 = 1_000.0;
/// A page's patience with `hello`.
const HELLO_MS: f64 = 3_000.0;
/// How much later than its time a heartbeat may come.
const HEARTBEAT_GRACE_S: f64 = 3.0;
/// The longest `wait` of a poll; a proxy that cuts one so long harms only clients that ask for as much.
const USUAL_WAIT_S: u64 = 25;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warning,
    Fault,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at: one of a closed set of words.
    pub(super) about: &'static str,
    pub(super) level: Level,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) change: Option<Change>,
}

/// What is judged, and where it stands.
pub(super) struct Case<'a> {
    pub(super) figures: &'a Figures,
    /// Whether browsers use TLS.
    pub(super) is_tls: bool,
    pub(super) is_loopback: bool,
    /// The path below which browsers see Tidings; empty at the root.
    pub(super) base_path: &'a str,
}

impl Level {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

impl Case<'_> {
    /// All findings, in the order in which they were measured.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let figures = self.figures;
        let mut found = self.connection();
        found.extend(figures.stream.as_ref().into_iter().flat_map(|start| self.stream(start)));
        found.extend(self.buffering());
        found.extend(self.resumed());
        found.extend(figures.authorization.as_ref().and_then(|answer| self.authorization(answer)));
        found.extend(self.websocket());
        found.extend(figures.unknown_path.as_ref().and_then(|answer| self.errors(answer)));
        found.extend(figures.cookie.as_ref().into_iter().flat_map(|answer| self.cookie(answer)));
        found.extend(figures.metrics.as_ref().and_then(|answer| self.metrics(answer)));
        found.extend(figures.silence.as_ref().into_iter().flat_map(|silence| self.silence(silence)));
        found.extend(figures.left_behind.as_ref().map(|why| {
            let what = format!("What was published could not be taken back, and expires by itself: {why}");
            Finding { about: "cleaning up", level: Level::Warning, what, change: None }
        }));
        found
    }

    fn ok(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { about, level: Level::Ok, what: what.into(), change: None }
    }

    fn warning(&self, about: &'static str, what: impl Into<String>, matter: Matter) -> Finding {
        Finding { about, level: Level::Warning, what: what.into(), change: Some(matter.change(self.base_path)) }
    }

    fn fault(&self, about: &'static str, what: impl Into<String>, matter: Matter) -> Finding {
        Finding { level: Level::Fault, ..self.warning(about, what, matter) }
    }

    fn connection(&self) -> Vec<Finding> {
        if let Some(why) = &self.figures.unreachable {
            let what = format!("There is no connection: {why}");
            return vec![Finding { about: "connection", level: Level::Fault, what, change: None }];
        }
        let Some(opened) = &self.figures.connection else { return Vec::new() };
        let tls = match (&opened.tls, opened.tls_ms) {
            (Some(version), Some(ms)) => format!(", {version} in {ms} ms"),
            _ => String::new(),
        };
        let mut found = vec![Self::ok("connection", format!("Connected in {} ms{tls}", opened.connect_ms))];
        found.push(if opened.http == "HTTP/2.0" {
            Self::ok("HTTP version", "HTTP/2: all streams of a browser share one connection")
        } else if self.is_tls {
            let what = "HTTP/1.1, though HTTP/2 was offered: a browser opens six connections to a host, and each \
                        stream takes one";
            self.warning("HTTP version", what, Matter::Http2)
        } else if self.is_loopback {
            Self::ok("HTTP version", "HTTP/1.1, without TLS")
        } else {
            let what = "HTTP/1.1 without TLS: whoever is on the way reads tickets, cookies and notifications";
            self.warning("HTTP version", what, Matter::Secure)
        });
        found
    }

    fn stream(&self, start: &StreamStart) -> Vec<Finding> {
        let head = match &start.answer {
            Answer::Came(head) if head.is_stream() => head,
            answer => return vec![self.no_stream(answer)],
        };
        let mut found = Vec::new();
        if start.is_compressed() {
            let how = head.content_encoding.as_deref().unwrap_or_default();
            let what =
                format!("The stream comes compressed ({how}): a compressor holds events back until it has enough");
            found.push(self.fault("compression", what, Matter::Compression));
        } else {
            found.push(Self::ok("compression", "The stream comes as it was sent"));
        }
        let start = self.figures.stream_uncompressed.as_ref().unwrap_or(start);
        found.extend(self.first_bytes(start));
        found.push(self.caching(head));
        found
    }

    /// Why no stream was had.
    fn no_stream(&self, answer: &Answer) -> Finding {
        let Answer::Came(head) = answer else {
            return self.fault("route", format!("A stream can't be had: {}", answer.told()), Matter::Unreachable);
        };
        if let Some(code) = &head.code {
            return match code.as_str() {
                "not-found" => {
                    let what = "The request comes to Tidings under another path than its base_path, and it answers 404";
                    self.fault("route", what, Matter::BasePath)
                }
                "bad-credential" | "expired" | "unauthenticated" => {
                    let what = "A Tidings answers that does not know the ticket: another one than that which made it, \
                                or the query is not passed on";
                    self.fault("route", what, Matter::Unreachable)
                }
                "bad-host" => self.fault("route", "Tidings does not get exactly one Host", Matter::Host),
                code => {
                    let what = format!("Tidings refuses the stream ({} {code})", head.status);
                    Finding { about: "route", level: Level::Fault, what, change: None }
                }
            };
        }
        let to = head.location.as_deref().unwrap_or("another address");
        let (what, matter) = match head.status {
            300..=399 => (format!("It is redirected to {to}: name that, if it is what browsers use"), Matter::Route),
            401 | 403 => {
                let what = "asks for a credential of its own; Tidings has its own, and a stream must come to it";
                (format!("What stands in front {what} ({})", head.status), Matter::Authorization)
            }
            404 => ("What stands in front answers 404 by itself: the path is not passed on".to_owned(), Matter::Route),
            502..=504 => {
                let what = "What stands in front does not reach Tidings and answers";
                (format!("{what} {}", head.status), Matter::Unreachable)
            }
            200 => {
                let kind = head.content_type.as_deref().unwrap_or("none");
                (format!("Something answers, but no stream: its Content-Type is {kind}"), Matter::Route)
            }
            status => (format!("It is answered {status}, and not by Tidings"), Matter::Route),
        };
        self.fault("route", what, matter)
    }

    fn first_bytes(&self, start: &StreamStart) -> Vec<Finding> {
        let about = "first bytes";
        let finding = match (start.hello_ms, start.first_byte_ms, &start.bye) {
            (Some(hello), Some(first), _) if hello <= HELLO_MS => {
                Self::ok(about, format!("The first byte came after {first} ms, the whole hello after {hello} ms"))
            }
            (_, _, Some(reason)) => {
                let what = format!("Tidings ends the stream at once: {reason}");
                Finding { about, level: Level::Fault, what, change: None }
            }
            (None, None, None) if start.answer.head().is_none_or(|head| !head.is_stream()) => {
                return vec![self.no_stream(&start.answer)];
            }
            // Nothing of a stream that comes compressed all the same can be told.
            _ if start.is_compressed() => return Vec::new(),
            (_, first, _) => {
                let part = if first.is_some_and(|ms| ms <= HELLO_MS) { "only a part" } else { "nothing" };
                let what =
                    format!("After 3 s there was {part} of hello, which Tidings writes at once: it is held back");
                self.fault(about, what, Matter::Buffering)
            }
        };
        vec![finding]
    }

    fn caching(&self, head: &Head) -> Finding {
        let kept = head.cache_control.as_deref().unwrap_or("none");
        let missing: Vec<_> = ["no-store", "no-transform"].into_iter().filter(|word| !kept.contains(word)).collect();
        if missing.is_empty() {
            return Self::ok("caching", format!("Cache-Control is kept ({kept})"));
        }
        let what = format!(
            "Cache-Control of the stream lacks {} (it is: {kept}): a cache or a compressor on the way may act on it",
            missing.join(" and ")
        );
        self.warning("caching", what, Matter::Caching)
    }

    fn buffering(&self) -> Option<Finding> {
        let publishes = &self.figures.publishes;
        let count = publishes.len();
        let delays: Vec<f64> = publishes.iter().filter_map(Publish::delay_ms).collect();
        let longest = delays.iter().copied().fold(0.0, f64::max);
        let about = "buffering";
        if publishes.is_empty() {
            return None;
        }
        if delays.len() == count && longest <= AT_ONCE_MS {
            let what = format!("Each of {count} events came at once, the slowest {longest:.1} ms after its publish");
            return Some(Self::ok(about, what));
        }
        let what = match delays.len() {
            0 => format!("None of {count} events came within 3 s of the last publish: they are held back"),
            came if came < count => {
                format!("Only {came} of {count} events came within 3 s of the last publish: the others are held back")
            }
            _ if Publish::came_together(publishes) => {
                format!(
                    "{count} events came late and together, up to {longest:.1} ms after their publish: they are held \
                     back"
                )
            }
            _ => format!("Events came up to {longest:.1} ms after their publish: they are held back"),
        };
        Some(self.fault(about, what, Matter::Buffering))
    }

    fn resumed(&self) -> Option<Finding> {
        let resumed = self.figures.resumed.as_ref()?;
        let about = "Last-Event-ID";
        match (resumed.recovered, &resumed.answer) {
            (Some(true), _) => Some(Self::ok(about, "It is passed on: a stream goes on where the one before ended")),
            (Some(false), _) => {
                let what =
                    "It is not passed on: each reconnect is a first visit, and what came meanwhile is not replayed";
                Some(self.fault(about, what, Matter::LastEventId))
            }
            // Held back, which is told elsewhere.
            (None, Answer::Came(head)) if head.is_stream() => None,
            (None, answer) => {
                let what = format!("A second stream can't be had: {}", answer.told());
                Some(self.fault(about, what, Matter::Unreachable))
            }
        }
    }

    fn authorization(&self, answer: &Answer) -> Option<Finding> {
        let about = "Authorization";
        match answer {
            Answer::Came(head) if head.code.as_deref() == Some("bad-credential") => {
                Some(Self::ok(about, "It is passed on"))
            }
            Answer::Came(head) if head.is_stream() => {
                let what = "It is not passed on: tokens and API keys do not come through, only tickets and cookies";
                Some(self.warning(about, what, Matter::Authorization))
            }
            Answer::Came(Head { status: 401 | 403, .. }) => {
                let what = "What stands in front judges it by itself, so tokens and API keys do not come through";
                Some(self.warning(about, what, Matter::Authorization))
            }
            _ => None,
        }
    }

    fn websocket(&self) -> Vec<Finding> {
        let about = "WebSocket";
        let Some(start) = &self.figures.websocket else { return Vec::new() };
        let mut found = Vec::new();
        found.push(match (&start.answer, start.hello_ms) {
            (Answer::Came(Head { status: 101, .. }), Some(ms)) => {
                Self::ok(about, format!("It opens, and hello came after {ms} ms"))
            }
            (Answer::Came(Head { status: 101, .. }), None) => {
                self.fault(about, "It opens, but within 3 s no hello came through it", Matter::Upgrade)
            }
            (Answer::Came(head), _) if head.code.as_deref() == Some("upgrade-required") => {
                let what = "It does not open: the request comes to Tidings without its Upgrade";
                self.fault(about, what, Matter::Upgrade)
            }
            (answer, _) => self.fault(about, format!("It does not open: {}", answer.told()), Matter::Upgrade),
        });
        if start.origin_refused {
            let what = "Tidings takes a page of this address for one of another site: Host is not passed on as it is, \
                        so that pages can't open WebSockets and can't mark with the cookie";
            found.push(self.fault("Host", what, Matter::Host));
        } else if start.hello_ms.is_some() {
            found.push(Self::ok("Host", "It is passed on as it came, or the address is among [http] origins"));
        }
        found
    }

    fn errors(&self, answer: &Answer) -> Option<Finding> {
        let about = "errors";
        let head = answer.head()?;
        if head.code.as_deref() == Some("not-found") {
            return Some(Self::ok(about, "They come from Tidings as it wrote them"));
        }
        let what = format!(
            "Where Tidings answers 404 with a problem document, {} comes ({}): clients can't tell what is wrong",
            head.status,
            head.content_type.as_deref().unwrap_or("no Content-Type")
        );
        Some(self.warning(about, what, Matter::Errors))
    }

    fn cookie(&self, answer: &Answer) -> Vec<Finding> {
        let Some(cookie) = answer.head().and_then(|head| head.set_cookie.as_deref()) else { return Vec::new() };
        let path = cookie.split(';').find_map(|part| part.trim().strip_prefix("Path=")).unwrap_or_default();
        let expected = if self.base_path.is_empty() { "/" } else { self.base_path };
        let mut found = vec![if path == expected {
            Self::ok("base path", format!("The cookie is for {path}, where browsers see Tidings"))
        } else {
            let what = format!(
                "The cookie is for {path}, but browsers see Tidings at {expected}: they do not send it, or to others \
                 too, and links on pages lead astray"
            );
            self.fault("base path", what, Matter::BasePath)
        }];
        if self.is_tls {
            found.push(if cookie.contains("; Secure") {
                Self::ok("X-Forwarded-Proto", "It is passed on: the cookie is marked Secure")
            } else {
                let what = "Tidings does not learn that browsers use TLS: the cookie is not marked Secure";
                self.warning("X-Forwarded-Proto", what, Matter::Secure)
            });
        }
        found
    }

    fn metrics(&self, answer: &Answer) -> Option<Finding> {
        let head = answer.head()?;
        let is_open = head.status == 200
            && head.content_type.as_ref().is_some_and(|kind| kind.starts_with("application/openmetrics-text"));
        Some(if is_open && self.is_loopback && self.figures.proxy.is_none() {
            let what = "They can be read here: as it should be on this machine without a proxy, but with one by anyone";
            self.warning("metrics", what, Matter::Metrics)
        } else if is_open {
            let what = "Anyone can read /metrics here: it is routed, and no forwarding header tells Tidings who asks";
            self.fault("metrics", what, Matter::Metrics)
        } else {
            Self::ok("metrics", "They are not for everyone")
        })
    }

    fn silence(&self, silence: &Silence) -> Vec<Finding> {
        let starts = [&self.figures.stream_uncompressed, &self.figures.stream];
        let heartbeat = starts.into_iter().flatten().find_map(|start| start.heartbeat_s);
        let mut found = Vec::new();
        if let Some(life) = &silence.stream {
            found.push(self.life("stream in silence", life, heartbeat, Matter::Silence));
        }
        if let Some(life) = &silence.websocket {
            found.push(self.life("WebSocket in silence", life, heartbeat, Matter::Tunnel));
        }
        found.extend(silence.polls.iter().map(|poll| self.poll(poll)));
        found
    }

    fn life(&self, about: &'static str, life: &Life, heartbeat: Option<u64>, matter: Matter) -> Finding {
        let Life { lived_s, silent_s, heartbeats, .. } = life;
        let every = heartbeat.map(|s| format!(", while a heartbeat comes every {s} s")).unwrap_or_default();
        if let Some(reason) = &life.bye {
            let why = if reason == "revoked" { ", as another doctor does that is done before this one" } else { "" };
            let what = format!("Tidings itself ended it after {lived_s} s: bye {reason}{why}");
            return Finding { about, level: Level::Warning, what, change: None };
        }
        if life.ended.is_some() {
            let what = format!("It was cut after {lived_s} s, {silent_s} s after the last byte{every}");
            return self.fault(about, what, matter);
        }
        #[expect(clippy::cast_precision_loss, reason = "a heartbeat is at most 25 s")]
        let due = heartbeat.is_some_and(|s| *lived_s > s as f64 + HEARTBEAT_GRACE_S);
        if due && *heartbeats == 0 {
            let what = format!("It lived for {lived_s} s, but no heartbeat came through: they are held back");
            return self.fault(about, what, Matter::Buffering);
        }
        Self::ok(about, format!("It lived for {lived_s} s, with {heartbeats} heartbeats"))
    }

    fn poll(&self, poll: &Poll) -> Finding {
        let Poll { wait_s, took_s, answer, whole } = poll;
        if *whole {
            return Self::ok("long poll", format!("wait={wait_s} was answered whole after {took_s} s"));
        }
        let what = format!("wait={wait_s} was not answered by Tidings; after {took_s} s: {}", answer.told());
        if *wait_s > USUAL_WAIT_S {
            return self.warning("long poll", what, Matter::Silence);
        }
        self.fault("long poll", what, Matter::Silence)
    }
}

impl Publish {
    /// From the acknowledgement to the arrival; an event may overtake the acknowledgement.
    fn delay_ms(&self) -> Option<f64> {
        self.arrived_ms.map(|arrived| (arrived - self.answered_ms).max(0.0))
    }

    /// Whether all came within far less time than they were published in.
    fn came_together(all: &[Self]) -> bool {
        let span = |times: &mut dyn Iterator<Item = f64>| {
            let (first, last) = times.fold((f64::MAX, f64::MIN), |(a, b), time| (a.min(time), b.max(time)));
            last - first
        };
        let arrived = span(&mut all.iter().filter_map(|one| one.arrived_ms));
        arrived * 4.0 < span(&mut all.iter().map(|one| one.answered_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Opened;
    use super::*;

    fn case(figures: &Figures) -> Case<'_> {
        Case { figures, is_tls: true, is_loopback: false, base_path: "/tidings" }
    }

    /// What is not well, as `level about`.
    fn troubles(figures: &Figures) -> Vec<String> {
        let found = case(figures).findings();
        let bad = found.iter().filter(|finding| finding.level != Level::Ok);
        bad.map(|finding| format!("{} {}", finding.level.as_str(), finding.about)).collect()
    }

    fn came(status: u16, kind: &str) -> Head {
        Head { status, content_type: Some(kind.to_owned()), ..Head::default() }
    }

    fn started(head: Head) -> Figures {
        Figures { stream: Some(StreamStart::new(Answer::Came(head))), ..Figures::default() }
    }

    fn published(delays: &[Option<f64>]) -> Figures {
        let one = |(place, delay): (u8, &Option<f64>)| {
            let answered_ms = f64::from(place) * 200.0;
            Publish { answered_ms, arrived_ms: delay.map(|delay| answered_ms + delay) }
        };
        Figures { publishes: (0..).zip(delays).map(one).collect(), ..Figures::default() }
    }

    fn told(figures: &Figures) -> String {
        case(figures).findings().into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn who_answered_in_the_place_of_tidings_is_told() {
        for (head, words) in [
            (came(404, "text/html"), "answers 404 by itself"),
            (came(502, "text/html"), "does not reach Tidings"),
            (came(401, "text/html"), "a credential of its own"),
            (came(200, "text/html"), "its Content-Type is text/html"),
            (
                Head { location: Some("https://x.example".into()), ..came(301, "text/html") },
                "redirected to https://x.example",
            ),
            (Head { code: Some("not-found".into()), ..came(404, "application/problem+json") }, "another path"),
            (
                Head { code: Some("bad-credential".into()), ..came(401, "application/problem+json") },
                "another one than that",
            ),
            (Head { code: Some("too-many".into()), ..came(429, "application/problem+json") }, "429 too-many"),
        ] {
            let figures = started(head);
            assert_eq!(troubles(&figures), ["fault route"]);
            assert!(told(&figures).contains(words), "{}", told(&figures));
        }
    }

    #[test]
    fn a_stream_that_tidings_ends_at_once_is_not_blamed_on_what_stands_in_front() {
        let head = Head { cache_control: Some("no-store, no-transform".into()), ..came(200, "text/event-stream") };
        let mut figures = started(head);
        if let Some(start) = &mut figures.stream {
            start.bye = Some("overloaded".into());
        }
        assert_eq!(troubles(&figures), ["fault first bytes"]);
        assert!(told(&figures).contains("Tidings ends the stream at once: overloaded"));
    }

    #[test]
    fn events_are_late_by_their_own_publish() {
        assert_eq!(troubles(&published(&[Some(0.0), Some(999.0), Some(3.0)])), Vec::<String>::new());
        for (delays, words) in [
            ([Some(1_800.0), Some(1_600.0), Some(1_400.0)], "late and together"),
            ([Some(1_200.0), Some(1_200.0), Some(1_200.0)], "Events came up to 1200.0 ms"),
            ([Some(1.0), None, None], "Only 1 of 3"),
            ([None, None, None], "None of 3"),
        ] {
            let figures = published(&delays);
            assert_eq!(troubles(&figures), ["fault buffering"], "{delays:?}");
            assert!(told(&figures).contains(words), "{}", told(&figures));
        }
    }

    #[test]
    fn a_connection_without_http_2_or_without_tls_is_a_warning() {
        let opened = |http: &str| Opened { connect_ms: 1.0, tls_ms: None, tls: None, http: http.to_owned() };
        let figures = |http| Figures { connection: Some(opened(http)), ..Figures::default() };
        assert_eq!(troubles(&figures("HTTP/2.0")), Vec::<String>::new());
        assert_eq!(troubles(&figures("HTTP/1.1")), ["warning HTTP version"]);
        let figures = figures("HTTP/1.1");
        let plain = |is_loopback| {
            let case = Case { is_tls: false, is_loopback, ..case(&figures) };
            case.findings().iter().filter(|finding| finding.level == Level::Warning).count()
        };
        assert_eq!((plain(true), plain(false)), (0, 1));
    }

    #[test]
    fn metrics_that_a_proxy_shows_are_a_fault() {
        let open = Answer::Came(came(200, "application/openmetrics-text; version=1.0.0"));
        let mut figures = Figures { metrics: Some(open), ..Figures::default() };
        let level = |figures: &Figures, is_loopback| {
            let case = Case { is_loopback, ..case(figures) };
            case.findings().remove(0).level
        };
        assert_eq!((level(&figures, true), level(&figures, false)), (Level::Warning, Level::Fault));
        figures.proxy = Some("nginx".into());
        assert_eq!(level(&figures, true), Level::Fault);
        figures.metrics = Some(Answer::Came(came(404, "text/html")));
        assert_eq!(level(&figures, true), Level::Ok);
    }

    #[test]
    fn silence_is_judged_by_the_heartbeat() {
        let silence = |life: Life| Figures {
            stream: Some(StreamStart {
                hello_ms: Some(1.0),
                first_byte_ms: Some(1.0),
                heartbeat_s: Some(15),
                ..StreamStart::new(Answer::Came(Head {
                    cache_control: Some("no-store, no-transform".into()),
                    ..came(200, "text/event-stream")
                }))
            }),
            silence: Some(Silence { watched_s: 75.0, stream: Some(life), websocket: None, polls: Vec::new() }),
            ..Figures::default()
        };
        let life = |lived_s, heartbeats| Life { lived_s, heartbeats, ..Life::default() };
        assert_eq!(troubles(&silence(life(75.0, 5))), Vec::<String>::new());
        assert_eq!(troubles(&silence(life(10.0, 0))), Vec::<String>::new(), "none was due");
        assert_eq!(troubles(&silence(life(75.0, 0))), ["fault stream in silence"]);
        let cut = Life { ended: Some("the answer was ended".into()), silent_s: 5.0, ..life(20.0, 1) };
        assert_eq!(troubles(&silence(cut.clone())), ["fault stream in silence"]);
        let by_tidings = Life { bye: Some("shutdown".into()), ..cut };
        assert_eq!(troubles(&silence(by_tidings)), ["warning stream in silence"]);
    }

    #[test]
    fn what_to_change_names_the_base_path() {
        let figures = started(came(404, "text/html"));
        let change = case(&figures).findings().remove(0).change.expect("advice");
        assert_eq!(change.haproxy, "use_backend tidings if { path_beg /tidings/ }");
    }
}
