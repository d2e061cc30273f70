//! The hot engine without a disk: a `BTreeMap`, for simulation and as the model that sled is compared with.
//!
//! * A clone is a second handle on the same content, so a test keeps the content while the store on top is reopened.

use crate::error::Result;
use crate::storage::block_store::{BlockStore, Edit, Pair};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pairs that an iterator copies under one lock: it does not keep writers out for longer than that.
const CHUNK_PAIRS: usize = 64;

/// An ordered map of bytes in memory.
#[derive(Clone, Default)]
pub struct MemoryStore {
    pairs: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A store of its own with the same content, as a copy of a directory would be.
    #[must_use]
    pub fn copy(&self) -> MemoryStore {
        MemoryStore { pairs: Arc::new(Mutex::new(self.lock().clone())) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        // Every change is complete when its lock is released, so a panic elsewhere leaves nothing half done.
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.lock().get(key).cloned())
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Result<Pair>> + 'a> {
        let mut next = Bound::Included(from.to_vec());
        let to = to.to_vec();
        let mut chunk: std::vec::IntoIter<Pair> = Vec::new().into_iter();
        Box::new(std::iter::from_fn(move || {
            if chunk.as_slice().is_empty() {
                let below = match &next {
                    Bound::Included(from) | Bound::Excluded(from) => from < &to,
                    Bound::Unbounded => false,
                };
                if !below {
                    return None;
                }
                let pairs = self.lock();
                let pairs = pairs.range((next.clone(), Bound::Excluded(to.clone()))).take(CHUNK_PAIRS);
                let copied: Vec<Pair> = pairs.map(|(key, value)| (key.clone(), value.clone())).collect();
                next = match copied.last() {
                    Some((last, _)) => Bound::Excluded(last.clone()),
                    None => Bound::Unbounded,
                };
                chunk = copied.into_iter();
            }
            chunk.next().map(Ok)
        }))
    }

    fn apply_batch(&self, edits: Vec<Edit>) -> Result<()> {
        let mut pairs = self.lock();
        for (key, value) in edits {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn size(&self) -> Result<u64> {
        Ok(self.lock().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
