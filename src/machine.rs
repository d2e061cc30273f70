//! The replicated state machine: what a command does to the state, and the only way in which state changes.
//!
//! ```text
//!  leader: statement ──> evaluate at view r ──> command {r, effects, preconditions} ──> log
//!  every replica, in log order:                 check all preconditions ──> write all, or answer why not
//! ```
//!
//! Apply evaluates no SQL, no floats and no functions. It looks keys up, compares positions, and writes memory: at most
//! one block read a key and level, and none where ranges and filters prove a key absent. So replicas of different
//! processors and versions cannot diverge, and a slow statement never holds up the log.
//!
//! Invariants:
//!
//! * the outcome of a command depends on the log before it and on nothing else: no clock, no configuration, no
//!   accident of flushing or merging
//! * a command takes effect whole or not at all: all checks come before the first write. One too large for memory is
//!   read twice, a slice at a time: first to check, then to write where nobody looks yet
//! * stamps rise strictly from entry to entry
//! * a row that has expired at the command's stamp is absent for every check

mod apply;
pub mod bare;
mod command;
mod definition;
mod request;
mod row_set;
mod stage;
mod staged;
mod write;

pub use apply::{Machine, Outcome, Preview, preview};
pub use command::{
    Body, COMMAND_VERSION, Command, Effect, FIRST_COMMAND_VERSION, NewIndex, NewTable, Part, Request, RequestId,
    TableWrite, Transaction, check_version,
};
pub use request::{REQUESTS_MAX, Recalled, SESSIONS_MAX, recall};
pub use row_set::{KeySet, RowSet};
pub use stage::push_frame;
pub use staged::{Staged, Writes};
pub use write::duplicate_key;
