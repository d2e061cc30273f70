//! The files of the hot store: when they come, when they go, and what a process that dies leaves of them.

use crate::storage_ground::{Ground, ROWS, visible_rows};
use chronos::clock::SystemClock;
use chronos::embedded::{Database, Options};
use chronos::sql::value::Value;
use chronos::storage::block_store::BlockStore;
use chronos::storage::engine::{self, HotEngine, Limits};
use chronos::storage::faults::Disk;
use chronos::storage::files::SystemFiles;
use chronos::storage::hot::{HotStore, PART_BYTES, block_path};
use chronos::storage::sled::SledStore;
use chronos::storage::state::StateRecord;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn fill(ground: &mut Ground, device: &str, from: i64, rows: i64, value: i64) {
    let rows: Vec<(&str, i64, i64)> = (from..from + rows).map(|ts| (device, ts, ts * 7919 % 1000 + value)).collect();
    ground.put(&rows);
}

/// Numbers in no order.
fn scattered(round: i64, i: i64) -> i64 {
    (round * 100_003 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 20
}

#[test]
fn a_superseded_file_goes_with_the_last_level_that_names_it() {
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 2000, 0);
    ground.flush();
    let held = ground.hot.level();
    let shown = visible_rows(&[(*held).clone()], &ground.state);
    let (first, _) = ground.hot_files()[0].clone();
    for round in 1..5 {
        fill(&mut ground, "a", 0, 2000, round);
        ground.flush();
        assert!(first.exists(), "a level names it");
        assert_eq!(ground.hot_files().len(), 1 + usize::try_from(round).unwrap(), "a newer level is held too");
    }
    assert_eq!(visible_rows(&[(*held).clone()], &ground.state).len(), shown.len());
    drop(held);
    ground.hot.collect().unwrap();
    assert!(!first.exists());
    assert_eq!(ground.hot_files().len(), 1, "without readers one copy is there");
    ground.reopen_hot();
    ground.check();
}

#[test]
fn a_process_that_dies_leaves_what_was_published_last() {
    let mut ground = Ground::new(None);
    for round in 0..6 {
        fill(&mut ground, "a", round * 300, 500, round);
        fill(&mut ground, "b", 0, 200, round);
        ground.flush();
        let copy = ground.copy_hot();
        // What a flush that never came to its end has written.
        let stray = block_path(copy.directory.path(), 999);
        std::fs::write(&stray, b"half a block").unwrap();
        let hot = copy.open().unwrap();
        assert!(!stray.exists(), "what no manifest names is deleted");
        assert_eq!(*hot.state(), ground.state);
        let (found, expected) = (visible_rows(&[(*hot.level()).clone()], &ground.state), ground.levels());
        assert_eq!(found, visible_rows(&expected, &ground.state));
        assert_eq!(hot.size().unwrap(), ground.hot.size().unwrap());
    }
}

#[test]
fn a_process_that_dies_with_sled_leaves_what_was_published_last() {
    let mut ground = Ground::new(None);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hot-000001");
    let store = Box::new(SledStore::open(&path).unwrap());
    ground.hot = HotStore::create(store, Arc::new(SystemFiles), &path, &ground.state).unwrap();
    for round in 0..4 {
        fill(&mut ground, "a", 0, 3000, round);
        ground.flush();
        // The engine was told to hand over what it has: a copy made while it is open is whole.
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&path).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let store = Box::new(SledStore::open(copy.path()).unwrap());
        let hot = HotStore::open(store, Arc::new(SystemFiles), copy.path()).unwrap();
        assert_eq!(*hot.state(), ground.state);
        let found = visible_rows(&[(*hot.level()).clone()], &ground.state);
        assert_eq!(found, visible_rows(&ground.levels(), &ground.state));
    }
}

