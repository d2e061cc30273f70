//! What PostgreSQL 15 gives.

use super::support::*;
use chronos::error::{Result, SqlState};
use chronos::sql::expression::{BinaryOperator, Expression, Function, UnaryOperator, can_cast, cast_value};
use chronos::sql::value::{DataType, Value};

fn value(expression: &Expression) -> Result<Value> {
    expression.evaluate_constant()
}

fn state(expression: &Expression) -> SqlState {
    value(expression).unwrap_err().sqlstate()
}

/// The same over vectors, where loops differ from those of constants.
fn over_rows(operator: BinaryOperator, of: DataType, pairs: &[(Value, Value)]) -> Result<Vec<Value>> {
    let rows: Vec<Vec<Value>> = pairs.iter().map(|(a, b)| vec![a.clone(), b.clone()]).collect();
    let batch = batch(&[of, of], &rows);
    let column = binary(operator, column(0, of), column(1, of)).evaluate(&batch)?;
    Ok((0..batch.rows).map(|i| column.value(i)).collect())
}

#[test]
fn and_or_and_not_follow_the_tables_of_three_valued_logic() {
    let truth = [Some(true), Some(false), None];
    let and = |a: Option<bool>, b: Option<bool>| match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    let or = |a: Option<bool>, b: Option<bool>| match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    };
    let wrap = |value: Option<bool>| value.map_or(Value::Null, Value::Bool);
    let mut pairs = Vec::new();
    for a in truth {
        assert_eq!(value(&not(boolean(a))).unwrap(), wrap(a.map(|a| !a)));
        for b in truth {
            assert_eq!(value(&binary(BinaryOperator::And, boolean(a), boolean(b))).unwrap(), wrap(and(a, b)));
            assert_eq!(value(&binary(BinaryOperator::Or, boolean(a), boolean(b))).unwrap(), wrap(or(a, b)));
            pairs.push((a, b));
        }
    }
    let as_values: Vec<(Value, Value)> = pairs.iter().map(|&(a, b)| (wrap(a), wrap(b))).collect();
    let expected = |f: &dyn Fn(Option<bool>, Option<bool>) -> Option<bool>| -> Vec<Value> {
        pairs.iter().map(|&(a, b)| wrap(f(a, b))).collect()
    };
    assert_eq!(over_rows(BinaryOperator::And, DataType::Bool, &as_values).unwrap(), expected(&and));
    assert_eq!(over_rows(BinaryOperator::Or, DataType::Bool, &as_values).unwrap(), expected(&or));
    // A vector beside each constant.
    for b in truth {
        let rows: Vec<Vec<Value>> = truth.iter().map(|&a| vec![wrap(a)]).collect();
        let input = batch(&[DataType::Bool], &rows);
        for (operator, f) in [(BinaryOperator::And, &and as &dyn Fn(_, _) -> _), (BinaryOperator::Or, &or)] {
            let left = binary(operator, column(0, DataType::Bool), boolean(b)).evaluate(&input).unwrap();
            let right = binary(operator, boolean(b), column(0, DataType::Bool)).evaluate(&input).unwrap();
            for (i, &a) in truth.iter().enumerate() {
                assert_eq!((left.value(i), right.value(i)), (wrap(f(a, b)), wrap(f(b, a))));
            }
        }
    }
}

#[test]
fn integer_arithmetic_is_checked() {
    use BinaryOperator::{Add, Divide, Modulo, Multiply, Subtract};
    let of = |operator, a, b| value(&binary(operator, int(a), int(b)));
    assert_eq!(of(Divide, -7, 2).unwrap(), Value::Int(-3));
    assert_eq!(of(Modulo, -7, 2).unwrap(), Value::Int(-1));
    assert_eq!(of(Modulo, i64::MIN, -1).unwrap(), Value::Int(0));
    for (operator, a, b) in
        [(Add, i64::MAX, 1), (Subtract, i64::MIN, 1), (Multiply, i64::MAX, 2), (Divide, i64::MIN, -1)]
    {
        let error = of(operator, a, b).unwrap_err();
        assert_eq!((error.sqlstate(), error.message()), (SqlState::NUMERIC_OUT_OF_RANGE, "INT out of range"));
        let rows = [(Value::Int(1), Value::Int(1)), (Value::Int(a), Value::Int(b))];
        assert_eq!(over_rows(operator, DataType::Int, &rows).unwrap_err(), error);
    }
    for operator in [Divide, Modulo] {
        let error = of(operator, 1, 0).unwrap_err();
        assert_eq!((error.sqlstate(), error.message()), (SqlState::DIVISION_BY_ZERO, "division by zero"));
    }
    let smallest = Expression::Unary { operator: UnaryOperator::Negate, input: Box::new(int(i64::MIN)) };
    assert_eq!(state(&smallest), SqlState::NUMERIC_OUT_OF_RANGE);
}

