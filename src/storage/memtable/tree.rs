//! The order of one keyspace's rows in a memtable: leaves of handles, sorted by the keys that they name.
//!
//! ```text
//! firsts   m m m ...                                     marks of the leaves' first keys
//! leaves  [ m m m m ] [ m m m ] [ m m m m m ] ...        m: mark, eight bytes of a key beyond what the leaf's share
//!         [ h h h h ] [ h h h ] [ h h h h h ]            h: handle of the newest version of the key
//!             │
//!             v
//! arena   ... [ stamp | previous | key | image ] ...     previous: the version before, or none
//! ```
//!
//! Two levels are enough: a memtable holds some 10,000 to some 1,000,000 rows, so at most some thousand leaves. A search
//! compares marks, which lie side by side, and looks into the arena only for the few keys whose marks are equal. A row
//! costs 12 to 24 bytes here. Rows that come in key order fill each leaf to the brim.
//!
//! * No leaf is empty, keys ascend through all leaves, each key is named once.
//! * All keys of a leaf begin with the same `prefix` bytes, and so does any key between its first and its last; likewise
//!   for the tree. Of two such keys, the one with the lower mark is the lower.

use super::arena::{Arena, Handle};
use super::record;
use std::cmp::Ordering;

/// Handles in a leaf: moving half of them and their marks (1.5 KiB) costs no more than the search for the place.
const LEAF_MAX: usize = 256;

/// The handles of one keyspace.
#[derive(Debug, Default)]
pub(super) struct Tree {
    leaves: Vec<Leaf>,
    /// The mark of each leaf's first key beyond `prefix`.
    firsts: Vec<u64>,
    /// Bytes with which all keys begin.
    prefix: usize,
    /// Capacity of all leaves, in handles.
    capacity: usize,
    /// Keys in all leaves.
    len: usize,
}

#[derive(Debug, Default)]
struct Leaf {
    /// Bytes with which all keys of the leaf begin.
    prefix: usize,
    marks: Vec<u64>,
    handles: Vec<Handle>,
}

/// Where a key is or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    leaf: usize,
    slot: usize,
}

impl Tree {
    /// The place of the first key that is not below `key`, and whether it is `key` itself.
    pub(super) fn find(&self, arena: &Arena, key: &[u8]) -> (Place, bool) {
        let Some((first, last)) = self.leaves.first().zip(self.leaves.last()) else { return (Tree::first(), false) };
        // Rows often come in key order: the end is asked first.
        let end = last.handles.len();
        match record::key(arena, last.handles[end - 1]).cmp(key) {
            Ordering::Less => return (Place { leaf: self.leaves.len() - 1, slot: end }, false),
            Ordering::Equal => return (Place { leaf: self.leaves.len() - 1, slot: end - 1 }, true),
            Ordering::Greater => {}
        }
        match record::key(arena, first.handles[0]).cmp(key) {
            Ordering::Less => {}
            Ordering::Equal => return (Tree::first(), true),
            Ordering::Greater => return (Tree::first(), false),
        }
        let (from, to) = equal_marks(&self.firsts, mark(key, self.prefix));
        let same = self.leaves[from..to].partition_point(|leaf| record::key(arena, leaf.handles[0]) <= key);
        // The first leaf begins below the key, so there is one before.
        let leaf = from + same - 1;
        match self.leaves[leaf].find(arena, key) {
            Ok(slot) => (Place { leaf, slot }, true),
            Err(slot) => (Place { leaf, slot }, false),
        }
    }

    /// The place of the first key.
    pub(super) fn first() -> Place {
        Place { leaf: 0, slot: 0 }
    }

    /// How many keys.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The handle at a place; none beyond the last key. Moves on from the end of a leaf to the next one.
    pub(super) fn get(&self, place: &mut Place) -> Option<Handle> {
        let leaf = self.leaves.get(place.leaf)?;
        if let Some(&handle) = leaf.handles.get(place.slot) {
            return Some(handle);
        }
        *place = Place { leaf: place.leaf + 1, slot: 0 };
        self.leaves.get(place.leaf).map(|leaf| leaf.handles[0])
    }

    /// Names a newer version of the key at a place.
    pub(super) fn replace(&mut self, place: Place, handle: Handle) {
        self.leaves[place.leaf].handles[place.slot] = handle;
    }

    /// Names a new key at the place where `find` did not find it.
    pub(super) fn insert(&mut self, arena: &Arena, mut place: Place, key: &[u8], handle: Handle) {
        let is_edge = match self.leaves.last() {
            None => {
                self.leaves.push(Leaf::default());
                self.firsts.push(0);
                self.prefix = key.len();
                false
            }
            Some(last) => {
                place == Tree::first() || (place.leaf + 1 == self.leaves.len() && place.slot == last.handles.len())
            }
        };
        self.len += 1;
        if is_edge {
            self.shorten_prefix(arena, key);
        }
        if self.leaves[place.leaf].handles.len() == LEAF_MAX {
            place = self.split(arena, place);
        }
        let leaf = &mut self.leaves[place.leaf];
        let capacity = leaf.handles.capacity();
        leaf.insert(arena, place.slot, key, handle);
        self.capacity += leaf.handles.capacity() - capacity;
        if place.slot == 0 {
            self.firsts[place.leaf] = mark(key, self.prefix);
        }
    }

