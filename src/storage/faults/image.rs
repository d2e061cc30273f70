//! What a simulated disk holds: contents and names, each as seen, as on the medium, and what lies between.

use super::{Crash, Random, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// A change of content that is not on the medium yet.
#[derive(Clone)]
pub(super) struct Write {
    clock: u64,
    offset: u64,
    change: Change,
}

#[derive(Clone)]
enum Change {
    Bytes(Vec<u8>),
    /// The length becomes `offset`.
    Length,
}

impl Write {
    pub(super) fn bytes(clock: u64, offset: u64, bytes: &[u8]) -> Write {
        Write { clock, offset, change: Change::Bytes(bytes.to_vec()) }
    }

    pub(super) fn length(clock: u64, bytes: u64) -> Write {
        Write { clock, offset: bytes, change: Change::Length }
    }

    /// The length that a file has at least, or that it is given.
    pub(super) fn end(&self) -> u64 {
        match &self.change {
            Change::Bytes(bytes) => self.offset + bytes.len() as u64,
            Change::Length => self.offset,
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        let end = self.end() as usize;
        match &self.change {
            Change::Bytes(bytes) => {
                content.resize(content.len().max(end), 0);
                content[self.offset as usize..end].copy_from_slice(bytes);
            }
            Change::Length => content.resize(end, 0),
        }
    }

    /// The part of a write that a cut after `bytes` of it leaves.
    fn torn(&self, bytes: usize) -> Write {
        let change = match &self.change {
            Change::Bytes(all) => Change::Bytes(all[..bytes.min(all.len())].to_vec()),
            Change::Length => Change::Length,
        };
        Write { change, ..self.clone() }
    }
}

/// A file without its names.
#[derive(Clone, Default)]
pub(super) struct Inode {
    seen: Vec<u8>,
    medium: Vec<u8>,
    pending: Vec<Write>,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset).ok()?;
        self.seen.get(from..from.checked_add(length)?)
    }

    pub(super) fn push(&mut self, write: Write) {
        write.apply(&mut self.seen);
        self.pending.push(write);
    }

    /// What was pending reaches the medium.
    pub(super) fn sync(&mut self) {
        for write in self.pending.drain(..) {
            write.apply(&mut self.medium);
        }
    }

    /// What was pending never will.
    pub(super) fn lose(&mut self) {
        self.pending.clear();
    }

    pub(super) fn flip(&mut self, bit: u64) {
        let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        for content in [&mut self.seen, &mut self.medium] {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= mask;
            }
        }
    }

    /// The content after a power cut. `cut` is the moment of [`Crash::Tear`].
    fn crash(&self, random: &mut Random, mode: Crash, cut: u64) -> Inode {
        let mut content = self.medium.clone();
        match mode {
            Crash::Lose => {}
            Crash::Keep => self.pending.iter().for_each(|write| write.apply(&mut content)),
            Crash::Tear => {
                for write in self.pending.iter().filter(|write| write.clock <= cut) {
                    if write.clock < cut {
                        write.apply(&mut content);
                    } else {
                        write
                            .torn(random.below(1 + write.end() - write.offset.min(write.end())) as usize)
                            .apply(&mut content);
                    }
                }
            }
            Crash::Reorder => self.reorder(random, &mut content),
        }
        Inode { seen: content.clone(), medium: content, pending: Vec::new() }
    }

    /// Each sector, and the length, as one of the states it went through, chosen by itself.
    fn reorder(&self, random: &mut Random, content: &mut Vec<u8>) {
        let mut states = vec![content.clone()];
        for write in &self.pending {
            let mut next = states[states.len() - 1].clone();
            write.apply(&mut next);
            states.push(next);
            // Of a long list of writes the last ones differ most; older states only cost memory.
            if states.len() > 16 {
                states.remove(1);
            }
        }
        let length = states[random.below(states.len() as u64) as usize].len();
        content.clear();
        content.resize(length, 0);
        for (number, sector) in content.chunks_mut(SECTOR_BYTES).enumerate() {
            let state = &states[random.below(states.len() as u64) as usize];
            let from = (number * SECTOR_BYTES).min(state.len());
            let to = (from + sector.len()).min(state.len());
            sector[..to - from].copy_from_slice(&state[from..to]);
        }
    }
}

type Shared = Arc<Mutex<Inode>>;

/// A change of names that is not on the medium yet.
#[derive(Clone)]
pub(super) enum NameOperation {
    Link { to: PathBuf, inode: Shared },
    Rename { from: PathBuf, to: PathBuf, inode: Shared },
    Remove { path: PathBuf },
    MakeDirectory { path: PathBuf },
    RemoveDirectory { path: PathBuf },
}

impl NameOperation {
    /// The names it touches.
    fn names(&self) -> [&Path; 2] {
        match self {
            NameOperation::Link { to, .. } => [to, to],
            NameOperation::Rename { from, to, .. } => [from, to],
            NameOperation::Remove { path }
            | NameOperation::MakeDirectory { path }
            | NameOperation::RemoveDirectory { path } => [path, path],
        }
    }

