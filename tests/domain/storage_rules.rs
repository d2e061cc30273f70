//! What may be left out, and what must not: each rule of flush, seal and merge by itself.

use crate::storage_ground::{BEGIN_MS, Ground, INDEX, ROWS, TTL_MS, newest_rows, row_key};
use chronos::sql::value::Value;
use chronos::storage::entry::start;
use chronos::storage::judge::{Judge, Verdict};
use chronos::storage::level::Level;
use chronos::storage::merge::Pick;
use std::time::Duration;

fn with_ttl() -> Ground {
    Ground::new(Some(Duration::from_millis(TTL_MS)))
}

fn fill(ground: &mut Ground, device: &str, from: i64, rows: i64) {
    let rows: Vec<(&str, i64, i64)> = (from..from + rows).map(|ts| (device, ts, ts % 11)).collect();
    ground.put(&rows);
}

fn rows_stored(ground: &Ground) -> usize {
    let stored = |level: &Level| {
        let blocks = level.manifest.blocks(ROWS);
        blocks.iter().map(|entry| entry.summary.rows as usize).sum::<usize>()
    };
    ground.levels().iter().map(stored).sum()
}

#[test]
fn flush_leaves_out_expired_rows_that_shadow_nothing() {
    let mut ground = with_ttl();
    fill(&mut ground, "a", 0, 50);
    ground.advance(TTL_MS + 1);
    fill(&mut ground, "b", 0, 10);
    ground.flush();
    assert_eq!(rows_stored(&ground), 10);
    ground.check();
}

#[test]
fn flush_drops_blocks_that_have_expired_without_touching_them() {
    let mut ground = with_ttl();
    fill(&mut ground, "a", 0, 3000);
    ground.flush();
    assert_eq!(rows_stored(&ground), 3000);
    ground.advance(TTL_MS + 1);
    fill(&mut ground, "z", 0, 5);
    ground.flush();
    assert_eq!(rows_stored(&ground), 5);
    ground.check();
}

#[test]
fn a_row_expires_after_its_age_and_not_before() {
    let mut ground = with_ttl();
    fill(&mut ground, "a", 0, 10);
    let created = ground.now_ms();
    assert_eq!(created, BEGIN_MS);
    ground.advance(TTL_MS);
    ground.seal();
    assert_eq!(rows_stored(&ground), 10, "a row of exactly its age is there");
    ground.advance(1);
    fill(&mut ground, "z", 0, 1);
    ground.seal();
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 1);
    ground.check();
}

#[test]
fn an_expired_row_over_an_older_one_keeps_key_and_metadata_alone() {
    let mut ground = with_ttl();
    fill(&mut ground, "a", 0, 20);
    ground.seal();
    // Written anew with the `created` of the older rows: an UPDATE.
    let rows: Vec<(&str, i64, i64)> = (0..20).map(|ts| ("a", ts, ts + 100)).collect();
    ground.put(&rows);
    ground.advance(TTL_MS + 1);
    ground.seal();
    let newest = newest_rows(&ground.levels(), &ground.layout(ROWS), ROWS);
    for ts in 0..20 {
        let row = &newest[&row_key("a", ts).to_vec()];
        assert!(!row.is_tombstone, "for the checks of apply an expired row is absent, a tombstone is not");
        assert_eq!(row.values[2], Value::Null, "values are gone");
        assert_eq!(row.values[1], Value::Timestamp(ts));
        assert_eq!(row.stamp.created_ms, BEGIN_MS);
        assert_eq!(row.stamp.modified.0, 2);
    }
    ground.check();
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 0, "where nothing older is left, they go");
    ground.check();
}

#[test]
fn a_newer_expired_row_does_not_uncover_an_older_one_that_has_not() {
    // An old stamp from elsewhere may overwrite a younger row: its `created` is older than that of what it hides.
    use chronos::clock::Wall;
    use chronos::hlc::Timestamp;
    let mut ground = with_ttl();
    ground.advance(TTL_MS);
    fill(&mut ground, "a", 0, 5);
    ground.seal();
    let young = ground.state.hlc;
    ground.state.hlc = Timestamp::at(Wall(BEGIN_MS));
    ground.model.rows.clear();
    fill(&mut ground, "a", 0, 5);
    ground.state.hlc = young;
    ground.advance(500);
    ground.flush();
    ground.check();
    ground.seal();
    ground.check();
    ground.merge_all();
    ground.check();
    assert_eq!(rows_stored(&ground), 0);
}

