//! Damage below the memtables: a flipped byte anywhere is found and named, and never served.

use crate::storage_ground::{Ground, ROWS, visible_rows};
use chronos::error::{Error, Kind};
use chronos::storage::block_store::BlockStore;
use chronos::storage::current::{self, Current};
use chronos::storage::files::{Files, SystemFiles};
use chronos::storage::hot::{HotStore, block_path};
use chronos::storage::memory::MemoryStore;
use chronos::storage::sealed::{self, SealedRun};
use std::path::Path;
use std::sync::Arc;

fn filled() -> Ground {
    let mut ground = Ground::new(None);
    let rows: Vec<(&str, i64, i64)> = (0..700).map(|ts| ("a", ts, ts * 7919 % 1000)).collect();
    ground.put(&rows);
    ground.delete_range("a", 5, 9);
    ground.flush();
    let rows: Vec<(&str, i64, i64)> = (300..900).map(|ts| ("a", ts, ts * 31 % 1000)).collect();
    ground.put(&rows);
    ground.flush();
    ground
}

fn is_named(error: &Error, place: &str) {
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(error.message().contains(place), "{error}");
}

#[test]
fn a_flipped_byte_in_any_value_of_the_hot_store_is_found_when_it_is_opened() {
    let ground = filled();
    for (key, value) in ground.store.range(&[], &[0xFF]).map(Result::unwrap) {
        for at in [0, 5, 9, value.len() / 2, value.len() - 1] {
            let copy = ground.copy_hot();
            let mut bad = value.clone();
            bad[at.min(value.len() - 1)] ^= 0x10;
            copy.store.apply_batch(vec![(key.clone(), Some(bad))]).unwrap();
            is_named(&copy.open().err().expect("damage is found"), "hot store");
        }
    }
}

#[test]
fn a_missing_value_of_the_hot_store_is_found_when_it_is_opened() {
    let ground = filled();
    for (key, _) in ground.store.range(&[], &[0xFF]).map(Result::unwrap) {
        let copy = ground.copy_hot();
        copy.store.apply_batch(vec![(key, None)]).unwrap();
        is_named(&copy.open().err().expect("a gap is found"), "hot store");
    }
}

#[test]
fn an_earlier_copy_of_the_hot_store_is_whole_and_says_how_early() {
    let mut ground = filled();
    let copy = ground.copy_hot();
    let (state, rows) = (ground.state.clone(), visible_rows(&ground.levels(), &ground.state));
    ground.put(&[("a", 1, 1)]);
    ground.flush();
    let earlier = copy.open().unwrap();
    assert_eq!(*earlier.state(), state);
    assert_eq!(visible_rows(&[(*earlier.level()).clone()], &state), rows);
}

#[test]
fn values_of_two_times_do_not_pass_for_one_store() {
    let mut ground = filled();
    let earlier = ground.store.copy();
    ground.put(&[("a", 1, 1), ("a", 600, 1)]);
    ground.flush();
    let later = ground.store.copy();
    let mut mixed = 0;
    for (key, value) in earlier.range(&[], &[0xFF]).map(Result::unwrap) {
        if later.get(&key).unwrap().is_some_and(|now| now != value) {
            let copy = ground.copy_hot();
            copy.store.apply_batch(vec![(key, Some(value))]).unwrap();
            is_named(&copy.open().err().expect("a mixture is found"), "hot store");
            mixed += 1;
        }
    }
    assert!(mixed > 0);
}

#[test]
fn an_empty_engine_is_not_taken_for_a_hot_store() {
    let directory = tempfile::tempdir().unwrap();
    let opened = HotStore::open(Box::new(MemoryStore::new()), Arc::new(SystemFiles), directory.path());
    is_named(&opened.err().expect("nothing is there"), "hot store");
}

