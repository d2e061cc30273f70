//! The same expressions here and in SQLite, inside the dialect that both share: integers that do not overflow, text by
//! bytes, no division by zero.

use super::support::*;
use chronos::sql::expression::{BinaryOperator, Expression, Function};
use chronos::sql::value::{DataType, Value};
use proptest::prelude::*;
use rusqlite::Connection;

const TYPES: [DataType; 3] = [DataType::Int, DataType::Int, DataType::Text];
const NAMES: [&str; 3] = ["a", "b", "t"];

/// An expression and how SQLite writes it.
type Both = (Expression, String);

fn value(of: DataType) -> BoxedStrategy<Value> {
    let present = match of {
        DataType::Text => "[abA]{0,3}".prop_map(Value::Text).boxed(),
        _ => (-3i64..4).prop_map(Value::Int).boxed(),
    };
    prop_oneof![5 => present, 1 => Just(Value::Null)].boxed()
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{text}'"),
        Value::Bool(value) => i64::from(*value).to_string(),
        value => value.to_string(),
    }
}

fn leaf(of: DataType) -> BoxedStrategy<Both> {
    let columns: Vec<usize> = (0..3).filter(|&i| TYPES[i] == of).collect();
    let constant = value(of).prop_map(move |value| {
        let sql = literal(&value);
        (Expression::Constant { value, data_type: of }, sql)
    });
    prop_oneof![proptest::sample::select(columns).prop_map(move |i| (column(i, of), NAMES[i].to_owned())), constant]
        .boxed()
}

fn operation(
    operators: Vec<(BinaryOperator, &'static str)>,
    left: BoxedStrategy<Both>,
    right: BoxedStrategy<Both>,
) -> BoxedStrategy<Both> {
    (proptest::sample::select(operators), left, right)
        .prop_map(|((operator, sql), (a, a_sql), (b, b_sql))| {
            (binary(operator, a, b), format!("({a_sql} {sql} {b_sql})"))
        })
        .boxed()
}

fn number(depth: u32) -> BoxedStrategy<Both> {
    use BinaryOperator::{Add, Divide, Modulo, Multiply, Subtract};
    if depth == 0 {
        return leaf(DataType::Int);
    }
    let divisor = prop_oneof![-3i64..0, 1i64..4].prop_map(|value| (int(value), value.to_string())).boxed();
    let case = (truth(depth - 1), number(depth - 1), number(depth - 1)).prop_map(|((w, ws), (t, ts), (o, os))| {
        let case = Expression::Case { branches: vec![(w, t)], otherwise: Box::new(o), data_type: DataType::Int };
        (case, format!("CASE WHEN {ws} THEN {ts} ELSE {os} END"))
    });
    let pair = |function, name: &'static str| {
        (number(depth - 1), number(depth - 1)).prop_map(move |((a, a_sql), (b, b_sql))| {
            let call = Expression::Call { function, arguments: vec![a, b], data_type: DataType::Int };
            (call, format!("{name}({a_sql}, {b_sql})"))
        })
    };
    let length = string(depth - 1).prop_map(|(a, sql)| {
        let call = Expression::Call { function: Function::Length, arguments: vec![a], data_type: DataType::Int };
        (call, format!("length({sql})"))
    });
    prop_oneof![
        3 => operation(vec![(Add, "+"), (Subtract, "-"), (Multiply, "*")], number(depth - 1), number(depth - 1)),
        1 => operation(vec![(Divide, "/"), (Modulo, "%")], number(depth - 1), divisor),
        1 => case,
        1 => pair(Function::Coalesce, "coalesce"),
        1 => pair(Function::NullIf, "nullif"),
        1 => length,
    ]
    .boxed()
}

fn string(depth: u32) -> BoxedStrategy<Both> {
    if depth == 0 {
        return leaf(DataType::Text);
    }
    prop_oneof![
        leaf(DataType::Text),
        operation(vec![(BinaryOperator::Concatenate, "||")], string(depth - 1), string(depth - 1)),
    ]
    .boxed()
}

fn truth(depth: u32) -> BoxedStrategy<Both> {
    use BinaryOperator::{And, Distinct, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotDistinct, NotEqual, Or};
    let comparisons = vec![
        (Equal, "="),
        (NotEqual, "<>"),
        (Less, "<"),
        (LessOrEqual, "<="),
        (Greater, ">"),
        (GreaterOrEqual, ">="),
        (Distinct, "IS NOT"),
        (NotDistinct, "IS"),
    ];
    let below = depth.saturating_sub(1);
    let numbers = operation(comparisons.clone(), number(below), number(below));
    let strings = operation(comparisons, string(below), string(below));
    if depth == 0 {
        return prop_oneof![numbers, strings].boxed();
    }
    let like = (string(below), "[abA%_]{0,4}").prop_map(|((a, sql), pattern)| {
        let like = Expression::Like {
            input: Box::new(a),
            pattern: Box::new(text(&pattern)),
            escape: None,
            case_insensitive: false,
            negated: false,
        };
        (like, format!("({sql} LIKE '{pattern}')"))
    });
    let within = (number(below), proptest::collection::vec(value(DataType::Int), 1..12), any::<bool>()).prop_map(
        |((a, sql), list, negated)| {
            let items = list.iter().map(literal).collect::<Vec<_>>().join(", ");
            let list = list.into_iter().map(|value| Expression::Constant { value, data_type: DataType::Int }).collect();
            let not = if negated { "NOT " } else { "" };
            (Expression::InList { input: Box::new(a), list, negated }, format!("({sql} {not}IN ({items}))"))
        },
    );
    let is_null = number(below)
        .prop_map(|(a, sql)| (Expression::IsNull { input: Box::new(a), negated: false }, format!("({sql} IS NULL)")));
    prop_oneof![
        2 => numbers,
        1 => strings,
        3 => operation(vec![(And, "AND"), (Or, "OR")], truth(below), truth(below)),
        1 => truth(below).prop_map(|(a, sql)| (not(a), format!("(NOT {sql})"))),
        1 => like,
        1 => within,
        1 => is_null,
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_gives_the_same(
        (expression, sql) in prop_oneof![truth(3), number(3), string(2)],
        rows in proptest::collection::vec((value(DataType::Int), value(DataType::Int), value(DataType::Text)), 1..12),
    ) {
        let rows: Vec<Vec<Value>> = rows.into_iter().map(|(a, b, t)| vec![a, b, t]).collect();
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA case_sensitive_like = ON; CREATE TABLE r (a INTEGER, b INTEGER, t TEXT)").unwrap();
        for row in &rows {
            let cells = row.iter().map(literal).collect::<Vec<_>>().join(", ");
            connection.execute(&format!("INSERT INTO r VALUES ({cells})"), []).unwrap();
        }
        let mut statement = connection.prepare(&format!("SELECT {sql} FROM r ORDER BY rowid")).unwrap();
        let theirs: Vec<rusqlite::types::Value> =
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        let ours = expression.evaluate(&batch(&TYPES, &rows)).unwrap();
        for (i, theirs) in theirs.iter().enumerate() {
            let ours = match ours.value(i) {
                Value::Null => rusqlite::types::Value::Null,
                Value::Bool(value) => rusqlite::types::Value::Integer(i64::from(value)),
                Value::Int(value) => rusqlite::types::Value::Integer(value),
                Value::Text(value) => rusqlite::types::Value::Text(value),
                other => panic!("{other:?} is of no type that SQLite was asked for"),
            };
            prop_assert_eq!(&ours, theirs, "{} over {:?}", sql, rows[i]);
        }
    }
}
