//! One statement on its way: to which node, how often, and until when.
//!
//! ```text
//!   sent ──> answered ─────────────────────────────────────────────> that is it
//!    ^  └──> surely not executed ──> the next node, each once ─────> unavailable
//!    └────── in doubt, and it has a name: the next node, again and again, until that is over ──> in doubt
//! ```

use super::super::session::Sink;
use super::answer::Answer;
use super::judge::{Attempt, from_status, judge};
use super::name::Names;
use super::setting::Settings;
use super::{CONNECT_TIMEOUT, Target, reads};
use crate::actors::messages::REQUEST_ID;
use crate::actors::outcome::is_outcome;
use crate::actors::proto::wire::SqlRequest;
use crate::actors::proto::wire::sql_service_client::SqlServiceClient;
use chronos::clock::{Clock, Monotonic, SystemClock};
use chronos::config::Address;
use chronos::error::{Error, Kind, Result, SqlState};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

/// How long the outcome of a write is asked for that is not known: an election takes about a second, and a machine that
/// is busy, or whose disk is, some more.
const DOUBT_MAX: Duration = Duration::from_secs(20);

/// The pause before a node is asked again: nodes that have no leader yet say so at once.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);

/// What an answer in HTTP/1 begins with.
const HTTP: &[u8; 7] = b"HTTP/1.";

/// A statement, and what it is called where it may be sent again.
#[derive(Clone)]
pub struct Named<'a> {
    /// The text.
    pub text: &'a str,
    /// Its name.
    pub name: Option<MetadataValue<Ascii>>,
}

/// The connection of a session, for one statement.
pub struct Link<'a> {
    /// Which nodes.
    pub target: &'a Target,
    /// A connection, where there is one.
    pub connected: &'a mut Option<SqlServiceClient<Channel>>,
    /// The node that it goes to.
    pub at: &'a mut usize,
    /// True once a node has answered.
    pub is_answered: &'a mut bool,
}

impl Link<'_> {
    /// Sends the statement until there is an answer, as far as it may be sent again.
    pub async fn run(
        mut self,
        (settings, names): (&Settings, &mut Names),
        mut statement: Named<'_>,
        sink: &mut dyn Sink,
    ) -> Result<u64> {
        let mut attempts = 0;
        let mut doubt: Option<Doubt> = None;
        loop {
            let outcome = match self.client().await {
                Ok(mut client) => attempt((self.target, settings), &mut client, &statement, sink).await,
                Err(error) if doubt.is_none() => return Err(error),
                Err(error) => Err(Attempt::Elsewhere(error)),
            };
            attempts += 1;
            if doubt.is_none() {
                self.look_closer(&outcome).await?;
            }
            *self.is_answered = true;
            let (error, goes_on) = match outcome {
                Ok(affected) => return Ok(affected),
                Err(Attempt::Final(error)) if error.kind() == Kind::InDoubt && statement.name.is_some() => {
                    (error, true)
                }
                // It was not executed, and without its name it can be, as long as it has not been sent before.
                Err(Attempt::Final(error)) if doubt.is_none() && names.refused(&error) => {
                    statement.name = None;
                    continue;
                }
                Err(Attempt::Final(error)) if doubt.is_none() || is_outcome(&error) => return Err(error),
                Err(Attempt::Final(error)) => (error, true),
                // The first attempt may only have found a connection that had died while idle.
                Err(Attempt::Elsewhere(error)) => (error, attempts <= self.target.addresses.len()),
            };
            *self.connected = None;
            *self.at = (*self.at + 1) % self.target.addresses.len();
            if doubt.is_none() && error.kind() == Kind::InDoubt {
                doubt = Some(Doubt { error: error.clone(), until: SystemClock.monotonic() + DOUBT_MAX });
            }
            match &doubt {
                Some(doubt) if SystemClock.monotonic() >= doubt.until => return Err(doubt.error.clone()),
                Some(_) => tokio::time::sleep(DOUBT_PAUSE).await,
                None if goes_on => {}
                None => return Err(error),
            }
        }
    }

    async fn client(&mut self) -> Result<SqlServiceClient<Channel>> {
        if let Some(client) = &self.connected {
            return Ok(client.clone());
        }
        let (found, client) = self.target.connect(*self.at).await?;
        *self.at = found;
        Ok(self.connected.insert(client).clone())
    }

    /// A connection that failed may have been one to something else: says so where that is seen.
    async fn look_closer(&mut self, outcome: &Result<u64, Attempt>) -> Result<()> {
        let address = &self.target.addresses[*self.at];
        if outcome.as_ref().is_err_and(Attempt::was_not_answered) && self.target.wants_tls(*self.at).await {
            *self.connected = None;
            let message = format!("{address} speaks TLS, and was spoken to in the clear");
            let hint = "set CHRONOS_TLS_CERT, CHRONOS_TLS_KEY and CHRONOS_TLS_CA_CERT";
            return Err(Error::unavailable(message).hint(hint));
        }
        if is_broken(outcome) && !*self.is_answered && speaks_http(address).await {
            return Err(wrong_port(address));
        }
        Ok(())
    }
}

/// A write whose outcome is asked for.
struct Doubt {
    /// What was said first.
    error: Error,
    until: Monotonic,
}

/// True where the connection failed, rather than the node answering.
fn is_broken(outcome: &Result<u64, Attempt>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(Attempt::Elsewhere(error) | Attempt::Final(error)) => {
            matches!(error.kind(), Kind::InDoubt | Kind::Unavailable)
        }
    }
}

/// True where something answers there in HTTP/1, which a gRPC port does not speak.
async fn speaks_http(address: &Address) -> bool {
    let probe = async {
        let mut stream = TcpStream::connect(address.to_string()).await?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: chronos\r\nconnection: close\r\n\r\n").await?;
        let mut head = [0; HTTP.len()];
        stream.read_exact(&mut head).await?;
        Ok::<bool, std::io::Error>(head == *HTTP)
    };
    matches!(tokio::time::timeout(CONNECT_TIMEOUT, probe).await, Ok(Ok(true)))
}

/// Nothing that is sent to such a port is ever carried out.
fn wrong_port(address: &Address) -> Error {
    Error::invalid(SqlState::CONFIG_ERROR, format!("{address} looks like an HTTP port, and --leader takes a gRPC port"))
        .hint("unless configured otherwise, a node's gRPC port is 1000 below its HTTP port")
}

async fn attempt(
    (target, settings): (&Target, &Settings),
    client: &mut SqlServiceClient<Channel>,
    Named { text: statement, name }: &Named<'_>,
    sink: &mut dyn Sink,
) -> Result<u64, Attempt> {
    let mut request = target.request(SqlRequest { sql: (*statement).to_owned() }).map_err(Attempt::Final)?;
    settings.sign(&mut request);
    if let Some(name) = name {
        request.metadata_mut().insert(REQUEST_ID, name.clone());
    }
    let mut answer = Answer::default();
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
