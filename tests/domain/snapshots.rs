//! Snapshots between directories: what arrives, what a broken transfer leaves, and an install that a power cut meets.
//!
//! Two members of one group, without consensus between them: the test itself says what is in their logs and what is
//! committed. The hot stores are in memory, so each start rebuilds them from log and sealed files.

use chronos::clock::SystemClock;
use chronos::embedded::{self, Begin, Database};
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Entry, HardState, Member, Membership, NodeId, Payload, Position};
use chronos::storage::content_hash::content_hash;
use chronos::storage::engine::{self, Append, Engine, Freshness, HotEngine, Limits, Recovered, Stop};
use chronos::storage::faults::{Crash, Disk};
use chronos::storage::files::{Files, Open};
use chronos::storage::snapshot::{Snapshot, Staged, Staging};
use std::path::Path;
use std::sync::Arc;

/// Bytes of a piece: small, so that files have several.
const PIECE: usize = 900;

pub(super) fn engine(disk: &Disk) -> engine::Options {
    engine::Options {
        files: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        hot: HotEngine::Memory,
        boot_id: None,
        limits: Limits {
            memtable_bytes_max: 48 << 10,
            cache_bytes_max: 64 << 10,
            seal_wal_bytes: 24 << 10,
            segment_bytes: 16 << 10,
            disk_reserve_bytes: 0,
            ..Limits::default()
        },
    }
}

pub(super) fn group() -> Membership {
    let member = |name: &str| (NodeId(name.into()), Member { address: format!("{name}:1"), ..Member::default() });
    Membership::of(["a", "b", "c"].map(member))
}

pub(super) fn files(disk: &Disk) -> Arc<dyn Files> {
    Arc::new(disk.clone())
}

/// Opens the member's directory, and makes it where there is none.
pub(super) fn open(disk: &Disk, id: &str) -> chronos::Result<(Engine, Recovered)> {
    let options = embedded::Options {
        id: Some(id.into()),
        default_id: id.into(),
        begin: Begin::Together(group()),
        ..embedded::Options::default()
    };
    let engine = engine(disk);
    let directory = embedded::open_directory(Path::new("/data"), &options, &engine)?;
    Engine::recover(directory, &engine, Arc::new(|_| {}))
}

/// The entries of a history: rows put in, changed and taken out.
pub(super) fn history() -> Vec<Entry> {
    let disk = Disk::new();
    let roomy = engine::Options {
        limits: Limits { seal_wal_bytes: 64 << 20, disk_reserve_bytes: 0, ..Limits::default() },
        ..engine(&disk)
    };
    let database = Database::open_on("/data", &embedded::Options::default(), &roomy).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, note TEXT)").unwrap();
    for from in 0..12 {
        let tuples: Vec<String> =
            (0..100).map(|i| from * 100 + i).map(|id| format!("({id}, {id}, 'row {id}')")).collect();
        database.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))).unwrap();
        database.execute(&format!("UPDATE t SET v = v + 1 WHERE id % 7 = {}", from % 7)).unwrap();
        database.execute(&format!("DELETE FROM t WHERE id = {}", from * 50)).unwrap();
    }
    let (send, entries) = std::sync::mpsc::channel();
    let handle = database.group().handle().unwrap();
    handle.read_log(LogIndex(1), 64 << 20, move |entries| send.send(entries).unwrap());
    let mut entries = entries.recv().unwrap();
    // What one node wrote for itself, a group of three writes as well.
    entries[0].payload = Payload::Membership(group()).encode();
    entries
}

pub(super) fn hard_state(term: u64) -> HardState {
    HardState { term: Term(term), vote: Some(7), membership: group().encode(), quarantined_until: None }
}

/// Puts entries into a log, durably.
pub(super) fn append(engine: &Engine, entries: &[Entry], term: u64) {
    let append = Append { entries: entries.to_vec(), hard_state: Some(hard_state(term)), ..Append::default() };
    let handle = engine.handle();
    handle.append(append);
    let (send, done) = std::sync::mpsc::channel();
    handle.read_log(LogIndex(u64::MAX), 1, move |_| send.send(()).unwrap());
    done.recv().unwrap();
}