#[test]
fn what_stands_at_a_null_raises_nothing() {
    // Zero stands at a NULL: as a divisor, and beneath the smallest integer, it must not be looked at.
    let rows = [(Value::Int(1), Value::Null), (Value::Null, Value::Int(0)), (Value::Int(6), Value::Int(3))];
    let divided = over_rows(BinaryOperator::Divide, DataType::Int, &rows).unwrap();
    assert_eq!(divided, [Value::Null, Value::Null, Value::Int(2)]);
    let rows = [(Value::Null, Value::Int(i64::MIN)), (Value::Int(1), Value::Int(1))];
    let subtracted = over_rows(BinaryOperator::Subtract, DataType::Int, &rows).unwrap();
    assert_eq!(subtracted, [Value::Null, Value::Int(0)]);
}

#[test]
fn float_arithmetic_refuses_what_leaves_its_range() {
    use BinaryOperator::{Add, Divide, Multiply};
    let of = |operator, a, b| value(&binary(operator, float(a), float(b)));
    assert_eq!(of(Divide, 1.0, 4.0).unwrap(), Value::Float(0.25));
    assert_eq!(of(Divide, 1.0, 0.0).unwrap_err().sqlstate(), SqlState::DIVISION_BY_ZERO);
    assert_eq!(of(Add, f64::MAX, f64::MAX).unwrap_err().message(), "value out of range: overflow");
    assert_eq!(of(Multiply, 1e-200, 1e-200).unwrap_err().message(), "value out of range: underflow");
    assert_eq!(of(Divide, 1e-200, 1e200).unwrap_err().message(), "value out of range: underflow");
    assert_eq!(of(Add, f64::INFINITY, 1.0).unwrap(), Value::Float(f64::INFINITY));
    assert!(matches!(of(Divide, f64::NAN, 0.0).unwrap(), Value::Float(value) if value.is_nan()));
    assert_eq!(of(Divide, 1.0, f64::INFINITY).unwrap(), Value::Float(0.0));
}

#[test]
fn comparisons_follow_the_order_of_keys() {
    use BinaryOperator::{Distinct, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotDistinct, NotEqual};
    let samples: Vec<(DataType, Vec<Value>)> = vec![
        (
            DataType::Float,
            [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 2.0, f64::INFINITY, f64::NAN].map(Value::Float).to_vec(),
        ),
        (DataType::Int, [i64::MIN, -1, 0, 7, i64::MAX].map(Value::Int).to_vec()),
        (DataType::Bool, [false, true].map(Value::Bool).to_vec()),
        (DataType::Text, ["", "A", "a", "ab", "b", "ä"].map(|text| Value::Text(text.into())).to_vec()),
        (DataType::Blob, [&b""[..], b"\x00", b"\xff"].map(|bytes| Value::Blob(bytes.into())).to_vec()),
        (DataType::Timestamp, [-1, 0, 1].map(Value::Timestamp).to_vec()),
    ];
    for (of, mut values) in samples {
        values.push(Value::Null);
        let pairs: Vec<(Value, Value)> =
            values.iter().flat_map(|a| values.iter().map(move |b| (a.clone(), b.clone()))).collect();
        for operator in [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, Distinct, NotDistinct] {
            let got = over_rows(operator, of, &pairs).unwrap();
            for ((a, b), got) in pairs.iter().zip(got) {
                let order = a.order(b);
                let some_null = a.is_null() || b.is_null();
                let expected = match operator {
                    Distinct => Value::Bool(order.is_ne()),
                    NotDistinct => Value::Bool(order.is_eq()),
                    _ if some_null => Value::Null,
                    Equal => Value::Bool(order.is_eq()),
                    NotEqual => Value::Bool(order.is_ne()),
                    Less => Value::Bool(order.is_lt()),
                    LessOrEqual => Value::Bool(order.is_le()),
                    Greater => Value::Bool(order.is_gt()),
                    _ => Value::Bool(order.is_ge()),
                };
                assert_eq!(got, expected, "{a:?} {operator:?} {b:?}");
                let side = |value: &Value| Expression::Constant { value: value.clone(), data_type: of };
                assert_eq!(value(&binary(operator, side(a), side(b))).unwrap(), expected, "{a:?} {operator:?} {b:?}");
            }
        }
    }
}

