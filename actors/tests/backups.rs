//! Backups on a file system that is slow and knows no hard links.

use crate::actors::tests::files::{Call, HookedFiles};
use crate::actors::tests::node::{Running, on_a_system, terms};
use chronos::clock::SystemClock;
use chronos::embedded::engine_options;
use chronos::error::{Error, SqlState};
use chronos::storage::engine::{Limits, Options};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Semaphore;

/// As FAT is: no hard links. Asking for one takes as long as the test wants.
#[derive(Clone, Default)]
struct Fat {
    is_held: Arc<AtomicBool>,
    /// Files that backups began, and pieces that they wrote.
    begun: Arc<AtomicUsize>,
    pieces: Arc<AtomicUsize>,
}

impl Fat {
    fn files(&self) -> HookedFiles {
        let fat = self.clone();
        HookedFiles(Arc::new(move |call, path| {
            let is_backup = path.components().any(|part| part.as_os_str() == "snapshots");
            if call == Call::Link {
                while fat.is_held.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                let refused = std::io::ErrorKind::PermissionDenied.into();
                return Err(Error::io(format_args!("link {}", path.display()), &refused));
            }
            if is_backup && call == Call::Create {
                fat.begun.fetch_add(1, Ordering::AcqRel);
            }
            if is_backup && call == Call::Write {
                fat.pieces.fetch_add(1, Ordering::AcqRel);
            }
            Ok(())
        }))
    }
}

async fn start(directory: &Path, fat: &Fat, reserve: u64) -> Running {
    let limits = Limits { disk_reserve_bytes: reserve, memtable_bytes_max: 256 << 10, ..Limits::default() };
    let options = Options { files: Arc::new(fat.files()), ..engine_options(limits) };
    Running::start_on(directory, options, Arc::new(SystemClock)).await
}

/// Writes until something is flushed, so that a backup has something to seal and to link.
async fn write(node: &Running) {
    node.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT)").await.unwrap();
    let mut next = 0;
    while node.published.storage().totals.flushes == 0 {
        let values: Vec<String> = (next..next + 500).map(|id| format!("({id}, 'row {}')", id * 7919)).collect();
        node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        next += 500;
    }
}

fn left_in(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("node1/snapshots")).map_or(0, Iterator::count)
}

#[test]
fn a_backup_copies_where_there_are_no_hard_links() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start(directory.path(), &Fat::default(), 0).await;
        write(&node).await;
        let permits = Arc::new(Semaphore::new(1));
        let permit = permits.clone().try_acquire_owned().unwrap();
        let backup = node.router.backup(permit, terms().deadline).await.unwrap();
        let sealed = |state: &Path| {
            let files = std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
            let mut sealed: Vec<(String, Vec<u8>)> = files
                .filter(|path| path.extension().is_some_and(|ending| ending == "blk"))
                .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), std::fs::read(&path).unwrap()))
                .collect();
            sealed.sort();
            sealed
        };
        let copied = sealed(&backup.path.join("state"));
        assert!(!copied.is_empty());
        let original = sealed(&directory.path().join("node1/state"));
        assert!(copied.iter().all(|file| original.contains(file)), "the sealed files, byte for byte");
        assert_eq!(permits.available_permits(), 0);
        drop(backup);
        assert_eq!((permits.available_permits(), left_in(directory.path())), (1, 0));
        node.stop().await;
    });
}

#[test]
fn a_backup_that_nobody_waits_for_any_more_ends_early_and_keeps_others_out_until_then() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let fat = Fat::default();
        let node = start(directory.path(), &fat, 0).await;
        write(&node).await;
        let permits = Arc::new(Semaphore::new(1));
        fat.is_held.store(true, Ordering::Release);
        let permit = permits.clone().try_acquire_owned().unwrap();
        let router = node.router.clone();
        let asked = actix::spawn(async move { router.backup(permit, terms().deadline).await.map(drop) });
        // Its directory is made before the first link.
        while left_in(directory.path()) == 0 {
            tokio::task::yield_now().await;
        }
        asked.abort();
        asked.await.unwrap_err();
        assert_eq!(permits.available_permits(), 0, "it is still being made");
        // By the second time that storage says how it is, it has looked whether somebody waits.
        node.until_published().await;
        node.until_published().await;
        fat.is_held.store(false, Ordering::Release);
        while permits.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(left_in(directory.path()), 0);
        let (begun, pieces) = (fat.begun.load(Ordering::Acquire), fat.pieces.load(Ordering::Acquire));
        // It may have been on its way from the directory to the link, and then it begins no file at all.
        assert!(begun <= 1 && pieces <= 1, "{begun} files, {pieces} pieces: the one at hand was its last");
        // The next one finds everything as it was.
        let permit = permits.clone().try_acquire_owned().unwrap();
        let whole = node.router.backup(permit, terms().deadline).await.unwrap();
        assert!(whole.path.join("CLUSTER").exists());
        drop(whole);
        assert!(fat.begun.load(Ordering::Acquire) > 3, "a sealed file, the log, CURRENT and CLUSTER");
        node.stop().await;
    });
}

#[test]
fn no_backup_is_begun_on_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = start(directory.path(), &Fat::default(), u64::MAX).await;
        // What is free is looked at now and then.
        loop {
            let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            match node.router.backup(permit, terms().deadline).await {
                Ok(backup) => drop(backup),
                Err(error) => {
                    assert_eq!(error.sqlstate(), SqlState::DISK_FULL);
                    break;
                }
            }
        }
        assert_eq!(left_in(directory.path()), 0);
        node.stop().await;
    });
}
