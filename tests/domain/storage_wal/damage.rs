//! Damage to the log: what recovery names, what it refuses, what a member keeps of it.

use super::*;

fn proven_log() -> (Disk, Vec<Entry>) {
    let disk = Disk::new();
    let mut wal = create(&disk);
    let all = entries(1..=160, 1);
    for batch in all.chunks(4) {
        let state = HardState { term: Term(batch[0].index.0), ..HardState::default() };
        wal.append(batch, Some(&state)).unwrap();
        wal.sync().unwrap();
    }
    (disk.crash(0, Crash::Keep), all)
}

/// Everything up to here is sealed.
fn sealed(index: LogIndex) -> Position {
    Position { index, term: Term(1) }
}

fn survey(disk: &Disk, behind: Position) -> Survey {
    Wal::survey(disk, Path::new(DIR), OPTIONS.salt, behind).unwrap()
}

/// As who claims this copy does.
fn give_up(disk: &Disk, behind: Position) -> Recovered {
    let needs = Needs { behind, seat: Seat::GivenUp };
    Wal::salvage(Arc::new(disk.clone()), Path::new(DIR), OPTIONS, needs, |_| true).unwrap()
}

#[test]
fn a_flipped_bit_is_named_as_damage_or_harmless() {
    let (disk, all) = proven_log();
    let files = open(&disk.crash(0, Crash::Keep)).unwrap().wal.segment_files();
    assert!(files.len() >= 2);
    let mut damaged = 0;
    for (at, file) in files.iter().enumerate() {
        for byte in 0..file.durable_bytes {
            let flipped = disk.crash(0, Crash::Keep);
            flipped.flip(&file.path, byte * 8 + byte % 8).unwrap();
            match open(&flipped) {
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Damaged, "byte {byte}: {error}");
                    let name = file.path.to_str().unwrap();
                    assert!(error.message().starts_with(&format!("{name} is damaged at offset ")), "{error}");
                    damaged += 1;
                }
                Ok(recovered) => {
                    let found = content(&recovered.wal).unwrap();
                    assert_eq!(found, all[..found.len()], "byte {byte}");
                    // Padding, or the last batch, which on one node looks like a tear.
                    let lost = all.len() - found.len();
                    assert!(lost == 0 || (lost == 4 && at + 1 == files.len()), "byte {byte}: {lost} lost");
                }
            }
        }
    }
    assert!(damaged > 2000, "{damaged}");
}

#[test]
fn a_clean_stop_proves_all_of_the_log() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    wal.append(&entries(1..=4, 1), None).unwrap();
    wal.close(LogIndex(1)).unwrap();
    let disk = disk.crash(0, Crash::Lose);
    let [path] = &segments(&disk)[..] else { panic!("one segment is left") };
    let length = disk.open(path, Open::Read).unwrap().len().unwrap();
    assert!(length < 1024, "{length}");
    let (mut damaged, mut whole) = (0, 0);
    for byte in 0..length {
        let flipped = disk.crash(0, Crash::Keep);
        flipped.flip(path, byte * 8 + 3).unwrap();
        match open(&flipped) {
            Err(error) => {
                assert_eq!(error.kind(), Kind::Damaged);
                damaged += 1;
            }
            Ok(recovered) => {
                assert_eq!(content(&recovered.wal).unwrap(), entries(1..=4, 1), "byte {byte}");
                whole += 1;
            }
        }
    }
    assert!(damaged > 5 * whole / 2, "{damaged} damaged, {whole} whole");
}

#[test]
fn a_bit_that_rots_after_opening_is_never_served() {
    let (disk, _) = proven_log();
    let wal = open(&disk).unwrap().wal;
    let path = wal.segment_files()[0].path.clone();
    disk.flip(&path, 8 * 700).unwrap();
    let error = content(&wal).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
}

#[test]
fn a_lost_segment_leaves_a_log_that_begins_later() {
    let (disk, all) = proven_log();
    let files = open(&disk.crash(0, Crash::Keep)).unwrap().wal.segment_files();
    disk.remove(&files[0].path).unwrap();
    let recovered = open(&disk).unwrap();
    assert_eq!(recovered.first, files[1].first, "and the engine sees that it does not reach back far enough");
    assert_eq!(content(&recovered.wal).unwrap(), all[files[1].first.0 as usize - 1..]);
}