pub(super) fn commit(engine: &Engine, last: &Entry) {
    let handle = engine.handle();
    handle.commit(Position { index: last.index, term: last.term });
    while handle.lasting_view().version < last.index {
        assert!(!handle.has_failed());
        std::thread::yield_now();
    }
}

pub(super) fn hash(engine: &Engine) -> u128 {
    content_hash(&engine.handle().lasting_view(), &|| Ok(())).unwrap()
}

/// A member that has applied the whole history, and its snapshot of it.
pub(super) struct Source {
    pub(super) engine: Engine,
    pub(super) snapshot: Snapshot,
    pub(super) entries: Vec<Entry>,
}

impl Source {
    pub(super) fn new() -> Source {
        let entries = history();
        let (engine, _) = open(&Disk::new(), "a").unwrap();
        for part in entries[1..].chunks(5) {
            append(&engine, part, 9);
            commit(&engine, part.last().unwrap());
        }
        let snapshot = engine.handle().snapshot(Freshness::Now).blocking_recv().unwrap().unwrap().unwrap();
        assert_eq!(snapshot.manifest.position.index, entries.last().unwrap().index);
        assert!(snapshot.manifest.files.len() > 1, "several seals: {:?}", snapshot.manifest.files);
        Source { engine, snapshot, entries }
    }

    pub(super) fn position(&self) -> Position {
        self.snapshot.manifest.position
    }
}

/// Brings at most so many pieces; true where that was all.
fn bring(snapshot: &Snapshot, staging: &mut Staging, pieces: usize) -> chronos::Result<bool> {
    let mut left = pieces;
    for have in staging.have().to_vec() {
        let file = snapshot.file(have.number)?;
        let mut at = have.bytes;
        while at < file.bytes {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            let mut piece = vec![0; (file.bytes - at).min(PIECE as u64) as usize];
            file.read_at(&mut piece, at)?;
            staging.write(have.number, at, &piece)?;
            at += piece.len() as u64;
        }
    }
    Ok(true)
}

pub(super) fn stage(disk: &Disk, snapshot: &Snapshot) -> chronos::Result<Staged> {
    let mut staging = Staging::open(files(disk), Path::new("/data/b/snapshots"), snapshot.manifest.clone())?;
    assert!(bring(snapshot, &mut staging, usize::MAX)?);
    staging.finish()
}

/// A member `b` whose log holds these entries, of which so many are applied.
pub(super) fn member(entries: &[Entry], applied: usize, term: u64) -> Disk {
    let disk = Disk::new();
    let (engine, _) = open(&disk, "b").unwrap();
    append(&engine, &entries[1..], term);
    commit(&engine, &entries[applied - 1]);
    engine.stop(Stop::Abandon).unwrap();
    disk.crash(0, Crash::Keep)
}

/// The whole way, up to an engine that runs on the snapshot.
pub(super) fn install(disk: &Disk, source: &Source) -> chronos::Result<(Engine, Recovered)> {
    let staged = stage(disk, &source.snapshot)?;
    let (engine, _) = open(disk, "b")?;
    engine.install(&files(disk), &staged)?;
    open(disk, "b")
}

