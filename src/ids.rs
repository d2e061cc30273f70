//! Names that are numbers. Each is a type of its own, so that no signature carries a bare `u64`.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    )*};
}

id! {
    /// A Raft term: at most one leader each.
    Term(u64);
    /// A position in the Raft log, counted from 1; 0 is before the first entry. Also the version of a row.
    LogIndex(u64);
    /// A table; never reused.
    TableId(u32);
    /// A secondary index; never reused.
    IndexId(u32);
    /// A column within its table; never reused, so a dropped column's values cannot come back under another name.
    ColumnId(u16);
    /// Counts the changes of one table's definition.
    SchemaVersion(u32);
    /// An ordered set of rows in storage: a table, an index, or one of the system's own. Never reused.
    KeyspaceId(u32);
    /// Where a row was first written: 64 random bits drawn when a database directory is formatted.
    OriginUid(u64);
    /// A directory's own identity: 128 random bits drawn when it is formatted. A copied disk keeps it, a wiped one does not.
    DiskId(u128);
    /// Hash of the sorted bootstrap members and the cluster's name.
    ClusterId(u128);
}

impl LogIndex {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The position before this one; before the first it stays 0.
    #[must_use]
    pub fn previous(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }
}
