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
//! * A write whose connection broke is *in doubt*, and the error says so; without a name it is never sent a second time.
//! * Where there are several nodes, each write has a name (`name`), and is sent to the next node under the same one until
//!   its outcome is known: the group executes it once, however often it comes.

mod answer;
mod judge;
mod link;
mod name;
mod setting;

pub use answer::{data_type, failed};
pub use judge::{broke, did_nothing, from_status, reason};
pub use name::Names;

use super::session::{Session, Sink};
use crate::actors::proto::wire::sql_service_client::SqlServiceClient;
use crate::actors::tls::{Files, explain, wants_tls};
use chronos::config::Address;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::sql::translate::first_word;
use link::{Link, Named};
use setting::Settings;
use std::time::Duration;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

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
    /// How connections are encrypted, where they are.
    pub tls: Option<Files>,
}

impl Target {
    /// Reads `127.0.0.1:8000[,...]`; a scheme in front is fine. Whether connections are encrypted is said by `tls` alone;
    /// `https://` without it is refused, so that nobody sends in the clear what was meant to be encrypted.
    pub fn parse(list: &str, token: Option<String>, tls: Option<Files>) -> Result<Target, String> {
        let addresses = list
            .split(',')
            .map(|part| {
                let part = part.trim();
                let (http, https) = (part.strip_prefix("http://"), part.strip_prefix("https://"));
                if https.is_some() && tls.is_none() {
                    return Err(format!("{part}: set CHRONOS_TLS_CERT, CHRONOS_TLS_KEY and CHRONOS_TLS_CA_CERT"));
                }
                Address::parse(http.or(https).unwrap_or(part).trim_end_matches('/'))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Target { addresses, token, tls })
    }

    /// A client of the first node that can be reached, beginning with the one at `first`; answers which it was.
    pub async fn connect(&self, first: usize) -> Result<(usize, SqlServiceClient<Channel>)> {
        let (at, channel) = self.channel(first).await?;
        let client = SqlServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok((at, client))
    }

    /// A connection to that node.
    pub async fn channel(&self, first: usize) -> Result<(usize, Channel)> {
        let mut reasons = Vec::new();
        for step in 0..self.addresses.len() {
            let at = (first + step) % self.addresses.len();
            match self.dial(&self.addresses[at]).await {
                Ok(channel) => return Ok((at, channel)),
                Err(why) => reasons.push(why),
            }
        }
        Err(nobody(&reasons))
    }

    /// A connection to one node; says which it was and why not.
    pub async fn dial(&self, address: &Address) -> Result<Channel, String> {
        dial(address, self.tls.as_ref()).await.map_err(|error| format!("{address} ({error})"))
    }

    /// True where the reason for a failure is that the node at this position wants TLS.
    async fn wants_tls(&self, at: usize) -> bool {
        let Address { host, port } = &self.addresses[at];
        self.tls.is_none() && tokio::time::timeout(CONNECT_TIMEOUT, wants_tls(host, *port)).await.unwrap_or(false)
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

/// Where none of the nodes can be reached, each with the reason.
pub fn nobody(reasons: &[String]) -> Error {
    Error::unavailable(format!("no node answers: {}", reasons.join(", ")))
        .hint("is it running, with fewer connections than its limits.connections? chronos node --help")
}

async fn dial(address: &Address, tls: Option<&Files>) -> Result<Channel, String> {
    let endpoint = match tls {
        None => Endpoint::from_shared(format!("http://{address}")),
        Some(files) => {
            let knocked = tokio::time::timeout(CONNECT_TIMEOUT, files.knock(&address.host, address.port)).await;
            knocked.unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
            let endpoint = Endpoint::from_shared(format!("https://{address}"));
            endpoint.and_then(|endpoint| endpoint.tls_config(files.client()))
        }
    };
    let connected = match endpoint {
        Ok(endpoint) => {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_INTERVAL)
                .connect()
                .await
        }
        Err(error) => Err(error),
    };
    connected.map_err(|error| explain(&error).unwrap_or_else(|| innermost(&error)))
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
    /// True once a node has answered.
    is_answered: bool,
    /// What is said with each statement.
    settings: Settings,
    /// The names of writes.
    names: Names,
}

impl Remote {
    /// Connects to the first node that answers.
    pub fn open(target: Target, interruptible: bool) -> Result<Remote> {
        let runtime = runtime()?;
        let (at, client) = runtime.block_on(target.connect(0))?;
        let names = Names::new(target.addresses.len() > 1);
        Ok(Remote {
            runtime,
            target,
            connected: Some(client),
            at,
            interruptible,
            is_answered: false,
            settings: Settings::default(),
            names,
        })
    }

    /// The node last connected to.
    pub fn address(&self) -> &Address {
        &self.target.addresses[self.at]
    }
}

impl Session for Remote {
    fn run(&mut self, statement: &str, sink: &mut dyn Sink) -> Result<u64> {
        if let Some(taken) = self.settings.take(statement) {
            return taken.map(|()| 0);
        }
        let Remote { runtime, target, connected, at, interruptible, is_answered, settings, names } = self;
        let link = Link { target, connected, at, is_answered };
        let statement = Named { text: statement, name: names.next(statement)? };
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = link.run((settings, names), statement.clone(), sink) => outcome,
                () = interrupted(*interruptible) => Err(interruption(statement.text)),
            }
        });
        if outcome.as_ref().is_err_and(|error| matches!(error.kind(), Kind::InDoubt | Kind::Unavailable)) {
            *connected = None;
        }
        outcome
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
    let word = first_word(statement);
    ["select", "values", "with", "show", "describe", "desc", "explain", "table"]
        .iter()
        .any(|reading| word.eq_ignore_ascii_case(reading))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_nodes_is_read() {
        let target = Target::parse("127.0.0.1:8000, http://node2:8001/", None, None).expect("valid");
        assert_eq!(
            target.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1:8000", "node2:8001"]
        );
        for wrong in ["", "8000", "a:1,", "https://a:1"] {
            assert!(Target::parse(wrong, None, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_word_tells_reads_from_writes() {
        for text in ["SELECT 1", " -- c\n /* d /* e */ */ (select 1)", "show tables", "WITH a AS (SELECT 1) SELECT 1"] {
            assert!(reads(text), "{text}");
        }
        for text in ["INSERT INTO t VALUES (1)", "", "-- select", "selected", "DELETE FROM t"] {
            assert!(!reads(text), "{text}");
        }
    }
}
