//! Calls: scalar functions, aggregates and the instant of the statement.

use super::coercion::{Typed, binary, unify};
use super::constant::place;
use super::expression::{Aggregates, Binder, FIRST_AGGREGATE, nearest_function};
use crate::error::{Error, Result, SqlState};
use crate::sql::expression::{BinaryOperator, Expression, Function};
use crate::sql::plan::{Aggregate, AggregateFunction};
use crate::sql::statement::Call;
use crate::sql::value::{DataType, Value};

/// What can be called, for suggestions.
pub(super) const NAMES: [&str; 20] = [
    "abs",
    "avg",
    "ceil",
    "ceiling",
    "char_length",
    "coalesce",
    "count",
    "current_timestamp",
    "floor",
    "length",
    "lower",
    "max",
    "min",
    "now",
    "nullif",
    "round",
    "sqrt",
    "statement_timestamp",
    "sum",
    "upper",
];

/// What follows the name of an aggregate over a trailing window.
const WINDOWS: [&str; 3] = ["_1h", "_24h", "_7d"];

impl Binder<'_> {
    pub(super) fn call(&mut self, call: &Call, position: u32) -> Result<Typed> {
        let name = call.name.text.as_str();
        if let Some(function) = aggregate_of(name) {
            return self.aggregate(function, call, position);
        }
        if WINDOWS.iter().any(|window| name.strip_suffix(window).is_some_and(|name| aggregate_of(name).is_some())) {
            return Err(place(Error::unsupported(format_args!("window aggregates ({name}) are")), position));
        }
        if call.star || call.distinct {
            let what = if call.star { "(*)" } else { "DISTINCT" };
            let message = format!("{what} is for aggregates, {name} is not one");
            return Err(place(Error::invalid(SqlState::WRONG_OBJECT_TYPE, message), position));
        }
        let arguments =
            call.arguments.iter().map(|argument| self.expression(argument)).collect::<Result<Vec<Typed>>>()?;
        let (function, to) = match (name, arguments.as_slice()) {
            ("now" | "current_timestamp" | "transaction_timestamp" | "statement_timestamp", []) => {
                return Ok(Typed::constant(Value::Timestamp(self.context.now_us), DataType::Timestamp, position));
            }
            ("coalesce", [_, ..]) => {
                let (arguments, data_type) = unify("COALESCE", arguments)?;
                return Ok(call_of(Function::Coalesce, arguments, data_type, position));
            }
            ("round", [x, places]) if x.fits(DataType::Float) && !x.untyped && places.fits(DataType::Int) => {
                let [x, places] = <[Typed; 2]>::try_from(arguments).expect("the pattern has two arguments");
                let arguments = vec![x.into_type(DataType::Float)?, places.into_type(DataType::Int)?];
                return Ok(call_of(Function::Round, arguments, DataType::Float, position));
            }
            ("nullif", [_, _]) => return nullif(arguments, position),
            ("abs", [x]) if !x.untyped && x.data_type() == DataType::Int => (Function::Abs, DataType::Int),
            ("length", [x]) if !x.untyped && x.data_type() == DataType::Blob => (Function::Length, DataType::Blob),
            ("length" | "char_length" | "character_length", [x]) if x.fits(DataType::Text) => {
                (Function::Length, DataType::Text)
            }
            ("lower", [x]) if x.fits(DataType::Text) => (Function::Lower, DataType::Text),
            ("upper", [x]) if x.fits(DataType::Text) => (Function::Upper, DataType::Text),
            ("abs", [x]) if x.fits(DataType::Float) => (Function::Abs, DataType::Float),
            ("round", [x]) if x.fits(DataType::Float) => (Function::Round, DataType::Float),
            ("floor", [x]) if x.fits(DataType::Float) => (Function::Floor, DataType::Float),
            ("ceil" | "ceiling", [x]) if x.fits(DataType::Float) => (Function::Ceil, DataType::Float),
            ("sqrt", [x]) if x.fits(DataType::Float) => (Function::Sqrt, DataType::Float),
            _ => return Err(unknown(name, &arguments, position)),
        };
        let data_type = if function == Function::Length { DataType::Int } else { to };
        let arguments = arguments.into_iter().map(|argument| argument.into_type(to)).collect::<Result<Vec<_>>>()?;
        Ok(call_of(function, arguments, data_type, position))
    }

    fn aggregate(&mut self, function: AggregateFunction, call: &Call, position: u32) -> Result<Typed> {
        if self.within_aggregate {
            let message = "aggregate function calls cannot be nested";
            return Err(place(Error::invalid(SqlState::GROUPING_ERROR, message), position));
        }
        if let Aggregates::Refused(clause) = self.aggregates {
            let message = format!("aggregate functions are not allowed in {clause}");
            return Err(place(Error::invalid(SqlState::GROUPING_ERROR, message), position));
        }
        self.within_aggregate = true;
        let arguments = call.arguments.iter().map(|argument| self.expression(argument)).collect::<Result<Vec<Typed>>>();
        self.within_aggregate = false;
        let arguments = arguments?;
        let name = call.name.text.as_str();
        if call.star && function == AggregateFunction::Count {
            let aggregate = Aggregate { function, argument: None, distinct: false, data_type: DataType::Int };
            return self.collect(aggregate, name, position);
        }
        if arguments.is_empty() && !call.star {
            let message = format!("{name}(*) must be used to call a parameterless aggregate function");
            let known = function == AggregateFunction::Count;
            let error = || place(Error::invalid(SqlState::WRONG_OBJECT_TYPE, message), position);
            return Err(if known { error() } else { unknown(name, &arguments, position) });
        }
        let argument = match <[Typed; 1]>::try_from(arguments) {
            Ok([argument]) if !call.star => argument,
            Ok([argument]) => return Err(unknown(name, &[argument], position)),
            Err(arguments) => return Err(unknown(name, &arguments, position)),
        };
        let data_type = match (function, argument.data_type()) {
            (AggregateFunction::Count, _) => DataType::Int,
            (AggregateFunction::Avg, DataType::Int | DataType::Float) => DataType::Float,
            (AggregateFunction::Sum, data_type @ (DataType::Int | DataType::Float))
            | (
                AggregateFunction::Min | AggregateFunction::Max,
                data_type @ (DataType::Int | DataType::Float | DataType::Text | DataType::Blob | DataType::Timestamp),
            ) => data_type,
            (AggregateFunction::Sum | AggregateFunction::Avg, _) if argument.untyped => {
                let message = format!("function {name}(unknown) is not unique");
                return Err(place(Error::invalid(SqlState::AMBIGUOUS_FUNCTION, message), position)
                    .hint("cast the argument to a type"));
            }
            (AggregateFunction::Sum | AggregateFunction::Avg | AggregateFunction::Min | AggregateFunction::Max, _) => {
                return Err(unknown(name, &[argument], position));
            }
        };
        let argument = Some(argument.expression);
        self.collect(Aggregate { function, argument, distinct: call.distinct, data_type }, name, position)
    }

    /// Equal aggregates are computed once.
    fn collect(&mut self, aggregate: Aggregate, name: &str, position: u32) -> Result<Typed> {
        let data_type = aggregate.data_type;
        let Aggregates::Collected(all) = &mut self.aggregates else {
            return Err(Error::internal("an aggregate was bound where it is refused"));
        };
        let known = all.iter().position(|known| *known == aggregate);
        let index = known.unwrap_or_else(|| {
            all.push(aggregate);
            all.len() - 1
        });
        let column = Expression::Column { index: FIRST_AGGREGATE + index, data_type, name: name.to_owned() };
        Ok(Typed::new(column, position))
    }
}

