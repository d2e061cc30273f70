//! Reading batches front to back through a window on the file, whatever the file holds.
//!
//! * A length is believed only once the header's crc is right and the file is long enough, so garbage allocates
//!   nothing.
//! * The window holds one chunk, or one batch where that is larger.

use super::batch::{ALIGNMENT, HEADER_BYTES, Header, MAGIC, Reading, Seed};
use crate::error::Result;
use crate::storage::files::File;

/// Bytes read at once: large enough that the call costs nothing beside the bytes, small beside the memory limit.
const CHUNK_BYTES: usize = 256 << 10;

/// A file, read in order.
pub(super) struct Scan<'a> {
    file: &'a dyn File,
    length: u64,
    start: u64,
    window: Vec<u8>,
    chunk: usize,
}

/// What is at an offset.
pub(super) enum At<'a> {
    /// A batch of this segment, whole.
    Batch(Header, &'a [u8]),
    /// A header of this segment without its body.
    Torn,
    /// A batch of a later format.
    Newer(u16),
    /// Neither.
    Nothing,
}

impl<'a> Scan<'a> {
    /// Stands ready to read the first `length` bytes of a file.
    pub(super) fn new(file: &'a dyn File, length: u64) -> Scan<'a> {
        Scan { file, length, start: 0, window: Vec::new(), chunk: CHUNK_BYTES }
    }

    /// Reads this many bytes at once instead: for reads that want little.
    pub(super) fn with_chunk(mut self, bytes: usize) -> Scan<'a> {
        self.chunk = bytes.clamp(HEADER_BYTES, CHUNK_BYTES);
        self
    }

    /// The header at `offset`, without looking at its body.
    pub(super) fn header(&mut self, offset: u64, seed: Seed) -> Result<Reading> {
        match self.bytes(offset, HEADER_BYTES)?.and_then(|bytes| bytes.first_chunk()) {
            Some(bytes) => Ok(Header::read(bytes, seed)),
            None => Ok(Reading::Invalid),
        }
    }

    /// The batch at `offset`.
    pub(super) fn batch(&mut self, offset: u64, seed: Seed) -> Result<At<'_>> {
        let header = match self.header(offset, seed)? {
            Reading::Valid(header) => header,
            Reading::Newer(version) => return Ok(At::Newer(version)),
            Reading::Invalid => return Ok(At::Nothing),
        };
        match self.bytes(offset + HEADER_BYTES as u64, header.length as usize)? {
            Some(body) if header.fits(body) => Ok(At::Batch(header, body)),
            _ => Ok(At::Torn),
        }
    }

    /// The bytes at `offset`; none where the file does not reach that far.
    pub(super) fn bytes(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>> {
        let end = match offset.checked_add(length as u64) {
            Some(end) if end <= self.length => end,
            _ => return Ok(None),
        };
        if offset < self.start || end > self.start + self.window.len() as u64 {
            let wanted = length.max(self.chunk).min((self.length - offset) as usize);
            self.start = offset;
            self.window.resize(wanted, 0);
            if let Err(error) = self.file.read_at(&mut self.window, offset) {
                self.window.clear();
                return Err(error);
            }
        }
        let at = (offset - self.start) as usize;
        Ok(Some(&self.window[at..at + length]))
    }

    /// The header of a later batch that proves `offset` to have been fdatasynced, if the file holds one. A header is
    /// proof by itself: what its body has become does not matter.
    pub(super) fn proof(&mut self, offset: u64, batch: u32, seed: Seed) -> Result<Option<Header>> {
        let mut at = offset.next_multiple_of(ALIGNMENT as u64);
        while let Some(bytes) = self.bytes(at, HEADER_BYTES)? {
            if bytes[..4] == MAGIC
                && let Some(bytes) = bytes.first_chunk()
                && let Reading::Valid(header) = Header::read(bytes, seed)
                && header.batch > batch
                && u64::from(header.durable_end) > offset
            {
                return Ok(Some(header));
            }
            at += ALIGNMENT as u64;
        }
        Ok(None)
    }
}
