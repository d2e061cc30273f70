//! Filters over keys: whether a block may hold a key, without reading it.
//!
//! Where keys are not written in order (UUIDs), the key ranges of blocks overlap those of other levels, and a lookup of
//! a new key would read one block a level only to find nothing. A filter of ten bits a key answers that from memory.
//!
//! It is a blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): one
//! hash picks a group of 256 bits, and one bit in each of its eight words. So a lookup touches one cache line.
//!
//! ```text
//! filter  version u8 | groups x 8 words u32
//!
//! hash    63        40 39                              0
//!         | group     | 5 bits for each of eight words |
//! ```
//!
//! * A key that was put in is always found: a filter never hides a row.
//! * Of other keys about one in a hundred is taken for one that was put in.
//! * A filter that cannot be read excludes nothing.

use crate::error::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;

/// Bits a key: at ten, one of a hundred foreign keys passes; each bit more saves a third of those.
const BITS_PER_KEY: usize = 10;

const WORDS: usize = 8;
const GROUP_BYTES: usize = WORDS * 4;
const GROUP_BITS: usize = GROUP_BYTES * 8;

/// Bits of a hash that pick bits within a group; those above pick the group.
const WITHIN_BITS: u32 = 40;

/// Groups at most: as many as the bits left to pick one can tell apart, for 400 million keys.
const GROUPS_MAX: usize = 1 << (64 - WITHIN_BITS);

/// The hash of a key: taken once where several filters are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

impl KeyHash {
    /// Hashes an encoded key.
    pub fn of(key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64(key))
    }

    fn group(self, groups: usize) -> usize {
        (((self.0 >> WITHIN_BITS) * groups as u64) >> (64 - WITHIN_BITS)) as usize
    }

    /// The one bit of word `word`.
    fn mask(self, word: usize) -> u32 {
        1 << (self.0 >> (5 * word) & 31)
    }
}

/// A filter over these keys.
pub fn build<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let hashes: Vec<KeyHash> = keys.into_iter().map(KeyHash::of).collect();
    let groups = (hashes.len() * BITS_PER_KEY).div_ceil(GROUP_BITS).clamp(1, GROUPS_MAX);
    let mut filter = vec![0; 1 + groups * GROUP_BYTES];
    filter[0] = VERSION;
    let (words, _) = filter[1..].as_chunks_mut::<4>();
    for hash in hashes {
        let group = &mut words[hash.group(groups) * WORDS..][..WORDS];
        for (at, word) in group.iter_mut().enumerate() {
            *word = (u32::from_le_bytes(*word) | hash.mask(at)).to_le_bytes();
        }
    }
    filter
}

/// False where the filter's keys do not include this one; true where they do or may.
pub fn may_contain(filter: &[u8], key: &[u8]) -> bool {
    may_contain_hash(filter, KeyHash::of(key))
}

/// The same by the key's hash.
pub fn may_contain_hash(filter: &[u8], hash: KeyHash) -> bool {
    let Some((&VERSION, words)) = filter.split_first() else { return true };
    let (words, _) = words.as_chunks::<4>();
    let groups = words.len() / WORDS;
    if groups == 0 {
        return true;
    }
    let group = &words[hash.group(groups) * WORDS..][..WORDS];
    group.iter().enumerate().all(|(at, word)| u32::from_le_bytes(*word) & hash.mask(at) != 0)
}

/// Checks the form of a stored filter. Its bits have no form: a checksum around it must vouch for them.
pub fn check(filter: &[u8]) -> Result<()> {
    match filter.split_first() {
        Some((&VERSION, words)) if !words.is_empty() && words.len() % GROUP_BYTES == 0 => Ok(()),
        Some((&VERSION, _)) | None => Err(Error::damaged("a key filter has an impossible length")),
        Some((version, _)) => Err(Error::damaged(format!("a key filter has format {version}, not {VERSION}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::keys;

    fn key(i: i64) -> Vec<u8> {
        let mut key = Vec::new();
        keys::push_int(&mut key, i);
        key
    }

    #[test]
    fn about_one_foreign_key_in_a_hundred_passes() {
        for count in [100, 1000, 4096, 100_000] {
            let keys: Vec<Vec<u8>> = (0..count).map(key).collect();
            let filter = build(keys.iter().map(Vec::as_slice));
            check(&filter).unwrap();
            assert!(keys.iter().all(|key| may_contain(&filter, key)));
            let passed = (1_000_000..1_100_000).filter(|&i| may_contain(&filter, &key(i))).count();
            assert!((200..2_000).contains(&passed), "{passed} of 100,000 passed a filter over {count}");
            assert!(filter.len() * 8 <= count as usize * 11 + 264);
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_excludes_nothing() {
        for filter in [&[][..], &[VERSION], &[VERSION, 0, 0], &[9; 33]] {
            assert!(may_contain(filter, b"key"));
            assert!(check(filter).is_err());
        }
        assert!(!may_contain(&build([]), b"key"), "an empty set holds nothing");
    }
}
