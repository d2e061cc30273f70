//! Integers: INT, TIMESTAMP, metadata, and the lengths and codes inside other encodings.
//!
//! ```text
//! constant    value i64
//! plain       i64 ...
//! packed      least i64 | width u8 | value - least, packed
//! delta       first i64 | least step i64 | width u8 | step - least step, packed      a series has width 0
//! runs        varint count | nested values | nested lengths
//! dictionary  varint count | nested values | nested codes
//! scaled      least i64 | unit i64 | nested (value - least) / unit
//! pco         what `pco` makes of them
//!
//! nested      encoding u8 | as above
//! ```
//!
//! All arithmetic wraps, so the extremes of 64 bits need no case of their own. Encodings are tried from the cheapest:
//! one pass gives the exact size of the first four; `pco` must beat what is found by a tenth, since reading it back
//! costs several times as much. A unit that all distances share (seconds in a column of microseconds, stamps whose
//! counter is 0) is divided out first: found so it takes 2 ns a value, where `pco` looks for it in 8.

use super::numbers::Steps;
use super::reader::{Reader, damaged, push_varint};
use super::{Encoding, bits, numbers};
use crate::error::Result;

/// How deep nested integers may nest: scaled ones in runs, their values in a dictionary, its codes in runs.
const DEPTH_MAX: u32 = 4;

/// Values from which runs are worth a look: this many rows a run on average.
const ROWS_PER_RUN_MIN: usize = 4;

/// Distinct values of a dictionary: codes of one byte.
const DICTIONARY_MAX: usize = 256;

/// Width from which a dictionary may pay: below it, the values themselves are about as small as codes.
const DICTIONARY_WIDTH_MIN: u32 = 16;

/// Bits that a common unit must save in all: twice what its header takes.
const UNIT_BITS_SAVED_MIN: usize = 512;

/// Fewest values for which `pco` finds enough to pay for its header.
const PCO_VALUES_MIN: usize = 32;

/// What one pass over the values finds out.
struct Shape {
    least: i64,
    width: u32,
    least_step: i64,
    step_width: u32,
    runs: usize,
}

impl Shape {
    fn of(values: &[i64]) -> Shape {
        let (mut least, mut greatest) = (values[0], values[0]);
        let (mut least_step, mut greatest_step) = (i64::MAX, i64::MIN);
        let mut runs = 1;
        for pair in values.windows(2) {
            let step = pair[1].wrapping_sub(pair[0]);
            least = least.min(pair[1]);
            greatest = greatest.max(pair[1]);
            least_step = least_step.min(step);
            greatest_step = greatest_step.max(step);
            runs += usize::from(step != 0);
        }
        if values.len() < 2 {
            (least_step, greatest_step) = (0, 0);
        }
        Shape {
            least,
            width: bits::width(greatest.wrapping_sub(least) as u64),
            least_step,
            step_width: bits::width(greatest_step.wrapping_sub(least_step) as u64),
            runs,
        }
    }

    /// The greatest number that divides every distance; none where dividing by it saves too little.
    fn unit(&self, values: &[i64]) -> Option<i64> {
        if self.step_width == 0 || self.width == 64 {
            return None;
        }
        let mut unit = 0u64;
        for pair in values.windows(2).filter(|pair| pair[0] != pair[1]) {
            let step = pair[0].abs_diff(pair[1]);
            if unit == 0 || step % unit != 0 {
                unit = greatest_divisor(unit, step);
                if unit.ilog2() as usize * values.len() < UNIT_BITS_SAVED_MIN {
                    return None;
                }
            }
        }
        i64::try_from(unit).ok().filter(|unit| *unit > 1)
    }
}

/// Euclid's algorithm; what 0 and a number share is the number.
fn greatest_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Appends the values in the encoding that suits them, and says which.
pub fn encode(values: &[i64], out: &mut Vec<u8>) -> Encoding {
    encode_within(values, out, DEPTH_MAX)
}

