//! The leader's answer, as the follower hands it on.

use super::{Elsewhere, cut};
use crate::actors::messages::{BatchFailure, Output, OutputColumn};
use crate::actors::proto::reading;
use crate::actors::proto::wire::{ForwardResponse, SqlResponse, Value as WireValue, value};
use crate::actors::transit::Hold;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::sql::batch::{Batch, ColumnBuilder};
use chronos::sql::text;
use chronos::sql::value::{DataType, Value};
use std::sync::Arc;

/// What became of statements by this answer.
pub(super) fn answered(response: &ForwardResponse, is_batch: bool) -> Elsewhere {
    match outputs(response) {
        Ok(Ok(outputs)) if is_batch || outputs.len() == 1 => Elsewhere::Answered(Ok(outputs)),
        Ok(Ok(_)) => unread("it has no outcome"),
        Ok(Err(failure)) if failure.error.kind() == Kind::Unavailable => Elsewhere::NotBegun(failure.error),
        Ok(Err(failure)) => Elsewhere::Answered(Err(failure)),
        Err(error) => unread(error.message()),
    }
}

/// It may have taken effect, and did if the leader means what it says: the answer is what failed.
fn unread(why: &str) -> Elsewhere {
    let error = Error::in_doubt(format!("the leader's answer cannot be read: {why}"));
    Elsewhere::Answered(Err(BatchFailure { statement: 0, error }))
}

/// The outcome of all statements, or of the one that failed; an error where it cannot be read.
fn outputs(response: &ForwardResponse) -> Result<Result<Vec<Output>, BatchFailure>> {
    let mut outputs = Vec::with_capacity(response.responses.len());
    for (at, bytes) in response.responses.iter().enumerate() {
        let (header, rows) = reading::header(bytes)?;
        if at == 0 && !header.success {
            let failure = BatchFailure { statement: response.failed as usize, error: rebuilt(&header, response) };
            return Ok(Err(failure));
        }
        outputs.push(output(header, rows, bytes)?);
    }
    Ok(Ok(outputs))
}

fn rebuilt(failed: &SqlResponse, response: &ForwardResponse) -> Error {
    let state = SqlState::parse(&failed.sqlstate);
    let kind = Kind::parse(&response.kind).unwrap_or(Kind::Internal);
    // As long as the leader likes, and as short as what is remembered of an outcome.
    let mut error = Error::new(kind, state, cut(&failed.error));
    if failed.position > 0 {
        error = error.at(failed.position);
    }
    if response.hint.is_empty() { error } else { error.hint(cut(&response.hint)) }
}

/// What a statement answered, as it was there.
fn output(header: SqlResponse, count: usize, bytes: &[u8]) -> Result<Output> {
    if !header.success {
        return Err(Error::internal("a statement behind others has failed"));
    }
    let data_type = |name: &String| {
        DataType::parse(name).ok_or_else(|| Error::internal(format!("the leader answers with the type {name}")))
    };
    let types: Vec<DataType> = header.types.iter().map(data_type).collect::<Result<_>>()?;
    let names = header.columns.into_iter();
    let columns = names.zip(&types).map(|(name, &data_type)| OutputColumn { name, data_type }).collect();
    let mut builders: Vec<ColumnBuilder> =
        types.iter().map(|&data_type| ColumnBuilder::new(data_type, count)).collect();
    for row in reading::rows(bytes) {
        let row = row?;
        if row.values.len() != types.len() {
            return Err(Error::internal(format!("a row has {} values in {} columns", row.values.len(), types.len())));
        }
        for ((builder, &data_type), value) in builders.iter_mut().zip(&types).zip(row.values) {
            let value = read(value, data_type)?;
            if value.data_type().is_some_and(|read| read != data_type) {
                return Err(Error::internal(format!("a {data_type} column has another value")));
            }
            builder.push(&value);
        }
    }
    let batches = if count == 0 {
        Vec::new()
    } else {
        vec![Batch::new(builders.into_iter().map(|builder| Arc::new(builder.finish())).collect(), count)]
    };
    Ok(Output { columns, batches, affected: header.affected, hold: Hold::nothing() })
}

fn read(value: WireValue, data_type: DataType) -> Result<Value> {
    Ok(match value.value {
        None | Some(value::Value::NullValue(_)) => Value::Null,
        Some(value::Value::IntValue(int)) => Value::Int(int),
        Some(value::Value::FloatValue(float)) => Value::Float(float),
        Some(value::Value::BoolValue(bool)) => Value::Bool(bool),
        Some(value::Value::StringValue(string)) => text::parse(&string, data_type)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::proto::Message;
    use crate::actors::proto::wire::Row;

    fn text(of: &str) -> WireValue {
        WireValue { value: Some(value::Value::StringValue(of.to_owned())) }
    }

    fn rows(data_type: &str, values: Vec<WireValue>) -> SqlResponse {
        let (columns, types) = (vec!["c".to_owned()], vec![data_type.to_owned()]);
        SqlResponse { success: true, columns, types, rows: vec![Row { values }], ..SqlResponse::default() }
    }

    fn heard(responses: Vec<SqlResponse>) -> Result<Vec<Output>, Error> {
        let done = SqlResponse { success: true, affected: 1, ..SqlResponse::default() };
        let responses = [vec![done], responses].concat().iter().map(|one| one.encode_to_vec().into()).collect();
        let response = ForwardResponse { responses, kind: "limit".into(), ..Default::default() };
        match answered(&response, true) {
            Elsewhere::Answered(answer) => answer.map_err(|failure| failure.error),
            Elsewhere::NotBegun(error) | Elsewhere::Unknown(error) => panic!("it was answered, and not: {error}"),
        }
    }

    #[test]
    fn a_batch_whose_answer_cannot_be_read_is_in_doubt_and_no_failure() {
        let read = heard(vec![rows("TIMESTAMP", vec![text("2024-01-01")])]).unwrap();
        assert_eq!((read.len(), read[0].affected, read[1].batches[0].rows), (2, 1, 1));
        for unread in [
            rows("DECIMAL", vec![text("0.1")]),
            rows("TIMESTAMP", vec![text("the day before")]),
            rows("TEXT", Vec::new()),
            rows("INT", vec![WireValue { value: Some(value::Value::FloatValue(0.5)) }]),
            SqlResponse { error: "no".into(), sqlstate: "22012".into(), ..SqlResponse::default() },
        ] {
            let error = heard(vec![unread]).unwrap_err();
            assert_eq!((error.kind(), error.sqlstate()), (Kind::InDoubt, SqlState::IN_DOUBT), "{error}");
        }
    }

    #[test]
    fn of_an_error_a_leader_is_believed_so_much() {
        let long = |sign: &str| sign.repeat(1 << 20);
        let failed = SqlResponse { error: long("\u{e9}"), sqlstate: "23505".into(), ..SqlResponse::default() };
        let response = ForwardResponse {
            responses: vec![failed.encode_to_vec().into()],
            kind: "invalid".into(),
            hint: long("h"),
            failed: 0,
        };
        let Elsewhere::Answered(Err(failure)) = answered(&response, false) else { panic!("it has failed") };
        assert_eq!(failure.error.sqlstate(), SqlState::UNIQUE_VIOLATION);
        assert!(failure.error.to_string().len() < 1100, "{}", failure.error.to_string().len());
    }
}
