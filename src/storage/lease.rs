//! Leases: how long a view may be read, and how much it may keep from being deleted.
//!
//! A view keeps its levels: a statement that reads for an hour, or whose client has stopped reading, would keep memtables
//! in memory and superseded files on disk for as long. So the view of a statement carries a lease. It ends with its age,
//! and before that where what all leases keep together becomes too much: then the oldest of those that keep something
//! ends first.
//!
//! ```text
//!   view ──reads──> lease.check ──> still young, not revoked          else "snapshot too old" (72000)
//!   flush, seal, merge ──> Leases::settle(present levels) ──> revokes until what is kept fits
//! ```
//!
//! * A view without a lease never ends: those of apply, of backups, of the content hash that a group compares. That of a
//!   hash which somebody asked for is leased, but may become old.
//! * What a view keeps is counted by block and by memtable: a block that the present levels also name costs nothing.
//! * A statement of the last half second is not judged: a short one that happens to run while a memtable is flushed keeps
//!   it for milliseconds, and must not cost a long one its view. Where it turns out to be long, the next change of the
//!   levels finds it.
//! * One view may always keep the memtables that it began with, however fast rows come in: they were within the memory
//!   budget. It is that of the newest statement that writes, or where none does, the newest one.
//! * A lease that has ended frees nothing by itself: its reader's next step fails, and drops the view.

use crate::clock::{Clock, Monotonic};
use crate::error::{Error, Kind, Result, SqlState};
use crate::storage::level::BlockEntry;
use crate::storage::levels::Levels;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How old a lease must be for what it keeps to count.
const JUDGED_AFTER: Duration = Duration::from_millis(500);

/// What leases may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How old a view may become.
    pub age_max: Duration,
    /// Bytes of superseded blocks that all views together keep on disk.
    pub disk_bytes_max: u64,
    /// Bytes of flushed memtables that all views together keep in memory.
    pub memory_bytes_max: u64,
}

/// The leases of one engine.
pub struct Leases {
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    next: AtomicU64,
    /// By number, so in the order in which they were granted. As many as statements run.
    live: Mutex<BTreeMap<u64, Weak<Lease>>>,
}

/// The right to read one view.
pub struct Lease {
    leases: Arc<Leases>,
    number: u64,
    granted: Monotonic,
    age_max: Duration,
    levels: Arc<Levels>,
    revoked: AtomicBool,
    /// Of a statement that writes.
    writes: AtomicBool,
}

impl Leases {
    /// No leases yet.
    pub fn new(clock: Arc<dyn Clock>, bounds: Bounds) -> Arc<Leases> {
        Arc::new(Leases { clock, bounds, next: AtomicU64::new(0), live: Mutex::default() })
    }

    /// A lease of a view with these levels, from now on.
    pub fn grant(self: &Arc<Leases>, levels: Arc<Levels>) -> Arc<Lease> {
        self.grant_for(self.bounds.age_max, levels)
    }

    /// A lease that ends only where what it keeps is too much.
    pub fn grant_ageless(self: &Arc<Leases>, levels: Arc<Levels>) -> Arc<Lease> {
        self.grant_for(Duration::MAX, levels)
    }

