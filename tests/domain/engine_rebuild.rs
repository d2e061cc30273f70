//! A member whose state is damaged begins without it, and a node that is alone stops by name.

use super::snapshots::{Source, engine, group, hash, install, member, open};
use chronos::embedded::{self, Database};
use chronos::error::{Error, Kind};
use chronos::ids::{LogIndex, Term};
use chronos::raft::{Entry, Known, Position};
use chronos::storage::content_hash::content_hash;
use chronos::storage::engine::{Engine, Keep, Stop};
use chronos::storage::faults::{Crash, Disk};
use chronos::storage::files::{Files, Open};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A member that has all of a history, sealed.
fn sealed_member(source: &Source) -> Disk {
    let disk = member(&source.entries, source.entries.len(), 9);
    let (engine, _) = open(&disk, "b").unwrap();
    super::snapshots::commit(&engine, source.entries.last().unwrap());
    engine.seal().unwrap();
    engine.stop(Stop::Abandon).unwrap();
    disk.crash(0, Crash::Keep)
}

fn sealed_files(disk: &Disk, state: &str) -> Vec<PathBuf> {
    let paths = disk.list(Path::new(state)).unwrap();
    paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "blk")).collect()
}

/// Flips a bit, counted from the end where it is below zero.
fn flip(disk: &Disk, path: &Path, byte: i64) {
    let bytes = disk.open(path, Open::Read).unwrap().len().unwrap() as i64;
    disk.flip(path, (if byte < 0 { bytes + byte } else { byte }) as u64 * 8).unwrap();
}

const STATE: &str = "/data/b/state";

