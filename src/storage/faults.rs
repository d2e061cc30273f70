//! A disk that fails on demand: a file system in memory for tests and simulation. Nothing in the daemon uses it.
//!
//! Every promise of durability in this crate is a claim about what is left after a power cut. A [`Disk`] keeps apart
//! what a process sees and what is on the medium, so a test can cut the power at every single operation and look.
//!
//! ```text
//!   write_at ──> seen ───────────────────────────────> read_at
//!                 └─ pending writes ──sync_data──> medium ──crash──> a new disk: medium + some of what was pending
//!   rename  ──> names seen ─ pending names ──sync_dir──> names on the medium
//! ```
//!
//! * The same seed and the same operations give the same disk.
//! * After a failed sync the pending writes are gone for good while reads still show them, as Linux does it: only
//!   writing again helps.
//! * Renames are atomic. Names that depend on each other reach the medium in order; others in any order.
//! * After [`Disk::crash`] the old disk still answers the old process, and the new one knows nothing of it.

mod image;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::storage::files::{File, Files, Lock, Open};
use image::{Inode, NameOperation, Names, Write};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk without a limit says is free: so much that nothing minds, and so little that sums do not overflow.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// What becomes of pending writes and names when the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// None reaches the medium.
    Lose,
    /// All do.
    Keep,
    /// Those before some moment do; the write at that moment in part.
    Tear,
    /// Each 512-byte sector holds what some of the writes to it left, whatever its neighbours hold; names likewise.
    Reorder,
}

impl Crash {
    /// Every mode.
    pub const ALL: [Crash; 4] = [Crash::Lose, Crash::Keep, Crash::Tear, Crash::Reorder];
}

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Input/output error; a sync loses what was pending.
    Io,
    /// No space left.
    Full,
}

/// What an operation does, for a hook that counts, waits or takes notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file was made.
    Create,
    /// Bytes are written.
    Write,
    /// A length is set.
    SetLen,
    /// A file is synced.
    Sync,
    /// Names are synced.
    SyncDir,
    /// A name changes: rename, link, remove, a new directory.
    Name,
}

/// Called before each operation that changes something, without any lock held: it may wait, as a slow disk does.
pub type Hook = Arc<dyn Fn(Operation, &Path) + Send + Sync>;

/// A file system in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    names: Names,
    /// Counts writes, so that crashes can cut between any two.
    clock: u64,
    operations: u64,
    stop_at: Option<u64>,
    faults: Vec<(u64, Fault)>,
    capacity: Option<u64>,
    locked: Vec<PathBuf>,
    hook: Option<Hook>,
}

