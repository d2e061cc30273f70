//! The write-ahead log under power cuts, damage and full disks.
//!
//! The model is the list of states that a crash may leave: the one at the last sync, and each that later operations
//! passed through. What recovery reports must be one of them, whole.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, its small functions included")]

mod damage;

use chronos::error::Kind;
use chronos::hlc::Timestamp;
use chronos::ids::{LogIndex, Term};
use chronos::storage::faults::{Crash, Disk, Fault, Operation};
use chronos::storage::files::{Files, Open};
use chronos::storage::wal::{Entry, HardState, Position, Recovered, Wal, WalOptions};
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

/// What a log may hold: entries by index from 1, and the hard state.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
}

/// A log together with every state that a crash may leave.
struct Model {
    now: State,
    possible: Vec<State>,
    /// Asked of `trim`: entries from here on must be there.
    kept_from: u64,
}

impl Model {
    fn append(&mut self, new: &[Entry], hard_state: Option<&HardState>) {
        let mut truncated = self.now.clone();
        if let Some(first) = new.first() {
            truncated.entries.truncate(first.index.0 as usize - 1);
        }
        let mut with_state = truncated.clone();
        if hard_state.is_some() {
            with_state.hard_state = hard_state.cloned();
        }
        self.possible.extend([truncated, with_state.clone()]);
        for entry in new {
            with_state.entries.push(entry.clone());
            self.possible.push(with_state.clone());
        }
        self.now = with_state;
    }

    fn sync(&mut self) {
        self.possible = vec![self.now.clone()];
    }

    /// Takes what recovery found as the new present, after checking that it may be.
    fn adopt(&mut self, recovered: &Recovered, what: &str) {
        let found = content(&recovered.wal).unwrap_or_else(|error| panic!("{what}: {error}"));
        let first = recovered.first.0;
        assert!(first <= self.kept_from.max(1), "{what}: the log begins at {first}, {} was kept", self.kept_from);
        let fits = |state: &&State| {
            state.hard_state == recovered.hard_state && state.entries.get(first as usize - 1..) == Some(&found[..])
        };
        let Some(state) = self.possible.iter().find(fits) else {
            panic!(
                "{what}: {} entries from {first}, {:?}, fit none of {} states; synced were {}",
                found.len(),
                recovered.hard_state,
                self.possible.len(),
                self.possible[0].entries.len()
            );
        };
        self.now = state.clone();
        self.sync();
        assert_eq!(recovered.last.index.0, self.now.entries.len() as u64, "{what}");
        let term = self.now.entries.last().map_or(Term(0), |entry| entry.term);
        assert_eq!(recovered.last.term, term, "{what}");
        assert_eq!(recovered.previous.index.next(), recovered.first, "{what}");
    }
}

/// One random operation on log and model alike. The model learns of it first: a crash may come in between.
fn step(wal: &mut Wal, model: &mut Model, random: &mut Random) -> chronos::Result<()> {
    let last = model.now.entries.len() as u64;
    let known = model.now.hard_state.as_ref().map_or(1, |state| state.term.0);
    let term = model.now.entries.last().map_or(1, |entry| entry.term.0).max(known);
    match random.below(20) {
        0..=9 => {
            let count = random.below(6);
            let new: Vec<Entry> = (1..=count).map(|i| random_entry(last + i, term, random)).collect();
            let state = (random.below(5) == 0).then(|| random_state(term, random));
            model.append(&new, state.as_ref());
            wal.append(&new, state.as_ref())
        }
        10 if last > model.kept_from => {
            let from = model.kept_from.max(1) + random.below(last - model.kept_from);
            let new: Vec<Entry> =
                (from..=from + random.below(4)).map(|index| random_entry(index, term + 1, random)).collect();
            let state = random_state(term + 1, random);
            model.append(&new, Some(&state));
            wal.append(&new, Some(&state))
        }
        11 if last > model.kept_from => {
            model.kept_from += random.below(last - model.kept_from);
            wal.trim(LogIndex(model.kept_from))
        }
        12 => wal.pool().prepare_spare().map(|_| ()),
        _ => {
            wal.sync()?;
            model.sync();
            Ok(())
        }
    }
}

