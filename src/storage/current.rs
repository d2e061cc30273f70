//! `state/CURRENT`: which files are the state, and from where the log continues it.
//!
//! Everything below the memtables hangs on this one small file. A change of sealed files is a new `CURRENT` put in the
//! place of the old one; before that the new files are invisible, after it the old ones are waste.
//!
//! ```text
//!   write the new files ─> fsync them and their directory ─> CURRENT.tmp, fsync, rename, fsync directory ─> delete
//! ```
//!
//! * The files of a run tile all keys: the first begins at the least place, each ends where the next begins, the last
//!   has no end. A run that a merge is working through begins where the merge stands instead.
//! * Missing or damaged is damage by name: nothing is made up in its place, nothing is deleted.
//! * Nothing is deleted before `CURRENT` and its directory have been fsynced once since the start: a rename that this
//!   process sees may not be on disk.

use crate::error::{Error, Result};
use crate::ids::{KeyspaceId, LogIndex, Term};
use crate::storage::entry::{Place, start};
use crate::storage::files::{self, Files, Open};
use crate::storage::frame;
use crate::storage::keys::Key;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const KIND: frame::Kind = frame::Kind { magic: *b"CHCU", version: 1 };

/// Length of a boot id: a UUID in text.
const BOOT_ID_BYTES: usize = 36;

/// A sealed file and the part of it that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedName {
    /// Number of the file.
    pub number: u32,
    /// First place that counts.
    pub from: Place,
    /// First place that no longer counts; none means to the end.
    pub to: Option<Place>,
}

impl SealedName {
    /// True where a key counts.
    pub fn holds(&self, keyspace: KeyspaceId, key: &Key) -> bool {
        let place = (keyspace, key);
        (self.from.0, &self.from.1) <= place && self.to.as_ref().is_none_or(|to| place < (to.0, &to.1))
    }
}

/// What `CURRENT` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Sealed runs, newest first; the files of each in key order.
    pub runs: Vec<Vec<SealedName>>,
    /// Number of the hot directory.
    pub hot: u64,
    /// Position at which the hot store was born: the log is needed from the next one on.
    pub birth: LogIndex,
    /// Term of the command at `birth`.
    pub birth_term: Term,
    /// An installed snapshot whose log has not been reset yet.
    pub installed: bool,
    /// First file number not drawn yet.
    pub next_number: u32,
}

#[derive(Serialize, Deserialize)]
struct Record {
    runs: Vec<Vec<NameRecord>>,
    hot: u64,
    birth: LogIndex,
    birth_term: Term,
    installed: bool,
    next_number: u32,
}

/// A sealed name as it rests in files.
#[derive(Serialize, Deserialize)]
pub(super) struct NameRecord {
    number: u32,
    from: (KeyspaceId, Vec<u8>),
    to: Option<(KeyspaceId, Vec<u8>)>,
}

impl From<&SealedName> for NameRecord {
    fn from(name: &SealedName) -> NameRecord {
        let place = |(keyspace, key): &Place| (*keyspace, key.to_vec());
        NameRecord { number: name.number, from: place(&name.from), to: name.to.as_ref().map(place) }
    }
}

impl From<NameRecord> for SealedName {
    fn from(name: NameRecord) -> SealedName {
        let place = |(keyspace, key): (KeyspaceId, Vec<u8>)| (keyspace, Key::new(&key));
        SealedName { number: name.number, from: place(name.from), to: name.to.map(place) }
    }
}

/// The path of `CURRENT` in the state directory.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("CURRENT")
}

/// The path of hot directory `number` in the state directory.
pub fn hot_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("hot-{number:06}"))
}

/// True where a name in the state directory is that of a hot directory.
pub fn is_hot(name: &str) -> bool {
    name.starts_with("hot-")
}

impl Current {
    /// An empty state: no sealed file, hot directory 1, the log from its first entry.
    pub fn new() -> Current {
        Current { runs: Vec::new(), hot: 1, birth: LogIndex(0), birth_term: Term(0), installed: false, next_number: 1 }
    }

    /// Reads `CURRENT`. Missing or damaged is an error of kind `Damaged`.
    pub fn load(files: &dyn Files, directory: &Path) -> Result<Current> {
        let path = path(directory);
        let what = path.display();
        if !files.exists(&path) {
            return Err(Error::damaged(format!("{what} is missing")));
        }
        let bytes = files::read(files, &path)?;
        let record: Record = frame::decode(frame::unwrap(KIND, &bytes, &what)?, &what)?;
        let current = Current {
            runs: record.runs.into_iter().map(|run| run.into_iter().map(SealedName::from).collect()).collect(),
            hot: record.hot,
            birth: record.birth,
            birth_term: record.birth_term,
            installed: record.installed,
            next_number: record.next_number,
        };
        current.check().map_err(|error| error.context(what))?;
        Ok(current)
    }

    /// Puts this in the place of the present `CURRENT`, durably. The files it names must be durable before.
    pub fn store(&self, files: &dyn Files, directory: &Path) -> Result<()> {
        self.check().unwrap_or_else(|error| panic!("a CURRENT that does not hold together: {error}"));
        let record = Record {
            runs: self.runs.iter().map(|run| run.iter().map(NameRecord::from).collect()).collect(),
            hot: self.hot,
            birth: self.birth,
            birth_term: self.birth_term,
            installed: self.installed,
            next_number: self.next_number,
        };
        files::replace(files, &path(directory), &frame::wrap(KIND, &frame::encode(&record)))
    }

