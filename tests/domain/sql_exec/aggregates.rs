//! Aggregates, GROUP BY and DISTINCT against naive ones.

use super::laws::{TYPES, any_rows};
use super::support::*;
use chronos::error::SqlState;
use chronos::sql::expression::Expression;
use chronos::sql::memory::Pool;
use chronos::sql::operator::{Analysis, build};
use chronos::sql::plan::{Aggregate, AggregateFunction, Plan};
use chronos::sql::value::{DataType, Value};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn aggregate(function: AggregateFunction, argument: Option<Expression>, distinct: bool) -> Aggregate {
    let data_type = match (function, &argument) {
        (AggregateFunction::Count, _) => DataType::Int,
        (AggregateFunction::Avg, _) => DataType::Float,
        (_, Some(argument)) => argument.data_type(),
        (_, None) => DataType::Int,
    };
    Aggregate { function, argument, distinct, data_type }
}

fn grouped(input: Plan, group: &[usize], aggregates: Vec<Aggregate>) -> Plan {
    let group = group.iter().map(|&index| column(index, TYPES[index])).collect();
    Plan::Aggregate { input: Box::new(input), group, aggregates }
}

/// By definition: values in a list, NULL left out, each once where asked for.
fn naive(aggregate: &Aggregate, rows: &[&Vec<Value>]) -> Result<Value, SqlState> {
    let Some(Expression::Column { index, .. }) = &aggregate.argument else { return Ok(Value::Int(rows.len() as i64)) };
    let mut values: Vec<&Value> = rows.iter().map(|row| &row[*index]).filter(|value| !value.is_null()).collect();
    if aggregate.distinct {
        let mut distinct: Vec<&Value> = Vec::new();
        for value in values {
            if !distinct.iter().any(|known| same(known, value)) {
                distinct.push(value);
            }
        }
        values = distinct;
    }
    let count = values.len();
    let best = |prefer: std::cmp::Ordering| {
        values.iter().copied().reduce(|a, b| if b.order(a) == prefer { b } else { a }).cloned().unwrap_or(Value::Null)
    };
    Ok(match aggregate.function {
        AggregateFunction::Count => Value::Int(count as i64),
        AggregateFunction::Min => best(std::cmp::Ordering::Less),
        AggregateFunction::Max => best(std::cmp::Ordering::Greater),
        AggregateFunction::Sum | AggregateFunction::Avg if count == 0 => Value::Null,
        AggregateFunction::Sum | AggregateFunction::Avg => {
            let sum: i128 =
                values.iter().map(|value| if let Value::Int(value) = value { i128::from(*value) } else { 0 }).sum();
            match aggregate.function {
                AggregateFunction::Avg => Value::Float(sum as f64 / count as f64),
                _ => Value::Int(i64::try_from(sum).map_err(|_| SqlState::NUMERIC_OUT_OF_RANGE)?),
            }
        }
    })
}