#[test]
fn a_branch_is_evaluated_only_for_rows_that_reach_it() {
    let rows: Vec<Vec<Value>> =
        [Some(0), Some(2), None, Some(4)].map(|n: Option<i64>| vec![n.map_or(Value::Null, Value::Int)]).to_vec();
    let input = batch(&[DataType::Int], &rows);
    let n = || column(0, DataType::Int);
    let quotient = || binary(BinaryOperator::Divide, int(8), n());
    let is_zero = || binary(BinaryOperator::Equal, n(), int(0));
    let all = |expression: &Expression| -> Result<Vec<Value>> {
        let column = expression.evaluate(&input)?;
        Ok((0..input.rows).map(|i| column.value(i)).collect())
    };
    let big = || binary(BinaryOperator::Greater, quotient(), int(3));
    assert_eq!(
        all(&binary(BinaryOperator::And, not(is_zero()), big())).unwrap(),
        [Value::Bool(false), Value::Bool(true), Value::Null, Value::Bool(false)]
    );
    assert_eq!(
        all(&binary(BinaryOperator::Or, is_zero(), big())).unwrap(),
        [Value::Bool(true), Value::Bool(true), Value::Null, Value::Bool(false)]
    );
    let case = Expression::Case {
        branches: vec![(is_zero(), int(-1)), (Expression::IsNull { input: Box::new(n()), negated: false }, int(-2))],
        otherwise: Box::new(quotient()),
        data_type: DataType::Int,
    };
    assert_eq!(all(&case).unwrap(), [-1, 4, -2, 2].map(Value::Int));
    // COALESCE: the division is reached by the NULL alone, where it is NULL.
    let coalesce = Expression::Call {
        function: Function::Coalesce,
        arguments: vec![n(), binary(BinaryOperator::Divide, int(1), int(0))],
        data_type: DataType::Int,
    };
    assert_eq!(all(&coalesce).unwrap_err().sqlstate(), SqlState::DIVISION_BY_ZERO);
    let coalesce = Expression::Call {
        function: Function::Coalesce,
        arguments: vec![n(), quotient(), int(9)],
        data_type: DataType::Int,
    };
    assert_eq!(all(&coalesce).unwrap(), [0, 2, 9, 4].map(Value::Int));
    assert_eq!(
        all(&binary(BinaryOperator::And, big(), not(is_zero()))).unwrap_err().sqlstate(),
        SqlState::DIVISION_BY_ZERO
    );
}

#[test]
fn in_is_null_where_nothing_equals_and_something_is_unknown() {
    let within = |input: Expression, list: Vec<Expression>, negated| {
        value(&Expression::InList { input: Box::new(input), list, negated }).unwrap()
    };
    assert_eq!(within(int(1), vec![int(1), null(DataType::Int)], false), Value::Bool(true));
    assert_eq!(within(int(2), vec![int(1), null(DataType::Int)], false), Value::Null);
    assert_eq!(within(int(2), vec![int(1), null(DataType::Int)], true), Value::Null);
    assert_eq!(within(int(2), vec![int(1)], true), Value::Bool(true));
    assert_eq!(within(null(DataType::Int), vec![int(1)], false), Value::Null);
    assert_eq!(within(float(f64::NAN), vec![float(f64::NAN)], false), Value::Bool(true));
    let long = |of: &dyn Fn(i64) -> Expression| (0..50).map(of).collect::<Vec<_>>();
    assert_eq!(within(int(49), long(&int), false), Value::Bool(true));
    assert_eq!(within(int(50), long(&int), true), Value::Bool(true));
    assert_eq!(within(float(-0.0), long(&|i| float(i as f64)), false), Value::Bool(true));
    assert_eq!(within(text("t7"), long(&|i| text(&format!("t{i}"))), false), Value::Bool(true));
}

#[test]
fn casts_are_those_of_postgresql() {
    let to = |value: Value, to| cast_value(&value, to);
    for (value, rounded) in
        [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-9.223_372_036_854_775e18, -9_223_372_036_854_774_784)]
    {
        assert_eq!(to(Value::Float(value), DataType::Int).unwrap(), Value::Int(rounded), "{value}");
    }
    for outside in [9.3e18, f64::NAN, f64::INFINITY, 9_223_372_036_854_775_808.0] {
        assert_eq!(to(Value::Float(outside), DataType::Int).unwrap_err().message(), "INT out of range");
        assert_eq!(state(&cast(float(outside), DataType::Int)), SqlState::NUMERIC_OUT_OF_RANGE);
    }
    assert_eq!(to(Value::Text(" 12 ".into()), DataType::Int).unwrap(), Value::Int(12));
    assert_eq!(to(Value::Bool(true), DataType::Text).unwrap(), Value::Text("true".into()));
    assert_eq!(to(Value::Int(-3), DataType::Bool).unwrap(), Value::Bool(true));
    assert_eq!(to(Value::Null, DataType::Blob).unwrap(), Value::Null);
    assert_eq!(to(Value::Timestamp(0), DataType::Text).unwrap(), Value::Text("1970-01-01 00:00:00".into()));
    let error = to(Value::Timestamp(0), DataType::Int).unwrap_err();
    assert_eq!((error.sqlstate(), error.message()), (SqlState::CANNOT_COERCE, "cannot cast type TIMESTAMP to INT"));
    assert!(can_cast(DataType::Text, DataType::Timestamp) && !can_cast(DataType::Bool, DataType::Float));
    // Over vectors: the NULL stays, the rest is parsed.
    let rows = [vec![Value::Text("1e3".into())], vec![Value::Null], vec![Value::Text("-0.25".into())]];
    let column = cast(column(0, DataType::Text), DataType::Float).evaluate(&batch(&[DataType::Text], &rows)).unwrap();
    assert_eq!(
        [column.value(0), column.value(1), column.value(2)],
        [Value::Float(1000.0), Value::Null, Value::Float(-0.25)]
    );
}