/// Whether an operation takes effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admission {
    Admitted,
    /// The power goes while it is under way: it may take effect in part, and the caller never hears of it.
    Interrupted,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Disk {
        Disk::default()
    }

    /// Operations so far that changed something: the boundaries at which [`Disk::stop_at`] may cut.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Cuts the power during operation `number` (counted from 0): that one is pending at most, and every later one
    /// fails without effect. What is left is for [`Disk::crash`] to decide.
    pub fn stop_at(&self, number: u64) {
        self.state().stop_at = Some(number);
    }

    /// Lets operation `number` (counted from 0) fail without effect.
    pub fn fail_at(&self, number: u64, fault: Fault) {
        self.state().faults.push((number, fault));
    }

    /// Forgets stops and faults, and gives back all locks: what the next process finds after kill -9. The page cache
    /// is still there, lies included.
    pub fn revive(&self) {
        let mut state = self.state();
        state.stop_at = None;
        state.faults.clear();
        state.locked.clear();
    }

    /// Bytes that files may hold in all; none for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Calls `hook` before each operation.
    pub fn set_hook(&self, hook: Option<Hook>) {
        self.state().hook = hook;
    }

    /// Cuts the power and starts again: a disk with what is on the medium.
    #[must_use]
    pub fn crash(&self, seed: u64, mode: Crash) -> Disk {
        let state = self.state();
        let names = state.names.crash(&mut Random(seed), mode, state.clock);
        Disk(Arc::new(Mutex::new(State { names, capacity: state.capacity, ..State::default() })))
    }

    /// Turns one bit of a file over, on the medium and in the cache alike.
    pub fn flip(&self, path: &Path, bit: u64) -> Result<()> {
        let state = self.state();
        let inode = state.names.get(path).ok_or_else(|| not_found("flip a bit of", path))?;
        let mut inode = lock(&inode);
        inode.flip(bit);
        Ok(())
    }

    /// Every file, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.paths()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Counts an operation and decides its fate.
    fn admit(&self, operation: Operation, path: &Path) -> Result<Admission> {
        let hook = self.state().hook.clone();
        if let Some(hook) = hook {
            hook(operation, path);
        }
        let mut state = self.state();
        let number = state.operations;
        if let Some(stop) = state.stop_at
            && number > stop
        {
            return Err(interrupted(path));
        }
        state.operations += 1;
        if state.stop_at == Some(number) {
            return Ok(Admission::Interrupted);
        }
        match state.faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault) {
            None => Ok(Admission::Admitted),
            Some(Fault::Io) => Err(Error::io(path.display(), &std::io::Error::other("injected error"))),
            Some(Fault::Full) => Err(full(path)),
        }
    }

    fn change_names(&self, path: &Path, operation: NameOperation) -> Result<()> {
        let admission = self.admit(Operation::Name, path)?;
        self.state().names.push(operation);
        acknowledge(admission, path)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test thread that panicked has failed already; the others may go on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn acknowledge(admission: Admission, path: &Path) -> Result<()> {
    match admission {
        Admission::Admitted => Ok(()),
        Admission::Interrupted => Err(interrupted(path)),
    }
}

fn interrupted(path: &Path) -> Error {
    Error::io(path.display(), &std::io::Error::other("the power was cut"))
}

fn full(path: &Path) -> Error {
    Error::io(format_args!("write {}", path.display()), &ErrorKind::StorageFull.into())
}

fn not_found(doing: &str, path: &Path) -> Error {
    Error::io(format_args!("{doing} {}", path.display()), &ErrorKind::NotFound.into())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// A small generator (splitmix64): good enough to choose, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl Files for Disk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let found = self.state().names.get(path);
        let inode = match (how, found) {
            (Open::Create, Some(_)) => {
                return Err(Error::io(format_args!("open {}", path.display()), &ErrorKind::AlreadyExists.into()));
            }
            (Open::Create, None) => {
                if !self.state().names.is_directory(parent(path)) {
                    return Err(not_found("open", path));
                }
                let admission = self.admit(Operation::Create, path)?;
                let inode = Arc::new(Mutex::new(Inode::default()));
                self.state().names.push(NameOperation::Link { to: path.to_path_buf(), inode: inode.clone() });
                acknowledge(admission, path)?;
                inode
            }
            (Open::Read | Open::Write, Some(inode)) => inode,
            (Open::Read | Open::Write, None) => return Err(not_found("open", path)),
        };
        Ok(Arc::new(DiskFile { disk: self.clone(), inode, path: path.to_path_buf(), writable: how != Open::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let inode = self.state().names.get(from).ok_or_else(|| not_found("rename", from))?;
        self.change_names(from, NameOperation::Rename { from: from.to_path_buf(), to: to.to_path_buf(), inode })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let inode = self.state().names.get(from).ok_or_else(|| not_found("link", from))?;
        if self.exists(to) {
            return Err(Error::io(format_args!("link {}", to.display()), &ErrorKind::AlreadyExists.into()));
        }
        self.change_names(to, NameOperation::Link { to: to.to_path_buf(), inode })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if self.state().names.get(path).is_none() {
            return Err(not_found("remove", path));
        }
        self.change_names(path, NameOperation::Remove { path: path.to_path_buf() })
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        if !self.state().names.is_directory(path) {
            return Err(not_found("remove", path));
        }
        // From the leaves up, one by one: a crash may leave any part.
        let (inside, directories) = self.state().names.below(path);
        for file in inside {
            self.remove(&file)?;
        }
        for directory in directories.into_iter().rev() {
            self.change_names(&directory, NameOperation::RemoveDirectory { path: directory.clone() })?;
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        if self.state().names.get(path).is_some() {
            return Err(Error::io(
                format_args!("create directory {}", path.display()),
                &ErrorKind::AlreadyExists.into(),
            ));
        }
        let mut missing: Vec<PathBuf> = path.ancestors().map(Path::to_path_buf).collect();
        missing.retain(|path| !self.state().names.is_directory(path));
        for directory in missing.into_iter().rev() {
            self.change_names(&directory, NameOperation::MakeDirectory { path: directory.clone() })?;
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.state().names.list(directory))
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state();
        state.names.get(path).is_some() || state.names.is_directory(path)
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        if !self.state().names.is_directory(directory) {
            return Err(not_found("sync directory", directory));
        }
        let admission = self.admit(Operation::SyncDir, directory)?;
        acknowledge(admission, directory)?;
        self.state().names.sync(directory);
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> Result<u64> {
        let state = self.state();
        Ok(state.capacity.map_or(UNLIMITED_BYTES, |capacity| capacity.saturating_sub(state.names.used_bytes())))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        if self.state().locked.iter().any(|locked| locked == path) {
            return Ok(None);
        }
        let how = if self.exists(path) { Open::Write } else { Open::Create };
        let file = self.open(path, how)?;
        self.state().locked.push(path.to_path_buf());
        Ok(Some(Box::new(DiskLock { disk: self.clone(), path: path.to_path_buf(), file })))
    }
}

struct DiskLock {
    disk: Disk,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl Lock for DiskLock {
    fn describe(&self, text: &str) -> Result<()> {
        self.file.set_len(0)?;
        self.file.write_at(text.as_bytes(), 0)
    }
}

impl Drop for DiskLock {
    fn drop(&mut self) {
        self.disk.state().locked.retain(|path| *path != self.path);
    }
}

struct DiskFile {
    disk: Disk,
    inode: Arc<Mutex<Inode>>,
    path: PathBuf,
    writable: bool,
}

impl DiskFile {
    fn change(&self, operation: Operation, write: impl FnOnce(u64) -> Write) -> Result<()> {
        if !self.writable {
            return Err(Error::io(format_args!("write {}", self.path.display()), &ErrorKind::PermissionDenied.into()));
        }
        let admission = self.disk.admit(operation, &self.path)?;
        let mut state = self.disk.state();
        state.clock += 1;
        let write = write(state.clock);
        let grows = write.end().saturating_sub(lock(&self.inode).len());
        if grows > 0 && state.capacity.is_some_and(|capacity| state.names.used_bytes() + grows > capacity) {
            return Err(full(&self.path));
        }
        lock(&self.inode).push(write);
        drop(state);
        acknowledge(admission, &self.path)
    }

    fn sync(&self) -> Result<()> {
        match self.disk.admit(Operation::Sync, &self.path) {
            Ok(Admission::Admitted) => {
                lock(&self.inode).sync();
                Ok(())
            }
            Ok(Admission::Interrupted) => Err(interrupted(&self.path)),
            Err(error) => {
                // A power cut leaves what is pending to chance; a failed sync loses it.
                let state = self.disk.state();
                let cut = state.stop_at.is_some_and(|stop| state.operations > stop);
                drop(state);
                if !cut {
                    lock(&self.inode).lose();
                }
                Err(error)
            }
        }
    }
}

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match lock(&self.inode).read(offset, buffer.len()) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::io(format_args!("read {}", self.path.display()), &ErrorKind::UnexpectedEof.into())),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.change(Operation::Write, |clock| Write::bytes(clock, offset, bytes))
    }

    fn len(&self) -> Result<u64> {
        Ok(lock(&self.inode).len())
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.change(Operation::SetLen, |clock| Write::length(clock, bytes))
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }
}
