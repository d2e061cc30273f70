//! The leader's answer, as the follower hands it on.

use super::column::Incoming;
use super::{Elsewhere, cut, in_doubt};
use crate::actors::messages::{BatchFailure, Output, OutputColumn};
use crate::actors::proto::reading;
use crate::actors::proto::wire::{ForwardResponse, SqlResponse, Value as WireValue, value};
use crate::actors::transit::Hold;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::sql::batch::{BATCH_ROWS_MAX, Batch};
use chronos::sql::text;
use chronos::sql::value::{DataType, Value};
use std::sync::Arc;

/// Values that are read before others have their turn: a millisecond's work. The longest answer has millions, and who
/// reads it shares a thread with the consensus.
const VALUES_AT_ONCE: usize = 16 << 10;

/// What became of so many statements by this answer.
pub(super) async fn answered(response: &ForwardResponse, statements: usize) -> Elsewhere {
    match outputs(response, statements).await {
        Ok(Ok(outputs)) => Elsewhere::Answered(Ok(outputs)),
        Ok(Err(failure)) if failure.error.kind() == Kind::Unavailable => Elsewhere::NotBegun(failure.error),
        Ok(Err(failure)) => Elsewhere::Answered(Err(failure)),
        // It may have taken effect, and did if the leader means what it says: the answer is what failed.
        Err(error) => {
            let error = in_doubt(format_args!("the leader's answer cannot be read: {}", error.message()));
            Elsewhere::Answered(Err(BatchFailure { statement: 0, error }))
        }
    }
}

/// The outcome of all statements, or of the one that failed; an error where it cannot be read.
async fn outputs(response: &ForwardResponse, statements: usize) -> Result<Result<Vec<Output>, BatchFailure>> {
    let answers = response.responses.len();
    if let [one] = response.responses.as_slice() {
        let (header, _) = reading::header(one)?;
        if !header.success {
            let failure = BatchFailure { statement: response.failed as usize, error: rebuilt(&header, response) };
            return Ok(Err(failure));
        }
    }
    if answers != statements {
        return Err(Error::internal(format!("{statements} statements have {answers} answers")));
    }
    let mut outputs = Vec::with_capacity(answers);
    let mut turn = Turn::default();
    for bytes in &response.responses {
        outputs.push(output(bytes, &mut turn).await?);
    }
    Ok(Ok(outputs))
}

/// A turn on a thread that others wait for.
#[derive(Default)]
struct Turn {
    values: usize,
}

