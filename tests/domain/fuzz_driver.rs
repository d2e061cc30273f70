//! The fuzz targets, bounded: mutated valid inputs and random bytes, the same every time.
//!
//! cargo-fuzz looks for new paths for hours; this runs with every test, on a stable compiler, and finds what is cheap
//! to find. An input that a target accepts joins the pool that later ones are made from, so mutations pile up.
//!
//! * `CHRONOS_FUZZ_INPUTS` sets the inputs a target, `CHRONOS_SEED` what they are drawn from. Equal settings give
//!   equal inputs.
//! * A failure prints the target, the seed, the number of the input and its bytes.
//! * `CHRONOS_FUZZ_CORPUS` names a directory that the valid inputs are written to, one folder a target: what
//!   `cargo fuzz run` may begin with.

mod found;
mod mutation;
mod valid;

use crate::fuzz;
use mutation::{Random, mutate};
use std::path::Path;

/// Inputs a target where nothing else is said: all targets together take seconds in a debug build.
const INPUTS: u64 = 2_000;

/// Inputs that mutations begin from: the valid ones, and as many accepted ones as keep it varied.
const POOL_MAX: usize = 512;

/// Longest input: a statement from which a list is taken out. The other formats repeat themselves long before.
const INPUT_BYTES_MAX: usize = 20 << 10;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn keep(name: &str, valid: &[Vec<u8>]) {
    let Ok(directory) = std::env::var("CHRONOS_FUZZ_CORPUS") else { return };
    let directory = Path::new(&directory).join(name);
    std::fs::create_dir_all(&directory).unwrap();
    for (i, input) in valid.iter().enumerate() {
        std::fs::write(directory.join(format!("valid-{i:03}")), input).unwrap();
    }
}

/// Runs one target. `words` are what a mutation may put in, beside bytes.
fn drive(name: &str, target: fn(&[u8]) -> bool, valid: Vec<Vec<u8>>, words: &[&[u8]]) {
    keep(name, &valid);
    for (i, input) in valid.iter().enumerate() {
        assert!(target(input), "{name}: valid input {i} is refused");
    }
    let seed = number("CHRONOS_SEED", 1);
    let inputs = number("CHRONOS_FUZZ_INPUTS", INPUTS);
    let mut random = Random::new(seed);
    let (first, mut pool) = (valid.len(), valid);
    let mut accepted = 0;
    for i in 0..inputs {
        let mut input = if random.below(16) == 0 {
            (0..random.below(400)).map(|_| random.below(256) as u8).collect()
        } else {
            mutate(&mut random, &pool, words)
        };
        input.truncate(INPUT_BYTES_MAX);
        let outcome = std::panic::catch_unwind(|| target(&input));
        let Ok(is_accepted) = outcome else {
            let text = input.escape_ascii();
            panic!("{name}: input {i} of seed {seed} (CHRONOS_SEED={seed}, CHRONOS_FUZZ_INPUTS={}): b\"{text}\"", i + 1)
        };
        if is_accepted {
            accepted += 1;
            if pool.len() < POOL_MAX {
                pool.push(input);
            } else if random.below(8) == 0 {
                let at = first + random.below((POOL_MAX - first) as u64) as usize;
                pool[at] = input;
            }
        }
    }
    println!("{name}: {inputs} inputs of seed {seed}, {accepted} accepted");
}

#[test]
fn no_text_panics_the_front_end() {
    drive("sql_text", fuzz::sql_text, valid::sql_text(), valid::SQL_WORDS);
}

#[test]
fn any_bytes_as_a_log_are_recovered_or_refused_by_name() {
    drive("wal_recovery", fuzz::wal_recovery, valid::wal_recovery(), &[b"\xC7WAL"]);
}

#[test]
fn any_bytes_as_a_block_decode_or_are_damage() {
    drive("block", fuzz::block, valid::block(), &[]);
}

#[test]
fn any_bytes_as_a_sealed_file_open_or_are_damage() {
    drive("sealed_file", fuzz::sealed_file, valid::sealed_file(), &[b"CHST"]);
}

#[test]
fn any_bytes_as_a_key_decode_or_are_damage() {
    drive("key", fuzz::key, valid::key(), &[&[0, 0xFF], &[0, 0], &[1], &[0xFF]]);
}

#[test]
fn any_bytes_as_a_command_decode_or_are_not_understood() {
    drive("command", fuzz::command, valid::command(), &[]);
}

#[test]
fn any_bytes_as_a_row_image_decode_or_are_damage() {
    drive("row_image", fuzz::row_image, valid::row_image(), &[]);
}
