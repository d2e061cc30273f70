//! `chronos bench`: load on a running node, and what it answered with.
//!
//! Closed loop: each client sends its next statement when the last is answered. Writers insert rows under keys of their
//! own; readers read, by key, rows that were written before. Errors are counted by their code, never hidden in the rate.
//!
//! * The figures name how the server syncs: a rate without that says nothing.

mod histogram;

use super::client::Leader;
use super::remote::{self, Remote, Target};
use super::session::{Session, Table, fetch};
use super::{Environment, Stop};
use crate::actors::proto::wire::sql_service_client::SqlServiceClient;
use crate::actors::proto::wire::{SqlRequest, SqlResponse};
use chronos::Error;
use chronos::clock::{Clock, SystemClock};
use chronos::config::{Address, HTTP_PORT_OFFSET};
use chronos::sql::value::Value;
use futures_util::stream::{FuturesUnordered, StreamExt};
use histogram::Histogram;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
use tonic::transport::Channel;

const EXAMPLES: &str = "\
Examples:
  chronos bench                                               # 16 clients write one row a statement for 10 s
  chronos bench --mode read --clients 64
  chronos bench --rows 1000 --clients 1 --seconds 30
  chronos bench --mode mixed --ops 100000 --keep

The table chronos_bench is made, and dropped at the end.";

/// What `bench` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    leader: Leader,
    /// What clients do
    #[arg(long, value_enum, default_value_t = Mode::Write)]
    mode: Mode,
    /// Clients at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// Rows in one INSERT
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rows: u32,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Statements in all, instead of a time
    #[arg(long)]
    ops: Option<u64>,
    /// Leave the table in place
    #[arg(long)]
    keep: bool,
    /// HTTP address of the node, for the fsync mode [default: 1000 above the first --leader]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// INSERT
    Write,
    /// SELECT by key
    Read,
    /// One INSERT for every nine SELECTs
    Mixed,
}

const TABLE: &str = "chronos_bench";

/// Rows that readers choose from.
const READ_ROWS: i64 = 10_000;

/// Rows an INSERT holds while the table is prepared.
const PREPARE_ROWS: i64 = 1000;

/// Keys of writers begin here, one such range for each client.
const CLIENT_KEYS: i64 = 1 << 40;

/// Time for the server to answer a question about itself.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// What one client saw.
#[derive(Default)]
struct Seen {
    latencies: Histogram,
    rows: u64,
    errors: BTreeMap<String, u64>,
}

/// Runs the load and prints what came of it.
pub fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Stop> {
    let target = arguments.leader.target(environment)?;
    let mut session = Remote::open(target.clone(), false)?;
    prepare(&mut session, arguments.mode)?;
    let clock = SystemClock;
    let begin = clock.monotonic();
    let outcome = remote::runtime()?.block_on(load(arguments, &target));
    let took = clock.monotonic().saturating_sub(begin);
    if !arguments.keep {
        session.run(&format!("DROP TABLE {TABLE}"), &mut Table::default())?;
    }
    let seen = outcome?;
    println!("{}", summary(arguments, &seen, took));
    println!("fsync: {}", fsync_mode(arguments, &target).unwrap_or_else(|error| format!("unknown ({error})")));
    match seen.errors.values().sum::<u64>() {
        0 => Ok(()),
        failed => Err(Stop::Message(format!("{failed} statements failed"))),
    }
}

fn prepare(session: &mut dyn Session, mode: Mode) -> Result<(), Stop> {
    let create = format!("CREATE TABLE {TABLE} (id INT PRIMARY KEY, device INT, value FLOAT)");
    session.run(&format!("DROP TABLE IF EXISTS {TABLE}"), &mut Table::default())?;
    session.run(&create, &mut Table::default())?;
    if mode != Mode::Write {
        for first in (0..READ_ROWS).step_by(PREPARE_ROWS as usize) {
            session.run(&insert(first, PREPARE_ROWS), &mut Table::default())?;
        }
        let count = fetch(session, &format!("SELECT COUNT(*) FROM {TABLE}"))?;
        if count.rows.first().and_then(|row| row.first()) != Some(&Value::Int(READ_ROWS)) {
            return Err(Stop::Failed(Error::internal(format!("{TABLE} does not have the {READ_ROWS} rows written"))));
        }
    }
    Ok(())
}

