//! The write-ahead log under power cuts, damage and full disks.
//!
//! The model is the list of states that a crash may leave: the one at the last sync, and each that later operations
//! passed through. What recovery reports must be one of them, whole.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, its small functions included")]

mod damage;
mod power_cuts;

use chronos::error::Kind;
use chronos::hlc::Timestamp;
use chronos::ids::{LogIndex, Term};
use chronos::storage::faults::{Crash, Disk, Fault, Operation};
use chronos::storage::files::{Files, Open};
use chronos::storage::wal::{Entry, HardState, Needs, Position, Recovered, Seat, Survey, Wal, WalOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const DIR: &str = "/db/raft";

/// Small segments, so that a short history has many; and few spares, so that files are used again soon.
const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, spares_max: 2, salt: 0x5EED };

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}

fn entry(index: u64, term: u64, payload: &[u8]) -> Entry {
    let hlc = Timestamp(1_700_000_000_000 << 16 | index);
    Entry { index: LogIndex(index), term: Term(term), hlc, payload: Arc::from(payload) }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term, format!("command {index} of term {term}").as_bytes())).collect()
}

fn create(disk: &Disk) -> Wal {
    disk.create_dir(Path::new("/db")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    Wal::create(Arc::new(disk.clone()), Path::new(DIR), OPTIONS).unwrap().wal
}

fn open(disk: &Disk) -> chronos::Result<Recovered> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), OPTIONS)
}

fn content(wal: &Wal) -> chronos::Result<Vec<Entry>> {
    let mut all = Vec::new();
    wal.replay(wal.previous().index.next(), wal.last().index, |entry| {
        all.push(entry);
        Ok(())
    })?;
    Ok(all)
}

fn segments(disk: &Disk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|it| it == "wal")).collect()
}

#[test]
fn what_a_failed_fsync_dropped_is_written_again_before_it_is_reported() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    wal.append(&entries(1..=3, 1), None).unwrap();
    wal.sync().unwrap();
    wal.append(&entries(4..=6, 1), None).unwrap();
    disk.fail_at(disk.operations(), Fault::Io);
    assert_eq!(wal.sync().unwrap_err().kind(), Kind::Io);
    assert!(wal.append(&entries(7..=7, 1), None).is_err(), "nothing is accepted after a failed fsync");
    assert!(wal.sync().is_err());
    drop(wal);
    disk.revive();
    let recovered = open(&disk).unwrap();
    assert_eq!(recovered.last.index, LogIndex(6), "the page cache still shows them");
    let recovered = open(&disk.crash(1, Crash::Lose)).unwrap();
    assert_eq!(content(&recovered.wal).unwrap(), entries(1..=6, 1));
}

#[test]
fn recycled_segments_do_not_bring_old_batches_back() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    let mut last = 0;
    // Batches of one size throughout: what the recycled file holds stands exactly where the next batch is looked for.
    for round in 0..60 {
        let new = [entry(last + 1, 1, &[round; 300])];
        wal.append(&new, None).unwrap();
        wal.sync().unwrap();
        last += 1;
        wal.trim(LogIndex(last.saturating_sub(3))).unwrap();
        let recovered = open(&disk.crash(round as u64, Crash::Keep)).unwrap();
        assert_eq!(recovered.last.index.0, last);
        assert_eq!(recovered.wal.read(LogIndex(last), 1).unwrap(), new);
    }
    assert!(wal.statistics().recycled > 2, "{:?}", wal.statistics());
}

/// A log of several segments, each batch synced, as bytes on a disk.
#[test]
fn appending_an_index_again_truncates() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    wal.append(&entries(1..=50, 1), None).unwrap();
    wal.append(&entries(20..=25, 2), None).unwrap();
    wal.append(&entries(10..=11, 3), None).unwrap();
    wal.sync().unwrap();
    let expected: Vec<Entry> = entries(1..=9, 1).into_iter().chain(entries(10..=11, 3)).collect();
    assert_eq!(content(&wal).unwrap(), expected);
    assert_eq!(wal.last(), Position { index: LogIndex(11), term: Term(3) });
    assert_eq!((wal.term(LogIndex(9)), wal.term(LogIndex(12))), (Some(Term(1)), None));
    let recovered = open(&disk.crash(0, Crash::Lose)).unwrap();
    assert_eq!(content(&recovered.wal).unwrap(), expected);
}