#[test]
fn random_bytes_are_damage_and_nothing_worse() {
    let mut random = Random(99);
    let (disk, _) = proven_log();
    let files = open(&disk.crash(0, Crash::Keep)).unwrap().wal.segment_files();
    for round in 0..300 {
        let disk = disk.crash(round, Crash::Keep);
        let path = &files[random.below(files.len() as u64) as usize].path;
        let file = disk.open(path, Open::Write).unwrap();
        let length = random.below(6000);
        file.set_len(length).unwrap();
        let from = if random.below(2) == 0 { 0 } else { random.below(length + 1) };
        let garbage: Vec<u8> = (from..length).map(|_| random.next() as u8).collect();
        file.write_at(&garbage, from).unwrap();
        match open(&disk) {
            Ok(recovered) => drop(content(&recovered.wal).unwrap()),
            Err(error) => assert_eq!(error.kind(), Kind::Damaged, "{error}"),
        }
    }
    let empty = Disk::new();
    empty.create_dir(Path::new(DIR)).unwrap();
    assert_eq!(open(&empty).err().unwrap().kind(), Kind::Damaged);
}

/// A batch header as a client could make one who knows everything but the salt: it claims that a megabyte is durable.
fn forged_header(sequence: u64, salt: u64) -> Vec<u8> {
    let mut header = vec![0xC7, b'W', b'A', b'L', 1, 0, 0, 0];
    for field in [900u32, 0, 1 << 20, 0, 3, 0, 0] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    let seed = crc32c::crc32c_append(crc32c::crc32c(&sequence.to_le_bytes()), &salt.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c_append(seed, &header).to_le_bytes());
    header
}

#[test]
fn a_payload_cannot_pass_for_a_batch() {
    for salt in [0, 1, OPTIONS.salt] {
        let disk = Disk::new();
        let mut wal = create(&disk);
        wal.append(&entries(1..=2, 1), None).unwrap();
        wal.sync().unwrap();
        // At every alignment, in a batch of which the end is then torn off.
        let forged: Vec<u8> = (0..8).flat_map(|_| [forged_header(1, salt), vec![0]].concat()).collect();
        wal.append(&[entry(3, 1, &forged)], None).unwrap();
        let end = wal.statistics().bytes;
        let path = wal.segment_files()[0].path.clone();
        let disk = disk.crash(0, Crash::Keep);
        disk.flip(&path, (end - 9) * 8).unwrap();
        match open(&disk) {
            Ok(recovered) => assert_eq!(recovered.last.index, LogIndex(2)),
            Err(error) => assert_eq!(salt, OPTIONS.salt, "a guessed salt was enough: {error}"),
        }
    }
}

#[test]
fn a_member_keeps_what_lies_before_the_damage_and_is_quarantined() {
    let (disk, all) = proven_log();
    let healthy = open(&disk.crash(0, Crash::Keep)).unwrap();
    let files = healthy.wal.segment_files();
    assert!(files.len() >= 2);
    let salvage =
        |disk: &Disk| Wal::salvage(Arc::new(disk.clone()), Path::new(DIR), OPTIONS, Needs::default(), |_| true);
    let same = salvage(&disk.crash(0, Crash::Keep)).unwrap();
    assert_eq!((same.last, same.hard_state), (healthy.last, healthy.hard_state.clone()));
    let (mut salvaged, mut refused) = (0, 0);
    for (at, file) in files.iter().enumerate() {
        for byte in (0..file.durable_bytes).step_by(7) {
            let disk = disk.crash(0, Crash::Keep);
            disk.flip(&file.path, byte * 8 + byte % 8).unwrap();
            if open(&disk).is_ok() {
                continue;
            }
            let recovered = match salvage(&disk) {
                Ok(recovered) => recovered,
                Err(error) => {
                    assert!(error.kind() == Kind::Damaged && at + 1 == files.len(), "byte {byte}: {error}");
                    refused += 1;
                    continue;
                }
            };
            salvaged += 1;
            let found = content(&recovered.wal).unwrap();
            assert_eq!(found, all[..found.len()]);
            assert!(LogIndex(found.len() as u64).next() >= file.first, "everything before the damage is kept");
            let expected = HardState { quarantined_until: Some(LogIndex(160)), ..healthy.hard_state.clone().unwrap() };
            assert_eq!(recovered.hard_state, Some(expected.clone()));
            let again = open(&disk.crash(0, Crash::Lose)).unwrap();
            assert_eq!((content(&again.wal).unwrap(), again.hard_state), (found, Some(expected)));
        }
    }
    assert!(salvaged > 500 && refused > 0, "{salvaged} salvaged, {refused} refused");
}

