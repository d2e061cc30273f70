//! The door to `pco`: the only file that names it.
//!
//! The wrapped form is used, since the block has its own header, counts and checksum. `pco` promises that corrupt
//! bytes give an error and never a panic or an allocation that they have not earned; fuzzing holds it to that.
//!
//! Left to itself `pco` tries both with and without steps from value to value, and each mode it knows, and takes twice
//! as long. One pass over the values says as well whether steps are smaller than the values; integers have their
//! common unit divided out before they come here. What is left to find is the decimal base of floats.
//!
//! Bytes a value, ns to encode and to decode a value; release build, 2 cores, 1,000,000 values in chunks of 4,096.
//! *value*: real temperatures with nine decimals. *cents*: the same rounded to two. *stamp*: HLC, about four rows a
//! millisecond. *jitter*: timestamps 10 s apart, up to 50 ms off.
//!
//! ```text
//! level               value              cents              stamp              jitter
//! 0, all left to it   6.376   22   5     1.882   24   5     2.763   14   4     1.924   13   3
//! 2, all left to it   4.630   40   7     1.679   32   6     0.473   24   4     0.550   22   3
//! 4, all left to it   4.220   43   7     1.623   42   6     0.329   25   4     0.160   22   3
//! 6, all left to it   4.180   54   7     1.610   51   6     0.329   27   6     0.160   25   3
//! 8, all left to it   4.169  139   7     1.602  128   6     0.330   61   7     0.161   43   5
//! 2, steps            4.659   36   8     1.715   30   7     1.144   12   3     0.599   12   3   (integers: no mode)
//! 4, steps            4.169   38   8     1.565   33   7     0.255   11   3     0.135    9   2   (integers: no mode)
//! ```
//!
//! In chunks of 1,024 a value takes 4.235 bytes and cents 1.634, encoding 5 ns more.

use super::reader::{Reader, damaged};
use crate::error::Result;
use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DecompressorScratch, DeltaSpec, ModeSpec, PagingSpec};
use std::cell::RefCell;

/// Compression level: from 4 up little shrinks any more, and from 6 up it takes three times as long.
const LEVEL: usize = 4;

thread_local! {
    /// Working space of `pco`, 13 KiB a thread: made anew for each column it would cost as much as 90 values.
    static SCRATCH: RefCell<DecompressorScratch> = RefCell::default();
}

/// Whether the steps from value to value are compressed, or the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Steps, which are smaller than the values.
    Taken,
    /// Values.
    NotTaken,
}

/// True where steps from value to value are smaller than distances from the mean.
///
/// Independent values step 1.3 to 1.4 times as far as they lie from their mean; a random walk far less.
pub fn are_smooth<T: Copy>(values: &[T], as_float: impl Fn(T) -> f64) -> bool {
    let mean = values.iter().map(|value| as_float(*value)).sum::<f64>() / values.len() as f64;
    let distances: f64 = values.iter().map(|value| (as_float(*value) - mean).abs()).sum();
    let steps: f64 = values.windows(2).map(|pair| (as_float(pair[1]) - as_float(pair[0])).abs()).sum();
    steps < distances
}

/// Appends compressed integers; false where `pco` refuses them, which is then no harm.
pub fn compress_ints(values: &[i64], steps: Steps, out: &mut Vec<u8>) -> bool {
    compress(values, ModeSpec::Classic, steps, out)
}

/// Appends compressed floats; false where `pco` refuses them, which is then no harm.
pub fn compress_floats(values: &[f64], steps: Steps, out: &mut Vec<u8>) -> bool {
    compress(values, ModeSpec::Auto, steps, out)
}

fn compress<T: Number>(values: &[T], mode: ModeSpec, steps: Steps, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let delta = match steps {
        Steps::Taken => DeltaSpec::TryConsecutive(1),
        Steps::NotTaken => DeltaSpec::NoOp,
    };
    let config = ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_mode_spec(mode)
        .with_delta_spec(delta)
        .with_paging_spec(PagingSpec::EqualPagesUpTo(values.len().max(1)));
    let written = (|| {
        let file = FileCompressor::default();
        file.write_header(&mut *out)?;
        let mut chunk = file.chunk_compressor(values, &config)?;
        chunk.write_meta(&mut *out)?;
        chunk.write_page(0, &mut *out)?;
        pco::errors::PcoResult::Ok(())
    })();
    if written.is_err() {
        out.truncate(start);
    }
    written.is_ok()
}

/// Reads `count` values.
pub fn decompress<T: Number + Default>(reader: &mut Reader<'_>, count: usize) -> Result<Vec<T>> {
    let mut values = vec![T::default(); count];
    let read = (|| {
        let (file, rest) = FileDecompressor::new(reader.rest())?;
        let (chunk, rest) = file.chunk_decompressor::<T, _>(rest)?;
        SCRATCH.with_borrow_mut(|scratch| {
            let mut page = chunk.page_decompressor_with_scratch(rest, count, scratch)?;
            let progress = page.read(&mut values)?;
            pco::errors::PcoResult::Ok((progress, page.into_src()))
        })
    })();
    match read {
        Ok((progress, rest)) if progress.finished && progress.n_processed == count => {
            reader.resume(rest);
            Ok(values)
        }
        Ok(_) => Err(damaged("holds another number of values")),
        Err(_) => Err(damaged("is not what pco wrote")),
    }
}
