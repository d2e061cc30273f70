//! The engine of a witness: it moves on without rows, and keeps its log for the others.

use super::snapshots::{Source, append, commit, files, group, hard_state, history, member, open};
use chronos::ids::LogIndex;
use chronos::raft::{Entry, HardState, Known, MemberRole, Membership, NodeId, Payload};
use chronos::storage::engine::{Append, Engine, Freshness, Stop};
use chronos::storage::faults::{Crash, Disk};
use chronos::storage::snapshot::Staging;
use std::path::{Path, PathBuf};

/// What the log has from there on, as far as one read goes.
fn read(engine: &Engine, from: LogIndex) -> Vec<Entry> {
    let (send, entries) = std::sync::mpsc::channel();
    engine.handle().read_log(from, 1 << 20, move |entries| send.send(entries).unwrap());
    entries.recv().unwrap()
}

fn has_nothing(engine: &Engine) -> bool {
    let view = engine.handle().lasting_view();
    let levels = &view.levels;
    let has_blocks = levels.blocks.iter().any(|level| level.manifest.keyspaces().next().is_some());
    engine.handle().is_witness()
        && view.catalog.tables().next().is_none()
        && !has_blocks
        && levels.memtable_bytes() == 0
}

/// A witness that has applied and sealed the whole history.
fn witness(entries: &[Entry]) -> (Disk, Engine) {
    let disk = Disk::new();
    let (engine, _) = open(&disk, "b").unwrap();
    engine.handle().become_witness();
    for part in entries[1..].chunks(5) {
        append(&engine, part, 9);
        commit(&engine, part.last().unwrap());
    }
    engine.seal().unwrap();
    (disk, engine)
}

#[test]
fn a_witness_moves_on_without_rows_and_keeps_its_log_until_it_is_told() {
    let entries = history();
    let (last, middle) = (entries.last().unwrap().index, entries[entries.len() / 2].index);
    let (disk, engine) = witness(&entries);
    assert!(has_nothing(&engine));
    assert_eq!(engine.handle().lasting_view().version, last);
    assert_eq!(read(&engine, LogIndex(1))[0].index, LogIndex(1), "its state covers all, and others may lack it");
    engine.handle().keep_for_others(middle);
    assert!(read(&engine, LogIndex(1)).is_empty(), "nobody lacks the first");
    assert_eq!(read(&engine, middle)[0].index, middle);
    // Neither a clean stop nor a start lets go of more.
    engine.stop(Stop::Clean).unwrap();
    let (engine, recovered) = open(&disk, "b").unwrap();
    assert_eq!((recovered.applied, recovered.membership), (last, group()));
    assert!(has_nothing(&engine));
    engine.seal().unwrap();
    assert_eq!(read(&engine, middle)[0].index, middle);
    engine.handle().keep_for_others(last.next());
    assert!(read(&engine, middle).is_empty());
    engine.stop(Stop::Clean).unwrap();
}

