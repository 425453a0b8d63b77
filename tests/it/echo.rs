//! RFC 6455 as a table: each row is a conversation, with the section that rules it beside. The whole table is held
//! against the echo of `examples/ws_echo.rs`, which is the server's WebSocket without what Tidings says over it; the
//! rows that need no echo are held against `/v1/ws` itself. Each row goes over the wire in one piece, byte by byte, and
//! in pieces of random length.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::support::http::{Ask, Place};
use crate::support::server::Server;
use crate::support::ws::{BINARY, CLOSE, CONTINUATION, Frame, Frames, PING, PONG, TEXT, handshake};
use crate::support::{DEADLINE, Dice};

#[path = "../../examples/ws_echo.rs"]
#[allow(dead_code, reason = "its command line is for people; the tests call what it runs")]
mod ws_echo;

/// The example, for as long as a test takes.
struct Echo {
    place: Place,
    _runtime: Runtime,
}

impl Echo {
    fn start(max_message: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let listener = runtime.block_on(TcpListener::bind(any)).expect("a free port");
        let place = Place::Tcp(listener.local_addr().expect("it listens"));
        runtime.spawn(ws_echo::echo_all(listener, max_message));
        Self { place, _runtime: runtime }
    }
}

/// One conversation.
struct Case {
    section: &'static str,
    what: String,
    sent: Vec<u8>,
    /// What the server says before its close.
    heard: Vec<Frame>,
    /// The code of its close; `None` is a close without one.
    code: Option<u16>,
}

impl Case {
    fn new(
        section: &'static str,
        what: impl Into<String>,
        sent: Vec<u8>,
        heard: Vec<Frame>,
        code: Option<u16>,
    ) -> Self {
        Self { section, what: what.into(), sent, heard, code }
    }

    /// What is answered and then closed in good order.
    fn good(section: &'static str, what: impl Into<String>, sent: &[Frame], heard: &[Frame]) -> Self {
        let sent = [wire(sent), Frame::close(1000, "").masked()].concat();
        Self::new(section, what, sent, heard.to_vec(), Some(1000))
    }

    /// What breaks the standard or a limit.
    fn bad(section: &'static str, what: impl Into<String>, sent: Vec<u8>, code: u16) -> Self {
        Self::new(section, what, sent, Vec::new(), Some(code))
    }

    /// Whether its answer depends on what a server does with messages.
    fn needs_echo(&self) -> bool {
        self.heard.iter().any(|frame| frame.opcode != PONG)
    }
}

fn wire(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::masked).collect()
}

fn text(payload: impl AsRef<[u8]>) -> Frame {
    Frame::new(TEXT, payload)
}

fn binary(payload: impl AsRef<[u8]>) -> Frame {
    Frame::new(BINARY, payload)
}

/// A further frame of a message.
fn more(payload: impl AsRef<[u8]>) -> Frame {
    Frame::new(CONTINUATION, payload)
}

fn ping(payload: impl AsRef<[u8]>) -> Frame {
    Frame::new(PING, payload)
}

fn pong(payload: impl AsRef<[u8]>) -> Frame {
    Frame::new(PONG, payload)
}