#[test]
fn a_lost_vote_loses_the_seat() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    let state = HardState { term: Term(5), vote: Some(3), ..HardState::default() };
    wal.append(&entries(1..=1, 1), None).unwrap();
    wal.sync().unwrap();
    let path = wal.segment_files()[0].path.clone();
    let at = wal.segment_files()[0].durable_bytes;
    wal.append(&[], Some(&state)).unwrap();
    wal.sync().unwrap();
    wal.append(&entries(2..=2, 5), None).unwrap();
    wal.sync().unwrap();
    for (offset, byte) in [("header", at + 3), ("body", at + 42)] {
        let disk = disk.crash(0, Crash::Keep);
        disk.flip(&path, byte * 8).unwrap();
        let (dir, files) = (Path::new(DIR), Arc::new(disk.clone()));
        let error = Wal::salvage(files, dir, OPTIONS, Needs::default(), |_| true).err().unwrap();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("add it again")), "{offset}: {error}");
        let needs = Needs { seat: Seat::GivenUp, ..Needs::default() };
        let recovered = Wal::salvage(Arc::new(disk), Path::new(DIR), OPTIONS, needs, |_| true).unwrap();
        let state = recovered.hard_state.unwrap();
        assert_eq!((state.term, state.vote), (Term(5), None), "{offset}: an entry of that term shows it");
        assert!(state.is_dismissed(), "{offset}");
    }
    // Written once more, it is known again.
    wal.append(&[], Some(&HardState { vote: Some(4), ..state })).unwrap();
    wal.sync().unwrap();
    let disk = disk.crash(0, Crash::Keep);
    disk.flip(&path, at * 8).unwrap();
    let recovered = Wal::salvage(Arc::new(disk), Path::new(DIR), OPTIONS, Needs::default(), |_| true).unwrap();
    let state = recovered.hard_state.unwrap();
    assert_eq!((state.vote, state.quarantined_until), (Some(4), Some(LogIndex(2))));
    assert_eq!(recovered.last.index, LogIndex(1));
}

#[test]
fn damage_in_segments_of_which_all_is_sealed_costs_nothing_behind_them() {
    let (disk, all) = proven_log();
    let healthy = open(&disk.crash(0, Crash::Keep)).unwrap();
    let files = healthy.wal.segment_files();
    let salvage = |disk: Disk, behind| {
        let needs = Needs { behind: sealed(behind), ..Needs::default() };
        Wal::salvage(Arc::new(disk), Path::new(DIR), OPTIONS, needs, |_| true).unwrap()
    };
    let birth = files[1].first.next();
    for byte in [42, files[0].durable_bytes / 2] {
        let disk = disk.crash(0, Crash::Keep);
        disk.flip(&files[0].path, byte * 8).unwrap();
        let survey = survey(&disk, sealed(birth));
        assert_eq!((survey.last, survey.damage.is_some()), (healthy.last, true));
        let recovered = salvage(disk.crash(0, Crash::Keep), birth);
        assert_eq!((recovered.previous.index.next(), recovered.last), (files[1].first, healthy.last));
        assert_eq!(recovered.hard_state, healthy.hard_state, "it lacks nothing, and so is in no quarantine");
        assert_eq!(content(&recovered.wal).unwrap(), all[recovered.previous.index.0 as usize..]);
        // Where less is sealed, what is lost is lacking.
        let recovered = salvage(disk, files[1].first.previous().previous());
        assert_eq!(recovered.hard_state.unwrap().quarantined_until, Some(healthy.last.index));
        assert!(recovered.last.index < files[1].first);
    }
    // In the segment that reaches over the end of what is sealed, no batch counts without those before it.
    disk.flip(&files[1].path, files[1].durable_bytes / 3 * 8).unwrap();
    let behind = files[1].last.previous();
    let recovered = salvage(disk, behind);
    assert!(recovered.last.index < behind, "the damage lies before what is needed");
    assert_eq!(recovered.hard_state.unwrap().quarantined_until, Some(healthy.last.index));
}

