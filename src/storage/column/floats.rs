//! FLOAT columns. Every bit survives: the sign of zero and the payload of a NaN too.
//!
//! ```text
//! constant   f64
//! plain      f64 ...
//! bits       the bit patterns as nested integers: values that repeat, as runs or a dictionary
//! pco        what `pco` makes of them; it finds decimals by itself
//! ```

use super::numbers::Steps;
use super::reader::{Reader, damaged};
use super::{Encoding, ints, numbers};
use crate::error::Result;

/// Rows a run on average from which bit patterns are tried: a set point, a counter that rarely moves.
const ROWS_PER_RUN_MIN: usize = 4;

/// Appends the values in the encoding that suits them, and says which.
pub fn encode(values: &[f64], out: &mut Vec<u8>) -> Encoding {
    let Some((first, rest)) = values.split_first() else { return Encoding::Plain };
    if rest.iter().all(|value| value.to_bits() == first.to_bits()) {
        out.extend_from_slice(&first.to_le_bytes());
        return Encoding::Constant;
    }
    let start = out.len();
    let runs = 1 + values.windows(2).filter(|pair| pair[0].to_bits() != pair[1].to_bits()).count();
    if runs * ROWS_PER_RUN_MIN <= values.len() {
        let patterns: Vec<i64> = values.iter().map(|value| value.to_bits() as i64).collect();
        ints::encode_nested(&patterns, out);
        return Encoding::Bits;
    }
    let steps = if numbers::are_smooth(values, |value| value) { Steps::Taken } else { Steps::NotTaken };
    if numbers::compress_floats(values, steps, out) && out.len() - start < values.len() * 8 {
        return Encoding::Pco;
    }
    out.truncate(start);
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    Encoding::Plain
}

/// Reads `count` values.
pub fn decode(encoding: Encoding, reader: &mut Reader<'_>, count: usize) -> Result<Vec<f64>> {
    match encoding {
        Encoding::Constant => Ok(vec![f64::from_le_bytes(reader.array()?); count]),
        Encoding::Plain => {
            let (values, _) = reader.take(count * 8)?.as_chunks();
            Ok(values.iter().map(|value| f64::from_le_bytes(*value)).collect())
        }
        Encoding::Bits => {
            let patterns = ints::decode_nested(reader, count)?;
            Ok(patterns.into_iter().map(|pattern| f64::from_bits(pattern as u64)).collect())
        }
        Encoding::Pco => numbers::decompress(reader, count),
        Encoding::Null
        | Encoding::Packed
        | Encoding::Delta
        | Encoding::Runs
        | Encoding::Dictionary
        | Encoding::Lz4
        | Encoding::Scaled => Err(damaged("has an encoding that floats do not have")),
    }
}
