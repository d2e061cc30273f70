//! A session on a database in this process, with the limits that the configuration sets.

use super::session::{Column, Session, Sink, sink_error};
use super::{Environment, Stop, remote};
use chronos::Result;
use chronos::config::{Config, Sources, load};
use chronos::embedded::{Database, Options};
use chronos::sql::bind::OutputColumn;
use chronos::sql::execute;
use chronos::sql::translate::ParseLimits;
use chronos::storage::directory::Create;
use chronos::storage::engine;
use std::path::Path;

/// Share of the memory budget for memtables, and for the block cache, in percent.
const MEMORY_SHARE_PERCENT: u64 = 25;

/// How the configuration opens a database.
pub fn options(config: &Config) -> Options {
    Options {
        engine: engine_limits(config),
        statements: statement_limits(config),
        query_bytes_max: config.query_memory().0 as usize,
        ..Options::default()
    }
}

fn engine_limits(config: &Config) -> engine::Limits {
    let share = config.storage.memory_bytes_max.0 / 100 * MEMORY_SHARE_PERCENT;
    engine::Limits {
        memtable_bytes_max: share as usize,
        cache_bytes_max: share as usize,
        seal_wal_bytes: config.storage.seal_wal_bytes.0,
        segment_bytes: config.storage.segment_bytes.0,
        commit_linger: config.storage.commit_linger.0,
        disk_reserve_bytes: config.disk_reserve().0,
    }
}

fn statement_limits(config: &Config) -> execute::Limits {
    let defaults = execute::Limits::default();
    execute::Limits {
        query_bytes_max: config.query_memory().0 as usize,
        parse: ParseLimits { bytes_max: config.limits.statement_bytes_max.0 as usize, ..defaults.parse },
        command_bytes_max: config.limits.command_bytes_max.0 as usize,
        effects_bytes_max: config.limits.statement_effects_max.0 as usize,
        batch_result_bytes_max: config.limits.response_bytes_max.0 as usize,
    }
}

/// A database in this process.
pub struct Embedded {
    database: Database,
}

impl Embedded {
    /// Opens the database in a directory, with limits from the environment; it is made there where `create` allows.
    pub fn open(path: &Path, id: Option<String>, create: Create, environment: Environment) -> Result<Embedded, Stop> {
        let loaded = load(&Sources { environment, ..Sources::default() })
            .map_err(|problems| Stop::Usage(problems.to_string()))?;
        let options = Options { id, create, ..options(&loaded.config) };
        Ok(Embedded { database: Database::open_with(path, &options)? })
    }

    /// Seals and unlocks.
    pub fn close(self) -> Result<()> {
        self.database.close()
    }
}

fn head(columns: &[OutputColumn], sink: &mut dyn Sink) -> Result<()> {
    let columns: Vec<Column> =
        columns.iter().map(|column| Column { name: column.name.clone(), data_type: Some(column.data_type) }).collect();
    sink.head(&columns).map_err(|error| sink_error(&error))
}

impl Session for Embedded {
    fn run(&mut self, statement: &str, sink: &mut dyn Sink) -> Result<u64> {
        if remote::reads(statement) {
            let rows = self.database.query(statement)?;
            head(rows.columns(), sink)?;
            for values in rows {
                sink.row(values?.values()).map_err(|error| sink_error(&error))?;
            }
            return Ok(0);
        }
        let result = self.database.execute(statement)?;
        if !result.columns.is_empty() {
            head(&result.columns, sink)?;
        }
        result.rows.iter().try_for_each(|values| sink.row(values).map_err(|error| sink_error(&error)))?;
        Ok(result.affected)
    }
}