/// The head of a frame whose payload never comes.
fn announced(opcode: u8, length: u64) -> Vec<u8> {
    [&[0x80 | opcode, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

/// A message in frames of so many bytes.
fn cut(message: &Frame, bytes: usize) -> Vec<Frame> {
    let count = message.payload.chunks(bytes).count();
    let frame = |(i, part): (usize, &[u8])| {
        let frame = if i == 0 { Frame::new(message.opcode, part) } else { more(part) };
        if i + 1 < count { frame.unfinished() } else { frame }
    };
    message.payload.chunks(bytes).enumerate().map(frame).collect()
}

fn masking() -> Vec<Case> {
    let zero = [text("zero").masked_by([0; 4]), Frame::close(1000, "").masked()].concat();
    let after = [text("a").masked(), text("b").unmasked()].concat();
    vec![
        Case::bad("5.1", "a text without a mask", text("Hello").unmasked(), 1002),
        Case::bad("5.1", "an empty text without a mask", text("").unmasked(), 1002),
        Case::bad("5.1", "a ping without a mask", ping("a").unmasked(), 1002),
        Case::bad("5.1", "a close without a mask", Frame::close(1000, "").unmasked(), 1002),
        Case::bad(
            "5.1",
            "an end without a mask",
            [wire(&[text("a").unfinished()]), more("b").unmasked()].concat(),
            1002,
        ),
        Case::new("5.1", "a text without a mask behind a good one", after, vec![text("a")], Some(1002)),
        Case::new("5.3", "a mask of zeros", zero, vec![text("zero")], Some(1000)),
    ]
}

fn headers() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..8 {
        for (what, frame) in [
            ("a text", text("a")),
            ("an empty binary", binary("")),
            ("a first part", text("a").unfinished()),
            ("a ping", ping("a")),
            ("a close", Frame::close(1000, "")),
        ] {
            cases.push(Case::bad(
                "5.2",
                format!("reserved bits {bits:03b} on {what}"),
                wire(&[frame.reserved(bits)]),
                1002,
            ));
        }
    }
    let last = [text("a").unfinished(), more("b").reserved(4)];
    cases.push(Case::bad("5.2", "a reserved bit on a last part", wire(&last), 1002));
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        for payload in ["", "x"] {
            let frame = Frame::new(opcode, payload);
            cases.push(Case::bad(
                "5.2",
                format!("opcode {opcode:#x} with {payload:?}"),
                wire(std::slice::from_ref(&frame)),
                1002,
            ));
            let heard = vec![text("before")];
            let sent = wire(&[text("before"), frame, text("behind")]);
            cases.push(Case::new("5.2", format!("opcode {opcode:#x} between texts"), sent, heard, Some(1002)));
        }
    }
    cases
}

fn lengths(limit: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, limit].into_iter().filter(|it| *it <= limit) {
        for message in [text("x".repeat(length)), binary(vec![0xfe; length])] {
            let what = format!("opcode {} of {length}", message.opcode);
            cases.push(Case::good("5.2", what, std::slice::from_ref(&message), std::slice::from_ref(&message)));
        }
    }
    let (over, half) = (limit as u64 + 1, limit / 2 + 1);
    for (what, sent) in [
        // Refused by the head alone: nobody waits for what is not taken.
        ("one byte over the limit, announced", announced(TEXT, over)),
        ("a binary over the limit, announced", announced(BINARY, over)),
        ("the largest length there is", announced(BINARY, i64::MAX as u64)),
        ("a length with its top bit set", announced(BINARY, 1 << 63)),
        ("every bit of a length set", announced(TEXT, u64::MAX)),
        ("a part over the limit", [wire(&[text("a").unfinished()]), announced(CONTINUATION, over)].concat()),
        ("a message over the limit in two parts", wire(&[text("x".repeat(half)).unfinished(), more("x".repeat(half))])),
        (
            "a message over the limit that has not ended",
            wire(&[binary(vec![0; half]).unfinished(), more(vec![0; half]).unfinished()]),
        ),
        ("a message over the limit byte by byte at its end", wire(&cut(&text("x".repeat(limit + 1)), limit))),
    ] {
        cases.push(Case::bad("10.4", what, sent, 1009));
    }
    cases
}

fn fragmentation() -> Vec<Case> {
    let whole = text("Käse und 奶酪");
    let long = binary((0..4_000).map(|i| i as u8).collect::<Vec<_>>());
    let many = text("x".repeat(500));
    let parts = || [text("Hel").unfinished(), more("lo")];
    let [first, last] = parts();
    let good: Vec<(&str, Vec<Frame>, Vec<Frame>)> = vec![
        ("a text in two parts", parts().to_vec(), vec![text("Hello")]),
        ("a text in parts of a byte", cut(&whole, 1), vec![whole.clone()]),
        ("a text in 500 parts", cut(&many, 1), vec![many.clone()]),
        ("a binary in parts", cut(&long, 997), vec![long.clone()]),
        ("empty parts", vec![text("").unfinished(), more("").unfinished(), more("")], vec![text("")]),
        ("an empty start and end", vec![text("").unfinished(), more("a").unfinished(), more("")], vec![text("a")]),
        ("two texts in parts", [parts(), parts()].concat(), vec![text("Hello"), text("Hello")]),
        ("a ping between parts", vec![first.clone(), ping("p"), last.clone()], vec![pong("p"), text("Hello")]),
        ("a pong between parts", vec![first.clone(), pong("p"), last.clone()], vec![text("Hello")]),
        (
            "pings before, between and behind",
            vec![ping("1"), first.clone(), ping("2"), ping("3"), last.clone(), ping("4")],
            vec![pong("1"), pong("2"), pong("3"), text("Hello"), pong("4")],
        ),
    ];
    let good = good.into_iter().map(|(what, sent, heard)| Case::good("5.4", what, &sent, &heard));
    let bad: Vec<(&str, Vec<Frame>)> = vec![
        ("a last part of nothing", vec![more("a")]),
        ("an empty last part of nothing", vec![more("")]),
        ("a part of nothing", vec![more("a").unfinished()]),
        ("a part of nothing behind a ping", vec![pong("x"), more("a"), text("b")]),
        ("a text inside a message", vec![first.clone(), text("a")]),
        ("a binary inside a message", vec![first.clone(), binary("a")]),
        ("a message that begins inside another", vec![first.clone(), text("a").unfinished()]),
        ("a text behind three parts", vec![first.clone(), more("a").unfinished(), more("b").unfinished(), text("c")]),
    ];
    let bad = bad.into_iter().map(|(what, sent)| Case::bad("5.4", what, wire(&sent), 1002));
    let behind = wire(&[first, last, more("a")]);
    good.chain(bad)
        .chain([Case::new("5.4", "a part behind the last", behind, vec![text("Hello")], Some(1002))])
        .collect()
}

