//! One segment: its name, its header batch, and what is kept of it in memory.
//!
//! ```text
//!   raft/00000000000000004711-0000000012.wal        first index, segment sequence
//!   raft/spare-3                                    a file that waits for its name
//! ```
//!
//! * A segment's file gets its name only after its header batch was fdatasynced, so a named file without a valid
//!   header is damage.
//! * Within a segment indices rise by one. Truncation begins a new segment, whose `previous` says what counts.
//! * Sequences rise by one in the order in which segments were begun. The first index alone would not do as a name:
//!   after truncation a later segment can begin where an earlier one did.

use super::batch::{self, Header, Seed};
use super::{HardState, Position};
use crate::error::{Error, Result};
use crate::ids::LogIndex;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Between two marks lie at least this many bytes: 256 marks for a full segment, and a read skips 64 KiB at most.
const MARK_BYTES: u64 = 64 << 10;

/// The body of a segment's first batch: all that recovery needs if everything older is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Birth {
    /// Number of the segment.
    pub(super) sequence: u64,
    /// Bound into every later crc of the segment; see [`super::WalOptions::salt`].
    pub(super) salt: u64,
    /// What lies before the first entry. Entries of former segments above it do not count.
    pub(super) previous: Position,
    /// True where nothing of the former segments counts: a snapshot took their place.
    pub(super) restart: bool,
    /// Where the former segment ends; what its file holds beyond does not count. 0 where there is none.
    pub(super) former_end: u64,
    /// The hard state when the segment began.
    pub(super) hard_state: Option<HardState>,
}

impl Birth {
    /// Puts the whole header batch into `buffer`.
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) -> Result<()> {
        batch::begin(buffer);
        let body = postcard::to_allocvec(self)
            .map_err(|error| Error::internal(format!("a segment header does not encode: {error}")))?;
        buffer.extend_from_slice(&body);
        let header = Header { first: self.previous.index.next(), ..Header::default() };
        batch::finish(buffer, header, Seed::new(self.sequence, 0));
        Ok(())
    }

    /// Reads the body of a header batch.
    pub(super) fn decode(body: &[u8]) -> Option<Birth> {
        postcard::from_bytes(body).ok()
    }

    /// What binds the segment's later batches.
    pub(super) fn seed(&self) -> Seed {
        Seed::new(self.sequence, self.salt)
    }

    /// The name of the segment's file.
    pub(super) fn file_name(&self) -> String {
        file_name(self.previous.index.next(), self.sequence)
    }
}

/// What binds the header batch of a segment.
pub(super) fn header_seed(sequence: u64) -> Seed {
    Seed::new(sequence, 0)
}

fn file_name(first: LogIndex, sequence: u64) -> String {
    format!("{:020}-{sequence:010}.wal", first.0)
}

/// The sequence in a segment's file name; none where the name is not one.
pub(super) fn sequence_of(path: &Path) -> Option<u64> {
    let (first, sequence) = path.file_name()?.to_str()?.strip_suffix(".wal")?.split_once('-')?;
    let (first, sequence) = (first.parse().ok()?, sequence.parse().ok()?);
    // Only the one spelling counts, so that two names never mean the same segment.
    (file_name(LogIndex(first), sequence) == path.file_name()?.to_str()?).then_some(sequence)
}

/// The first index in a segment's file name: what its header says, too.
pub(super) fn first_of(path: &Path) -> LogIndex {
    let name = path.file_name().and_then(|name| name.to_str());
    let first = name.and_then(|name| name.split_once('-')?.0.parse().ok());
    LogIndex(first.unwrap_or(1))
}

/// Where a batch begins, for reads that start in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// First index of the batch at `offset`, which holds an entry.
    pub(super) index: LogIndex,
    /// Where the batch begins.
    pub(super) offset: u64,
}

/// A segment as the open log knows it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    pub(super) seed: Seed,
    /// Before its first entry.
    pub(super) previous: Position,
    /// Its last entry that counts; `previous.index` or below where none does.
    pub(super) last: LogIndex,
    /// Where its first batch after the header begins.
    pub(super) start: u64,
    /// Where its last valid batch ends.
    pub(super) end: u64,
    /// Batches so far, the header included: the number of the next one.
    pub(super) batches: u32,
    /// Hard states so far, wrapping.
    pub(super) hard_states: u16,
    marks: Vec<Mark>,
}

impl Segment {
    /// A segment with nothing but its header batch.
    pub(super) fn new(path: PathBuf, birth: &Birth, start: u64) -> Segment {
        Segment {
            path,
            sequence: birth.sequence,
            seed: birth.seed(),
            previous: birth.previous,
            last: birth.previous.index,
            start,
            end: start,
            batches: 1,
            hard_states: 0,
            marks: Vec::new(),
        }
    }

    /// Takes note of the batch at the end, as written or as read.
    pub(super) fn extend(&mut self, header: &Header, size: u64) {
        if header.entries > 0 {
            if self.marks.last().is_none_or(|mark| self.end - mark.offset >= MARK_BYTES) {
                self.marks.push(Mark { index: header.first, offset: self.end });
            }
            self.last = header.next_index().previous();
        }
        self.hard_states = header.hard_states;
        self.batches += 1;
        self.end += size;
    }

    /// Where to begin reading so as to meet `index`.
    pub(super) fn offset_before(&self, index: LogIndex) -> u64 {
        let after = self.marks.partition_point(|mark| mark.index <= index);
        after.checked_sub(1).map_or(self.start, |at| self.marks[at].offset)
    }

    /// Damage in this segment.
    pub(super) fn damaged(&self, offset: u64, what: &str) -> Error {
        damaged(&self.path, offset, what)
    }
}

/// Damage, named by file and offset.
pub(super) fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    Error::damaged(format!("{} is damaged at offset {offset}: {what}", path.display()))
}

/// A format from the future, named.
pub(super) fn newer(path: &Path, version: u16) -> Error {
    Error::invalid(
        crate::error::SqlState::FEATURE_NOT_SUPPORTED,
        format!("{} has log format {version}, which this version does not know", path.display()),
    )
    .hint("start the newer version that wrote it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_of_a_name_counts() {
        let name = file_name(LogIndex(4711), 12);
        assert_eq!(name, "00000000000000004711-0000000012.wal");
        assert_eq!(sequence_of(Path::new("raft").join(&name).as_path()), Some(12));
        for other in ["4711-12.wal", "00000000000000004711-0000000012", "spare-1", "x.wal", "-.wal", ""] {
            assert_eq!(sequence_of(Path::new(other)), None, "{other}");
        }
    }
}