    /// The next `CURRENT` after a seal: its files are the newest run, a new hot directory is born at `birth`.
    #[must_use]
    pub fn sealed(&self, run: Vec<SealedName>, hot: u64, birth: LogIndex, birth_term: Term) -> Current {
        let next_number = run.iter().map(|name| name.number + 1).max().unwrap_or(0).max(self.next_number);
        let runs = std::iter::once(run).chain(self.runs.iter().cloned()).collect();
        Current { runs, hot, birth, birth_term, installed: self.installed, next_number }
    }

    /// Numbers of the files named, ascending.
    pub fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.runs.iter().flatten().map(|name| name.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The `CURRENT` of an installed snapshot: the first of its files get the next local numbers, a new hot directory is
    /// born where it stands, and the log is still to be brought in line with it.
    #[must_use]
    pub(super) fn installed(&self, runs: Vec<Vec<SealedName>>, birth: LogIndex, birth_term: Term) -> Current {
        let next_number = runs.iter().flatten().map(|name| name.number + 1).max().unwrap_or(0).max(self.next_number);
        Current { runs, hot: self.hot + 1, birth, birth_term, installed: true, next_number }
    }

    /// Numbers that this names and `next` does not: waste once `next` is durable.
    pub fn obsolete(&self, next: &Current) -> Vec<u32> {
        let named = next.numbers();
        self.numbers().into_iter().filter(|number| named.binary_search(number).is_err()).collect()
    }

    /// True where a merge stands in the middle of this run.
    pub fn is_partial(run: &[SealedName]) -> bool {
        run.first().is_some_and(|first| first.from != start())
    }

    pub(super) fn check(&self) -> Result<()> {
        for run in &self.runs {
            let joined = run.windows(2).all(|pair| pair[0].to.as_ref() == Some(&pair[1].from));
            let open_ended = run.last().is_some_and(|last| last.to.is_none());
            let ascending = run.iter().all(|name| name.to.as_ref().is_none_or(|to| name.from < *to));
            if !(joined && open_ended && ascending) {
                return Err(Error::damaged("the ranges of a run's files do not join"));
            }
        }
        if self.numbers().last().is_some_and(|last| *last >= self.next_number) {
            return Err(Error::damaged("a file has a number that was not drawn yet"));
        }
        Ok(())
    }
}

impl Default for Current {
    fn default() -> Current {
        Current::new()
    }
}

/// Removes from the state directory whatever `current` does not name: sealed files, hot directories, temporary files.
/// Gives the paths removed.
///
/// `CURRENT` and its directory are fsynced first. A named file that is not there is damage, and then nothing is removed.
pub fn clean(files: &dyn Files, directory: &Path, current: &Current) -> Result<Vec<PathBuf>> {
    let named: Vec<PathBuf> =
        current.numbers().into_iter().map(|number| crate::storage::sealed::path(directory, number)).collect();
    if let Some(missing) = named.iter().find(|path| !files.exists(path)) {
        return Err(Error::damaged(format!("{} is named by CURRENT and is missing", missing.display())));
    }
    files.open(&path(directory), Open::Write)?.sync_all()?;
    files.sync_dir(directory)?;
    let hot = hot_path(directory, current.hot);
    let mut removed = Vec::new();
    for path in files.list(directory)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if is_hot(name) && path != hot {
            files.remove_dir(&path)?;
        } else if (extension == "blk" && !named.contains(&path)) || extension == "tmp" {
            files.remove(&path)?;
        } else {
            continue;
        }
        removed.push(path);
    }
    Ok(removed)
}

/// The kernel's boot id, which changes with every start of the machine; none where it cannot be read.
pub fn boot_id(files: &dyn Files) -> Option<String> {
    let file = files.open(Path::new("/proc/sys/kernel/random/boot_id"), Open::Read).ok()?;
    let mut id = [0; BOOT_ID_BYTES];
    file.read_at(&mut id, 0).ok()?;
    String::from_utf8(id.to_vec()).ok()
}

/// Writes the file `BOOT` of a hot directory, once, when the directory is made.
pub fn write_boot(files: &dyn Files, hot: &Path, boot_id: Option<&str>) -> Result<()> {
    match boot_id {
        Some(id) => files::replace(files, &hot.join("BOOT"), id.as_bytes()),
        None => Ok(()),
    }
}

/// True where the hot directory was made since the machine started, so that nothing of it can have been lost. An id
/// that cannot be read, here or there, counts as different.
pub fn is_same_boot(files: &dyn Files, hot: &Path, boot_id: Option<&str>) -> bool {
    let path = hot.join("BOOT");
    let written = if files.exists(&path) { files::read(files, &path).ok() } else { None };
    boot_id.is_some_and(|id| written.as_deref() == Some(id.as_bytes()))
}

/// Removes `BOOT`: the hot directory will not be trusted again. For a block that was found damaged.
pub fn distrust(files: &dyn Files, hot: &Path) -> Result<()> {
    let path = hot.join("BOOT");
    if files.exists(&path) {
        files.remove(&path)?;
        files.sync_dir(hot)?;
    }
    Ok(())
}
