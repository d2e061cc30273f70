//! Laws of evaluation: it does not matter how rows come, and LIKE is what its definition says.

use super::support::*;
use chronos::sql::batch::Batch;
use chronos::sql::expression::{BinaryOperator, Expression, Function, UnaryOperator};
use chronos::sql::value::{DataType, Value};
use proptest::prelude::*;

/// Columns 0 to 5: two of INT, then one of each other type that expressions are made of.
pub const TYPES: [DataType; 6] =
    [DataType::Int, DataType::Int, DataType::Float, DataType::Text, DataType::Bool, DataType::Timestamp];

pub fn any_value(of: DataType) -> BoxedStrategy<Value> {
    let present = match of {
        DataType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        DataType::Int => {
            prop_oneof![8 => -4i64..5, 1 => Just(i64::MAX), 1 => Just(i64::MIN)].prop_map(Value::Int).boxed()
        }
        DataType::Float => {
            prop_oneof![-3f64..3.0, Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::MAX), Just(0.5), Just(1.0)]
                .prop_map(Value::Float)
                .boxed()
        }
        DataType::Text => "[a-cA-C1-3ä%_]{0,4}".prop_map(Value::Text).boxed(),
        DataType::Blob => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::Blob).boxed(),
        DataType::Timestamp => (-5i64..5).prop_map(Value::Timestamp).boxed(),
    };
    prop_oneof![6 => present, 1 => Just(Value::Null)].boxed()
}

fn leaf(of: DataType) -> BoxedStrategy<Expression> {
    let columns: Vec<usize> = (0..TYPES.len()).filter(|&i| TYPES[i] == of).collect();
    let constant = any_value(of).prop_map(move |value| Expression::Constant { value, data_type: of });
    if columns.is_empty() {
        return constant.boxed();
    }
    prop_oneof![2 => proptest::sample::select(columns).prop_map(move |index| column(index, of)), 1 => constant].boxed()
}

/// A random expression of a type.
pub fn any_expression(of: DataType, depth: u32) -> BoxedStrategy<Expression> {
    if depth == 0 {
        return leaf(of);
    }
    let sub = move |of: DataType| any_expression(of, depth - 1);
    let case = (proptest::collection::vec((sub(DataType::Bool), sub(of)), 1..3), sub(of)).prop_map(
        move |(branches, otherwise)| Expression::Case { branches, otherwise: Box::new(otherwise), data_type: of },
    );
    let coalesce = proptest::collection::vec(sub(of), 2..4).prop_map(move |arguments| Expression::Call {
        function: Function::Coalesce,
        arguments,
        data_type: of,
    });
    let null_if = (sub(of), sub(of)).prop_map(move |(a, b)| Expression::Call {
        function: Function::NullIf,
        arguments: vec![a, b],
        data_type: of,
    });
    let common = prop_oneof![leaf(of), case, coalesce, null_if].boxed();
    let own = match of {
        DataType::Bool => booleans(depth),
        DataType::Int => prop_oneof![
            (arithmetic(), sub(of), sub(of)).prop_map(|(operator, a, b)| binary(operator, a, b)),
            sub(DataType::Float).prop_map(|input| cast(input, DataType::Int)),
            sub(DataType::Text).prop_map(|input| cast(input, DataType::Int)),
            sub(DataType::Text).prop_map(|input| call(Function::Length, input, DataType::Int)),
            sub(of).prop_map(|input| call(Function::Abs, input, DataType::Int)),
            sub(of).prop_map(|input| Expression::Unary { operator: UnaryOperator::Negate, input: Box::new(input) }),
        ]
        .boxed(),
        DataType::Float => prop_oneof![
            (arithmetic(), sub(of), sub(of)).prop_map(|(operator, a, b)| binary(operator, a, b)),
            sub(DataType::Int).prop_map(|input| cast(input, DataType::Float)),
            sub(of).prop_map(|input| call(Function::Sqrt, input, DataType::Float)),
            sub(of).prop_map(|input| call(Function::Round, input, DataType::Float)),
        ]
        .boxed(),
        DataType::Text => prop_oneof![
            (sub(of), sub(of)).prop_map(|(a, b)| binary(BinaryOperator::Concatenate, a, b)),
            sub(DataType::Int).prop_map(|input| cast(input, DataType::Text)),
            sub(DataType::Bool).prop_map(|input| cast(input, DataType::Text)),
            sub(of).prop_map(|input| call(Function::Upper, input, DataType::Text)),
        ]
        .boxed(),
        DataType::Blob | DataType::Timestamp => leaf(of),
    };
    prop_oneof![1 => common, 2 => own].boxed()
}