#[test]
fn functions_are_those_of_postgresql() {
    let call = |function, arguments: Vec<Expression>| {
        let data_type = match function {
            Function::Length => DataType::Int,
            _ => arguments[0].data_type(),
        };
        value(&Expression::Call { function, arguments, data_type })
    };
    assert_eq!(call(Function::Length, vec![text("häß€")]).unwrap(), Value::Int(4));
    assert_eq!(call(Function::Lower, vec![text("HÄ")]).unwrap(), Value::Text("hä".into()));
    assert_eq!(call(Function::Upper, vec![text("hä")]).unwrap(), Value::Text("HÄ".into()));
    assert_eq!(call(Function::Abs, vec![int(-5)]).unwrap(), Value::Int(5));
    assert_eq!(call(Function::Abs, vec![int(i64::MIN)]).unwrap_err().sqlstate(), SqlState::NUMERIC_OUT_OF_RANGE);
    for (value, rounded) in [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-2.5, -2.0), (2.6, 3.0)] {
        assert_eq!(call(Function::Round, vec![float(value)]).unwrap(), Value::Float(rounded));
    }
    assert_eq!(call(Function::Round, vec![float(2.675), int(2)]).unwrap(), Value::Float(2.68));
    assert_eq!(call(Function::Round, vec![float(1250.0), int(-2)]).unwrap(), Value::Float(1300.0));
    assert_eq!(call(Function::Round, vec![int(1250), int(-2)]).unwrap(), Value::Int(1300));
    assert_eq!(call(Function::Floor, vec![float(-1.5)]).unwrap(), Value::Float(-2.0));
    assert_eq!(call(Function::Ceil, vec![float(-1.5)]).unwrap(), Value::Float(-1.0));
    assert_eq!(call(Function::Sqrt, vec![float(2.25)]).unwrap(), Value::Float(1.5));
    assert_eq!(call(Function::Sqrt, vec![float(-1.0)]).unwrap_err().sqlstate().as_str(), "2201F");
    assert_eq!(call(Function::NullIf, vec![int(1), int(1)]).unwrap(), Value::Null);
    assert_eq!(call(Function::NullIf, vec![int(1), null(DataType::Int)]).unwrap(), Value::Int(1));
    assert_eq!(call(Function::Upper, vec![null(DataType::Text)]).unwrap(), Value::Null);
}

#[test]
fn like_matches_characters_and_honours_its_escape() {
    let like = |input: &str, pattern: &str, escape: Option<char>, case_insensitive: bool| {
        value(&Expression::Like {
            input: Box::new(text(input)),
            pattern: Box::new(text(pattern)),
            escape,
            case_insensitive,
            negated: false,
        })
    };
    let yes =
        |input, pattern| assert_eq!(like(input, pattern, Some('\\'), false).unwrap(), Value::Bool(true), "{pattern}");
    let no =
        |input, pattern| assert_eq!(like(input, pattern, Some('\\'), false).unwrap(), Value::Bool(false), "{pattern}");
    yes("häß", "h_ß");
    yes("pump-17", "pump-%");
    yes("pump-17", "%-17");
    yes("pump-17", "%mp-1%");
    yes("aXbXc", "a%b%c");
    yes("", "%");
    yes("100%", "100\\%");
    yes("a_b", "a\\_b");
    no("axb", "a\\_b");
    no("Pump", "pump");
    no("ab", "a_b");
    no("", "_");
    assert_eq!(like("PÜMP", "pü%", Some('\\'), true).unwrap(), Value::Bool(true));
    assert_eq!(like("a%b", "a!%b", Some('!'), false).unwrap(), Value::Bool(true));
    assert_eq!(like("a\\b", "a\\b", None, false).unwrap(), Value::Bool(true));
    let error = like("a", "a\\", Some('\\'), false).unwrap_err();
    assert_eq!(
        (error.sqlstate(), error.message()),
        (SqlState::INVALID_ESCAPE, "LIKE pattern must not end with escape character")
    );
    // A pattern that a matcher trying every combination would not end with.
    no(&"a".repeat(2000), &format!("{}b", "%a".repeat(60)));
}
