//! The engine of a member of a group: what it commits by itself, what it keeps in memory, and which thread waits.

use super::snapshots::{append, commit, engine, group, hard_state, hash, history, open};
use chronos::embedded::{self, Begin, Database};
use chronos::hlc::Timestamp;
use chronos::ids::{ClusterId, LogIndex, OriginUid, Term};
use chronos::machine::{Body, COMMAND_VERSION, Command};
use chronos::raft::{Entry, HardState, Membership, NodeId, Payload, Position};
use chronos::storage::content_hash::content_hash;
use chronos::storage::engine::{Append, Engine, Event, HotEngine, Limits, Recovered, Stop};
use chronos::storage::faults::{Crash, Disk, Operation};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

fn position(entry: &Entry) -> Position {
    Position { index: entry.index, term: entry.term }
}

fn applied(engine: &Engine) -> LogIndex {
    engine.handle().lasting_view().version
}

fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

/// Waits until everything that was handed over before is durable.
fn settle(engine: &Engine) {
    let (send, done) = std::sync::mpsc::channel();
    engine.handle().read_log(LogIndex(u64::MAX), 1, move |_| send.send(()).unwrap());
    done.recv().unwrap();
}

/// A member of the group that has these entries, and its disk.
fn member(entries: &[Entry]) -> (Disk, Engine) {
    let disk = Disk::new();
    let (engine, _) = open(&disk, "b").unwrap();
    append(&engine, entries, 9);
    (disk, engine)
}

/// From here on the log of that member is not made durable, until the gate opens.
fn log_stands_still(disk: &Disk) -> Arc<Gate> {
    Gate::close(disk, |operation, path| operation == Operation::Sync && path.starts_with("/data/b/raft"))
}

/// Stops calls until it is opened.
#[derive(Default)]
struct Gate {
    /// Whether it is open, and how many calls have come.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn close(disk: &Disk, stops: fn(Operation, &Path) -> bool) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        let hook = gate.clone();
        disk.set_hook(Some(Arc::new(move |operation, path| {
            if stops(operation, path) {
                let mut state = hook.state.lock().unwrap();
                state.1 += 1;
                hook.changed.notify_all();
                drop(hook.changed.wait_while(state, |state| !state.0).unwrap());
            }
        })));
        gate
    }

    fn wait_for_call(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| state.1 == 0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }
}