#[test]
fn who_gives_up_the_seat_keeps_all_that_can_be_read() {
    let (disk, all) = proven_log();
    let healthy = open(&disk.crash(0, Crash::Keep)).unwrap();
    let files = healthy.wal.segment_files();
    let newest = files.last().unwrap();
    let salvage = |disk: Disk, seat| {
        let needs = Needs { seat, ..Needs::default() };
        Wal::salvage(Arc::new(disk), Path::new(DIR), OPTIONS, needs, |_| true)
    };
    disk.flip(&newest.path, 42 * 8).unwrap();
    assert!(salvage(disk.crash(0, Crash::Keep), Seat::Kept).is_err(), "the header is lost, and a vote may be");
    let survey = survey(&disk, Position::default());
    assert!(survey.unseated.is_some());
    assert_eq!((survey.last, survey.reached, survey.hard_state.term), (healthy.last, healthy.last.index, Term(157)));
    let recovered = salvage(disk.crash(0, Crash::Keep), Seat::GivenUp).unwrap();
    assert_eq!(content(&recovered.wal).unwrap(), all, "the batches of that segment are there");
    let hard_state = recovered.hard_state.unwrap();
    assert!(hard_state.is_dismissed() && hard_state.vote.is_none(), "until it is claimed it may not count");
    // What comes behind a damaged batch of it counts no more than elsewhere.
    disk.flip(&newest.path, newest.durable_bytes / 2 * 8).unwrap();
    let recovered = salvage(disk.crash(0, Crash::Keep), Seat::GivenUp).unwrap();
    let found = content(&recovered.wal).unwrap();
    assert!(found.len() as u64 >= newest.first.0 && found.len() < all.len(), "{}", found.len());
    assert_eq!(found, all[..found.len()]);
}

#[test]
fn the_only_segment_is_kept_without_its_header_by_who_gives_up_the_seat() {
    let (disk, all) = proven_log();
    let mut wal = open(&disk).unwrap().wal;
    wal.trim(LogIndex(161)).unwrap();
    wal.close(LogIndex(161)).unwrap();
    let [path] = &segments(&disk)[..] else { panic!("one segment is left") };
    let first = open(&disk.crash(0, Crash::Keep)).unwrap().first;
    assert!(first > LogIndex(1), "it is not the first one");
    disk.flip(path, 42 * 8).unwrap();
    let kept = |disk: &Disk| {
        Wal::salvage(Arc::new(disk.crash(0, Crash::Keep)), Path::new(DIR), OPTIONS, Needs::default(), |_| true)
    };
    assert!(kept(&disk).is_err(), "term and vote may be lost");
    // Where its first entry follows what is sealed, what is sealed says the term before it; else only that of the entry is known.
    for (behind, begins) in [(first.previous(), first), (first, first.next()), (LogIndex(160), first.next())] {
        let looked = survey(&disk, sealed(behind));
        assert_eq!((looked.last.index, looked.reached), (LogIndex(160), LogIndex(160)), "{behind}");
        assert_eq!(looked.hard_state.term, Term(157), "the batches of it say so");
        let recovered = give_up(&disk.crash(0, Crash::Keep), sealed(behind));
        assert_eq!((recovered.previous, recovered.last), (sealed(begins.previous()), sealed(LogIndex(160))));
        assert_eq!(content(&recovered.wal).unwrap(), all[begins.0 as usize - 1..]);
        assert!(recovered.hard_state.unwrap().is_dismissed());
    }
    assert_eq!(survey(&disk, Position::default()).last, Position::default(), "it does not follow an empty state");
    // Another database's, or nothing of a log.
    let foreign = Wal::survey(&disk, Path::new(DIR), 77, sealed(LogIndex(3))).unwrap();
    assert_eq!((foreign.last, foreign.hard_state), (Position::default(), HardState::default()));
}

