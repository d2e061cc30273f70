//! Statements that a client has given to a node that does not lead.
//!
//! ```text
//!   door ── Router ──┬── this node leads ──> front, executor
//!                    └── another does ──> Forward ──> its router, and the answer back
//! ```
//!
//! A follower hands on the text; the leader binds and evaluates it (a catalog may be newer there). Reads are not handed
//! on: every node answers them from its own state once it has the leader's word for how much of it there must be.
//!
//! * What was not begun there is tried again, where the leader is then, up to the deadline.
//! * What may have been begun and has no answer is in doubt, unless the client has named the request: the same name is
//!   never executed twice, so it is asked again.
//! * A forwarded statement is not handed on again: two nodes that take each other for the leader would never end.

use crate::actors::grpc::Limits;
use crate::actors::messages::{BatchFailure, Consistency, Output, OutputColumn, Statement, Terms};
use crate::actors::peers::Peers;
use crate::actors::peers::dial::patient;
use crate::actors::proto::wire::forward_service_client::ForwardServiceClient;
use crate::actors::proto::wire::forward_service_server::{ForwardService, ForwardServiceServer};
use crate::actors::proto::wire::{ForwardRequest, ForwardResponse, SqlResponse, Value as WireValue, value};
use crate::actors::proto::{self};
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::transit::Hold;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::machine::RequestId;
use chronos::sql::batch::{Batch, ColumnBuilder};
use chronos::sql::execute::Access;
use chronos::sql::text;
use chronos::sql::value::{DataType, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// How much earlier than the client's deadline the leader's answer is wanted.
const RETURN_MARGIN: Duration = Duration::from_millis(5);

/// The connections to leaders, past and present: as many as a group has members.
#[derive(Default)]
pub struct Leaders {
    channels: Mutex<BTreeMap<String, Channel>>,
}

/// What became of statements elsewhere.
pub enum Elsewhere {
    /// They have their answers.
    Answered(Result<Vec<Output>, BatchFailure>),
    /// They were not begun.
    NotBegun(Error),
}

impl Leaders {
    /// Runs statements where `address` is.
    pub async fn run(
        &self,
        address: &str,
        statements: &[Statement],
        is_batch: bool,
        terms: &Terms,
        (peers, bytes_max): (&Peers, usize),
    ) -> Elsewhere {
        let channel = match self.channel(address, peers).await {
            Ok(channel) => channel,
            Err(error) => return Elsewhere::NotBegun(error),
        };
        let mut client = ForwardServiceClient::new(channel)
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max);
        let wait = terms.deadline.left();
        let mut request = Request::new(request(statements, is_batch, terms, wait.saturating_sub(RETURN_MARGIN)));
        request.set_timeout(wait);
        if let Err(error) = peers.sign(&mut request) {
            return Elsewhere::NotBegun(error);
        }
        match client.forward(request).await {
            Ok(response) => answered(response.into_inner(), is_batch),
            Err(status) => self.failed(address, &status, terms),
        }
    }

    async fn channel(&self, address: &str, peers: &Peers) -> Result<Channel> {
        if let Some(channel) = self.lock().get(address) {
            return Ok(channel.clone());
        }
        let unreachable = |error| Error::unavailable(format!("the leader at {address} cannot be reached: {error}"));
        let channel = patient(peers.endpoint(address)?).connect().await.map_err(unreachable)?;
        self.lock().insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// The call itself failed: the leader has said nothing of the statements.
    fn failed(&self, address: &str, status: &Status, terms: &Terms) -> Elsewhere {
        // A connection that broke is not used again.
        self.lock().remove(address);
        let text = format!("the leader at {address}: {}", status.message());
        if was_refused(status) || status.code() == Code::ResourceExhausted || terms.request.is_some() {
            return Elsewhere::NotBegun(Error::unavailable(text));
        }
        let error = if status.code() == Code::DeadlineExceeded {
            Error::in_doubt("the statement's deadline passed while the leader was at it")
        } else {
            Error::in_doubt(format!("no answer from {text}"))
        };
        Elsewhere::Answered(Err(BatchFailure { statement: 0, error }))
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True where no connection was made, so that nothing can have been sent.
fn was_refused(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(
                io.kind(),
                std::io::ErrorKind::ConnectionRefused
                    | std::io::ErrorKind::HostUnreachable
                    | std::io::ErrorKind::NetworkUnreachable
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn request(statements: &[Statement], batch: bool, terms: &Terms, wait: Duration) -> ForwardRequest {
    let (mut client_id, mut sequence, mut request_id) = (String::new(), 0, Vec::new());
    match &terms.request {
        Some(RequestId::Session { client, sequence: number }) => (client_id, sequence) = (client.clone(), *number),
        Some(RequestId::Bare(number)) => request_id = number.to_be_bytes().to_vec(),
        None => {}
    }
    ForwardRequest {
        sql: statements.iter().map(|statement| statement.sql.clone()).collect(),
        batch,
        deadline_ms: wait.as_millis() as u64,
        consistency: terms.consistency.name().to_owned(),
        read_only: terms.access == Access::ReadOnly,
        client_id,
        sequence,
        request_id,
    }
}

fn answered(response: ForwardResponse, is_batch: bool) -> Elsewhere {
    if let Some(failed) = response.responses.first().filter(|first| !first.success) {
        let error = rebuilt(failed, &response);
        if error.kind() == Kind::Unavailable {
            return Elsewhere::NotBegun(error);
        }
        let statement = response.failed as usize;
        return Elsewhere::Answered(Err(BatchFailure { statement, error }));
    }
    let outputs: Result<Vec<Output>> = response.responses.into_iter().map(output).collect();
    Elsewhere::Answered(match outputs {
        Ok(outputs) if is_batch || outputs.len() == 1 => Ok(outputs),
        // It took effect: the answer is what cannot be read.
        Ok(_) => Err(BatchFailure { statement: 0, error: Error::in_doubt("the leader's answer has no outcome") }),
        Err(error) => Err(BatchFailure { statement: 0, error }),
    })
}

fn rebuilt(failed: &SqlResponse, response: &ForwardResponse) -> Error {
    let state = SqlState::parse(&failed.sqlstate);
    let kind = Kind::parse(&response.kind).unwrap_or(Kind::Internal);
    let mut error = Error::new(kind, state, failed.error.clone());
    if failed.position > 0 {
        error = error.at(failed.position);
    }
    if response.hint.is_empty() { error } else { error.hint(response.hint.clone()) }
}

/// What a statement answered, as it was there.
fn output(response: SqlResponse) -> Result<Output> {
    let data_type = |name: &String| {
        DataType::parse(name).ok_or_else(|| Error::internal(format!("the leader answers with the type {name}")))
    };
    let types: Vec<DataType> = response.types.iter().map(data_type).collect::<Result<_>>()?;
    let names = response.columns.into_iter();
    let columns = names.zip(&types).map(|(name, &data_type)| OutputColumn { name, data_type }).collect();
    let mut builders: Vec<ColumnBuilder> =
        types.iter().map(|&data_type| ColumnBuilder::new(data_type, response.rows.len())).collect();
    let rows = response.rows.len();
    for row in response.rows {
        for ((builder, &data_type), value) in builders.iter_mut().zip(&types).zip(row.values) {
            builder.push(&read(value, data_type)?);
        }
    }
    let batches = if rows == 0 {
        Vec::new()
    } else {
        vec![Batch::new(builders.into_iter().map(|builder| Arc::new(builder.finish())).collect(), rows)]
    };
    Ok(Output { columns, batches, affected: response.affected, hold: Hold::nothing() })
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

/// The leader's side.
pub struct ForwardDoor {
    router: Router,
    limits: Limits,
}

/// The service that followers call.
pub fn service(router: Router, limits: Limits) -> ForwardServiceServer<ForwardDoor> {
    let bytes_max = message_bytes_max(&limits);
    ForwardServiceServer::new(ForwardDoor { router, limits })
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(bytes_max)
}

/// Bytes of a forwarded statement or its answer.
pub fn message_bytes_max(limits: &Limits) -> usize {
    limits.statement_bytes_max.max(limits.response_bytes_max) + ENVELOPE_BYTES_MAX as usize
}

#[tonic::async_trait]
impl ForwardService for ForwardDoor {
    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        let hold = crate::actors::grpc::room_of(&request);
        let request = request.into_inner();
        let terms = self.terms(&request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if request.sql.is_empty() {
            return Err(Status::invalid_argument("a forwarded request has a statement"));
        }
        let mut statements = Statement::batch(request.sql, hold);
        let done = if request.batch {
            self.router.batch_here(statements, terms).await
        } else {
            let statement = statements.swap_remove(0);
            let one = self.router.execute_here(statement, terms).await;
            one.map(|output| vec![output]).map_err(|error| BatchFailure { statement: 0, error })
        };
        Ok(Response::new(match done {
            Ok(outputs) => {
                ForwardResponse { responses: outputs.iter().map(proto::response).collect(), ..Default::default() }
            }
            Err(BatchFailure { statement, error }) => ForwardResponse {
                responses: vec![SqlResponse { error: error.message().to_owned(), ..proto::failure(&error) }],
                failed: statement as u32,
                kind: error.kind().name().to_owned(),
                hint: error.hint_text().unwrap_or_default().to_owned(),
            },
        }))
    }
}

impl ForwardDoor {
    fn terms(&self, request: &ForwardRequest) -> Result<Terms> {
        let wait = Duration::from_millis(request.deadline_ms).min(self.limits.request_timeout);
        let bare = <[u8; 16]>::try_from(request.request_id.as_slice()).map(u128::from_be_bytes);
        let named = match bare {
            Ok(number) => Some(RequestId::Bare(number)),
            Err(_) if request.client_id.is_empty() => None,
            Err(_) => Some(RequestId::Session { client: request.client_id.clone(), sequence: request.sequence }),
        };
        Ok(Terms {
            deadline: Deadline::after(wait),
            whole: None,
            consistency: Consistency::parse(&request.consistency)?,
            access: if request.read_only { Access::ReadOnly } else { Access::ReadWrite },
            request: named,
        })
    }
}
