//! What the body of `POST /sql` asks for.
//!
//! * An unknown field is an error: a misspelt `consistency` that was ignored would answer something else.

use crate::actors::messages::Consistency;
use chronos::error::{Error, Result, SqlState};
use chronos::sql::value::Value;
use serde_json::Value as Json;

/// What a body asks for.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// One statement with its parameters.
    One(Vec<Value>, String),
    /// Statements that take effect together.
    Batch(Vec<String>),
}

/// Reads a body. NaN is not JSON, and is refused by the parser, naming line and column.
pub fn read(body: &[u8]) -> Result<(Asked, Consistency)> {
    let malformed = |what: String| Error::invalid(SqlState::INVALID_PARAMETER, what);
    let json: Json =
        serde_json::from_slice(body).map_err(|error| malformed(format!("the body is not JSON: {error}")))?;
    let mut object = match json {
        Json::Array(statements) => return Ok((Asked::Batch(texts(statements)?), Consistency::default())),
        Json::Object(object) => object,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            return Err(malformed("the body is an object with \"sql\", or an array of statements".to_string()));
        }
    };
    let consistency = match object.remove("consistency") {
        None | Some(Json::Null) => Consistency::default(),
        Some(Json::String(name)) => Consistency::parse(&name)?,
        Some(_) => return Err(malformed("\"consistency\" is a string".to_string())),
    };
    let parameters = match object.remove("params") {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::Array(parameters)) => parameters.into_iter().map(parameter).collect::<Result<Vec<Value>>>()?,
        Some(_) => return Err(malformed("\"params\" is an array".to_string())),
    };
    let asked = match (object.remove("sql"), object.remove("statements")) {
        (Some(Json::String(sql)), None) => Asked::One(parameters, sql),
        (None, Some(Json::Array(_))) if !parameters.is_empty() => {
            return Err(Error::unsupported("\"params\" beside \"statements\" are"));
        }
        (None, Some(Json::Array(statements))) => Asked::Batch(texts(statements)?),
        _ => return Err(malformed("the body has either \"sql\", a string, or \"statements\", an array".to_string())),
    };
    match object.keys().next() {
        Some(unknown) => Err(malformed(format!("unknown field \"{unknown}\""))),
        None => Ok((asked, consistency)),
    }
}

/// The statements of a batch: strings, or objects with nothing but `sql`.
fn texts(statements: Vec<Json>) -> Result<Vec<String>> {
    if statements.is_empty() {
        return Err(Error::invalid(SqlState::INVALID_PARAMETER, "a batch has at least one statement"));
    }
    let text = |statement| match statement {
        Json::String(sql) => Ok(sql),
        Json::Object(mut object) => match (object.remove("sql"), object.is_empty()) {
            (Some(Json::String(sql)), true) => Ok(sql),
            _ => {
                Err(Error::invalid(SqlState::INVALID_PARAMETER, "a statement of a batch has \"sql\" and nothing else"))
            }
        },
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => {
            Err(Error::invalid(SqlState::INVALID_PARAMETER, "a statement of a batch is a string"))
        }
    };
    statements.into_iter().map(text).collect()
}

fn parameter(json: Json) -> Result<Value> {
    match json {
        Json::Null => Ok(Value::Null),
        Json::Bool(value) => Ok(Value::Bool(value)),
        Json::String(value) => Ok(Value::Text(value)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ok(Value::Int(value)),
            (None, Some(value)) if number.is_f64() => Ok(Value::Float(value)),
            _ => Err(Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, format!("{number} is out of range for INT"))),
        },
        Json::Array(_) | Json::Object(_) => {
            Err(Error::invalid(SqlState::INVALID_PARAMETER, "a parameter is a number, a string, a boolean or null"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_one_statement_and_an_array_a_batch() {
        let (asked, consistency) =
            read(br#"{"sql": "SELECT $1", "params": [1, 0.5, "a", null], "consistency": "stale"}"#).unwrap();
        let parameters = vec![Value::Int(1), Value::Float(0.5), Value::Text("a".into()), Value::Null];
        assert_eq!(asked, Asked::One(parameters, "SELECT $1".into()));
        assert_eq!(consistency, Consistency::Stale);
        let batch = Asked::Batch(vec!["A".into(), "B".into()]);
        assert_eq!(read(br#"["A", {"sql": "B"}]"#).unwrap().0, batch);
        assert_eq!(read(br#"{"statements": ["A", "B"]}"#).unwrap().0, batch);
    }

    #[test]
    fn a_wrong_body_is_told_what_is_wrong() {
        let told = |body: &[u8]| read(body).unwrap_err().to_string();
        assert!(told(b"{\"sql\": NaN}").contains("not JSON"), "{}", told(b"{\"sql\": NaN}"));
        assert!(told(br#"{"sql": "A", "sqll": 1}"#).contains("unknown field \"sqll\""));
        assert!(told(br#"{"sql": "A", "params": [18446744073709551615]}"#).contains("out of range for INT"));
        assert!(told(br#"{"sql": "A", "consistency": "eventual"}"#).contains("linearizable"));
        assert!(told(b"[]").contains("at least one"));
        assert!(told(b"7").contains("object"));
    }
}