#[test]
fn what_comes_behind_a_promotion_is_not_committed_by_one_copy() {
    let entries = history();
    let (disk, engine) = member(&entries[1..3]);
    let gate = log_stands_still(&disk);
    let handle = engine.handle();
    let alone = |entries: &[Entry], commit_on_persist| {
        handle.append(Append { entries: entries.to_vec(), commit_on_persist, ..Append::default() });
    };
    alone(&entries[3..4], true);
    gate.wait_for_call();
    // These wait for the same fdatasync: the first was appended while one copy decided, the second no more.
    alone(&entries[4..6], true);
    alone(&entries[6..9], false);
    gate.open();
    settle(&engine);
    until(|| applied(&engine) >= entries[5].index);
    settle(&engine);
    assert_eq!(applied(&engine), entries[5].index, "the others have not said that they have the rest");
    commit(&engine, &entries[8]);
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn what_is_committed_goes_along_with_entries_and_is_applied_without_them_where_the_disk_stands_still() {
    let entries = history();
    let (disk, engine) = member(&entries[1..6]);
    commit(&engine, &entries[5]);
    append(&engine, &entries[6..7], 9);
    let handle = engine.handle();
    let along = |entry: usize, committed: usize| {
        let committed = Some(position(&entries[committed]));
        handle.append(Append { entries: vec![entries[entry].clone()], committed, ..Append::default() });
    };
    along(7, 6);
    until(|| applied(&engine) >= entries[6].index);
    let gate = log_stands_still(&disk);
    along(8, 7);
    gate.wait_for_call();
    assert_eq!(applied(&engine), entries[6].index);
    commit(&engine, &entries[7]);
    gate.open();
    settle(&engine);
    assert_eq!(applied(&engine), entries[7].index);
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn entries_that_are_not_written_yet_are_replaced_by_those_of_a_later_leader() {
    let entries = history();
    let (disk, engine) = member(&entries[1..3]);
    let gate = log_stands_still(&disk);
    let handle = engine.handle();
    handle.append(Append { entries: entries[3..4].to_vec(), ..Append::default() });
    gate.wait_for_call();
    // Both wait for the same fdatasync: what one leader sent, and what the next one has in its place.
    let (door, mut answer) = tokio::sync::oneshot::channel();
    let waiting = vec![None, Some(door)];
    handle.append(Append { entries: entries[4..6].to_vec(), waiting, ..Append::default() });
    let later = Entry { term: Term(10), ..entries[4].clone() };
    let hard_state = Some(hard_state(10));
    handle.append(Append { entries: vec![later.clone()], hard_state, ..Append::default() });
    gate.open();
    commit(&engine, &later);
    let (send, log) = std::sync::mpsc::channel();
    handle.read_log(later.index, 1 << 20, move |entries| send.send(entries).unwrap());
    assert_eq!(log.recv().unwrap(), [later]);
    assert!(matches!(answer.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed)), "it is in doubt");
    engine.stop(Stop::Abandon).unwrap();
}

/// A node that joins a group.
fn join(disk: &Disk) -> (Engine, Recovered) {
    let options = embedded::Options {
        id: Some("b".into()),
        default_id: "b".into(),
        begin: Begin::Joining(ClusterId(7)),
        ..embedded::Options::default()
    };
    let engine = engine(disk);
    let directory = embedded::open_directory(Path::new("/data"), &options, &engine).unwrap();
    Engine::recover(directory, &engine, Arc::new(|_| {})).unwrap()
}

#[test]
fn who_fetches_the_log_of_a_group_of_one_decides_nothing_when_it_starts_again() {
    // The log of a group that was `a` alone, then one that was this node's own name alone, with an earlier disk.
    for (name, quarantined_until) in [("a", None), ("b", Some(LogIndex(40)))] {
        let mut entries = history();
        let single = Membership::single(&NodeId(name.into()));
        entries[0].payload = Payload::Membership(single.clone()).encode();
        let disk = Disk::new();
        let (engine, _) = join(&disk);
        let hard_state = HardState { term: Term(9), vote: None, quarantined_until, membership: single.encode() };
        let fetched = Append { entries: entries[..20].to_vec(), hard_state: Some(hard_state), ..Append::default() };
        engine.handle().append(fetched);
        settle(&engine);
        engine.stop(Stop::Abandon).unwrap();
        let disk = disk.crash(0, Crash::Keep);
        let (engine, recovered) = join(&disk);
        assert_eq!(
            (recovered.applied, recovered.replayed),
            (LogIndex(0), 0),
            "{name}: nobody said that it is committed"
        );
        assert_eq!(recovered.later, [(LogIndex(1), single)]);
        engine.stop(Stop::Abandon).unwrap();
    }
}

/// Entries that a table of `history` takes in, of some 1,000 bytes each.
fn many(first: &Entry, template: &Entry, count: u64) -> Vec<Entry> {
    let entry = |at: u64| Entry {
        index: LogIndex(first.index.0 + at),
        hlc: Timestamp(first.hlc.0 + at),
        // A command that fails by its precondition is as long, and leaves no row.
        ..template.clone()
    };
    (1..=count).map(entry).collect()
}

#[test]
fn a_member_that_applies_slowly_keeps_the_rest_in_its_log() {
    let entries = history();
    let (disk, engine) = member(&entries[1..]);
    commit(&engine, entries.last().unwrap());
    engine.seal().unwrap();
    let before = hash(&engine);
    // Nothing is flushed from here on, so nothing more is applied once two memtables are full.
    let gate = Gate::close(&disk, |operation, path| {
        operation == Operation::Write && path.extension().is_some_and(|end| end == "hot")
    });
    let largest = entries.iter().max_by_key(|entry| entry.payload.len()).unwrap();
    let count = (24 << 20) / largest.payload.len() as u64;
    let more = many(entries.last().unwrap(), largest, count);
    let (mut most, handle) = (0, engine.handle());
    for part in more.chunks(100) {
        append(&engine, part, 9);
        handle.commit(position(part.last().unwrap()));
        most = most.max(handle.status().apply_queue_bytes);
    }
    settle(&engine);
    most = most.max(handle.status().apply_queue_bytes);
    assert!(applied(&engine) < more.last().unwrap().index, "the gate has stopped nothing");
    assert!((1 << 20..6 << 20).contains(&most), "{most} bytes wait in memory");
    gate.open();
    disk.set_hook(None);
    until(|| applied(&engine) == more.last().unwrap().index);
    // What is applied is shown before its room is given back.
    until(|| handle.status().apply_queue_bytes == 0);
    assert_eq!(hash(&engine), before, "each of them was a row that was there already");
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn raft_never_waits_for_the_disk_to_apply() {
    let mut entries = history();
    let (_, engine) = member(&entries[1..]);
    commit(&engine, entries.last().unwrap());
    engine.seal().unwrap();
    let counters = engine.handle().counters();
    let database = other(&Disk::new());
    // A row of a key that blocks may hold, and one above all of them.
    for (id, at_once) in [(601, 0), (100_000, 1)] {
        let index = applied(&engine).next();
        let entry = insert(&database, id);
        let last = entries.last().unwrap();
        let entry = Entry { index, term: last.term, hlc: Timestamp(last.hlc.0 + 1), payload: entry.payload };
        append(&engine, std::slice::from_ref(&entry), 9);
        let before = counters.applied_at_once.load(Ordering::Relaxed);
        commit(&engine, &entry);
        let by_raft = counters.applied_at_once.load(Ordering::Relaxed) - before;
        assert_eq!(by_raft, at_once, "row {id}");
        entries.push(entry);
    }
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn a_hash_is_taken_of_exactly_its_position_whatever_is_applied_with_it() {
    let entries = history();
    let (engine, _) = open(&Disk::new(), "b").unwrap();
    append(&engine, &entries[1..], 9);
    commit(&engine, entries.last().unwrap());
    assert!(engine.handle().take_marked().is_none());
    let before = hash(&engine);
    let last = entries.last().unwrap();
    let command = Command { request: None, origin: OriginUid(1), affected: 0, body: Body::HashAt }.encode();
    let mark = Entry {
        index: last.index.next(),
        hlc: Timestamp(last.hlc.0 + 1),
        payload: Payload::Command(&command).encode(),
        ..last.clone()
    };
    let database = other(&Disk::new());
    let more = (0..20).map(|at| Entry {
        index: LogIndex(mark.index.0 + 1 + at),
        hlc: Timestamp(mark.hlc.0 + 1 + at),
        term: last.term,
        payload: insert(&database, 100_000 + at as u32).payload,
    });
    let more: Vec<Entry> = std::iter::once(mark.clone()).chain(more).collect();
    append(&engine, &more, 9);
    commit(&engine, more.last().unwrap());
    let marked = engine.handle().take_marked().unwrap();
    assert_eq!((marked.version, marked.hlc), (mark.index, mark.hlc));
    assert!(engine.handle().take_marked().is_none(), "once");
    assert_ne!(hash(&engine), before, "rows were written behind it");
    // What is flushed, sealed and merged meanwhile does not matter.
    engine.seal().unwrap();
    assert_eq!(content_hash(&marked, &|| Ok(())).unwrap(), before);
    engine.stop(Stop::Abandon).unwrap();
}

#[test]
fn commands_are_written_in_the_oldest_version_that_has_them() {
    let command = |body| Command { request: None, origin: OriginUid(1), affected: 0, body };
    for (body, version) in [(Body::Abandon { stage: 7 }, 1), (Body::HashAt, 2)] {
        let command = command(body);
        assert_eq!((command.version(), command.encode()[0]), (version, version));
        assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }
    let mut newer = command(Body::HashAt).encode();
    newer[0] = COMMAND_VERSION + 1;
    assert!(Command::decode(&newer).unwrap_err().message().contains("start a newer one"));
}

/// A database that makes entries.
fn other(disk: &Disk) -> Database {
    Database::open_on("/other", &embedded::Options::default(), &engine(disk)).unwrap()
}

/// The entry of an INSERT into the first table, as another database makes it.
fn insert(database: &Database, id: u32) -> Entry {
    let _ = database.execute("CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY, v INT NOT NULL, note TEXT)");
    database.execute(&format!("INSERT INTO t VALUES ({id}, 1, 'x')")).unwrap();
    let handle = database.group().handle().unwrap();
    let (send, entries) = std::sync::mpsc::channel();
    handle.read_log(handle.lasting_view().version, 1 << 20, move |entries| send.send(entries).unwrap());
    entries.recv().unwrap().pop().unwrap()
}

#[test]
fn a_disk_that_stands_still_or_is_full_is_told_before_it_fails() {
    let entries = history();
    let disk = Disk::new();
    let clock = Arc::new(chronos::clock::ManualClock::new(chronos::clock::Wall(1_700_000_000_000)));
    let options = chronos::storage::engine::Options {
        clock: clock.clone(),
        hot: HotEngine::Memory,
        limits: Limits { disk_reserve_bytes: 0, ..engine(&disk).limits },
        ..engine(&disk)
    };
    let begin = embedded::Options {
        id: Some("b".into()),
        default_id: "b".into(),
        begin: Begin::Together(group()),
        ..embedded::Options::default()
    };
    let directory = embedded::open_directory(Path::new("/data"), &begin, &options).unwrap();
    let stalls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let told = stalls.clone();
    let events = Arc::new(move |event: Event| {
        if matches!(event, Event::Stalled) {
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (engine, _) = Engine::recover(directory, &options, events).unwrap();
    append(&engine, &entries[1..3], 9);
    assert_eq!(stalls.load(Ordering::SeqCst), 0);
    let gate = log_stands_still(&disk);
    engine.handle().append(Append { entries: entries[3..4].to_vec(), ..Append::default() });
    gate.wait_for_call();
    clock.advance(Duration::from_secs(6));
    until(|| stalls.load(Ordering::SeqCst) == 1);
    gate.open();
    disk.set_hook(None);
    settle(&engine);
    disk.set_capacity(Some(0));
    let hard_state = Some(hard_state(9));
    engine.handle().append(Append { entries: entries[4..].to_vec(), hard_state, ..Append::default() });
    until(|| stalls.load(Ordering::SeqCst) == 2);
    assert!(!engine.handle().has_failed());
    disk.set_capacity(None);
    settle(&engine);
    commit(&engine, entries.last().unwrap());
    engine.stop(Stop::Abandon).unwrap();
}