fn control() -> Vec<Case> {
    let full = [0xfe; 125];
    let mut cases: Vec<Case> = [&b""[..], b"a", &full[..124], &full]
        .map(|payload| Case::good("5.5.2", format!("a ping of {}", payload.len()), &[ping(payload)], &[pong(payload)]))
        .into();
    let numbered = |frame: fn(String) -> Frame| (0..100).map(|i| frame(i.to_string())).collect::<Vec<_>>();
    let (pings, pongs) = (numbered(ping), numbered(pong));
    cases.push(Case::good("5.5.2", "a hundred pings", &pings, &pongs));
    cases.push(Case::good("5.5.3", "a pong that nobody asked for", &[pong("a")], &[]));
    cases.push(Case::good("5.5.3", "a hundred pongs and a ping", &[pongs, vec![ping("a")]].concat(), &[pong("a")]));
    cases.push(Case::good("5.5.3", "an empty pong before a text", &[pong(""), text("a")], &[text("a")]));
    for (what, frame) in [
        ("a ping of 126", ping([0; 126])),
        ("a pong of 126", pong([0; 126])),
        ("a ping of 65536", ping([0; 65_536])),
        ("a close of 126", Frame::new(CLOSE, [&[3, 232][..], &[b'x'; 124]].concat())),
        ("a ping in parts", ping("a").unfinished()),
        ("an empty ping in parts", ping("").unfinished()),
        ("a pong in parts", pong("a").unfinished()),
        ("a close in parts", Frame::close(1000, "").unfinished()),
    ] {
        let inside = wire(&[text("a").unfinished(), frame.clone(), more("b")]);
        cases.push(Case::bad("5.5", format!("{what} inside a message"), inside, 1002));
        cases.push(Case::bad("5.5", what, wire(&[frame]), 1002));
    }
    cases
}

fn closing() -> Vec<Case> {
    let mut cases = Vec::new();
    let closing = |what: &str, sent: &[Frame], code| Case::new("5.5.1", what, wire(sent), Vec::new(), code);
    let (empty, normal) = (Frame::new(CLOSE, ""), Frame::close(1000, ""));
    cases.push(closing("a close without a code", std::slice::from_ref(&empty), None));
    cases.push(closing("a close with half a code", &[Frame::new(CLOSE, [3])], Some(1002)));
    cases.push(closing("a close with a reason", &[Frame::close(1000, "bis später")], Some(1000)));
    cases.push(closing("a close with the longest reason", &[Frame::close(1000, &"x".repeat(123))], Some(1000)));
    cases.push(closing("a text behind a close", &[normal.clone(), text("late")], Some(1000)));
    cases.push(closing("a ping behind a close", &[normal.clone(), ping("late")], Some(1000)));
    cases.push(closing("nonsense behind a close", &[normal.clone(), text("late").reserved(7)], Some(1000)));
    cases.push(closing("two closes", &[normal.clone(), Frame::close(1001, "")], Some(1000)));
    cases.push(closing("a close inside a message", &[text("a").unfinished(), normal.clone()], Some(1000)));
    cases.push(closing("a close inside a message, then its end", &[text("a").unfinished(), empty, more("b")], None));
    for code in (1000..=1003).chain(1007..=1011).chain([3000, 3999, 4000, 4999]) {
        for reason in ["", "a reason"] {
            let sent = wire(&[Frame::close(code, reason)]);
            cases.push(Case::new("7.4", format!("code {code} and {reason:?}"), sent, Vec::new(), Some(code)));
        }
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        for reason in ["", "a reason"] {
            let sent = wire(&[Frame::close(code, reason)]);
            cases.push(Case::bad("7.4", format!("code {code}, which nobody may send, and {reason:?}"), sent, 1002));
        }
    }
    for (what, bytes) in NOT_UTF8 {
        let close = Frame::new(CLOSE, [&[3, 232][..], bytes].concat());
        cases.push(Case::bad("8.1", format!("{what} as the reason of a close"), wire(&[close]), 1007));
    }
    cases
}

