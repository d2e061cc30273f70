//! Writes that passed their checks, and where they go.
//!
//! Between its checks and its first write a command is staged: keys, stamps and row images end to end, a few allocations
//! for thousands of rows. Where they are written is the engine's business ([`Writes`]).

use super::apply::Machine;
use crate::Result;
use crate::ids::KeyspaceId;
use crate::storage::keys::Key;
use crate::storage::level::RangeDelete;
use crate::storage::memtable::{Memtable, Put};
use crate::storage::rows::Stamp;
use std::ops::Range;

/// Where apply writes.
pub trait Writes {
    /// What is written from here to the end of the command is more than a memtable may hold: it goes where nobody sees
    /// it before the command is complete. `before` is the state without the command.
    fn begin_large(&self, before: &Machine) -> Result<()>;
    /// Writes what passed its checks.
    fn write(&self, staged: &Staged) -> Result<()>;
    /// What there is after the present command is to be hashed. Whoever compares no copies has no use for it.
    fn mark(&self) {}
}

/// A memtable by itself takes in whatever comes: for tests, and for a transaction's own view.
impl Writes for Memtable {
    fn begin_large(&self, _before: &Machine) -> Result<()> {
        Ok(())
    }

    fn write(&self, staged: &Staged) -> Result<()> {
        staged.write(self);
        Ok(())
    }
}

/// Writes that passed their checks.
#[derive(Debug, Default)]
pub struct Staged {
    keyspaces: Vec<(KeyspaceId, Vec<StagedPut>)>,
    images: Vec<u8>,
    ranges: Vec<RangeDelete>,
}

#[derive(Debug)]
struct StagedPut {
    key: Key,
    stamp: Stamp,
    /// Where in `images`; none for a tombstone.
    image: Option<Range<usize>>,
}

impl Staged {
    /// Writes everything into a memtable.
    pub fn write(&self, memtable: &Memtable) {
        for range in &self.ranges {
            memtable.delete_range(range.clone());
        }
        for (keyspace, puts) in &self.keyspaces {
            let puts: Vec<Put<'_>> = puts
                .iter()
                .map(|put| Put {
                    key: &put.key,
                    stamp: put.stamp,
                    image: put.image.clone().map(|range| &self.images[range]),
                })
                .collect();
            memtable.put_many(*keyspace, &puts);
        }
    }

    pub(super) fn delete_range(&mut self, delete: RangeDelete) {
        self.ranges.push(delete);
    }

    /// Makes room for so many more rows of a keyspace.
    pub(super) fn reserve(&mut self, keyspace: KeyspaceId, rows: usize) {
        self.keyspace(keyspace).reserve(rows);
    }

    pub(super) fn put(&mut self, keyspace: KeyspaceId, key: Key, stamp: Stamp, encode: impl FnOnce(&mut Vec<u8>)) {
        let from = self.images.len();
        encode(&mut self.images);
        let image = Some(from..self.images.len());
        self.keyspace(keyspace).push(StagedPut { key, stamp, image });
    }

    pub(super) fn tombstone(&mut self, keyspace: KeyspaceId, key: Key, stamp: Stamp) {
        self.keyspace(keyspace).push(StagedPut { key, stamp, image: None });
    }

    /// A command writes to a table and its indexes: few enough to look through.
    fn keyspace(&mut self, keyspace: KeyspaceId) -> &mut Vec<StagedPut> {
        let at = self.keyspaces.iter().position(|(id, _)| *id == keyspace).unwrap_or_else(|| {
            self.keyspaces.push((keyspace, Vec::new()));
            self.keyspaces.len() - 1
        });
        &mut self.keyspaces[at].1
    }
}