impl Turn {
    /// So many values were read.
    async fn read(&mut self, values: usize) {
        self.values += values;
        if self.values >= VALUES_AT_ONCE {
            self.values = 0;
            tokio::task::yield_now().await;
        }
    }
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
async fn output(bytes: &[u8], turn: &mut Turn) -> Result<Output> {
    let (header, count) = reading::header(bytes)?;
    if !header.success {
        return Err(Error::internal("a statement among others has failed"));
    }
    let data_type = |name: &String| {
        DataType::parse(name).ok_or_else(|| Error::internal(format!("the leader answers with the type {}", cut(name))))
    };
    let types: Vec<DataType> = header.types.iter().map(data_type).collect::<Result<_>>()?;
    let names = header.columns.into_iter();
    let columns = names.zip(&types).map(|(name, &data_type)| OutputColumn { name, data_type }).collect();
    let (mut batches, mut rows) = (Vec::new(), reading::rows(bytes));
    for from in (0..count).step_by(BATCH_ROWS_MAX) {
        let mut incoming: Vec<Incoming> = types.iter().map(|&data_type| Incoming::new(data_type)).collect();
        let rows_here = BATCH_ROWS_MAX.min(count - from);
        for row in rows.by_ref().take(rows_here) {
            take_row(row?, &types, &mut incoming)?;
            turn.read(types.len().max(1)).await;
        }
        let columns = incoming.into_iter().map(|column| Arc::new(column.finish())).collect();
        batches.push(Batch::new(columns, rows_here));
    }
    turn.read(1).await;
    Ok(Output { columns, batches, affected: header.affected, hold: Hold::nothing() })
}

/// A value of a row for each column, and no more.
fn take_row(row: &[u8], types: &[DataType], columns: &mut [Incoming]) -> Result<()> {
    let wrong = || Error::internal(format!("a row has not {} values, one for each column", types.len()));
    let mut values = reading::values(row);
    for (column, &data_type) in columns.iter_mut().zip(types) {
        let value = read(values.next().ok_or_else(wrong)??, data_type)?;
        if value.data_type().is_some_and(|read| read != data_type) {
            return Err(Error::internal(format!("a {data_type} column has another value")));
        }
        column.push(value);
    }
    if values.next().is_some() { Err(wrong()) } else { Ok(()) }
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
    use crate::actors::rows::held_bytes;
    use chronos::sql::batch::Column;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn text(of: &str) -> WireValue {
        WireValue { value: Some(value::Value::StringValue(of.to_owned())) }
    }

    fn rows(data_type: &str, values: Vec<WireValue>) -> SqlResponse {
        let (columns, types) = (vec!["c".to_owned()], vec![data_type.to_owned()]);
        SqlResponse { success: true, columns, types, rows: vec![Row { values }], ..SqlResponse::default() }
    }

    fn wait<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    /// What is heard of a write and other statements, by so many answers beside that of the write.
    fn heard(responses: Vec<SqlResponse>) -> Result<Vec<Output>, Error> {
        let statements = 1 + responses.len();
        heard_of(statements, responses)
    }

    fn heard_of(statements: usize, responses: Vec<SqlResponse>) -> Result<Vec<Output>, Error> {
        let done = SqlResponse { success: true, affected: 1, ..SqlResponse::default() };
        let responses = [vec![done], responses].concat().iter().map(|one| one.encode_to_vec().into()).collect();
        let response = ForwardResponse { responses, kind: "limit".into(), ..Default::default() };
        match wait(answered(&response, statements)) {
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
            rows("TEXT", vec![text("a"), text("b")]),
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
        let Elsewhere::Answered(Err(failure)) = wait(answered(&response, 1)) else { panic!("it has failed") };
        assert_eq!(failure.error.sqlstate(), SqlState::UNIQUE_VIOLATION);
        assert!(failure.error.to_string().len() < 1100, "{}", failure.error.to_string().len());
    }
    #[test]
    fn more_or_fewer_answers_than_statements_are_in_doubt() {
        let one = || rows("INT", vec![WireValue { value: Some(value::Value::IntValue(7)) }]);
        assert_eq!(heard_of(2, vec![one()]).unwrap().len(), 2);
        for (statements, responses) in [(1, vec![one()]), (2, vec![]), (3, vec![one()])] {
            let error = heard_of(statements, responses).unwrap_err();
            assert_eq!(error.kind(), Kind::InDoubt, "{error}");
            assert!(error.message().contains("statements have") && !error.is_retryable(), "{error}");
        }
    }

    /// A result of one column of one value and another one that counts.
    fn long(rows: usize) -> SqlResponse {
        let int = |int| WireValue { value: Some(value::Value::IntValue(int)) };
        let row = |at: usize| Row { values: vec![WireValue { value: None }, int(at as i64), int(i64::MAX)] };
        SqlResponse {
            success: true,
            columns: vec!["a".into(), "b".into(), "c".into()],
            types: vec!["FLOAT".into(), "INT".into(), "INT".into()],
            rows: (0..rows).map(row).collect(),
            ..SqlResponse::default()
        }
    }

    #[test]
    fn what_the_leader_holds_as_one_value_is_one_value_here() {
        let rows = 2 * BATCH_ROWS_MAX + 300;
        let output = heard(vec![long(rows)]).unwrap().remove(1);
        assert_eq!(output.batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [4096, 4096, 300]);
        let held: usize = output.batches.iter().map(held_bytes).sum();
        assert_eq!(held - 8 * rows, 3 * 2 * (size_of::<Column>() + 8));
        let last = output.batches[2].row(299);
        assert_eq!(last, [Value::Null, Value::Int(rows as i64 - 1), Value::Int(i64::MAX)]);
    }

    #[test]
    fn who_reads_a_long_answer_lets_others_have_their_turn() {
        let response = ForwardResponse { responses: vec![long(100_000).encode_to_vec().into()], ..Default::default() };
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        wait(async {
            tokio::spawn(async move {
                loop {
                    counted.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            });
            let heard = answered(&response, 1).await;
            assert!(matches!(heard, Elsewhere::Answered(Ok(outputs)) if outputs[0].batches.len() == 25));
        });
        let turns = turns.load(Ordering::SeqCst);
        assert!(turns >= 300_000 / VALUES_AT_ONCE, "{turns}");
    }
}
