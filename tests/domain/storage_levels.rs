//! Histories of writes, flushes, seals and merges against a plain map.

use crate::storage_ground::{Ground, visible_rows};
use chronos::error::Kind;
use chronos::storage::current::Current;
use chronos::storage::entry::start;
use chronos::storage::level::Level;
use chronos::storage::merge::{Pick, merge_step};
use chronos::storage::seal::seal;
use chronos::storage::state::StateRecord;
use proptest::prelude::*;
use std::cell::Cell;
use std::time::Duration;

const DEVICES: [&str; 4] = ["a", "b\0c", "boiler", "z"];

#[derive(Clone, Debug)]
enum Step {
    /// Consecutive timestamps of one device.
    Append {
        device: usize,
        from: i64,
        rows: i64,
        value: i64,
    },
    /// Rows all over the table.
    Scatter {
        seed: i64,
        rows: i64,
        value: i64,
    },
    Delete {
        device: usize,
        from: i64,
        rows: i64,
    },
    DeleteRange {
        device: usize,
        from: i64,
        rows: i64,
    },
    Flush,
    Seal,
    /// What the policy picks, or neighbours from this run on.
    Merge {
        newest: usize,
        runs: usize,
    },
    Advance(u64),
    RaiseFloor,
    ReopenHot,
    ReopenRuns,
    /// Keeps the levels of this moment and what they show.
    Hold,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4usize, 0..300i64, 1..80i64, 0..50i64)
            .prop_map(|(device, from, rows, value)| Step::Append { device, from, rows, value }),
        2 => (0..1000i64, 1..60i64, 0..50i64).prop_map(|(seed, rows, value)| Step::Scatter { seed, rows, value }),
        2 => (0..4usize, 0..300i64, 1..60i64).prop_map(|(device, from, rows)| Step::Delete { device, from, rows }),
        1 => (0..4usize, 0..300i64, 1..200i64).prop_map(|(device, from, rows)| Step::DeleteRange { device, from, rows }),
        3 => Just(Step::Flush),
        3 => Just(Step::Seal),
        4 => (0..4usize, 1..5usize).prop_map(|(newest, runs)| Step::Merge { newest, runs }),
        1 => (1..700u64).prop_map(Step::Advance),
        1 => Just(Step::RaiseFloor),
        1 => Just(Step::ReopenHot),
        1 => Just(Step::ReopenRuns),
        1 => Just(Step::Hold),
    ];
    prop::collection::vec(step, 1..50)
}

/// Levels that a reader holds, and what they showed when it took them.
struct Held {
    levels: Vec<Level>,
    state: StateRecord,
    rows: Vec<(Vec<chronos::sql::value::Value>, u64, u64)>,
}

fn run(ttl: Option<Duration>, portion_rows: usize, steps: &[Step]) {
    let mut ground = Ground::new(ttl);
    ground.portion_rows = portion_rows;
    let mut held: Vec<Held> = Vec::new();
    for step in steps {
        apply(&mut ground, &mut held, step);
        if ground.memtable.is_empty() {
            ground.check();
        }
    }
    ground.flush();
    ground.check();
    for reader in &held {
        assert_eq!(visible_rows(&reader.levels, &reader.state), reader.rows, "a level that is held never changes");
    }
    drop(held);
    ground.seal();
    ground.merge_all();
    ground.reopen_runs();
    ground.check();
}