/// Ways in which a start finds a state damaged.
fn damages() -> [(&'static str, fn(&Disk)); 4] {
    [
        ("CURRENT has a wrong bit", |disk| flip(disk, &Path::new(STATE).join("CURRENT"), 20)),
        ("CURRENT is missing", |disk| disk.remove(&Path::new(STATE).join("CURRENT")).unwrap()),
        ("a sealed file has a wrong bit in its footer", |disk| flip(disk, &sealed_files(disk, STATE)[0], -60)),
        ("a sealed file is missing", |disk| disk.remove(&sealed_files(disk, STATE)[0]).unwrap()),
    ]
}

#[test]
fn a_member_with_a_damaged_state_begins_without_one_in_quarantine_and_is_brought_a_snapshot() {
    let source = Source::new();
    let last = source.entries.last().unwrap().index;
    for (what, damage) in damages() {
        let disk = sealed_member(&source);
        damage(&disk);
        // A restart on the way changes nothing.
        for _ in 0..2 {
            let (engine, recovered) = open(&disk, "b").unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(recovered.hard_state.quarantined_until, Some(last), "{what}");
            assert_eq!((recovered.hard_state.term, recovered.hard_state.vote), (Term(9), Some(7)), "{what}");
            assert_eq!((recovered.applied, recovered.terms.last()), (LogIndex(0), Position::default()), "{what}");
            assert_eq!(recovered.membership, group(), "{what}: it knows who the others are");
            assert_eq!(recovered.known, Known::Hearsay, "{what}: by a log that may have been taken back");
            engine.stop(Stop::Abandon).unwrap();
        }
        assert!(!disk.list(Path::new("/data/b/state-damaged")).unwrap().is_empty(), "{what}: nothing is deleted");
        let (engine, recovered) = install(&disk, &source).unwrap();
        assert_eq!((recovered.applied, recovered.hard_state.quarantined_until), (source.position().index, Some(last)));
        assert_eq!(recovered.known, Known::Committed, "{what}");
        assert_eq!(hash(&engine), hash(&source.engine), "{what}");
        assert!(!disk.exists(Path::new("/data/b/state-damaged")), "{what}: it is whole again");
        engine.stop(Stop::Abandon).unwrap();
    }
}

#[test]
fn a_member_whose_log_is_damaged_where_its_state_covers_it_lacks_nothing() {
    let source = Source::new();
    let (sealed, last) = (&source.entries[source.entries.len() - 6], source.entries.last().unwrap());
    let disk = Disk::new();
    let (engine, _) = open(&disk, "b").unwrap();
    // As for a peer that lags.
    engine.handle().keep_log(Keep { pinned: vec![LogIndex(1)], ..Keep::default() });
    for part in source.entries[1..].chunks(3) {
        super::snapshots::append(&engine, part, 9);
    }
    super::snapshots::commit(&engine, sealed);
    engine.seal().unwrap();
    engine.stop(Stop::Abandon).unwrap();
    let disk = disk.crash(0, Crash::Keep);
    let segments = disk.list(Path::new("/data/b/raft")).unwrap();
    let bytes = |path: &Path| disk.open(path, Open::Read).unwrap().len().unwrap();
    let is_long = |path: &&PathBuf| path.extension().is_some_and(|end| end == "wal") && bytes(path) > 4000;
    flip(&disk, segments.iter().filter(is_long).min().unwrap(), 2000);
    let (engine, recovered) = open(&disk, "b").unwrap();
    assert_eq!(recovered.hard_state.quarantined_until, None);
    assert_eq!((recovered.applied, recovered.terms.last().index), (sealed.index, last.index));
    assert!(recovered.terms.previous().index > LogIndex(0), "the damaged segment is gone");
    super::snapshots::commit(&engine, last);
    assert_eq!(hash(&engine), hash(&source.engine));
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn a_node_that_is_alone_stops_by_name_and_changes_nothing() {
    for (what, damage) in damages() {
        let disk = Disk::new();
        let options = embedded::Options { id: Some("b".into()), ..embedded::Options::default() };
        let database = Database::open_on("/data", &options, &engine(&disk)).unwrap();
        database.execute("CREATE TABLE t (id INT PRIMARY KEY)").unwrap();
        database.execute("INSERT INTO t VALUES (1)").unwrap();
        database.close().unwrap();
        let disk = disk.crash(0, Crash::Keep);
        damage(&disk);
        let before = disk.paths();
        let error = Database::open_on("/data", &options, &engine(&disk)).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{what}: {error}");
        assert_eq!(disk.paths(), before, "{what}");
    }
}

#[test]
fn a_power_cut_while_a_state_is_given_up_leaves_a_member_in_quarantine() {
    let source = Source::new();
    let base = sealed_member(&source);
    damages()[0].1(&base);
    let last = source.entries.last().unwrap().index;
    let whole = base.crash(0, Crash::Keep);
    let before = whole.operations();
    open(&whole, "b").unwrap().0.stop(Stop::Abandon).unwrap();
    let operations = whole.operations() - before;
    for at in 0..operations {
        for (seed, mode) in Crash::ALL.into_iter().enumerate() {
            let disk = base.crash(0, Crash::Keep);
            disk.stop_at(disk.operations() + at);
            if let Ok((engine, _)) = open(&disk, "b") {
                let _ = engine.stop(Stop::Abandon);
            }
            let after = disk.crash(at * 10 + seed as u64, mode);
            let (engine, recovered) = open(&after, "b").unwrap_or_else(|error| panic!("cut {at}, {mode:?}: {error}"));
            assert_eq!(recovered.hard_state.quarantined_until, Some(last), "cut {at}, {mode:?}");
            assert_eq!((recovered.applied, recovered.hard_state.vote), (LogIndex(0), Some(7)), "cut {at}, {mode:?}");
            engine.stop(Stop::Abandon).unwrap();
        }
    }
}

#[test]
fn a_damaged_block_is_told_of_and_its_member_gives_up_its_state_when_asked() {
    let source = Source::new();
    let disk = sealed_member(&source);
    // In the first block of a file: a start does not look there.
    let bytes = |path: &PathBuf| disk.open(path, Open::Read).unwrap().len().unwrap();
    let largest = sealed_files(&disk, STATE).into_iter().max_by_key(bytes).unwrap();
    flip(&disk, &largest, 64);
    let told: Arc<Mutex<Vec<Error>>> = Arc::default();
    let events = told.clone();
    let options = embedded::Options { id: Some("b".into()), ..embedded::Options::default() };
    let directory = embedded::open_directory(Path::new("/data"), &options, &engine(&disk)).unwrap();
    let events = Arc::new(move |event| {
        if let chronos::storage::engine::Event::Damaged(error) = event {
            events.lock().unwrap().push(error);
        }
    });
    let (running, recovered) = Engine::recover(directory, &engine(&disk), events).unwrap();
    assert_eq!(recovered.hard_state.quarantined_until, None);
    super::snapshots::commit(&running, source.entries.last().unwrap());
    for _ in 0..2 {
        let error = content_hash(&running.handle().lasting_view(), &|| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
    }
    let why = told.lock().unwrap().clone();
    assert_eq!(why.len(), 1, "once: {why:?}");
    running.rebuild(&engine(&disk), &why[0]).unwrap();
    let (engine, recovered) = install(&disk, &source).unwrap();
    assert_eq!(recovered.hard_state.quarantined_until, Some(last(&source.entries)));
    assert_eq!(hash(&engine), hash(&source.engine));
    engine.stop(Stop::Abandon).unwrap();
}

fn last(entries: &[Entry]) -> LogIndex {
    entries.last().unwrap().index
}

#[test]
fn the_only_copy_is_not_given_up() {
    let disk = Disk::new();
    let options = embedded::Options { id: Some("b".into()), ..embedded::Options::default() };
    let open = || {
        let directory = embedded::open_directory(Path::new("/data"), &options, &engine(&disk)).unwrap();
        Engine::recover(directory, &engine(&disk), Arc::new(|_| {})).unwrap()
    };
    let why = Error::damaged("a block");
    let (running, recovered) = open();
    let refused = running.rebuild(&engine(&disk), &why).unwrap_err();
    assert_eq!((refused.message(), refused.kind()), ("a block", Kind::Damaged));
    let (running, again) = open();
    assert_eq!(again.hard_state, recovered.hard_state);
    running.stop(Stop::Clean).unwrap();
}
