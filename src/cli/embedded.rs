//! A session on a database in this process, with the limits that the configuration sets.

use super::session::{Column, Session, Sink, sink_error};
use super::{Environment, Stop, remote};
use crate::actors::proto::message;
use chronos::config::{Config, Sources, load};
use chronos::embedded::{Database, Options};
use chronos::error::{Error, Result, SqlState};
use chronos::raft::Naming;
use chronos::sql::bind::OutputColumn;
use chronos::sql::execute::{self, Access, Task};
use chronos::sql::translate::ParseLimits;
use chronos::storage::directory::Create;
use chronos::storage::{engine, scrub};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Share of the memory budget for memtables, and for the block cache, in percent.
const MEMORY_SHARE_PERCENT: u64 = 25;

/// A slice of a large statement takes a sixteenth of the memory budget: a quarter of the memtables' share.
const SLICE_MEMORY_DIVISOR: u64 = 16;

/// Effects that cannot be cut take a quarter of the budget at most: as much as all memtables.
const WHOLE_MEMORY_DIVISOR: u64 = 4;

/// How the configuration opens a database.
pub fn options(config: &Config) -> Options {
    Options {
        engine: engine_limits(config),
        statements: statement_limits(config),
        query_bytes_max: config.query_memory().0 as usize,
        cluster_name: config.cluster.name.as_ref().map(|name| name.as_str().to_owned()),
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
        log_keep_bytes_max: config.raft.log_keep_bytes_max.0,
        commit_linger: config.storage.commit_linger.0,
        disk_reserve_bytes: config.disk_reserve().0,
        disk_stall_max: config.storage.disk_stall_max.0,
        view_age_max: config.storage.view_age_max.0,
        pinned_bytes_max: config.storage.pinned_bytes_max.0,
    }
}

fn statement_limits(config: &Config) -> execute::Limits {
    let defaults = execute::Limits::default();
    execute::Limits {
        query_bytes_max: config.query_memory().0 as usize,
        parse: ParseLimits { bytes_max: config.limits.statement_bytes_max.0 as usize, ..defaults.parse },
        command_bytes_max: config.limits.command_bytes_max.0 as usize,
        effects_bytes_max: config.limits.statement_effects_max.0 as usize,
        slice_bytes_max: (config.storage.memory_bytes_max.0 / SLICE_MEMORY_DIVISOR) as usize,
        whole_bytes_max: (config.storage.memory_bytes_max.0 / WHOLE_MEMORY_DIVISOR) as usize,
        batch_result_bytes_max: config.limits.response_bytes_max.0 as usize,
        sent_bytes: message::answer_len,
    }
}

/// A database in this process.
pub struct Embedded {
    database: Database,
    /// Set by Ctrl-C, where that stops the statement instead of the program.
    interrupted: Arc<AtomicBool>,
}

impl Embedded {
    /// Opens the database in a directory, with limits from the environment; it is made there where `create` allows.
    pub fn open(path: &Path, id: Option<String>, create: Create, environment: Environment) -> Result<Embedded, Stop> {
        Embedded::open_as(path, id, Naming::Kept, create, environment)
    }

    /// The same under a new name, where `naming` says so.
    pub fn open_as(
        path: &Path,
        id: Option<String>,
        naming: Naming,
        create: Create,
        environment: Environment,
    ) -> Result<Embedded, Stop> {
        let loaded = load(&Sources { environment, ..Sources::default() })
            .map_err(|problems| Stop::Usage(problems.to_string()))?;
        let options = Options { id, naming, create, ..options(&loaded.config) };
        Ok(Embedded { database: Database::open_with(path, &options)?, interrupted: Arc::default() })
    }

    /// From here on Ctrl-C stops the running statement, not the program.
    pub fn catch_interrupts(&self) -> Result<()> {
        let failed = |error: std::io::Error| Error::io("catch Ctrl-C", &error);
        let (runtime, interrupted) = (remote::runtime()?, self.interrupted.clone());
        // Made here and not on the thread, which may begin late: from now on no Ctrl-C ends the program.
        let mut signals = {
            let _within = runtime.enter();
            signal(SignalKind::interrupt()).map_err(failed)?
        };
        let listen = move || {
            runtime.block_on(async {
                while signals.recv().await.is_some() {
                    interrupted.store(true, Ordering::Relaxed);
                }
            });
        };
        let spawned = std::thread::Builder::new().name("interrupts".to_owned()).spawn(listen);
        spawned.map(drop).map_err(failed)
    }

    /// The database itself.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Reads every block of every level, those of indexes too; gives how many there are.
    pub fn read_all_blocks(&self) -> Result<u64> {
        let handle = self.database.group().handle().ok_or_else(|| Error::unavailable("the database is closed"))?;
        scrub::read_all(&handle.lasting_view().levels.blocks)
    }

    fn task(&self) -> Task {
        self.interrupted.store(false, Ordering::Relaxed);
        let interrupted = self.interrupted.clone();
        // Asked before anything is written: a statement that was stopped took no effect.
        let check = move || {
            let stops = interrupted.load(Ordering::Relaxed);
            if stops { Err(Error::limit(SqlState::QUERY_CANCELED, "cancelled")) } else { Ok(()) }
        };
        Task { request: None, access: Access::ReadWrite, check: Arc::new(check) }
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
        let task = self.task();
        if remote::reads(statement) {
            let rows = self.database.query_as(statement, &task)?;
            head(rows.columns(), sink)?;
            for values in rows {
                // A terminal takes its time for the rows of one batch.
                (task.check)()?;
                sink.row(values?.values()).map_err(|error| sink_error(&error))?;
            }
            return Ok(0);
        }
        let result = self.database.execute_as(statement, &task)?;
        if !result.columns.is_empty() {
            head(&result.columns, sink)?;
        }
        result.rows.iter().try_for_each(|values| sink.row(values).map_err(|error| sink_error(&error)))?;
        Ok(result.affected)
    }
}