#[test]
fn an_installed_snapshot_is_the_state_and_takes_the_place_of_a_log_that_lacks_it() {
    let source = Source::new();
    // Ten entries of its own term that nobody committed.
    let mut stray = source.entries[..20].to_vec();
    stray[10..].iter_mut().for_each(|entry| entry.term = Term(5));
    let disk = member(&stray, 10, 8);
    let (engine, recovered) = install(&disk, &source).unwrap();
    assert_eq!((recovered.applied, recovered.terms.last()), (source.position().index, source.position()));
    assert_eq!((recovered.hard_state.term, recovered.hard_state.vote), (Term(8), Some(7)));
    assert_eq!((recovered.membership, recovered.later), (group(), vec![]));
    assert_eq!(hash(&engine), hash(&source.engine));
    // It goes on from there, and so does a restart.
    let next = Entry {
        index: source.position().index.next(),
        term: Term(9),
        payload: Payload::Noop.encode(),
        ..source.entries.last().unwrap().clone()
    };
    let next = Entry { hlc: chronos::hlc::Timestamp(next.hlc.0 + 1), ..next };
    append(&engine, std::slice::from_ref(&next), 9);
    commit(&engine, &next);
    engine.stop(Stop::Clean).unwrap();
    let (engine, recovered) = open(&disk, "b").unwrap();
    // One entry without a row is not worth a sealed file: the log has it.
    assert_eq!(recovered.terms.last().index, next.index);
    commit(&engine, &next);
    append(&source.engine, std::slice::from_ref(&next), 9);
    commit(&source.engine, &next);
    assert_eq!(hash(&engine), hash(&source.engine));
    assert!(disk.list(Path::new("/data/b/snapshots")).unwrap().is_empty());
}

#[test]
fn a_log_that_holds_the_snapshots_position_keeps_what_follows_it() {
    let source = Source::new();
    let mut entries = source.entries.clone();
    let last = entries.last().unwrap().clone();
    let hlc = chronos::hlc::Timestamp(last.hlc.0 + 1);
    let grown = group().changed(&chronos::raft::Change::Remove { id: NodeId("c".into()) }).unwrap();
    let payload = Payload::Membership(grown.clone()).encode();
    entries.push(Entry { index: last.index.next(), hlc, payload, ..last.clone() });
    let disk = member(&entries, 10, 9);
    let (engine, recovered) = install(&disk, &source).unwrap();
    assert_eq!((recovered.applied, recovered.terms.last().index), (last.index, last.index.next()));
    assert_eq!((recovered.later, recovered.hlc), (vec![(last.index.next(), grown)], hlc));
    assert_eq!(hash(&engine), hash(&source.engine));
    commit(&engine, entries.last().unwrap());
}

#[test]
fn a_snapshot_that_is_not_ahead_of_the_state_is_refused() {
    let source = Source::new();
    let disk = member(&source.entries, source.entries.len(), 9);
    let (engine, _) = open(&disk, "b").unwrap();
    commit(&engine, source.entries.last().unwrap());
    engine.seal().unwrap();
    let staged = stage(&disk, &source.snapshot).unwrap();
    let refused = engine.install(&files(&disk), &staged).unwrap_err();
    assert!(refused.message().contains("older than the state"), "{refused}");
    // The next start removes what is no news.
    let (engine, _) = open(&disk, "b").unwrap();
    assert_eq!(hash(&engine), hash(&source.engine));
    assert!(disk.list(Path::new("/data/b/snapshots")).unwrap().is_empty());
}

#[test]
fn what_the_log_has_brought_since_is_not_kept_of_a_transfer_that_was_given_up() {
    let source = Source::new();
    let disk = member(&source.entries, source.entries.len(), 9);
    let (engine, _) = open(&disk, "b").unwrap();
    stage(&disk, &source.snapshot).unwrap();
    let left = || disk.list(Path::new("/data/b/snapshots")).unwrap();
    assert_eq!(left().len(), 1);
    commit(&engine, source.entries.last().unwrap());
    engine.seal().unwrap();
    while !left().is_empty() {
        assert!(!engine.handle().has_failed());
        std::thread::yield_now();
    }
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let source = Source::new();
    let (disk, snapshots) = (Disk::new(), Path::new("/data/b/snapshots"));
    let manifest = &source.snapshot.manifest;
    let mut staging = Staging::open(files(&disk), snapshots, manifest.clone()).unwrap();
    let pieces: u64 = manifest.files.iter().map(|file| file.bytes.div_ceil(PIECE as u64)).sum();
    assert!(!bring(&source.snapshot, &mut staging, pieces as usize - 2).unwrap());
    let before = staging.have().to_vec();
    assert!(staging.finish().is_err(), "it is not complete");
    let mut staging = Staging::open(files(&disk), snapshots, manifest.clone()).unwrap();
    assert_eq!(staging.have(), before);
    assert!(bring(&source.snapshot, &mut staging, 2).unwrap());
    staging.finish().unwrap();
    // A later snapshot of the same leader has most of the files.
    let mut later = manifest.clone();
    later.position.index = later.position.index.next();
    let staging = Staging::open(files(&disk), snapshots, later).unwrap();
    assert!(staging.is_complete());
    assert_eq!(disk.list(snapshots).unwrap().len(), 1, "the one before is gone");
}

