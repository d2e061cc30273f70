//! TEXT and BLOB columns.
//!
//! ```text
//! constant    varint length | bytes
//! plain       nested lengths | bytes
//! lz4         nested lengths | varint compressed length | LZ4 block
//! dictionary  varint count | encoding u8 | the distinct strings, plain or lz4 | nested codes
//! ```
//!
//! * Decoded bytes stay below [`DECODED_BYTES_MAX`] unless they were stored plain: no few bytes swell without limit.
//! * TEXT is checked to be UTF-8, string by string, before anyone sees it.

use super::reader::{Reader, damaged, push_varint};
use super::{Encoding, ints};
use crate::error::Result;
use crate::sql::batch::Strings;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes that a compressed column may decode to. A block's rows come from commands of at most 8 MiB; what is larger
/// than eight of them is stored plain, where a length cannot lie.
const DECODED_BYTES_MAX: usize = 64 << 20;

/// Fewest bytes for which LZ4 is tried: below, its own bytes outweigh what it finds.
const LZ4_BYTES_MIN: usize = 64;

/// Whether the bytes must be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// TEXT
    Utf8,
    /// BLOB
    Bytes,
}

/// Appends the strings in the encoding that suits them, and says which.
pub fn encode(strings: &Strings, out: &mut Vec<u8>) -> Encoding {
    if strings.is_empty() {
        return Encoding::Plain;
    }
    let first = strings.get(0);
    if strings.iter().all(|string| string == first) {
        push_varint(out, first.len() as u32);
        out.extend_from_slice(first);
        return Encoding::Constant;
    }
    if strings.byte_len() > DECODED_BYTES_MAX {
        return push_plain(strings, out);
    }
    let start = out.len();
    let encoding = push_flat(strings, out);
    let flat_len = out.len() - start;
    if let Some((distinct, codes)) = distinct(strings) {
        let mut candidate = Vec::new();
        push_varint(&mut candidate, distinct.len() as u32);
        let at = candidate.len();
        candidate.push(0);
        candidate[at] = push_flat(&distinct, &mut candidate) as u8;
        ints::encode_nested(&codes, &mut candidate);
        if candidate.len() < flat_len {
            out.truncate(start);
            out.extend_from_slice(&candidate);
            return Encoding::Dictionary;
        }
    }
    encoding
}

fn push_lengths(strings: &Strings, out: &mut Vec<u8>) {
    let lengths: Vec<i64> = strings.offsets().windows(2).map(|pair| i64::from(pair[1] - pair[0])).collect();
    ints::encode_nested(&lengths, out);
}

fn push_plain(strings: &Strings, out: &mut Vec<u8>) -> Encoding {
    push_lengths(strings, out);
    out.extend_from_slice(strings.bytes());
    Encoding::Plain
}

/// Plain, or compressed where that takes off a tenth.
fn push_flat(strings: &Strings, out: &mut Vec<u8>) -> Encoding {
    let bytes = strings.bytes();
    if bytes.len() >= LZ4_BYTES_MIN {
        let compressed = lz4_flex::block::compress(bytes);
        if compressed.len() + 5 < bytes.len() - bytes.len() / 10 {
            push_lengths(strings, out);
            push_varint(out, compressed.len() as u32);
            out.extend_from_slice(&compressed);
            return Encoding::Lz4;
        }
    }
    push_plain(strings, out)
}

/// The distinct strings in order of first appearance, and each row's place among them; none where over half differ.
fn distinct(strings: &Strings) -> Option<(Strings, Vec<i64>)> {
    const FREE: u32 = u32::MAX;
    let most = strings.len() / 2;
    let mut slots = vec![FREE; (most * 2).next_power_of_two().max(2)];
    let mut distinct = Strings::default();
    let mut codes: Vec<i64> = Vec::with_capacity(strings.len());
    for string in strings.iter() {
        // Sorted and repeating columns mostly say the same again.
        if let Some(&code) = codes.last()
            && distinct.get(code as usize) == string
        {
            codes.push(code);
            continue;
        }
        let mut slot = xxh3_64(string) as usize & (slots.len() - 1);
        while slots[slot] != FREE && distinct.get(slots[slot] as usize) != string {
            slot = (slot + 1) & (slots.len() - 1);
        }
        if slots[slot] == FREE {
            if distinct.len() == most {
                return None;
            }
            slots[slot] = distinct.len() as u32;
            distinct.push(string);
        }
        codes.push(i64::from(slots[slot]));
    }
    Some((distinct, codes))
}