    /// True where syncing `directory` puts it on the medium.
    fn belongs_to(&self, directory: &Path) -> bool {
        self.names()[1].parent() == Some(directory)
    }
}

/// One state of the names.
#[derive(Clone, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Shared>,
    directories: BTreeSet<PathBuf>,
}

impl Tree {
    fn apply(&mut self, operation: &NameOperation) {
        match operation {
            NameOperation::Link { to, inode } => {
                self.files.insert(to.clone(), inode.clone());
            }
            NameOperation::Rename { from, to, inode } => {
                self.files.remove(from);
                self.files.insert(to.clone(), inode.clone());
            }
            NameOperation::Remove { path } => {
                self.files.remove(path);
            }
            NameOperation::MakeDirectory { path } => {
                self.directories.insert(path.clone());
            }
            NameOperation::RemoveDirectory { path } => {
                self.directories.remove(path);
            }
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        // The root, and the directory that relative paths begin in, are always there.
        path.parent().is_none() || path == Path::new(".") || self.directories.contains(path)
    }
}

/// The names of a disk.
#[derive(Default)]
pub(super) struct Names {
    seen: Tree,
    medium: Tree,
    pending: Vec<NameOperation>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Shared> {
        self.seen.files.get(path).cloned()
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.seen.is_directory(path)
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.seen.files.keys().cloned().collect()
    }

    pub(super) fn list(&self, directory: &Path) -> Vec<PathBuf> {
        let names = self.seen.files.keys().chain(&self.seen.directories);
        let mut found: Vec<PathBuf> = names.filter(|path| path.parent() == Some(directory)).cloned().collect();
        found.sort();
        found
    }

    /// Files and directories at or below a directory.
    pub(super) fn below(&self, directory: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let files = self.seen.files.keys().filter(|path| path.starts_with(directory)).cloned().collect();
        let directories = self.seen.directories.iter().filter(|path| path.starts_with(directory)).cloned().collect();
        (files, directories)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.seen.files.values().map(|inode| lock(inode).len()).sum()
    }

    pub(super) fn push(&mut self, operation: NameOperation) {
        self.seen.apply(&operation);
        self.pending.push(operation);
    }

    /// The names in `directory` reach the medium, after those they depend on.
    pub(super) fn sync(&mut self, directory: &Path) {
        let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
        let mut keep = vec![false; self.pending.len()];
        for (at, operation) in self.pending.iter().enumerate().rev() {
            let names = operation.names();
            if operation.belongs_to(directory) || names.iter().any(|name| needed.contains(*name)) {
                needed.extend(names.map(Path::to_path_buf));
                keep[at] = true;
            }
        }
        let mut later = Vec::new();
        for (operation, keep) in std::mem::take(&mut self.pending).into_iter().zip(keep) {
            if keep {
                self.medium.apply(&operation);
            } else {
                later.push(operation);
            }
        }
        self.pending = later;
    }

    /// Names and contents after a power cut; `clock` is the moment of the cut.
    pub(super) fn crash(&self, random: &mut Random, mode: Crash, clock: u64) -> Names {
        let mut tree = self.medium.clone();
        let kept = match mode {
            Crash::Lose => 0,
            Crash::Keep | Crash::Reorder => self.pending.len(),
            Crash::Tear => random.below(self.pending.len() as u64 + 1) as usize,
        };
        let mut dropped: BTreeSet<&Path> = BTreeSet::new();
        for operation in &self.pending[..kept] {
            let names = operation.names();
            let depends = names.iter().any(|name| name.ancestors().any(|above| dropped.contains(above)));
            if depends || (mode == Crash::Reorder && random.below(2) == 0) {
                dropped.extend(names);
            } else {
                tree.apply(operation);
            }
        }
        // What lies in a directory that is not there is not there either.
        let reachable = |tree: &Tree, path: &Path| path.ancestors().skip(1).all(|above| tree.is_directory(above));
        let whole = tree.clone();
        tree.directories.retain(|path| reachable(&whole, path));
        let whole = Tree { files: BTreeMap::new(), directories: tree.directories.clone() };
        tree.files.retain(|path, _| reachable(&whole, path));
        // Any write that is pending may be the one under way, and so may none.
        let mut moments = vec![clock + 1];
        for inode in tree.files.values() {
            moments.extend(lock(inode).pending.iter().map(|write| write.clock));
        }
        let cut = moments[random.below(moments.len() as u64) as usize];
        let mut copies: BTreeMap<usize, Shared> = BTreeMap::new();
        for inode in tree.files.values_mut() {
            // Two names of one file stay two names of one file.
            let copy = copies
                .entry(Arc::as_ptr(inode).addr())
                .or_insert_with(|| Arc::new(Mutex::new(lock(inode).crash(random, mode, cut))));
            *inode = copy.clone();
        }
        Names { seen: tree.clone(), medium: tree, pending: Vec::new() }
    }
}
