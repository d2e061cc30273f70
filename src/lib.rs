//! ChronosDB: the database that a gateway box runs. SQL for sensor data, one log, durable on every answer.
//!
//! This crate is the library: everything that decides, nothing that waits. It opens no socket, reads no clock but
//! through [`clock`], and has no async runtime; the daemon's actors (in `actors/`, part of the binary) and
//! [`embedded`] both compose the same parts.
//!
//! # What depends on what
//!
//! ```text
//!   embedded          the same parts in a program of yours
//!      │
//!   sql::execute      text to answer: parse, bind, plan; rows from a view, effects to the log
//!      │      └─────────────┐
//!   machine           raft                 what a command does; in which order commands come
//!      │                │
//!   storage           storage::wal         views, memtables, hot store, sealed files; the log on disk
//!      │
//!   sql::{value, batch, catalog}           what rows are made of
//!      │
//!   error, ids, hlc, clock                 what everything is made of
//! ```
//!
//! # The life of one INSERT
//!
//! 1. [`sql::execute`] reads the text. A literal INSERT becomes columns at once, without a syntax tree; any other
//!    statement is evaluated at a read view.
//! 2. The rows, with the precondition that their keys are absent, become a [`machine::Command`], and the
//!    [`raft::Node`] gives it a position, a term and a stamp.
//! 3. The log thread of the [`storage::engine`] writes the entry, with all that came meanwhile, and calls fdatasync.
//! 4. The state thread checks the precondition, writes the memtable, publishes a view that holds the rows, and
//!    answers. Nobody is told "done" before both: durable, and visible to the next reader.
//! 5. Later the memtable is flushed into column blocks of the hot store, and those are sealed into files.

pub mod clock;
pub mod config;
pub mod embedded;
pub mod error;
pub mod hlc;
pub mod ids;
pub mod machine;
pub mod raft;
pub mod sql;
pub mod storage;

pub use embedded::ChronosEmbedded;
pub use error::{Error, Result};
