//! Snapshots for members that lack what the log no longer has: sealed files on their way from one directory to another.
//!
//! ```text
//!   leader    CURRENT's runs, pinned ──> Manifest ──> pieces of the files that are asked for
//!                                           │               │
//!   receiver  snapshots/install-<index>-<id>/: what is there already; each file checked when it is whole
//!                                           │
//!             install: files linked into state/ under local numbers ─> CURRENT {these, fresh hot store, `installed`}
//!                      ─> start: log brought in line with it, made durable ─> `installed` cleared
//! ```
//!
//! A snapshot is what `CURRENT` names, so its position is `CURRENT`'s birth, and making one costs nothing but a seal
//! where the newest one is too old. Writes go on: sealed files never change, and those that are merged away meanwhile go
//! with the last handle.
//!
//! * A file is known by the hash of its footer, in which the hash of all the rest is. So the manifest needs no pass over
//!   the files, and what an earlier transfer has left is used again if it is the same.
//! * What arrives counts once the whole file has the hash that the manifest names. A piece that was lost in a crash costs
//!   its file, at most 32 MiB.
//! * Until `CURRENT` is switched an install has changed nothing; from then on a start completes it.

pub(crate) mod bare;
mod install;
mod staging;

pub use install::install;
pub(crate) use install::settle;
pub(crate) use staging::remove_stale;
pub use staging::{Have, Staged, Staging};

use crate::error::{Error, Result};
use crate::ids::{LogIndex, Term};
use crate::raft::Membership;
use crate::storage::current::{Current, NameRecord, SealedName};
use crate::storage::frame;
use crate::storage::sealed::{SealedFile, SealedRun};
use crate::storage::wal::Position;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

const KIND: frame::Kind = frame::Kind { magic: *b"CHSN", version: 1 };

/// Bytes of a manifest: those of 100,000 files, three terabytes. One that claims to be larger is not read.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it holds the effects of: everything up to here.
    pub position: Position,
    /// The group at that position, encoded.
    pub membership: Vec<u8>,
    /// Its runs, newest first, with the key ranges that count of each file.
    pub runs: Vec<Vec<SealedName>>,
    /// Its files by number, ascending.
    pub files: Vec<FileEntry>,
}

/// One file of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The sender's number for it.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
    /// See [`SealedFile::identity`].
    pub identity: u128,
}

#[derive(Serialize, Deserialize)]
struct Record {
    index: LogIndex,
    term: Term,
    membership: Vec<u8>,
    runs: Vec<Vec<NameRecord>>,
    files: Vec<FileEntry>,
}

impl Manifest {
    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        let record = Record {
            index: self.position.index,
            term: self.position.term,
            membership: self.membership.clone(),
            runs: self.runs.iter().map(|run| run.iter().map(NameRecord::from).collect()).collect(),
            files: self.files.clone(),
        };
        frame::wrap(KIND, &frame::encode(&record))
    }

    /// Reads what [`Manifest::encode`] wrote, and checks that it holds together.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let what = "the manifest of a snapshot";
        let record: Record = frame::decode(frame::unwrap(KIND, bytes, what)?, what)?;
        let manifest = Manifest {
            position: Position { index: record.index, term: record.term },
            membership: record.membership,
            runs: record.runs.into_iter().map(|run| run.into_iter().map(SealedName::from).collect()).collect(),
            files: record.files,
        };
        manifest.check().map_err(|error| error.context(what))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let next_number = self.files.last().map_or(1, |file| file.number.saturating_add(1));
        let current = Current { runs: self.runs.clone(), next_number, ..Current::new() };
        current.check()?;
        if self.runs.is_empty() || self.runs.iter().any(Vec::is_empty) {
            return Err(Error::damaged("a run has no files"));
        }
        if !self.files.iter().map(|file| file.number).eq(current.numbers()) {
            return Err(Error::damaged("the files are not those that the runs name"));
        }
        // A name in the receiver's directory stands for one content.
        if self.files.iter().map(|file| file.identity).collect::<BTreeSet<u128>>().len() != self.files.len() {
            return Err(Error::damaged("two files are the same"));
        }
        Ok(())
    }

    /// What tells it from every other one.
    pub fn identity(&self) -> u128 {
        xxh3_128(&self.encode())
    }

    /// The group at its position.
    pub fn group(&self) -> Result<Membership> {
        if self.membership.is_empty() { Ok(Membership::default()) } else { Membership::decode(&self.membership) }
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A snapshot of a running engine: its files stay for as long as this lives.
#[derive(Clone)]
pub struct Snapshot {
    /// What it consists of.
    pub manifest: Manifest,
    runs: Vec<SealedRun>,
}

impl Snapshot {
    /// What `CURRENT` names now; none where nothing has been sealed yet.
    pub(crate) fn of(current: &Current, runs: &[SealedRun]) -> Option<Snapshot> {
        let newest = runs.first()?;
        let mut files: Vec<FileEntry> = runs
            .iter()
            .flat_map(SealedRun::files)
            .map(|file| FileEntry { number: file.number, bytes: file.bytes, identity: file.identity() })
            .collect();
        // Runs that a merge is working through may share a file.
        files.sort_unstable_by_key(|file| file.number);
        files.dedup();
        let manifest = Manifest {
            position: Position { index: current.birth, term: current.birth_term },
            membership: newest.state.membership.clone(),
            runs: current.runs.clone(),
            files,
        };
        Some(Snapshot { manifest, runs: runs.to_vec() })
    }

    /// One of its files, by the manifest's number.
    pub fn file(&self, number: u32) -> Result<Arc<SealedFile>> {
        let file = self.runs.iter().flat_map(SealedRun::files).find(|file| file.number == number);
        file.cloned().ok_or_else(|| Error::internal(format!("a snapshot has no file {number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::entry::start;

    fn manifest() -> Manifest {
        let name = |number| SealedName { number, from: start(), to: None };
        Manifest {
            position: Position { index: LogIndex(7), term: Term(2) },
            membership: vec![1, 2],
            runs: vec![vec![name(5)], vec![name(3)]],
            files: [3, 5].map(|number| FileEntry { number, bytes: 9, identity: u128::from(number) }).to_vec(),
        }
    }

    #[test]
    fn a_manifest_survives_its_encoding_and_no_flipped_bit_does() {
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            Manifest::decode(&bad).unwrap_err();
        }
    }

    #[test]
    fn a_manifest_that_does_not_hold_together_is_refused() {
        let wrong: [fn(&mut Manifest); 6] = [
            |manifest| manifest.runs.clear(),
            |manifest| manifest.runs[0].clear(),
            |manifest| manifest.files.truncate(1),
            |manifest| manifest.files.swap(0, 1),
            |manifest| manifest.files[0].identity = manifest.files[1].identity,
            |manifest| manifest.runs[0][0].to = Some(start()),
        ];
        for make in wrong {
            let mut manifest = manifest();
            make(&mut manifest);
            Manifest::decode(&manifest.encode()).unwrap_err();
        }
    }
}