/// Reads the one string of a constant column.
pub fn decode_constant<'a>(reader: &mut Reader<'a>, content: Content) -> Result<&'a [u8]> {
    let length = reader.varint()? as usize;
    let string = reader.take(length)?;
    if content == Content::Utf8 && std::str::from_utf8(string).is_err() {
        return Err(damaged("is TEXT and not UTF-8"));
    }
    Ok(string)
}

/// Reads `count` strings.
pub fn decode(encoding: Encoding, reader: &mut Reader<'_>, count: usize, content: Content) -> Result<Strings> {
    match encoding {
        Encoding::Constant => {
            let string = decode_constant(reader, content)?;
            bounded(string.len().saturating_mul(count))?;
            Ok(std::iter::repeat_n(string, count).collect())
        }
        Encoding::Plain | Encoding::Lz4 => flat(encoding, reader, count, content),
        Encoding::Dictionary => {
            let distinct = reader.varint()? as usize;
            if distinct > count {
                return Err(damaged("has more distinct strings than strings"));
            }
            let inner = Encoding::of(reader.byte()?)?;
            let distinct = flat(inner, reader, distinct, content)?;
            let codes = ints::decode_nested(reader, count)?;
            look_up(&distinct, &codes)
        }
        Encoding::Null
        | Encoding::Packed
        | Encoding::Delta
        | Encoding::Runs
        | Encoding::Pco
        | Encoding::Bits
        | Encoding::Scaled => Err(damaged("has an encoding that strings do not have")),
    }
}

fn flat(encoding: Encoding, reader: &mut Reader<'_>, count: usize, content: Content) -> Result<Strings> {
    let lengths = ints::decode_nested(reader, count)?;
    let mut end = 0u32;
    let mut offsets = Vec::with_capacity(count + 1);
    offsets.push(0);
    for length in lengths {
        let length = u32::try_from(length).map_err(|_| damaged("has a string of negative length"))?;
        end = end.checked_add(length).ok_or_else(|| damaged("has strings of more than 4 GiB"))?;
        offsets.push(end);
    }
    let bytes = match encoding {
        Encoding::Plain => reader.take(end as usize)?.to_vec(),
        Encoding::Lz4 => {
            bounded(end as usize)?;
            let compressed = reader.varint()? as usize;
            let compressed = reader.take(compressed)?;
            let mut bytes = vec![0; end as usize];
            match lz4_flex::block::decompress_into(compressed, &mut bytes) {
                Ok(decoded) if decoded == bytes.len() => bytes,
                Ok(_) | Err(_) => return Err(damaged("is not what LZ4 wrote")),
            }
        }
        Encoding::Null
        | Encoding::Constant
        | Encoding::Packed
        | Encoding::Delta
        | Encoding::Runs
        | Encoding::Dictionary
        | Encoding::Pco
        | Encoding::Bits
        | Encoding::Scaled => return Err(damaged("has a dictionary of an unknown form")),
    };
    if content == Content::Utf8 {
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("is TEXT and not UTF-8"))?;
        if !offsets.iter().all(|&offset| text.is_char_boundary(offset as usize)) {
            return Err(damaged("is TEXT cut inside a character"));
        }
    }
    Strings::from_parts(offsets, bytes).ok_or_else(|| damaged("has strings of another length"))
}

/// Spells out the codes.
fn look_up(distinct: &Strings, codes: &[i64]) -> Result<Strings> {
    let mut total = 0usize;
    for &code in codes {
        let code = usize::try_from(code).ok().filter(|&code| code < distinct.len());
        let code = code.ok_or_else(|| damaged("has a code that is in no dictionary"))?;
        total = total.saturating_add(distinct.get(code).len());
    }
    bounded(total)?;
    let mut bytes = Vec::with_capacity(total);
    let mut offsets = Vec::with_capacity(codes.len() + 1);
    offsets.push(0);
    for &code in codes {
        bytes.extend_from_slice(distinct.get(code as usize));
        offsets.push(bytes.len() as u32);
    }
    Strings::from_parts(offsets, bytes).ok_or_else(|| damaged("has strings of another length"))
}

fn bounded(decoded: usize) -> Result<()> {
    if decoded > DECODED_BYTES_MAX { Err(damaged("decodes to more than a column may hold")) } else { Ok(()) }
}
