//! The batch: what one write puts on the disk, and what recovery accepts or refuses as a whole.
//!
//! ```text
//!   0  magic u32 | version u16 | hard states u16     how many hard states this segment has had, wrapping
//!   8  batch u32 | length u32                        number within the segment; bytes of the body
//!  16  durable end u32 | entries u32                 see below; how many entries the body holds
//!  24  first index u64                               of the entries; the next index where there is none
//!  32  body crc u32 | header crc u32                 crc32c; the header's also covers segment sequence and salt
//!  40  body, then zeros up to a multiple of 8
//!
//!  body  = hard state length (varint, 0 for none) | hard state | entry*
//!  entry = term less the one before | HLC less the one before | length (varints) | payload, as it came
//! ```
//!
//! * All numbers are little-endian. A later format keeps the first 40 bytes, so it can be refused by name.
//! * `durable end` is the offset in this segment up to which everything was fdatasynced when the batch was written. A
//!   valid header therefore proves that what lies before its `durable end` had reached the disk.
//! * Segment sequence and salt are in the crc and not in the file, so what a recycled file still holds never
//!   validates, and neither does what a client puts into a payload.

use super::{Entry, HardState};
use crate::error::{Error, Result, SqlState};
use crate::hlc::Timestamp;
use crate::ids::{LogIndex, Term};

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 40;

/// Batches begin at multiples of this: the search behind a damaged batch tries an eighth of the offsets.
pub(super) const ALIGNMENT: usize = 8;

/// The first byte is no UTF-8 start that text would hold by chance.
pub(super) const MAGIC: [u8; 4] = [0xC7, b'W', b'A', b'L'];

/// The format written here.
const VERSION: u16 = 1;

/// A batch is closed once its body has this many bytes: one write stays short, and so does the buffer that is kept.
pub(super) const BODY_BYTES_TARGET: usize = 1 << 20;

/// The largest payload; offsets in a segment are 32 bits wide, and a proposal is far smaller than this.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// What binds a batch to one segment: the state of the crc before the header's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    /// The seed of a segment's batches; its header batch, which says the salt, has salt 0.
    pub(super) fn new(sequence: u64, salt: u64) -> Seed {
        Seed(crc32c::crc32c_append(crc32c::crc32c(&sequence.to_le_bytes()), &salt.to_le_bytes()))
    }
}

/// The 40 bytes before the body, without what only serves to check them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) batch: u32,
    pub(super) hard_states: u16,
    pub(super) durable_end: u32,
    pub(super) entries: u32,
    pub(super) first: LogIndex,
    /// Filled in by [`finish`].
    pub(super) length: u32,
    /// Filled in by [`finish`].
    pub(super) body_crc: u32,
}

/// What 40 bytes turned out to be.
pub(super) enum Reading {
    /// A header that was written for this segment.
    Valid(Header),
    /// A header of a format that this program does not know.
    Newer(u16),
    /// Anything else.
    Invalid,
}

impl Header {
    /// Reads 40 bytes at a place where a batch of the segment may begin.
    pub(super) fn read(bytes: &[u8; HEADER_BYTES], seed: Seed) -> Reading {
        if bytes[..4] != MAGIC || crc32c::crc32c_append(seed.0, &bytes[..36]) != u32_at(bytes, 36) {
            return Reading::Invalid;
        }
        let version = u16_at(bytes, 4);
        if version != VERSION {
            return Reading::Newer(version);
        }
        Reading::Valid(Header {
            hard_states: u16_at(bytes, 6),
            batch: u32_at(bytes, 8),
            length: u32_at(bytes, 12),
            durable_end: u32_at(bytes, 16),
            entries: u32_at(bytes, 20),
            first: LogIndex(u64::from(u32_at(bytes, 24)) | u64::from(u32_at(bytes, 28)) << 32),
            body_crc: u32_at(bytes, 32),
        })
    }

    /// True where this is the body that was written with the header.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && crc32c::crc32c(body) == self.body_crc
    }

    /// Bytes of the whole batch in the file.
    pub(super) fn size(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.length)).next_multiple_of(ALIGNMENT as u64)
    }

    /// The index after the last entry.
    pub(super) fn next_index(&self) -> LogIndex {
        LogIndex(self.first.0.saturating_add(u64::from(self.entries)))
    }

    fn write(&self, out: &mut [u8], seed: Seed) {
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.hard_states.to_le_bytes());
        out[8..12].copy_from_slice(&self.batch.to_le_bytes());
        out[12..16].copy_from_slice(&self.length.to_le_bytes());
        out[16..20].copy_from_slice(&self.durable_end.to_le_bytes());
        out[20..24].copy_from_slice(&self.entries.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed.0, &out[..36]);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Puts a hard state and as many of the entries as one batch takes into `buffer`, behind room for the header. Returns
