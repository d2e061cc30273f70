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

mod files;
mod image;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use image::{NameOperation, Names};
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

/// Says which operations fail.
pub type Picks = Arc<dyn Fn(Operation, &Path) -> bool + Send + Sync>;

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
    picks: Option<Picks>,
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

    /// Lets each operation fail that `picks` names, without effect; for faults among several threads.
    pub fn fail_where(&self, picks: Option<Picks>) {
        self.state().picks = picks;
    }

    /// Forgets stops and faults, and gives back all locks: what the next process finds after kill -9. The page cache
    /// is still there, lies included.
    pub fn revive(&self) {
        let mut state = self.state();
        state.stop_at = None;
        state.faults.clear();
        state.picks = None;
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
        let (hook, picks) = {
            let state = self.state();
            (state.hook.clone(), state.picks.clone())
        };
        if let Some(hook) = hook {
            hook(operation, path);
        }
        let is_picked = picks.is_some_and(|picks| picks(operation, path));
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
        if is_picked {
            return Err(Error::io(path.display(), &std::io::Error::other("injected error")));
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