#[test]
fn merge_judges_by_the_birth_state_and_never_by_a_later_one() {
    let mut ground = with_ttl();
    fill(&mut ground, "a", 0, 40);
    ground.seal();
    fill(&mut ground, "b", 0, 40);
    ground.seal();
    // Time goes on, but a replay from CURRENT's birth would find these rows alive.
    ground.advance(TTL_MS + 1);
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 80);
    ground.check();
    // The next seal is a new birth, and after it they may go.
    fill(&mut ground, "c", 0, 1);
    ground.seal();
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 1);
    ground.check();
}

#[test]
fn a_tombstone_stays_while_an_older_level_may_hold_its_key() {
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 40);
    ground.seal();
    ground.delete(&[("a", 3), ("a", 4), ("q", 9)]);
    ground.raise_floor();
    ground.seal();
    let newest = newest_rows(&ground.levels(), &ground.layout(ROWS), ROWS);
    assert!(newest[&row_key("a", 3).to_vec()].is_tombstone);
    assert!(!newest.contains_key(&row_key("q", 9).to_vec()), "nothing older, and at the floor: gone");
    ground.check();
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 38);
    ground.check();
}

#[test]
fn a_tombstone_above_the_floor_survives_into_the_oldest_level() {
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 40);
    ground.seal();
    ground.delete(&[("a", 3)]);
    ground.seal();
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 40);
    ground.check();
    ground.raise_floor();
    fill(&mut ground, "b", 0, 1);
    ground.seal();
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 40, "39 rows and one of b");
    ground.check();
}

#[test]
fn a_block_of_expired_tombstones_above_the_floor_is_not_dropped_unread() {
    let mut ground = with_ttl();
    let rows: Vec<(&str, i64)> = (0..40).map(|ts| ("a", ts)).collect();
    ground.delete(&rows);
    ground.flush();
    ground.advance(2 * TTL_MS);
    let level = ground.hot.level();
    let entry = level.manifest.blocks(ROWS)[0].clone();
    let judged = |ground: &Ground| Judge::new(&ground.state, &[], Vec::new()).keyspace(ROWS).unwrap().block(&entry);
    assert_ne!(judged(&ground), Verdict::Drop);
    ground.raise_floor();
    assert_eq!(judged(&ground), Verdict::Drop);
}

#[test]
fn rows_of_a_dropped_table_go_with_its_index() {
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 100);
    ground.seal();
    fill(&mut ground, "b", 0, 100);
    ground.flush();
    ground.drop_table();
    ground.flush();
    assert!(ground.hot.level().manifest.keyspaces().next().is_none());
    ground.seal();
    assert_eq!(ground.runs.len(), 2);
    // The policy finds the file that is nothing but waste, and takes it out of CURRENT.
    let pick = ground.pick().unwrap();
    ground.merge(&pick);
    assert!(ground.levels().iter().all(|level| level.manifest.keyspaces().next().is_none()));
    ground.check();
}

#[test]
fn a_range_delete_hides_rows_and_index_entries_until_it_has_been_applied() {
    let mut ground = Ground::new(None);
    for device in ["a", "b", "c"] {
        fill(&mut ground, device, 0, 120);
    }
    ground.seal();
    fill(&mut ground, "b", 100, 50);
    ground.delete_range("b", 10, 130);
    fill(&mut ground, "b", 50, 3);
    ground.flush();
    ground.check();
    ground.raise_floor();
    ground.seal();
    ground.check();
    assert_eq!(ground.runs[0].level.range_deletes.len(), 1, "older rows still lie under it");
    ground.merge_all();
    ground.check();
    assert!(ground.runs[0].level.range_deletes.is_empty(), "applied, at the floor, into the oldest level");
    let index: u32 = ground.runs[0].level.manifest.blocks(INDEX).iter().map(|entry| entry.summary.rows).sum();
    assert_eq!(index as usize, rows_stored(&ground));
}

#[test]
fn a_file_that_a_newer_run_deletes_is_rewritten_by_itself() {
    let mut ground = Ground::new(None);
    ground.limits.file_bytes = 1 << 20;
    let rows: Vec<(&str, i64, i64)> = (0..3000).map(|ts| ("a", ts, 1)).collect();
    ground.put(&rows);
    ground.seal();
    ground.delete_range("a", 0, 5000);
    fill(&mut ground, "b", 0, 20);
    ground.seal();
    let pick = ground.pick().unwrap();
    assert_eq!(pick.runs, 1..=1);
    let bytes = ground.runs[1].bytes();
    let step = ground.merge(&pick);
    assert!(step.report.rows == 0 && bytes > step.report.bytes, "{:?}", step.report);
    assert_eq!(ground.runs[0].level.range_deletes.len(), 1, "above the floor it counts as the rows' tombstone");
    ground.check();
}

