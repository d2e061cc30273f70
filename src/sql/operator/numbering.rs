//! Numbers distinct keys in the order in which they first come: groups, and rows of DISTINCT.
//!
//! An open-addressing table of numbers beside the keys themselves, which stand end to end in order of their numbers:
//! so the keys are the group columns of the result already, and no order of a hash table ever shows.
//!
//! ```text
//! slots   [ . | 3 | . | 1 | 2 | . ]      number + 1, 0 is free; linear probing, at most half full
//! keys    [ "pump-1", "pump-7", "fan" ]   by number
//! ```
//!
//! Hashes are seeded at random for each query, so that nobody can prepare keys that all fall into one slot.

use crate::clock::random_u64;
use crate::error::Result;
use crate::sql::batch::Strings;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Slots at the beginning: few groups are the common case.
const SLOTS_MIN: usize = 64;

/// Numbers integers.
pub(super) struct Integers {
    slots: Slots,
    keys: Vec<i64>,
}

/// Numbers strings.
pub(super) struct Bytes {
    slots: Slots,
    keys: Strings,
    /// By number: spares most comparisons, and hashing again when the table grows.
    hashes: Vec<u64>,
}

struct Slots {
    slots: Vec<u32>,
    seed: u64,
}

impl Slots {
    fn new() -> Result<Slots> {
        Ok(Slots { slots: vec![0; SLOTS_MIN], seed: random_u64()? })
    }

    /// The number that `equal` accepts, else the free slot where it belongs.
    fn find(&self, hash: u64, equal: impl Fn(u32) -> bool) -> std::result::Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                taken if equal(taken - 1) => return Ok(taken - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Twice the slots once half of them are taken. `hash` gives the hash of a number.
    fn grow(&mut self, numbers: usize, hash: impl Fn(usize) -> u64) {
        if numbers * 2 <= self.slots.len() {
            return;
        }
        let mask = self.slots.len() * 2 - 1;
        let mut slots = vec![0; mask + 1];
        for &taken in self.slots.iter().filter(|taken| **taken != 0) {
            let mut slot = hash(taken as usize - 1) as usize & mask;
            while slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            slots[slot] = taken;
        }
        self.slots = slots;
    }

    fn byte_len(&self) -> usize {
        self.slots.len() * 4
    }
}

impl Integers {
    pub(super) fn new() -> Result<Integers> {
        Ok(Integers { slots: Slots::new()?, keys: Vec::new() })
    }

    /// The number of a key; the next one where it is new.
    pub(super) fn number(&mut self, key: i64) -> u32 {
        let (slots, keys) = (&self.slots, &self.keys);
        match slots.find(hash_integer(key, slots.seed), |number| keys[number as usize] == key) {
            Ok(number) => number,
            Err(slot) => {
                let number = self.add_apart(key);
                self.slots.slots[slot] = number + 1;
                let (seed, keys) = (self.slots.seed, &self.keys);
                self.slots.grow(keys.len(), |number| hash_integer(keys[number], seed));
                number
            }
        }
    }

    /// Takes the next number for something that is no key, NULL; `key` stands in its place.
    pub(super) fn add_apart(&mut self, key: i64) -> u32 {
        self.keys.push(key);
        self.keys.len() as u32 - 1
    }

    /// Keys by number.
    pub(super) fn keys(&self) -> &[i64] {
        &self.keys
    }

    pub(super) fn byte_len(&self) -> usize {
        self.slots.byte_len() + self.keys.capacity() * 8
    }
}

impl Bytes {
    pub(super) fn new() -> Result<Bytes> {
        Ok(Bytes { slots: Slots::new()?, keys: Strings::default(), hashes: Vec::new() })
    }

    /// The number of a key; the next one where it is new.
    pub(super) fn number(&mut self, key: &[u8]) -> u32 {
        let hash = xxh3_64_with_seed(key, self.slots.seed);
        let (hashes, keys) = (&self.hashes, &self.keys);
        let equal = |number: u32| hashes[number as usize] == hash && keys.get(number as usize) == key;
        match self.slots.find(hash, equal) {
            Ok(number) => number,
            Err(slot) => {
                let number = self.add(key, hash);
                self.slots.slots[slot] = number + 1;
                let hashes = &self.hashes;
                self.slots.grow(hashes.len(), |number| hashes[number]);
                number
            }
        }
    }

    /// Takes the next number for something that is no key, NULL; the empty string stands in its place.
    pub(super) fn add_apart(&mut self) -> u32 {
        self.add(b"", 0)
    }

    fn add(&mut self, key: &[u8], hash: u64) -> u32 {
        self.keys.push(key);
        self.hashes.push(hash);
        self.hashes.len() as u32 - 1
    }

    /// How many numbers are taken.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Keys by number.
    pub(super) fn keys(&self) -> &Strings {
        &self.keys
    }

    pub(super) fn byte_len(&self) -> usize {
        self.slots.byte_len() + self.keys.byte_len() + self.keys.len() * 4 + self.hashes.capacity() * 8
    }
}

/// A multiplication of 64 by 64 bits, both halves folded together.
fn hash_integer(key: i64, seed: u64) -> u64 {
    let product = u128::from(key as u64 ^ seed) * 0x9E37_79B9_7F4A_7C15;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_as_they_first_come() {
        let (mut integers, mut bytes) = (Integers::new().unwrap(), Bytes::new().unwrap());
        for round in 0..2 {
            for key in 0..10_000i64 {
                let spread = key.wrapping_mul(0x0001_0000_0000) ^ i64::MIN;
                assert_eq!(integers.number(spread), key as u32, "round {round}");
                assert_eq!(bytes.number(&spread.to_be_bytes()), key as u32, "round {round}");
            }
        }
        assert_eq!((integers.keys().len(), bytes.len()), (10_000, 10_000));
    }

    #[test]
    fn what_stands_for_null_is_no_key() {
        let mut integers = Integers::new().unwrap();
        let null = integers.add_apart(0);
        assert_ne!(integers.number(0), null);
        let mut bytes = Bytes::new().unwrap();
        let null = bytes.add_apart();
        assert_ne!(bytes.number(b""), null);
    }
}