/// What no text may hold (RFC 3629).
const NOT_UTF8: &[(&str, &[u8])] = &[
    ("a byte that never begins one", b"\xff"),
    ("a lone continuation", b"\x80"),
    ("a second byte that is none", b"\xc3\x28"),
    ("a third byte that is none", b"\xe2\x82\x28"),
    ("a fourth byte that is none", b"\xf0\x9f\x98\x28"),
    ("two bytes cut at one", b"\xc3"),
    ("three bytes cut at two", b"\xe5\xa5"),
    ("four bytes cut at three", b"\xf0\x9f\x98"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("the last surrogate", b"\xed\xbf\xbf"),
    ("a pair of surrogates", b"\xed\xa0\xbd\xed\xb8\x80"),
    ("an overlong slash in two", b"\xc0\xaf"),
    ("an overlong slash in three", b"\xe0\x80\xaf"),
    ("an overlong slash in four", b"\xf0\x80\x80\xaf"),
    ("an overlong NUL", b"\xc0\x80"),
    ("the largest overlong in two", b"\xc1\xbf"),
    ("the largest overlong in three", b"\xe0\x9f\xbf"),
    ("one past U+10FFFF", b"\xf4\x90\x80\x80"),
    ("five bytes", b"\xf8\x88\x80\x80\x80"),
    ("six bytes", b"\xfc\x84\x80\x80\x80\x80"),
];

fn texts() -> Vec<Case> {
    let mut cases = Vec::new();
    for good in [
        "κόσμε",
        "\0",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}",
        "\u{d7ff}\u{e000}\u{fffe}",
        "\u{10ffff}",
        "\u{feff}😀",
    ] {
        let message = text(good);
        cases.push(Case::good(
            "8.1",
            format!("{good:?}"),
            std::slice::from_ref(&message),
            std::slice::from_ref(&message),
        ));
        cases.push(Case::good("8.1", format!("{good:?} cut inside its characters"), &cut(&message, 1), &[message]));
    }
    for (what, bytes) in NOT_UTF8 {
        let whole = text([b"good, then ", *bytes].concat());
        cases.push(Case::bad("8.1", format!("{what} at the end"), wire(std::slice::from_ref(&whole)), 1007));
        cases.push(Case::bad("8.1", format!("{what} in parts of a byte"), wire(&cut(&whole, 1)), 1007));
        let inside = text([*bytes, b" and more"].concat());
        cases.push(Case::bad("8.1", format!("{what} at the start"), wire(&[inside]), 1007));
        let message = binary(bytes);
        cases.push(Case::good(
            "5.6",
            format!("{what} as binary"),
            std::slice::from_ref(&message),
            std::slice::from_ref(&message),
        ));
    }
    let split = [text("\u{e4}").unfinished(), ping("p"), more([0xc3]).unfinished(), more("x")];
    let heard = vec![pong("p")];
    cases.push(Case::new("8.1", "a character that its next part does not end", wire(&split), heard, Some(1007)));
    cases
}

/// The table, for a server that takes messages of `limit` bytes.
fn table(limit: usize) -> Vec<Case> {
    [masking(), headers(), lengths(limit), fragmentation(), control(), closing(), texts()]
        .into_iter()
        .flatten()
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Whole,
    Bytes,
    Pieces,
}

impl Delivery {
    const ALL: [Self; 3] = [Self::Whole, Self::Bytes, Self::Pieces];
    /// Bytes from which on a row in single bytes would only cost time.
    const LONG: usize = 2_048;

    /// How many bytes go out next.
    fn piece(self, total: usize, dice: &mut Dice) -> usize {
        match self {
            Self::Whole => total,
            Self::Bytes if total <= Self::LONG => 1,
            Self::Bytes | Self::Pieces => 1 + dice.below((total as u64 / 8).clamp(3, 9_000)) as usize,
        }
    }
}

