//! A session over gRPC with one of several nodes.
//!
//! ```text
//! run ──> connected? ──no──> next address, each tried once ──none──> unavailable: nothing happened
//!           │ yes
//!           └──> QuerySql (reads, streamed) | ExecuteSql (writes) ──> rows, affected | error
//! ```
//!
//! * A statement goes to another node only where it surely did not run: the connection was never made, the node said
//!   `UNAVAILABLE`, or it only reads and no row has been shown.
//! * A write whose connection broke is *in doubt*, and the error says so; it is never sent a second time by itself.

use super::session::{Column, Session, Sink, sink_error};
use crate::actors::proto::wire::sql_service_client::SqlServiceClient;
use crate::actors::proto::wire::value::Value as Wire;
use crate::actors::proto::wire::{Row, SqlRequest, SqlResponse};
use chronos::config::Address;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::sql::value::{DataType, Value};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Time to make one connection. A node that is there answers within a round trip; more only delays the fail-over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection silent for this long while a statement runs is asked whether it still lives.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Largest answer taken in one message. The server's own bound on an answer is at most as much.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Which nodes to talk to, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT` of each node, in the order to try.
    pub addresses: Vec<Address>,
    /// Sent as `authorization: Bearer ...`.
    pub token: Option<String>,
}

impl Target {
    /// Reads `127.0.0.1:8000[,...]`; a scheme `http://` in front is fine.
    pub fn parse(list: &str, token: Option<String>) -> Result<Target, String> {
        let addresses = list
            .split(',')
            .map(|part| {
                let part = part.trim();
                if part.starts_with("https://") {
                    return Err(format!("{part}: TLS is not supported by this version"));
                }
                Address::parse(part.strip_prefix("http://").unwrap_or(part).trim_end_matches('/'))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Target { addresses, token })
    }

    /// Connects to the first node that can be reached, beginning with the one at `first`; answers which it was.
    pub async fn connect(&self, first: usize) -> Result<(usize, SqlServiceClient<Channel>)> {
        let mut reasons = Vec::new();
        for step in 0..self.addresses.len() {
            let at = (first + step) % self.addresses.len();
            let address = &self.addresses[at];
            match dial(address).await {
                Ok(channel) => {
                    let client = SqlServiceClient::new(channel)
                        .max_decoding_message_size(MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(MESSAGE_BYTES_MAX);
                    return Ok((at, client));
                }
                Err(error) => reasons.push(format!("{address} ({})", innermost(&error))),
            }
        }
        Err(Error::unavailable(format!("no node answers: {}", reasons.join(", ")))
            .hint("is it running? chronos node --help"))
    }

    /// A request that says who is asking.
    pub fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
                Error::invalid(SqlState::INVALID_AUTHORIZATION, "the token has characters that no header may have")
            })?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

async fn dial(address: &Address) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
        .connect()
        .await
}

/// The cause at the bottom: `Connection refused`, where the layers above only say that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// One node at a time, statements one after another.
pub struct Remote {
    runtime: tokio::runtime::Runtime,
    target: Target,
    connected: Option<SqlServiceClient<Channel>>,
    /// Position of the node last connected to.
    at: usize,
    /// True where Ctrl-C stops the statement instead of the program.
    interruptible: bool,
}

/// How one attempt ended, where it did not succeed.
enum Attempt {
    /// Another node may be asked.
    Elsewhere(Error),
    /// That is the answer.
    Final(Error),
}

impl Remote {
    /// Connects to the first node that answers.
    pub fn open(target: Target, interruptible: bool) -> Result<Remote> {
        let runtime = runtime()?;
        let (at, client) = runtime.block_on(target.connect(0))?;
        Ok(Remote { runtime, target, connected: Some(client), at, interruptible })
    }

    /// The node last connected to.
    pub fn address(&self) -> &Address {
        &self.target.addresses[self.at]
    }
}

impl Session for Remote {
    fn run(&mut self, statement: &str, sink: &mut dyn Sink) -> Result<u64> {
        let Remote { runtime, target, connected, at, interruptible } = self;
        let mut attempts = 0;
        runtime.block_on(async {
            loop {
                let mut client = if let Some(client) = connected {
                    client.clone()
                } else {
                    let (found, client) = target.connect(*at).await?;
                    *at = found;
                    connected.insert(client).clone()
                };
                let attempt = attempt(target, &mut client, statement, sink);
                let outcome = tokio::select! {
                    outcome = attempt => outcome,
                    () = interrupted(*interruptible) => Err(Attempt::Final(interruption(statement))),
                };
                attempts += 1;
                match outcome {
                    Ok(affected) => return Ok(affected),
                    Err(Attempt::Elsewhere(error)) => {
                        *connected = None;
                        *at = (*at + 1) % target.addresses.len();
                        // The first attempt may only have found a connection that had died while idle.
                        if attempts > target.addresses.len() {
                            return Err(error);
                        }
                    }
                    Err(Attempt::Final(error)) => {
                        if matches!(error.kind(), Kind::InDoubt | Kind::Unavailable) {
                            *connected = None;
                        }
                        return Err(error);
                    }
                }
            }
        })
    }
}

