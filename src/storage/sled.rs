//! The hot engine on disk: sled, as an ordered map of values of at most 4 KB.
//!
//! It holds what must switch as a whole: the chain of manifest deltas and the root with the state record, a few KB a
//! flush. Blocks of rows lie in files beside it ([`crate::storage::hot`] has the table): as values of sled each encoded
//! byte of them cost 4.4 to 8.3 bytes on the device and 2 to 7 on disk, since a leaf of up to 16 values is written anew
//! whenever one is added and space comes back late.
//!
//! * Values of at most 4 KB in segments of 512 KiB: a page over a quarter of a segment becomes a blob file that is
//!   never fsynced. So longer records go on in further values.
//! * No flusher thread: sled is never trusted across a power cut, so its fsyncs every half second would buy nothing.
//!   [`BlockStore::flush`] after each publish hands its buffer to the kernel, so that kill -9 loses no flush.
//! * sled meets some kinds of damage with a panic. Here a panic becomes an error like any other: the hot store is
//!   then thrown away and the log replayed from its birth.
//!
//! This is the only file that names sled.

use crate::error::{Error, Result};
use crate::storage::block_store::{BlockStore, Edit, Pair};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// sled's own page cache. It is read at start only, so it need not hold more than the tail.
const CACHE_BYTES: u64 = 1 << 20;

/// See above: a page of 16 values of 4 KB must stay below a quarter of it.
const SEGMENT_BYTES: usize = 512 << 10;

/// An ordered map of bytes in a sled directory.
pub struct SledStore {
    database: ::sled::Db,
    path: PathBuf,
}

impl SledStore {
    /// Opens the directory, or makes it.
    pub fn open(path: &Path) -> Result<SledStore> {
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None)
            .mode(::sled::Mode::HighThroughput)
            .use_compression(false);
        let database = guarded(path, "open", || config.open())?;
        Ok(SledStore { database, path: path.to_path_buf() })
    }
}

/// Runs one call of sled; its errors and panics become ours.
fn guarded<T>(path: &Path, doing: &str, call: impl FnOnce() -> ::sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(translate(path, doing, error)),
        Err(_) => Err(Error::damaged(format!("{doing} {}: sled panicked", path.display()))),
    }
}

fn translate(path: &Path, doing: &str, error: ::sled::Error) -> Error {
    match error {
        ::sled::Error::Io(error) => Error::io(format_args!("{doing} {}", path.display()), &error),
        ::sled::Error::Corruption { at, .. } => {
            Error::damaged(format!("{doing} {}: sled found damage at {at:?}", path.display()))
        }
        ::sled::Error::CollectionNotFound(_) | ::sled::Error::Unsupported(_) | ::sled::Error::ReportableBug(_) => {
            Error::internal(format!("{doing} {}: {error}", path.display()))
        }
    }
}

impl BlockStore for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(guarded(&self.path, "read", || self.database.get(key))?.map(|value| value.to_vec()))
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Result<Pair>> + 'a> {
        let mut pairs = (from < to).then(|| self.database.range(from.to_vec()..to.to_vec()));
        Box::new(std::iter::from_fn(move || {
            let next = guarded(&self.path, "read", || pairs.as_mut().and_then(Iterator::next).transpose());
            match next {
                Ok(pair) => pair.map(|(key, value)| Ok((key.to_vec(), value.to_vec()))),
                Err(error) => {
                    // What follows a failed step is unknown: the iterator ends with its error.
                    pairs = None;
                    Some(Err(error))
                }
            }
        }))
    }

    fn apply_batch(&self, edits: Vec<Edit>) -> Result<()> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in edits {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        guarded(&self.path, "write", || self.database.apply_batch(batch))
    }

    fn flush(&self) -> Result<()> {
        guarded(&self.path, "flush", || self.database.flush()).map(|_| ())
    }

    fn size(&self) -> Result<u64> {
        guarded(&self.path, "measure", || self.database.size_on_disk())
    }
}
