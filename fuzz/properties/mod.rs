//! Properties: what must hold of Tidings whatever bytes a stranger sends. One place for both who try them: the fuzz
//! targets beside this, and `tests/promises/fuzz.rs`, which replays every corpus with the tests.
//!
//! Each is a function from bytes that panics where its property does not hold, and says at its head what it states.
//! **Invariant**: a property is stated against the standard or the contract, by a way of its own where there is one,
//! never by calling the code under test twice.
//!
//! No framing of WebSockets is here, since that is tungstenite's; `tests/it/echo.rs` plays RFC 6455 case by case.

mod batch;
mod cursor;
mod data;
mod depth;
mod draft;
mod event;
mod event_source;
mod gate;
mod headers;
mod input;
mod markup;
mod moment;
mod names;
mod operation;
mod plain;
mod publish;
mod query;
mod settings;
mod template;
mod ticket;
mod token;

pub use batch::batch;
pub use cursor::cursor;
pub use data::data;
pub use depth::depth;
pub use event::event;
pub use headers::headers;
pub use moment::moment;
pub use names::names;
pub use operation::operation;
pub use plain::plain;
pub use publish::publish;
pub use query::query;
pub use settings::settings;
pub use template::template;
pub use ticket::ticket;
pub use token::token;