proptest! {
    #[test]
    fn groups_and_aggregates_are_their_definitions(
        rows in any_rows(0..60),
        group in prop_oneof![
            Just(vec![]), Just(vec![0]), Just(vec![3]), Just(vec![4]), Just(vec![5]), Just(vec![2]), Just(vec![3, 4]), Just(vec![0, 2, 3]),
        ],
        run_rows in 1usize..9,
    ) {
        // Each row several times, one after the other: runs of some length.
        let rows: Vec<Vec<Value>> = rows.iter().flat_map(|row| std::iter::repeat_n(row.clone(), run_rows)).collect();
        let mut aggregates = vec![aggregate(AggregateFunction::Count, None, false)];
        for distinct in [false, true] {
            for (index, of) in TYPES.iter().enumerate() {
                for function in [AggregateFunction::Count, AggregateFunction::Min, AggregateFunction::Max] {
                    aggregates.push(aggregate(function, Some(column(index, *of)), distinct));
                }
            }
            for function in [AggregateFunction::Sum, AggregateFunction::Avg] {
                aggregates.push(aggregate(function, Some(column(0, DataType::Int)), distinct));
            }
        }
        let plan = grouped(values_plan(&TYPES, &rows), &group, aggregates.clone());
        let mut expected: Vec<(Vec<Value>, Vec<&Vec<Value>>)> = Vec::new();
        if group.is_empty() {
            expected.push((Vec::new(), Vec::new()));
        }
        for row in &rows {
            let key: Vec<Value> = group.iter().map(|&index| row[index].clone()).collect();
            let found = expected.iter_mut().find(|(known, _)| known.iter().zip(&key).all(|(a, b)| same(a, b)));
            match found {
                Some((_, members)) => members.push(row),
                None => expected.push((key, vec![row])),
            }
        }
        let expected: Result<Vec<Vec<Value>>, SqlState> = expected
            .into_iter()
            .map(|(mut key, members)| {
                for aggregate in &aggregates {
                    key.push(naive(aggregate, &members)?);
                }
                Ok(key)
            })
            .collect();
        match (run(&plan), expected) {
            (Ok(got), Ok(expected)) => {
                prop_assert_eq!(got.len(), expected.len());
                for (got, expected) in got.iter().zip(&expected) {
                    prop_assert!(got.iter().zip(expected).all(|(a, b)| same(a, b)), "{:?}\n{:?}", got, expected);
                }
            }
            (Err(error), Err(state)) => prop_assert_eq!(error.sqlstate(), state),
            (got, expected) => prop_assert!(false, "{:?} {:?}", got, expected),
        }
    }

    #[test]
    fn distinct_keeps_the_first_of_equal_rows(rows in any_rows(0..40), columns in prop_oneof![Just(vec![0]), Just(vec![3]), Just(vec![2, 4])]) {
        let rows: Vec<Vec<Value>> = rows.iter().map(|row| columns.iter().map(|&index| row[index].clone()).collect()).collect();
        let types: Vec<DataType> = columns.iter().map(|&index| TYPES[index]).collect();
        let mut expected: Vec<Vec<Value>> = Vec::new();
        for row in &rows {
            if !expected.iter().any(|known| known.iter().zip(row).all(|(a, b)| same(a, b))) {
                expected.push(row.clone());
            }
        }
        let got = run(&Plan::Distinct { input: Box::new(values_plan(&types, &rows)) }).unwrap();
        prop_assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            prop_assert!(got.iter().zip(expected).all(|(a, b)| same(a, b)));
        }
    }
}

proptest! {
    #[test]
    fn it_does_not_matter_how_rows_are_cut_into_batches(
        rows in any_rows(0..40),
        repeat in 1usize..5,
        sizes in proptest::collection::vec(1usize..12, 1..4),
        keys in proptest::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 1..3),
        limit in proptest::option::of(1u64..10),
    ) {
        let rows: Vec<Vec<Value>> = rows.iter().flat_map(|row| std::iter::repeat_n(row.clone(), repeat)).collect();
        let (_, table) = super::scans::sensors(0);
        let scan = super::scans::whole(&table);
        let aggregates = || {
            let functions = [AggregateFunction::Count, AggregateFunction::Min, AggregateFunction::Max];
            let mut all: Vec<Aggregate> = functions
                .into_iter()
                .flat_map(|function| TYPES.iter().enumerate().map(move |(index, of)| aggregate(function, Some(column(index, *of)), false)))
                .collect();
            for index in [0, 2] {
                let argument = || Some(column(index, TYPES[index]));
                all.push(aggregate(AggregateFunction::Avg, argument(), false));
                all.push(aggregate(AggregateFunction::Count, argument(), true));
            }
            all
        };
        let keys: Vec<chronos::sql::plan::SortKey> = keys
            .into_iter()
            .map(|(index, descending, nulls_first)| chronos::sql::plan::SortKey { expression: column(index, TYPES[index]), descending, nulls_first })
            .collect();
        let plans: [&dyn Fn(Plan) -> Plan; 5] = [
            &|input| grouped(input, &[], aggregates()),
            &|input| grouped(input, &[0], aggregates()),
            &|input| grouped(input, &[3, 4], aggregates()),
            &|input| Plan::Distinct { input: Box::new(input) },
            &|input| Plan::Sort { input: Box::new(input), keys: keys.clone(), limit },
        ];
        for (number, plan) in plans.iter().enumerate() {
            let whole = run(&plan(values_plan(&TYPES, &rows)));
            let cut = run_in(&plan(scan.clone()), &context(blocks(&TYPES, &rows, &sizes)));
            match (whole, cut) {
                (Ok(whole), Ok(cut)) => {
                    prop_assert_eq!(whole.len(), cut.len());
                    for (whole, cut) in whole.iter().zip(&cut) {
                        prop_assert!(whole.iter().zip(cut).all(|(a, b)| same(a, b)), "plan {}: {:?}\n{:?}", number, whole, cut);
                    }
                }
                (whole, cut) => prop_assert_eq!(whole.map_err(|e| e.sqlstate()), cut.map_err(|e| e.sqlstate())),
            }
        }
    }
}

