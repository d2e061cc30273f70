//! Reading old entries back: for replay, for a peer that lags, for a backup.
//!
//! Entries are read in bounded portions, so that a replay never holds the log in memory; what is read is checked again.

use super::recovery::Entries;
use super::{Entry, Wal};
use crate::error::{Error, Result};
use crate::ids::LogIndex;
use crate::storage::files::Open;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that an entry takes beside its payload, counted against the caller's limit.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<usize>();

/// Read beyond the bytes asked for: what lies between a mark and the entry, batch headers, and one small read less.
const SLACK_BYTES: usize = 16 << 10;

/// A segment as a backup sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its file.
    pub path: PathBuf,
    /// Bytes of it that count and are durable: what to copy, while trimming is held. Recycled files are overwritten in
    /// place, so a link would not do.
    pub durable_bytes: u64,
    /// Its first entry, where it holds one.
    pub first: LogIndex,
    /// Its last entry that counts, durable or not; below `first` where none does.
    pub last: LogIndex,
}

impl Wal {
    /// Entries from `from` on, in order: about `bytes_max` bytes of them, at least one where there is one. A position
    /// that was trimmed is an error; one after the last gives none.
    pub fn read(&self, from: LogIndex, bytes_max: usize) -> Result<Vec<Entry>> {
        let (previous, last) = (self.log.previous().index, self.log.last().index);
        if from <= previous {
            return Err(Error::internal(format!("entry {from} was trimmed: the log begins after {previous}")));
        }
        let (mut next, mut bytes) = (from, 0);
        let mut entries = Vec::new();
        let at = self.log.segments.partition_point(|segment| segment.last < from);
        for segment in &self.log.segments[at..] {
            if next > last || bytes >= bytes_max {
                break;
            }
            if segment.last < next {
                continue;
            }
            let file = self.files.open(&segment.path, Open::Read)?;
            let mut reader = Entries::new(&*file, segment, next, bytes_max - bytes + SLACK_BYTES);
            while next <= segment.last && bytes < bytes_max {
                let Some(mut body) = reader.next_batch(next)? else {
                    return Err(segment.damaged(segment.end, &format!("entry {next} is missing")));
                };
                let wanted = next;
                for record in body.by_ref().skip_while(|record| record.index < wanted) {
                    let size = record.payload.len() + ENTRY_BYTES;
                    if record.index > segment.last || (bytes + size > bytes_max && !entries.is_empty()) {
                        bytes = bytes_max;
                        break;
                    }
                    assert!(record.index == next, "the log has a gap before {}", record.index);
                    entries.push(Entry {
                        index: record.index,
                        term: record.term,
                        hlc: record.hlc,
                        payload: Arc::from(record.payload),
                    });
                    bytes += size;
                    next = next.next();
                }
            }
            if next <= segment.last {
                break;
            }
        }
        Ok(entries)
    }

    /// Hands every entry from `from` up to and with `to` to `consume`, in order, a portion at a time.
    pub fn replay(&self, from: LogIndex, to: LogIndex, mut consume: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut next = from;
        while next <= to {
            let portion = self.read(next, super::batch::BODY_BYTES_TARGET)?;
            if portion.is_empty() {
                return Ok(());
            }
            for entry in portion {
                next = entry.index.next();
                if entry.index <= to {
                    consume(entry)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of log from about `index` to the end: what a replay from there reads.
    pub fn bytes_since(&self, index: LogIndex) -> u64 {
        let at = self.log.segments.partition_point(|segment| segment.last < index);
        let Some(first) = self.log.segments.get(at) else { return 0 };
        let whole: u64 = self.log.segments[at + 1..].iter().map(|segment| segment.end).sum();
        whole + first.end - first.offset_before(index)
    }

    /// The files of the log, oldest first.
    pub fn segment_files(&self) -> Vec<SegmentFile> {
        let newest = self.log.segments.len().saturating_sub(1);
        let durable = |at: usize, end: u64| match &self.active {
            Some(active) if at == newest => active.durable_end,
            _ => end,
        };
        let describe = |(at, segment): (usize, &super::segment::Segment)| SegmentFile {
            path: segment.path.clone(),
            durable_bytes: durable(at, segment.end),
            first: segment.previous.index.next(),
            last: segment.last,
        };
        self.log.segments.iter().enumerate().map(describe).collect()
    }
}