    fn grant_for(self: &Arc<Leases>, age_max: Duration, levels: Arc<Levels>) -> Arc<Lease> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (granted, revoked) = (self.clock.monotonic(), AtomicBool::new(false));
        let writes = AtomicBool::new(false);
        let lease = Arc::new(Lease { leases: self.clone(), number, granted, age_max, levels, revoked, writes });
        self.lock().insert(number, Arc::downgrade(&lease));
        lease
    }

    /// Leases that have not been given back.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True where all have been given back.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memtables that live leases keep beside the present levels, each once.
    pub fn memory_bytes(&self, present: &Levels) -> u64 {
        // Dropped after the lock, as in `settle`.
        let leases: Vec<Arc<Lease>> = self.lock().values().filter_map(Weak::upgrade).collect();
        let mut seen: BTreeSet<*const ()> = present.memtables.iter().map(|table| Arc::as_ptr(table).cast()).collect();
        let kept = leases.iter().flat_map(|lease| &lease.levels.memtables);
        kept.filter(|table| seen.insert(Arc::as_ptr(table).cast())).map(|table| table.bytes() as u64).sum()
    }

    /// Bytes of superseded blocks that live leases keep on disk beside the present levels, each once.
    pub fn disk_bytes(&self, present: &Levels) -> u64 {
        // Dropped after the lock, as in `settle`.
        let leases: Vec<Arc<Lease>> = self.lock().values().filter_map(Weak::upgrade).collect();
        let kept: Vec<&Arc<Lease>> = leases.iter().filter(|lease| lease.has_other_blocks(present)).collect();
        if kept.is_empty() {
            return 0;
        }
        let mut seen: BTreeSet<u64> = blocks(present).map(|entry| entry.uid).collect();
        let mut bytes = 0;
        let mut before: Option<&Arc<Levels>> = None;
        for lease in kept {
            // Thousands of statements may have begun between two changes of the levels.
            if before.is_some_and(|levels| Arc::ptr_eq(levels, &lease.levels)) {
                continue;
            }
            before = Some(&lease.levels);
            let fresh = blocks(&lease.levels).filter(|entry| seen.insert(entry.uid));
            bytes += fresh.map(|entry| u64::from(entry.bytes)).sum::<u64>();
        }
        bytes
    }

    /// Revokes leases until what the others that are judged keep beside the present levels fits; how many were revoked.
    pub fn settle(&self, present: &Levels) -> usize {
        // Dropped after the lock: the last holder of a lease takes it out of the list.
        let leases: Vec<Arc<Lease>> = self.lock().values().filter_map(Weak::upgrade).collect();
        let now = self.clock.monotonic();
        let judged =
            |lease: &&Arc<Lease>| now.saturating_sub(lease.granted) >= JUDGED_AFTER && lease.keeps_beside(present);
        let kept: Vec<&Arc<Lease>> = leases.iter().filter(judged).collect();
        if kept.is_empty() {
            return 0;
        }
        let mut seen: BTreeSet<u64> = blocks(present).map(|entry| entry.uid).collect();
        let mut memtables: Vec<*const ()> = present.memtables.iter().map(|table| Arc::as_ptr(table).cast()).collect();
        let (mut disk, mut memory, mut revoked) = (0, 0, 0);
        let mut before: Option<(&Arc<Levels>, bool)> = None;
        // Writers first, then from the newest on, so that the oldest readers are the ones for which nothing is left.
        let (writers, readers): (Vec<_>, Vec<_>) =
            kept.into_iter().rev().partition(|lease| lease.writes.load(Ordering::Acquire));
        for lease in writers.into_iter().chain(readers) {
            // Thousands of statements may have begun between two changes of the levels: they are judged alike.
            if let Some((levels, fits)) = before
                && Arc::ptr_eq(levels, &lease.levels)
            {
                lease.revoked.store(!fits, Ordering::Release);
                revoked += usize::from(!fits);
                continue;
            }
            let fresh: Vec<&Arc<BlockEntry>> =
                blocks(&lease.levels).filter(|entry| !seen.contains(&entry.uid)).collect();
            let held = lease.levels.memtables.iter().filter(|table| !memtables.contains(&Arc::as_ptr(table).cast()));
            let held: Vec<_> = held.collect();
            let disk_bytes: u64 = fresh.iter().map(|entry| u64::from(entry.bytes)).sum();
            let memory_bytes: u64 = held.iter().map(|table| table.bytes() as u64).sum();
            let fits = disk + disk_bytes <= self.bounds.disk_bytes_max
                && (memory == 0 || memory + memory_bytes <= self.bounds.memory_bytes_max);
            before = Some((&lease.levels, fits));
            if fits {
                seen.extend(fresh.iter().map(|entry| entry.uid));
                memtables.extend(held.iter().map(|table| Arc::as_ptr(table).cast::<()>()));
                (disk, memory) = (disk + disk_bytes, memory + memory_bytes);
            } else {
                lease.revoked.store(true, Ordering::Release);
                revoked += 1;
            }
        }
        revoked
    }

    /// The map is whole between any two statements that change it, so a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Lease>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn blocks(levels: &Levels) -> impl Iterator<Item = &Arc<BlockEntry>> {
    levels
        .blocks
        .iter()
        .flat_map(|level| level.manifest.keyspaces().flat_map(|keyspace| level.manifest.blocks(keyspace)))
}

impl Lease {
    /// Marks it as one of a statement that writes. What such a one has done so far would be lost with its view, and a
    /// large one fills the very memtables that readers then keep: they are the ones to give way.
    pub fn mark_writer(&self) {
        self.writes.store(true, Ordering::Release);
    }

    /// An error once the view may not be read any more.
    pub fn check(&self) -> Result<()> {
        let age = self.leases.clock.monotonic().saturating_sub(self.granted);
        let bounds = &self.leases.bounds;
        if age > self.age_max {
            let message = format!("snapshot too old: the read began {} s ago", age.as_secs());
            let hint = "read less at once, or raise storage.view_age_max";
            return Err(Error::new(Kind::Limit, SqlState::SNAPSHOT_TOO_OLD, message).hint(hint));
        }
        if self.revoked.load(Ordering::Acquire) {
            let message = format!(
                "snapshot too old: reads keep more than {} bytes on disk or {} bytes in memory from being freed",
                bounds.disk_bytes_max, bounds.memory_bytes_max
            );
            let hint = "read less at once, or raise storage.pinned_bytes_max";
            return Err(Error::new(Kind::Limit, SqlState::SNAPSHOT_TOO_OLD, message).hint(hint));
        }
        Ok(())
    }