/// What a leader that was taken for dead would do: its successor's entries are acknowledged by then.
#[test]
fn entries_of_the_present_term_are_not_truncated_and_stay_on_the_disk() {
    let state = |term| HardState { term: Term(term), ..HardState::default() };
    let late: [(Vec<Entry>, Option<HardState>); 3] =
        [(entries(10..=12, 1), None), (entries(11..=12, 2), None), (entries(10..=12, 1), Some(state(1)))];
    for (entries_late, state_late) in late {
        let disk = Disk::new();
        let mut wal = create(&disk);
        wal.append(&entries(1..=9, 1), Some(&state(1))).unwrap();
        wal.append(&entries(10..=12, 2), Some(&state(2))).unwrap();
        wal.sync().unwrap();
        let append = std::panic::AssertUnwindSafe(|| wal.append(&entries_late, state_late.as_ref()));
        std::panic::catch_unwind(append).expect_err("an assertion");
        let recovered = open(&disk.crash(0, Crash::Keep)).unwrap();
        let expected: Vec<Entry> = entries(1..=9, 1).into_iter().chain(entries(10..=12, 2)).collect();
        assert_eq!(content(&recovered.wal).unwrap(), expected);
    }
}

#[test]
fn truncating_again_and_again_does_not_fill_the_disk() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    for term in 1..=200 {
        wal.append(&entries(1..=2, term), None).unwrap();
        wal.sync().unwrap();
        wal.pool().prepare_spare(&mut || Ok(())).unwrap();
    }
    let bytes = |path: &PathBuf| disk.open(path, Open::Read).unwrap().len().unwrap();
    let total: u64 = disk.paths().iter().map(bytes).sum();
    assert!(total < 200 * 512 + 4 * 4096, "{total}");
}

#[test]
fn reads_are_bounded_and_begin_anywhere() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    let all = entries(1..=500, 1);
    for batch in all.chunks(7) {
        wal.append(batch, None).unwrap();
    }
    for from in 1..=501u64 {
        let read = wal.read(LogIndex(from), 1000).unwrap();
        assert_eq!(read, all[from as usize - 1..][..read.len()]);
        assert!(from == 501 || (!read.is_empty() && read.len() < 20));
        let one = wal.read(LogIndex(from), 0).unwrap();
        assert!(one.len() <= 1);
    }
    assert!(wal.read(LogIndex(0), 1).is_err());
    wal.trim(LogIndex(200)).unwrap();
    assert!(wal.previous().index < LogIndex(200));
    assert!(wal.read(wal.previous().index, 1).is_err());
    assert!(wal.bytes_since(LogIndex(400)) < wal.bytes_since(LogIndex(300)));
}

#[test]
fn a_snapshot_takes_the_place_of_the_log() {
    for stop in 0.. {
        let disk = Disk::new();
        let mut wal = create(&disk);
        let state = HardState { term: Term(9), vote: Some(1), ..HardState::default() };
        wal.append(&entries(1..=100, 1), Some(&state)).unwrap();
        wal.sync().unwrap();
        disk.stop_at(disk.operations() + stop);
        let mark = Position { index: LogIndex(70), term: Term(4) };
        let done = wal.reset(mark, None).is_ok();
        for (seed, mode) in Crash::ALL.into_iter().enumerate() {
            let disk = disk.crash(seed as u64 + stop, mode);
            let mut recovered = open(&disk).unwrap();
            assert_eq!(recovered.hard_state, Some(state.clone()));
            if recovered.previous == mark {
                assert_eq!(recovered.last, mark);
                recovered.wal.append(&entries(71..=72, 4), None).unwrap();
                assert_eq!(content(&recovered.wal).unwrap(), entries(71..=72, 4));
            } else {
                assert!(!done, "{mode:?}");
                assert_eq!(content(&recovered.wal).unwrap(), entries(1..=100, 1));
            }
        }
        if done {
            return;
        }
    }
}