#[test]
fn a_hot_block_damaged_while_in_use_is_never_served() {
    let ground = filled();
    let level = ground.hot.level();
    for entry in level.manifest.blocks(ROWS) {
        level.source.read(entry).unwrap();
    }
    for entry in level.manifest.blocks(ROWS) {
        let path = block_path(&ground.hot_path(), entry.address.file);
        for at in [0, entry.bytes as usize / 2, entry.bytes as usize - 1] {
            flip(&path, entry.address.offset as usize + at);
            let error = level.source.read(entry).expect_err("damage is found");
            is_named(&error, &format!("hot store, {:06}.hot at {}", entry.address.file, entry.address.offset));
            assert!(error.message().contains("keys "), "{error}");
            flip(&path, entry.address.offset as usize + at);
        }
        level.source.read(entry).expect("it is as it was");
    }
}

#[test]
fn a_flipped_byte_of_a_hot_file_is_found_when_the_store_is_opened() {
    let ground = filled();
    let mut named = 0;
    for (path, bytes) in ground.hot_files() {
        for at in (0..bytes as usize).step_by(61) {
            let copy = ground.copy_hot();
            flip(&copy.directory.path().join(path.file_name().unwrap()), at);
            match copy.open() {
                Err(error) => {
                    is_named(&error, "hot store, 00000");
                    named += 1;
                }
                // A byte of a block that was superseded: nobody reads it.
                Ok(hot) => assert_eq!(visible_rows(&[(*hot.level()).clone()], &ground.state), rows_of(&ground)),
            }
        }
    }
    assert!(named > 10);
}

fn rows_of(ground: &Ground) -> Vec<(Vec<chronos::sql::value::Value>, u64, u64)> {
    visible_rows(&ground.levels(), &ground.state)
}

#[test]
fn a_hot_file_that_is_missing_or_short_or_anothers_is_found_when_the_store_is_opened() {
    let mut ground = filled();
    ground.put(&[("z", 1, 1)]);
    ground.flush();
    let files = ground.hot_files();
    assert!(files.len() >= 2);
    for (path, _) in &files {
        let copy = ground.copy_hot();
        let path = copy.directory.path().join(path.file_name().unwrap());
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..20]).unwrap();
        is_named(&copy.open().err().expect("the file is short"), "the file is cut short");
        std::fs::remove_file(&path).unwrap();
        is_named(&copy.open().err().expect("the file is missing"), &format!("{} is missing", path.display()));
        let other = files.iter().find(|(other, _)| other.file_name() != path.file_name()).unwrap();
        std::fs::copy(&other.0, &path).unwrap();
        is_named(&copy.open().err().expect("it is another file"), "hot store, 00000");
        // Damage removes nothing: somebody may want to look.
        assert!(path.exists());
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(visible_rows(&[(*copy.open().unwrap().level()).clone()], &ground.state), rows_of(&ground));
    }
}

fn flip(path: &Path, at: usize) {
    let mut content = std::fs::read(path).unwrap();
    content[at] ^= 0x40;
    std::fs::write(path, content).unwrap();
}

