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
//!   never executed twice, so it is asked again. In doubt it stays until somebody knows: a later attempt that is not begun
//!   says nothing of the first one.
//! * A leader that stands still is not waited for beyond its succession, but for [`LAST_WORD`].
//! * A forwarded statement is not handed on again: two nodes that take each other for the leader would never end.

use crate::actors::grpc::{Limits, too_large};
use crate::actors::messages::{BatchFailure, Freshness, Output, OutputColumn, Statement, Terms};
use crate::actors::peers::Peers;
use crate::actors::peers::dial::connect;
use crate::actors::proto::wire::forward_service_client::ForwardServiceClient;
use crate::actors::proto::wire::forward_service_server::{ForwardService, ForwardServiceServer};
use crate::actors::proto::wire::{ForwardRequest, ForwardResponse, SqlResponse, Value as WireValue, value};
use crate::actors::proto::{self, message};
use crate::actors::published::RaftReport;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::transit::Hold;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::ids::Term;
use chronos::machine::RequestId;
use chronos::raft::NodeId;
use chronos::sql::batch::{Batch, ColumnBuilder};
use chronos::sql::execute::Access;
use chronos::sql::text;
use chronos::sql::value::{DataType, Value};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// How much earlier than the client's deadline the leader's answer is wanted.
const RETURN_MARGIN: Duration = Duration::from_millis(5);

/// How long a leader that was succeeded may still answer. Where it is there it knows of its successor and what became of
/// its entries within some heartbeats; where it hangs, nobody waits longer for it than for an election.
const LAST_WORD: Duration = Duration::from_millis(500);

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
    /// They may have been; their name lets them be asked again.
    Unknown(Error),
}

/// A leader, for as long as it is one.
pub struct Leadership {
    reports: watch::Receiver<Arc<RaftReport>>,
    leader: NodeId,
    term: Term,
}

impl Leadership {
    /// Of whoever leads by this report, which the receiver has seen.
    pub fn new(reports: &watch::Receiver<Arc<RaftReport>>, leader: &NodeId, term: Term) -> Leadership {
        Leadership { reports: reports.clone(), leader: leader.clone(), term }
    }

    /// Waits until it has a successor.
    async fn ended(&self) {
        let is_over = |report: &Arc<RaftReport>| {
            let status = &report.status;
            status.leader.as_ref().is_some_and(|leader| *leader != self.leader || status.term != self.term)
        };
        // Without a sender this node is stopping.
        let _ = self.reports.clone().wait_for(is_over).await;
    }

    /// Runs work for as long as the leader leads, and a moment longer; none where it has not come to an end by then.
    async fn during<T>(&self, work: impl Future<Output = T>, moment: Duration) -> Option<T> {
        let succeeded = async {
            self.ended().await;
            tokio::time::sleep(moment).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = succeeded => None,
        }
    }
}

