//! Scrub: reads every block on disk, a little at a time, and verifies it, so that damage is found before it is asked for.
//!
//! ```text
//!   due ──> pass: blocks by uid, from the least up to the newest of when it began ──> done, due again after the interval
//!             a step: the next blocks of the *present* levels, about a MiB
//! ```
//!
//! A pass holds no view between its steps, so it keeps no file from being deleted. Uids are drawn in ascending order in
//! this process: one number says how far a pass is, whatever flush, seal and merge did meanwhile. A block that went away
//! was read, and so verified, by what took its place.
//!
//! * It reads past the cache: what is cached says nothing about the disk, and a scrub pushes nobody's blocks out.
//! * It changes nothing. What it finds is named and kept until a later pass no longer finds it; whether opening the
//!   directory again mends it, it says too.

use crate::clock::Monotonic;
use crate::error::Result;
use crate::storage::level::{BlockEntry, Level};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Encoded bytes that one step reads: a few milliseconds of a slow disk.
const STEP_BYTES: u64 = 1 << 20;

/// Findings kept word by word; more say nothing new about a disk that is going.
const FOUND_MAX: usize = 16;

/// The wait before the first pass of a process, where the interval is longer: a node that is restarted every day is
/// scrubbed all the same, and a start has better things to do.
pub const FIRST_AFTER: Duration = Duration::from_mins(10);

/// What is known of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Passes that reached their end.
    pub passes: u64,
    /// Blocks read, in all passes.
    pub blocks: u64,
    /// Their encoded bytes.
    pub bytes: u64,
    /// True while a pass is under way.
    pub running: bool,
    /// True where a damaged block is one that the log still holds: the directory is to be opened again.
    pub rebuild: bool,
    /// What is damaged: the last pass's findings, and those of the one under way. At most 16 of them.
    pub damaged: Vec<String>,
}

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The pass goes on; soon.
    Step,
    /// Nothing is due for so long.
    Wait(Duration),
}

struct Pass {
    /// Blocks up to here were read.
    after: u64,
    /// The newest block of when the pass began.
    until: u64,
    found: Vec<String>,
}

/// Decides when blocks are read, and remembers what was found.
pub struct Scrub {
    interval: Duration,
    due: Monotonic,
    pass: Option<Pass>,
    /// Findings of the last pass.
    known: Vec<String>,
    report: ScrubReport,
}

impl Scrub {
    /// Nothing read yet; the first pass comes after the interval, or after [`FIRST_AFTER`] where that is less.
    pub fn new(interval: Duration, now: Monotonic) -> Scrub {
        let due = now + interval.min(FIRST_AFTER);
        Scrub { interval, due, pass: None, known: Vec::new(), report: ScrubReport::default() }
    }

    /// Goes on after a restart: counts go on counting, and what was found is known until a pass says otherwise. That pass
    /// is due at once, since the restart may be what mended it.
    pub fn resume(interval: Duration, now: Monotonic, before: &ScrubReport) -> Scrub {
        let mut scrub = Scrub::new(interval, now);
        if !before.damaged.is_empty() {
            scrub.due = now;
        }
        scrub.known.clone_from(&before.damaged);
        scrub.report = ScrubReport { running: false, rebuild: false, ..before.clone() };
        scrub
    }

    /// What is known so far.
    pub fn report(&self) -> &ScrubReport {
        &self.report
    }

    /// Notes what a statement has met, and has every block read next: one that is damaged is seldom alone. False where it
    /// is known.
    pub fn meet(&mut self, now: Monotonic, found: String) -> bool {
        if self.known.contains(&found) || self.known.len() >= FOUND_MAX {
            return false;
        }
        self.known.push(found);
        self.note_found();
        if self.pass.is_none() {
            self.due = now;
        }
        true
    }

    /// Does what is due: reads the next blocks of a pass, or begins one.
    pub fn step(&mut self, now: Monotonic, levels: &[Arc<Level>]) -> Next {
        if self.pass.is_none() {
            if now < self.due {
                return Next::Wait(self.due.saturating_sub(now));
            }
            let until = blocks(levels).map(|(entry, _)| entry.uid).max().unwrap_or(0);
            self.pass = Some(Pass { after: 0, until, found: Vec::new() });
            self.report.running = true;
        }
        let Some(pass) = &mut self.pass else { return Next::Step };
        // Two levels may share a block for the moment of a change; it is read once.
        let ahead = blocks(levels).filter(|(entry, _)| entry.uid > pass.after && entry.uid <= pass.until);
        let ahead: BTreeMap<u64, (&Arc<BlockEntry>, &Arc<Level>)> =
            ahead.map(|(entry, level)| (entry.uid, (entry, level))).collect();
        let mut bytes = 0;
        for (uid, (entry, level)) in ahead {
            if bytes >= STEP_BYTES {
                self.note_found();
                return Next::Step;
            }
            if let Err(error) = level.source.read(entry) {
                self.report.rebuild |= level.source.is_in_log();
                if pass.found.len() < FOUND_MAX {
                    pass.found.push(error.to_string());
                }
            }
            pass.after = uid;
            bytes += u64::from(entry.bytes);
            self.report.blocks += 1;
            self.report.bytes += u64::from(entry.bytes);
        }
        self.known = self.pass.take().map(|pass| pass.found).unwrap_or_default();
        self.report.running = false;
        self.report.passes += 1;
        self.note_found();
        self.due = now + self.interval;
        Next::Wait(self.interval)
    }

