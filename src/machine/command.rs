//! Commands: what the log says, besides who leads and who belongs.
//!
//! A command carries effects, not statements: the rows to be written, each with the precondition under which the
//! leader computed it. Whatever decides the outcome of applying it is in it or in replicated state.
//!
//! ```text
//! command = version:u8 body          body in postcard's encoding
//! ```
//!
//! * Commands name tables and indexes by identity and definition; a command bound to an older definition conflicts.
//! * Limits: a command is at most `command_bytes_max`; a larger one travels as staged parts.

use super::row_set::{KeySet, RowSet};
use crate::hlc::Timestamp;
use crate::ids::{ColumnId, IndexId, LogIndex, OriginUid, SchemaVersion, TableId};
use crate::sql::catalog::ColumnDefinition;
use crate::storage::keys::Key;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The newest version of commands that this program knows; it reads this one and older ones, and writes each command in
/// the oldest that has it.
///
/// | version | adds |
/// |---|---|
/// | 1 | statements, stages, what the janitor proposes |
/// | 2 | [`Body::HashAt`] |
pub const COMMAND_VERSION: u8 = 2;

/// The version that every program knows: a group begins with it, whichever programs its members are, and goes on to what
/// all of them understand.
pub const FIRST_COMMAND_VERSION: u8 = 1;

/// Refuses a command that not every member of a group understands, by the version in front of it.
pub fn check_version(command: &[u8], group: u8) -> Result<()> {
    match command.first() {
        Some(version) if *version > group => Err(Error::invalid(
            crate::error::SqlState::NOT_IN_STATE,
            format!(
                "this needs commands of version {version}, and not every member of the group knows more than {group}"
            ),
        )
        .hint("start the newer chronos on all members")),
        Some(_) | None => Ok(()),
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Under which name its outcome is remembered, where the client gave one.
    pub request: Option<Request>,
    /// The directory of the leader that made it: the origin of the rows it writes.
    pub origin: OriginUid,
    /// Rows that the client is told were affected; exact, since the preconditions held.
    pub affected: u64,
    /// What to do.
    pub body: Body,
}

/// A client's name for a request, so that a repeated one is not executed twice (thesis 6.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks, and which of its requests this is.
    pub id: RequestId,
    /// Hash of statement and parameters: the same name with another statement is an error.
    pub fingerprint: u64,
    /// Rows that each statement of a batch affects, where none of them answers rows; empty for a single statement.
    pub counts: Vec<u64>,
}

/// How a client names a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestId {
    /// A session's request: its outcome is kept until 64 later ones of the session.
    Session {
        /// The session, up to 64 bytes.
        client: String,
        /// Its request, rising.
        sequence: u64,
    },
    /// A bare request, named by a `UUIDv7`, which carries the time of its creation.
    Bare(u128),
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Statements, all or nothing.
    Transaction(Transaction),
    /// Part of a transaction that is too large for one entry.
    Stage {
        /// Which transaction.
        stage: u128,
        /// Which part of it, counted from 0.
        part: u32,
        /// A piece of the stage's frames.
        bytes: Vec<u8>,
    },
    /// The transaction whose parts were staged.
    Commit {
        /// Which transaction.
        stage: u128,
        /// How many parts it has.
        parts: u32,
    },
    /// Forgets staged parts.
    Abandon {
        /// Which transaction.
        stage: u128,
    },
    /// Rows of a table created below an instant are gone.
    Expire {
        /// Which table.
        table: TableId,
        /// Milliseconds since 1970.
        below_ms: u64,
    },
    /// Tombstones at or below a position count as not there.
    RaiseFloor {
        /// Which table.
        table: TableId,
        /// Up to where.
        floor: LogIndex,
    },
    /// Makes index entries for the next rows, in key order.
    Backfill {
        /// Which index.
        index: IndexId,
        /// Where the builder believes the index stands; anything else is a repetition and does nothing.
        from: Vec<u8>,
        /// Rows at most.
        rows_max: u32,
    },
    /// Forgets outcomes older than an instant.
    EvictRequests {
        /// Stamps below this are forgotten.
        before: Timestamp,
    },
    /// Changes nothing: each replica hashes all that it shows at this position, so that copies can be compared.
    HashAt,
}