/// how many entries that were.
pub(super) fn encode(buffer: &mut Vec<u8>, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<usize> {
    begin(buffer);
    match hard_state {
        Some(hard_state) => {
            let encoded = hard_state.encode()?;
            put(buffer, encoded.len() as u64);
            buffer.extend_from_slice(&encoded);
        }
        None => buffer.push(0),
    }
    let (mut term, mut hlc) = (Term(0), Timestamp(0));
    let mut taken = 0;
    for entry in entries {
        if entry.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Error::limit(
                SqlState::LIMIT_EXCEEDED,
                format!("a log entry of {} bytes is above the limit of {PAYLOAD_BYTES_MAX}", entry.payload.len()),
            ));
        }
        if taken > 0 && buffer.len() + entry.payload.len() > BODY_BYTES_TARGET {
            break;
        }
        put(buffer, entry.term.0.wrapping_sub(term.0));
        put(buffer, entry.hlc.0.wrapping_sub(hlc.0));
        put(buffer, entry.payload.len() as u64);
        buffer.extend_from_slice(&entry.payload);
        (term, hlc) = (entry.term, entry.hlc);
        taken += 1;
    }
    Ok(taken)
}

/// Clears `buffer` and leaves room for a header.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER_BYTES, 0);
}

/// Completes the batch in `buffer`: header in front, zeros behind.
pub(super) fn finish(buffer: &mut Vec<u8>, mut header: Header, seed: Seed) {
    header.length = (buffer.len() - HEADER_BYTES) as u32;
    header.body_crc = crc32c::crc32c(&buffer[HEADER_BYTES..]);
    header.write(&mut buffer[..HEADER_BYTES], seed);
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
}

/// One entry as it lies in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) index: LogIndex,
    pub(super) term: Term,
    pub(super) hlc: Timestamp,
    pub(super) payload: &'a [u8],
}

/// A body, read front to back.
pub(super) struct Body<'a> {
    rest: &'a [u8],
    left: u32,
    index: LogIndex,
    term: Term,
    hlc: Timestamp,
}

impl<'a> Body<'a> {
    /// Reads the hard state, if there is one, and stands before the first entry. None where the bytes make no sense,
    /// which a correct crc rules out but for our own mistakes.
    pub(super) fn open(header: &Header, body: &'a [u8]) -> Option<(Option<HardState>, Body<'a>)> {
        let mut rest = body;
        let encoded = take_bytes(&mut rest)?;
        let hard_state = if encoded.is_empty() { None } else { Some(HardState::decode(encoded)?) };
        let body = Body { rest, left: header.entries, index: header.first, term: Term(0), hlc: Timestamp(0) };
        Some((hard_state, body))
    }

    /// True once every entry was read and nothing is left over.
    pub(super) fn is_complete(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }
}

impl<'a> Iterator for Body<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.left == 0 {
            return None;
        }
        self.term = Term(self.term.0.wrapping_add(take(&mut self.rest)?));
        self.hlc = Timestamp(self.hlc.0.wrapping_add(take(&mut self.rest)?));
        let payload = take_bytes(&mut self.rest)?;
        let record = Record { index: self.index, term: self.term, hlc: self.hlc, payload };
        self.index = LogIndex(self.index.0.checked_add(1)?);
        self.left -= 1;
        Some(record)
    }
}

/// Appends an unsigned LEB128 number.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an unsigned LEB128 number off the front; ten bytes hold every one.
fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn u16_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn entry(index: u64, term: u64, hlc: u64, payload: &[u8]) -> Entry {
        Entry { index: LogIndex(index), term: Term(term), hlc: Timestamp(hlc), payload: Arc::from(payload) }
    }

    #[test]
    fn a_batch_gives_its_records_back() {
        let entries = [entry(7, 2, 1 << 60, b"one"), entry(8, 2, (1 << 60) + 1, b""), entry(9, u64::MAX, 3, &[9; 300])];
        let state = HardState { term: Term(5), vote: Some(8), membership: vec![1, 2, 3], ..HardState::default() };
        let (mut buffer, seed) = (Vec::new(), Seed::new(4, 99));
        assert_eq!(encode(&mut buffer, Some(&state), &entries).unwrap(), 3);
        let header = Header { batch: 3, durable_end: 64, entries: 3, first: LogIndex(7), ..Header::default() };
        finish(&mut buffer, header, seed);
        let Reading::Valid(header) = Header::read(buffer[..HEADER_BYTES].try_into().unwrap(), seed) else {
            panic!("the header does not validate")
        };
        assert_eq!(header.size(), buffer.len() as u64);
        let bytes = &buffer[HEADER_BYTES..HEADER_BYTES + header.length as usize];
        assert!(header.fits(bytes));
        let (read, mut body) = Body::open(&header, bytes).unwrap();
        assert_eq!(read, Some(state));
        for entry in &entries {
            let record = body.next().unwrap();
            assert_eq!((record.index, record.term, record.hlc), (entry.index, entry.term, entry.hlc));
            assert_eq!(record.payload, &*entry.payload);
        }
        assert!(body.next().is_none() && body.is_complete());
        for other in [Seed::new(5, 99), Seed::new(4, 98)] {
            assert!(matches!(Header::read(buffer[..HEADER_BYTES].try_into().unwrap(), other), Reading::Invalid));
        }
    }

    #[test]
    fn a_batch_closes_at_its_target_size() {
        let entries: Vec<Entry> = (0..5).map(|i| entry(i, 1, i, &vec![0; BODY_BYTES_TARGET / 2])).collect();
        assert_eq!(encode(&mut Vec::new(), None, &entries).unwrap(), 1);
        assert_eq!(encode(&mut Vec::new(), None, &[entry(1, 1, 1, &vec![0; 2 * BODY_BYTES_TARGET])]).unwrap(), 1);
    }
}
