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
//! * What was not begun there is tried again, where the leader is then, for as long as a leader is waited for: anew once
//!   there was room for the answer, and once an answer was waited for.
//! * What may have been begun and has no answer is in doubt, unless the client has named the request: the same name is
//!   never executed twice, so it is asked again. In doubt it stays until somebody knows: a later attempt that is not begun
//!   says nothing of the first one.
//! * A leader that stands still is not waited for beyond its succession, but for [`LAST_WORD`].
//! * What is answered has its room on both nodes: here before a batch that reads is handed on, one such at a time, there
//!   until it is sent. Once there is an answer, nothing is said here that would have it sent again.
//! * A forwarded statement is not handed on again: two nodes that take each other for the leader would never end.

mod answer;
mod column;
mod connections;
mod door;
mod refusal;

use crate::actors::messages::{BatchFailure, Output, Statement, Terms};
use crate::actors::peers::Peers;
use crate::actors::proto::wire::ForwardRequest;
use crate::actors::proto::wire::forward_service_client::ForwardServiceClient;
use crate::actors::published::RaftReport;
use crate::actors::route::READ_FIRST;
use answer::answered;
use chronos::error::{self, Error, Kind, Result};
use chronos::ids::Term;
use chronos::machine::RequestId;
use chronos::raft::NodeId;
use chronos::sql::execute::Access;
use connections::{Connection, Connections};
pub use door::{message_bytes_max, service};
use refusal::Refusal;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Status};

/// How much earlier than the client's deadline the leader's answer is wanted.
const RETURN_MARGIN: Duration = Duration::from_millis(5);

/// How long a leader that was succeeded may still answer. Where it is there it knows of its successor and what became of
/// its entries within some heartbeats; where it hangs, nobody waits longer for it than for an election.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Bytes of a text that a leader says: as many as are kept of an outcome.
const TEXT_BYTES_MAX: usize = 512;

/// The leaders, past and present.
#[derive(Default)]
pub struct Leaders {
    connections: Connections,
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

    /// True for the address of a member.
    fn has_at(&self, address: &str) -> bool {
        self.reports.borrow().status.membership.members.values().any(|member| member.address == address)
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
        let connection = match self.connections.to(address, peers, |known| leadership.has_at(known)) {
            Ok(connection) => connection,
            Err(error) => return Elsewhere::NotBegun(error),
        };
        let connecting = tokio::time::timeout_at(terms.deadline.instant(), connection.channel());
        let channel = match leadership.during(connecting, Duration::ZERO).await {
            Some(Ok(Ok(channel))) => channel,
            Some(Ok(Err(why))) => return Elsewhere::NotBegun(unreachable(address, &why)),
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
            Some(Ok(Ok(response))) => match answered(&response.into_inner(), statements.len()).await {
                // The leader does not know either, and the name lets another one be asked.
                Elsewhere::Answered(Err(failure))
                    if failure.error.kind() == Kind::InDoubt && terms.request.is_some() =>
                {
                    Elsewhere::Unknown(failure.error)
                }
                known @ (Elsewhere::Answered(_) | Elsewhere::NotBegun(_) | Elsewhere::Unknown(_)) => known,
            },
            Some(Ok(Err(status))) => self.failed((address, &connection), &status, terms),
            Some(Err(_)) => unknown(terms, late()),
            None => self.succeeded((address, &connection), terms),
        }
    }

    /// The leader was succeeded, and has said nothing of the statements.
    fn succeeded(&self, (address, connection): (&str, &Connection), terms: &Terms) -> Elsewhere {
        // Whoever waits on the same connection decides for itself; the next one makes a new one.
        self.connections.forget(address, connection);
        unknown(terms, in_doubt(format_args!("the leader at {address} was succeeded before it answered")))
    }

    /// The call itself failed: the leader has said nothing of the statements, but maybe why it did not begin them.
    fn failed(&self, (address, connection): (&str, &Connection), status: &Status, terms: &Terms) -> Elsewhere {
        let text = format!("the leader at {address}: {}", cut(status.message()));
        let no_answer = |text: &str| unknown(terms, in_doubt(format_args!("no answer from {text}")));
        match Refusal::of(status, address) {
            Refusal::NotSent => {
                self.connections.forget(address, connection);
                Elsewhere::NotBegun(Error::unavailable(text))
            }
            Refusal::Broken => {
                self.connections.forget(address, connection);
                no_answer(&text)
            }
            Refusal::NotBegun => Elsewhere::NotBegun(Error::unavailable(text)),
            Refusal::Final(error) => Elsewhere::Answered(Err(BatchFailure { statement: 0, error })),
            Refusal::Late => unknown(terms, late()),
            Refusal::Unknown => no_answer(&text),
        }
    }
}

/// What may have been begun: named, it is asked again.
fn unknown(terms: &Terms, error: Error) -> Elsewhere {
    match &terms.request {
        Some(_) => Elsewhere::Unknown(error),
        None => Elsewhere::Answered(Err(BatchFailure { statement: 0, error })),
    }
}

/// What a leader says, as far as it is repeated.
fn cut(text: &str) -> String {
    error::cut(text, TEXT_BYTES_MAX)
}

fn late() -> Error {
    in_doubt(format_args!("the statement's deadline passed while the leader was at it"))
}

fn in_doubt(why: fmt::Arguments) -> Error {
    Error::in_doubt(format!("{why}: {READ_FIRST}"))
}

fn unreachable(address: &str, why: &str) -> Error {
    Error::unavailable(format!("the leader at {address} cannot be reached: {why}"))
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