#[test]
fn sums_of_floats_are_exact_where_they_can_be() {
    let rows: Vec<Vec<Value>> = (0..10_000).map(|_| vec![Value::Float(0.1)]).collect();
    let argument = || Some(column(0, DataType::Float));
    let plan = Plan::Aggregate {
        input: Box::new(values_plan(&[DataType::Float], &rows)),
        group: Vec::new(),
        aggregates: vec![
            aggregate(AggregateFunction::Sum, argument(), false),
            aggregate(AggregateFunction::Avg, argument(), false),
        ],
    };
    assert_eq!(run(&plan).unwrap(), [[Value::Float(1000.0), Value::Float(0.1)]]);
    let overflow = [[Value::Float(f64::MAX)], [Value::Float(f64::MAX)]].map(Vec::from);
    let plan = Plan::Aggregate {
        input: Box::new(values_plan(&[DataType::Float], &overflow)),
        group: Vec::new(),
        aggregates: vec![aggregate(AggregateFunction::Sum, argument(), false)],
    };
    assert_eq!(run(&plan).unwrap_err().sqlstate(), SqlState::NUMERIC_OUT_OF_RANGE);
}

#[test]
fn a_query_over_its_memory_is_refused_and_gives_everything_back() {
    let rows: Vec<Vec<Value>> = (0..20_000).map(|i| vec![Value::Int(i)]).collect();
    let input = || Box::new(values_plan(&[DataType::Int], &rows));
    let sort = Plan::Sort {
        input: input(),
        keys: vec![chronos::sql::plan::SortKey {
            expression: column(0, DataType::Int),
            descending: true,
            nulls_first: true,
        }],
        limit: None,
    };
    let group = Plan::Aggregate { input: input(), group: vec![column(0, DataType::Int)], aggregates: Vec::new() };
    for plan in [sort, group, Plan::Distinct { input: input() }] {
        let pool = Pool::new(1 << 20);
        let mut context = context(Map::default());
        context.memory = pool.query(100_000);
        let error = run_in(&plan, &context).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::OUT_OF_MEMORY);
        assert!(error.to_string().contains("query memory limit of 100000 bytes reached"), "{error}");
        assert!(error.to_string().contains("limits.query_memory_bytes"), "{error}");
        assert_eq!(pool.used(), 0);
        context.memory = pool.query(1 << 20);
        assert_eq!(run_in(&plan, &context).unwrap().len(), 20_000);
        assert_eq!(pool.used(), 0);
    }
}

#[test]
fn analysis_counts_rows_and_time_of_each_operator() {
    let rows: Vec<Vec<Value>> = (0..10).map(|i| vec![Value::Int(i)]).collect();
    let plan = Plan::Limit {
        input: Box::new(Plan::Filter {
            input: Box::new(values_plan(&[DataType::Int], &rows)),
            predicate: binary(chronos::sql::expression::BinaryOperator::Less, column(0, DataType::Int), int(7)),
        }),
        limit: Some(3),
        offset: 1,
    };
    let ticks = AtomicU64::new(0);
    let now = move || Duration::from_nanos(ticks.fetch_add(1, Ordering::Relaxed));
    let analysis = Arc::new(Analysis::new(&plan, Box::new(now)));
    let mut context = context(Map::default());
    context.analysis = Some(Arc::clone(&analysis));
    assert_eq!(run_in(&plan, &context).unwrap(), [[Value::Int(1)], [Value::Int(2)], [Value::Int(3)]]);
    let figures = analysis.figures();
    assert_eq!(figures.iter().map(|figures| figures.rows).collect::<Vec<_>>(), [3, 7, 10]);
    assert!(figures[0].time > figures[1].time && figures[1].time > figures[2].time && figures[2].calls == 1);
}

#[test]
fn an_interrupt_ends_a_scan_between_batches() {
    let (map, table) = super::scans::sensors(5000);
    let mut context = context(map);
    let calls = AtomicU64::new(0);
    context.interrupt = Arc::new(move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(chronos::Error::limit(SqlState::QUERY_CANCELED, "canceled")),
    });
    let mut operator = build(&super::scans::whole(&table), &context).unwrap();
    assert!(operator.next_batch().is_ok());
    assert_eq!(operator.next_batch().unwrap_err().sqlstate(), SqlState::QUERY_CANCELED);
}