fn booleans(depth: u32) -> BoxedStrategy<Expression> {
    let sub = move |of: DataType| any_expression(of, depth - 1);
    let compared = prop_oneof![
        Just(DataType::Int),
        Just(DataType::Float),
        Just(DataType::Text),
        Just(DataType::Bool),
        Just(DataType::Timestamp)
    ];
    let compare = compared
        .clone()
        .prop_flat_map(move |of| (comparison(), sub(of), sub(of)).prop_map(|(operator, a, b)| binary(operator, a, b)));
    let within = compared.prop_flat_map(move |of| {
        (
            sub(of),
            prop_oneof![proptest::collection::vec(sub(of), 1..4), proptest::collection::vec(any_constant(of), 9..12)],
            any::<bool>(),
        )
            .prop_map(|(input, list, negated)| Expression::InList { input: Box::new(input), list, negated })
    });
    let logic =
        (prop_oneof![Just(BinaryOperator::And), Just(BinaryOperator::Or)], sub(DataType::Bool), sub(DataType::Bool))
            .prop_map(|(operator, a, b)| binary(operator, a, b));
    let like = (sub(DataType::Text), sub(DataType::Text), any::<bool>(), any::<bool>()).prop_map(
        |(input, pattern, case_insensitive, negated)| Expression::Like {
            input: Box::new(input),
            pattern: Box::new(pattern),
            escape: None,
            case_insensitive,
            negated,
        },
    );
    let is_null = (sub(DataType::Int), any::<bool>())
        .prop_map(|(input, negated)| Expression::IsNull { input: Box::new(input), negated });
    prop_oneof![3 => compare, 1 => within, 3 => logic, 1 => like, 1 => is_null, 1 => sub(DataType::Bool).prop_map(not)]
        .boxed()
}

fn any_constant(of: DataType) -> BoxedStrategy<Expression> {
    any_value(of).prop_map(move |value| Expression::Constant { value, data_type: of }).boxed()
}

fn arithmetic() -> impl Strategy<Value = BinaryOperator> {
    use BinaryOperator::{Add, Divide, Modulo, Multiply, Subtract};
    proptest::sample::select(vec![Add, Subtract, Multiply, Divide, Modulo])
}

fn comparison() -> impl Strategy<Value = BinaryOperator> {
    use BinaryOperator::{Distinct, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotDistinct, NotEqual};
    proptest::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, NotDistinct, Distinct])
}

fn call(function: Function, input: Expression, data_type: DataType) -> Expression {
    Expression::Call { function, arguments: vec![input], data_type }
}

