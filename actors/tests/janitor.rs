//! The janitor with a clock that the test moves.

use crate::actors::DaemonConfig;
use crate::actors::messages::Content;
use crate::actors::tests::node::{Running, ints, on_a_system, statement, terms};
use crate::actors::tests::patience::until;
use chronos::clock::{Clock, ManualClock, Wall};
use chronos::embedded::engine_options;
use chronos::storage::engine::Limits;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Limits with which a few thousand rows are sealed.
pub(super) fn small() -> Limits {
    Limits {
        memtable_bytes_max: 256 << 10,
        seal_wal_bytes: 256 << 10,
        segment_bytes: 128 << 10,
        disk_reserve_bytes: 0,
        ..Limits::default()
    }
}

/// A node whose interval of scrubs is shorter than the janitor's own pace: a pass comes when the test moves the clock.
async fn start(directory: &Path, clock: &Arc<ManualClock>) -> Running {
    let mut config = DaemonConfig::new("node1", directory, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.scrub_interval = INTERVAL;
    Running::start_with(config, engine_options(small()), clock.clone()).await
}

const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until nothing is flushed, sealed or merged any more.
pub(super) async fn until_quiet(node: &Running) {
    let work = || {
        let totals = node.published.storage().totals.clone();
        (totals.flushes, totals.seals, totals.merges)
    };
    loop {
        let before = work();
        node.until_published().await;
        node.until_published().await;
        if work() == before {
            return;
        }
    }
}

/// Moves the clock to the next pass and waits until it has ended.
async fn scrubbed(node: &Running, clock: &ManualClock) {
    let before = node.published.scrub().passes;
    clock.advance(INTERVAL);
    until(async || node.published.scrub().passes > before).await;
}

/// Files of the state directory with this ending, those below it included.
pub(super) fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().is_some_and(|path| path.ends_with(ending)) {
            found.push(path);
        }
    }
    found
}

pub(super) fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
}

#[test]
fn a_scrub_reads_all_levels_and_names_what_is_damaged_until_it_is_whole_again() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Wall(1_700_000_000_000)));
    on_a_system(async {
        let node = start(directory.path(), &clock).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT)").await.unwrap();
        let mut next = 0;
        while node.published.storage().totals.seals == 0 {
            let values: Vec<String> =
                (next..next + 500).map(|id| format!("({id}, 'row {} of many')", id * 7919)).collect();
            node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
            next += 500;
        }
        scrubbed(&node, &clock).await;
        let whole = node.published.scrub();
        assert!(whole.blocks > 0 && whole.bytes > 0 && whole.damaged.is_empty(), "{whole:?}");
        let rows: u64 = node.router.status().await.unwrap().levels.iter().map(|level| level.rows).sum();
        assert!(rows > 0, "a pass over nothing would find nothing");

        // What is merged away is read by nobody any more: the victim must be one that stays.
        until_quiet(&node).await;
        let sealed = files(&directory.path().join("node1/state"), ".blk");
        let victim = sealed.iter().find(|path| !path.to_str().unwrap().contains("hot-")).expect("there was a seal");
        flip(victim, 300);
        scrubbed(&node, &clock).await;
        let health = node.router.health().await.unwrap();
        let reason = health.degraded.expect("degraded");
        let name = victim.file_name().unwrap().to_str().unwrap();
        assert!(reason.starts_with("a block is damaged on disk: ") && reason.contains(name), "{reason}");
        let status = node.router.status().await.unwrap();
        assert_eq!(status.scrub.damaged.len(), 1, "{:?}", status.scrub);
        let text = node.router.render().await.unwrap();
        assert!(text.contains("\nchronos_scrub_damaged_blocks 1\n"), "{text}");
        assert!(node.execute("SELECT 1").await.is_ok(), "everything else is served");

        flip(victim, 300);
        scrubbed(&node, &clock).await;
        assert_eq!(node.router.health().await.unwrap().degraded, None);
        node.stop().await;
    });
}

#[test]
fn the_content_is_hashed_for_whoever_asks_and_told_with_its_position() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Wall(1_700_000_000_000)));
    on_a_system(async {
        let node = start(directory.path(), &clock).await;
        assert_eq!(node.published.content(), None, "nobody has asked");
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let hashed = async |from: Option<Content>| {
            until(async || node.router.status().await.unwrap().content.is_some_and(|now| Some(now) != from)).await;
            node.published.content().unwrap()
        };
        let empty = hashed(None).await;
        assert_eq!(node.router.status().await.unwrap().content, Some(empty), "as long as nothing is written");
        node.execute("INSERT INTO t VALUES (1)").await.unwrap();
        let one = hashed(Some(empty)).await;
        assert!(one.index > empty.index && one.hash != empty.hash, "{empty:?}, {one:?}");
        // What is older than what is known is not shown.
        node.published.set_content(empty);
        assert_eq!(node.published.content(), Some(one));
        node.stop().await;
    });
}

