//! What operators read from: the seam between plans and storage.
//!
//! A read view is one; a transaction's view, with its own writes above, is another; tests bring a map.

use crate::error::Result;
use crate::ids::{ColumnId, KeyspaceId};
use crate::storage::view::{Found, PointReader, ScanBatch, ScanItem, ScanRequest, Scanner, View};

/// A consistent state of the rows.
pub trait Source: Send + Sync {
    /// Starts a scan.
    ///
    /// # Errors
    /// Those of storage: damage, `snapshot too old`.
    fn scan(&self, request: ScanRequest) -> Result<Box<dyn BatchSource>>;

    /// Reads single rows of a keyspace by key, these columns of each.
    ///
    /// # Errors
    /// Those of storage.
    fn points(&self, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<Box<dyn PointSource>>;
}

/// A scan under way.
pub trait BatchSource: Send {
    /// The next batch in key order, never empty; none at the end.
    ///
    /// # Errors
    /// Those of storage.
    fn next_batch(&mut self) -> Result<Option<ScanBatch>>;

    /// The next rows, or only what is known of them without decoding, where all of a block is there and wanted. A
    /// source that knows nothing without decoding gives rows.
    ///
    /// # Errors
    /// Those of storage.
    fn next_summary(&mut self) -> Result<Option<ScanItem>> {
        Ok(self.next_batch()?.map(ScanItem::Batch))
    }

    /// The rows of the summary just given.
    ///
    /// # Errors
    /// Those of storage.
    fn read_summarised(&mut self) -> Result<Option<ScanBatch>> {
        Ok(None)
    }
}

/// Reads rows by key.
pub trait PointSource: Send {
    /// The newest version of a key, tombstones and expired rows included.
    ///
    /// # Errors
    /// Those of storage.
    fn get(&self, key: &[u8]) -> Result<Option<Found>>;
}

impl Source for View {
    fn scan(&self, request: ScanRequest) -> Result<Box<dyn BatchSource>> {
        Ok(Box::new(View::scan(self, request)?))
    }

    fn points(&self, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<Box<dyn PointSource>> {
        Ok(Box::new(self.reader(keyspace, columns)?))
    }
}

impl BatchSource for Scanner {
    fn next_batch(&mut self) -> Result<Option<ScanBatch>> {
        Scanner::next_batch(self)
    }

    fn next_summary(&mut self) -> Result<Option<ScanItem>> {
        Scanner::next_summary(self)
    }

    fn read_summarised(&mut self) -> Result<Option<ScanBatch>> {
        Scanner::read_summarised(self)
    }
}

impl PointSource for PointReader {
    fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        PointReader::get(self, key)
    }
}