fn encode_within(values: &[i64], out: &mut Vec<u8>, depth: u32) -> Encoding {
    if values.is_empty() {
        return Encoding::Plain;
    }
    let shape = Shape::of(values);
    if shape.runs == 1 {
        out.extend_from_slice(&values[0].to_le_bytes());
        return Encoding::Constant;
    }
    if let Some(unit) = shape.unit(values).filter(|_| depth > 0) {
        let scaled: Vec<i64> = values.iter().map(|value| (value - shape.least) / unit).collect();
        out.extend_from_slice(&shape.least.to_le_bytes());
        out.extend_from_slice(&unit.to_le_bytes());
        nest(&scaled, out, depth - 1);
        return Encoding::Scaled;
    }
    let count = values.len();
    let packed = 9 + bits::packed_len(count, shape.width);
    let delta = 17 + bits::packed_len(count - 1, shape.step_width);
    let plain = count * 8;
    let (mut best, mut best_len) = match () {
        () if delta < packed && delta < plain => (Encoding::Delta, delta),
        () if packed < plain => (Encoding::Packed, packed),
        () => (Encoding::Plain, plain),
    };
    let start = out.len();
    // Something better than those three is built at the end of `out`, and kept there while nothing beats it.
    let mut keep = |out: &mut Vec<u8>, encoding: Encoding, candidate: &[u8], enough: usize| {
        if candidate.len() < enough.min(best_len) {
            (best, best_len) = (encoding, candidate.len());
            out.truncate(start);
            out.extend_from_slice(candidate);
        }
        best_len
    };
    let mut length = keep(out, Encoding::Plain, &[], 0);
    let mut candidate = Vec::new();
    if depth > 0 && shape.runs * ROWS_PER_RUN_MIN <= count {
        push_runs(values, shape.runs, &mut candidate, depth - 1);
        length = keep(out, Encoding::Runs, &candidate, usize::MAX);
    }
    if depth > 0 && shape.width.min(shape.step_width) >= DICTIONARY_WIDTH_MIN {
        candidate.clear();
        if push_dictionary(values, &mut candidate, depth - 1) {
            length = keep(out, Encoding::Dictionary, &candidate, usize::MAX);
        }
    }
    if count >= PCO_VALUES_MIN && length * 8 > count {
        candidate.clear();
        let steps = if numbers::are_smooth(values, |value| value as f64) { Steps::Taken } else { Steps::NotTaken };
        if numbers::compress_ints(values, steps, &mut candidate) {
            keep(out, Encoding::Pco, &candidate, length - length / 10);
        }
    }
    match best {
        Encoding::Plain => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Encoding::Packed => {
            out.extend_from_slice(&shape.least.to_le_bytes());
            out.push(shape.width as u8);
            bits::pack(values.iter().map(|value| value.wrapping_sub(shape.least) as u64), shape.width, out);
        }
        Encoding::Delta => {
            out.extend_from_slice(&values[0].to_le_bytes());
            out.extend_from_slice(&shape.least_step.to_le_bytes());
            out.push(shape.step_width as u8);
            let steps =
                values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]).wrapping_sub(shape.least_step) as u64);
            bits::pack(steps, shape.step_width, out);
        }
        Encoding::Runs | Encoding::Dictionary | Encoding::Pco => {}
        Encoding::Null | Encoding::Constant | Encoding::Lz4 | Encoding::Bits | Encoding::Scaled => {
            unreachable!("never chosen above")
        }
    }
    best
}

/// Appends the encoding's number and the values.
pub fn encode_nested(values: &[i64], out: &mut Vec<u8>) {
    nest(values, out, DEPTH_MAX - 1);
}

fn nest(values: &[i64], out: &mut Vec<u8>, depth: u32) {
    let at = out.len();
    out.push(0);
    let encoding = encode_within(values, out, depth);
    out[at] = encoding as u8;
}

fn push_runs(values: &[i64], runs: usize, out: &mut Vec<u8>, depth: u32) {
    let mut heads = Vec::with_capacity(runs);
    let mut lengths = Vec::with_capacity(runs);
    for run in values.chunk_by(|a, b| a == b) {
        heads.push(run[0]);
        lengths.push(run.len() as i64);
    }
    push_varint(out, runs as u32);
    nest(&heads, out, depth);
    nest(&lengths, out, depth);
}

/// False where there are too many distinct values.
fn push_dictionary(values: &[i64], out: &mut Vec<u8>, depth: u32) -> bool {
    let most = DICTIONARY_MAX.min(values.len() / ROWS_PER_RUN_MIN);
    let mut distinct: Vec<i64> = Vec::new();
    for value in values {
        if let Err(at) = distinct.binary_search(value) {
            if distinct.len() == most {
                return false;
            }
            distinct.insert(at, *value);
        }
    }
    let code = |value| distinct.binary_search(value).expect("every value has been entered") as i64;
    let codes: Vec<i64> = values.iter().map(code).collect();
    push_varint(out, distinct.len() as u32);
    nest(&distinct, out, depth);
    nest(&codes, out, depth);
    true
}