fn random_entry(index: u64, term: u64, random: &mut Random) -> Entry {
    let length = if random.below(30) == 0 { random.below(6000) } else { random.below(200) };
    let fill = random.next() as u8;
    entry(index, term, &vec![fill; length as usize])
}

fn random_state(term: u64, random: &mut Random) -> HardState {
    let vote = (random.below(2) == 0).then(|| random.next());
    HardState { term: Term(term), vote, membership: vec![7; random.below(60) as usize], ..HardState::default() }
}

/// Runs `steps` operations from a seed, with a crash at operation `stop` of the disk; then recovers, and goes on.
fn history(seed: u64, stop: u64, mode: Crash) -> bool {
    let what = format!("seed {seed}, stop {stop}, {mode:?}");
    let mut random = Random(seed * 2 + 1);
    let disk = Disk::new();
    let mut wal = create(&disk);
    let mut model = Model { now: State::default(), possible: vec![State::default()], kept_from: 1 };
    disk.stop_at(disk.operations() + stop);
    let finished = (0..40).all(|_| step(&mut wal, &mut model, &mut random).is_ok());
    // Twice: what a first recovery reported must survive a second crash, without a single append in between.
    let mut disk = disk.crash(seed ^ stop, mode);
    let recovered = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    model.adopt(&recovered, &what);
    disk = disk.crash(seed ^ stop, Crash::Lose);
    let recovered = open(&disk).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    model.adopt(&recovered, &what);
    let mut wal = recovered.wal;
    for _ in 0..15 {
        step(&mut wal, &mut model, &mut random).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_eq!(content(&wal).unwrap(), model.now.entries[wal.previous().index.0 as usize..], "{what}");
    let disk = disk.crash(seed ^ stop ^ 1, mode);
    model.adopt(&open(&disk).unwrap_or_else(|error| panic!("{what}, at last: {error}")), &what);
    finished
}

#[test]
fn every_synced_entry_survives_a_power_cut_at_every_operation() {
    for seed in 1..=10 {
        for mode in Crash::ALL {
            let mut stop = 0;
            while !history(seed, stop, mode) {
                stop += 1;
            }
            assert!(stop > 20, "the history ends after {stop} operations");
        }
    }
}

#[test]
fn long_histories_survive_power_cuts_now_and_then() {
    for seed in 1..=150u64 {
        let mut random = Random(seed * 77 + 5);
        let mut disk = Disk::new();
        let mut wal = create(&disk);
        let mut model = Model { now: State::default(), possible: vec![State::default()], kept_from: 1 };
        for round in 0..8 {
            let mode = Crash::ALL[random.below(4) as usize];
            let what = format!("seed {seed}, round {round}, {mode:?}");
            disk.stop_at(disk.operations() + random.below(60));
            while step(&mut wal, &mut model, &mut random).is_ok() {}
            if random.below(3) == 0 {
                // Only the process dies: the page cache stays as it is.
                disk.revive();
            } else {
                disk = disk.crash(random.next(), mode);
            }
            let recovered = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            model.adopt(&recovered, &what);
            wal = recovered.wal;
        }
    }
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
        wal.pool().prepare_spare().unwrap();
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
        let done = wal.reset(mark).is_ok();
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
    wal.pool().prepare_spare().unwrap();
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
fn the_log_works_on_the_machines_own_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("raft");
    let files: Arc<dyn Files> = Arc::new(chronos::storage::files::SystemFiles);
    let options = WalOptions { segment_bytes: 1 << 20, ..OPTIONS };
    let mut wal = Wal::create(files.clone(), &path, options).unwrap().wal;
    assert!(wal.pool().prepare_spare().unwrap());
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
        let filler = scope.spawn(move || (0..200).filter(|_| pool.prepare_spare().unwrap()).count());
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
