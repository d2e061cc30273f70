//! A watch over the disk: which calls are under way, and since when.
//!
//! A disk that hangs answers no call and returns no error: the thread that waits for it cannot say so. So each call is
//! noted before it begins and struck out when it returns, and a thread that never touches the disk looks at the notes.
//!
//! ```text
//!   log, state, background, readers ──> note ──> call ──> strike out
//!                                        └──<── look, every second ──> slow: warned about; hung: the engine fails
//! ```
//!
//! * Noting a call costs a lock and a look at the clock, some 100 ns beside a call of microseconds at the least.
//! * Each slow call is warned about once.

use crate::clock::{Clock, Monotonic};
use crate::error::Result;
use crate::storage::block_store::{BlockStore, Edit, Pair};
use crate::storage::files::{File, Files, Lock, Open};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A call is slow once it has taken this part of what it may: 5 s of 60, as long as a busy SD card was seen to take.
const SLOW_SHARE: u32 = 12;

/// The calls under way.
pub struct Watch {
    clock: Arc<dyn Clock>,
    stall_max: Duration,
    next: AtomicU64,
    /// By number. As many as threads are in a call.
    calls: Mutex<BTreeMap<u64, Call>>,
}

struct Call {
    begun: Monotonic,
    doing: &'static str,
    path: Arc<Path>,
    warned: bool,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// What is being done, to what.
    pub what: String,
    /// For how long.
    pub since: Duration,
    /// True where it has taken longer than any call may.
    pub is_hung: bool,
}

/// Strikes a call out when it is dropped.
struct Note<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        self.watch.lock().remove(&self.number);
    }
}

impl Watch {
    /// No calls yet.
    pub fn new(clock: Arc<dyn Clock>, stall_max: Duration) -> Arc<Watch> {
        Arc::new(Watch { clock, stall_max, next: AtomicU64::new(0), calls: Mutex::default() })
    }

    /// The files with every call noted.
    pub fn over(self: &Arc<Watch>, files: Arc<dyn Files>) -> Arc<dyn Files> {
        Arc::new(WatchedFiles { files, watch: self.clone() })
    }

    /// A store, which opens files of its own, with its writes noted.
    pub fn over_store(self: &Arc<Watch>, store: Box<dyn BlockStore>, path: &Path) -> Box<dyn BlockStore> {
        Box::new(WatchedStore { store, watch: self.clone(), path: path.into() })
    }

    /// Calls that became slow since the last look, and those that hang.
    pub fn look(&self) -> Vec<Slow> {
        let now = self.clock.monotonic();
        let mut found = Vec::new();
        for call in self.lock().values_mut() {
            let since = now.saturating_sub(call.begun);
            let is_hung = since > self.stall_max;
            if is_hung || (since > self.stall_max / SLOW_SHARE && !call.warned) {
                call.warned = true;
                found.push(Slow { what: format!("{} {}", call.doing, call.path.display()), since, is_hung });
            }
        }
        found
    }

    fn note(&self, doing: &'static str, path: &Arc<Path>) -> Note<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let begun = self.clock.monotonic();
        self.lock().insert(number, Call { begun, doing, path: path.clone(), warned: false });
        Note { watch: self, number }
    }

    /// The map is whole between any two statements that change it, so a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct WatchedFiles {
    files: Arc<dyn Files>,
    watch: Arc<Watch>,
}

impl WatchedFiles {
    fn during<T>(&self, doing: &'static str, path: &Path, call: impl FnOnce(&dyn Files) -> T) -> T {
        let _note = self.watch.note(doing, &path.into());
        call(&*self.files)
    }
}

impl Files for WatchedFiles {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let file = self.during("open", path, |files| files.open(path, how))?;
        Ok(Arc::new(WatchedFile { file, watch: self.watch.clone(), path: path.into() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.during("rename", from, |files| files.rename(from, to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.during("link", from, |files| files.hard_link(from, to))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.during("remove", path, |files| files.remove(path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.during("remove", path, |files| files.remove_dir(path))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.during("create directory", path, |files| files.create_dir(path))
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        self.during("list", directory, |files| files.list(directory))
    }

    fn exists(&self, path: &Path) -> bool {
        self.during("look for", path, |files| files.exists(path))
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        self.during("fsync directory", directory, |files| files.sync_dir(directory))
    }

    fn free_bytes(&self, path: &Path) -> Result<u64> {
        self.during("measure", path, |files| files.free_bytes(path))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        self.during("lock", path, |files| files.lock(path))
    }
}

struct WatchedFile {
    file: Arc<dyn File>,
    watch: Arc<Watch>,
    path: Arc<Path>,
}

impl WatchedFile {
    fn during<T>(&self, doing: &'static str, call: impl FnOnce(&dyn File) -> T) -> T {
        let _note = self.watch.note(doing, &self.path);
        call(&*self.file)
    }
}

impl File for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.during("read", |file| file.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.during("write", |file| file.write_at(bytes, offset))
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.during("set the length of", |file| file.set_len(bytes))
    }

    fn sync_data(&self) -> Result<()> {
        self.during("fdatasync", |file| file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.during("fsync", |file| file.sync_all())
    }
}

struct WatchedStore {
    store: Box<dyn BlockStore>,
    watch: Arc<Watch>,
    path: Arc<Path>,
}

impl BlockStore for WatchedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(key)
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Result<Pair>> + 'a> {
        self.store.range(from, to)
    }

    fn apply_batch(&self, edits: Vec<Edit>) -> Result<()> {
        let _note = self.watch.note("write", &self.path);
        self.store.apply_batch(edits)
    }

    fn flush(&self) -> Result<()> {
        let _note = self.watch.note("flush", &self.path);
        self.store.flush()
    }

    fn size(&self) -> Result<u64> {
        self.store.size()
    }
}