/// Reads `count` values.
pub fn decode(encoding: Encoding, reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>> {
    decode_within(encoding, reader, count, DEPTH_MAX)
}

/// Reads what [`encode_nested`] wrote.
pub fn decode_nested(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>> {
    unnest(reader, count, DEPTH_MAX - 1)
}

fn unnest(reader: &mut Reader<'_>, count: usize, depth: u32) -> Result<Vec<i64>> {
    let encoding = Encoding::of(reader.byte()?)?;
    decode_within(encoding, reader, count, depth)
}

fn decode_within(encoding: Encoding, reader: &mut Reader<'_>, count: usize, depth: u32) -> Result<Vec<i64>> {
    match encoding {
        Encoding::Constant => Ok(vec![reader.int()?; count]),
        Encoding::Plain => {
            let (values, _) = reader.take(count * 8)?.as_chunks();
            Ok(values.iter().map(|value| i64::from_le_bytes(*value)).collect())
        }
        Encoding::Packed => {
            let least = reader.int()?;
            let width = u32::from(reader.byte()?);
            bits::unpack(reader, width, count, |above| least.wrapping_add(above as i64))
        }
        Encoding::Delta => delta(reader, count),
        Encoding::Runs if depth > 0 => runs(reader, count, depth - 1),
        Encoding::Dictionary if depth > 0 => dictionary(reader, count, depth - 1),
        Encoding::Pco => numbers::decompress(reader, count),
        Encoding::Scaled if depth > 0 => scaled(reader, count, depth - 1),
        Encoding::Runs | Encoding::Dictionary | Encoding::Scaled => Err(damaged("is nested too deeply")),
        Encoding::Null | Encoding::Lz4 | Encoding::Bits => Err(damaged("has an encoding that integers do not have")),
    }
}

fn delta(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>> {
    let first = reader.int()?;
    let least_step = reader.int()?;
    let width = u32::from(reader.byte()?);
    let steps = count.checked_sub(1).ok_or_else(|| damaged("is a series of no values"))?;
    if width == 0 {
        return Ok((0..count as i64).map(|i| first.wrapping_add(i.wrapping_mul(least_step))).collect());
    }
    let mut values = bits::unpack(reader, width, steps, |above| least_step.wrapping_add(above as i64))?;
    let mut value = first;
    for slot in &mut values {
        value = std::mem::replace(slot, value).wrapping_add(value);
    }
    values.push(value);
    Ok(values)
}

fn runs(reader: &mut Reader<'_>, count: usize, depth: u32) -> Result<Vec<i64>> {
    let runs = reader.varint()? as usize;
    if runs > count {
        return Err(damaged("has more runs than values"));
    }
    let heads = unnest(reader, runs, depth)?;
    let lengths = unnest(reader, runs, depth)?;
    let mut values = Vec::with_capacity(count);
    for (head, length) in heads.into_iter().zip(lengths) {
        if length < 0 || length as usize > count - values.len() {
            return Err(damaged("has runs of another length"));
        }
        values.resize(values.len() + length as usize, head);
    }
    if values.len() == count { Ok(values) } else { Err(damaged("has runs of another length")) }
}

fn scaled(reader: &mut Reader<'_>, count: usize, depth: u32) -> Result<Vec<i64>> {
    let least = reader.int()?;
    let unit = reader.int()?;
    let mut values = unnest(reader, count, depth)?;
    for value in &mut values {
        *value = least.wrapping_add(value.wrapping_mul(unit));
    }
    Ok(values)
}

fn dictionary(reader: &mut Reader<'_>, count: usize, depth: u32) -> Result<Vec<i64>> {
    let distinct = reader.varint()? as usize;
    if distinct > count {
        return Err(damaged("has more distinct values than values"));
    }
    let distinct = unnest(reader, distinct, depth)?;
    let mut values = unnest(reader, count, depth)?;
    for value in &mut values {
        let code = usize::try_from(*value).ok();
        *value =
            *code.and_then(|code| distinct.get(code)).ok_or_else(|| damaged("has a code that is in no dictionary"))?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(values: &[i64]) -> (Encoding, usize) {
        let mut out = Vec::new();
        let encoding = encode(values, &mut out);
        let mut reader = Reader::new(&out);
        assert_eq!(decode(encoding, &mut reader, values.len()).unwrap(), values);
        reader.finish().unwrap();
        (encoding, out.len())
    }

    /// splitmix64, so that no step repeats.
    fn noise(i: i64) -> i64 {
        let mut bits = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ bits >> 31) as i64
    }

    fn column(value: impl Fn(i64) -> i64) -> Vec<i64> {
        (0..1000).map(value).collect()
    }

    #[test]
    fn each_shape_finds_its_encoding() {
        assert_eq!(encoded(&[]), (Encoding::Plain, 0));
        assert_eq!(encoded(&column(|_| 7)), (Encoding::Constant, 8));
        assert_eq!(encoded(&column(|i| 1_700_000_000 + 10 * i)), (Encoding::Delta, 17));
        assert_eq!(encoded(&column(noise)).0, Encoding::Plain);
        assert_eq!(encoded(&column(|i| noise(i) >> 60)), (Encoding::Packed, 9 + 500));
        assert_eq!(encoded(&column(|i| noise(i / 20))).0, Encoding::Runs);
        assert_eq!(encoded(&column(|i| noise(noise(i) & 7))).0, Encoding::Dictionary);
        assert_eq!(encoded(&column(|i| noise(i) >> (noise(!i) & 63))).0, Encoding::Pco);
        let (encoding, bytes) = encoded(&column(|i| 1_000_000 * (10 * i + (noise(i) & 3))));
        assert_eq!((encoding, bytes < 1000 * 4 / 8 + 50), (Encoding::Scaled, true));
    }

    #[test]
    fn the_extremes_of_64_bits_survive() {
        encoded(&[i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN]);
        encoded(&[i64::MAX, i64::MIN]);
        encoded(&(0..100).map(|i| i64::MAX.wrapping_add(i)).collect::<Vec<i64>>());
    }
}
