//! An operator says that one copy counts: whole or damaged, at whatever step a power cut comes.

use super::snapshots::{engine, hash, history, open};
use chronos::embedded;
use chronos::error::SqlState;
use chronos::hlc::Timestamp;
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{Entry, HardState, Member, MemberRole, Membership, NodeId, Payload, Position};
use chronos::storage::directory::Database;
use chronos::storage::engine::{Append, Claim, Stop, claim, salt};
use chronos::storage::faults::{Crash, Disk};
use chronos::storage::files::{Files, Open, read};
use chronos::storage::wal::{Survey, Wal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn id(name: &str) -> NodeId {
    NodeId(name.into())
}

fn directory(disk: &Disk) -> chronos::Result<Database> {
    Database::open(Arc::new(disk.clone()), Path::new("/data/b"))
}

/// A group that was founded: `b` on its own disk.
fn founded(own: DiskId) -> Membership {
    let member =
        |name: &str, disk| (id(name), Member { address: format!("{name}:1"), disk: Some(disk), ..Member::default() });
    Membership::of([member("a", DiskId(1)), member("b", own), member("c", DiskId(3))])
}

/// A member of it whose log holds a history, of which so much is applied, and what it says of the group.
fn member(applied: usize, change: impl FnOnce(&mut Membership)) -> (Disk, Vec<Entry>) {
    let (disk, entries) = member_of(history(), change);
    let (engine, _) = open(&disk, "b").unwrap();
    super::snapshots::commit(&engine, &entries[applied.min(entries.len()) - 1]);
    engine.stop(Stop::Abandon).unwrap();
    (disk.crash(0, Crash::Keep), entries)
}

/// The same, where nothing is applied.
fn member_of(mut entries: Vec<Entry>, change: impl FnOnce(&mut Membership)) -> (Disk, Vec<Entry>) {
    let disk = Disk::new();
    let (engine, _) = open(&disk, "b").unwrap();
    let mut group = founded(engine.database().identity.disk_id);
    change(&mut group);
    let last = entries.last().unwrap().clone();
    let payload = Payload::Membership(group.clone()).encode();
    entries.push(Entry { index: last.index.next(), hlc: Timestamp(last.hlc.0 + 1), payload, ..last });
    let hard_state = HardState { term: Term(9), vote: Some(7), membership: group.encode(), quarantined_until: None };
    for part in entries[1..].chunks(4) {
        let append = Append { entries: part.to_vec(), hard_state: Some(hard_state.clone()), ..Append::default() };
        engine.handle().append(append);
        let (send, done) = std::sync::mpsc::channel();
        engine.handle().read_log(LogIndex(u64::MAX), 1, move |_| send.send(()).unwrap());
        done.recv().unwrap();
    }
    engine.stop(Stop::Abandon).unwrap();
    (disk.crash(0, Crash::Keep), entries)
}

/// Flips a bit near the end of the last segment but one, so that what follows proves that it had been written.
fn damage_log(disk: &Disk) {
    let segments = disk.list(Path::new("/data/b/raft")).unwrap();
    let segments: Vec<&PathBuf> =
        segments.iter().filter(|path| path.extension().is_some_and(|it| it == "wal")).collect();
    let end = |path: &PathBuf| read(disk, path).unwrap().iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
    let before_last = segments[..segments.len() - 1].iter().rev().find(|path| end(path) > 4000).unwrap();
    disk.flip(before_last, (end(before_last) - 2000) * 8).unwrap();
}

fn contents(disk: &Disk) -> BTreeMap<PathBuf, Vec<u8>> {
    // Who holds the lock is written into it.
    let kept = disk.paths().into_iter().filter(|path| !path.ends_with("LOCK"));
    kept.filter(|path| disk.open(path, Open::Read).is_ok())
        .map(|path| (path.clone(), read(disk, &path).unwrap()))
        .collect()
}

#[test]
fn a_look_at_a_copy_changes_nothing_and_names_what_is_lost() {
    let (disk, entries) = member(10, |_| {});
    let last = entries.last().unwrap().index;
    for is_damaged in [false, true] {
        if is_damaged {
            damage_log(&disk);
        }
        let before = contents(&disk);
        let looked = Claim::survey(&directory(&disk).unwrap()).unwrap();
        assert_eq!(contents(&disk), before);
        assert_eq!((looked.log.reached, looked.log.damage.is_some()), (last, is_damaged));
        assert_eq!(looked.log.last.index < last, is_damaged, "{}", looked.log.last.index);
        assert_eq!(looked.left_out().map(|(id, _)| id.0.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(!looked.is_alone && looked.log.hard_state.term == Term(9));
    }
}

#[test]
fn a_claimed_copy_decides_alone_and_knows_whose_disks_do_not_count() {
    for (applied, is_damaged) in [(10, false), (10, true), (usize::MAX, true)] {
        let (disk, entries) = member(applied, |_| {});
        if is_damaged {
            damage_log(&disk);
        }
        let looked = Claim::survey(&directory(&disk).unwrap()).unwrap();
        let at = claim(&directory(&disk).unwrap(), &engine(&disk)).unwrap().unwrap();
        assert!(at.index > looked.log.last.index && at.term > Term(9 + 100), "{at:?}");
        assert!(disk.exists(Path::new("/data/b/RECOVERED")), "the next start is to say so");
        let (running, recovered) = open(&disk, "b").unwrap();
        assert!(!disk.exists(Path::new("/data/b/RECOVERED")), "once");
        let own = running.database().identity.disk_id;
        assert!(recovered.membership.is_only(&id("b")) && recovered.membership.members.len() == 1);
        assert_eq!(recovered.membership.removed, [DiskId(1), DiskId(3)]);
        assert_eq!(recovered.membership.get(&id("b")).unwrap().disk, Some(own));
        assert_eq!((recovered.hard_state.quarantined_until, recovered.hard_state.vote), (None, None));
        assert_eq!((recovered.applied, recovered.terms.last()), (at.index, at), "all of the log is applied");
        if !is_damaged {
            let (whole, applied) = member_of(entries[..entries.len() - 1].to_vec(), |_| {});
            let (whole, _) = open(&whole, "b").unwrap();
            super::snapshots::commit(&whole, applied.last().unwrap());
            assert_eq!(hash(&running), hash(&whole), "what was not known to be committed is kept, too");
            whole.stop(Stop::Abandon).unwrap();
        }
        running.stop(Stop::Abandon).unwrap();
        let again = claim(&directory(&disk).unwrap(), &engine(&disk)).unwrap();
        assert_eq!(again, None, "there is nothing left to recover");
    }
}

#[test]
fn a_copy_whose_newest_term_cannot_be_read_is_claimed_with_all_that_can() {
    let (disk, entries) = member(10, |_| {});
    let (whole, _) = member_of(entries[..entries.len() - 1].to_vec(), |_| {});
    let segments = disk.list(Path::new("/data/b/raft")).unwrap();
    let newest = segments.iter().filter(|path| path.extension().is_some_and(|it| it == "wal")).max().unwrap();
    disk.flip(newest, 60 * 8).unwrap();
    assert!(open(&disk.crash(0, Crash::Keep), "b").is_err(), "as a member it has lost its seat");
    let before = contents(&disk);
    let looked = Claim::survey(&directory(&disk).unwrap()).unwrap();
    assert_eq!(contents(&disk), before);
    assert!(looked.log.unseated.is_some() && looked.log.damage.is_some());
    assert_eq!(looked.reach(), entries.last().unwrap().index);
    let base = disk.crash(0, Crash::Keep);
    let before = disk.operations();
    let at = claim(&directory(&disk).unwrap(), &engine(&disk)).unwrap().unwrap();
    let operations = disk.operations() - before;
    assert!(at.index > looked.reach() && at.term > Term(9 + 100), "{at:?}");
    let (running, recovered) = open(&disk, "b").unwrap();
    assert!(recovered.membership.is_only(&id("b")) && recovered.hard_state.quarantined_until.is_none());
    let (other, _) = open(&whole, "b").unwrap();
    super::snapshots::commit(&other, entries.last().unwrap());
    assert_eq!(hash(&running), hash(&other));
    running.stop(Stop::Abandon).unwrap();
    other.stop(Stop::Abandon).unwrap();
    // Cut short, it is a member that counts for nothing, or none, and the claim can be made again.
    let (mut is_out, mut done) = (0, 0);
    for cut in (0..operations).step_by(3) {
        let disk = base.crash(0, Crash::Keep);
        disk.stop_at(disk.operations() + cut);
        let _ = directory(&disk).and_then(|database| claim(&database, &engine(&disk)));
        let after = disk.crash(cut, Crash::ALL[cut as usize % Crash::ALL.len()]);
        if let Ok((running, recovered)) = open(&after.crash(0, Crash::Keep), "b") {
            let is_claimed = recovered.hard_state.quarantined_until.is_none();
            assert!(is_claimed || recovered.hard_state.is_dismissed(), "cut {cut}");
            *(if is_claimed { &mut done } else { &mut is_out }) += 1;
            running.stop(Stop::Abandon).unwrap();
        }
        claim(&directory(&after).unwrap(), &engine(&after)).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        let (running, recovered) = open(&after, "b").unwrap();
        assert!(recovered.applied > looked.reach(), "cut {cut}: {}", recovered.applied);
        running.stop(Stop::Abandon).unwrap();
    }
    assert!(is_out > 0 && done > 0, "{is_out} out, {done} done");
}

#[test]
fn a_copy_whose_log_is_one_segment_without_header_is_claimed_with_all_that_is_sealed() {
    let (disk, entries) = member(usize::MAX, |_| {});
    let (running, _) = open(&disk, "b").unwrap();
    super::snapshots::commit(&running, entries.last().unwrap());
    let rows = hash(&running);
    running.stop(Stop::Clean).unwrap();
    let raft = Path::new("/data/b/raft");
    let [segment] = &disk.list(raft).unwrap()[..] else { panic!("a clean stop leaves one segment") };
    let length = disk.open(segment, Open::Read).unwrap().len().unwrap();
    // The header alone; the page with the first batches; all that it says of term, vote and group.
    for lost in [60..61, 0..length.min(400), 0..length] {
        let base = disk.crash(0, Crash::Keep);
        let garbage: Vec<u8> = lost.clone().map(|byte| byte as u8 ^ 0x5A).collect();
        base.open(segment, Open::Write).unwrap().write_at(&garbage, lost.start).unwrap();
        assert!(open(&base.crash(0, Crash::Keep), "b").is_err(), "as a member it has lost its seat");
        let whole = base.crash(0, Crash::Keep);
        let before = contents(&whole);
        let looked = Claim::survey(&directory(&whole).unwrap()).unwrap_or_else(|error| panic!("{lost:?}: {error}"));
        assert_eq!(contents(&whole), before);
        assert!(looked.log.unseated.is_some() && looked.is_exact && !looked.is_alone);
        assert_eq!((looked.reach(), looked.sealed), (entries.last().unwrap().index, looked.reach()));
        assert_eq!(looked.left_out().map(|(id, _)| id.0.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        let before = whole.operations();
        let at = claim(&directory(&whole).unwrap(), &engine(&whole)).unwrap().unwrap();
        let operations = whole.operations() - before;
        assert!(at.index > looked.reach() && at.term > Term(9 + 100), "{at:?}");
        let (running, recovered) = open(&whole, "b").unwrap();
        assert!(recovered.membership.is_only(&id("b")) && recovered.hard_state.quarantined_until.is_none());
        assert_eq!((recovered.applied, hash(&running)), (at.index, rows), "{lost:?}");
        running.stop(Stop::Abandon).unwrap();
        for cut in 0..operations {
            let disk = base.crash(0, Crash::Keep);
            disk.stop_at(disk.operations() + cut);
            let _ = directory(&disk).and_then(|database| claim(&database, &engine(&disk)));
            let after = disk.crash(cut, Crash::ALL[cut as usize % Crash::ALL.len()]);
            claim(&directory(&after).unwrap(), &engine(&after)).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
            let (running, recovered) = open(&after, "b").unwrap();
            assert!(recovered.applied > looked.reach() && hash(&running) == rows, "cut {cut}: {}", recovered.applied);
            running.stop(Stop::Abandon).unwrap();
        }
    }
}

#[test]
fn a_copy_whose_hot_store_may_stand_ahead_of_its_damaged_log_reaches_at_least_so_far() {
    let (disk, _) = member(10, |_| {});
    let is_exact = |disk: &Disk| Claim::survey(&directory(disk).unwrap()).unwrap().is_exact;
    let write = |path: &Path, boot: &str| {
        disk.create_dir(path.parent().unwrap()).unwrap();
        chronos::storage::files::replace(&disk, path, boot.as_bytes()).unwrap();
    };
    let boots = [1, 2].map(|boot| format!("{boot:036}"));
    write(Path::new("/proc/sys/kernel/random/boot_id"), &boots[0]);
    let names = disk.list(Path::new("/data/b/state")).unwrap();
    let is_hot = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("hot-");
    let boot = names.iter().find(is_hot).unwrap().join("BOOT");
    write(&boot, &boots[0]);
    assert!(is_exact(&disk), "no state stands ahead of a whole log");
    let segments = disk.list(Path::new("/data/b/raft")).unwrap();
    let newest = segments.iter().filter(|path| path.extension().is_some_and(|it| it == "wal")).max().unwrap();
    let headless = disk.crash(0, Crash::Keep);
    headless.flip(newest, 60 * 8).unwrap();
    assert!(is_exact(&headless), "all of its batches are there");
    let length = headless.open(newest, Open::Read).unwrap().len().unwrap() as usize;
    headless.open(newest, Open::Write).unwrap().write_at(&vec![0x55; length], 0).unwrap();
    assert!(!is_exact(&headless), "nobody knows what was in it");
    damage_log(&disk);
    assert!(!is_exact(&disk));
    write(&boot, &boots[1]);
    assert!(is_exact(&disk), "a hot store of another boot is not gone on from");
}

#[test]
fn a_copy_reaches_as_far_as_its_state_where_its_log_has_lost_more() {
    let (disk, entries) = member(usize::MAX, |_| {});
    let (running, _) = open(&disk, "b").unwrap();
    super::snapshots::commit(&running, entries.last().unwrap());
    running.seal().unwrap();
    running.stop(Stop::Abandon).unwrap();
    let disk = disk.crash(0, Crash::Keep);
    let looked = Claim::survey(&directory(&disk).unwrap()).unwrap();
    let log = Survey { last: Position { index: LogIndex(3), term: Term(1) }, ..looked.log.clone() };
    let damaged = Claim { log, ..looked.clone() };
    assert_eq!((looked.reach(), damaged.reach()), (looked.log.last.index, looked.sealed));
    assert!(damaged.reach() > damaged.log.last.index);
}

#[test]
fn a_power_cut_while_a_copy_is_claimed_is_gone_through_again() {
    for is_damaged in [false, true] {
        let (base, _) = member(10, |_| {});
        if is_damaged {
            damage_log(&base);
        }
        let whole = base.crash(0, Crash::Keep);
        let before = whole.operations();
        let kept = Claim::survey(&directory(&whole).unwrap()).unwrap().log.last.index;
        claim(&directory(&whole).unwrap(), &engine(&whole)).unwrap().unwrap();
        let operations = whole.operations() - before;
        let (mut as_it_was, mut done) = (0, 0);
        for cut in 0..operations {
            let mode = Crash::ALL[cut as usize % Crash::ALL.len()];
            let disk = base.crash(0, Crash::Keep);
            disk.stop_at(disk.operations() + cut);
            let _ = directory(&disk).and_then(|database| claim(&database, &engine(&disk)));
            let after = disk.crash(cut, mode);
            let said = format!("cut {cut} of {operations}, {mode:?}");
            let again =
                claim(&directory(&after).unwrap(), &engine(&after)).unwrap_or_else(|error| panic!("{said}: {error}"));
            *(if again.is_some() { &mut as_it_was } else { &mut done }) += 1;
            let (running, recovered) = open(&after, "b").unwrap_or_else(|error| panic!("{said}: {error}"));
            assert!(recovered.membership.is_only(&id("b")), "{said}");
            assert_eq!(recovered.hard_state.quarantined_until, None, "{said}");
            assert!(recovered.applied > kept, "{said}: {} of {kept}", recovered.applied);
            running.stop(Stop::Abandon).unwrap();
        }
        assert!(as_it_was > 0 && done > 0, "the cuts lie before and behind: {as_it_was}, {done}");
    }
}

#[test]
fn a_start_after_a_claim_that_was_not_completed_says_nothing_of_one() {
    let (disk, _) = member(10, |_| {});
    chronos::storage::files::replace(&disk, Path::new("/data/b/RECOVERED"), b"999 1009\n").unwrap();
    let (running, recovered) = open(&disk, "b").unwrap();
    assert!(!disk.exists(Path::new("/data/b/RECOVERED")));
    assert_eq!(recovered.later.last().unwrap().1.members.len(), 3, "it is a member as before");
    running.stop(Stop::Abandon).unwrap();
}

#[test]
fn a_copy_that_cannot_count_is_refused_by_name() {
    type Case = (&'static str, fn(&mut Membership));
    let cases: [Case; 4] = [
        ("b is a witness", |group| group.members.get_mut(&id("b")).unwrap().role = MemberRole::Witness),
        ("b has a new disk", |group| group.members.get_mut(&id("b")).unwrap().disk = Some(DiskId(77))),
        ("the group has never begun", |group| group.members.get_mut(&id("a")).unwrap().disk = None),
        ("b is no member", |group| drop(group.members.remove(&id("b")))),
    ];
    for (says, change) in cases {
        let (disk, _) = member(10, change);
        let before = contents(&disk);
        let refused = claim(&directory(&disk).unwrap(), &engine(&disk)).unwrap_err();
        assert!(refused.message().contains(says), "{says}: {refused}");
        assert_eq!(refused.sqlstate(), SqlState::NOT_IN_STATE);
        assert_eq!(contents(&disk), before, "{says}");
    }
    // One whose state was given up has nothing.
    let options = embedded::Options {
        id: Some("d".into()),
        begin: embedded::Begin::Joining(chronos::ids::ClusterId(7)),
        ..embedded::Options::default()
    };
    let disk = Disk::new();
    let empty = embedded::open_directory(Path::new("/data"), &options, &engine(&disk)).unwrap();
    let refused = claim(&empty, &engine(&disk)).unwrap_err();
    assert!(refused.message().contains("has nothing of its group yet"), "{refused}");
    assert_eq!(
        Position::default(),
        Wal::survey(&disk, Path::new("/data/d/raft"), salt(&empty.identity), Position::default()).unwrap().last
    );
}
