//! ORDER BY against the standard library's stable sort.

use super::laws::{TYPES, any_rows};
use super::support::*;
use chronos::sql::plan::{Plan, SortKey};
use chronos::sql::value::{DataType, Value};
use proptest::prelude::*;
use std::cmp::Ordering;

fn compare(a: &[Value], b: &[Value], keys: &[(usize, bool, bool)]) -> Ordering {
    for &(index, descending, nulls_first) in keys {
        let (a, b) = (&a[index], &b[index]);
        let order = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => {
                if nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (false, true) => {
                if nulls_first {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (false, false) => {
                if descending {
                    b.order(a)
                } else {
                    a.order(b)
                }
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn sort(input: Plan, keys: &[(usize, bool, bool)], limit: Option<u64>) -> Plan {
    let keys = keys
        .iter()
        .map(|&(index, descending, nulls_first)| SortKey {
            expression: column(index, TYPES[index]),
            descending,
            nulls_first,
        })
        .collect();
    Plan::Sort { input: Box::new(input), keys, limit }
}

proptest! {
    #[test]
    fn a_sort_is_the_stable_sort(
        rows in any_rows(0..80),
        keys in proptest::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 1..4),
        limit in proptest::option::of(0u64..20),
    ) {
        let mut expected = rows.clone();
        expected.sort_by(|a, b| compare(a, b, &keys));
        expected.truncate(limit.unwrap_or(u64::MAX) as usize);
        let got = run(&sort(values_plan(&TYPES, &rows), &keys, limit)).unwrap();
        prop_assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            // Bit by bit, so that equal keys show the order in which they came.
            prop_assert_eq!(format!("{got:?}"), format!("{expected:?}"));
        }
    }
}

#[test]
fn many_batches_are_merged_stably_and_cut_to_the_limit() {
    // 60,000 rows in 15 batches; keys repeat, and the second column says in which order they came.
    let rows: Vec<Vec<Value>> = (0..60_000u64)
        .map(|i| {
            let mixed = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            let key = if mixed % 50 == 0 { Value::Null } else { Value::Int((mixed % 5000) as i64 - 2500) };
            vec![key, Value::Int(i as i64)]
        })
        .collect();
    let types = [DataType::Int, DataType::Int];
    for keys in [vec![(0, false, false)], vec![(0, true, true)], vec![(0, true, false)], vec![(1, false, false)]] {
        let mut expected = rows.clone();
        expected.sort_by(|a, b| compare(a, b, &keys));
        for limit in [None, Some(1), Some(10), Some(4096), Some(30_000), Some(60_000)] {
            let got = run(&sort(values_plan(&types, &rows), &keys, limit)).unwrap();
            let wanted = limit.unwrap_or(60_000) as usize;
            assert!(got == expected[..wanted], "keys {keys:?} limit {limit:?}");
        }
    }
}

#[test]
fn limit_and_offset_cut_across_batches() {
    let rows: Vec<Vec<Value>> = (0..10_000).map(|i| vec![Value::Int(i)]).collect();
    for (limit, offset) in
        [(Some(0), 0), (Some(5), 4094), (None, 9_998), (Some(9_000), 500), (Some(7), 20_000), (None, 0)]
    {
        let input = Box::new(values_plan(&[DataType::Int], &rows));
        let got = run(&Plan::Limit { input, limit, offset }).unwrap();
        let expected: Vec<Vec<Value>> =
            rows.iter().skip(offset as usize).take(limit.unwrap_or(u64::MAX) as usize).cloned().collect();
        assert!(got == expected, "LIMIT {limit:?} OFFSET {offset}");
    }
}
