//! A backup of a running database: a directory beside it that opens as a database of its own.
//!
//! ```text
//!   seal ──> CURRENT's files: hard links, else copies ──> ask the log thread for its segments and their durable ends
//!        ──> the log from CURRENT's birth on: copied, as recycled segments are overwritten in place
//!        ──> a CURRENT of its own, which names no hot store ──> CLUSTER, last
//! ```
//!
//! * It runs on the background thread, the only one that trims the log and switches CURRENT: so while it works, nothing
//!   that it reads can go. Between pieces it lets flushes through, since writers wait for them.
//! * It holds every entry that was durable when the log thread was asked, and perhaps none after it.
//! * Whoever asked for it may go away meanwhile: it then ends with the piece at hand, and is removed.
//! * It is not fsynced: it is read once, sent away, and removed. What a crash leaves of one goes at the next start.

use crate::storage::current::Current;
use crate::storage::files::{self, Files, Open};
use crate::storage::sealed;
use crate::storage::wal::Extent;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Bytes of log copied between two looks at the jobs that wait: 1 ms of work.
const PIECE_BYTES: usize = 256 << 10;

/// What the names of backups in `snapshots/` begin with.
pub const PREFIX: &str = "backup-";

/// Says whether somebody still waits for a backup.
pub type IsWanted = Arc<dyn Fn() -> bool + Send + Sync>;

/// An error once nobody waits any more.
pub(super) fn wanted(is_wanted: &IsWanted) -> Result<()> {
    if is_wanted() { Ok(()) } else { Err(Error::unavailable("nobody waits for the backup any more")) }
}

/// What a backup is made of.
pub(super) struct Backup<'a> {
    pub files: &'a dyn Files,
    /// The database's directory.
    pub database: &'a Path,
    /// The directory of its state.
    pub state: &'a Path,
    pub current: &'a Current,
    /// The log, from CURRENT's birth on.
    pub log: &'a [Extent],
}

impl Backup<'_> {
    /// Writes the directory `to`; `pause` is called between pieces of work.
    pub fn write(&self, to: &Path, pause: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let (state, raft) = (super::state_directory(to), super::log_directory(to));
        self.files.create_dir(&state)?;
        self.files.create_dir(&raft)?;
        for number in self.current.numbers() {
            pause()?;
            self.link(&sealed::path(self.state, number), &sealed::path(&state, number), pause)?;
        }
        for extent in self.log {
            pause()?;
            let name = extent.path.file_name().unwrap_or_default();
            self.copy(extent, &raft.join(name), pause)?;
        }
        pause()?;
        self.current.store(self.files, &state)?;
        let cluster = files::read(self.files, &self.database.join("CLUSTER"))?;
        self.files.open(&to.join("CLUSTER"), Open::Create)?.write_at(&cluster, 0)
    }

    /// A second name for a file that never changes; where the file system has none (FAT, some network ones), a copy.
    fn link(&self, from: &Path, to: &Path, pause: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let Err(refused) = self.files.hard_link(from, to) else { return Ok(()) };
        tracing::debug!(%refused, "a file is copied instead of linked");
        let bytes = self.files.open(from, Open::Read)?.len()?;
        self.copy(&Extent { path: from.to_path_buf(), bytes }, to, pause)
    }

    fn copy(&self, extent: &Extent, to: &Path, pause: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let (from, to) = (self.files.open(&extent.path, Open::Read)?, self.files.open(to, Open::Create)?);
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < extent.bytes {
            let length = (extent.bytes - at).min(PIECE_BYTES as u64) as usize;
            from.read_at(&mut piece[..length], at)?;
            to.write_at(&piece[..length], at)?;
            at += length as u64;
            pause()?;
        }
        Ok(())
    }
}

/// Removes what a process that died left of its backups.
pub(super) fn remove_leftovers(files: &dyn Files, snapshots: &Path) -> Result<()> {
    for path in files.list(snapshots)? {
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX)) {
            files.remove_dir(&path)?;
        }
    }
    Ok(())
}