#[test]
fn a_flush_that_fails_leaves_no_file() {
    use chronos::storage::draft::Draft;
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 2000, 0);
    ground.flush();
    let before = ground.hot_files();
    for round in 0..3 {
        fill(&mut ground, "a", 500, 4000, round);
        let frozen = std::mem::take(&mut ground.memtable);
        let mut draft = Draft::new(&ground.hot);
        draft.absorb(&ground.hot, &frozen, &ground.state, &[]).unwrap();
        assert_eq!(ground.hot_files().len(), before.len() + 1);
        draft.absorb(&ground.hot, &frozen, &ground.state, &[]).unwrap();
        assert_eq!(ground.hot_files().len(), before.len() + 1, "what the second takes the place of is gone at once");
        fill(&mut ground, "b", 0, 2000, round);
        let other = std::mem::take(&mut ground.memtable);
        draft.absorb(&ground.hot, &other, &ground.state, &[]).unwrap();
        assert_eq!(ground.hot_files().len(), before.len() + 2, "each memtable has a file of its own");
        ground.hot.discard(draft).unwrap();
        assert_eq!(ground.hot_files(), before);
    }
}

#[test]
fn disk_stays_bounded_while_keys_come_from_all_over() {
    let mut ground = Ground::new(None);
    for round in 0..16 {
        let mut rows: Vec<(&str, i64, i64)> =
            (0..200).map(|i| ("a", scattered(round, i).rem_euclid(1 << 40), i % 50)).collect();
        rows.sort_unstable();
        rows.dedup_by_key(|(_, ts, _)| *ts);
        ground.put(&rows);
        ground.flush();
        bounded(&ground);
    }
    assert!(ground.hot.amplification() > 4.0, "every flush writes nearly everything: an early seal is due");
    ground.check();
}

#[test]
fn disk_stays_bounded_while_flushes_supersede_here_and_there() {
    let mut ground = Ground::new(None);
    let devices = ["a", "b", "c", "d"];
    // One value for all rows, so that the index is in the same order as the rows.
    let put = |ground: &mut Ground, device: &str, from: i64, rows: i64| {
        let at = |i: i64| i * 1000 + scattered(0, i).rem_euclid(1000);
        let rows: Vec<(&str, i64, i64)> = (from..from + rows).map(|i| (device, at(i), 1)).collect();
        ground.put(&rows);
        ground.flush();
    };
    devices.iter().for_each(|device| put(&mut ground, device, 0, 6_000));
    let (mut most, mut moved) = (0, 0);
    for round in 0..90 {
        let device = devices[(round % 4) as usize];
        put(&mut ground, device, scattered(7, round).rem_euclid(5_000), 600);
        bounded(&ground);
        most = most.max(ground.hot_files().len());
        moved += ground.work.bytes_moved;
    }
    assert!(moved > 0, "files are emptied before all of their blocks are superseded");
    assert!(most > 4, "files are partly superseded");
    assert!(most <= 66, "files are few");
    assert!(ground.hot.amplification() < 4.0);
    let shown = visible_rows(&ground.levels(), &ground.state);
    assert_eq!(shown.len(), ground.model.rows.len());
    ground.reopen_hot();
    assert_eq!(visible_rows(&ground.levels(), &ground.state), shown);
}

/// Four times what is live; a small store may have that many bytes more that wait for the next flush.
fn bounded(ground: &Ground) {
    // Blocks without their entries: a twentieth and some more.
    let live = ground.hot.block_bytes() * 3 / 2;
    let disk = ground.hot_bytes();
    assert!(disk <= 4 * live + (64 << 10), "{disk} bytes on disk for {live} live ones");
}

#[test]
fn appends_do_not_rewrite_blocks_that_are_nearly_full() {
    let mut ground = Ground::new(None);
    let rows = |round: i64| -> Vec<(&str, i64, i64)> { (0..1000).map(|i| ("a", round * 1000 + i, 1)).collect() };
    for round in 0..20 {
        ground.put(&rows(round));
        ground.flush();
    }
    // 1,000 rows make a block that is nearly full, and it is never written again.
    assert!(ground.hot.amplification() < 1.3, "{}", ground.hot.amplification());
    let level = ground.hot.level();
    let files: BTreeSet<u32> = level.manifest.blocks(ROWS).iter().map(|entry| entry.address.file).collect();
    assert_eq!(files.len(), 20);
}