#[test]
fn a_clean_stop_leaves_one_small_segment_and_no_spares() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    wal.append(&entries(1..=300, 2), Some(&HardState { term: Term(2), ..HardState::default() })).unwrap();
    wal.pool().prepare_spare(&mut || Ok(())).unwrap();
    wal.close(LogIndex(301)).unwrap();
    assert_eq!(disk.paths().len(), 1);
    for round in 0..20 {
        let recovered = open(&disk.crash(round, Crash::Lose)).unwrap();
        assert_eq!(recovered.last, Position { index: LogIndex(300), term: Term(2) });
        assert_eq!(recovered.hard_state.as_ref().unwrap().term, Term(2));
        recovered.wal.close(LogIndex(301)).unwrap();
    }
    assert_eq!(disk.paths().len(), 1, "twenty restarts change nothing");
}

#[test]
fn a_process_that_dies_a_hundred_times_leaves_small_files() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    for term in 1..=100 {
        let state = HardState { term: Term(term), ..HardState::default() };
        wal.append(&entries(term..=term, term), Some(&state)).unwrap();
        wal.sync().unwrap();
        drop(wal);
        disk.revive();
        wal = open(&disk).unwrap().wal;
    }
    assert_eq!(wal.last().index, LogIndex(100));
    let bytes = |path: &PathBuf| disk.open(path, Open::Read).unwrap().len().unwrap();
    assert!(disk.paths().iter().map(bytes).sum::<u64>() < 100 * 512 + 8192);
    wal.append(&entries(101..=101, 101), None).unwrap();
    wal.trim(LogIndex(101)).unwrap();
    assert_eq!(wal.statistics().segments, 1);
}

#[test]
fn a_full_disk_refuses_an_append_and_takes_it_once_there_is_room() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    wal.append(&entries(1..=10, 1), None).unwrap();
    wal.sync().unwrap();
    disk.set_capacity(Some(4096));
    let mut last = 10;
    let error = loop {
        match wal.append(&entries(last + 1..=last + 1, 1), None) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
        assert!(last < 1000, "the disk is never full");
    };
    assert!(Wal::is_full(&error), "{error}");
    wal.sync().unwrap();
    assert_eq!(wal.last().index.0, last);
    disk.set_capacity(None);
    wal.append(&entries(last + 1..=last + 5, 1), None).unwrap();
    wal.sync().unwrap();
    let recovered = open(&disk.crash(3, Crash::Lose)).unwrap();
    assert_eq!(content(&recovered.wal).unwrap(), entries(1..=last + 5, 1));
}

#[test]
fn one_append_is_one_write_and_one_sync_into_a_file_that_does_not_grow() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    let (writes, syncs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counters = (writes.clone(), syncs.clone());
    let path = wal.segment_files()[0].path.clone();
    let length = disk.open(&path, Open::Read).unwrap().len().unwrap();
    disk.set_hook(Some(Arc::new(move |operation, _: &Path| {
        let counter = if operation == Operation::Sync { &counters.1 } else { &counters.0 };
        counter.fetch_add(1, Ordering::Relaxed);
    })));
    for round in 1..=5 {
        wal.append(
            &entries(round * 10..=round * 10 + 8, 1)
                .iter()
                .enumerate()
                .map(|(i, it)| Entry { index: LogIndex((round - 1) * 9 + i as u64 + 1), ..it.clone() })
                .collect::<Vec<Entry>>(),
            None,
        )
        .unwrap();
        wal.sync().unwrap();
        wal.sync().unwrap();
        assert_eq!((writes.load(Ordering::Relaxed), syncs.load(Ordering::Relaxed)), (round, round));
    }
    assert_eq!(disk.open(&path, Open::Read).unwrap().len().unwrap(), length);
    assert_eq!(wal.statistics().fdatasyncs, 5);
}

#[test]
fn a_spare_is_given_up_as_soon_as_there_is_something_else_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("raft");
    let files: Arc<dyn Files> = Arc::new(chronos::storage::files::SystemFiles);
    let options = WalOptions { segment_bytes: 16 << 20, ..OPTIONS };
    let wal = Wal::create(files, &path, options).unwrap().wal;
    let mut looks = 0;
    let given_up = wal.pool().prepare_spare(&mut || {
        looks += 1;
        if looks == 3 { Err(chronos::Error::unavailable("storage is stopping")) } else { Ok(()) }
    });
    assert_eq!(given_up.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(wal.pool().zeroed_bytes(), 0);
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "the segment alone is left");
}