/// Holds one conversation. `heeds` says which frames of the server count.
fn hold(place: &Place, ask: &Ask, case: &Case, delivery: Delivery, dice: &mut Dice, heeds: fn(&Frame) -> bool) {
    let at = format!("{}, {}, {delivery:?}", case.section, case.what);
    let mut frames = Frames::open(place, ask);
    let mut rest = &case.sent[..];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(delivery.piece(case.sent.len(), dice).min(rest.len()));
        // A server that has heard enough may be gone before the end.
        if frames.try_send(piece).is_err() {
            break;
        }
        rest = behind;
    }
    let (mut heard, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    let close = loop {
        assert!(Instant::now() < deadline, "{at}: no close came in {DEADLINE:?}");
        match frames.read().unwrap_or_else(|| panic!("{at}: the connection ended without a close")) {
            frame if frame.opcode == CLOSE => break frame,
            frame if heeds(&frame) => heard.push(frame),
            _ => {}
        }
    };
    assert!(heard == case.heard, "{at}: heard {heard:?}");
    assert_eq!(close.code(), case.code, "{at}");
    assert!(
        std::str::from_utf8(close.payload.get(2..).unwrap_or_default()).is_ok(),
        "{at}: the reason is UTF-8 (5.5.1)"
    );
    if delivery == Delivery::Whole {
        let _ = frames.try_send(&Frame::new(CLOSE, &close.payload).masked());
    }
    assert!(frames.ends(), "{at}: the server ends the connection (7.1.1), and not by a reset");
}

fn dice() -> Dice {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    Dice::new(seed)
}

#[test]
fn the_echo_keeps_the_standard_row_by_row_however_its_bytes_come() {
    const LIMIT: usize = 100_000;
    let (echo, mut dice) = (Echo::start(LIMIT), dice());
    let table = table(LIMIT);
    assert!(table.len() > 250, "{}", table.len());
    for case in &table {
        for delivery in Delivery::ALL {
            hold(&echo.place, &handshake("/"), case, delivery, &mut dice, |_| true);
        }
    }
}

#[test]
fn the_real_address_keeps_the_standard_where_no_echo_is_needed() {
    let (server, mut dice) = (Server::start(), dice());
    let known = handshake("/v1/ws").bearer(&server.token("alice"));
    let table: Vec<Case> = table(64 * 1024).into_iter().filter(|case| !case.needs_echo()).collect();
    assert!(table.len() > 200, "{}", table.len());
    for case in &table {
        for (ask, delivery) in
            [(&known, Delivery::Whole), (&known, Delivery::Pieces), (&handshake("/v1/ws"), Delivery::Bytes)]
        {
            // Its events and replies are told elsewhere.
            hold(server.place(), ask, case, delivery, &mut dice, |frame| frame.opcode != TEXT);
        }
    }
    server.notify("alice", "after all of it");
    assert_eq!(server.inbox("alice")["counts"]["unread"], 1);
}

#[test]
fn messages_of_sixteen_mebibytes_come_back_whole() {
    const LENGTH: usize = 16 * 1024 * 1024;
    let echo = Echo::start(64 * 1024 * 1024);
    for (message, part) in [
        (text("ä".repeat(LENGTH / 2)), LENGTH),
        (binary(vec![0xfe; LENGTH]), LENGTH),
        (text("x".repeat(LENGTH)), 65_536),
    ] {
        let mut frames = Frames::open(&echo.place, &handshake("/"));
        for frame in cut(&message, part) {
            frames.send(&frame);
        }
        assert!(frames.read() == Some(message), "in parts of {part}");
        frames.send(&Frame::close(1000, ""));
        assert_eq!(frames.closed().code(), Some(1000));
    }
}

#[test]
fn what_comes_in_one_piece_with_the_handshake_is_heard() {
    let echo = Echo::start(1_000);
    let behind = wire(&[text("early"), Frame::close(1000, "")]);
    for length in [1, 5, behind.len()] {
        let mut frames = Frames::open_with(&echo.place, &handshake("/"), &behind[..length]);
        frames.send_raw(&behind[length..]);
        assert_eq!(frames.read(), Some(text("early")));
        assert_eq!(frames.closed().code(), Some(1000));
    }
}

#[test]
fn a_client_that_leaves_without_a_word_costs_nobody_else_anything() {
    let echo = Echo::start(1_000);
    let mut witness = Frames::open(&echo.place, &handshake("/"));
    for left in [vec![], text("half a").masked()[..4].to_vec(), wire(&[text("a").unfinished()]), announced(TEXT, 900)] {
        let mut frames = Frames::open(&echo.place, &handshake("/"));
        frames.send_raw(&left);
        frames.shutdown();
        witness.send(&text("still here"));
        assert_eq!(witness.read(), Some(text("still here")));
    }
}