    fn note_found(&mut self) {
        let mut damaged = self.known.clone();
        let new = self.pass.iter().flat_map(|pass| &pass.found);
        damaged.extend(new.filter(|found| !self.known.contains(found)).cloned());
        damaged.truncate(FOUND_MAX);
        self.report.damaged = damaged;
    }
}

/// Reads every block of these levels, indexes and all, and decodes each to its last byte; gives how many there are. The
/// first damage is an error that names it.
pub fn read_all(levels: &[Arc<Level>]) -> Result<u64> {
    let mut count = 0;
    for (entry, level) in blocks(levels) {
        level.source.read(entry)?.check()?;
        count += 1;
    }
    Ok(count)
}

fn blocks(levels: &[Arc<Level>]) -> impl Iterator<Item = (&Arc<BlockEntry>, &Arc<Level>)> {
    levels.iter().flat_map(|level| {
        let keyspaces = level.manifest.keyspaces();
        keyspaces.flat_map(move |keyspace| level.manifest.blocks(keyspace).iter().map(move |entry| (entry, level)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};
    use crate::hlc::Timestamp;
    use crate::ids::{KeyspaceId, LogIndex, OriginUid};
    use crate::sql::catalog::Layout;
    use crate::sql::value::Value;
    use crate::storage::block::Block;
    use crate::storage::keys::{self, Key};
    use crate::storage::level::{Address, BlockSource, Manifest, Summary};
    use crate::storage::memtable::Memtable;
    use crate::storage::rows::Stamp;
    use std::sync::Mutex;

    /// Blocks of which some are damaged; every read fails by name or with an error that counts as one.
    #[derive(Default)]
    struct Disk {
        read: Mutex<Vec<u64>>,
        damaged: Mutex<Vec<u64>>,
    }

    /// A real block of one row, a tombstone, stands for every healthy one.
    fn healthy() -> Result<Block> {
        let (layout, memtable) = (Layout::system(), Memtable::new());
        let stamp = Stamp { created_ms: 1, hlc: Timestamp(1), origin: OriginUid(1), modified: LogIndex(1) };
        let key = keys::encode(&[Value::Blob(vec![7])]);
        memtable.put(KeyspaceId(1), &key, stamp, None);
        let (bytes, _) = Block::encode(&layout, &memtable.rows(KeyspaceId(1), &layout, None, 1)?);
        Block::open(bytes.into())
    }

    struct Source(Arc<Disk>);

    impl BlockSource for Source {
        fn read(&self, entry: &BlockEntry) -> Result<Block> {
            self.0.read.lock().unwrap().push(entry.uid);
            if self.0.damaged.lock().unwrap().contains(&entry.uid) {
                return Err(Error::damaged(format!("000001.blk at {}", entry.uid)));
            }
            healthy()
        }
    }

    fn level(disk: &Arc<Disk>, uids: &[u64]) -> Arc<Level> {
        let entry = |uid: u64| {
            let summary = Summary {
                rows: 1,
                tombstones: 0,
                created_min_ms: 0,
                created_max_ms: 0,
                hlc_max: 0,
                modified_max: LogIndex(0),
                zones: Vec::new(),
            };
            let key = Key::new(&uid.to_be_bytes());
            Arc::new(BlockEntry {
                uid,
                address: Address { file: 1, offset: uid },
                bytes: 600 << 10,
                first: key.clone(),
                last: key,
                summary: Arc::new(summary),
                filter: None,
            })
        };
        let manifest = Manifest::default().with(KeyspaceId(9), uids.iter().map(|&uid| entry(uid)).collect());
        Arc::new(Level { manifest, range_deletes: Arc::default(), source: Arc::new(Source(disk.clone())) })
    }

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_pass_reads_every_block_once_in_small_steps_and_comes_again_after_the_interval() {
        let disk = Arc::new(Disk::default());
        let levels = [level(&disk, &[4, 5]), level(&disk, &[1, 2, 3])];
        let mut scrub = Scrub::new(DAY, Duration::ZERO);
        assert_eq!(scrub.step(Duration::ZERO, &levels), Next::Wait(FIRST_AFTER));
        assert_eq!(scrub.step(FIRST_AFTER, &levels), Next::Step);
        assert!(scrub.report().running && disk.read.lock().unwrap().len() == 2, "a step stops after its bytes");
        assert_eq!(scrub.step(FIRST_AFTER, &levels), Next::Step);
        assert_eq!(scrub.step(FIRST_AFTER, &levels), Next::Wait(DAY));
        assert_eq!(*disk.read.lock().unwrap(), [1, 2, 3, 4, 5]);
        let report = scrub.report();
        assert_eq!((report.passes, report.blocks, report.bytes, report.running), (1, 5, 5 * (600 << 10), false));
        assert_eq!(scrub.step(FIRST_AFTER + DAY / 2, &levels), Next::Wait(DAY / 2));
        assert_eq!(scrub.step(FIRST_AFTER + DAY, &levels), Next::Step);
    }

    #[test]
    fn what_flush_and_merge_do_meanwhile_neither_repeats_nor_prolongs_a_pass() {
        let disk = Arc::new(Disk::default());
        let mut scrub = Scrub::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(scrub.step(Duration::ZERO, &[level(&disk, &[1, 2, 3, 4])]), Next::Step);
        // 3 and 4 were merged into 7, which was written, and read for it, after the pass began.
        assert_eq!(scrub.step(Duration::ZERO, &[level(&disk, &[1, 2, 7])]), Next::Wait(Duration::ZERO));
        assert_eq!(*disk.read.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn damage_is_named_until_a_pass_no_longer_finds_it() {
        let disk = Arc::new(Disk::default());
        let levels = [level(&disk, &[1, 2, 3])];
        let mut scrub = Scrub::new(DAY, Duration::ZERO);
        let mut now = FIRST_AFTER;
        disk.damaged.lock().unwrap().push(2);
        assert_eq!(scrub.step(now, &levels), Next::Step);
        assert_eq!(scrub.report().damaged, ["000001.blk at 2"], "told before the pass has ended");
        assert_eq!(scrub.step(now, &levels), Next::Wait(DAY));
        assert_eq!(scrub.report().damaged, ["000001.blk at 2"]);
        disk.damaged.lock().unwrap().clear();
        now += DAY;
        assert_eq!(scrub.step(now, &levels), Next::Step);
        assert_eq!(scrub.report().damaged, ["000001.blk at 2"], "known until a whole pass says otherwise");
        assert_eq!(scrub.step(now, &levels), Next::Wait(DAY));
        assert!(scrub.report().damaged.is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing_and_looks_again_where_something_was_found() {
        let disk = Arc::new(Disk::default());
        let levels = [level(&disk, &[1])];
        let mut scrub = Scrub::new(DAY, Duration::ZERO);
        disk.damaged.lock().unwrap().push(1);
        assert_eq!(scrub.step(FIRST_AFTER, &levels), Next::Wait(DAY));
        let mut next = Scrub::resume(DAY, FIRST_AFTER, scrub.report());
        assert_eq!((next.report().passes, next.report().damaged.len()), (1, 1));
        disk.damaged.lock().unwrap().clear();
        assert_eq!(next.step(FIRST_AFTER, &levels), Next::Wait(DAY));
        assert_eq!((next.report().passes, next.report().damaged.len()), (2, 0));
        let mut healthy = Scrub::resume(DAY, Duration::ZERO, next.report());
        assert_eq!(healthy.step(Duration::ZERO, &levels), Next::Wait(FIRST_AFTER));
    }

    #[test]
    fn reading_all_at_once_stops_at_the_first_damage() {
        let disk = Arc::new(Disk::default());
        let levels = [level(&disk, &[4, 5]), level(&disk, &[1, 2, 3])];
        assert_eq!(read_all(&levels), Ok(5));
        disk.damaged.lock().unwrap().push(2);
        assert_eq!(read_all(&levels).unwrap_err().message(), "000001.blk at 2");
        assert_eq!(*disk.read.lock().unwrap(), [4, 5, 1, 2, 3, 4, 5, 1, 2]);
    }

    #[test]
    fn what_a_statement_met_is_known_at_once_and_has_every_block_read_next() {
        let disk = Arc::new(Disk::default());
        let levels = [level(&disk, &[1])];
        let mut scrub = Scrub::new(DAY, Duration::ZERO);
        assert!(scrub.meet(Duration::ZERO, "000001.blk at 1".to_string()));
        assert!(!scrub.meet(Duration::ZERO, "000001.blk at 1".to_string()), "once is enough");
        assert_eq!(scrub.report().damaged, ["000001.blk at 1"]);
        assert_eq!(scrub.step(Duration::ZERO, &levels), Next::Wait(DAY));
        assert_eq!((scrub.report().passes, scrub.report().damaged.len()), (1, 0), "the disk is what counts");
    }

    #[test]
    fn a_disk_that_is_all_damage_fills_no_memory() {
        let disk = Arc::new(Disk::default());
        let uids: Vec<u64> = (1..=100).collect();
        disk.damaged.lock().unwrap().extend(&uids);
        let mut scrub = Scrub::new(Duration::ZERO, Duration::ZERO);
        while scrub.step(Duration::ZERO, &[level(&disk, &uids)]) == Next::Step {}
        assert_eq!((scrub.report().blocks, scrub.report().damaged.len()), (100, FOUND_MAX));
    }
}
