//! What to change in what stands in front: for each thing that can be wrong, the lines of the
//! proxies that people use.
//!
//! `docs/proxies.md` and the configurations beside it are the whole of which these are pieces; the tests run those.

use serde::Serialize;

/// A thing that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matter {
    Route,
    Unreachable,
    Http2,
    Buffering,
    Compression,
    Caching,
    LastEventId,
    Authorization,
    Upgrade,
    Host,
    BasePath,
    Secure,
    Metrics,
    Errors,
    Silence,
    Tunnel,
}

/// What to change, for each proxy. `None` where nothing needs to be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) nginx: String,
    pub(super) haproxy: String,
    pub(super) caddy: String,
}

impl Matter {
    /// `base` is the path below which Tidings stands; empty at the root.
    pub(super) fn change(self, base: &str) -> Change {
        let (nginx, haproxy, caddy) = self.lines();
        let of = |text: &str| text.replace("{base}", base);
        Change { nginx: of(nginx), haproxy: of(haproxy), caddy: of(caddy) }
    }

    const fn lines(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Route => (
                "location {base}/ { proxy_pass http://tidings; } with nothing behind the upstream's name",
                "use_backend tidings if { path_beg {base}/ }",
                "handle {base}/* { reverse_proxy 127.0.0.1:8383 }",
            ),
            Self::Unreachable => (
                "the `server` line of `upstream tidings` must name what [http] listen or socket of Tidings says",
                "the `server` line of `backend tidings` must name what [http] listen or socket of Tidings says",
                "the address of `reverse_proxy` must be what [http] listen or socket of Tidings says",
            ),
            Self::Http2 => (
                "listen 443 ssl http2; (from 1.25.1 on: http2 on;)",
                "bind :443 ssl crt … alpn h2,http/1.1",
                "nothing: it speaks HTTP/2 unless `protocols` leaves it out",
            ),
            Self::Buffering => (
                "proxy_http_version 1.1; proxy_buffering off; and no proxy_ignore_headers X-Accel-Buffering",
                "nothing holds answers back but a `filter compression`; leave text/event-stream out of it",
                "flush_interval -1 in reverse_proxy, and no encode for {base}/v1/stream",
            ),
            Self::Compression => (
                "leave text/event-stream (and *) out of gzip_types and brotli_types, or gzip off;",
                "leave text/event-stream out of `compression type`",
                "@whole not path {base}/v1/stream, then encode @whole gzip",
            ),
            Self::Caching => (
                "no expires, add_header Cache-Control or proxy_hide_header Cache-Control here",
                "no http-response set-header Cache-Control",
                "no header Cache-Control here",
            ),
            Self::LastEventId => (
                "no proxy_pass_request_headers off; and no proxy_set_header Last-Event-ID \"\";",
                "no http-request del-header Last-Event-ID",
                "no header_up -Last-Event-ID",
            ),
            Self::Authorization => (
                "no proxy_set_header Authorization, and no auth_basic for {base}/",
                "no http-request del-header Authorization, and no http-request auth for {base}/",
                "no header_up Authorization, and no basic_auth for {base}/*",
            ),
            Self::Upgrade => (
                "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \
                 $connection_upgrade; with map $http_upgrade $connection_upgrade { default upgrade; '' ''; }",
                "nothing by itself takes an upgrade away; look for http-request del-header Upgrade",
                "nothing by itself takes an upgrade away; look for header_up -Upgrade",
            ),
            Self::Host => ("proxy_set_header Host $http_host;", "no http-request set-header Host", "no header_up Host"),
            Self::BasePath => (
                "proxy_pass http://tidings; with nothing behind it, and base_path = \"{base}\" in [http] of Tidings",
                "no http-request replace-path or set-path, and base_path = \"{base}\" in [http] of Tidings",
                "handle, not handle_path, and base_path = \"{base}\" in [http] of Tidings",
            ),
            Self::Secure => (
                "proxy_set_header X-Forwarded-Proto $scheme;",
                "http-request set-header X-Forwarded-Proto https if { ssl_fc }",
                "nothing: it sends X-Forwarded-Proto; look for header_up that takes it away",
            ),
            Self::Metrics => (
                "location = {base}/metrics { return 404; }, and proxy_set_header X-Forwarded-Proto $scheme;",
                "http-request return status 404 if { path {base}/metrics }, and option forwardfor",
                "respond {base}/metrics 404",
            ),
            Self::Errors => (
                "proxy_intercept_errors off; for {base}/",
                "no http-response return for {base}/",
                "no handle_response in reverse_proxy",
            ),
            Self::Silence => (
                "proxy_read_timeout 75s; and send_timeout not below it",
                "timeout client 75s and timeout server 75s",
                "no read_timeout or write_timeout below 75s, neither in `servers { timeouts }` nor in `transport http`",
            ),
            Self::Tunnel => (
                "proxy_read_timeout 75s; and proxy_send_timeout not below it",
                "timeout tunnel 75s",
                "no stream_timeout in reverse_proxy",
            ),
        }
    }
}
