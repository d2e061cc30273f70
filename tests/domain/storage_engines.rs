//! One conformance suite on both hot engines: what the hot store relies on, and nothing more.

use chronos::storage::block_store::{BlockStore, Edit};
use chronos::storage::memory::MemoryStore;
use chronos::storage::sled::SledStore;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Runs a fact on both engines, each fresh.
fn on_both(fact: impl Fn(&dyn BlockStore)) {
    fact(&MemoryStore::new());
    let directory = tempfile::tempdir().unwrap();
    fact(&SledStore::open(directory.path()).unwrap());
}

fn put(key: &[u8], value: &[u8]) -> Edit {
    (key.to_vec(), Some(value.to_vec()))
}

fn keys(store: &dyn BlockStore, from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
    store.range(from, to).map(|pair| pair.unwrap().0).collect()
}

#[test]
fn what_was_put_is_found_and_what_was_removed_is_not() {
    on_both(|store| {
        store.apply_batch(vec![put(b"a", b"1"), put(b"b", b"")]).unwrap();
        assert_eq!(store.get(b"a").unwrap().unwrap(), b"1");
        assert_eq!(store.get(b"b").unwrap().unwrap(), b"");
        assert_eq!(store.get(b"c").unwrap(), None);
        store.apply_batch(vec![(b"a".to_vec(), None), put(b"b", b"2")]).unwrap();
        assert_eq!(store.get(b"a").unwrap(), None);
        assert_eq!(store.get(b"b").unwrap().unwrap(), b"2");
    });
}

#[test]
fn a_range_is_ascending_and_leaves_out_its_end() {
    on_both(|store| {
        store.apply_batch([b"d", b"a", b"c", b"b"].iter().map(|key| put(*key, b"")).collect()).unwrap();
        assert_eq!(keys(store, b"b", b"d"), [b"b".to_vec(), b"c".to_vec()]);
        assert_eq!(keys(store, b"", b"z").len(), 4);
        assert!(keys(store, b"c", b"c").is_empty());
        assert!(keys(store, b"d", b"a").is_empty());
    });
}

#[test]
fn the_later_of_two_edits_of_a_key_counts() {
    on_both(|store| {
        store.apply_batch(vec![put(b"a", b"1"), put(b"a", b"2"), put(b"b", b"1"), (b"b".to_vec(), None)]).unwrap();
        assert_eq!(store.get(b"a").unwrap().unwrap(), b"2");
        assert_eq!(store.get(b"b").unwrap(), None);
    });
}

#[test]
fn an_empty_batch_changes_nothing() {
    on_both(|store| {
        store.apply_batch(Vec::new()).unwrap();
        assert!(keys(store, b"", b"\xFF").is_empty());
    });
}

#[test]
fn values_of_four_kilobytes_come_back_whole() {
    on_both(|store| {
        for number in 0..2_000u32 {
            let value: Vec<u8> = (0..4_000u32).map(|i| (i.wrapping_mul(number) >> 3) as u8).collect();
            store.apply_batch(vec![put(&number.to_be_bytes(), &value)]).unwrap();
        }
        let mut count = 0;
        for pair in store.range(&[], &[0xFF; 5]) {
            let (key, value) = pair.unwrap();
            let number = u32::from_be_bytes(key.try_into().unwrap());
            assert!(value.iter().zip(0u32..).all(|(byte, i)| *byte == (i.wrapping_mul(number) >> 3) as u8));
            count += 1;
        }
        assert_eq!(count, 2_000);
        assert!(store.size().unwrap() > 0);
    });
}

#[test]
fn a_range_goes_on_while_what_it_has_passed_is_removed() {
    on_both(|store| {
        store.apply_batch((0..500u16).map(|i| put(&i.to_be_bytes(), b"x")).collect()).unwrap();
        let mut seen = 0u16;
        for pair in store.range(&[], &[0xFF; 3]) {
            let (key, _) = pair.unwrap();
            assert_eq!(key, seen.to_be_bytes());
            store.apply_batch(vec![(key, None)]).unwrap();
            seen += 1;
        }
        assert_eq!(seen, 500);
        assert!(keys(store, &[], &[0xFF; 3]).is_empty());
    });
}

#[test]
fn a_sled_store_survives_being_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    store.apply_batch(vec![put(b"a", b"1")]).unwrap();
    store.flush().unwrap();
    drop(store);
    let store = SledStore::open(directory.path()).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap(), b"1");
}

/// Flips a byte in every file of a directory.
fn damage(directory: &Path, at: u64) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let mut content = std::fs::read(&path).unwrap();
            if !content.is_empty() {
                let at = at as usize % content.len();
                content[at] ^= 0xFF;
                std::fs::write(&path, content).unwrap();
            }
        }
    }
}

#[test]
fn a_damaged_sled_directory_is_an_error_or_whole_but_never_a_panic() {
    for at in [0, 7, 100, 1_000, 5_000, 50_000, 400_000] {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        store.apply_batch((0..300u16).map(|i| put(&i.to_be_bytes(), &[7; 1000])).collect()).unwrap();
        drop(store);
        damage(directory.path(), at);
        if let Ok(store) = SledStore::open(directory.path()) {
            let _ = store.range(&[], &[0xFF; 3]).collect::<Result<Vec<_>, _>>();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_do_what_a_map_does(
        batches in prop::collection::vec(
            prop::collection::vec((0u8..40, prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..20),
            0..20,
        ),
    ) {
        on_both(|store| {
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for batch in &batches {
                let edits: Vec<Edit> = batch.iter().map(|(key, value)| (vec![*key], value.clone())).collect();
                store.apply_batch(edits.clone()).unwrap();
                for (key, value) in edits {
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
            }
            let found: Vec<(Vec<u8>, Vec<u8>)> = store.range(&[], &[0xFF]).map(|pair| pair.unwrap()).collect();
            assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
            for (key, value) in &model {
                assert_eq!(store.get(key).unwrap().as_ref(), Some(value));
            }
        });
    }
}

/// An actor's restart opens the directory at once, while sled's pool still holds the lock of the one before.
#[test]
fn a_sled_directory_opens_again_right_after_it_was_let_go() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..100_u32 {
        let store = SledStore::open(directory.path()).unwrap();
        assert_eq!(keys(&store, &[], &[0xFF; 5]).len(), number as usize);
        store.apply_batch(vec![put(&number.to_be_bytes(), &[7; 4_000])]).unwrap();
        store.flush().unwrap();
    }
}

#[test]
fn a_sled_directory_that_somebody_keeps_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let _kept = SledStore::open(directory.path()).unwrap();
    let refused = SledStore::open(directory.path()).err().unwrap().to_string();
    assert!(refused.contains(&directory.path().display().to_string()), "{refused}");
}
