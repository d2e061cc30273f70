//! The engine below the hot store: an ordered map of bytes with atomic batches. It holds the chain that names the blocks
//! and the state record; the blocks themselves lie in files.
//!
//! Two engines stand behind this door: [`crate::storage::sled`] on disk and [`crate::storage::memory`] for simulation and
//! as the model. One conformance suite runs on both (`tests/domain/storage_engines.rs`).
//!
//! * A batch is seen whole or not at all by [`BlockStore::get`], and survives the death of the process whole or not at
//!   all. Nothing is promised about a power cut: the log reaches back to the store's birth.
//! * Keys compare as bytes. A range that is read while batches are applied may see parts of them: what must be
//!   consistent is read by name, through a manifest.

use crate::error::Result;

/// One change of a batch: a key with its new value, or none to remove it.
pub type Edit = (Vec<u8>, Option<Vec<u8>>);

/// A key with its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered map of bytes.
pub trait BlockStore: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Pairs with `from <= key < to`, ascending.
    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Result<Pair>> + 'a>;

    /// Applies all edits or none. A key named twice takes the later edit.
    fn apply_batch(&self, edits: Vec<Edit>) -> Result<()>;

    /// Hands everything applied so far to the operating system: the death of the process then leaves it there.
    fn flush(&self) -> Result<()>;

    /// Bytes held: on disk, or in memory for an engine that has no disk.
    fn size(&self) -> Result<u64>;
}
