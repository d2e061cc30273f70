//! Spare files: segments that wait for a name, so that the write path neither creates nor grows a file.
//!
//! An fdatasync into blocks that exist writes data only; one that grows a file writes metadata too and takes twice as
//! long. So files are filled with zeros beforehand by a background thread, and used again once the log is trimmed.
//!
//! * What a spare holds does not matter: the sequence of the segment it becomes is in every crc.
//! * Every spare has the full segment size. At most `spares_max` wait.

use crate::error::Result;
use crate::storage::files::{File, Files, Open};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the names of spares begin with.
const PREFIX: &str = "spare-";

/// One page. Linux gives the pages of one large write one large folio, and an fdatasync then writes all of the folio for
/// 100 bytes in it: `write_bytes` of the process grew by 60 to 66 KB for each one-row commit of one client where zeros
/// were written 64 KiB at a time, and by 4.3 KB where they were written page by page (ext4, Linux 6.18).
static ZEROS: [u8; 4096] = [0; 4096];

/// Zeros written without a look at what else there is to do: some milliseconds. Whoever ends the engine waits no longer
/// for this.
const GIVE_WAY_BYTES: u64 = 1 << 20;

/// The spare files of one log. Shared with the background thread that fills it.
pub struct Pool {
    files: Arc<dyn Files>,
    directory: PathBuf,
    segment_bytes: u64,
    spares_max: usize,
    number: AtomicU64,
    zeroed_bytes: AtomicU64,
    closed: AtomicBool,
    spares: Mutex<Vec<PathBuf>>,
}

impl Pool {
    /// A pool of the spares found in `directory`; those of another size are removed.
    pub(super) fn recover(
        files: Arc<dyn Files>,
        directory: &Path,
        segment_bytes: u64,
        spares_max: usize,
        found: Vec<PathBuf>,
    ) -> Result<Pool> {
        let number = found.iter().filter_map(|path| number_of(path)).max().map_or(0, |highest| highest + 1);
        let mut spares = Vec::new();
        for path in found {
            if spares.len() < spares_max && files.open(&path, Open::Read)?.len()? == segment_bytes {
                spares.push(path);
            } else {
                files.remove(&path)?;
            }
        }
        Ok(Pool {
            files,
            directory: directory.to_path_buf(),
            segment_bytes,
            spares_max,
            number: AtomicU64::new(number),
            zeroed_bytes: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            spares: Mutex::new(spares),
        })
    }

    /// Fills a new spare with zeros if none waits; false where one does. Called off the write path, whenever there is
    /// nothing better to do: without a spare the next segment grows as it is written. `go_on` is asked after every
    /// MiB: there is something better to do where it says no, and its error is given back.
    pub fn prepare_spare(&self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<bool> {
        if !self.is_empty() || self.spares_max == 0 || self.closed.load(Ordering::Acquire) {
            return Ok(false);
        }
        let path = self.new_path();
        let filled = self.files.open(&path, Open::Create).and_then(|file| {
            let mut at = 0;
            while at < self.segment_bytes {
                let end = self.segment_bytes.min(at + GIVE_WAY_BYTES);
                zero(&*file, at, end)?;
                go_on()?;
                at = end;
            }
            file.sync_all()
        });
        if let Err(error) = filled {
            // What was filled so far is of no use and may be what the disk lacks.
            self.files.remove(&path)?;
            return Err(error);
        }
        self.zeroed_bytes.fetch_add(self.segment_bytes, Ordering::Relaxed);
        if !self.put(path.clone()) {
            self.files.remove(&path)?;
        }
        Ok(true)
    }

    /// How many spares wait.
    pub fn len(&self) -> usize {
        self.spares().len()
    }

    /// True where none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of zeros written to new spares since the log was opened.
    pub fn zeroed_bytes(&self) -> u64 {
        self.zeroed_bytes.load(Ordering::Relaxed)
    }

    /// True where a file given back would be kept.
    pub(super) fn has_room(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && self.len() < self.spares_max
    }

    /// A name that no spare has had in this process.
    pub(super) fn new_path(&self) -> PathBuf {
        self.directory.join(format!("{PREFIX}{}", self.number.fetch_add(1, Ordering::Relaxed)))
    }

    /// Takes a spare out.
    pub(super) fn take(&self) -> Option<PathBuf> {
        self.spares().pop()
    }

    /// Gives a file of full size, durably under its spare name, to whoever needs one next; false where it is not kept.
    pub(super) fn put(&self, path: PathBuf) -> bool {
        let mut spares = self.spares();
        // Filling and recycling may meet: then there is one spare more than asked for, and no more than that.
        if self.closed.load(Ordering::Acquire) || spares.len() > self.spares_max {
            return false;
        }
        spares.push(path);
        true
    }

    /// Removes all spares and takes no more.
    pub(super) fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let spares = std::mem::take(&mut *self.spares());
        spares.iter().try_for_each(|path| self.files.remove(path))
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        // The list is whole between any two statements that change it, so a panic elsewhere leaves it usable.
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True where the name is a spare's.
pub(super) fn is_spare(path: &Path) -> bool {
    number_of(path).is_some()
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

/// Writes zeros from `from` to `to`.
pub(super) fn zero(file: &dyn File, from: u64, to: u64) -> Result<()> {
    let mut at = from;
    while at < to {
        // Up to the end of a page: a write across two would give them one folio.
        let page = ZEROS.len() as u64;
        let bytes = (to - at).min(page - at % page);
        file.write_at(&ZEROS[..bytes as usize], at)?;
        at += bytes;
    }
    Ok(())
}