/// Seals of a database that takes in rows under these keys and is then closed, with far less log than a seal waits for.
fn seals_of(key: impl Fn(i64) -> i64) -> u64 {
    let engine = engine::Options {
        files: Arc::new(Disk::new()),
        clock: Arc::new(SystemClock),
        hot: HotEngine::Memory,
        boot_id: None,
        limits: Limits {
            memtable_bytes_max: 256 << 10,
            cache_bytes_max: 64 << 10,
            seal_wal_bytes: 64 << 20,
            segment_bytes: 1 << 20,
            disk_reserve_bytes: 0,
            ..Limits::default()
        },
    };
    let database = Database::open_on("/data", &Options::default(), &engine).unwrap();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL)").unwrap();
    let counters = database.group().handle().unwrap().counters();
    for statement in 0..80 {
        let rows = statement * 1000..(statement + 1) * 1000;
        let tuples: Vec<String> = rows.map(|i| format!("({}, {i})", key(i))).collect();
        database.execute(&format!("INSERT INTO t VALUES {}", tuples.join(", "))).unwrap();
    }
    database.close().unwrap();
    assert!(counters.flushes.load(Ordering::Relaxed) > 6);
    counters.seals.load(Ordering::Relaxed)
}

#[test]
fn keys_in_no_order_are_sealed_early_and_appends_are_not() {
    assert_eq!(seals_of(|i| i), 1, "the one at the end");
    assert!(seals_of(|i| i * 7919 % 1_000_003) > 1);
}

#[test]
fn a_row_larger_than_a_block_makes_one_of_its_own() {
    let mut ground = Ground::new(None);
    let layout = ground.layout(ROWS);
    let text: String = (0..20_000u32).map(|i| char::from(b'!' + (i.wrapping_mul(2_654_435_761) >> 26) as u8)).collect();
    fill(&mut ground, "a", 0, 100, 0);
    let values = [Value::Text("a".into()), Value::Timestamp(5), Value::Int(5), Value::Text(text.clone())];
    let mut image = Vec::new();
    chronos::storage::codec::encode(&layout, &values, &mut image);
    let key = crate::storage_ground::row_key("a", 5);
    let stamp = chronos::storage::rows::Stamp {
        created_ms: ground.now_ms(),
        hlc: ground.state.hlc.next(),
        origin: chronos::ids::OriginUid(7),
        modified: ground.state.applied.next(),
    };
    ground.memtable.put(ROWS, &key, stamp, Some(&image));
    ground.flush();
    ground.reopen_hot();
    assert!(ground.store.range(b"", b"z").all(|pair| pair.unwrap().1.len() <= PART_BYTES));
    let found = visible_rows(&ground.levels(), &ground.state);
    assert_eq!(found.len(), 100);
    assert_eq!(found[5].0[3], Value::Text(text));
}

#[test]
fn a_retired_hot_store_is_closed_with_its_last_level_and_then_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hot-000001");
    let store = SledStore::open(&path).unwrap();
    let hot = HotStore::create(Box::new(store), Arc::new(SystemFiles), &path, &StateRecord::default()).unwrap();
    chronos::storage::current::write_boot(&SystemFiles, &path, Some("boot 1")).unwrap();
    let level = hot.level();
    let gone = path.clone();
    hot.retire(Box::new(move || {
        // The directory can be opened again only after the engine has let go of its lock.
        drop(SledStore::open(&gone).unwrap());
        std::fs::remove_dir_all(&gone).unwrap();
    }));
    drop(hot);
    assert!(path.exists(), "a level still holds it");
    drop(level);
    assert!(!path.exists());
}
