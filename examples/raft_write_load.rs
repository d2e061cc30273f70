//! One client that writes without pause, and says how fast that was.
//!
//! `cargo run --release --example raft_write_load -- --leader 127.0.0.1:8000 --ops 100000 --batch-size 1`
//!
//! With a batch size of 1 every row is a statement of its own, and waits for its answer before the next. It uses the client
//! generated from `proto/raft.proto`, as any program in any language has one.

#![expect(clippy::disallowed_methods, reason = "a load generator measures time")]

mod wire {
    #![expect(clippy::pedantic, clippy::enum_variant_names, clippy::allow_attributes, reason = "generated")]
    tonic::include_proto!("raft");
}

use clap::Parser;
use std::time::{Duration, Instant};
use wire::SqlRequest;
use wire::sql_service_client::SqlServiceClient;

#[derive(Parser)]
struct Arguments {
    /// Node to write to; any node of a group
    #[arg(long, default_value = "127.0.0.1:8000")]
    leader: String,
    /// Rows to write
    #[arg(long, default_value_t = 100_000)]
    ops: u64,
    /// Rows in one statement
    #[arg(long, default_value_t = 1)]
    batch_size: u64,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let mut client = SqlServiceClient::connect(format!("http://{}", arguments.leader)).await?;
    let table = "CREATE TABLE IF NOT EXISTS write_load (id INT PRIMARY KEY, temperature FLOAT)";
    run(&mut client, table.to_owned()).await?;
    let asked = client.execute_sql(SqlRequest { sql: "SELECT MAX(id) FROM write_load".into() }).await?.into_inner();
    let first = match asked.rows.first().and_then(|row| row.values.first()).and_then(|value| value.value.clone()) {
        Some(wire::value::Value::IntValue(last)) => last as u64 + 1,
        Some(_) | None => 0,
    };
    let batch_size = arguments.batch_size.max(1);
    let mut times: Vec<Duration> = Vec::new();
    let begin = Instant::now();
    let mut next = first;
    while next < first + arguments.ops {
        let end = (next + batch_size).min(first + arguments.ops);
        let rows: Vec<String> = (next..end).map(|id| format!("({id}, {}.5)", id % 40)).collect();
        let sent = Instant::now();
        run(&mut client, format!("INSERT INTO write_load (id, temperature) VALUES {}", rows.join(", "))).await?;
        times.push(sent.elapsed());
        next = end;
    }
    let took = begin.elapsed();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).or(times.last()).copied().unwrap_or_default();
    println!(
        "{} rows in {} statements, {:.2} s: {:.0} rows/s; p50 {:.0?}, p99 {:.0?}",
        arguments.ops,
        times.len(),
        took.as_secs_f64(),
        arguments.ops as f64 / took.as_secs_f64(),
        at(50),
        at(99),
    );
    Ok(())
}

async fn run(client: &mut SqlServiceClient<tonic::transport::Channel>, sql: String) -> Outcome<()> {
    let answer = client.execute_sql(SqlRequest { sql }).await?.into_inner();
    if answer.success { Ok(()) } else { Err(answer.error.into()) }
}