fn insert(first: i64, rows: i64) -> String {
    let mut sql = format!("INSERT INTO {TABLE} (id, device, value) VALUES ");
    for id in first..first + rows {
        let comma = if id > first { "," } else { "" };
        let _ = write!(sql, "{comma}({id},{},{}.5)", id % 50, id % 1000);
    }
    sql
}

/// How many statements may still begin.
struct Budget {
    ops_left: Cell<u64>,
    until: Duration,
    clock: SystemClock,
}

impl Budget {
    fn take(&self) -> bool {
        let left = self.ops_left.get();
        self.ops_left.set(left.saturating_sub(1));
        left > 0 && self.clock.monotonic() < self.until
    }
}

async fn load(arguments: &Arguments, target: &Target) -> Result<Seen, Stop> {
    let clock = SystemClock;
    // With a number of statements the time is no limit, except that it ends some day.
    let limit = if arguments.ops.is_some() { 86_400 } else { arguments.seconds };
    let budget = Budget {
        ops_left: Cell::new(arguments.ops.unwrap_or(u64::MAX)),
        until: clock.monotonic() + Duration::from_secs(limit),
        clock,
    };
    let mut clients = FuturesUnordered::new();
    for number in 0..arguments.clients {
        let (_, connection) = target.connect(0).await?;
        clients.push(client(arguments, target, connection, i64::from(number), &budget));
    }
    let mut all = Seen::default();
    while let Some(seen) = clients.next().await {
        let seen = seen?;
        all.latencies.merge(&seen.latencies);
        all.rows += seen.rows;
        for (code, count) in seen.errors {
            *all.errors.entry(code).or_default() += count;
        }
    }
    Ok(all)
}

