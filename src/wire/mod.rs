//! What crosses a socket: bodies of requests and answers, events, frames, cursors. Pure: no I/O, no clock.
//!
//! Data passes one way through each file: bytes of a caller become checked `model` types, or `model` types become
//! bytes. **Invariant**: `data` of an event is one line of JSON, event names are a closed set and ids are generated,
//! so no caller can put a line break into a stream.
//!
//! Rank 1: imports `model`.

pub mod batch;
pub mod check;
pub mod cursor;
pub mod delivery;
pub mod event;
pub mod explain;
pub mod frame;
pub mod inbox;
pub mod json;
pub mod manage;
pub mod measure;
pub mod message_log;
pub mod operation;
pub mod ops;
pub mod plain;
pub mod poll;
pub mod problem;
pub mod profile;
pub mod publish;
pub mod queue;
pub mod status;
pub mod template;
pub mod topic;
pub mod upkeep;