#[test]
fn damage_on_the_way_is_found_and_the_file_is_fetched_anew() {
    let source = Source::new();
    let (disk, snapshots) = (Disk::new(), Path::new("/data/b/snapshots"));
    let manifest = &source.snapshot.manifest;
    let mut staging = Staging::open(files(&disk), snapshots, manifest.clone()).unwrap();
    assert!(!bring(&source.snapshot, &mut staging, 1).unwrap());
    drop(staging);
    let part = disk.list(&disk.list(snapshots).unwrap()[0]).unwrap().remove(0);
    disk.open(&part, Open::Write).unwrap().write_at(b"damage", 400).unwrap();
    let mut staging = Staging::open(files(&disk), snapshots, manifest.clone()).unwrap();
    let refused = bring(&source.snapshot, &mut staging, usize::MAX).unwrap_err();
    assert_eq!(refused.kind(), chronos::error::Kind::Damaged, "{refused}");
    assert_eq!(staging.have()[0].bytes, 0);
    assert!(bring(&source.snapshot, &mut staging, usize::MAX).unwrap());
    // What was whole once may rot too.
    let whole = disk.list(&disk.list(snapshots).unwrap()[0]).unwrap().remove(0);
    disk.open(&whole, Open::Write).unwrap().write_at(b"damage", 400).unwrap();
    assert!(!Staging::open(files(&disk), snapshots, manifest.clone()).unwrap().is_complete());
}

#[test]
fn pieces_that_do_not_follow_are_refused() {
    let source = Source::new();
    let manifest = &source.snapshot.manifest;
    let mut staging = Staging::open(files(&Disk::new()), Path::new("/snapshots"), manifest.clone()).unwrap();
    let file = manifest.files[0];
    staging.write(file.number, 1, b"x").unwrap_err();
    staging.write(u32::MAX, 0, b"x").unwrap_err();
    staging.write(file.number, 0, &vec![0; file.bytes as usize + 1]).unwrap_err();
    assert_eq!(staging.have()[0].bytes, 0);
}

#[test]
fn a_full_disk_refuses_a_snapshot_before_it_is_sent() {
    let source = Source::new();
    let disk = Disk::new();
    disk.set_capacity(Some(1000));
    let refused = Staging::open(files(&disk), Path::new("/snapshots"), source.snapshot.manifest.clone()).err().unwrap();
    assert_eq!(refused.sqlstate().as_str(), "53100", "{refused}");
}

#[test]
fn files_of_a_snapshot_outlive_the_merges_that_replace_them() {
    let Source { engine, snapshot, entries } = Source::new();
    let (mut last, term) = (entries.last().unwrap().clone(), Term(9));
    let merged = |engine: &Engine| engine.handle().counters().merges.load(std::sync::atomic::Ordering::Relaxed);
    let before = merged(&engine);
    while merged(&engine) < before + 3 {
        let hlc = chronos::hlc::Timestamp(last.hlc.0 + 1);
        last = Entry { index: last.index.next(), term, hlc, payload: Payload::Noop.encode() };
        append(&engine, std::slice::from_ref(&last), 9);
        commit(&engine, &last);
        engine.seal().unwrap();
    }
    let disk = Disk::new();
    stage(&disk, &snapshot).unwrap();
}

