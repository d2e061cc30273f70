//! A sensor demo: a week of readings written, asked about, indexed, and found again after a restart.
//!
//! `cargo run --release --example storage_demo`. It uses the async twin of the embedded database, as a gateway program
//! on any runtime would, and a temporary directory that it removes. Readings come from a formula with a little noise,
//! so every run shows the same rows; only the rates differ.

#![expect(clippy::disallowed_methods, reason = "a demo shows rates, so it asks for the time itself")]

use chronos::sql::value::Value;
use chronos::{ChronosEmbedded, Result};
use std::fmt::Write as _;
use std::time::Instant;

const SENSORS: u64 = 50;
const ROWS: u64 = 100_000;
const BATCH_ROWS: u64 = 1_000;

/// Seconds between two readings of one sensor.
const INTERVAL_S: u64 = 300;

/// 2025-01-01 00:00:00.
const BEGIN_S: u64 = 1_735_689_600;

/// Noise between -1 and 1 that depends on `n` alone.
fn noise(n: u64) -> f64 {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

/// Reading `i`: sensor, seconds since 1970, temperature. A day's curve, a sensor's own offset, noise; now and then hot.
fn reading(i: u64) -> (u64, u64, f64) {
    let (sensor, step) = (i % SENSORS, i / SENSORS);
    let day = (step * INTERVAL_S % 86_400) as f64 / 86_400.0;
    let curve = 6.0 * (day * std::f64::consts::TAU).sin();
    let hot = if i.is_multiple_of(9_973) { 40.0 } else { 0.0 };
    (sensor, BEGIN_S + step * INTERVAL_S, 20.0 + sensor as f64 / 10.0 + curve + noise(i) + hot)
}

fn insert(first: u64) -> String {
    let mut sql = String::from("INSERT INTO readings (sensor, at, temperature) VALUES ");
    for i in first..first + BATCH_ROWS {
        let (sensor, at, temperature) = reading(i);
        let separator = if i == first { "" } else { ", " };
        let _ = write!(sql, "{separator}({sensor}, {at}, {temperature:.2})");
    }
    sql
}

/// Runs a statement, shows what it answers and how long it took.
async fn show(db: &ChronosEmbedded, sql: &str) -> Result<()> {
    println!("\n> {sql}");
    let started = Instant::now();
    let answer = db.execute(sql).await?;
    let taken = started.elapsed();
    if answer.columns.is_empty() {
        println!("  {} rows written in {taken:.1?}", answer.affected);
        return Ok(());
    }
    let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    println!("  {}", names.join(" | "));
    for row in &answer.rows {
        let cell = |value: &Value| {
            if let Value::Float(number) = value { format!("{number:.2}") } else { value.to_string() }
        };
        println!("  {}", row.iter().map(cell).collect::<Vec<String>>().join(" | "));
    }
    println!("  {} rows in {taken:.1?}", answer.rows.len());
    Ok(())
}

async fn fill(db: &ChronosEmbedded) -> Result<()> {
    // Made before the clock starts: what is shown is the database's rate, not the generator's.
    let statements: Vec<String> = (0..ROWS).step_by(BATCH_ROWS as usize).map(insert).collect();
    let started = Instant::now();
    for sql in &statements {
        db.execute(sql).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "\n{ROWS} readings in INSERTs of {BATCH_ROWS} rows: {:.0} rows/s, each INSERT durable",
        ROWS as f64 / seconds
    );

    const SINGLES: u64 = 500;
    let started = Instant::now();
    for i in ROWS..ROWS + SINGLES {
        let (sensor, at, temperature) = reading(i);
        db.execute(&format!("INSERT INTO readings VALUES ({sensor}, {at}, {temperature:.2})")).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{SINGLES} readings one by one: {:.0} rows/s, each durable", SINGLES as f64 / seconds);
    Ok(())
}

async fn ask(db: &ChronosEmbedded) -> Result<()> {
    show(db, "SELECT COUNT(*), MIN(temperature), AVG(temperature), MAX(temperature) FROM readings").await?;
    show(db, "SELECT sensor, COUNT(*) AS n, AVG(temperature) AS average FROM readings GROUP BY sensor ORDER BY average DESC LIMIT 3").await?;
    show(db, "SELECT at, temperature FROM readings WHERE sensor = 7 AND at < 1735691100 ORDER BY at").await?;
    show(db, "SELECT sensor, at, temperature FROM readings WHERE temperature > 55 ORDER BY temperature DESC LIMIT 5")
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir().map_err(|error| chronos::Error::io("make a temporary directory", &error))?;
    println!("A database in {}", directory.path().display());
    let db = ChronosEmbedded::open(directory.path()).await?;
    show(&db, "CREATE TABLE readings (sensor INT, at INT, temperature FLOAT, PRIMARY KEY (sensor, at)) WITH TTL=30d")
        .await?;
    fill(&db).await?;
    ask(&db).await?;

    show(&db, "CREATE INDEX by_temperature ON readings (temperature)").await?;
    show(&db, "SELECT sensor, at, temperature FROM readings WHERE temperature > 55 ORDER BY temperature DESC LIMIT 5")
        .await?;
    show(&db, "EXPLAIN SELECT sensor FROM readings WHERE temperature > 55").await?;
    show(&db, "UPDATE readings SET temperature = temperature - 40 WHERE temperature > 55").await?;
    show(&db, "DELETE FROM readings WHERE sensor = 49").await?;

    let started = Instant::now();
    db.close().await?;
    println!("\nClosed in {:.1?}: flushed and sealed.", started.elapsed());
    let started = Instant::now();
    let db = ChronosEmbedded::open(directory.path()).await?;
    println!("Open after {:.1?}.", started.elapsed());
    show(&db, "SELECT COUNT(*), COUNT(DISTINCT sensor), MAX(temperature) FROM readings").await?;
    db.close().await?;
    let path = directory.path().to_path_buf();
    directory.close().map_err(|error| chronos::Error::io("remove the temporary directory", &error))?;
    println!("\n{} is removed.", path.display());
    Ok(())
}
