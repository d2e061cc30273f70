//! Bits: packed integers, and masks (booleans, nulls, tombstones).
//!
//! ```text
//! packed  value i in bits i * width .. (i + 1) * width, counted from the lowest bit of the first byte
//! mask    0 | bits, one a row              mostly noise
//!         1 | varint varint ...            lengths of runs, the first of `false`, together the rows
//! ```

use super::reader::{Reader, damaged, push_varint};
use crate::error::Result;

/// Widest value that one 8-byte read at any bit of a byte still covers: 64 - 7.
const NARROW_BITS: u32 = 57;

const MASK_BITS: u8 = 0;
const MASK_RUNS: u8 = 1;

/// Bits that hold every value up to `max`.
pub fn width(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Bytes of `count` packed values.
pub fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends values, each below `2^width`.
pub fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let mut held = 0u128;
    let mut held_bits = 0;
    for value in values {
        held |= u128::from(value) << held_bits;
        held_bits += width;
        if held_bits >= 64 {
            out.extend_from_slice(&(held as u64).to_le_bytes());
            held >>= 64;
            held_bits -= 64;
        }
    }
    out.extend_from_slice(&held.to_le_bytes()[..held_bits.div_ceil(8) as usize]);
}

/// Reads `count` values of `width` bits and gives each through `map`.
pub fn unpack(reader: &mut Reader<'_>, width: u32, count: usize, map: impl Fn(u64) -> i64) -> Result<Vec<i64>> {
    if width > 64 {
        return Err(damaged("holds values wider than 64 bits"));
    }
    let bytes = reader.take(packed_len(count, width))?;
    let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
    let width = width as usize;
    let mut values = Vec::with_capacity(count);
    // As long as a whole word can be read from the byte a value begins in, one read and a shift are enough.
    let whole_words = match bytes.len().checked_sub(8) {
        Some(last) if width > 0 && width <= NARROW_BITS as usize => (last * 8 / width + 1).min(count),
        Some(_) | None => 0,
    };
    values.extend((0..whole_words).map(|i| {
        let bit = i * width;
        let word = bytes[bit / 8..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        map(word >> (bit % 8) & mask)
    }));
    values.extend((whole_words..count).map(|i| {
        let bit = i * width;
        let from = &bytes[(bit / 8).min(bytes.len())..];
        let mut window = [0; 16];
        let held = from.len().min(16);
        window[..held].copy_from_slice(&from[..held]);
        map((u128::from_le_bytes(window) >> (bit % 8)) as u64 & mask)
    }));
    Ok(values)
}

/// Appends a mask, as bits or as runs, whichever is shorter.
pub fn push_mask(mask: &[bool], out: &mut Vec<u8>) {
    let bits_len = mask.len().div_ceil(8);
    let start = out.len();
    out.push(MASK_RUNS);
    let mut counted = false;
    let mut rest = mask;
    while !rest.is_empty() && out.len() - start <= bits_len {
        let run = rest.iter().position(|&bit| bit != counted).unwrap_or(rest.len());
        push_varint(out, run as u32);
        counted = !counted;
        rest = &rest[run..];
    }
    if !rest.is_empty() || out.len() - start > bits_len + 1 {
        out.truncate(start);
        out.push(MASK_BITS);
        out.extend(mask.chunks(8).map(|eight| eight.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit))));
    }
}

/// Reads a mask of `rows` bits.
pub fn mask(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<bool>> {
    match reader.byte()? {
        MASK_BITS => {
            let bytes = reader.take(rows.div_ceil(8))?;
            let mut mask = Vec::with_capacity(rows.next_multiple_of(8));
            mask.extend(bytes.iter().flat_map(|byte| [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| byte >> bit & 1 == 1)));
            mask.truncate(rows);
            Ok(mask)
        }
        MASK_RUNS => {
            let mut mask = Vec::with_capacity(rows);
            let mut counted = false;
            while mask.len() < rows {
                let run = reader.varint()? as usize;
                // Only the first run may be empty, so the loop ends.
                if run > rows - mask.len() || (run == 0 && !mask.is_empty()) || (run == 0 && counted) {
                    return Err(damaged("has a mask of another length"));
                }
                mask.resize(mask.len() + run, counted);
                counted = !counted;
            }
            Ok(mask)
        }
        _ => Err(damaged("has a mask of an unknown form")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roundtrip(mask_in: &[bool]) -> usize {
        let mut out = Vec::new();
        push_mask(mask_in, &mut out);
        let mut reader = Reader::new(&out);
        assert_eq!(mask(&mut reader, mask_in.len()).unwrap(), mask_in);
        reader.finish().unwrap();
        out.len()
    }

    #[test]
    fn masks_survive_in_whichever_form_is_shorter() {
        assert_eq!(roundtrip(&[]), 1);
        assert_eq!(roundtrip(&[false; 1000]), 3);
        assert_eq!(roundtrip(&[true; 1000]), 4);
        let noise: Vec<bool> = (0..1001u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1).collect();
        assert_eq!(roundtrip(&noise), 1 + 126);
    }

    #[test]
    fn packed_values_of_every_width_come_back() {
        for width in 0..=64 {
            let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
            let values: Vec<u64> =
                (0..77u64).map(|i| i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) & mask).collect();
            let mut out = Vec::new();
            pack(values.iter().copied(), width, &mut out);
            assert_eq!(out.len(), packed_len(77, width));
            let back = unpack(&mut Reader::new(&out), width, 77, |value| value as i64).unwrap();
            assert_eq!(back.iter().map(|&value| value as u64).collect::<Vec<u64>>(), values, "width {width}");
        }
    }
}