    /// A key comes before the first or after the last: it may share less.
    fn shorten_prefix(&mut self, arena: &Arena, key: &[u8]) {
        let shared = shared(record::key(arena, self.leaves[0].handles[0]), key);
        if shared < self.prefix {
            self.prefix = shared;
            for (first, leaf) in self.firsts.iter_mut().zip(&self.leaves) {
                *first = mark(record::key(arena, leaf.handles[0]), shared);
            }
        }
    }

    /// Makes room in a full leaf. At its end a new leaf begins, so that appended rows leave full ones behind.
    fn split(&mut self, arena: &Arena, place: Place) -> Place {
        let middle = LEAF_MAX / 2;
        let next = place.leaf + 1;
        if place.slot == LEAF_MAX {
            self.leaves.insert(next, Leaf::default());
            self.firsts.insert(next, 0);
            return Place { leaf: next, slot: 0 };
        }
        let lower = &mut self.leaves[place.leaf];
        let mut upper = Leaf { prefix: lower.prefix, ..Leaf::default() };
        upper.marks.reserve_exact(LEAF_MAX);
        upper.marks.extend(lower.marks.drain(middle..));
        upper.handles.reserve_exact(LEAF_MAX);
        upper.handles.extend(lower.handles.drain(middle..));
        lower.lengthen_prefix(arena);
        upper.lengthen_prefix(arena);
        self.capacity += upper.handles.capacity();
        self.firsts.insert(next, mark(record::key(arena, upper.handles[0]), self.prefix));
        self.leaves.insert(next, upper);
        if place.slot <= middle { place } else { Place { leaf: next, slot: place.slot - middle } }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.capacity * (size_of::<Handle>() + size_of::<u64>())
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.firsts.capacity() * size_of::<u64>()
    }
}

impl Leaf {
    /// The slot of a key that is not below the leaf's first; where it is not there, the slot that it would have.
    fn find(&self, arena: &Arena, key: &[u8]) -> Result<usize, usize> {
        let last = self.handles.len() - 1;
        match record::key(arena, self.handles[last]).cmp(key) {
            Ordering::Less => return Err(last + 1),
            Ordering::Equal => return Ok(last),
            Ordering::Greater => {}
        }
        let (from, to) = equal_marks(&self.marks, mark(key, self.prefix));
        match self.handles[from..to].binary_search_by(|&handle| record::key(arena, handle).cmp(key)) {
            Ok(slot) => Ok(from + slot),
            Err(slot) => Err(from + slot),
        }
    }

    fn insert(&mut self, arena: &Arena, slot: usize, key: &[u8], handle: Handle) {
        if self.handles.is_empty() {
            self.prefix = key.len();
        } else if slot == 0 || slot == self.handles.len() {
            let shared = shared(record::key(arena, self.handles[0]), key);
            if shared < self.prefix {
                self.set_prefix(arena, shared);
            }
        }
        // Both grow alike, so that one capacity speaks for both.
        self.marks.insert(slot, mark(key, self.prefix));
        self.handles.reserve_exact(self.marks.capacity() - self.handles.len());
        self.handles.insert(slot, handle);
    }

    /// Half of the keys are gone: the others may share more.
    fn lengthen_prefix(&mut self, arena: &Arena) {
        let [first, .., last] = self.handles.as_slice() else { return };
        let shared = shared(record::key(arena, *first), record::key(arena, *last));
        if shared > self.prefix {
            self.set_prefix(arena, shared);
        }
    }

    fn set_prefix(&mut self, arena: &Arena, prefix: usize) {
        self.prefix = prefix;
        for (mark_of_key, &handle) in self.marks.iter_mut().zip(&self.handles) {
            *mark_of_key = mark(record::key(arena, handle), prefix);
        }
    }
}

impl Place {
    /// The next place.
    pub(super) fn next(self) -> Place {
        Place { slot: self.slot + 1, ..self }
    }
}

/// Up to eight bytes of a key beyond a prefix, as a number that compares as they do. A key that ends among them has
/// zeros there, so it may have the mark of a longer key, but never a greater one.
fn mark(key: &[u8], prefix: usize) -> u64 {
    let rest = key.get(prefix..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    rest.iter().enumerate().fold(0, |mark, (i, &byte)| mark | u64::from(byte) << (56 - 8 * i))
}

/// How many bytes two keys have in common in front.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// From where to where the marks are equal to this one; where none is, the place that it would have.
fn equal_marks(marks: &[u64], mark: u64) -> (usize, usize) {
    let from = marks.partition_point(|&other| other < mark);
    let equal = match marks.get(from) {
        Some(&other) if other == mark => marks[from..].partition_point(|&other| other == mark),
        Some(_) | None => 0,
    };
    (from, from + equal)
}