/// A runtime on this thread; the client has nothing to do in parallel.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the network runtime", &error))
}

async fn interrupted(interruptible: bool) {
    if interruptible && tokio::signal::ctrl_c().await.is_ok() {
        return;
    }
    std::future::pending::<()>().await;
}

fn interruption(statement: &str) -> Error {
    if reads(statement) {
        Error::limit(SqlState::QUERY_CANCELED, "cancelled")
    } else {
        Error::in_doubt("cancelled while it ran: it may or may not take effect")
    }
}

/// True where the statement's first word says that it only reads.
pub fn reads(statement: &str) -> bool {
    let word: String = skip_comments(statement).chars().take_while(char::is_ascii_alphabetic).collect();
    ["select", "values", "with", "show", "describe", "desc", "explain", "table"]
        .contains(&word.to_ascii_lowercase().as_str())
}

fn skip_comments(statement: &str) -> &str {
    let mut rest = statement.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    loop {
        let after = if rest.starts_with("--") {
            rest.find('\n').map(|end| &rest[end..])
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| &rest[end + 2..])
        } else {
            return rest;
        };
        rest = after.unwrap_or("").trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    }
}

async fn attempt(
    target: &Target,
    client: &mut SqlServiceClient<Channel>,
    statement: &str,
    sink: &mut dyn Sink,
) -> Result<u64, Attempt> {
    let request = target.request(SqlRequest { sql: statement.to_owned() }).map_err(Attempt::Final)?;
    let mut answer = Answer { columns: None, rows: 0, row: Vec::new() };
    if !reads(statement) {
        let response = client.execute_sql(request).await.map_err(|status| judge(&status, false))?;
        return answer.take(response.into_inner(), sink).map_err(Attempt::Final);
    }
    let mut stream = client.query_sql(request).await.map_err(|status| judge(&status, true))?.into_inner();
    let mut affected = 0;
    loop {
        match stream.message().await {
            Ok(Some(part)) => affected += answer.take(part, sink).map_err(Attempt::Final)?,
            Ok(None) => return Ok(affected),
            Err(status) if answer.columns.is_none() => return Err(judge(&status, true)),
            Err(status) => {
                return Err(Attempt::Final(from_status(&status).context(format!("after {} rows", answer.rows))));
            }
        }
    }
}

/// Whether a failed call may be sent again.
fn judge(status: &Status, only_reads: bool) -> Attempt {
    if did_nothing(status) {
        return Attempt::Elsewhere(Error::unavailable(reason(status)));
    }
    match (broke(status), only_reads) {
        (false, _) => Attempt::Final(from_status(status)),
        (true, true) => Attempt::Elsewhere(Error::unavailable(reason(status))),
        (true, false) => Attempt::Final(
            Error::in_doubt(format!("the connection broke while the statement ran: {}", reason(status)))
                .hint("it may or may not have taken effect: look before sending it again"),
        ),
    }
}

/// True where the call never reached a node, or the node says that nothing happened.
pub fn did_nothing(status: &Status) -> bool {
    let never_sent = causes(status).any(<dyn std::error::Error>::is::<tonic::ConnectError>);
    never_sent || (!broke(status) && status.code() == Code::Unavailable)
}