#[test]
fn every_flipped_byte_of_a_sealed_file_is_found_by_opening_reading_or_verifying_it() {
    let mut ground = filled();
    ground.limits.file_bytes = 1 << 20;
    ground.seal();
    let path = sealed::path(&ground.path(), ground.current.runs[0][0].number);
    let whole = std::fs::read(&path).unwrap();
    let layout = ground.layout(ROWS);
    let good = visible_rows(&ground.levels(), &ground.state);
    for at in (0..whole.len()).step_by(97).chain(whole.len() - 30..whole.len()) {
        flip(&path, at);
        match SealedRun::open(&ground.files, &ground.path(), &ground.current.runs[0], &[]) {
            Err(error) => is_named(&error, "000001.blk"),
            Ok(run) => {
                let error = run.files()[0].verify().expect_err("the content hash covers every byte before the footer");
                is_named(&error, "000001.blk");
                let mut reads = run.level.manifest.blocks(ROWS).iter().map(|entry| run.level.source.read(entry));
                if let Some(error) = reads.find_map(Result::err) {
                    is_named(&error, "000001.blk at ");
                    assert!(error.message().contains("keys "), "{error}");
                }
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    let run = SealedRun::open(&ground.files, &ground.path(), &ground.current.runs[0], &[]).unwrap();
    run.files()[0].verify().unwrap();
    assert_eq!(visible_rows(std::slice::from_ref(&run.level), &ground.state), good);
    assert!(
        run.level.manifest.blocks(ROWS).iter().all(|entry| run
            .level
            .source
            .read(entry)
            .unwrap()
            .decode(&layout)
            .is_ok())
    );
}

#[test]
fn a_sealed_file_cut_short_is_damage() {
    let mut ground = filled();
    ground.seal();
    let name = &ground.current.runs[0][0];
    let path = sealed::path(&ground.path(), name.number);
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = SealedRun::open(&ground.files, &ground.path(), &ground.current.runs[0], &[]).err().unwrap();
        is_named(&error, ".blk");
    }
}

#[test]
fn current_missing_or_damaged_is_damage_by_name() {
    let mut ground = filled();
    ground.seal();
    let path = current::path(&ground.path());
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        flip(&path, at);
        is_named(&Current::load(&SystemFiles, &ground.path()).unwrap_err(), "CURRENT");
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(Current::load(&SystemFiles, &ground.path()).unwrap(), ground.current);
    std::fs::remove_file(&path).unwrap();
    is_named(&Current::load(&SystemFiles, &ground.path()).unwrap_err(), "CURRENT is missing");
}

#[test]
fn nothing_is_deleted_where_a_named_file_is_missing() {
    let mut ground = filled();
    ground.seal();
    let named = sealed::path(&ground.path(), ground.current.runs[0][0].number);
    std::fs::remove_file(&named).unwrap();
    let stray = sealed::path(&ground.path(), 999);
    std::fs::write(&stray, b"stray").unwrap();
    let error = current::clean(&SystemFiles, &ground.path(), &ground.current).unwrap_err();
    is_named(&error, &named.display().to_string());
    assert!(stray.exists());
}

#[test]
fn a_start_removes_what_current_does_not_name() {
    let mut ground = filled();
    ground.seal();
    let directory = ground.path();
    let hot = current::hot_path(&directory, ground.current.hot);
    let old = current::hot_path(&directory, 1);
    for path in [&hot, &old] {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("db"), b"x").unwrap();
    }
    let strays = [sealed::path(&directory, 999), directory.join("CURRENT.tmp")];
    for path in &strays {
        std::fs::write(path, b"stray").unwrap();
    }
    let mut removed = current::clean(&SystemFiles, &directory, &ground.current).unwrap();
    removed.sort();
    let mut expected = vec![old.clone(), strays[0].clone(), strays[1].clone()];
    expected.sort();
    assert_eq!(removed, expected);
    assert!(hot.exists() && !old.exists());
    ground.reopen_runs();
}

#[test]
fn a_hot_directory_is_trusted_only_within_the_boot_that_made_it() {
    let directory = tempfile::tempdir().unwrap();
    let hot = current::hot_path(directory.path(), 12);
    SystemFiles.create_dir(&hot).unwrap();
    assert!(!current::is_same_boot(&SystemFiles, &hot, Some("one")), "no BOOT is not the same");
    current::write_boot(&SystemFiles, &hot, Some("one")).unwrap();
    assert!(current::is_same_boot(&SystemFiles, &hot, Some("one")));
    assert!(!current::is_same_boot(&SystemFiles, &hot, Some("two")));
    assert!(!current::is_same_boot(&SystemFiles, &hot, None), "an id that cannot be read is not the same");
    current::distrust(&SystemFiles, &hot).unwrap();
    assert!(!current::is_same_boot(&SystemFiles, &hot, Some("one")));
    assert!(current::boot_id(&SystemFiles).is_some_and(|id| id.len() == 36));
}