    /// True where it holds a level of blocks that the present ones have not.
    fn has_other_blocks(&self, present: &Levels) -> bool {
        !self.levels.blocks.iter().all(|level| present.blocks.iter().any(|now| Arc::ptr_eq(level, now)))
    }

    /// True where it holds anything that the present levels do not.
    fn keeps_beside(&self, present: &Levels) -> bool {
        let same_blocks = !self.has_other_blocks(present);
        let known = |table| present.memtables.iter().any(|now| Arc::ptr_eq(table, now));
        let same = same_blocks && self.levels.memtables.iter().all(known);
        !same && !self.revoked.load(Ordering::Acquire)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Wall};
    use crate::hlc::Timestamp;
    use crate::ids::{KeyspaceId, LogIndex, OriginUid};
    use crate::storage::memtable::Memtable;
    use crate::storage::rows::Stamp;

    /// Levels of one memtable, which holds some 100 KB.
    fn levels() -> Arc<Levels> {
        let memtable = Memtable::new();
        let stamp = Stamp { created_ms: 1, hlc: Timestamp(1), origin: OriginUid(1), modified: LogIndex(1) };
        memtable.put(KeyspaceId(16), b"key", stamp, Some(&vec![7; 100_000]));
        Arc::new(Levels { memtables: vec![Arc::new(memtable)], blocks: vec![] })
    }

    fn leases(memory_bytes_max: u64) -> (Arc<ManualClock>, Arc<Leases>) {
        let bounds = Bounds { age_max: Duration::from_secs(10), disk_bytes_max: 0, memory_bytes_max };
        let clock = Arc::new(ManualClock::new(Wall(0)));
        (clock.clone(), Leases::new(clock, bounds))
    }

    #[test]
    fn the_oldest_of_those_that_keep_something_ends_first() {
        let (clock, leases) = leases(250_000);
        let kept: Vec<Arc<Levels>> = (0..3).map(|_| levels()).collect();
        let present = levels();
        let granted: Vec<Arc<Lease>> = kept.iter().map(|levels| leases.grant(levels.clone())).collect();
        let harmless = leases.grant(present.clone());
        assert_eq!(leases.settle(&present), 0, "all may be short");
        clock.advance(JUDGED_AFTER);
        assert_eq!(leases.settle(&present), 1);
        assert_eq!(granted[0].check().unwrap_err().sqlstate(), SqlState::SNAPSHOT_TOO_OLD);
        assert!(granted[1].check().is_ok() && granted[2].check().is_ok() && harmless.check().is_ok());
        assert_eq!(leases.settle(&present), 0, "one that is revoked counts no more");
        let bytes: u64 = kept.iter().map(|levels| levels.memtable_bytes() as u64).sum();
        assert_eq!(leases.memory_bytes(&present), bytes, "it still holds what it holds until its reader lets go");
        drop((granted, harmless));
        assert!(leases.is_empty(), "what is given back is forgotten");
    }

    #[test]
    fn a_writer_outlasts_newer_readers() {
        let (clock, leases) = leases(150_000);
        let (old, new, present) = (levels(), levels(), levels());
        let (writer, reader) = (leases.grant(old), leases.grant(new));
        clock.advance(JUDGED_AFTER);
        writer.mark_writer();
        assert_eq!(leases.settle(&present), 1);
        assert!(writer.check().is_ok());
        assert_eq!(reader.check().unwrap_err().sqlstate(), SqlState::SNAPSHOT_TOO_OLD);
    }

    #[test]
    fn one_without_an_age_ends_for_what_it_keeps_alone() {
        let (clock, leases) = leases(150_000);
        let (patient, hurried) = (leases.grant_ageless(levels()), leases.grant(levels()));
        clock.advance(Duration::from_hours(1));
        assert!(patient.check().is_ok());
        assert_eq!(hurried.check().unwrap_err().sqlstate(), SqlState::SNAPSHOT_TOO_OLD);
        assert_eq!(leases.settle(&levels()), 1);
        assert_eq!(patient.check().unwrap_err().sqlstate(), SqlState::SNAPSHOT_TOO_OLD);
    }

    #[test]
    fn what_several_keep_together_counts_once() {
        let (clock, leases) = leases(150_000);
        let (shared, present) = (levels(), levels());
        let granted: Vec<Arc<Lease>> = (0..100).map(|_| leases.grant(shared.clone())).collect();
        clock.advance(JUDGED_AFTER);
        assert_eq!(leases.settle(&present), 0);
        assert!(granted.iter().all(|lease| lease.check().is_ok()));
    }
}