#[test]
fn a_range_delete_above_the_floor_survives_every_merge() {
    let mut ground = Ground::new(None);
    fill(&mut ground, "a", 0, 100);
    ground.seal();
    ground.delete_range("a", 0, 1000);
    ground.seal();
    ground.merge_all();
    assert_eq!(rows_stored(&ground), 0);
    assert_eq!(ground.runs[0].level.range_deletes.len(), 1);
    ground.check();
}

#[test]
fn a_file_of_which_most_has_expired_is_rewritten_by_itself() {
    let mut ground = with_ttl();
    ground.limits.file_bytes = 1 << 20;
    fill(&mut ground, "a", 0, 1000);
    ground.seal();
    ground.advance(TTL_MS / 2);
    fill(&mut ground, "b", 0, 200);
    ground.seal();
    assert_eq!(ground.pick(), None);
    ground.advance(TTL_MS / 2 + 1);
    fill(&mut ground, "c", 0, 1);
    ground.seal();
    let pick = ground.pick().unwrap();
    assert_eq!(pick.runs, 2..=2);
    let step = ground.merge(&pick);
    assert_eq!(step.report.rows, 0, "nothing of it was read or written");
    assert_eq!(ground.runs.len(), 2, "an empty oldest run leaves CURRENT");
    ground.check();
    ground.reopen_runs();
    ground.check();
}

#[test]
fn a_file_amid_its_run_that_has_expired_leaves_its_range_to_its_neighbour() {
    let mut ground = with_ttl();
    fill(&mut ground, "m", 0, 1500);
    ground.advance(TTL_MS / 2);
    fill(&mut ground, "a", 0, 1500);
    fill(&mut ground, "z", 0, 1500);
    ground.seal();
    let files = ground.runs[0].names.len();
    ground.advance(TTL_MS / 2 + 1);
    fill(&mut ground, "q", 0, 1);
    ground.seal();
    let mut steps = 0;
    while let Some(pick) = ground.pick() {
        ground.merge(&pick);
        ground.check();
        steps += 1;
        assert!(steps < 100);
    }
    assert!(ground.runs[1].names.len() < files);
    ground.reopen_runs();
    ground.check();
}

#[test]
fn blocks_that_overlap_nothing_are_copied_and_small_ones_joined() {
    let mut ground = Ground::new(None);
    ground.limits.file_bytes = 1 << 20;
    fill(&mut ground, "a", 0, 320);
    ground.seal();
    fill(&mut ground, "b", 0, 320);
    ground.seal();
    let step = ground.merge(&Pick { runs: 0..=1, from: start(), to: None });
    assert!(step.report.blocks_copied >= 40, "{:?}", step.report);
    ground.check();
    for ts in 0..6 {
        fill(&mut ground, "c", ts * 3, 3);
        ground.seal();
    }
    ground.merge_all();
    assert_eq!(ground.runs[0].level.manifest.blocks(ROWS).len(), 20 + 20 + 2, "18 rows of c in two blocks of 16");
    ground.check();
}

#[test]
fn scattered_keys_get_filters_and_appended_ones_do_not() {
    let mut ground = Ground::new(None);
    let scattered = |step: i64| -> Vec<(String, i64, i64)> {
        let mut rows: Vec<_> = (0..1500).map(|i| (format!("{:08x}", (i * step) % 1_000_003), 0, i % 5)).collect();
        rows.sort();
        rows.dedup_by(|a, b| a.0 == b.0);
        rows
    };
    for step in [611_953, 413_857, 823_117] {
        let rows = scattered(step);
        let rows: Vec<(&str, i64, i64)> = rows.iter().map(|(key, ts, value)| (key.as_str(), *ts, *value)).collect();
        ground.put(&rows);
        ground.flush();
    }
    assert!(ground.hot.level().manifest.blocks(ROWS).iter().any(|entry| entry.filter.is_some()));
    ground.seal();
    assert!(ground.runs[0].level.manifest.blocks(ROWS).iter().all(|entry| entry.filter.is_some()));
    ground.check();

    let mut ground = Ground::new(None);
    for round in 0..5 {
        for device in ["a", "b", "c"] {
            fill(&mut ground, device, round * 300, 300);
        }
        ground.flush();
    }
    ground.seal();
    assert!(ground.runs[0].level.manifest.blocks(ROWS).iter().all(|entry| entry.filter.is_none()));
}
