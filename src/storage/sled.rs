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
//! * A dropped sled lets its lock go some time later: threads of a pool that all of its databases share finish what they
//!   write for it first. So opening waits for the lock; the directory's own LOCK keeps other processes away.
//! * sled meets some kinds of damage with a panic. Here a panic becomes an error like any other: the hot store is
//!   then thrown away and the log replayed from its birth.
//!
//! This is the only file that names sled.

use crate::error::{Error, Result};
use crate::storage::block_store::{BlockStore, Edit, Pair};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// sled's own page cache. It is read at start only, so it need not hold more than the tail.
const CACHE_BYTES: u64 = 1 << 20;

/// See above: a page of 16 values of 4 KB must stay below a quarter of it.
const SEGMENT_BYTES: usize = 512 << 10;

/// How often the lock is looked at, and how many times: half a second, after which it is not the one that went before who
/// holds it.
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(1);
const LOCK_LOOKS_MAX: u32 = 500;

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
        let mut looks = 0;
        loop {
            match guarded(path, "open", || Ok(config.open())) {
                Ok(Ok(database)) => return Ok(SledStore { database, path: path.to_path_buf() }),
                Ok(Err(error)) if is_locked(&error) && looks < LOCK_LOOKS_MAX => {
                    looks += 1;
                    // sled tells nobody when it is done.
                    std::thread::park_timeout(LOCK_LOOK_EVERY);
                }
                Ok(Err(error)) => return Err(translate(path, "open", error)),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_locked(error: &::sled::Error) -> bool {
    // sled gives the text of the system's error in one of its own.
    matches!(error, ::sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
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
