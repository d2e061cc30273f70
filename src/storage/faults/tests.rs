//! What the simulated disk promises, since the tests that rest on it prove no more than it does.

use super::*;
use crate::storage::files::{File, Files, Open, read, replace};

const A: &str = "/a";

fn disk_with(content: &[u8]) -> (Disk, Arc<dyn File>) {
    let disk = Disk::new();
    let file = disk.open(Path::new(A), Open::Create).unwrap();
    file.write_at(content, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

fn content(disk: &Disk) -> Vec<u8> {
    read(disk, Path::new(A)).unwrap()
}

#[test]
fn what_is_not_synced_may_be_lost_or_kept() {
    let (disk, file) = disk_with(b"old");
    file.write_at(b"newer", 0).unwrap();
    assert_eq!(content(&disk), b"newer", "the process sees it");
    assert_eq!(content(&disk.crash(1, Crash::Lose)), b"old");
    assert_eq!(content(&disk.crash(1, Crash::Keep)), b"newer");
    file.sync_data().unwrap();
    assert_eq!(content(&disk.crash(1, Crash::Lose)), b"newer");
}

#[test]
fn a_torn_write_leaves_any_part_of_it() {
    let (disk, file) = disk_with(&[0; 100]);
    file.write_at(&[1; 100], 0).unwrap();
    let mut seen: Vec<usize> = Vec::new();
    for seed in 0..500 {
        let content = content(&disk.crash(seed, Crash::Tear));
        let ones = content.iter().take_while(|&&byte| byte == 1).count();
        assert!(content[ones..].iter().all(|&byte| byte == 0));
        seen.push(ones);
    }
    assert!(seen.contains(&0) && seen.contains(&100) && seen.iter().any(|&ones| (10..90).contains(&ones)));
}

#[test]
fn sectors_reach_the_medium_in_any_order() {
    let (disk, file) = disk_with(&[0; 1536]);
    file.write_at(&[1; 1536], 0).unwrap();
    let sectors = |seed| {
        let content = content(&disk.crash(seed, Crash::Reorder));
        assert!(content.chunks(512).all(|sector| sector.iter().all(|&byte| byte == sector[0])));
        [content[0], content[512], content[1024]]
    };
    let seen: Vec<[u8; 3]> = (0..200).map(sectors).collect();
    for bits in 0..8u8 {
        assert!(seen.contains(&[bits & 1, bits >> 1 & 1, bits >> 2]), "{bits:03b}");
    }
    assert_eq!(seen, (0..200).map(sectors).collect::<Vec<[u8; 3]>>(), "the same seed, the same disk");
}

#[test]
fn a_failed_sync_loses_what_reads_still_show() {
    let (disk, file) = disk_with(b"old");
    file.write_at(b"new", 0).unwrap();
    disk.fail_at(disk.operations(), Fault::Io);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(content(&disk), b"new");
    assert_eq!(content(&disk.crash(1, Crash::Keep)), b"old");
    file.write_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(content(&disk.crash(1, Crash::Lose)), b"new");
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_whatever_happens() {
    for stop in 0.. {
        let (disk, _) = disk_with(b"old content");
        disk.stop_at(disk.operations() + stop);
        let done = replace(&disk, Path::new(A), b"new content, longer").is_ok();
        for mode in Crash::ALL {
            for seed in 0..20 {
                let content = content(&disk.crash(seed, mode));
                assert!(content == b"new content, longer" || (!done && content == b"old content"), "{mode:?}");
            }
        }
        if done {
            return;
        }
    }
}

#[test]
fn names_are_durable_only_once_their_directory_is_synced() {
    let disk = Disk::new();
    let path = Path::new("/d/f");
    disk.create_dir(Path::new("/d")).unwrap();
    disk.open(path, Open::Create).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    let nowhere = disk.crash(1, Crash::Lose);
    assert!(!nowhere.exists(path), "the name is durable in a directory that is not");
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(disk.crash(1, Crash::Lose).exists(path));
    disk.remove(path).unwrap();
    assert!(!disk.exists(path) && disk.crash(1, Crash::Lose).exists(path));
}

#[test]
fn a_full_disk_refuses_to_grow_and_a_taken_lock_to_be_taken() {
    let (disk, file) = disk_with(&[0; 100]);
    disk.set_capacity(Some(150));
    assert_eq!(disk.free_bytes(Path::new(A)).unwrap(), 50);
    assert!(file.write_at(&[1; 100], 0).is_ok());
    assert_eq!(file.write_at(&[1; 100], 100).unwrap_err().sqlstate(), crate::error::SqlState::DISK_FULL);
    let lock = disk.lock(Path::new("/LOCK")).unwrap();
    assert!(lock.is_some() && disk.lock(Path::new("/LOCK")).unwrap().is_none());
    drop(lock);
    assert!(disk.lock(Path::new("/LOCK")).unwrap().is_some());
}
