//! What has arrived of a snapshot: `snapshots/install-<index>-<id>/`.
//!
//! ```text
//!   5f3a...c2.part   pieces in order, from the first on       ──whole, and the hash fits──>  5f3a...c2.blk
//! ```
//!
//! * Files are named by what they hold. Those that another transfer has left, of an older snapshot or by another leader,
//!   are taken over where they are the same; the rest of it is removed.
//! * A broken transfer goes on behind the pieces that are there. Whether a crash has left them whole shows when the file
//!   is: where it does not have its hash it is fetched anew.
//! * At most [`DIRTY_BYTES_MAX`] are written before they are synced: the log's fdatasync on the same disk would have to
//!   wait for more.

use super::{FileEntry, Manifest};
use crate::error::{Error, Result, SqlState};
use crate::ids::LogIndex;
use crate::storage::files::{File, Files, Open};
use crate::storage::sealed::SealedFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the names of such directories begin with.
const PREFIX: &str = "install-";

/// Bytes written and not synced: some 10 ms of a disk that writes 400 MB/s.
const DIRTY_BYTES_MAX: u64 = 4 << 20;

/// How much of a file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Have {
    /// The manifest's number for it.
    pub number: u32,
    /// What follows from here on is wanted.
    pub bytes: u64,
}

/// A snapshot that is arriving.
pub struct Staging {
    files: Arc<dyn Files>,
    path: PathBuf,
    manifest: Manifest,
    have: Vec<Have>,
    /// The file that is being written, by its place in the manifest.
    part: Option<Part>,
}

struct Part {
    at: usize,
    file: Arc<dyn File>,
    dirty: u64,
}

/// A snapshot that has arrived, every file checked and durable.
#[derive(Clone, Debug)]
pub struct Staged {
    /// What it consists of.
    pub manifest: Manifest,
    pub(super) path: PathBuf,
}

impl Staged {
    /// Where one of its files is.
    pub(super) fn file(&self, entry: &FileEntry) -> PathBuf {
        whole(&self.path, entry)
    }
}

impl Staging {
    /// Begins, or goes on with what is in `snapshots` already.
    pub fn open(files: Arc<dyn Files>, snapshots: &Path, manifest: Manifest) -> Result<Staging> {
        let name = format!("{PREFIX}{}-{:016x}", manifest.position.index, manifest.identity() as u64);
        let path = snapshots.join(name);
        files.create_dir(&path)?;
        for other in others(&*files, snapshots)?.into_iter().filter(|other| *other != path) {
            take_over(&*files, &other, &path, &manifest)?;
            files.remove_dir(&other)?;
        }
        let mut staging = Staging { files, path, manifest, have: Vec::new(), part: None };
        for entry in staging.manifest.files.clone() {
            let bytes = staging.found(&entry)?;
            staging.have.push(Have { number: entry.number, bytes });
        }
        let wanted = staging.manifest.bytes() - staging.have.iter().map(|have| have.bytes).sum::<u64>();
        let free = staging.files.free_bytes(&staging.path)?;
        if wanted > free {
            let text = format!("a snapshot needs {} MB, and {} MB are free", wanted >> 20, free >> 20);
            return Err(Error::new(crate::error::Kind::Overloaded, SqlState::DISK_FULL, text));
        }
        Ok(staging)
    }

    /// How much of a file is there.
    fn found(&self, entry: &FileEntry) -> Result<u64> {
        let (part, whole) = (part(&self.path, entry), whole(&self.path, entry));
        if self.files.exists(&whole) {
            if check(&self.files, &whole, entry).is_ok() {
                return Ok(entry.bytes);
            }
            self.files.remove(&whole)?;
        }
        if !self.files.exists(&part) {
            return Ok(0);
        }
        let bytes = self.files.open(&part, Open::Read)?.len()?;
        if bytes < entry.bytes {
            return Ok(bytes);
        }
        // All of it was there when the process ended, but for the look at it; what is too long was never this file.
        self.files.remove(&part)?;
        Ok(0)
    }

    /// How much of each file is there, in the order of the manifest.
    pub fn have(&self) -> &[Have] {
        &self.have
    }