async fn client(
    arguments: &Arguments,
    target: &Target,
    mut connection: SqlServiceClient<Channel>,
    number: i64,
    budget: &Budget,
) -> Result<Seen, Stop> {
    let mut seen = Seen::default();
    let rows = i64::from(arguments.rows);
    let mut next = (number + 1) * CLIENT_KEYS;
    // Any fixed odd step visits the keys evenly without a random generator.
    let mut key = number * 7919 % READ_ROWS;
    for count in 0_u64.. {
        if !budget.take() {
            break;
        }
        let writes = match arguments.mode {
            Mode::Write => true,
            Mode::Read => false,
            Mode::Mixed => count.is_multiple_of(10),
        };
        let sql = if writes {
            next += rows;
            insert(next - rows, rows)
        } else {
            key = (key + 7919) % READ_ROWS;
            format!("SELECT id, device, value FROM {TABLE} WHERE id = {key}")
        };
        let request = target.request(SqlRequest { sql })?;
        let begin = budget.clock.monotonic();
        let answer = connection.execute_sql(request).await;
        let took = budget.clock.monotonic().saturating_sub(begin);
        match answer {
            Ok(response) => seen.answer(&response.into_inner(), took, if writes { rows as u64 } else { 1 }),
            Err(status) => {
                *seen.errors.entry(format!("{:?}", status.code())).or_default() += 1;
                // A node that is gone answers at once: without this the loop would only count.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    Ok(seen)
}

impl Seen {
    /// Counts an answer; fewer or more rows than expected are an error too.
    fn answer(&mut self, response: &SqlResponse, took: Duration, expected: u64) {
        let rows = response.affected.max(response.rows.len() as u64);
        if response.success && rows == expected {
            self.latencies.add(took);
            self.rows += rows;
        } else {
            let code = if response.success { format!("{rows} rows") } else { response.sqlstate.clone() };
            *self.errors.entry(code).or_default() += 1;
        }
    }
}

fn summary(arguments: &Arguments, seen: &Seen, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-9);
    let latencies = &seen.latencies;
    let mode = format!("{:?}", arguments.mode).to_lowercase();
    let mut out = format!("{mode}: {} clients, {} rows an INSERT, {seconds:.1} s\n", arguments.clients, arguments.rows);
    let statements = latencies.total();
    let _ = writeln!(
        out,
        "{statements} statements, {:.0} statements/s, {:.0} rows/s",
        statements as f64 / seconds,
        seen.rows as f64 / seconds
    );
    let micros = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1000.0);
    let _ = writeln!(
        out,
        "p50 {}  p99 {}  p999 {}  max {}",
        micros(latencies.percentile(0.5)),
        micros(latencies.percentile(0.99)),
        micros(latencies.percentile(0.999)),
        micros(latencies.longest())
    );
    let errors: Vec<String> = seen.errors.iter().map(|(code, count)| format!("{count} x {code}")).collect();
    let _ = write!(out, "errors: {}", if errors.is_empty() { "0".to_owned() } else { errors.join(", ") });
    out
}

/// What `/status` says about fsync.
fn fsync_mode(arguments: &Arguments, target: &Target) -> Result<String, String> {
    let address = if let Some(text) = &arguments.http {
        Address::parse(text)?
    } else {
        let grpc = target.addresses.first().ok_or("no address")?;
        let port = grpc.port.checked_add(HTTP_PORT_OFFSET).ok_or("no HTTP port; give --http")?;
        Address { port, host: grpc.host.clone() }
    };
    let body = get(&address, "/status", target).map_err(|error| format!("{address}: {error}"))?;
    let status: serde_json::Value = serde_json::from_str(&body).map_err(|error| format!("/status: {error}"))?;
    find(&status, "fsync").ok_or_else(|| "/status does not say".to_owned())
}

/// The first value under a key, wherever it stands.
fn find(value: &serde_json::Value, key: &str) -> Option<String> {
    let object = value.as_object()?;
    match object.get(key) {
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
        None => object.values().find_map(|inner| find(inner, key)),
    }
}

/// Encrypted or not.
trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

/// One GET; HTTP/1.0, so that the answer ends with the connection.
fn get(address: &Address, path: &str, target: &Target) -> std::io::Result<String> {
    /// Far more than any status.
    const ANSWER_BYTES_MAX: u64 = 4 << 20;
    let mut last = std::io::Error::other("the name has no address");
    for resolved in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, STATUS_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(STATUS_TIMEOUT))?;
                let mut stream: Box<dyn Connection> = match &target.tls {
                    None => Box::new(stream),
                    Some(files) => Box::new(files.https(stream)?),
                };
                let auth =
                    target.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
                write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{auth}\r\n")?;
                let mut answer = String::new();
                stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
                let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
                return match head.split_whitespace().nth(1) {
                    Some("200") => Ok(body.to_owned()),
                    code => Err(std::io::Error::other(format!("HTTP {}", code.unwrap_or("?")))),
                };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_has_its_rows() {
        assert_eq!(insert(49, 2), "INSERT INTO chronos_bench (id, device, value) VALUES (49,49,49.5),(50,0,50.5)");
    }

    #[test]
    fn an_answer_with_the_wrong_number_of_rows_is_an_error() {
        let mut seen = Seen::default();
        let response = SqlResponse { success: true, affected: 1, ..SqlResponse::default() };
        seen.answer(&response, Duration::ZERO, 1);
        seen.answer(&response, Duration::ZERO, 2);
        assert_eq!((seen.rows, seen.latencies.total()), (1, 1));
        assert_eq!(seen.errors.get("1 rows"), Some(&1));
    }

    #[test]
    fn a_key_is_found_at_any_depth() {
        let status = serde_json::json!({"node": {"id": "a"}, "storage": {"fsync": "fdatasync per batch"}});
        assert_eq!(find(&status, "fsync").as_deref(), Some("fdatasync per batch"));
        assert_eq!(find(&status, "nothing"), None);
    }
}
