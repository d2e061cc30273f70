//! Segments begin and end: a new one when the last is full, truncated or recovered; a spare or nothing once trimmed.
//!
//! ```text
//!   fdatasync the former ─> header into a spare ─> fdatasync ─> rename to its name ─> fsync the directory ─> batches
//!   trim:  rename to a spare name ─> fsync the directory ─> only now may it be overwritten
//! ```

use super::batch::ALIGNMENT;
use super::pool;
use super::segment::{Birth, Segment};
use super::{Active, CLOSED_BYTES_MAX, HardState, Position, Wal};
use crate::error::{Error, Kind, Result};
use crate::ids::LogIndex;
use crate::storage::files::{File, Open};
use std::path::PathBuf;
use std::sync::Arc;

/// A file without spare begins with this many zeros: an embedded database that writes little stays little.
const FILL_BYTES_MIN: u64 = 64 << 10;

/// And grows by at most this many: one journal commit a MiB, and no pause that a client would notice.
const FILL_BYTES_MAX: u64 = 1 << 20;

/// How a new segment goes on from those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    /// Everything before counts.
    Continue,
    /// Entries above the new segment's `previous` do not.
    Truncate,
    /// Nothing before counts.
    Restart,
}

/// A segment that is about to begin.
#[derive(Clone)]
pub(super) struct Begun {
    /// What the file is called until it has its name.
    spare: PathBuf,
    path: PathBuf,
    file: Arc<dyn File>,
    filled: u64,
    /// Where its header ends.
    start: u64,
    continuity: Continuity,
    birth: Birth,
}