#[test]
fn a_member_whose_log_is_damaged_keeps_what_is_whole_and_is_quarantined() {
    let entries = history();
    for applied in [entries.len(), 10] {
        let disk = Disk::new();
        let (engine, _) = open(&disk, "b").unwrap();
        for part in entries[1..].chunks(4) {
            append(&engine, part, 9);
        }
        commit(&engine, &entries[applied - 1]);
        engine.stop(Stop::Abandon).unwrap();
        let disk = disk.crash(0, Crash::Keep);
        let segments = disk.list(Path::new("/data/b/raft")).unwrap();
        let segments: Vec<_> = segments.iter().filter(|path| path.extension().is_some_and(|it| it == "wal")).collect();
        assert!(segments.len() > 1, "{segments:?}");
        // Near its end: what lies before is whole, and a later segment proves that it had been written.
        let before_last = segments[segments.len() - 2];
        let bytes = disk.open(before_last, Open::Read).unwrap().len().unwrap();
        let mut content = vec![0; bytes as usize];
        disk.open(before_last, Open::Read).unwrap().read_at(&mut content, 0).unwrap();
        let end = content.iter().rposition(|byte| *byte != 0).unwrap() as u64;
        disk.flip(before_last, (end - 2000) * 8).unwrap();
        let last = entries.last().unwrap().index;
        // A crash on the way is gone through again.
        for _ in 0..2 {
            let (engine, recovered) = open(&disk, "b").unwrap();
            assert_eq!(recovered.hard_state.quarantined_until, Some(last));
            assert_eq!((recovered.hard_state.term, recovered.hard_state.vote), (Term(9), Some(7)));
            assert!(
                recovered.terms.last().index < last || recovered.applied == last,
                "{}",
                recovered.terms.last().index
            );
            engine.stop(Stop::Abandon).unwrap();
        }
    }
}

/// Installs until the disk stops.
fn install_until(disk: &Disk, source: &Source) -> bool {
    install(disk, source).is_ok_and(|(engine, _)| hash(&engine) == hash(&source.engine))
}

#[test]
fn a_power_cut_at_any_boundary_leaves_the_old_state_or_the_new_one() {
    let source = Source::new();
    let mut stray = source.entries[..20].to_vec();
    stray[10..].iter_mut().for_each(|entry| entry.term = Term(5));
    let bases = [member(&stray, 10, 8), member(&source.entries, 10, 9)];
    for (base, at_base) in bases.iter().enumerate() {
        let whole = at_base.crash(0, Crash::Keep);
        assert!(install_until(&whole, &source));
        let operations = whole.operations();
        let cuts = std::env::var("CHRONOS_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(60u64);
        let cuts = cuts.min(operations);
        let (mut old, mut new) = (0, 0);
        for cut in 0..cuts {
            let at = cut * operations / cuts;
            for (seed, mode) in Crash::ALL.into_iter().enumerate() {
                let disk = at_base.crash(0, Crash::Keep);
                disk.stop_at(at);
                install_until(&disk, &source);
                let after = disk.crash(at * 10 + seed as u64, mode);
                let said = format!("base {base}, cut {at}, {mode:?}");
                let (engine, recovered) = open(&after, "b").unwrap_or_else(|error| panic!("{said}: {error}"));
                assert!(recovered.hard_state.term >= Term(8), "{said}: term and vote are lost");
                assert_eq!(recovered.hard_state.vote, Some(7), "{said}: term and vote are lost");
                if recovered.applied == source.position().index {
                    assert_eq!(hash(&engine), hash(&source.engine), "{said}");
                    new += 1;
                    continue;
                }
                assert!(recovered.applied.0 <= 10, "{said}: {} is applied", recovered.applied);
                assert_eq!(recovered.terms.last().index.0, if base == 0 { 20 } else { source.position().index.0 });
                old += 1;
                engine.stop(Stop::Abandon).unwrap();
                // A file of which the cut has left holes is found when it is whole, and fetched anew.
                assert!(install_until(&after, &source) || install_until(&after, &source), "{said}: it does not go on");
            }
        }
        assert!(old > 0 && new > 0, "the cuts lie before and behind: {old}, {new}");
    }
}