/// True where the connection failed, rather than the node answering.
pub fn broke(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

/// What the status says, or what lies below it.
pub fn reason(status: &Status) -> String {
    match causes(status).last() {
        Some(cause) => cause.to_string(),
        None => status.message().to_owned(),
    }
}

/// A gRPC status as an error of ours.
pub fn from_status(status: &Status) -> Error {
    let text = reason(status);
    match status.code() {
        Code::Unauthenticated => Error::invalid(SqlState::INVALID_AUTHORIZATION, text)
            .hint("set CHRONOS_AUTH_TOKEN to a token of the server"),
        Code::PermissionDenied => Error::invalid(SqlState::INSUFFICIENT_PRIVILEGE, text),
        Code::ResourceExhausted => Error::overloaded(text),
        Code::OutOfRange => Error::limit(SqlState::LIMIT_EXCEEDED, text),
        Code::DeadlineExceeded | Code::Cancelled => Error::limit(SqlState::QUERY_CANCELED, text),
        Code::Unavailable => Error::unavailable(text),
        Code::Unimplemented => Error::invalid(SqlState::FEATURE_NOT_SUPPORTED, text),
        Code::InvalidArgument => Error::invalid(SqlState::PROTOCOL_VIOLATION, text),
        Code::Unknown => Error::in_doubt(text),
        Code::DataLoss => Error::damaged(text),
        Code::Ok | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::Internal => {
            Error::internal(text)
        }
    }
}

/// An answer as it arrives, in one message or many.
struct Answer {
    columns: Option<usize>,
    rows: u64,
    /// Reused from row to row.
    row: Vec<Value>,
}

impl Answer {
    fn take(&mut self, part: SqlResponse, sink: &mut dyn Sink) -> Result<u64> {
        if !part.success {
            return Err(failed(&part));
        }
        if self.columns.is_none() && !part.columns.is_empty() {
            let columns: Vec<Column> = part
                .columns
                .iter()
                .enumerate()
                .map(|(i, name)| Column { name: name.clone(), data_type: part.types.get(i).and_then(|t| data_type(t)) })
                .collect();
            sink.head(&columns).map_err(|error| sink_error(&error))?;
            self.columns = Some(columns.len());
        }
        for row in part.rows {
            self.row(row, sink)?;
        }
        Ok(part.affected)
    }

    fn row(&mut self, row: Row, sink: &mut dyn Sink) -> Result<()> {
        self.row.clear();
        self.row.extend(row.values.into_iter().map(|value| from_wire(value.value)));
        let columns = self.columns.unwrap_or(0);
        if self.row.len() != columns {
            let message = format!("the node sent a row of {} values for {columns} columns", self.row.len());
            return Err(Error::invalid(SqlState::PROTOCOL_VIOLATION, message));
        }
        self.rows += 1;
        sink.row(&self.row).map_err(|error| sink_error(&error))
    }
}

/// The error in an answer with `success = false`.
pub fn failed(response: &SqlResponse) -> Error {
    let state = SqlState::parse(&response.sqlstate);
    let kind = match state {
        SqlState::SERIALIZATION_FAILURE => Kind::Conflict,
        SqlState::IN_DOUBT => Kind::InDoubt,
        SqlState::CANNOT_CONNECT_NOW => Kind::Unavailable,
        SqlState::TOO_MANY_REQUESTS => Kind::Overloaded,
        SqlState::OUT_OF_MEMORY | SqlState::LIMIT_EXCEEDED | SqlState::QUERY_CANCELED => Kind::Limit,
        SqlState::DISK_FULL | SqlState::IO_ERROR => Kind::Io,
        SqlState::DATA_CORRUPTED => Kind::Damaged,
        SqlState::INTERNAL => Kind::Internal,
        _ => Kind::Invalid,
    };
    let error = Error::new(kind, state, response.error.clone());
    match response.position {
        0 => error,
        position => error.at(position),
    }
}

fn from_wire(value: Option<Wire>) -> Value {
    match value {
        None | Some(Wire::NullValue(_)) => Value::Null,
        Some(Wire::StringValue(text)) => Value::Text(text),
        Some(Wire::IntValue(number)) => Value::Int(number),
        Some(Wire::FloatValue(number)) => Value::Float(number),
        Some(Wire::BoolValue(flag)) => Value::Bool(flag),
    }
}

/// A type by the name that the server gives it.
pub fn data_type(name: &str) -> Option<DataType> {
    let all = [DataType::Bool, DataType::Int, DataType::Float, DataType::Text, DataType::Blob, DataType::Timestamp];
    all.into_iter().find(|data_type| data_type.to_string() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_nodes_is_read() {
        let target = Target::parse("127.0.0.1:8000, http://node2:8001/", None).expect("valid");
        assert_eq!(
            target.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1:8000", "node2:8001"]
        );
        for wrong in ["", "8000", "a:1,", "https://a:1"] {
            assert!(Target::parse(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_word_tells_reads_from_writes() {
        for text in ["SELECT 1", " -- c\n /* d */ (select 1)", "show tables", "WITH a AS (SELECT 1) SELECT 1"] {
            assert!(reads(text), "{text}");
        }
        for text in ["INSERT INTO t VALUES (1)", "", "-- select", "selected", "DELETE FROM t"] {
            assert!(!reads(text), "{text}");
        }
    }

    #[test]
    fn a_server_that_is_unavailable_did_nothing_and_a_broken_call_is_in_doubt() {
        assert!(matches!(judge(&Status::unavailable("no leader"), false), Attempt::Elsewhere(_)));
        let broken = || Status::from_error(Box::new(std::io::Error::other("reset")));
        match judge(&broken(), false) {
            Attempt::Final(error) => assert_eq!(error.kind(), Kind::InDoubt),
            Attempt::Elsewhere(error) => panic!("sent twice: {error}"),
        }
        assert!(matches!(judge(&broken(), true), Attempt::Elsewhere(_)));
    }
}
