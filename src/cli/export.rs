//! `chronos export`: a table or a query as CSV or JSON lines, streamed.
//!
//! A file is written beside its final name and renamed when complete, so a broken export never looks like a whole one.
//! With `--skip-damaged` a table that has damaged blocks is complete without them: what is missing is named, and the exit
//! code says that something is.

mod damaged;

use super::client::Leader;
use super::embedded::Embedded;
use super::import::typed_name;
use super::output::{Format, Writer};
use super::remote::Remote;
use super::session::{Session, quote_name};
use super::{Environment, Stdout, Stop, report};
use chronos::storage::directory::Create;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  chronos export --table readings --output readings.csv       # reads back with: chronos import readings.csv
  chronos export --query 'SELECT device, AVG(value) FROM readings GROUP BY device' --format json
  chronos export --table readings | gzip > readings.csv.gz
  chronos export --table readings --data-dir data             # of a node that does not run
  chronos export --table readings --data-dir data --skip-damaged --output saved.csv

With --skip-damaged all rows are written that lie in no damaged block and that none of these may have replaced or deleted;
the key ranges that are missing are named, and the exit code is 1 where there are any.";

/// What `export` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group(clap::ArgGroup::new("what").required(true).args(["table", "query"])))]
pub struct Arguments {
    #[command(flatten)]
    leader: Leader,
    /// Export from the database of this directory instead of a running node
    #[arg(long, value_name = "DIR", conflicts_with = "leader")]
    data_dir: Option<PathBuf>,
    /// Which database of --data-dir
    #[arg(long, requires = "data_dir")]
    id: Option<String>,
    /// Table to export
    #[arg(long)]
    table: Option<String>,
    /// Query to export
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Go on behind blocks that cannot be read, and name what is missing
    #[arg(long, requires = "data_dir", conflicts_with_all = ["leader", "query"])]
    skip_damaged: bool,
}

/// Exports.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    let query = match (&arguments.query, &arguments.table) {
        (Some(query), _) => query.trim().trim_end_matches(';').to_owned(),
        (None, Some(table)) => format!("SELECT * FROM {}", quote_name(&typed_name(table))),
        (None, None) => return Err(Stop::Usage("give --table or --query".to_owned())),
    };
    if !super::remote::reads(&query) {
        return Err(Stop::Usage("--query: only a statement that reads can be exported".to_owned()));
    }
    if let Some(path) = arguments.output.as_ref().filter(|path| path.exists() && !arguments.force) {
        return Err(Stop::Message(format!("{} exists: --force overwrites it", path.display())));
    }
    let Some(directory) = &arguments.data_dir else {
        let mut session = Remote::open(arguments.leader.target(&environment)?, false)?;
        return whole(&mut session, arguments, &query);
    };
    let mut session = Embedded::open(directory, arguments.id.clone(), Create::Refused, environment)?;
    let outcome = match &arguments.table {
        Some(table) if arguments.skip_damaged => what_is_left(&session, arguments, &typed_name(table)),
        Some(_) | None => whole(&mut session, arguments, &query),
    };
    let closed = session.close();
    outcome?;
    Ok(closed?)
}

/// All that was asked for, or nothing.
fn whole(session: &mut dyn Session, arguments: &Arguments, query: &str) -> Result<(), Stop> {
    let rows = to_output(arguments, |out| write(session, query, arguments.format, out))?;
    if let Some(path) = &arguments.output {
        eprintln!("exported {rows} rows to {}", path.display());
    }
    Ok(())
}

/// All that can be read of a table; an error, once it is written, where that is not all.
fn what_is_left(session: &Embedded, arguments: &Arguments, table: &str) -> Result<(), Stop> {
    let saved = to_output(arguments, |out| damaged::write(session, table, arguments.format, out))?;
    if let Some(complaint) = saved.complaint() {
        return Err(Stop::Message(complaint));
    }
    if let Some(path) = &arguments.output {
        eprintln!("exported {} rows to {}: nothing is damaged", saved.rows, path.display());
    }
    Ok(())
}

fn write(session: &mut dyn Session, query: &str, format: Format, out: &mut dyn Write) -> Result<u64, Stop> {
    let mut writer = Writer::new(out, format);
    let outcome = session.run(query, &mut writer);
    let finished = writer.finish(outcome.is_err());
    let rows = writer.rows();
    outcome.map_err(|error| Stop::Message(report::describe(&error, query).trim_end().to_owned()))?;
    finished.and_then(|()| out.flush()).map_err(|error| Stop::output(&error))?;
    Ok(rows)
}

/// Writes to the file that the arguments name, or to standard output.
fn to_output<T>(arguments: &Arguments, write: impl FnOnce(&mut dyn Write) -> Result<T, Stop>) -> Result<T, Stop> {
    match &arguments.output {
        None => write(&mut Stdout::lock()),
        Some(path) => to_file(path, write),
    }
}

fn to_file<T>(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<T, Stop>) -> Result<T, Stop> {
    let failed = |error: std::io::Error| Stop::Message(format!("cannot write {}: {error}", path.display()));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = BufWriter::new(File::create(&partial).map_err(failed)?);
    let outcome = write(&mut file);
    let synced = file.get_ref().sync_all();
    drop(file);
    match outcome.and_then(|written| synced.map(|()| written).map_err(failed)) {
        Ok(written) => std::fs::rename(&partial, path).map(|()| written).map_err(failed),
        Err(stop) => {
            // The half of it is of no use to anybody.
            let _ = std::fs::remove_file(&partial);
            Err(stop)
        }
    }
}