#[test]
fn the_log_works_on_the_machines_own_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("raft");
    let files: Arc<dyn Files> = Arc::new(chronos::storage::files::SystemFiles);
    let options = WalOptions { segment_bytes: 1 << 20, ..OPTIONS };
    let mut wal = Wal::create(files.clone(), &path, options).unwrap().wal;
    assert!(wal.pool().prepare_spare(&mut || Ok(())).unwrap());
    let all: Vec<Entry> = (1..=40).map(|index| entry(index, 1, &vec![index as u8; 100_000])).collect();
    for batch in all.chunks(3) {
        wal.append(batch, None).unwrap();
        wal.sync().unwrap();
    }
    wal.append(&[entry(41, 1, &vec![1; 3 << 20])], None).unwrap();
    assert_eq!(content(&wal).unwrap()[..40], all);
    wal.trim(LogIndex(30)).unwrap();
    assert!(wal.statistics().spares > 0);
    wal.close(LogIndex(42)).unwrap();
    let recovered = Wal::open(files, &path, options).unwrap();
    assert_eq!(recovered.last.index, LogIndex(41));
    assert!(std::fs::read_dir(&path).unwrap().count() <= 1);
}

#[test]
fn a_copy_of_the_durable_bytes_is_the_log() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    wal.append(&entries(1..=150, 1), None).unwrap();
    wal.sync().unwrap();
    wal.append(&entries(151..=152, 1), None).unwrap();
    let copy = Disk::new();
    copy.create_dir(Path::new(DIR)).unwrap();
    for file in wal.segment_files() {
        let mut bytes = vec![0; file.durable_bytes as usize];
        disk.open(&file.path, Open::Read).unwrap().read_at(&mut bytes, 0).unwrap();
        copy.open(&file.path, Open::Create).unwrap().write_at(&bytes, 0).unwrap();
    }
    // Restored under another identity, it goes on with another salt.
    let options = WalOptions { salt: 1, ..OPTIONS };
    let mut restored = Wal::open(Arc::new(copy.clone()), Path::new(DIR), options).unwrap().wal;
    assert_eq!(content(&restored).unwrap(), entries(1..=150, 1));
    restored.append(&entries(151..=160, 2), None).unwrap();
    restored.sync().unwrap();
    assert!(restored.holds(Position { index: LogIndex(160), term: Term(2) }));
    let recovered = Wal::open(Arc::new(copy.crash(0, Crash::Keep)), Path::new(DIR), options).unwrap();
    assert_eq!(recovered.last.index, LogIndex(160));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let disk = Disk::new();
    let wal = create(&disk);
    let path = wal.segment_files()[0].path.clone();
    let file = disk.open(&path, Open::Write).unwrap();
    let mut header = [0; 40];
    file.read_at(&mut header, 0).unwrap();
    header[4] = 2;
    let seed = crc32c::crc32c_append(crc32c::crc32c(&1u64.to_le_bytes()), &0u64.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &header[..36]);
    header[36..].copy_from_slice(&crc.to_le_bytes());
    file.write_at(&header, 0).unwrap();
    let error = open(&disk).err().unwrap();
    let expected = format!("{} has log format 2, which this version does not know", path.display());
    assert_eq!((error.kind(), error.message()), (Kind::Invalid, &*expected));
}

#[test]
fn a_spare_may_be_filled_while_the_log_is_written() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    let pool = wal.pool();
    std::thread::scope(|scope| {
        let filler = scope.spawn(move || (0..200).filter(|_| pool.prepare_spare(&mut || Ok(())).unwrap()).count());
        for index in 1..=200 {
            wal.append(&[entry(index, 1, &[1; 500])], None).unwrap();
            wal.sync().unwrap();
            wal.trim(LogIndex(index.saturating_sub(5))).unwrap();
        }
        filler.join().unwrap();
    });
    assert!(wal.statistics().spares <= OPTIONS.spares_max + 1);
    let recovered = open(&disk.crash(0, Crash::Lose)).unwrap();
    assert_eq!(recovered.last.index, LogIndex(200));
    wal.close(LogIndex(201)).unwrap();
    assert_eq!(disk.paths().len(), 1);
}