/// The aggregate of a name.
fn aggregate_of(name: &str) -> Option<AggregateFunction> {
    match name {
        "count" => Some(AggregateFunction::Count),
        "sum" => Some(AggregateFunction::Sum),
        "avg" => Some(AggregateFunction::Avg),
        "min" => Some(AggregateFunction::Min),
        "max" => Some(AggregateFunction::Max),
        _ => None,
    }
}

fn call_of(function: Function, arguments: Vec<Expression>, data_type: DataType, position: u32) -> Typed {
    Typed::new(Expression::Call { function, arguments, data_type }, position)
}

/// The types must be comparable, as `=` is what decides; the result is the first in the type of the comparison.
fn nullif(arguments: Vec<Typed>, position: u32) -> Result<Typed> {
    let [first, second] = <[Typed; 2]>::try_from(arguments).expect("the caller matched two arguments");
    let comparison = binary(BinaryOperator::Equal, first, second, position)?;
    let Expression::Binary { left, right, .. } = comparison.expression else {
        return Err(Error::internal("a comparison is a binary expression"));
    };
    let data_type = left.data_type();
    Ok(call_of(Function::NullIf, vec![*left, *right], data_type, position))
}

/// Functions that PostgreSQL or time-series databases have and this one has not: refused as what they are, so that nobody
/// looks for a typing error.
#[rustfmt::skip]
const KNOWN_ELSEWHERE: &[&str] = &[
    "age", "any_value", "array_agg", "array_length", "avg_over_time", "bit_and", "bit_or", "bool_and", "bool_or",
    "btrim", "bucket", "cbrt", "char_length", "chr", "clock_timestamp", "concat", "concat_ws", "corr", "covar_pop",
    "covar_samp", "cume_dist", "current_catalog", "current_database", "current_date", "current_role", "current_schema",
    "current_time", "current_user", "date_bin", "date_part", "date_trunc", "decode", "degrees", "dense_rank", "encode",
    "every", "extract", "first", "first_value", "format", "gen_random_uuid", "generate_series", "greatest", "grouping",
    "initcap", "interpolate", "json_agg", "json_build_object", "json_object_agg", "jsonb_agg", "justify_interval",
    "lag", "last", "last_value", "lead", "least", "left", "localtime", "localtimestamp", "locf", "lpad", "ltrim",
    "make_date", "make_interval", "make_timestamp", "md5", "mode", "nth_value", "ntile", "octet_length", "percent_rank",
    "percentile_cont", "percentile_disc", "pi", "position", "radians", "random", "rank", "regexp_match",
    "regexp_replace", "regr_slope", "repeat", "replace", "reverse", "right", "row_number", "row_to_json", "rpad",
    "rtrim", "session_user", "setseed", "sha256", "split_part", "starts_with", "stddev", "stddev_pop", "stddev_samp",
    "string_agg", "string_to_array", "strpos", "substr", "substring", "time_bucket", "time_bucket_gapfill", "to_char",
    "to_date", "to_json", "to_number", "to_timestamp", "translate", "trim", "trunc", "unnest", "user",
    "uuid_generate_v4", "var_pop", "var_samp", "variance", "version", "width_bucket",
];

fn unknown(name: &str, arguments: &[Typed], position: u32) -> Error {
    if !NAMES.contains(&name) && KNOWN_ELSEWHERE.binary_search(&name).is_ok() {
        return place(Error::unsupported(format_args!("the function {name} is")), position);
    }
    let types: Vec<String> = arguments.iter().map(Typed::type_name).collect();
    let message = format!("function {name}({}) does not exist", types.join(", "));
    let error = place(Error::invalid(SqlState::UNDEFINED_FUNCTION, message), position);
    if NAMES.contains(&name) {
        return error.hint("no function of this name takes these arguments");
    }
    match nearest_function(name) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_know_are_found_and_not_our_own() {
        assert!(KNOWN_ELSEWHERE.is_sorted(), "it is searched by halves");
        assert!(
            KNOWN_ELSEWHERE
                .iter()
                .all(|name| name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c)))
        );
    }
}
