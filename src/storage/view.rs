//! Read views: one consistent state of the database, and how it is read.
//!
//! A view is a version and the levels that hold it. The state thread publishes one after each command; taking it is a
//! clone of a few `Arc`s, and from then on nothing that happens changes what it shows: memtables keep every version,
//! levels never change, and both live as long as a view holds them.
//!
//! ```text
//! View { version 7, levels ─┐ }
//!                           v
//!        [memtable: a@5 a@9 b@6] [hot store: a@2 c@1 ...] [sealed run ...]
//!         a@9 is not yet; a@5 shadows a@2
//! ```
//!
//! * The newest version of a key that is not above the view's shadows all others, be it a row or a tombstone.
//! * A range delete is a tombstone of every key in its range for what was written before it.
//! * An expired row is not there, but still shadows what it replaced. Scans are told when rows expire; point reads
//!   return the stamp, and the caller judges.
//! * A statement's view ends with its lease ([`crate::storage::lease`]); apply's and the content hash's have none.
//! * A view of blocks needs no version check: what is in a block was applied before any view of it was published.

mod derive;
mod point;
pub(in crate::storage) mod reader;

use crate::error::{Error, Result};
use crate::hlc::Timestamp;
use crate::ids::{ColumnId, KeyspaceId, LogIndex};
use crate::sql::batch::{Batch, Strings};
use crate::sql::catalog::{Catalog, Layout};
use crate::sql::value::Value;
use crate::storage::cache::Cache;
use crate::storage::keys::KeyRange;
use crate::storage::lease::Lease;
use crate::storage::levels::Levels;
use crate::storage::rows::{Metadata, Stamp};
use std::sync::Arc;

pub use crate::storage::scan::{ScanItem, Scanner};
pub use point::{Head, PointReader};
pub(in crate::storage) use point::{may_hold, wanted_slots};

/// A consistent state of the database at one position of the log. Cheap to clone; nothing waits for a reader.
#[derive(Clone)]
pub struct View {
    /// Position of the last command that this view holds.
    pub version: LogIndex,
    /// Stamp of that command.
    pub hlc: Timestamp,
    /// The tables at that position.
    pub catalog: Arc<Catalog>,
    /// What holds the rows.
    pub levels: Arc<Levels>,
    /// Decoded parts of blocks, shared by all views.
    pub cache: Arc<Cache>,
    /// How long it may be read; without one for as long as it takes.
    pub lease: Option<Arc<Lease>>,
}

/// A necessary condition on one column: a block whose zone cannot meet it holds no row that is wanted. NULL never
/// meets a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneBound {
    /// Which column.
    pub column: ColumnId,
    /// Wanted values are not below this.
    pub min: Option<Value>,
    /// Wanted values are not above this.
    pub max: Option<Value>,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// From where.
    pub keyspace: KeyspaceId,
    /// Ascending, disjoint key ranges.
    pub ranges: Vec<KeyRange>,
    /// Columns wanted, in this order.
    pub columns: Vec<ColumnId>,
    /// Lets whole blocks be skipped; rows that do not meet them may still come.
    pub bounds: Vec<ZoneBound>,
    /// Rows created (ms) below this are not there.
    pub expired_below_ms: u64,
    /// Whether keys and metadata are wanted as well.
    pub with_keys: bool,
    /// Rows a batch holds at most; the first batch may be asked small (`LIMIT 1`). Whole blocks pass through as they
    /// are, whatever this says.
    pub batch_rows: usize,
}

/// One batch of a scan.
#[derive(Clone, Debug)]
pub struct ScanBatch {
    /// The columns asked for.
    pub batch: Batch,
    /// Keys and metadata, where asked for.
    pub keys: Option<(Arc<Strings>, Arc<Metadata>)>,
}

/// A row found by its key.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who wrote it and when.
    pub stamp: Stamp,
    /// The values asked for; none where the newest version is a tombstone.
    pub values: Option<Vec<Value>>,
}

impl View {
    /// Starts a scan. Nothing is read before its first batch is asked for.
    pub fn scan(&self, request: ScanRequest) -> Result<Scanner> {
        Scanner::new(self.clone(), request)
    }

    /// The newest version of a key, tombstones and range deletes included; none where no level knows the key.
    pub fn get(&self, keyspace: KeyspaceId, key: &[u8], columns: &[ColumnId]) -> Result<Option<Found>> {
        self.reader(keyspace, columns)?.get(key)
    }

    /// Reads many keys for the same columns.
    pub fn reader(&self, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<PointReader> {
        PointReader::new(self, keyspace, columns)
    }

    /// The newest version of a key without its values: what the preconditions of apply ask. Reads no block where key
    /// ranges and filters rule the key out.
    pub fn head(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Head>> {
        point::head_of(self, keyspace, key, None)
    }

    /// An error once the view is too old to be read (72000).
    pub(in crate::storage) fn check_lease(&self) -> Result<()> {
        self.lease.as_ref().map_or(Ok(()), |lease| lease.check())
    }

    /// How a keyspace is stored in this view.
    pub fn layout(&self, keyspace: KeyspaceId) -> Result<Layout> {
        let layout = self.catalog.layout(keyspace);
        layout.ok_or_else(|| Error::internal(format!("keyspace {keyspace} belongs to no table of this view")))
    }
}
