//! What the hot store writes into its engine: the chain of deltas and the root. How they hang together stands in
//! [`crate::storage::hot`].
//!
//! * A record longer than one value goes on in further parts; the frame's length says how many.
//! * Whatever is read here was checked: frame, number, place in the chain.

use crate::error::{Error, Result};
use crate::ids::{LogIndex, Term};
use crate::storage::block_store::{BlockStore, Edit};
use crate::storage::entry::RangeDeleteRecord;
use crate::storage::frame;
use crate::storage::hot::block_file::Stored;
use crate::storage::level::Address;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

pub(super) const DELTA: frame::Kind = frame::Kind { magic: *b"CHHD", version: 1 };
const ROOT: frame::Kind = frame::Kind { magic: *b"CHHR", version: 1 };

/// Bytes of a value: 4 KB with what sled puts around it. See `storage::sled` for why not more.
pub const PART_BYTES: usize = 4_000;

pub(super) const DELTA_PREFIX: u8 = b'd';
const ROOT_PREFIX: u8 = b'r';

#[derive(Serialize, Deserialize)]
pub(super) struct Delta {
    pub(super) sequence: u64,
    pub(super) is_base: bool,
    pub(super) added: BTreeMap<Address, Stored>,
    pub(super) removed: Vec<Address>,
    pub(super) root_hash: u128,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) sequence: u64,
    pub(super) first_delta: u64,
    pub(super) next_file: u32,
    pub(super) birth: LogIndex,
    pub(super) birth_term: Term,
    pub(super) state: Vec<u8>,
    pub(super) range_deletes: Vec<RangeDeleteRecord>,
}

pub(super) struct ReadRoot {
    pub(super) content: Root,
    pub(super) hash: u128,
    pub(super) parts: u16,
}

pub(super) fn read_root(store: &dyn BlockStore) -> Result<(ReadRoot, u128)> {
    let record = read_record(store, ROOT_PREFIX, 0).map_err(|error| error.context("hot store, root"))?;
    let payload = frame::unwrap(ROOT, &record, "hot store, root")?;
    let (content, running) =
        payload.split_last_chunk::<16>().ok_or_else(|| Error::damaged("hot store: its root is too short"))?;
    let hash = xxh3_128(content);
    let content: Root = frame::decode(content, "hot store, root")?;
    let parts = record.len().div_ceil(PART_BYTES) as u16;
    Ok((ReadRoot { content, hash, parts }, u128::from_le_bytes(*running)))
}

pub(super) fn read_delta(store: &dyn BlockStore, sequence: u64) -> Result<(Delta, Vec<u8>)> {
    let what = format!("hot store, delta {sequence}");
    let record = read_record(store, DELTA_PREFIX, sequence).map_err(|error| error.context(&what))?;
    let delta: Delta = frame::decode(frame::unwrap(DELTA, &record, &what)?, &what)?;
    if delta.sequence != sequence {
        return Err(Error::damaged(format!("{what} has another number")));
    }
    Ok((delta, record))
}

pub(super) fn push_root(edits: &mut Vec<Edit>, content: &[u8], running: u128, parts_before: u16) -> u16 {
    let payload = [content, &running.to_le_bytes()].concat();
    let before = edits.len();
    push_parts(edits, ROOT_PREFIX, 0, &frame::wrap(ROOT, &payload));
    let parts = (edits.len() - before) as u16;
    edits.extend((parts..parts_before).map(|part| (part_key(ROOT_PREFIX, 0, part), None)));
    parts
}

pub(super) fn chain(before: u128, delta: &[u8]) -> u128 {
    xxh3_128(&[&before.to_le_bytes(), delta].concat())
}

pub(super) fn push_parts(edits: &mut Vec<Edit>, prefix: u8, number: u64, record: &[u8]) {
    let parts = record.chunks(PART_BYTES).enumerate();
    edits.extend(parts.map(|(part, bytes)| {
        let part = u16::try_from(part).expect("records stay below 256 MB: memtables bound them");
        (part_key(prefix, number, part), Some(bytes.to_vec()))
    }));
}

pub(super) fn read_record(store: &dyn BlockStore, prefix: u8, number: u64) -> Result<Vec<u8>> {
    let missing = || Error::damaged("it is missing, or a part of it");
    let mut record = store.get(&part_key(prefix, number, 0))?.ok_or_else(missing)?;
    let length = frame::length(&record).ok_or_else(missing)?;
    let mut part = 0;
    while record.len() < length {
        part += 1;
        let more = store.get(&part_key(prefix, number, part))?.filter(|more| !more.is_empty());
        record.extend_from_slice(&more.ok_or_else(missing)?);
    }
    Ok(record)
}

fn part_key(prefix: u8, number: u64, part: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(11);
    key.push(prefix);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}
