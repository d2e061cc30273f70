//! One version of a row, as it lies in a memtable's arena.
//!
//! ```text
//! record = stamp handle (4) | previous handle (4) | varint key length | key | varint image length + 1 | image
//! stamp  = created ms (8) | HLC (8) | origin (8) | modified (8)       0 for the image length is a tombstone
//! ```
//!
//! * Rows of one command share one stamp.
//! * `previous` names the version before, so a chain runs from the newest to the oldest.

use super::arena::{Arena, Handle};
use crate::hlc::Timestamp;
use crate::ids::{LogIndex, OriginUid};
use crate::storage::rows::Stamp;

/// Stamp and previous handle.
const HEAD_BYTES: usize = 8;

/// Bytes of a stamp.
const STAMP_BYTES: usize = 32;

/// A version, borrowed from its arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Where its stamp is.
    pub(super) stamp: Handle,
    /// The version before.
    pub(super) previous: Handle,
    /// The row image; none for a tombstone.
    pub(super) image: Option<&'a [u8]>,
}

/// Adds a stamp.
pub(super) fn push_stamp(arena: &mut Arena, stamp: Stamp) -> Handle {
    let (handle, page) = arena.room(STAMP_BYTES);
    for number in [stamp.created_ms, stamp.hlc.0, stamp.origin.0, stamp.modified.0] {
        page.extend_from_slice(&number.to_le_bytes());
    }
    handle
}

/// Adds a version.
pub(super) fn push(arena: &mut Arena, stamp: Handle, previous: Handle, key: &[u8], image: Option<&[u8]>) -> Handle {
    // A varint of 32 bits has 5 bytes at most.
    let (handle, page) = arena.room(HEAD_BYTES + 5 + key.len() + 5 + image.map_or(0, <[u8]>::len));
    page.extend_from_slice(&stamp.to_bytes());
    page.extend_from_slice(&previous.to_bytes());
    push_len(page, key.len());
    page.extend_from_slice(key);
    match image {
        Some(image) => {
            push_len(page, image.len() + 1);
            page.extend_from_slice(image);
        }
        None => push_len(page, 0),
    }
    handle
}

/// The version at a handle.
pub(super) fn read(arena: &Arena, handle: Handle) -> Record<'_> {
    let bytes = arena.at(handle);
    let (key_bytes, rest) = take_len(&bytes[HEAD_BYTES..]);
    let (image_mark, rest) = take_len(&rest[key_bytes..]);
    let image = image_mark.checked_sub(1).map(|image_bytes| &rest[..image_bytes]);
    let previous = Handle::from_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    Record { stamp: Handle::from_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), previous, image }
}

/// The key at a handle: what searching needs.
pub(super) fn key(arena: &Arena, handle: Handle) -> &[u8] {
    let (key_bytes, rest) = take_len(&arena.at(handle)[HEAD_BYTES..]);
    &rest[..key_bytes]
}

/// The position of the command that wrote a stamp.
pub(super) fn modified(arena: &Arena, stamp: Handle) -> LogIndex {
    LogIndex(number(arena.at(stamp), 3))
}

/// The stamp at a handle.
pub(super) fn stamp(arena: &Arena, stamp: Handle) -> Stamp {
    let bytes = arena.at(stamp);
    Stamp {
        created_ms: number(bytes, 0),
        hlc: Timestamp(number(bytes, 1)),
        origin: OriginUid(number(bytes, 2)),
        modified: LogIndex(number(bytes, 3)),
    }
}

fn number(bytes: &[u8], i: usize) -> u64 {
    let bytes = bytes[i * 8..].first_chunk::<8>().expect("a stamp is four numbers of 8 bytes");
    u64::from_le_bytes(*bytes)
}

fn push_len(page: &mut Vec<u8>, len: usize) {
    let mut len = u32::try_from(len).expect("keys and images are bounded by command_bytes_max");
    while len >= 0x80 {
        page.push(len as u8 | 0x80);
        len >>= 7;
    }
    page.push(len as u8);
}

fn take_len(bytes: &[u8]) -> (usize, &[u8]) {
    let mut len = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * i);
        if byte < 0x80 {
            return (len, &bytes[i + 1..]);
        }
    }
    unreachable!("a length in an arena is as it was written")
}