#[test]
fn a_witness_stays_one_after_a_power_cut() {
    let entries = history();
    let (disk, engine) = witness(&entries);
    engine.stop(Stop::Abandon).unwrap();
    let disk = disk.crash(0, Crash::Lose);
    let (engine, recovered) = open(&disk, "b").unwrap();
    assert_eq!(recovered.applied, entries.last().unwrap().index);
    assert!(has_nothing(&engine));
    assert_eq!(read(&engine, LogIndex(1))[0].index, LogIndex(1), "all of it is kept, until it is told again");
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn a_witness_is_sent_position_and_group_and_no_rows() {
    let source = Source::new();
    assert!(!source.snapshot.is_bare());
    let place = Path::new("/data/a/snapshots/for-b");
    let sender = Disk::new();
    let bare = source.snapshot.for_witness(&files(&sender), place).unwrap();
    assert!(bare.is_bare());
    assert_eq!((bare.manifest.position, bare.manifest.group().unwrap()), (source.position(), group()));
    assert!(bare.manifest.files.len() == 1 && bare.manifest.bytes() < 4096, "{} bytes", bare.manifest.bytes());
    let disk = member(&source.entries[..20], 10, 8);
    let mut staging = Staging::open(files(&disk), Path::new("/data/b/snapshots"), bare.manifest.clone()).unwrap();
    let entry = bare.manifest.files[0];
    let mut bytes = vec![0; entry.bytes as usize];
    bare.file(entry.number).unwrap().read_at(&mut bytes, 0).unwrap();
    staging.write(entry.number, 0, &bytes).unwrap();
    let staged = staging.finish().unwrap();
    let (engine, _) = open(&disk, "b").unwrap();
    engine.install(&files(&disk), &staged).unwrap();
    let (engine, recovered) = open(&disk, "b").unwrap();
    assert_eq!((recovered.applied, recovered.terms.last()), (source.position().index, source.position()));
    assert_eq!(recovered.membership, group());
    assert!(has_nothing(&engine));
    // It has nothing to give away in its turn.
    let own = engine.handle().snapshot(Freshness::Sealed).blocking_recv().unwrap().unwrap().unwrap();
    assert!(own.is_bare());
    engine.stop(Stop::Abandon).unwrap();
    // And at the sender nothing is left of it.
    drop(bare);
    assert!(files(&sender).list(place).unwrap().is_empty());
}

/// The disk of one that kept the log from `first` on and has ended, its group by its own log, and what it kept.
fn stopped_witness(entries: &[Entry], first: LogIndex) -> (Disk, Membership, Vec<Entry>) {
    let (disk, engine) = witness(entries);
    engine.handle().keep_for_others(first);
    let mut group = group();
    group.members.get_mut(&NodeId("b".into())).unwrap().role = MemberRole::Witness;
    let hard_state = HardState { membership: group.encode(), ..hard_state(9) };
    engine.handle().append(Append { hard_state: Some(hard_state), ..Append::default() });
    let kept = read(&engine, first);
    engine.stop(Stop::Abandon).unwrap();
    (disk.crash(0, Crash::Keep), group, kept)
}

#[test]
fn a_witness_whose_state_is_damaged_keeps_its_log() {
    let entries = history();
    let (last, middle) = (entries.last().unwrap(), entries[entries.len() / 2].index);
    let (disk, group, kept) = stopped_witness(&entries, middle);
    let is_sealed =
        |path: &PathBuf| path.starts_with("/data/b/state") && path.extension().is_some_and(|end| end == "blk");
    let sealed = disk.paths().into_iter().filter(is_sealed).max().unwrap();
    disk.flip(&sealed, 500).unwrap();
    let (engine, recovered) = open(&disk, "b").unwrap();
    assert_eq!(
        (recovered.hard_state.quarantined_until, recovered.hard_state.vote),
        (None, Some(7)),
        "it lacks nothing"
    );
    assert_eq!((recovered.membership, recovered.terms.last().index), (group, last.index));
    assert_eq!(recovered.known, Known::Committed, "nothing in the log says otherwise");
    assert!(recovered.applied < middle && recovered.applied > LogIndex(0), "it begins where the log does");
    assert!(has_nothing(&engine));
    assert_eq!(read(&engine, middle), kept);
    commit(&engine, last);
    assert!(has_nothing(&engine));
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn a_witness_whose_log_is_damaged_below_its_state_does_not_pass_for_one_that_has_it() {
    let entries = history();
    let last = entries.last().unwrap().index;
    for keeps_all in [true, false] {
        let first = if keeps_all { LogIndex(1) } else { entries[entries.len() / 3].index };
        let (disk, _, kept) = stopped_witness(&entries, first);
        let segments = files(&disk).list(Path::new("/data/b/raft")).unwrap();
        let segments: Vec<PathBuf> =
            segments.into_iter().filter(|path| path.extension().is_some_and(|end| end == "wal")).collect();
        assert!(segments.len() > 2, "{segments:?}");
        disk.flip(&segments[segments.len() - 2], 8000 * 8).unwrap();
        // A restart on the way changes nothing.
        for _ in 0..2 {
            let (engine, recovered) = open(&disk, "b").unwrap();
            let end = recovered.terms.last().index;
            assert!(first < end && end < last, "{first} to {end}, of {last}");
            assert_eq!(recovered.hard_state.quarantined_until, Some(last));
            assert!(recovered.applied <= first, "{} is applied", recovered.applied);
            let still = read(&engine, first);
            assert_eq!(still[..], kept[..still.len()], "what others may lack is kept");
            assert_eq!(still.last().unwrap().index, end);
            engine.stop(Stop::Abandon).unwrap();
        }
    }
}

#[test]
fn a_witness_without_its_state_knows_its_group_by_hearsay_until_it_is_committed() {
    let entries = history();
    let (last, middle) = (entries.last().unwrap(), entries[entries.len() / 2].index);
    let (disk, engine) = witness(&entries);
    engine.handle().keep_for_others(middle);
    let mut group = group();
    group.members.get_mut(&NodeId("b".into())).unwrap().role = MemberRole::Witness;
    let payload = Payload::Membership(group.clone()).encode();
    let said =
        Entry { index: last.index.next(), hlc: chronos::hlc::Timestamp(last.hlc.0 + 1), payload, ..last.clone() };
    let hard_state = HardState { membership: group.encode(), ..hard_state(9) };
    let entry = vec![said.clone()];
    engine.handle().append(Append { hard_state: Some(hard_state), entries: entry, ..Append::default() });
    read(&engine, middle);
    engine.stop(Stop::Abandon).unwrap();
    let disk = disk.crash(0, Crash::Keep);
    let sealed =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "blk")).max().unwrap();
    disk.flip(&sealed, 500).unwrap();
    for _ in 0..2 {
        let (engine, recovered) = open(&disk, "b").unwrap();
        assert_eq!((recovered.known, recovered.later.len()), (Known::Hearsay, 1));
        engine.stop(Stop::Abandon).unwrap();
    }
    let (engine, _) = open(&disk, "b").unwrap();
    commit(&engine, &said);
    engine.seal().unwrap();
    engine.stop(Stop::Abandon).unwrap();
    let (engine, recovered) = open(&disk, "b").unwrap();
    assert_eq!((recovered.known, recovered.membership), (Known::Committed, group));
    engine.stop(Stop::Abandon).unwrap();
}