#[test]
fn a_damaged_hot_block_is_made_anew_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Wall(1_700_000_000_000)));
    on_a_system(async {
        let mut config = DaemonConfig::new("node1", directory.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
        config.scrub_interval = INTERVAL;
        // Flushed, and not sealed.
        let limits = Limits { seal_wal_bytes: 64 << 20, ..small() };
        let node = Running::start_with(config, engine_options(limits), clock.clone()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT)").await.unwrap();
        let mut next = 0;
        while node.published.storage().totals.flushes == 0 {
            let values: Vec<String> = (next..next + 500).map(|id| format!("({id}, 'row {}')", id * 7919)).collect();
            node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
            next += 500;
        }
        until_quiet(&node).await;
        let hot = files(&directory.path().join("node1/state"), ".hot");
        for victim in &hot {
            flip(victim, victim.metadata().unwrap().len() as usize / 2);
        }
        clock.advance(INTERVAL);
        let restarts = || node.router.routes().counters.restarts_of("storage");
        until(async || restarts() == 1 && node.router.absent().is_empty()).await;
        let count = loop {
            if let Ok(count) = node.execute("SELECT COUNT(*) FROM t").await {
                break count;
            }
        };
        assert_eq!(ints(&count), [next], "every row is there");
        scrubbed(&node, &clock).await;
        assert_eq!(node.router.health().await.unwrap().degraded, None);
        assert_eq!(restarts(), 1, "once was enough");
        node.stop().await;
    });
}

#[test]
fn rows_whose_time_has_come_are_counted_once_their_space_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Wall(1_700_000_000_000)));
    on_a_system(async {
        let mut config = DaemonConfig::new("node1", directory.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
        config.ttl_cleanup_interval = Duration::from_millis(10);
        let node = Running::start_with(config, engine_options(small()), clock.clone()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT) WITH (ttl = '1s')").await.unwrap();
        let mut next = 0;
        while node.published.storage().totals.rows_expired < 1000 {
            let values: Vec<String> = (next..next + 500).map(|id| format!("({id}, 'row {}')", id * 7919)).collect();
            node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
            next += 500;
            clock.advance(Duration::from_millis(500));
        }
        let text = node.router.render().await.unwrap();
        let counted = text.lines().find_map(|line| line.strip_prefix("chronos_ttl_rows_expired_total ")).unwrap();
        assert!(counted.parse::<u64>().unwrap() >= 1000, "{counted}");
        assert!(counted.parse::<i64>().unwrap() <= next, "no row is counted twice: {counted} of {next}");
        node.stop().await;
    });
}

#[test]
fn tombstones_stay_for_as_long_as_a_view_may_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Wall(1_700_000_000_000)));
    on_a_system(async {
        let mut config = DaemonConfig::new("node1", directory.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
        config.ttl_cleanup_interval = Duration::from_millis(10);
        let hour = Duration::from_hours(1);
        let limits = Limits { view_age_max: hour, ..Limits::default() };
        let node = Running::start_with(config, engine_options(limits), clock.clone()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        node.execute("CREATE TABLE marker (id INT PRIMARY KEY) WITH (ttl = '1s')").await.unwrap();
        // Enough entries for a floor to be worth one of its own.
        let writers: Vec<_> = (0..100)
            .map(|writer| {
                let router = node.router.clone();
                actix::spawn(async move {
                    for id in writer * 101..(writer + 1) * 101 {
                        router.execute(statement(&format!("INSERT INTO t VALUES ({id})")), terms()).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let table = |name: &str| node.parts.handle().unwrap().view().catalog.table(name).unwrap().clone();
        let floor = || table("t").floor.0;
        // A turn moves the mark of the other table to the present second; the next one begins when all of it is done.
        let turn_after = async |wait: Duration| {
            clock.advance(wait);
            until(async || table("marker").expired_below_ms + 1000 >= clock.wall().0).await;
        };
        turn_after(Duration::from_mins(1)).await;
        turn_after(Duration::from_mins(59)).await;
        turn_after(Duration::from_secs(1)).await;
        assert_eq!(floor(), 0, "a view of the beginning may still be read");
        clock.advance(Duration::from_mins(2));
        until(async || floor() > 10_000).await;
        node.stop().await;
    });
}