    /// The next piece of a file.
    pub fn write(&mut self, number: u32, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = self.have.iter().position(|have| have.number == number);
        let at = at.ok_or_else(|| wrong(format!("the snapshot has no file {number}")))?;
        let (entry, have) = (self.manifest.files[at], self.have[at].bytes);
        let end = offset.saturating_add(bytes.len() as u64);
        if offset != have || end > entry.bytes {
            return Err(wrong(format!("a piece of file {number} is for {offset} to {end}, and {have} are there")));
        }
        if self.part.as_ref().is_none_or(|part| part.at != at) {
            let path = part(&self.path, &entry);
            let how = if self.files.exists(&path) { Open::Write } else { Open::Create };
            self.part = Some(Part { at, file: self.files.open(&path, how)?, dirty: 0 });
        }
        let Some(part) = &mut self.part else { return Err(Error::internal("a file was opened and is not there")) };
        part.file.write_at(bytes, offset)?;
        part.dirty += bytes.len() as u64;
        if part.dirty >= DIRTY_BYTES_MAX {
            part.file.sync_data()?;
            part.dirty = 0;
        }
        self.have[at].bytes = end;
        if end == entry.bytes { self.complete(&entry) } else { Ok(()) }
    }

    /// The file is whole: it gets its name where it is what the manifest says.
    fn complete(&mut self, entry: &FileEntry) -> Result<()> {
        let Some(written) = self.part.take() else { return Err(Error::internal("no file is being written")) };
        let (part, whole) = (part(&self.path, entry), whole(&self.path, entry));
        written.file.sync_all()?;
        if let Err(error) = check(&self.files, &part, entry) {
            self.files.remove(&part)?;
            self.have[written.at].bytes = 0;
            return Err(error);
        }
        self.files.rename(&part, &whole)
    }

    /// True where every file is there.
    pub fn is_complete(&self) -> bool {
        self.manifest.files.iter().zip(&self.have).all(|(entry, have)| entry.bytes == have.bytes)
    }

    /// The whole snapshot, durable.
    pub fn finish(self) -> Result<Staged> {
        if !self.is_complete() {
            return Err(wrong("the snapshot ended before all of it had come".to_owned()));
        }
        self.files.sync_dir(&self.path)?;
        Ok(Staged { manifest: self.manifest, path: self.path })
    }
}

/// Removes what was left of transfers that are no news any more.
pub(crate) fn remove_stale(files: &dyn Files, snapshots: &Path, applied: LogIndex) -> Result<()> {
    for path in others(files, snapshots)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let index = name.trim_start_matches(PREFIX).split('-').next().and_then(|index| index.parse::<u64>().ok());
        if index.is_none_or(|index| index <= applied.0) {
            files.remove_dir(&path)?;
        }
    }
    Ok(())
}

fn others(files: &dyn Files, snapshots: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files.list(snapshots)?;
    found.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX)));
    Ok(found)
}

/// Moves the files that this snapshot has too from another transfer's directory.
fn take_over(files: &dyn Files, other: &Path, path: &Path, manifest: &Manifest) -> Result<()> {
    for entry in &manifest.files {
        for name in [whole, part] {
            let (from, to) = (name(other, entry), name(path, entry));
            if files.exists(&from) && !files.exists(&to) {
                files.rename(&from, &to)?;
            }
        }
    }
    Ok(())
}

/// Reads a whole file, and refuses it where it is not the one that is meant.
fn check(files: &Arc<dyn Files>, path: &Path, entry: &FileEntry) -> Result<()> {
    let file = SealedFile::open_at(files, path.to_path_buf(), entry.number)?;
    if file.identity() != entry.identity || file.bytes != entry.bytes {
        return Err(Error::damaged(format!("{} is not the file that the snapshot names", path.display())));
    }
    file.verify()
}

fn whole(directory: &Path, entry: &FileEntry) -> PathBuf {
    directory.join(format!("{:032x}.blk", entry.identity))
}

fn part(directory: &Path, entry: &FileEntry) -> PathBuf {
    directory.join(format!("{:032x}.part", entry.identity))
}

fn wrong(text: String) -> Error {
    Error::invalid(SqlState::PROTOCOL_VIOLATION, text)
}
