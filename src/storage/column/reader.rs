//! Reads stored bytes front to back.
//!
//! * Running off the end is an error, never a panic: a block may be fuzzed with a checksum that fits.
//! * Nothing is allocated on the word of a length before the bytes it promises have been seen.

use crate::error::{Error, Result};

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Goes on at `rest`, which something else has read up to.
    pub fn resume(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or_else(|| damaged("ends early"))?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or_else(|| damaged("ends early"))?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Eight bytes, little-endian.
    pub fn int(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// An unsigned number of one to five bytes, seven bits each, the low ones first.
    pub fn varint(&mut self) -> Result<u32> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| damaged("holds a length above 32 bits"));
            }
        }
        Err(damaged("holds a length that does not end"))
    }

    /// Succeeds where everything has been read.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(damaged("has bytes left over")) }
    }
}

/// Appends what [`Reader::varint`] reads.
pub fn push_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The error of stored bytes that do not decode; `why` goes on a sentence that begins with "a stored column".
pub fn damaged(why: &'static str) -> Error {
    Error::damaged(format!("a stored column {why}"))
}