pub fn any_rows(rows: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<Value>>> {
    proptest::collection::vec(TYPES.map(any_value).to_vec(), rows)
}

/// The same with every column in place of its value.
fn folded(expression: &Expression, row: &[Value]) -> Expression {
    let fold = |input: &Expression| Box::new(folded(input, row));
    match expression {
        Expression::Constant { .. } => expression.clone(),
        Expression::Column { index, data_type, .. } => {
            Expression::Constant { value: row[*index].clone(), data_type: *data_type }
        }
        Expression::Unary { operator, input } => Expression::Unary { operator: *operator, input: fold(input) },
        Expression::Binary { operator, left, right } => {
            Expression::Binary { operator: *operator, left: fold(left), right: fold(right) }
        }
        Expression::IsNull { input, negated } => Expression::IsNull { input: fold(input), negated: *negated },
        Expression::Like { input, pattern, escape, case_insensitive, negated } => Expression::Like {
            input: fold(input),
            pattern: fold(pattern),
            escape: *escape,
            case_insensitive: *case_insensitive,
            negated: *negated,
        },
        Expression::InList { input, list, negated } => Expression::InList {
            input: fold(input),
            list: list.iter().map(|item| folded(item, row)).collect(),
            negated: *negated,
        },
        Expression::InSet { input, sets, list, negated } => Expression::InSet {
            input: fold(input),
            sets: sets.clone(),
            list: list.iter().map(|item| folded(item, row)).collect(),
            negated: *negated,
        },
        Expression::Case { branches, otherwise, data_type } => Expression::Case {
            branches: branches.iter().map(|(when, then)| (folded(when, row), folded(then, row))).collect(),
            otherwise: fold(otherwise),
            data_type: *data_type,
        },
        Expression::Cast { input, to } => Expression::Cast { input: fold(input), to: *to },
        Expression::Call { function, arguments, data_type } => Expression::Call {
            function: *function,
            arguments: arguments.iter().map(|argument| folded(argument, row)).collect(),
            data_type: *data_type,
        },
    }
}

/// LIKE by its definition, without escapes.
fn naive_like(text: &[char], pattern: &[char]) -> bool {
    match (text, pattern) {
        ([], []) => true,
        (_, ['%', rest @ ..]) => (0..=text.len()).any(|skip| naive_like(&text[skip..], rest)),
        ([_, text @ ..], ['_', rest @ ..]) => naive_like(text, rest),
        ([a, text @ ..], [b, rest @ ..]) if a == b => naive_like(text, rest),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn batched_is_row_by_row_is_folded(
        expression in prop_oneof![
            any_expression(DataType::Bool, 3),
            any_expression(DataType::Int, 3),
            any_expression(DataType::Float, 3),
            any_expression(DataType::Text, 3),
        ],
        rows in any_rows(1..12),
    ) {
        let whole: Batch = batch(&TYPES, &rows);
        let batched = expression.evaluate(&whole);
        let mut raised = false;
        for (i, row) in rows.iter().enumerate() {
            let vector = expression.evaluate(&batch(&TYPES, std::slice::from_ref(row))).map(|column| column.value(0));
            let constant = expression.evaluate(&constant_batch(&TYPES, row)).map(|column| column.value(0));
            let folded = folded(&expression, row).evaluate_constant();
            match (&vector, &constant, &folded) {
                (Ok(a), Ok(b), Ok(c)) => {
                    prop_assert!(same(a, b) && same(a, c), "{:?} {:?} {:?}", a, b, c);
                    if let Ok(column) = &batched {
                        prop_assert!(column.len() == rows.len() && column.data_type() == expression.data_type());
                        prop_assert!(same(&column.value(i), a), "row {}: {:?} {:?}", i, column.value(i), a);
                    }
                }
                (Err(_), Err(_), Err(_)) => raised = true,
                _ => prop_assert!(false, "{:?} {:?} {:?}", vector, constant, folded),
            }
        }
        prop_assert_eq!(batched.is_err(), raised, "{:?}", batched.err());
    }

    #[test]
    fn like_is_its_definition(input in "[abä]{0,8}", pattern in "[abä%_]{0,7}") {
        let expression = Expression::Like {
            input: Box::new(text(&input)), pattern: Box::new(text(&pattern)),
            escape: Some('\\'), case_insensitive: false, negated: false,
        };
        let characters = |text: &str| text.chars().collect::<Vec<char>>();
        let expected = naive_like(&characters(&input), &characters(&pattern));
        prop_assert_eq!(expression.evaluate_constant().unwrap(), Value::Bool(expected));
    }
}