impl Wal {
    /// Sees to it that a batch of `bytes` can be written at the end without new blocks.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<()> {
        let fits = self.active.is_some()
            && self.log.segments.last().is_some_and(|segment| {
                // A segment takes at least one batch, however large.
                segment.end + bytes <= self.options.segment_bytes || segment.batches == 1
            });
        if !fits {
            // The batch in the buffer waits in the meantime: the header has a buffer of its own.
            self.begin_segment(self.log.last(), Continuity::Continue, None)?;
        }
        let (Some(active), Some(segment)) = (&mut self.active, self.log.segments.last()) else {
            return Err(Error::internal("a segment was begun and is not there"));
        };
        let needed = segment.end + bytes;
        if needed > active.filled {
            let step = active.filled.clamp(FILL_BYTES_MIN, FILL_BYTES_MAX);
            let target = (active.filled + step).min(self.options.segment_bytes).max(needed);
            pool::zero(&*active.file, active.filled, target)?;
            self.statistics.zeroed_bytes += target - active.filled;
            active.filled = target;
        }
        Ok(())
    }

    /// Begins a segment after `previous`, durably, with the hard state given or else the latest. A failure before
    /// anything was renamed (a full disk) leaves the log as it was.
    pub(super) fn begin_segment(
        &mut self,
        previous: Position,
        continuity: Continuity,
        hard_state: Option<&HardState>,
    ) -> Result<()> {
        let begun = self.prepare_segment(previous, continuity, hard_state)?;
        self.name_segment(&begun)?;
        self.enter_segment(begun)
    }

    /// Writes the header of a new segment, durably, into a file that does not have its name yet.
    pub(super) fn prepare_segment(
        &mut self,
        previous: Position,
        continuity: Continuity,
        hard_state: Option<&HardState>,
    ) -> Result<Begun> {
        self.sync()?;
        let former = self.log.segments.last();
        let birth = Birth {
            sequence: self.next_sequence,
            salt: self.options.salt,
            previous,
            restart: continuity == Continuity::Restart,
            former_end: former.map_or(0, |segment| segment.end),
            hard_state: hard_state.or(self.log.hard_state.as_ref()).cloned(),
        };
        let mut header = Vec::new();
        birth.encode(&mut header)?;
        let (spare, file, filled) = self.blank_file(&header)?;
        if let Err(error) = file.sync_all() {
            // A file that found no room is no part of the log: what the log holds is as it was.
            if Self::is_full(&error) {
                self.files.remove(&spare)?;
                return Err(error);
            }
            return Err(self.fail(error));
        }
        let start = header.len() as u64;
        debug_assert!(start.is_multiple_of(ALIGNMENT as u64), "the header batch is padded");
        let path = self.directory.join(birth.file_name());
        Ok(Begun { spare, path, file, filled, start, continuity, birth })
    }

    /// Gives a segment its name: from here on it is part of the log.
    pub(super) fn name_segment(&mut self, begun: &Begun) -> Result<()> {
        let named = self.files.rename(&begun.spare, &begun.path).and_then(|()| self.files.sync_dir(&self.directory));
        named.map_err(|error| self.fail(error))
    }

    /// What is appended goes to this segment.
    pub(super) fn enter_segment(&mut self, begun: Begun) -> Result<()> {
        let Begun { path, file, filled, start, continuity, birth, .. } = begun;
        self.next_sequence += 1;
        let unfinished = self.active.is_none() || continuity == Continuity::Truncate;
        let shrink = if unfinished { self.log.segments.last().map(|it| (it.path.clone(), it.end)) } else { None };
        self.active = Some(Active { file, filled, durable_end: start });
        if continuity == Continuity::Restart {
            self.abandoned.extend(self.log.segments.drain(..).map(|segment| segment.path));
        }
        self.log.begin(Segment::new(path, &birth, start), &birth)?;
        // What was left in the middle keeps its content only, or a process that dies a thousand times fills the disk.
        if let Some((path, end)) = shrink {
            self.files.open(&path, Open::Write)?.set_len(end)?;
        }
        Ok(())
    }

    /// A file under a spare name with this header in front: a spare, or a new one with its first zeros.
    fn blank_file(&mut self, header: &[u8]) -> Result<(PathBuf, Arc<dyn File>, u64)> {
        if let Some(path) = self.pool.take() {
            let written = self.files.open(&path, Open::Write).and_then(|file| {
                file.write_at(header, 0)?;
                Ok(file)
            });
            return match written {
                Ok(file) => {
                    self.statistics.recycled += 1;
                    Ok((path, file, self.options.segment_bytes.max(header.len() as u64)))
                }
                Err(error) => {
                    self.pool.put(path);
                    Err(error)
                }
            };
        }
        let path = self.pool.new_path();
        let file = self.files.open(&path, Open::Create)?;
        let filled = FILL_BYTES_MIN.min(self.options.segment_bytes).max(header.len() as u64);
        match pool::zero(&*file, header.len() as u64, filled).and_then(|()| file.write_at(header, 0)) {
            Ok(()) => {
                self.statistics.zeroed_bytes += filled;
                Ok((path, file, filled))
            }
            Err(error) => {
                self.files.remove(&path)?;
                Err(error)
            }
        }
    }

    /// Lets go of segments that hold nothing at `below` or after it. The newest stays.
    pub fn trim(&mut self, below: LogIndex) -> Result<()> {
        self.check()?;
        let newest = self.log.segments.len().saturating_sub(1);
        let gone = self.log.segments[..newest].partition_point(|segment| segment.last < below);
        if gone == 0 && self.abandoned.is_empty() {
            return Ok(());
        }
        // They leave the log before their files change: after an error they are retried with the next trim.
        if gone > 0 {
            let previous = self.log.segments[gone].previous;
            self.abandoned.extend(self.log.segments.drain(..gone).map(|segment| segment.path));
            self.log.terms.trim(previous);
        }
        let mut reusable = Vec::new();
        while let Some(path) = self.abandoned.first() {
            let whole = self.files.open(path, Open::Read)?.len()? == self.options.segment_bytes;
            if whole && self.pool.has_room() && self.pool.len() + reusable.len() < self.options.spares_max {
                let spare = self.pool.new_path();
                self.files.rename(path, &spare)?;
                reusable.push(spare);
            } else {
                self.files.remove(path)?;
            }
            self.abandoned.remove(0);
        }
        // Overwritten before its old name is durably gone, a file would come back under it with another's content.
        self.files.sync_dir(&self.directory)?;
        for path in reusable {
            if !self.pool.put(path.clone()) {
                self.files.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Drops every entry and goes on after `previous`, which a snapshot stands for; the hard state stays, but for what is
    /// given here in its place. Durable when this returns.
    pub fn reset(&mut self, previous: Position, hard_state: Option<&HardState>) -> Result<()> {
        self.check()?;
        self.begin_segment(previous, Continuity::Restart, hard_state)?;
        self.trim(previous.index.next())
    }

    /// A clean stop: everything durable and proven so, segments wholly below `below` gone, no spares, and no file
    /// longer than its content. Where all is below, one segment of at most 1 MiB is left.
    pub fn close(mut self, below: LogIndex) -> Result<()> {
        self.sync()?;
        self.pool.close()?;
        self.trim(below)?;
        let large = self.log.segments.last().is_some_and(|segment| segment.end > CLOSED_BYTES_MAX);
        if large && self.log.last().index < below {
            self.begin_segment(self.log.last(), Continuity::Continue, None)?;
            self.trim(below)?;
        }
        if self.active.is_some() {
            // An empty batch says that all before it had reached the disk: damage while the database is down is
            // then told from a torn tail.
            super::batch::encode(&mut self.buffer, None, &[])?;
            self.write_batch(&[], false)?;
            self.sync()?;
            self.trim(below)?;
        }
        let Some(segment) = self.log.segments.last() else { return Ok(()) };
        let file = self.files.open(&segment.path, Open::Write)?;
        file.set_len(segment.end)?;
        file.sync_all()?;
        self.files.sync_dir(&self.directory)
    }

    /// True where an error means that there is no room, so that the same append may succeed later.
    pub fn is_full(error: &Error) -> bool {
        error.kind() == Kind::Io && error.sqlstate() == crate::error::SqlState::DISK_FULL
    }
}