/// Statements as effects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// Position of the read view that the effects were computed at.
    pub read_index: LogIndex,
    /// In order; a later part sees what earlier ones did.
    pub parts: Vec<Part>,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// Makes a table.
    CreateTable(NewTable),
    /// Removes a table with its rows and indexes.
    DropTable {
        /// Which one.
        table: TableId,
    },
    /// Makes an index, empty where the table may have rows: it is then filled by [`Body::Backfill`].
    CreateIndex(NewIndex),
    /// Removes an index.
    DropIndex {
        /// Which one.
        index: IndexId,
    },
    /// Writes rows.
    Write(TableWrite),
}

/// A table to be made. Its identity is drawn when the command is applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewTable {
    /// Name as it compares.
    pub name: String,
    /// Columns with their identities.
    pub columns: Vec<ColumnDefinition>,
    /// Columns of the key; none for a hidden row id.
    pub primary_key: Vec<ColumnId>,
    /// Age at which rows expire.
    pub ttl: Option<Duration>,
    /// An existing table of this name is fine.
    pub if_not_exists: bool,
    /// The identity that it must draw, where later parts of the transaction write to it.
    pub expected: Option<TableId>,
}

/// An index to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewIndex {
    /// Name as it compares.
    pub name: String,
    /// On which table.
    pub table: TableId,
    /// The table's definition that `columns` were bound to.
    pub schema: SchemaVersion,
    /// Columns in order.
    pub columns: Vec<ColumnId>,
    /// An existing index of this name is fine.
    pub if_not_exists: bool,
}

/// Rows of one table to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableWrite {
    /// Which table.
    pub table: TableId,
    /// The definition that the effect was bound to.
    pub schema: SchemaVersion,
    /// What to do.
    pub effect: Effect,
}

/// What happens to rows, and what must hold for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// New rows; no key may be visible. Without hidden row id columns the ids are drawn when the command is applied.
    Insert {
        /// The rows, all columns of the table.
        rows: RowSet,
        /// When each row was first inserted (ms), where that was not now: an UPDATE of the key keeps a row's age.
        created_ms: Option<Vec<u64>>,
    },
    /// New versions of rows that were visible at the read view and have not changed since.
    Replace {
        /// The rows, all columns of the table's layout.
        rows: RowSet,
        /// When each row was first inserted, ms.
        created_ms: Vec<u64>,
    },
    /// The end of rows that were visible at the read view and have not changed since.
    Delete {
        /// Which rows.
        keys: KeySet,
    },
    /// The end of all rows of a key range, none of which changed since the read view. Only of tables without indexes,
    /// or of all rows.
    DeleteRange {
        /// First key.
        from: Key,
        /// First key that stays; none for the end.
        to: Option<Key>,
    },
}

impl Command {
    /// The version that has this command: a group in which not everybody understands it must not be proposed it.
    pub fn version(&self) -> u8 {
        match &self.body {
            Body::Transaction(_)
            | Body::Stage { .. }
            | Body::Commit { .. }
            | Body::Abandon { .. }
            | Body::Expire { .. }
            | Body::RaiseFloor { .. }
            | Body::Backfill { .. }
            | Body::EvictRequests { .. } => 1,
            Body::HashAt => 2,
        }
    }

    /// The bytes for the log.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![self.version()]).expect("commands have a plain encoding")
    }

    /// True where it does nothing but insert rows, and no request is remembered.
    pub fn inserts_alone(&self) -> bool {
        let Body::Transaction(transaction) = &self.body else { return false };
        let insert = |part: &Part| matches!(part, Part::Write(TableWrite { effect: Effect::Insert { .. }, .. }));
        self.request.is_none() && transaction.parts.iter().all(insert)
    }

    /// Reads what `encode` wrote. The log's checksums say that the bytes are those that a leader wrote, so what does not
    /// decode is no damage.
    pub fn decode(bytes: &[u8]) -> Result<Command> {
        match bytes.split_first() {
            Some((&version @ 1..=COMMAND_VERSION, body)) => postcard::from_bytes(body).map_err(|error| {
                Error::not_understood(format!("a command of version {version} does not decode: {error}"))
            }),
            Some((version, _)) => Err(Error::not_understood(format!(
                "a command of version {version}, and this chronos knows up to {COMMAND_VERSION}: start a newer one"
            ))),
            None => Err(Error::not_understood("a command without content")),
        }
    }
}
