//! A frame: what every record of ours but blocks and log batches is wrapped in, so that damage and newer formats are told apart.
//!
//! ```text
//! magic 4 | version u16 | zero u16 | length u32 | payload | crc32c u32     little-endian; the crc covers all before it
//! ```
//!
//! * A payload is handed out only after magic, length and checksum fit.
//! * A newer version is refused by name, before anything is made of its payload; its checksum still has to fit.

use crate::error::{Error, Result};
use std::fmt;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;

/// Bytes around the payload.
pub const FRAME_BYTES: usize = HEADER_BYTES + 4;

/// What a frame holds, and the newest version that this program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// First four bytes.
    pub magic: [u8; 4],
    /// Version written, and newest read.
    pub version: u16,
}

/// The payload in its frame.
pub fn wrap(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + FRAME_BYTES);
    wrap_into(&mut bytes, kind, &[payload]);
    bytes
}

/// Appends a frame whose payload is these parts, end to end.
pub fn wrap_into(out: &mut Vec<u8>, kind: Kind, parts: &[&[u8]]) {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(payload).expect("records stay below 4 GiB: memtables bound them");
    let from = out.len();
    out.extend_from_slice(&kind.magic);
    out.extend_from_slice(&kind.version.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let crc = crc32c::crc32c(&out[from..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// How long the frame is that begins with these bytes; none where they are too few to say.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(8..HEADER_BYTES)?.try_into().ok()?;
    (u32::from_le_bytes(length) as usize).checked_add(FRAME_BYTES)
}

/// The payload of a frame that fills `bytes`; `what` names it in errors.
pub fn unwrap(kind: Kind, bytes: &[u8], what: impl fmt::Display) -> Result<&[u8]> {
    if length(bytes) != Some(bytes.len()) {
        return Err(Error::damaged(format!("{what}: its length does not fit")));
    }
    let (body, crc) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Err(Error::damaged(format!("{what}: its checksum does not fit")));
    }
    if body[..4] != kind.magic {
        return Err(Error::damaged(format!("{what}: its first bytes are not those of its kind")));
    }
    let version = u16::from_le_bytes([body[4], body[5]]);
    if version > kind.version {
        return Err(Error::unsupported(format!(
            "{what} has format {version}, this program reads up to {}: newer formats are",
            kind.version
        )));
    }
    Ok(&body[HEADER_BYTES..])
}

/// Writes a value in the crate's one serial form.
pub fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("serialising into memory cannot fail: every length is known")
}

/// Reads what [`encode`] wrote; `what` names it in errors.
pub fn decode<T: serde::de::DeserializeOwned>(payload: &[u8], what: impl fmt::Display) -> Result<T> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(Error::damaged(format!("{what}: bytes are left over"))),
        Err(error) => Err(Error::damaged(format!("{what}: it does not decode: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { magic: *b"TEST", version: 3 };

    #[test]
    fn every_flipped_bit_of_a_frame_is_found() {
        let good = wrap(KIND, b"payload");
        assert_eq!(unwrap(KIND, &good, "it").unwrap(), b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = unwrap(KIND, &bad, "state/CURRENT").unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Damaged, "bit {bit}");
            assert!(error.message().starts_with("state/CURRENT: "), "{error}");
        }
        for length in 0..good.len() {
            unwrap(KIND, &good[..length], "it").unwrap_err();
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let newer = wrap(Kind { version: 4, ..KIND }, b"");
        let error = unwrap(KIND, &newer, "state/CURRENT").unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Invalid);
        assert!(error.message().contains("state/CURRENT has format 4"), "{error}");
    }
}