fn apply(ground: &mut Ground, held: &mut Vec<Held>, step: &Step) {
    match *step {
        Step::Append { device, from, rows, value } => {
            let rows: Vec<(&str, i64, i64)> = (0..rows).map(|i| (DEVICES[device], from + i, value + i % 7)).collect();
            ground.put(&rows);
        }
        Step::Scatter { seed, rows, value } => {
            let mut rows: Vec<(&str, i64, i64)> = (0..rows)
                .map(|i| ((seed + i * 37) % 1200, value + i))
                .map(|(at, value)| (DEVICES[(at % 4) as usize], at / 4, value))
                .collect();
            rows.sort_unstable();
            rows.dedup_by_key(|(device, ts, _)| (*device, *ts));
            ground.put(&rows);
        }
        Step::Delete { device, from, rows } => {
            let rows: Vec<(&str, i64)> = (0..rows).map(|i| (DEVICES[device], from + i * 2)).collect();
            ground.delete(&rows);
        }
        Step::DeleteRange { device, from, rows } => ground.delete_range(DEVICES[device], from, from + rows),
        Step::Seal if ground.runs.len() < 8 => ground.seal(),
        // A seal that would make a ninth run waits for a merge.
        Step::Flush | Step::Seal => ground.flush(),
        Step::Merge { newest, runs } => {
            let is_partial = ground.current.runs.iter().any(|run| Current::is_partial(run));
            let last = newest + runs;
            let pick = if is_partial || last >= ground.runs.len() {
                ground.pick()
            } else {
                Some(Pick { runs: newest..=last, from: start(), to: None })
            };
            if let Some(pick) = pick {
                ground.merge(&pick);
            }
        }
        Step::Advance(ms) => ground.advance(ms),
        Step::RaiseFloor => ground.raise_floor(),
        Step::ReopenHot => ground.reopen_hot(),
        Step::ReopenRuns => {
            if held.is_empty() {
                ground.reopen_runs();
            }
        }
        Step::Hold => {
            let (levels, state) = (ground.levels(), ground.state.clone());
            let rows = visible_rows(&levels, &state);
            held.push(Held { levels, state, rows });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_as_a_map(portion_rows in 1..40usize, steps in steps()) {
        run(None, portion_rows, &steps);
    }

    #[test]
    fn any_history_with_expiry_reads_as_a_map(portion_rows in 1..40usize, steps in steps()) {
        run(Some(Duration::from_millis(crate::storage_ground::TTL_MS)), portion_rows, &steps);
    }
}

fn fill(ground: &mut Ground, device: &str, from: i64, rows: i64) {
    let rows: Vec<(&str, i64, i64)> = (from..from + rows).map(|ts| (device, ts, ts % 11)).collect();
    ground.put(&rows);
}

#[test]
fn a_merge_goes_range_by_range_and_is_resumed_from_current_alone() {
    let mut ground = Ground::new(None);
    for round in 0..3 {
        for device in DEVICES {
            fill(&mut ground, device, round * 50, 150);
        }
        ground.seal();
    }
    let files_before = ground.current.numbers().len();
    assert!(files_before > 6, "small limits make many files, not {files_before}");
    let mut steps = 0;
    ground.merge(&Pick { runs: 0..=2, from: start(), to: None });
    while ground.current.runs.iter().any(|run| Current::is_partial(run)) {
        ground.check();
        ground.reopen_runs();
        let pick = ground.pick().unwrap();
        assert_eq!(*pick.runs.end(), ground.runs.len() - 1);
        ground.merge(&pick);
        steps += 1;
        assert!(steps < 200, "a merge comes to its end");
    }
    assert!(steps >= 2, "the merge took several steps");
    assert_eq!(ground.runs.len(), 1);
    ground.check();
}

#[test]
fn an_interrupted_seal_or_merge_leaves_nothing_behind() {
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 400);
    ground.seal();
    fill(&mut ground, "a", 200, 400);
    ground.seal();
    fill(&mut ground, "b", 0, 300);
    ground.flush();
    let before = ground.files.list(&ground.path()).unwrap();
    for blocks in [0, 1, 5] {
        let left = Cell::new(blocks);
        let pause = || match left.get() {
            0 => crate::storage_ground::interrupted(),
            n => {
                left.set(n - 1);
                Ok(())
            }
        };
        let error = seal(ground.target(&pause), &ground.hot.level(), &ground.older(), ground.hot.state()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        left.set(blocks);
        let pick = Pick { runs: 0..=1, from: start(), to: None };
        let merged = merge_step(ground.target(&pause), &ground.current, &ground.runs, &ground.birth, &pick);
        assert_eq!(merged.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(ground.files.list(&ground.path()).unwrap(), before);
    }
    ground.check();
}

#[test]
fn files_leave_with_the_last_level_that_names_them() {
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 100);
    ground.seal();
    fill(&mut ground, "a", 50, 100);
    ground.seal();
    let held = ground.levels();
    let shown = visible_rows(&held, &ground.state);
    let old = ground.current.numbers();
    ground.merge_all();
    let exists = |number: &u32| ground.files.exists(&chronos::storage::sealed::path(&ground.path(), *number));
    assert!(old.iter().all(exists), "held files stay");
    assert_eq!(visible_rows(&held, &ground.state), shown);
    drop(held);
    assert!(!old.iter().any(exists), "files that nothing names are gone");
    ground.check();
}

#[test]
fn a_chain_of_many_flushes_opens_again() {
    let mut ground = Ground::new(None);
    for round in 0..150 {
        fill(&mut ground, DEVICES[round % 4], round as i64 * 3, 5);
        ground.flush();
        if round % 50 == 20 {
            ground.reopen_hot();
        }
    }
    ground.reopen_hot();
    ground.check();
}

#[test]
fn a_flush_of_many_chunks_goes_on_within_the_block_where_a_chunk_ended() {
    for step in [2, 3, 700] {
        let mut ground = Ground::new(None);
        let rows: Vec<(&str, i64, i64)> = (0..7_000).map(|i| ("a", i * step, i * 7919 % 100_000)).collect();
        ground.put(&rows);
        ground.flush();
        let rows: Vec<(&str, i64, i64)> = (0..13_000).map(|i| ("a", i * step / 2 + 1, i * 104_729 % 100_000)).collect();
        let mut rows = rows;
        rows.dedup_by_key(|(_, ts, _)| *ts);
        ground.put(&rows);
        ground.flush();
        let found = visible_rows(&ground.levels(), &ground.state);
        assert_eq!(found.len(), ground.model.rows.len());
        assert!(found.iter().zip(ground.model.rows.values()).all(|(row, model)| row.2 == model.modified));
        ground.reopen_hot();
        ground.seal();
        assert_eq!(visible_rows(&ground.levels(), &ground.state), found);
    }
}

#[test]
fn a_block_cut_at_the_end_of_a_step_leaves_the_keyspaces_above_it_alone() {
    let mut ground = Ground::new(None);
    for (device, from, rows) in [("b", 0, 40), ("a", 0, 60), ("z", 130, 60)] {
        fill(&mut ground, device, from, rows);
    }
    ground.seal();
    let rows: Vec<(&str, i64, i64)> = (0..60).map(|i| (DEVICES[i as usize % 4], i * 5, i)).collect();
    ground.put(&rows);
    ground.seal();
    let mut steps = 0;
    let mut next = Some(Pick { runs: 0..=1, from: start(), to: None });
    while let Some(pick) = next {
        ground.merge(&pick);
        ground.check();
        steps += 1;
        let is_partial = ground.current.runs.iter().any(|run| Current::is_partial(run));
        next = if is_partial { ground.pick() } else { None };
    }
    assert!(steps > 1);
}

#[test]
fn a_merge_step_that_ends_within_a_hidden_block_cuts_it_like_any_other() {
    // Found by a random history: the end of the first step lies in a block of the oldest run that the range delete hides.
    let append = |device, from, rows, value| Step::Append { device, from, rows, value };
    let scatter = |seed, rows, value| Step::Scatter { seed, rows, value };
    let delete = |device, from, rows| Step::Delete { device, from, rows };
    let history = [
        vec![delete(0, 0, 1), delete(1, 255, 32), delete(1, 0, 27), scatter(311, 43, 0), Step::Seal],
        vec![append(0, 65, 20, 0), scatter(0, 11, 2), Step::Seal],
        vec![delete(0, 265, 56), append(0, 5, 67, 45), scatter(986, 46, 34), Step::Seal],
        vec![Step::DeleteRange { device: 1, from: 180, rows: 165 }, scatter(273, 39, 14), delete(0, 162, 31)],
        vec![scatter(134, 58, 34), scatter(413, 34, 33), append(1, 278, 58, 34)],
    ];
    run(None, 1, &history.concat());
}