#[test]
fn who_has_lost_the_first_batch_with_the_header_knows_how_far_the_log_reached() {
    let (disk, all) = proven_log();
    let healthy = open(&disk.crash(0, Crash::Keep)).unwrap();
    let files = healthy.wal.segment_files();
    let newest = files.last().unwrap();
    disk.open(&newest.path, Open::Write).unwrap().write_at(&[0x55; 512], 0).unwrap();
    let looked = survey(&disk, Position::default());
    assert_eq!((looked.last, looked.reached), (sealed(newest.first.previous()), LogIndex(160)));
    assert_eq!(looked.hard_state.term, Term(157), "a later batch says so");
    let recovered = give_up(&disk, Position::default());
    assert_eq!(content(&recovered.wal).unwrap(), all[..newest.first.0 as usize - 1]);
    assert_eq!(recovered.hard_state.unwrap().term, Term(157));
}

#[test]
fn entries_that_a_segment_without_header_has_taken_back_do_not_count() {
    let disk = Disk::new();
    let mut wal = create(&disk);
    wal.append(&entries(1..=50, 1), None).unwrap();
    wal.append(&entries(20..=25, 2), None).unwrap();
    wal.append(&entries(10..=11, 3), None).unwrap();
    wal.sync().unwrap();
    drop(wal);
    // By the first entry in their names.
    let [oldest, newest, _] = &segments(&disk)[..] else { panic!("two of three take entries back") };
    // What a crash leaves of a trim: the first is gone, and the second, which ends before it begins, is not yet.
    disk.remove(oldest).unwrap();
    let longer = disk.crash(0, Crash::Keep);
    let mut wal = open(&longer).unwrap().wal;
    assert_eq!(wal.last().index, LogIndex(11));
    wal.append(&entries(12..=13, 3), None).unwrap();
    wal.sync().unwrap();
    drop(wal);
    [&disk, &longer].into_iter().for_each(|disk| disk.flip(newest, 42 * 8).unwrap());
    let term_3 = |index| Position { index: LogIndex(index), term: Term(3) };
    for (behind, begins) in [(9, 10), (10, 11)] {
        let looked = survey(&disk, sealed(LogIndex(behind)));
        assert_eq!((looked.last, looked.reached), (term_3(11), LogIndex(11)), "those up to 25 were taken back");
        let recovered = give_up(&disk.crash(0, Crash::Keep), sealed(LogIndex(behind)));
        assert_eq!(content(&recovered.wal).unwrap(), entries(begins..=11, 3));
    }
    // It follows no such state, and so adds nothing to that; what was taken back is not kept in its place.
    assert_eq!(survey(&disk, sealed(LogIndex(5))).last, sealed(LogIndex(5)));
    assert_eq!(content(&give_up(&disk, sealed(LogIndex(5))).wal).unwrap(), entries(11..=11, 3));
    // Nor by a member that keeps its seat, since the header of a later segment can be read.
    let recovered = Wal::salvage(Arc::new(longer), Path::new(DIR), OPTIONS, Needs::default(), |_| true).unwrap();
    assert_eq!(content(&recovered.wal).unwrap(), []);
    assert_eq!(recovered.hard_state.unwrap().quarantined_until, Some(LogIndex(13)));
}

#[test]
fn a_crash_while_salvaging_can_be_salvaged() {
    let (disk, all) = proven_log();
    let files = open(&disk.crash(0, Crash::Keep)).unwrap().wal.segment_files();
    disk.flip(&files[1].path, 8 * 900).unwrap();
    let salvage =
        |disk: &Disk| Wal::salvage(Arc::new(disk.clone()), Path::new(DIR), OPTIONS, Needs::default(), |_| true);
    for stop in 0.. {
        let interrupted = disk.crash(0, Crash::Keep);
        interrupted.stop_at(stop);
        let done = salvage(&interrupted).is_ok();
        for (seed, mode) in Crash::ALL.into_iter().enumerate() {
            let recovered = salvage(&interrupted.crash(stop * 4 + seed as u64, mode)).unwrap();
            assert_eq!(recovered.hard_state.as_ref().unwrap().quarantined_until, Some(LogIndex(160)), "{mode:?}");
            let found = content(&recovered.wal).unwrap();
            assert_eq!(found, all[..found.len()]);
        }
        if done {
            return;
        }
    }
}