impl Leaders {
    /// Runs statements where `address` is.
    pub async fn run(
        &self,
        address: &str,
        statements: &[Statement],
        is_batch: bool,
        terms: &Terms,
        leadership: &Leadership,
        (peers, bytes_max): (&Peers, usize),
    ) -> Elsewhere {
        let connecting = tokio::time::timeout_at(terms.deadline.instant(), self.channel(address, peers));
        let channel = match leadership.during(connecting, Duration::ZERO).await {
            Some(Ok(Ok(channel))) => channel,
            Some(Ok(Err(error))) => return Elsewhere::NotBegun(error),
            Some(Err(_)) => return Elsewhere::NotBegun(not_in_time(address)),
            None => return Elsewhere::NotBegun(Error::unavailable(format!("{address} leads no more"))),
        };
        let mut client = ForwardServiceClient::new(channel)
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max);
        let wait = terms.deadline.left();
        if wait <= RETURN_MARGIN {
            // Sent now, it would be in doubt: nobody waits for what the leader says.
            return Elsewhere::NotBegun(not_in_time(address));
        }
        let mut request = Request::new(request(statements, is_batch, terms, wait.saturating_sub(RETURN_MARGIN)));
        request.set_timeout(wait);
        if let Err(error) = peers.sign(&mut request) {
            return Elsewhere::NotBegun(error);
        }
        // The transport keeps the time only once it is connected, which it may try again under the call.
        let asked = tokio::time::timeout_at(terms.deadline.instant(), client.forward(request));
        match leadership.during(asked, LAST_WORD).await {
            Some(Ok(Ok(response))) => match answered(response.into_inner(), is_batch) {
                // The leader does not know either, and the name lets another one be asked.
                Elsewhere::Answered(Err(failure))
                    if failure.error.kind() == Kind::InDoubt && terms.request.is_some() =>
                {
                    Elsewhere::Unknown(failure.error)
                }
                known @ (Elsewhere::Answered(_) | Elsewhere::NotBegun(_) | Elsewhere::Unknown(_)) => known,
            },
            Some(Ok(Err(status))) => self.failed(address, &status, terms),
            Some(Err(_)) => self.failed(address, &Status::deadline_exceeded("no answer in time"), terms),
            None => self.succeeded(address, terms),
        }
    }

    /// The leader was succeeded, and has said nothing of the statements.
    fn succeeded(&self, address: &str, terms: &Terms) -> Elsewhere {
        // Whoever waits on the same connection decides for itself; the next one makes a new one.
        self.lock().remove(address);
        unknown(terms, Error::in_doubt(format!("the leader at {address} was succeeded before it answered")))
    }

    async fn channel(&self, address: &str, peers: &Peers) -> Result<Channel> {
        if let Some(channel) = self.lock().get(address) {
            return Ok(channel.clone());
        }
        let unreachable = |why| Error::unavailable(format!("the leader at {address} cannot be reached: {why}"));
        let channel = connect(peers.endpoint(address)?).await.map_err(unreachable)?;
        self.lock().insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// The call itself failed: the leader has said nothing of the statements.
    fn failed(&self, address: &str, status: &Status, terms: &Terms) -> Elsewhere {
        // A connection that broke is not used again.
        self.lock().remove(address);
        let text = format!("the leader at {address}: {}", status.message());
        if was_not_sent(status) || was_not_read(status.code()) {
            return Elsewhere::NotBegun(Error::unavailable(text));
        }
        let error = if status.code() == Code::DeadlineExceeded {
            Error::in_doubt("the statement's deadline passed while the leader was at it")
        } else {
            Error::in_doubt(format!("no answer from {text}"))
        };
        unknown(terms, error)
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may have been begun: named, it is asked again.
fn unknown(terms: &Terms, error: Error) -> Elsewhere {
    match &terms.request {
        Some(_) => Elsewhere::Unknown(error),
        None => Elsewhere::Answered(Err(BatchFailure { statement: 0, error })),
    }
}

/// True where no connection was made, so that nothing can have been sent. What the kernel says of a connection that was
/// there tells nothing: that a host is unreachable is also said once it has taken all.
fn was_not_sent(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |cause| cause.source()).any(<dyn std::error::Error>::is::<tonic::ConnectError>)
}

/// True for what is said of a request before it is begun: there is no room, or its sender is not taken for a peer. The
/// fate of a statement is never told by a status.
fn was_not_read(code: Code) -> bool {
    matches!(
        code,
        Code::ResourceExhausted
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented
    )
}

fn not_in_time(address: &str) -> Error {
    Error::unavailable(format!("the leader at {address} was not reached in time"))
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
        consistency: terms.freshness.consistency.name().to_owned(),
        may_write: terms.access == Access::ReadWrite,
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
            Ok(outputs) => self.answer(outputs, request.batch),
            Err(failure) => failed(&failure),
        }))
    }
}

fn failed(BatchFailure { statement, error }: &BatchFailure) -> ForwardResponse {
    ForwardResponse {
        responses: vec![SqlResponse { error: error.message().to_owned(), ..proto::failure(error) }],
        failed: *statement as u32,
        kind: error.kind().name().to_owned(),
        hint: error.hint_text().unwrap_or_default().to_owned(),
    }
}

impl ForwardDoor {
    /// Statements have run: their answers, as far as one message holds them. What is too long for it would look like a
    /// call that failed, and so like a write in doubt.
    fn answer(&self, mut outputs: Vec<Output>, is_batch: bool) -> ForwardResponse {
        let limit = self.limits.response_bytes_max;
        if message::batch_len(&outputs) > limit {
            if !is_batch {
                // It only reads: no single statement that writes answers with rows.
                return failed(&BatchFailure { statement: 0, error: too_large(limit) });
            }
            outputs.iter_mut().for_each(|output| output.batches.clear());
        }
        ForwardResponse { responses: outputs.iter().map(proto::response).collect(), ..Default::default() }
    }

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
            freshness: Freshness::parse(Some(&request.consistency), None)?,
            access: if request.may_write { Access::ReadWrite } else { Access::ReadOnly },
            request: named,
        })
    }
}
